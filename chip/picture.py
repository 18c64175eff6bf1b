"""A picture of a program: cores where they stand, coloured by what they did, and the links between them by load."""

from pathlib import Path
from typing import Any

from chip.compiler import Program
from chip.mesh import link_ends, plane_of
from chip.run import Measured

__all__ = ["draw"]

GROUND, INK, EMPTY = "#fbfaf7", "#22252b", "#eceae4"


def _short(name: str, n: int = 9) -> str:
    return name if len(name) <= n else f"{name[: n - 1]}…"


def draw(path: Path, program: Program, measured: Measured, title: str) -> None:
    """Draw the grid to a file (PNG, SVG or PDF by suffix).

    A square is a core: its colour says how many synaptic operations a phase it did, its frame which layer it belongs
    to, a dotted frame that it only sums. The bar in it is the share of its synapses that the program uses. Lines are
    links, one for each direction (traffic keeps to the right), the wider and the darker the more packets a phase.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    plane = plane_of(program.profile)
    n_phases = max(measured.phases, 1)
    ops, loads = measured.core_ops / n_phases, measured.link_total / n_phases
    layers = program.woven.layers
    colours = mpl.colormaps["tab10" if len(layers) <= 10 else "tab20"]
    heat, load_map = mpl.colormaps["YlOrRd"], mpl.colormaps["Blues"]
    most_ops, most_load = max(float(ops.max(initial=0)), 1e-9), max(float(loads.max(initial=0)), 1e-9)
    figure = Figure(figsize=(0.78 * plane.width + 4.4, 0.78 * plane.height + 1.6), facecolor=GROUND)
    axes: Any = figure.add_axes((0.02, 0.03, 0.70, 0.88))
    axes.set_xlim(-1.1, plane.width - 0.4)
    axes.set_ylim(plane.height - 0.4, -1.0)
    axes.set_aspect("equal")
    axes.axis("off")
    for x in range(plane.width):
        for y in range(plane.height):
            axes.add_patch(Rectangle((x - 0.3, y - 0.3), 0.6, 0.6, facecolor=EMPTY, edgecolor="none"))
    for link, load in zip(program.grid.links, loads, strict=True):
        if not load:
            continue
        start, stop = link_ends(plane, int(link))
        share = float(load) / most_load
        style = {"color": load_map(0.35 + 0.65 * share), "linewidth": 0.8 + 4.2 * share, "solid_capstyle": "butt"}
        if start is None or stop is None:
            shift = -0.1 if start is None else 0.1
            axes.plot([-0.9, -0.3], [shift, shift], **style)
            axes.annotate(
                "in" if start is None else "out", (-0.95, shift), ha="right", va="center", fontsize=8, color=INK
            )
            continue
        dx, dy = stop[0] - start[0], stop[1] - start[1]
        side_x, side_y = -0.09 * dy, 0.09 * dx
        axes.plot(
            [start[0] + 0.3 * dx + side_x, stop[0] - 0.3 * dx + side_x],
            [start[1] + 0.3 * dy + side_y, stop[1] - 0.3 * dy + side_y],
            **style,
        )
    whole = program.profile.axons_per_core.value * program.profile.neurons_per_core.value
    for k, (part, (x, y)) in enumerate(zip(program.parts, program.positions, strict=True)):
        share = float(ops[k]) / most_ops
        axes.add_patch(
            Rectangle(
                (x - 0.3, y - 0.3),
                0.6,
                0.6,
                facecolor=heat(0.08 + 0.8 * share),
                edgecolor=colours(part.layer % colours.N),
                linewidth=2.2,
                linestyle="-" if part.holds_neurons else ":",
            )
        )
        used = program.cores[k].weight.size / whole
        axes.add_patch(Rectangle((x - 0.24, y + 0.17), 0.48, 0.06, facecolor="white", edgecolor="none", alpha=0.8))
        axes.add_patch(Rectangle((x - 0.24, y + 0.17), 0.48 * min(used, 1.0), 0.06, facecolor=INK, edgecolor="none"))
        ink = "white" if share > 0.62 else INK
        count = f"{ops[k]:.0f}" if ops[k] >= 10 or not ops[k] else f"{ops[k]:.1f}"
        axes.text(x, y - 0.03, count, ha="center", va="center", fontsize=7.5, color=ink)
    axes.set_title(title, loc="left", fontsize=12, color=INK, x=0.05)
    handles = []
    for number, layer in enumerate(layers):
        n_cores = sum(part.layer == number for part in program.parts)
        words = f"{_short(layer.name, 22)}: {n_cores} core{'s' if n_cores != 1 else ''}"
        handles.append(Patch(facecolor="none", edgecolor=colours(number % colours.N), linewidth=2.2, label=words))
    totals = measured.totals
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.73, 0.90), frameon=False, fontsize=9, labelcolor=INK
    )
    lines = [
        f"{len(program.cores)} of {program.profile.n_cores} cores",
        f"number in a core: synaptic operations a phase, at most {most_ops:,.0f}",
        "bar in a core: share of its synapses in use",
        "dotted frame: only sums",
        "",
        f"busiest link: {most_load:,.1f} packets a phase on average,",
        f"    {totals['busiest_link']:,} in its busiest phase",
        f"packets a phase: {totals['packets'] / n_phases:,.1f}, hops {totals['hops'] / n_phases:,.1f}",
        f"longest phase: {totals['clocks']:,} of {program.profile.phase_clocks.value or 'any number of':,} clocks"
        if program.profile.phase_clocks.value
        else f"longest phase: {totals['clocks']:,} clocks",
        f"phases too long: {totals['overruns']:,} of {measured.phases:,}",
        "",
        f"run: {measured.source}",
    ]
    figure.text(0.735, 0.04, "\n".join(lines), va="bottom", ha="left", fontsize=8.5, color=INK, linespacing=1.5)
    figure.savefig(path, dpi=110, facecolor=GROUND)
