"""What a run has shown: accuracies before, while and after learning, agreement, a picture.

Everything here is computed from the recording alone, so that it can be done again from the file.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.table import Table

from stream.packet import ANSWER_DTYPE, ITEM_DTYPES, PHASE_DTYPE, SPIKE_DTYPE
from stream.record import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Part", "Summary", "draw", "summarise", "summary_table", "to_json"]

RUNNING = 50  # recordings in the running accuracy
FEW = 10  # recordings without which a running accuracy says nothing


class Part(NamedTuple):
    """A run of answers that were all taught, or all not."""

    name: str  # "before learning", "while learning", "after learning"
    teach: bool
    first: int  # index of its first answer
    stop: int


class Summary(NamedTuple):
    """What a recording says about learning."""

    parts: list[Part]
    answers: dict[str, NDArray[np.void]]  # ANSWER_DTYPE, by port
    agreement: dict[str, float]  # share of equal answers of the first and the second port, by part
    spikes: NDArray[np.void]  # SPIKE_DTYPE of the first port that has them, may be empty
    phases: NDArray[np.void]  # PHASE_DTYPE, may be empty
    torn: str

    def accuracy(self, port: str, part: Part) -> float:
        """Share of right answers of a port in a part; nan if it gave none to what has a label."""
        answers = self.answers[port][part.first : part.stop]
        answers = answers[answers["label"] >= 0]
        return float(np.mean(answers["answer"] == answers["label"])) if len(answers) else float("nan")

    @property
    def is_labelled(self) -> bool:
        """Whether any answer can be told right or wrong."""
        return any(bool((answers["label"] >= 0).any()) for answers in self.answers.values())

    def counts(self, port: str) -> NDArray[np.int64]:
        """How often a port gave each answer; int64, shape (n_classes,), the same for all ports."""
        n = 1 + max((int(answers["answer"].max()) for answers in self.answers.values() if len(answers)), default=-1)
        given = self.answers[port]["answer"]
        return np.bincount(given[given >= 0], minlength=n)


def summarise(recording: Recording) -> Summary:
    """Find the answers, spikes and chip phases in a recording and count.

    A part is called by what was learned before it: an untaught part before any taught one is "before learning".
    """
    found: dict[str, dict[str, NDArray[np.void]]] = {item: {} for item in ITEM_DTYPES}
    for port, item in recording.ports.items():
        found[item][port] = recording.items(port)
    answers = found["answers"]
    first = next(iter(answers.values()), np.zeros(0, ANSWER_DTYPE))
    parts = _parts(first["teach"])
    agreement: dict[str, float] = {}
    if len(answers) >= 2:
        mine, theirs = list(answers.values())[:2]
        for part in parts:
            span = slice(part.first, min(part.stop, len(theirs)))
            if span.stop > span.start:
                agreement[part.name] = float(np.mean(mine["answer"][span] == theirs["answer"][span]))
    spikes = next(iter(found["spikes"].values()), np.zeros(0, SPIKE_DTYPE))
    phases = next(iter(found["phases"].values()), np.zeros(0, PHASE_DTYPE))
    return Summary(parts, answers, agreement, spikes, phases, recording.torn)


def _parts(teach: NDArray[np.uint8]) -> list[Part]:
    cuts = [0, *(np.flatnonzero(np.diff(teach.astype(np.int8))) + 1).tolist(), len(teach)]
    parts: list[Part] = []
    for first, stop in itertools.pairwise(cuts):
        if stop == first:
            continue
        taught = bool(teach[first])
        name = (
            "while learning" if taught else "after learning" if any(part.teach for part in parts) else "before learning"
        )
        again = sum(part.name.startswith(name) for part in parts)
        parts.append(Part(f"{name} ({again + 1})" if again else name, taught, first, stop))
    return parts


def summary_table(summary: Summary) -> Table:
    """Draw accuracies and agreement as a table for the terminal; how often each answer came, if nothing has a label."""
    if not summary.is_labelled:
        table = Table(title="answers, without labels", title_justify="left", title_style="bold", box=SIMPLE)
        table.add_column("class")
        columns = [summary.counts(port) for port in summary.answers]
        for port in summary.answers:
            table.add_column(f"{port}, how often", justify="right")
        for number, row in enumerate(zip(*columns, strict=True)):
            table.add_row(str(number), *(f"{n:,}" for n in row))
        return table
    table = Table(title="answers: share that was right", title_justify="left", title_style="bold", box=SIMPLE)
    table.add_column("")
    table.add_column("recordings", justify="right")
    for port in summary.answers:
        table.add_column(port, justify="right")
    if summary.agreement:
        table.add_column("agreement", justify="right")
    for part in summary.parts:
        cells = [part.name, f"{part.stop - part.first:,}"]
        right = [summary.accuracy(port, part) for port in summary.answers]
        cells += ["-" if math.isnan(share) else f"{share:.1%}" for share in right]
        if summary.agreement:
            cells.append(f"{summary.agreement.get(part.name, float('nan')):.1%}")
        table.add_row(*cells)
    return table


def to_json(summary: Summary) -> dict[str, Any]:
    """Return the figures as plain values."""
    return {
        "parts": [
            {
                "name": part.name,
                "recordings": part.stop - part.first,
                "accuracy": {
                    port: None if math.isnan(share := summary.accuracy(port, part)) else share
                    for port in summary.answers
                },
                "agreement": summary.agreement.get(part.name),
            }
            for part in summary.parts
        ],
        "answers": {port: summary.counts(port).tolist() for port in summary.answers},
        "spikes": len(summary.spikes),
        "chip_phases": len(summary.phases),
        "chip_synaptic_ops": int(summary.phases["synaptic_ops"].sum()),
        "chip_packets": int(summary.phases["packets"].sum()),
        "chip_hops": int(summary.phases["hops"].sum()),
        "torn": summary.torn,
    }


def running(values: NDArray[Any], window: int) -> NDArray[np.float64]:
    """Mean over the last ``window`` values (fewer at the beginning), shape as given."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - window)
    mean: NDArray[np.float64] = (total[stop] - total[start]) / (stop - start)
    return mean


