"""The command ``hebbstream eval sensor``: a network that learned from simulation meets a sensor, and goes on learning.

Every method (see ``stream.evaluate_faults``) first learns from recordings of the simulated camera. Then the sensor's
recordings come in one stream, each once. Before any of them was learned from, all are asked about ("before"). In the
stream each is answered before its label is seen, then its window is walked back; every ``--every`` recordings the mean
gradient becomes a step, while local rules run at every event. At last recordings that never taught are asked about
("after"; "held back" is what was right about them before).
"""

import importlib
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stream import evaluation
from stream.evaluate_faults import COLORS, METHODS, ask, trainer_of, usual_rate_hz
from stream.train import bar, dense_layers, labelled, size_of

__all__ = ["by_spans", "sensor"]

SPAN = 100  # recordings of a point of the curve
RATE = 1e-4  # 5e-4 undoes in the stream what simulation has taught (docs/results.md)


def sensor(
    lessons: Annotated[Path, typer.Argument(help="Recordings of the simulated camera: FOLDER/LABEL/RECORDING.")],
    stream: Annotated[Path, typer.Argument(help="The sensor's recordings, which teach once.")],
    test: Annotated[Path, typer.Argument(help="Others of the sensor's, which never teach.")],
    out: evaluation.Out,
    methods: Annotated[str, typer.Option(help=f"Some of {', '.join(METHODS)}.")] = ",".join(METHODS),
    seeds: evaluation.Seeds = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Times that every simulated recording is seen.")] = 3,
    batch: evaluation.Batch = 16,
    cool: evaluation.Cool = 0.5,
    every: Annotated[int, typer.Option(min=1, help="The sensor's recordings between two corrections.")] = 4,
    rate: Annotated[float, typer.Option(help="Adam's rate for weights in the sensor's stream.")] = RATE,
    hidden: evaluation.Hidden = "200",
    sensor: evaluation.Sensor = "34x34",
    limit: evaluation.Limit = None,
    threads: evaluation.Threads = 0,
    quick: Annotated[bool, typer.Option(help="One seed, one epoch.")] = False,
    full: Annotated[bool, typer.Option(help="Five seeds, all methods.")] = False,
    on: evaluation.On = "",
    as_json: evaluation.Json = False,
) -> None:
    """Learn from simulation, then from a sensor's stream while it runs."""
    wanted = evaluation.chosen("--methods", methods, METHODS)
    width, height = size_of(sensor)
    simulated, classes = labelled(lessons, limit, width, height)
    real, more = labelled(stream, limit, width, height)
    asked, most = labelled(test, limit, width, height)
    if full:
        seeds, wanted = 5, list(METHODS)
    if quick:
        seeds, epochs = 1, 1
    settings = {
        "simulated": len(simulated),
        "stream": len(real),
        "asked": len(asked),
        "epochs": epochs,
        "batch": batch,
        "every": every,
        "rate": rate,
        "hidden": hidden,
    }
    if cool:
        settings["cool"] = cool
    out.mkdir(parents=True, exist_ok=True)
    found = evaluation.read_results(out / "results.json", settings)

    def study(job: tuple[int, str]) -> list[dict[str, Any]]:
        seed, method = job
        graph = dense_layers(hidden, (height, width, 2), max(classes, more, most), seed)
        trainer = trainer_of(graph, method, threads or (1 if on else os.cpu_count()) or 1, usual_rate_hz(simulated))
        with bar() as show:
            importlib.import_module("plasticity.train").train(
                trainer,
                simulated,
                folder=out / f"{method}-{seed}",
                epochs=epochs,
                batch=batch,
                cool=cool,
                seed=seed,
                progress=show,
            )
        first, readout = trainer.lanes[0], trainer.correction.readout
        mine = [
            {"stage": "before", "at": 0, "right": ask(first, readout, real, None, False, seed)},
            {"stage": "held back", "at": 0, "right": ask(first, readout, asked, None, False, seed)},
        ]
        trainer.correction._rates = rate, trainer.correction._rates[1] * rate / trainer.correction._rates[0]
        right = _streamed(trainer, real, every, seed)
        mine += [{"stage": "stream", "at": at, "right": share} for at, share in by_spans(right)]
        mine.append({"stage": "after", "at": len(real), "right": ask(first, readout, asked, None, False, seed)})
        return [{"seed": seed, "method": method, **row} for row in mine]

    def keep(job: tuple[int, str], rows: list[dict[str, Any]]) -> None:
        print(f"{job[1]}, seed {job[0]}: trained, streamed and asked", file=sys.stderr, flush=True)
        found.extend(rows)
        evaluation.write_results(out / "results.json", settings, found)

    done = {(row["seed"], row["method"]) for row in found}
    evaluation.each(
        [job for job in itertools.product(range(1, seeds + 1), wanted) if job not in done], study, keep, on=on
    )
    _draw(out / "results.png", found, len(real))
    if as_json:
        print(json.dumps({"settings": settings, "results": found}))
        return
    _print(found, wanted)
    print(f"results in {out / 'results.json'}, picture in {out / 'results.png'}")


