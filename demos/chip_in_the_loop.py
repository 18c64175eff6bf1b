"""The chip in the loop: a learner in floating point, and the same network in 8-bit integers on the chip beside it.

``python demos/chip_in_the_loop.py --view``. Now and then the learner deploys its weights; both see the same events and
answer each recording.
"""

import argparse
from pathlib import Path

import numpy as np
from look import play
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sources.recordings import make_recordings
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import read_recording

SIDE, RUNNING = 34, 30
SENSOR = {"width": SIDE, "height": SIDE}


def main() -> None:
    """Learn, deploy, compare."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--per-class", type=int, default=40, help="recordings of each digit to learn from")
    options.add_argument("--asked", type=int, default=10, help="others of each digit, never taught")
    options.add_argument("--hidden", type=int, default=100)
    options.add_argument("--deploy-every", type=int, default=20, help="corrections between two deployments")
    options.add_argument("--view", action="store_true", help="show it in a browser while it runs")
    options.add_argument("--out", type=Path, default=Path("runs/chip"))
    given = options.parse_args()

    recordings = make_recordings(
        given.out / "recordings", **SENSOR, train_per_class=given.per_class, test_per_class=given.asked, seed=2
    )
    parts = [{"path": str(recordings / "train")}, {"path": str(recordings / "test"), "teach": False}]
    learner = {**SENSOR, "n_hidden": given.hidden, "n_classes": 10, "mode": "GP", "deploy_every": given.deploy_every}
    ports = {"float": "answers", "chip": "answers", "phases": "phases"}
    pipeline = Pipeline(
        name="chip-in-the-loop",
        source=[SourceSpec(name="camera", kind="sources.folder.LabelledFolder", params={**SENSOR, "parts": parts})],
        operator=[
            OperatorSpec(name="learner", kind="plasticity.learner.OnlineLearner", params=learner),
            OperatorSpec(name="chip", kind="chip.node.ChipNode", params={**SENSOR, "profile": "tianjic-2019"}),
            OperatorSpec(
                name="recorder",
                kind="stream.record.Recorder",
                params={"path": str(given.out / "answers.hbs"), "ports": ports},
            ),
        ],
        edge=[
            EdgeSpec(source="camera.events", target="learner.events"),
            EdgeSpec(source="learner.forward", target="chip.events"),
            EdgeSpec(source="learner.answers", target="recorder.float"),
            EdgeSpec(source="chip.answers", target="recorder.chip"),
            EdgeSpec(source="chip.phases", target="recorder.phases"),
        ],
    )
    result = play(pipeline, view=given.view)

    recording = read_recording(given.out / "answers.hbs")
    answers = {name: recording.items(name) for name in ("float", "chip")}
    phases = recording.items("phases")
    n_taught = int(answers["float"]["teach"].sum())
    agree = answers["float"]["answer"] == answers["chip"]["answer"]
    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, height_ratios=[4, 0.6, 2], sharex=True)
    for name, style in (("float", "-"), ("chip", "--")):
        is_right = (answers[name]["answer"] == answers[name]["label"]).astype(float)
        running = np.convolve(is_right, np.ones(RUNNING) / RUNNING, "valid")
        t_s = answers[name]["t"][RUNNING - 1 :] / 1e6
        top.plot(t_s, 100 * running, style, c={"float": "#0b62a8", "chip": "#d55e00"}[name], label=name)
    border_s = answers["float"]["t"][n_taught - 1] / 1e6
    top.axvspan(border_s, answers["float"]["t"][-1] / 1e6, color="0.92", lw=0)
    top.set(ylabel=f"right of the last {RUNNING} (%)", ylim=(0, 102))
    after = {name: np.mean(it["answer"][n_taught:] == it["label"][n_taught:]) for name, it in answers.items()}
    same = agree[n_taught:].mean()
    top.set_title(f"never taught (grey): float {after['float']:.0%}, chip {after['chip']:.0%}, same answer {same:.0%}")
    top.legend(loc="lower right")
    middle.vlines(answers["chip"]["t"][~agree] / 1e6, 0, 1, color="#a0487e", lw=1)
    middle.set(yticks=[], ylabel="differ", ylim=(0, 1))
    bins = np.linspace(0, answers["float"]["t"][-1] / 1e6, 200)
    packets, _ = np.histogram(phases["t"] / 1e6, bins, weights=phases["packets"])
    bottom.fill_between(bins[1:], packets / np.diff(bins) / 1e3, color="#7a868f", lw=0)
    bottom.set(xlabel="stream time (s)", ylabel="packets on the\nmesh (1000/s)", ylim=(0, None))
    given.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.out / "chip.png", dpi=120)
    deploys = result.members["chip"]["deploys"]
    print(f"{deploys:.0f} deployments, {phases['packets'].sum():,} packets; never taught: float {after['float']:.1%}, "
          f"chip {after['chip']:.1%}, same answer {same:.1%}")  # fmt: skip
    print(f"picture: {given.out / 'chip.png'}")


if __name__ == "__main__":
    main()
