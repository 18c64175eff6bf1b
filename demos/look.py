"""What the demos share: a picture of events, in the colours of the live page; a run, with that page or without."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stream.pipeline import Pipeline
from stream.run import RunResult, run
from stream.show import run_shown

BRIGHTER, DARKER = "#0b62a8", "#d55e00"


def draw_events(events: NDArray[np.void], width: int, height: int, path: Path, title: str, n_panels: int = 6) -> None:
    """Draw a stream as a row of images, each a sixth of it.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,), sorted by time.
    width, height
        The sensor, pixels.
    path
        Picture to write.
    title
        Its head.
    n_panels
        How many images.
    """
    figure = Figure(figsize=(2.2 * n_panels, 2.2 * height / width + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    cuts = np.linspace(int(events["t"][0]), int(events["t"][-1]) + 1, n_panels + 1) if len(events) else np.arange(7)
    for axes, start_us, stop_us in zip(figure.subplots(1, n_panels), cuts, cuts[1:], strict=False):
        shown = events[(events["t"] >= start_us) & (events["t"] < stop_us)][-3000:]
        for polarity, colour in ((0, DARKER), (1, BRIGHTER)):
            these = shown[shown["p"] == polarity]
            axes.scatter(these["x"], these["y"], s=2, c=colour, linewidths=0)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[], aspect="equal")
        axes.set_title(f"{start_us / 1e6:.2f} s", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def play(pipeline: Pipeline, *, view: bool) -> RunResult:
    """Run a pipeline here, or one process per node beside the live page; the same bits either way."""
    return run_shown(pipeline) if view else run(pipeline, processes=False)
