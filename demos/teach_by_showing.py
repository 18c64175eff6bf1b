"""Teach two shapes by showing each a few times, then ask. A script plays the person, from Python, without a pipeline.

``python demos/teach_by_showing.py``. To do it by hand: ``hebbstream run demos/teach.toml --view``, type a name, hold
the button while you show the thing.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plasticity.learner import OnlineLearner
from sources.simulated import SimulatedCamera
from stream.packet import ANSWER_DTYPE, End, Label, Message, Packet
from stream.teach import NOTHING, Teach

SIDE, TAUGHT = 34, (0, 1)  # pixels; shapes that are taught and asked for


def camera(n_objects: int) -> SimulatedCamera:
    """Make the camera, the same each time."""
    return SimulatedCamera(scene="shapes", width=SIDE, height=SIDE, duration_us=n_objects * 400_000, seed=5)


def shown_when(n_objects: int) -> list[Label]:
    """Look first which shape is before the camera when."""
    source, found = camera(n_objects), []
    while not isinstance(message := source.poll(1 << 16), End):
        if isinstance(message, Label):
            found.append(message)
    return found


def main() -> None:
    """Teach, ask, draw."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shows", type=int, default=10, help="of each shape")
    options.add_argument("--objects", type=int, default=100, help="that pass the camera in all")
    options.add_argument("--out", type=Path, default=Path("runs/teach"))
    given = options.parse_args()
    objects = shown_when(given.objects)
    lessons: set[int] = set()  # the objects during which the key is held
    for shape in TAUGHT:
        lessons |= {k for k, it in enumerate(objects) if it.label == shape} & set(
            [k for k, it in enumerate(objects) if it.label == shape][: given.shows]
        )

    source = Teach(camera(given.objects), period_us=100_000)
    learner = OnlineLearner(width=SIDE, height=SIDE, n_hidden=200, n_classes=4, weight_rate=2e-3)
    answers: list[np.ndarray] = []

    def emit(port: str, message: Message) -> None:
        if port == "answers" and isinstance(message, Packet):
            answers.append(message.items.copy())

    while not isinstance(message := source.poll(256), End):
        now_us = message.end_us if isinstance(message, Packet) else message.t_us  # type: ignore[union-attr]
        held = [k for k in lessons if objects[k].start_us <= now_us < objects[k].t_us]
        wanted = objects[held[0]].label if held else NOTHING
        if wanted != source.shown:
            source.show(wanted)
        if isinstance(message, Packet):
            learner.on_packet("events", message, emit)
        elif message is not None:
            learner.on_mark("events", message, emit)

    told = np.concatenate(answers) if answers else np.zeros(0, ANSWER_DTYPE)
    last_lesson_us = max(objects[k].t_us for k in lessons)
    # the answer to an object is the last one within it
    rows = []
    for it in objects:
        within = told[(told["start"] >= it.start_us) & (told["t"] <= it.t_us)]
        if it.label in TAUGHT and it.start_us > last_lesson_us and len(within):
            rows.append((it.t_us / 1e6, it.label, int(within["answer"][-1])))
    right = sum(label == answer for _, label, answer in rows)

    figure = Figure(figsize=(9, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for k in lessons:
        axes.axvspan(objects[k].start_us / 1e6, objects[k].t_us / 1e6, color=f"C{objects[k].label}", alpha=0.25, lw=0)
    axes.plot([t for t, _, _ in rows], [label for _, label, _ in rows], "o", mfc="none", ms=11, c="0.4", label="shown")
    axes.plot([t for t, _, _ in rows], [answer for *_, answer in rows], "x", c="#d55e00", label="answer")
    axes.set(xlabel="stream time (s)", ylabel="shape", yticks=range(4))
    axes.set_title(f"bars: {given.shows} shows of each shape; then {right} of {len(rows)} right")
    axes.legend(loc="upper left")
    given.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.out / "teach.png", dpi=120)
    print(f"{given.shows} shows each, then {right} of {len(rows)} right; picture: {given.out / 'teach.png'}")


if __name__ == "__main__":
    main()
