"""Where cores stand, and which packets share a way.

What is minimised
-----------------
Packets x hops in a phase: over all pairs of cores, the packets that one sends to the other times the links between
their places; input enters and output leaves beside core (0, 0), one link more::

    cost = sum over ways  packets * (|dx| + |dy|)  +  sum over input and output  packets * (x + y + 1)

How
---
Simulated annealing: two places change what stands on them, and a change for the worse is kept with probability
exp(-worse / temperature), the temperature sinking from a typical change to nothing; the second place comes from a
square around the first that shrinks with it. It starts from cores in a snake, so that what was cut from one layer
stands together, and the best placement seen is returned. Same seed, same placement.

A placement cannot change a result: what adds up on an axon is ordered by the number of the core in the program
(:mod:`chip.grid`).

The roads not taken: an exact solution (a quadratic assignment: out of reach for 156 cores), and spectral ordering,
which knows distances along a line only.

Multicast
---------
Packets of one neuron that go to the same axon number of cores in an unbroken straight line become one packet to the
nearer end of the line, and from there on, core by core, in steps (the profile says how many). Who shares a line is
looked for after placing, longest line first; the cost above does not know it.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from chip.core import ALONG_X, ALONG_Y, TO_CORE
from chip.mesh import PORT
from chip.profile import Profile
from stream.errors import CapacityError, ConfigError
from stream.jit import kernel

__all__ = ["PLACEMENTS", "Way", "anneal", "cost_of", "lines_through", "place", "random_places", "row_major"]

PLACEMENTS = ("annealed", "nearest", "rows", "random")
SWEEPS = 4000  # changes tried for each core
STARTS = 4  # of these the best; they differ by a good part, and all of them take a fraction of a second


class Way(NamedTuple):
    """Packets from core to core in a phase; PORT is outside."""

    source: int
    target: int
    packets: float


def row_major(profile: Profile, n: int) -> list[tuple[int, int]]:
    """List ``n`` places row by row."""
    width = profile.grid_width.value
    return [(k % width, k // width) for k in range(n)]


def nearest_first(profile: Profile, n: int) -> list[tuple[int, int]]:
    """List ``n`` places, those nearest to the port first, ties along y."""
    places = row_major(profile, profile.n_cores)
    return sorted(places, key=lambda place: (place[0] + place[1], place[1]))[:n]


def random_places(profile: Profile, n: int, seed: int) -> list[tuple[int, int]]:
    """Draw ``n`` places."""
    order = np.random.default_rng(seed).permutation(profile.n_cores)[:n]
    return [(int(k) % profile.grid_width.value, int(k) // profile.grid_width.value) for k in order]


def cost_of(ways: list[Way], places: list[tuple[int, int]]) -> float:
    """Return packets x hops in a phase, without multicasts."""
    total = 0.0
    for source, target, packets in ways:
        if PORT in (source, target):
            x, y = places[max(source, target)]
            total += packets * (x + y + 1)
        else:
            (x, y), (to_x, to_y) = places[source], places[target]
            total += packets * (abs(x - to_x) + abs(y - to_y))
    return total


@kernel
def _next(seed: Any) -> Any:
    """Step a 64-bit xorshift generator."""
    s = seed[0]
    s ^= s << np.uint64(13)
    s ^= s >> np.uint64(7)
    s ^= s << np.uint64(17)
    seed[0] = s
    return s


@kernel
def _copy(source: Any, target: Any) -> None:
    """Copy an array; an assignment of slices would need memory management."""
    for k in range(len(source)):
        target[k] = source[k]


@kernel
def _below(seed: Any, n: Any) -> Any:
    """Draw a whole number below ``n``."""
    return np.int64(_next(seed) >> np.uint64(11)) % n


@kernel
def _pull(
    core: Any, at: Any, other: Any, start: Any, neighbour: Any, packets: Any, port: Any, place: Any, width: int
) -> Any:
    """Return the cost of all ways of a core if it stood at ``at``; its way to ``other`` is left out."""
    x, y = at % width, at // width
    total = port[core] * np.float64(x + y + 1)
    for k in range(start[core], start[core + 1]):
        if neighbour[k] != other:
            there = place[neighbour[k]]
            total += packets[k] * np.float64(abs(x - there % width) + abs(y - there // width))
    return total


@kernel
def _anneal(
    start: Any,
    neighbour: Any,
    packets: Any,
    port: Any,
    place: Any,
    core_at: Any,
    width: int,
    height: int,
    n_tries: int,
    hot: float,
    seed: Any,
    best: Any,
) -> Any:
    """Swap places; ``best`` gets the best placement. Returns how much less it costs than the one at the start."""
    n_cores = len(place)
    _copy(place, best)
    gained, most_gained = 0.0, 0.0
    for t in range(n_tries):
        left = 1.0 - t / n_tries
        temperature = hot * left * left * left
        core = _below(seed, n_cores)
        here = place[core]
        reach = 1 + np.int64(np.float64(max(width, height)) * left)
        x = here % width - reach + _below(seed, 2 * reach + 1)
        y = here // width - reach + _below(seed, 2 * reach + 1)
        if x < 0 or x >= width or y < 0 or y >= height:
            continue
        there = y * width + x
        if there == here:
            continue
        other = core_at[there]
        change = _pull(core, there, other, start, neighbour, packets, port, place, width)
        change -= _pull(core, here, other, start, neighbour, packets, port, place, width)
        if other >= 0:
            change += _pull(other, here, core, start, neighbour, packets, port, place, width)
            change -= _pull(other, there, core, start, neighbour, packets, port, place, width)
        if change > 0.0:
            if temperature <= 0.0:
                continue
            if np.float64(_next(seed) >> np.uint64(11)) * 2.0**-53 >= math.exp(-change / temperature):
                continue
        place[core] = there
        core_at[there] = core
        core_at[here] = other
        if other >= 0:
            place[other] = here
        gained -= change
        if gained > most_gained + 1e-12:
            most_gained = gained
            _copy(place, best)
    return most_gained


def anneal(ways: list[Way], profile: Profile, n: int, *, seed: int = 1, sweeps: int = SWEEPS) -> list[tuple[int, int]]:
    """Find places for ``n`` cores; see above.

    Parameters
    ----------
    ways
        Who sends how much to whom.
    profile
        The chip.
    n
        How many cores there are.
    seed
        Same seed, same places.
    sweeps
        Changes tried for each core.

    Returns
    -------
    list of (x, y)
    """
    width, height = profile.grid_width.value, profile.grid_height.value
    between: dict[tuple[int, int], float] = {}
    port = np.zeros(n)
    for source, target, amount in ways:
        if PORT in (source, target):
            port[max(source, target)] += amount
        elif source != target:
            for pair in ((source, target), (target, source)):
                between[pair] = between.get(pair, 0.0) + amount
    pairs = np.array(sorted(between), np.int64).reshape(-1, 2)
    packets = np.array([between[int(a), int(b)] for a, b in pairs])
    start = np.searchsorted(pairs[:, 0], np.arange(n + 1)).astype(np.int64)
    snake = [y * width + (x if y % 2 == 0 else width - 1 - x) for y in range(height) for x in range(width)]
    neighbour = np.ascontiguousarray(pairs[:, 1])
    hot = float(max(width, height)) * float(packets.sum() + port.sum()) / max(n, 1) / 4
    state = np.array([(seed * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03) % 2**64 or 1], np.uint64)
    found: list[list[tuple[int, int]]] = []
    for _ in range(STARTS):
        best = np.array(snake[:n], np.int64)
        # once hot, and once more cold: what is left to gain by single changes
        for temperature, tries in ((hot, sweeps * max(n, 16)), (0.0, sweeps * max(n, 16) // 2)):
            place, core_at = best.copy(), np.full(width * height, -1, np.int64)
            core_at[place] = np.arange(n)
            _anneal(start, neighbour, packets, port, place, core_at, width, height, tries, temperature, state, best)
        found.append([(int(k) % width, int(k) // width) for k in best])
    return min(found, key=lambda places: cost_of(ways, places))


def place(kind: str, ways: list[Way], profile: Profile, n: int, seed: int) -> list[tuple[int, int]]:
    """Place ``n`` cores.

    Parameters
    ----------
    kind
        ``annealed``; ``nearest``: to the port, in the order of the program; ``rows``: row by row; ``random``.
    ways, profile, n, seed
        As for :func:`anneal`.
    """
    if n > profile.n_cores:
        raise CapacityError(f"{n} cores, {profile.name} has {profile.n_cores}")
    match kind:
        case "annealed":
            return anneal(ways, profile, n, seed=seed)
        case "nearest":
            return nearest_first(profile, n)
        case "rows":
            return row_major(profile, n)
        case "random":
            return random_places(profile, n, seed)
    raise ConfigError(f"placement {kind!r}: wanted one of {', '.join(PLACEMENTS)}")


class Line(NamedTuple):
    """A packet's way: to a core, and on to ``steps`` more in a straight line."""

    target: int
    port: int
    steps: int


