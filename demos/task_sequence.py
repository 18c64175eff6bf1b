"""Learn a sequence of tasks without forgetting: two digits, then two others, and so on, never shown again.

``python demos/task_sequence.py``: "taught" binds each class by local plasticity while it is shown (a column of the
readout each, ``plasticity.teaching``; features as they were drawn); "corrected" learns all weights by the global
correction at each label, which overwrites what was there before. Both see the same recordings in the same order, once.
Dashed: what the correction makes of the same recordings when all tasks are mixed, which a life is not. ``--view`` shows
one such life in a browser, as it passes.
"""

import argparse
from pathlib import Path

import numpy as np
from look import play
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from neurons.graph_file import save_graph
from sources.event_file import read_events
from sources.recordings import make_recordings
from stream.packet import Label, Message, Packet, Reset, Show
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import Recorder, read_recording
from stream.train import dense_layers

SENSOR = {"width": 34, "height": 34}
TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
COLOURS = {"taught": "#007a57", "corrected": "#0b62a8"}


LEARNERS = {"taught": {"teach": True, "learn": []}, "corrected": {"learn": ["weights", "times"]}}


class Life:
    """One stream of recordings, one after the other, that is written down to be played to learners."""

    def __init__(self, path: Path) -> None:
        self.path, self.t_us = path, 0
        self.asked: list[int] = []  # labels of the recordings that are asked about
        self._recorder = Recorder(path=str(path), ports={"events": "events"})

    def add(self, label: int, events: NDArray[np.void], *, learn: bool) -> None:
        """Let a recording follow, to be learned from or asked about."""
        moved = events.copy()
        moved["t"] += self.t_us - int(events["t"][0])
        end_us = int(moved["t"][-1]) + 1
        messages: list[Message] = [Reset(self.t_us, learn)]
        messages += [Show(self.t_us, label)] if learn else []
        messages += [Packet(moved, self.t_us, end_us), Label(end_us, label if learn else -1, self.t_us, learn)]
        messages += [Show(end_us, -1)] if learn else []
        for message in messages:
            if isinstance(message, Packet):
                self._recorder.on_packet("events", message, _say_nothing)
            else:
                self._recorder.on_mark("events", message, _say_nothing)
        self.t_us = end_us + 50_000
        if not learn:
            self.asked.append(label)

    def lived_by(self, names: list[str], network: Path, *, view: bool) -> dict[str, NDArray[np.bool_]]:
        """Play it to learners; returns which of the questions each of them answered right."""
        self._recorder.close()
        camera = {**SENSOR, "path": str(self.path)}
        answers = self.path.with_suffix(".answers.hbs")
        pipeline = Pipeline(
            name="task-sequence",
            source=[
                SourceSpec(
                    name="camera",
                    kind="sources.recorded.RecordedStream",
                    params=camera,
                    speed=1.0 if view else "max",
                )
            ],
            operator=[
                *(
                    OperatorSpec(
                        name=name,
                        kind="plasticity.network_learner.NetworkLearner",
                        params={"path": str(network), "readout": "scores"} | LEARNERS[name],
                    )
                    for name in names
                ),
                OperatorSpec(
                    name="recorder",
                    kind="stream.record.Recorder",
                    params={"path": str(answers), "ports": dict.fromkeys(names, "answers")},
                ),
            ],
            edge=[
                *(EdgeSpec(source="camera.events", target=f"{name}.events") for name in names),
                *(EdgeSpec(source=f"{name}.answers", target=f"recorder.{name}") for name in names),
            ],
        )
        play(pipeline, view=view)
        told = read_recording(answers)
        return {name: told.items(name)["answer"][told.items(name)["label"] < 0] == self.asked for name in names}


def _say_nothing(port: str, message: Message) -> None:
    """Take nothing from a recorder, which is silent."""