def draw(summary: Summary, path: Path, *, title: str) -> None:
    """Draw the summary as a picture: accuracy over the run, spikes of the last recording, load of the chip.

    Where nothing has a label: answers over the run. What was not recorded has no panel.

    Parameters
    ----------
    summary
        What to draw.
    path
        A ``.png``, ``.svg`` or ``.pdf`` file to write.
    title
        Head of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    is_labelled = summary.is_labelled
    panels: list[Callable[[Summary, Axes], None]] = [_draw_bars if is_labelled else _draw_counts]
    panels += [_draw_spikes] if len(summary.spikes) else []
    panels += [_draw_load] if len(summary.phases) else []
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, len(panels), height_ratios=(1.25, 1))
    figure.suptitle(title, fontsize=13)
    (_draw_accuracy if is_labelled else _draw_answers)(summary, figure.add_subplot(grid[0, :]))
    for k, panel in enumerate(panels):
        panel(summary, figure.add_subplot(grid[1, k]))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


# Okabe and Ito's colours, told apart by colour-blind people (jfly.uni-koeln.de/color)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def _draw_accuracy(summary: Summary, axes: "Axes") -> None:
    # where two curves agree, the lower one shows through the dashes of the upper one
    for (port, answers), colour, style in zip(summary.answers.items(), COLOURS, ("-", "--", ":", "-."), strict=False):
        for index, part in enumerate(summary.parts):
            mine = answers[part.first : part.stop]
            has_label = mine["label"] >= 0
            right = (mine["answer"] == mine["label"])[has_label]
            x = (part.first + np.flatnonzero(has_label))[FEW:]
            label = f"{port}, mean of the last {RUNNING}" if index == 0 else None
            axes.plot(x, 100 * running(right, RUNNING)[FEW:], color=colour, label=label, linewidth=1.8, linestyle=style)
    for part in summary.parts:
        if not part.teach:
            axes.axvspan(part.first, part.stop, color="0.93", zorder=0)
        axes.text((part.first + part.stop) / 2, 103, part.name, ha="center", va="bottom", fontsize=9, color="0.3")
    axes.set(xlabel="recording", ylabel="right answers (%)", ylim=(0, 102))
    axes.set_xlim(0, max((part.stop for part in summary.parts), default=1))
    axes.grid(alpha=0.3)
    if summary.answers:
        axes.legend(loc="lower right", fontsize=9)


def _draw_bars(summary: Summary, axes: "Axes") -> None:
    held_out = [part for part in summary.parts if not part.teach] or summary.parts
    width = 0.8 / max(1, len(summary.answers))
    for offset, (port, colour) in enumerate(zip(summary.answers, COLOURS, strict=False)):
        heights = [100 * summary.accuracy(port, part) for part in held_out]
        x = np.arange(len(held_out)) + offset * width
        bars = axes.bar(x, heights, width * 0.92, color=colour, label=port)
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(np.arange(len(held_out)) + 0.4 - width / 2, [part.name for part in held_out], fontsize=9)
    axes.set(title="never taught", ylabel="right answers (%)", ylim=(0, 110))
    if summary.answers:
        axes.legend(fontsize=8, loc="upper left")


def _draw_answers(summary: Summary, axes: "Axes") -> None:
    """Draw what was answered when."""
    from matplotlib.ticker import MaxNLocator

    begin_us = min((int(answers["t"][0]) for answers in summary.answers.values() if len(answers)), default=0)
    for (port, answers), colour in zip(summary.answers.items(), COLOURS, strict=False):
        axes.plot((answers["t"] - begin_us) / 1e6, answers["answer"], ".", color=colour, markersize=6, label=port)
    n = max(len(summary.counts(port)) for port in summary.answers)
    axes.set(xlabel="s of stream", ylabel="answer", ylim=(-0.5, max(n, 2) - 0.5))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=9)


def _draw_counts(summary: Summary, axes: "Axes") -> None:
    """Draw how often each answer came."""
    width = 0.8 / max(1, len(summary.answers))
    for offset, (port, colour) in enumerate(zip(summary.answers, COLOURS, strict=False)):
        counts = summary.counts(port)
        bars = axes.bar(np.arange(len(counts)) + offset * width, counts, width * 0.92, color=colour, label=port)
        axes.bar_label(bars, fontsize=8)
    axes.set_xticks(np.arange(len(counts)) + 0.4 - width / 2, [str(k) for k in range(len(counts))])
    axes.set(title="nothing had a label", xlabel="answer", ylabel="how often")
    axes.margins(y=0.15)


def _last_window(
    summary: Summary, items: NDArray[np.void]
) -> tuple[NDArray[np.void], NDArray[np.float64], NDArray[np.void]]:
    """Find what happened during the last judged recording.

    Returns
    -------
    answer, ms, shown
        ANSWER_DTYPE of shape (0,) or (1,); times since its start in ms and items, each of shape (n,).
    """
    answers = next(iter(summary.answers.values()), np.zeros(0, ANSWER_DTYPE))[-1:]
    if not len(answers):
        return answers, np.zeros(0), items[:0]
    shown = items[(items["t"] >= answers["start"]) & (items["t"] < answers["t"])]
    return answers, (shown["t"] - answers["start"]) / 1000, shown


def _draw_spikes(summary: Summary, axes: "Axes") -> None:
    """Draw the hidden spikes of the last recording: what the network says while it looks."""
    answer, ms, shown = _last_window(summary, summary.spikes)
    axes.plot(ms, shown["unit"], ".", markersize=2, color=COLOURS[2])
    label = f" a {answer['label'][0]}," if len(answer) and answer["label"][0] >= 0 else ""
    said = f":{label} said {answer['answer'][0]}" if len(answer) else ""
    axes.set_title(f"hidden spikes, last recording{said}", fontsize=10)
    axes.set(xlabel="time (ms)", ylabel="unit")


def _draw_load(summary: Summary, axes: "Axes") -> None:
    """Draw what the chip did in each phase of the last recording."""
    _, ms, shown = _last_window(summary, summary.phases)
    axes.set_title("chip, same recording, per phase", fontsize=10)
    axes.set_xlabel("time (ms)")
    axes.fill_between(ms, shown["packets"], color=COLOURS[1], alpha=0.35, linewidth=0)
    axes.set_ylabel("packets on the mesh", color=COLOURS[1])
    axes.set_ylim(0)
    events = axes.twinx()
    events.plot(ms, shown["spikes_in"], color=COLOURS[0], linewidth=1)
    events.set_ylabel("events in", color=COLOURS[0])
    events.set_ylim(0)
