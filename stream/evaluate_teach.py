"""The command ``hebbstream eval teach``: classes taught by one to a few shows, then asked about, while streaming.

One stream for each round: the shows of one class after the other, as a person shows things, each between ``Show``
marks; then other recordings of the same classes in mixed order, with a ``Label`` that asks. Features come from a
network that has never seen these classes (``hebbstream train`` on other ones); its readout is left out. The operator is
the one that runs live, ``plasticity.network_learner.NetworkLearner`` with ``teach``.
"""

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.evaluation import Json, Sensor, write_results
from stream.train import labelled, size_of

__all__ = ["ask", "teach"]

GAP_US = 20_000  # of stream time between recordings


def teach(
    features: Annotated[Path, typer.Argument(help="Network of `hebbstream train`, taught on other classes.")],
    folder: Annotated[Path, typer.Argument(help="Recordings: FOLDER/LABEL/RECORDING.")],
    readout: Annotated[str, typer.Option(help="The network's readout.")] = "scores",
    classes: Annotated[int, typer.Option(min=2, help="How many are taught, drawn anew in each round.")] = 5,
    labels: Annotated[str, typer.Option(help="Draw them from these only, such as 5,6,7,8,9.")] = "",
    shows: Annotated[str, typer.Option(help="Shows of each class, several to compare.")] = "1,2,3",
    queries: Annotated[int, typer.Option(min=1, help="Recordings of each class that are asked about.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="How many, each with other classes and recordings.")] = 5,
    sensor: Sensor = "34x34",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for results.json and a picture.")] = None,
    quick: Annotated[bool, typer.Option(help="One round.")] = False,
    full: Annotated[bool, typer.Option(help="20 rounds.")] = False,
    as_json: Json = False,
) -> None:
    """Teach classes by one to a few shows, then ask."""
    import numpy as np

    from stream.errors import ConfigError

    rounds = 1 if quick else 20 if full else rounds
    width, height = size_of(sensor)
    recordings, _ = labelled(folder, None, width, height)
    numbers = [int(part) for part in shows.split(",")]
    by_label: dict[int, list[Any]] = {}
    for it in recordings:
        by_label.setdefault(it.label, []).append(it)
    wanted = [int(part) for part in labels.split(",")] if labels else sorted(by_label)
    fit = [label for label in wanted if len(by_label.get(label, [])) >= max(numbers) + queries]
    if len(fit) < classes:
        raise ConfigError(
            f"eval teach: {len(fit)} classes of {folder} have {max(numbers) + queries} recordings, wanted {classes}; "
            f"ask less of each, or teach fewer"
        )
    found: dict[int, list[float]] = {number: [] for number in numbers}
    for turn in range(rounds):
        rng = np.random.default_rng([turn, classes])
        chosen = rng.permutation(fit)[:classes].tolist()
        orders = {label: rng.permutation(len(by_label[label])).tolist() for label in chosen}
        for number in numbers:
            lessons = [(k, by_label[label][at]) for k, label in enumerate(chosen) for at in orders[label][:number]]
            rest = [
                (k, by_label[label][at])
                for k, label in enumerate(chosen)
                for at in orders[label][max(numbers) : max(numbers) + queries]
            ]
            asked = [rest[k] for k in rng.permutation(len(rest)).tolist()]
            learner = importlib.import_module("plasticity.network_learner").NetworkLearner(
                path=str(features), readout=readout, teach=True, learn=()
            )
            answers = ask(learner, lessons, asked)
            found[number].append(
                float(np.mean([label == answer for (label, _), answer in zip(asked, answers, strict=True)]))
            )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        settings = {"classes": classes, "queries": queries, "rounds": rounds}
        rows = [
            {"shows": number, "round": k, "right": it} for number, all_ in found.items() for k, it in enumerate(all_)
        ]
        write_results(out / "results.json", settings, rows)
        _draw(out / "results.png", found, classes)
    if as_json:
        print(json.dumps({"classes": classes, "queries": queries, "rounds": rounds, "right": found}))
        return
    print(
        f"{classes} classes, {queries} asked of each, {rounds} rounds; right, mean and standard deviation over rounds:"
    )
    for number, right in found.items():
        print(
            f"{number} shows: {100 * np.mean(right):5.1f} % +- {100 * np.std(right):.1f}   worst {100 * min(right):.1f}"
        )


def _draw(path: Path, found: dict[int, list[float]], classes: int) -> None:
    """Draw right answers over shows, a dot for each round."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    numbers = list(found)
    axes.plot(numbers, [100 * np.mean(found[it]) for it in numbers], "C0-")
    for number, right in found.items():
        axes.plot([number] * len(right), [100 * it for it in right], "C0o", markersize=4, alpha=0.5)
    axes.axhline(100 / classes, color="black", linewidth=1, linestyle=":")
    axes.set_xticks(numbers)
    axes.set_ylim(0, 101)
    axes.set_xlabel("shows of each class")
    axes.set_ylabel("right answers, %  (dots: chance)")
    figure.savefig(path, dpi=110)


def ask(learner: Any, lessons: list[tuple[int, Any]], asked: list[tuple[int, Any]]) -> list[int]:
    """Show lessons and ask about the rest in one stream; returns the answers.

    Parameters
    ----------
    learner
        A taught ``NetworkLearner``.
    lessons, asked
        Pairs of a class and a recording (``plasticity.train.Recording``).
    """
    from stream.packet import Label, Message, Packet, Reset, Show

    port = next(iter(learner.inputs))
    answers: list[int] = []

    def emit(name: str, message: Message) -> None:
        if name == "answers" and isinstance(message, Packet):
            answers.extend(message.items["answer"].tolist())

    t_us = 0
    for label, recording in [*lessons, *((-1, it) for _, it in asked)]:
        events = recording.read().copy()
        events["t"] += t_us - events["t"][0]
        end_us = int(events["t"][-1]) + 1
        learner.on_mark(port, Reset(t_us), emit)
        if label >= 0:
            learner.on_mark(port, Show(t_us, label), emit)
        learner.on_packet(port, Packet(events, t_us, end_us), emit)
        learner.on_mark(port, Label(end_us, label, t_us, label >= 0), emit)
        if label >= 0:
            learner.on_mark(port, Show(end_us, -1), emit)
        t_us = end_us + GAP_US
    return answers[len(lessons) :]