def main() -> None:
    """Learn one task after the other, and ask about all so far."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shows", type=int, default=20, help="recordings of each digit, each seen once")
    options.add_argument("--asked", type=int, default=10, help="others of each digit")
    options.add_argument("--hidden", type=int, default=200)
    options.add_argument("--seeds", type=int, default=3, help="draws of the weights and of the order")
    options.add_argument("--view", action="store_true", help="show one draw in a browser while it runs")
    options.add_argument("--out", type=Path, default=Path("runs/tasks"))
    given = options.parse_args()

    folder = make_recordings(
        given.out / "recordings", **SENSOR, train_per_class=given.shows, test_per_class=given.asked, seed=3
    )

    def recordings(split: str, label: int) -> list[tuple[int, NDArray[np.void]]]:
        return [(label, read_events(it, **SENSOR).events) for it in sorted((folder / split / str(label)).glob("*.bin"))]

    # share right, by seed, task just learned, task asked about
    n_seeds = 1 if given.view else given.seeds
    right = {name: np.full((n_seeds, len(TASKS), len(TASKS)), np.nan) for name in LEARNERS}
    mixed = np.zeros(n_seeds)
    for seed in range(n_seeds):
        network = given.out / f"network-{seed}.safetensors"
        save_graph(network, dense_layers(str(given.hidden), (34, 34, 2), 10, seed + 1))
        life = Life(given.out / f"life-{seed}.hbs")
        for now, labels in enumerate(TASKS):
            lessons = [it for label in labels for it in recordings("train", label)]
            for k in np.random.default_rng([seed, now]).permutation(len(lessons)):
                life.add(*lessons[k], learn=True)
            for label in (label for task in range(now + 1) for label in TASKS[task]):
                for it in recordings("test", label):
                    life.add(*it, learn=False)
        lived = life.lived_by(list(LEARNERS), network, view=given.view)
        places = [(now, task) for now in range(len(TASKS)) for task in range(now + 1)]
        for name, found in lived.items():
            for (now, task), share in zip(places, found.reshape(len(places), -1).mean(axis=1), strict=True):
                right[name][seed, now, task] = share

        other = Life(given.out / f"mixed-{seed}.hbs")
        lessons = [it for label in range(10) for it in recordings("train", label)]
        for k in np.random.default_rng(seed).permutation(len(lessons)):
            other.add(*lessons[k], learn=True)
        for label in range(10):
            for it in recordings("test", label):
                other.add(*it, learn=False)
        mixed[seed] = other.lived_by(["corrected"], network, view=False)["corrected"].mean()

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    mean, *grids = figure.subplots(1, 3, width_ratios=[1.6, 1, 1])
    for name, found in right.items():
        average = 100 * np.nanmean(found, axis=2)
        mean.errorbar(range(1, 6), average.mean(0), average.std(0), marker="o", capsize=3, c=COLOURS[name], label=name)
    mean.plot(range(1, 6), [100 / (2 * k) for k in range(1, 6)], ":", c="0.5", label="chance")
    mean.axhline(100 * mixed.mean(), ls="--", c=COLOURS["corrected"], label="corrected, mixed")
    mean.set(xlabel="tasks learned", ylabel="right, over all tasks so far (%)", ylim=(0, 102), xticks=range(1, 6))
    mean.set_title(f"{given.shows} shows of each digit, once")
    mean.legend()
    for axes, (name, found) in zip(grids, right.items(), strict=True):
        table = 100 * found.mean(0)
        axes.imshow(table, vmin=0, vmax=100, cmap="cividis")
        for now in range(len(TASKS)):
            for task in range(now + 1):
                dark = "white" if table[now, task] < 55 else "black"
                axes.text(task, now, f"{table[now, task]:.0f}", ha="center", va="center", fontsize=8, color=dark)
        names = ["".join(map(str, labels)) for labels in TASKS]
        axes.set(xticks=range(5), xticklabels=names, yticks=range(5), yticklabels=names)
        axes.set(title=f"{name}: right (%)", xlabel="asked about", ylabel="just learned")
    given.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.out / "tasks.png", dpi=120)
    for name, found in right.items():
        first, last = 100 * found[:, :, 0].mean(0)[[0, -1]], 100 * np.nanmean(found[:, -1], axis=1)
        print(f"{name:9}: after five tasks {last.mean():.1f} ± {last.std():.1f} % of all right; "
              f"the first task {first[0]:.0f} % when learned, {first[1]:.0f} % in the end")  # fmt: skip
    print(f"corrected, all tasks mixed: {100 * mixed.mean():.1f} ± {100 * mixed.std():.1f} %")
    print(f"picture: {given.out / 'tasks.png'}")


if __name__ == "__main__":
    main()
