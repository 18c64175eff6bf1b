"""Teach two things with a few shows each, then ask: the label marks come from a person; here a script plays the person.

``python demos/teach_few_shows.py``. To do it by hand: ``hebbstream run demos/teach.toml --view``, type a name, hold the
button.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stream.host import Control
from stream.pipeline import load
from stream.record import read_recording
from stream.run import run

TEACH_US = 2_500_000


def main() -> None:
    """Teach, ask, draw."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--speed", type=float, default=2.0, help="stream seconds per second")
    options.add_argument("--out", type=Path, default=Path("runs/teach"))
    given = options.parse_args()
    pipeline = load(Path(__file__).parent / "teach.toml")
    pipeline.source[0].speed = given.speed
    pipeline.source[0].loop = 1
    pipeline.source[0].params["duration_us"] = 4_000_000
    pipeline.operator[1].params["path"] = str(given.out / "lesson.hbs")
    stream_us, shown = 0, [-1]

    def on_status(statuses: dict[str, Any], phase: str) -> None:
        nonlocal stream_us
        stream_us = max((status.stream_us for status in statuses.values()), default=0)

    def hand() -> list[Control]:
        """Show one thing, then the other, then nothing."""
        wanted = -1 if stream_us > TEACH_US else 1 if stream_us > TEACH_US // 2 else 0
        if wanted == shown[-1]:
            return []
        shown.append(wanted)
        return [Control(show=wanted)]

    run(pipeline, processes=False, on_status=on_status, controls=hand)
    answers = read_recording(given.out / "lesson.hbs").items("answers")
    figure = Figure(figsize=(9, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    taught = answers["teach"] == 1
    axes.plot(answers["t"] / 1e6, answers["answer"], "o-", color="#0b62a8", label="answer", markersize=4)
    axes.plot(answers["t"][taught] / 1e6, answers["label"][taught], "x", color="#d55e00", label="taught")
    axes.set(xlabel="stream time (s)", ylabel="class", yticks=range(4), title="taught while shown, then left alone")
    axes.legend()
    figure.savefig(given.out / "teach.png", dpi=120)
    late = answers[~taught][-8:]
    print(
        f"{int(np.sum(taught))} label marks; then it says {late['answer'].tolist()}; picture: {given.out / 'teach.png'}"
    )


if __name__ == "__main__":
    main()