def lines_through(
    source: tuple[int, int], targets: list[int], places: list[tuple[int, int]], most_steps: int
) -> list[Line]:
    """Cover cores with as few packets as straight lines allow.

    Parameters
    ----------
    source
        Where the packets come from.
    targets
        Numbers of the cores that want one each.
    places
        Of all cores.
    most_steps
        Cores beyond the first that one packet may visit.
    """
    left = {places[target]: target for target in targets}
    lines = []
    while left:
        best: list[tuple[int, int]] = []
        port = TO_CORE
        if most_steps:
            for x, y in sorted(left):
                for direction, dx, dy in ((ALONG_X, 1, 0), (ALONG_Y, 0, 1)):
                    if (x - dx, y - dy) in left:
                        continue  # not the end of its line
                    run = [(x, y)]
                    while len(run) <= most_steps and (run[-1][0] + dx, run[-1][1] + dy) in left:
                        run.append((run[-1][0] + dx, run[-1][1] + dy))
                    if len(run) > max(len(best), 1):
                        best, port = run, direction
        if not best:
            lines += [Line(target, TO_CORE, 0) for _, target in sorted(left.items())]
            break
        far = [abs(place[0] - source[0]) + abs(place[1] - source[1]) for place in (best[0], best[-1])]
        n_steps = len(best) - 1
        entry, steps = (best[0], n_steps) if far[0] <= far[1] else (best[-1], -n_steps)
        lines.append(Line(left[entry], port, steps))
        for spot in best:
            del left[spot]
    return lines
