"""The mesh: which links a packet takes, and who gets a copy.

Routing
-------
Dimension order, along x first or y first, as the profile says. Routing tables hold relative addresses. Several chips
make one continuous plane: a link from the last column of a chip to the first of the next is a link like any other, and
is counted as a crossing besides. The one way in and the one way out are links beside core (0, 0); each counts as a hop.

Multicast
---------
A *tree* is all that one packet becomes. Two kinds are known of the family; both send copies on within the same phase,
to the same axon number:

* forward registers: a core whose register is set forwards every flagged packet that reaches it to one further core,
  and keeps it (copy) or does not (relay). A chain ends at the first core without a register. Several lines of a routing
  table are several chains: that is a tree of several branches.
* steps: the packet itself says how many cores beyond its target, in a straight line, get a copy.

Each forwarding is a packet more (a *copy*), and its links are walked anew. Trees are fixed, so each is laid once, when
a program is put on the grid.

Links
-----
A straight stretch of a path is an interval of link numbers: links to the east and west are numbered row by row, links
to the south (larger y) and north column by column. So a tree of any length costs two additions a stretch, and one pass
over the links at the end of a phase gives every load.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from chip.core import ALONG_X, ALONG_Y, FLAGGED, FORWARD_OFF, FORWARD_RELAY, Core
from chip.profile import Profile
from stream.errors import CapacityError

__all__ = ["PORT", "Plane", "Tree", "lay_tree", "link_ends", "n_links", "plane_of"]

PORT = -1  # in place of a core's number: the host


class Plane(NamedTuple):
    """Where cores may stand."""

    width: int  # of all chips together, cores
    height: int
    chip_width: int
    chip_height: int
    x_first: bool


class Tree(NamedTuple):
    """What one packet becomes."""

    targets: list[int]  # cores that keep it, in the order in which it reaches them; PORT = the way out
    stretches: list[tuple[int, int]]  # half-open intervals of link numbers
    hops: int
    crossings: int  # of these, from chip to chip
    copies: int  # packets that a router sent on


def plane_of(profile: Profile, chips: tuple[int, int] = (1, 1), routing: str | None = None) -> Plane:
    """Lay (columns, rows) chips side by side; ``routing`` overrides the profile's."""
    width, height = profile.grid_width.value, profile.grid_height.value
    x_first = (routing or profile.routing.value) == "x_first"
    return Plane(width * chips[0], height * chips[1], width, height, x_first)


def n_links(plane: Plane) -> int:
    """Count the links: four for each core (those over the edge are never used), and the two ports."""
    return 4 * plane.width * plane.height + 2


def link_ends(plane: Plane, link: int) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Tell the places (x, y) that a link leaves and reaches; None = the host."""
    n = plane.width * plane.height
    if link >= 4 * n:
        return (None, (0, 0)) if link == 4 * n else ((0, 0), None)
    direction, at = divmod(link, n)
    if direction < 2:
        y, x = divmod(at, plane.width)
        return (x, y), (x + 1 - 2 * direction, y)
    x, y = divmod(at, plane.height)
    return (x, y), (x, y + 5 - 2 * direction)


def _straight(plane: Plane, at: tuple[int, int], axis: int, end: int) -> tuple[tuple[int, int], int, int]:
    """Go along one axis. Returns the interval of links, hops, crossings."""
    n, start = plane.width * plane.height, at[axis]
    base = at[1] * plane.width if axis == 0 else 2 * n + at[0] * plane.height
    size = plane.chip_width if axis == 0 else plane.chip_height
    # towards larger numbers a link is known by the core it leaves, and so it is towards smaller ones
    stretch = (base + start, base + end) if end > start else (n + base + end + 1, n + base + start + 1)
    return stretch, abs(end - start), abs(end // size - start // size)


def _walk(plane: Plane, tree: Tree, start: tuple[int, int], end: tuple[int, int]) -> Tree:
    """Add the way from place to place to a tree."""
    at, hops, crossings = list(start), tree.hops, tree.crossings
    for axis in (0, 1) if plane.x_first else (1, 0):
        if end[axis] != at[axis]:
            stretch, n_hops, n_crossings = _straight(plane, (at[0], at[1]), axis, end[axis])
            tree.stretches.append(stretch)
            hops, crossings = hops + n_hops, crossings + n_crossings
            at[axis] = end[axis]
    return tree._replace(hops=hops, crossings=crossings)


def lay_tree(
    plane: Plane,
    cores: Sequence[Core],
    places: Sequence[tuple[int, int]],
    at: Mapping[tuple[int, int], int],
    source: int,
    target: int,
    port: int,
    steps: int,
    where: str,
) -> Tree:
    """Follow a packet and its copies.

    Parameters
    ----------
    plane
        Where.
    cores, places, at
        Cores, their places, and which core stands where.
    source, target
        Numbers of cores, or PORT.
    port, steps
        As in a routing table.
    where
        Who sends it, for messages.

    Raises
    ------
    CapacityError
        If a copy goes nowhere, or comes back to a core that it has left.
    """
    port_link = 4 * plane.width * plane.height
    tree = Tree([], [], 0, 0, 0)
    if source == PORT:
        tree.stretches.append((port_link, port_link + 1))
        tree = _walk(plane, tree._replace(hops=1), (0, 0), places[target])
    elif target == PORT:
        tree = _walk(plane, tree, places[source], (0, 0))
        tree.stretches.append((port_link + 1, port_link + 2))
        return tree._replace(targets=[PORT], hops=tree.hops + 1)
    else:
        tree = _walk(plane, tree, places[source], places[target])
    if port in (ALONG_X, ALONG_Y):
        tree.targets.append(target)
        x, y = places[target]
        for k in range(1, abs(steps) + 1):
            d = k if steps > 0 else -k
            place = (x + d, y) if port == ALONG_X else (x, y + d)
            if place not in at:
                raise CapacityError(
                    f"{where}: copy to nowhere, there is no core at {place}, {k} steps on from ({x}, {y})"
                )
            tree = _walk(plane, tree, places[tree.targets[-1]], place)
            tree.targets.append(at[place])
        return tree._replace(copies=abs(steps))
    if port != FLAGGED:
        tree.targets.append(target)
        return tree
    seen = set()
    while True:
        forward = cores[target].forward
        if forward.mode != FORWARD_RELAY:
            tree.targets.append(target)
        if forward.mode == FORWARD_OFF:
            return tree
        seen.add(target)
        x, y = places[target]
        place = (x + forward.dx, y + forward.dy)
        if place not in at:
            raise CapacityError(
                f"{where}: core {target} ({cores[target].name}) at ({x}, {y}) forwards flagged packets to nowhere, "
                f"there is no core at {place}"
            )
        if at[place] in seen:
            raise CapacityError(
                f"{where}: flagged packet goes in a ring, core {target} ({cores[target].name}) at ({x}, {y}) forwards "
                f"it to {place} again; end the chain before"
            )
        tree = _walk(plane, tree, (x, y), place)._replace(copies=tree.copies + 1)
        target = at[place]