def by_spans(right: Sequence[bool]) -> list[tuple[int, float]]:
    """Return where each span of ``SPAN`` answers begins and its share of right ones; a short rest joins the last."""
    starts = range(0, max(len(right) - SPAN // 2, 1), SPAN)
    spans = [right[k : len(right) if k == starts[-1] else k + SPAN] for k in starts]
    return [(k, sum(span) / len(span)) for k, span in zip(starts, spans, strict=True)]


def _streamed(trainer: Any, recordings: list[Any], every: int, seed: int) -> list[bool]:
    """Learn from recordings that come once, in an order of the seed; returns which were right before their label."""
    import numpy as np

    from stream.packet import Message, Packet, Reset

    def nowhere(port: str, message: Message) -> None:
        pass

    network, correction = trainer.lanes[0], trainer.correction
    network.begin(0)
    right, t_us = [], 0
    order = np.random.default_rng([seed, 5]).permutation(len(recordings))
    for k, which in enumerate(order):
        events = recordings[which].read().copy()
        events["t"] += t_us - int(events["t"][0]) if len(events) else 0
        end_us = int(events["t"][-1]) + 1 if len(events) else t_us + 1
        network.on_mark("events", Reset(t_us), nowhere)
        correction.window.begin()
        network.on_packet("events", Packet(events, t_us, end_us), nowhere)
        right.append(bool(np.argmax(network.averages(correction.readout)) == recordings[which].label))
        correction.take(recordings[which].label)
        if (k + 1) % every == 0:
            correction.step()
        t_us = end_us
    correction.step()
    return right


def _rows(found: list[dict[str, Any]], method: str, stage: str, at: int | None = None) -> list[float]:
    return [
        100 * row["right"]
        for row in found
        if row["method"] == method and row["stage"] == stage and (at is None or row["at"] == at)
    ]


def _print(found: list[dict[str, Any]], methods: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", *methods, title="right answers, %, mean ± deviation over seeds", box=None)
    lines = dict.fromkeys((row["stage"], row["at"]) for row in found)
    for stage, at in lines:
        cells = []
        for method in methods:
            it = _rows(found, method, stage, at)
            middle = sum(it) / max(1, len(it))
            spread = (sum((each - middle) ** 2 for each in it) / max(1, len(it))) ** 0.5
            cells.append(f"{middle:.1f} ± {spread:.1f}" if it else "-")
        table.add_row(f"{stage} {at}" if stage == "stream" else stage, *cells)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _draw(path: Path, found: list[dict[str, Any]], n: int) -> None:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for method, color in COLORS.items():
        places = sorted({row["at"] for row in found if row["stage"] == "stream"})
        rows = [_rows(found, method, "stream", at) for at in places]
        if not all(rows):
            continue
        middle, spread = (np.array([fold(it) for it in rows]) for fold in (np.mean, np.std))
        x = np.array(places) + SPAN / 2
        axes.plot(x, middle, color=color, marker="o", markersize=3, label=method)
        axes.fill_between(x, middle - spread, middle + spread, color=color, alpha=0.12, linewidth=0)
        axes.plot([0], [np.mean(_rows(found, method, "before"))], "<", color=color)
        axes.plot([n], [np.mean(_rows(found, method, "after"))], ">", color=color)
    axes.set_xlabel("recordings of the sensor, each taught once after it was answered")
    axes.set_ylabel("right answers, %")
    axes.set_title("◂ before any of them; ▸ after all, on others", fontsize=9)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
