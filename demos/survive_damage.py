"""Survive noise, hot and dead pixels while streaming: four ways to learn beside each other, on screen at once.

``python demos/survive_damage.py --view``: one camera feeds GP (global corrections alone), LP (local plasticity alone),
HP (both) and HP+STP (both, with terminals that tire). Each learns from the same clean digits as they pass; then the
camera is damaged, and nothing is taught any more. On real recordings, over three seeds: docs/results.md.
"""

import argparse
from pathlib import Path

import numpy as np
from look import play
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neurons.graph_file import save_graph
from sources.added_noise import AddedNoise
from sources.atis_bin import write_atis_bin
from sources.event_file import read_events
from sources.filter_damage import Damage
from sources.filter_operator import EventFilter
from sources.recordings import make_recordings
from stream.packet import Message, Packet
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import read_recording
from stream.train import dense_layers

SIDE = 34
SENSOR = {"width": SIDE, "height": SIDE}
ENDS = {"source": "input", "target": "hidden1"}
HEBB = {**ENDS, "rule": "Hebbian"}
TIRED = {
    **ENDS,
    "rule": "ShortTerm",
    "depletion": 0.2,
    "tau_rec_us": 3e5,
    "f_rest": 0.25,
    "f_step": 0.5,
    "tau_fac_us": 1e4,
}
METHODS = {
    "GP": {"learn": ["weights", "times"]},
    "LP": {"learn": ["weights"], "rules": [HEBB], "held": ["hidden1"]},
    "HP": {"learn": ["weights", "rules", "times"], "rules": [HEBB]},
    "HP-STP": {"learn": ["weights", "rules", "times"], "rules": [HEBB, TIRED]},
}
COLOURS = {"GP": "#0b62a8", "LP": "#e69f00", "HP": "#007a57", "HP-STP": "#a0487e"}


def damaged(name: str) -> EventFilter | None:
    """Make what damages the camera."""
    if name == "noise":
        return AddedNoise(**SENSOR, rate_hz=26e3, seed=1)
    if name == "20 hot pixels":
        return AddedNoise(**SENSOR, rate_hz=0.0, n_hot=20, seed=1)
    return Damage(**SENSOR, kind="dead area", level=8, seed=1) if name == "dead area" else None


def damage(source: Path, target: Path, name: str) -> None:
    """Write each recording of a folder as a damaged camera would have."""
    for path in sorted(source.glob("*/*.bin")):
        events, kept = read_events(path, **SENSOR).events, []

        def take(port: str, message: Message, kept: list[np.ndarray] = kept) -> None:
            if isinstance(message, Packet):
                kept.append(message.items.copy())

        operator = damaged(name)
        if operator is None:
            kept.append(events)
        else:
            operator.on_packet("events", Packet(events, int(events["t"][0]), int(events["t"][-1]) + 1), take)
        out = target / path.parent.name / path.name
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atis_bin(out, np.concatenate(kept))


def main() -> None:
    """Learn, be damaged, draw."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--per-class", type=int, default=60, help="recordings of each digit to learn from")
    options.add_argument("--asked", type=int, default=8, help="others of each digit, asked under each damage")
    options.add_argument("--hidden", type=int, default=100)
    options.add_argument("--view", action="store_true", help="show it in a browser while it runs")
    options.add_argument("--out", type=Path, default=Path("runs/survive"))
    given = options.parse_args()

    recordings = make_recordings(
        given.out / "recordings", **SENSOR, train_per_class=given.per_class, test_per_class=given.asked, seed=1
    )
    spans = ["clean", "noise", "20 hot pixels", "dead area"]
    parts = [{"path": str(recordings / "train"), "teach": True}]
    for name in spans:
        damage(recordings / "test", given.out / name.replace(" ", "-"), name)
        parts.append({"path": str(given.out / name.replace(" ", "-")), "teach": False})
    network = given.out / "network.safetensors"
    save_graph(network, dense_layers(str(given.hidden), (SIDE, SIDE, 2), 10, seed=1))

    camera = SourceSpec(name="camera", kind="sources.folder.LabelledFolder", params={**SENSOR, "parts": parts})
    recorder = {"path": str(given.out / "answers.hbs"), "ports": dict.fromkeys(METHODS, "answers")}
    pipeline = Pipeline(
        name="survive-damage",
        source=[camera],
        operator=[
            *(
                OperatorSpec(
                    name=name,
                    kind="plasticity.network_learner.NetworkLearner",
                    params={"path": str(network), "readout": "scores", **params},
                )
                for name, params in METHODS.items()
            ),
            OperatorSpec(name="recorder", kind="stream.record.Recorder", params=recorder),
        ],
        edge=[
            *(EdgeSpec(source="camera.events", target=f"{name}.events") for name in METHODS),
            *(EdgeSpec(source=f"{name}.answers", target=f"recorder.{name}") for name in METHODS),
        ],
    )
    play(pipeline, view=given.view)

    recording = read_recording(given.out / "answers.hbs")
    n_taught, n_asked = 10 * given.per_class, 10 * given.asked
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplot_mosaic([["bars"] * 4, [0, 1, 2, 3]], height_ratios=[2, 1])
    bars = places["bars"]
    found: dict[str, list[float]] = {}
    for k, name in enumerate(METHODS):
        answers = recording.items(name)
        is_right = answers["answer"] == answers["label"]
        found[name] = [is_right[n_taught + j * n_asked :][:n_asked].mean() for j in range(len(spans))]
        at = np.arange(len(spans)) + 0.2 * (k - 1.5)
        bars.bar(at, 100 * np.array(found[name]), 0.18, color=COLOURS[name], label=name)
        for x, value in zip(at, found[name], strict=True):
            bars.text(x, 100 * value + 1, f"{100 * value:.0f}", ha="center", fontsize=8)
    bars.set(xticks=range(len(spans)), xticklabels=spans, ylabel="right (%)", ylim=(0, 108))
    bars.set_title(f"{n_taught} clean recordings taught once, then {n_asked} others under each damage; one seed")
    bars.legend(ncols=4, loc="upper right", fontsize=8)
    for j, name in enumerate(spans):
        path = next((given.out / name.replace(" ", "-")).glob("3/*.bin"))
        events = read_events(path, **SENSOR).events
        events = events[np.abs(events["t"] - 50_000) < 20_000]  # of the first saccade
        for polarity, colour in ((0, "#d55e00"), (1, "#0b62a8")):
            these = events[events["p"] == polarity]
            places[j].scatter(these["x"], these["y"], s=2, c=colour, linewidths=0)
        places[j].set(xlim=(-0.5, SIDE - 0.5), ylim=(SIDE - 0.5, -0.5), xticks=[], yticks=[], aspect="equal")
    figure.savefig(given.out / "survive.png", dpi=120)
    for name, shares in found.items():
        print(f"{name:7}", "  ".join(f"{span} {share:6.1%}" for span, share in zip(spans, shares, strict=True)))
    print(f"picture: {given.out / 'survive.png'}")


if __name__ == "__main__":
    main()
