"""Teach new things by showing each a few times, then ask. A script plays the person, from Python, without a pipeline.

``python demos/teach_by_showing.py``. To do it by hand: ``hebbstream run demos/teach.toml --view``, type a name, hold
the button while you show the thing. The features are as they were drawn: nothing has been learned before.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neurons.graph_file import save_graph
from plasticity.network_learner import NetworkLearner
from sources.simulated import SimulatedCamera
from stream.packet import ANSWER_DTYPE, End, Label, Message, Packet
from stream.teach import NOTHING, Teach
from stream.train import dense_layers

SIDE, NAMES = 34, ("triangle", "square", "circle", "star")  # pixels; labels 0 to 3 of the scene


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


def main() -> None:
    """Teach, ask, draw."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shows", type=int, default=3, help="of each shape")
    options.add_argument("--objects", type=int, default=100, help="that pass the camera in all")
    options.add_argument("--hidden", type=int, default=1000)
    options.add_argument("--seed", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path("runs/teach"))
    given = options.parse_args()
    objects = shown_when(given.objects, given.seed)
    lessons: set[int] = set()  # the objects during which the key is held
    for shape in range(len(NAMES)):
        lessons |= set([k for k, it in enumerate(objects) if it.label == shape][: given.shows])

    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "features.safetensors"
    save_graph(path, dense_layers(str(given.hidden), (SIDE, SIDE, 2), len(NAMES), given.seed))
    source = Teach(camera(given.objects, given.seed), period_us=100_000)
    learner = NetworkLearner(path=str(path), readout="scores", teach=True, learn=())
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
        if it.start_us > last_lesson_us and len(within):
            rows.append((it.t_us / 1e6, it.label, int(within["answer"][-1])))
    right = sum(label == answer for _, label, answer in rows)

    figure = Figure(figsize=(9, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for n, k in enumerate(sorted(lessons)):
        it = objects[k]
        words = "a show" if n == 0 else None
        axes.plot([it.start_us / 1e6, it.t_us / 1e6], [it.label] * 2, lw=9, c="#007a57", alpha=0.6, label=words)
    axes.plot([t for t, _, _ in rows], [label for _, label, _ in rows], "o", mfc="none", ms=11, c="0.4", label="asked")
    axes.plot([t for t, _, _ in rows], [answer for *_, answer in rows], "x", c="#d55e00", label="answer")
    axes.set(xlabel="stream time (s)", yticks=range(len(NAMES)), yticklabels=NAMES, ylim=(-0.6, 3.6))
    axes.set_title(f"{given.shows} shows of each shape; then {right} of {len(rows)} right")
    axes.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.5, -0.2), frameon=False)
    figure.savefig(given.out / "teach.png", dpi=120)
    print(f"{given.shows} shows each, then {right} of {len(rows)} right; picture: {given.out / 'teach.png'}")


if __name__ == "__main__":
    main()
