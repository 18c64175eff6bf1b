"""Learn a sequence of tasks without forgetting: two digits, then two others, and so on, never shown again.

``python demos/task_sequence.py``: "taught" binds each class by local plasticity while it is shown (a column of the
readout each, ``plasticity.teaching``; features as they were drawn); "corrected" learns all weights by the global
correction at each label, which overwrites what was there before. Both see the same recordings in the same order, once.
Dashed: what the correction makes of the same recordings when all tasks are mixed, which a life is not.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from neurons.graph_file import save_graph
from plasticity.network_learner import NetworkLearner
from sources.event_file import read_events
from sources.recordings import make_recordings
from stream.packet import Label, Message, Packet, Reset, Show
from stream.train import dense_layers

SENSOR = {"width": 34, "height": 34}
TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
COLOURS = {"taught": "#007a57", "corrected": "#0b62a8"}


class Stream:
    """Plays recordings to a learner one after the other."""

    def __init__(self, learner: NetworkLearner) -> None:
        self.learner, self.t_us, self.answer = learner, 0, -1

    def emit(self, port: str, message: Message) -> None:
        """Take the answer."""
        if port == "answers" and isinstance(message, Packet):
            self.answer = int(message.items["answer"][-1])

    def play(self, label: int, events: NDArray[np.void], *, learn: bool) -> bool:
        """Play a recording; returns whether the answer was right."""
        moved = events.copy()
        moved["t"] += self.t_us - int(events["t"][0])
        end_us = int(moved["t"][-1]) + 1
        messages: list[Message] = [Reset(self.t_us, learn)]
        messages += [Show(self.t_us, label)] if learn else []
        messages += [Packet(moved, self.t_us, end_us), Label(end_us, label if learn else -1, self.t_us, learn)]
        messages += [Show(end_us, -1)] if learn else []
        for message in messages:
            if isinstance(message, Packet):
                self.learner.on_packet("events", message, self.emit)
            else:
                self.learner.on_mark("events", message, self.emit)
        self.t_us = end_us + 50_000
        return self.answer == label


def main() -> None:
    """Learn one task after the other, and ask about all so far."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shows", type=int, default=20, help="recordings of each digit, each seen once")
    options.add_argument("--asked", type=int, default=10, help="others of each digit")
    options.add_argument("--hidden", type=int, default=200)
    options.add_argument("--seeds", type=int, default=3, help="draws of the weights and of the order")
    options.add_argument("--out", type=Path, default=Path("runs/tasks"))
    given = options.parse_args()

    folder = make_recordings(
        given.out / "recordings", **SENSOR, train_per_class=given.shows, test_per_class=given.asked, seed=3
    )

    def recordings(split: str, label: int) -> list[tuple[int, NDArray[np.void]]]:
        return [(label, read_events(it, **SENSOR).events) for it in sorted((folder / split / str(label)).glob("*.bin"))]

    # share right, by seed, task just learned, task asked about
    right = {name: np.full((given.seeds, len(TASKS), len(TASKS)), np.nan) for name in COLOURS}
    mixed = np.zeros(given.seeds)
    for seed in range(given.seeds):
        path = given.out / f"network-{seed}.safetensors"
        save_graph(path, dense_layers(str(given.hidden), (34, 34, 2), 10, seed + 1))
        learners = {
            "taught": NetworkLearner(path=str(path), readout="scores", teach=True, learn=()),
            "corrected": NetworkLearner(path=str(path), readout="scores", learn=("weights", "times")),
        }
        for name, learner in learners.items():
            stream = Stream(learner)
            for now, labels in enumerate(TASKS):
                lessons = [it for label in labels for it in recordings("train", label)]
                for k in np.random.default_rng([seed, now]).permutation(len(lessons)):
                    stream.play(*lessons[k], learn=True)
                for task in range(now + 1):
                    asked = [it for label in TASKS[task] for it in recordings("test", label)]
                    right[name][seed, now, task] = np.mean([stream.play(*it, learn=False) for it in asked])

        stream = Stream(NetworkLearner(path=str(path), readout="scores", learn=("weights", "times")))
        lessons = [it for label in range(10) for it in recordings("train", label)]
        for k in np.random.default_rng(seed).permutation(len(lessons)):
            stream.play(*lessons[k], learn=True)
        mixed[seed] = np.mean(
            [stream.play(*it, learn=False) for label in range(10) for it in recordings("test", label)]
        )

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
