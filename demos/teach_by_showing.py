"""Teach new things by showing each a few times, then ask. A script plays the person, whose lesson is kept and replayed.

``python demos/teach_by_showing.py``; ``--view`` shows it in a browser while it runs. To do it by hand: ``hebbstream run
demos/teach.toml --view``, type a name, hold the button while you show the thing. The features are as they were drawn:
nothing has been learned before.

Two learners hear the same lesson. What a show binds fades in both. In "alone" it is lost with that; in "corrected" each
label of a show is a global correction too, which moves half of what was bound into the weights.
"""

import argparse
from pathlib import Path

import numpy as np
from look import play
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neurons.graph_file import save_graph
from plasticity.teaching import LEAST_LEFT
from sources.simulated import SimulatedCamera
from stream.packet import End, Label, Message, Packet
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import Recorder, read_recording
from stream.teach import NOTHING, Teach
from stream.train import dense_layers

SIDE, NAMES = 34, ("triangle", "square", "circle", "star")  # pixels; labels 0 to 3 of the scene
LEARNERS = {"alone": 0.0, "corrected": 0.5}  # share of what was bound that a correction moves into the weights


def camera(n_objects: int, seed: int) -> SimulatedCamera:
    """Make the camera, the same each time."""
    return SimulatedCamera(scene="shapes", width=SIDE, height=SIDE, duration_us=n_objects * 400_000, seed=seed)


def shown_when(n_objects: int, seed: int) -> list[Label]:
    """Look first which shape is before the camera when."""
    source, found = camera(n_objects, seed), []
    while not isinstance(message := source.poll(1 << 16), End):
        if isinstance(message, Label):
            found.append(message)
    return found


def keep_lesson(path: Path, source: Teach, objects: list[Label], lessons: set[int]) -> None:
    """Play the person: hold the key during some objects. What the camera then says, marks included, goes to a file."""
    recorder = Recorder(path=str(path), ports={"events": "events"})

    def emit(port: str, message: Message) -> None:
        """Hear nothing: a recorder is silent."""

    while not isinstance(message := source.poll(256), End):
        if message is None:  # not with this camera, which never lets one wait
            continue
        if isinstance(message, Packet):
            recorder.on_packet("events", message, emit)
        else:
            recorder.on_mark("events", message, emit)
        now_us = message.end_us if isinstance(message, Packet) else message.t_us
        held = [k for k in lessons if objects[k].start_us <= now_us < objects[k].t_us]
        wanted = objects[held[0]].label if held else NOTHING
        if wanted != source.shown:
            source.show(wanted)
    recorder.close()


def main() -> None:
    """Teach, ask, draw."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shows", type=int, default=3, help="of each shape")
    options.add_argument("--objects", type=int, default=100, help="that pass the camera in all")
    options.add_argument("--hidden", type=int, default=1000)
    options.add_argument("--fade", type=float, default=2.5, help="time constant of what was bound, s")
    options.add_argument("--seed", type=int, default=5)
    options.add_argument("--view", action="store_true", help="show it in a browser while it runs")
    options.add_argument("--out", type=Path, default=Path("runs/teach"))
    given = options.parse_args()
    objects = shown_when(given.objects, given.seed)
    lessons: set[int] = set()  # the objects during which the key is held
    for shape in range(len(NAMES)):
        lessons |= set([k for k, it in enumerate(objects) if it.label == shape][: given.shows])

    last_us = max(objects[k].t_us for k in lessons)
    lost_us = last_us + given.fade * 1e6 * np.log(1 / LEAST_LEFT)
    asked = [it for it in objects if it.start_us > last_us]
    given.out.mkdir(parents=True, exist_ok=True)
    lesson, network = given.out / "lesson.hbs", given.out / "features.safetensors"
    teacher = Teach(camera(given.objects, given.seed), period_us=100_000)
    keep_lesson(lesson, teacher, objects, lessons)
    save_graph(network, dense_layers(str(given.hidden), (SIDE, SIDE, 2), len(NAMES), given.seed))
    taught = {"path": str(network), "readout": "scores", "teach": True, "learn": [], "teach_tau_us": given.fade * 1e6}
    recorder = {"path": str(given.out / "answers.hbs"), "ports": dict.fromkeys(LEARNERS, "answers")}
    pipeline = Pipeline(
        name="teach-by-showing",
        source=[
            SourceSpec(
                name="camera",
                kind="sources.recorded.RecordedStream",
                params={"path": str(lesson), "width": SIDE, "height": SIDE},
                speed=1.0 if given.view else "max",
            )
        ],
        operator=[
            *(
                OperatorSpec(
                    name=name,
                    kind="plasticity.network_learner.NetworkLearner",
                    params=taught | {"consolidate": share},
                )
                for name, share in LEARNERS.items()
            ),
            OperatorSpec(name="recorder", kind="stream.record.Recorder", params=recorder),
        ],
        edge=[
            *(EdgeSpec(source="camera.events", target=f"{name}.events") for name in LEARNERS),
            *(EdgeSpec(source=f"{name}.answers", target=f"recorder.{name}") for name in LEARNERS),
        ],
    )
    play(pipeline, view=given.view)

    recording = read_recording(given.out / "answers.hbs")
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(2, 1, sharex=True), LEARNERS, strict=True):
        told = recording.items(name)
        # the answer to an object is the last one within it
        within = [told["answer"][(told["start"] >= it.start_us) & (told["t"] <= it.t_us)] for it in asked]
        answers = [int(them[-1]) if len(them) else NOTHING for them in within]
        right: dict[bool, list[bool]] = {False: [], True: []}  # by whether the trace of the last lesson is lost
        for it, answer in zip(asked, answers, strict=True):
            right[it.start_us > lost_us].append(it.label == answer)
        words = ", ".join(
            f"{sum(them)} of {len(them)} right {'when all traces are lost' if is_lost else 'before'}"
            for is_lost, them in right.items()
        )
        for k in lessons:
            it = objects[k]
            axes.plot([it.start_us / 1e6, it.t_us / 1e6], [it.label] * 2, lw=9, c="#007a57", alpha=0.6)
        axes.plot([], [], lw=9, c="#007a57", alpha=0.6, label="a show")
        seconds = [it.t_us / 1e6 for it in asked]
        axes.plot(seconds, [it.label for it in asked], "o", mfc="none", ms=11, c="0.4", label="asked")
        axes.plot(seconds, answers, "x", c="#d55e00", label="answer")
        axes.axvline(lost_us / 1e6, c="0.5", ls=":", label="the last trace is lost")
        axes.set(yticks=range(len(NAMES)), yticklabels=NAMES, ylim=(-0.6, 3.6), title=f"{name}: {words}")
        print(f"{name}: {words}")
    axes.set(xlabel="stream time (s)")
    axes.legend(loc="upper center", ncols=4, bbox_to_anchor=(0.5, -0.25), frameon=False)
    figure.savefig(given.out / "teach.png", dpi=120)
    print(f"{given.shows} shows each; what they bind fades with {given.fade:g} s; picture: {given.out / 'teach.png'}")


if __name__ == "__main__":
    main()
