"""The command ``hebbstream eval fault-tolerance``: what learning holds out against, event by event.

It trains a network by several methods on the same recordings, then asks each of them about other recordings that a
camera has damaged (``sources.filter_damage``, ``filter_jitter``, ``added_noise``): events lost or late, areas dead,
pixels that never rest. The answers come from the operator that runs live, recording after recording in one stream;
local state is cleared between them ("fresh") or carried along ("carried").

========  ======================================================================================================
method    what learns
========  ======================================================================================================
GP        weights and time constants, by the global correction
LP        the Hebbian rule at every event; of the rest only the readout is trained
HP        both, and the rule's own parameters
STP       as GP, and short-term plasticity of the terminals (depression, facilitation), its parameters trained
HP+STP    all of it
SUR       as STP, but terminals only tire, and a spike counts by what is around it (``plasticity.surround``)
HP+SUR    SUR and the Hebbian rule
========  ======================================================================================================

With ``--damaged`` every method learns from damaged recordings too: four passes over each, of which one is clean, one
under background noise, one under hot pixels and one with events lost, as strong as chance wants. The other damages stay
unseen before they are asked about.

Everything found so far is in ``OUT/results.json``; the same command goes on where it was interrupted.
"""

import functools
import importlib
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from stream import evaluation
from stream.train import RULE, bar, dense_layers, labelled, size_of

__all__ = ["COLORS", "METHODS", "ask", "damages", "fault_tolerance", "trainer_of", "usual_rate_hz"]

METHODS = ("GP", "LP", "HP", "STP", "HP+STP", "SUR", "HP+SUR")
COLORS = dict(zip(METHODS, ("C0", "C1", "C2", "C4", "C3", "C5", "C6"), strict=True))
NOISE, DAMAGE = "sources.added_noise.AddedNoise", "sources.filter_damage.Damage"
JITTER = "sources.filter_jitter.TimeJitter"
# Where terminals begin: resources that outlast a recording, and a release that wakes at the second event of a burst.
TERMINAL = {"depletion": 0.2, "tau_rec_us": 300_000.0, "f_rest": 0.25, "f_step": 0.5, "tau_fac_us": 10_000.0}
TIRED = {"depletion": 0.2, "tau_rec_us": 300_000.0}  # beside a surround, which wakes by neighbours instead
SURROUND = {"support_half": 1.0, "support_given": 0.1}  # set by hand, on simulated lessons and 400 of nmnist/train
# how much larger weights begin where terminals weaken spikes: about one over what these leave of a spike in a simulated
# digit (the mean over 60 of them is 1 / 3.8 and 1 / 2.1)
STRONGER = {"STP": 3.9, "SUR": 2.4}
# what is done to the stream: name, unit of its level, levels, operator, name of the parameter that the level is
DAMAGES: tuple[tuple[str, str, tuple[float, ...], str, dict[str, Any], str], ...] = (
    ("background noise", "events/s", (13e3, 26e3, 52e3), NOISE, {}, "rate_hz"),
    ("hot pixels", "of 1 kHz", (5, 20, 50), NOISE, {"rate_hz": 0.0}, "n_hot"),
    ("events lost", "share", (0.5, 0.8, 0.9, 0.95), DAMAGE, {"kind": "loss"}, "level"),
    ("dead area", "pixels a side", (6, 10, 14), DAMAGE, {"kind": "dead area"}, "level"),
    ("bar", "pixels", (4, 8, 12), DAMAGE, {"kind": "bar"}, "level"),
    ("mismatch", "share", (0.25, 0.5), DAMAGE, {"kind": "mismatch"}, "level"),
    ("contrast", "share", (0.5, 0.9), DAMAGE, {"kind": "contrast"}, "level"),
    ("time jitter", "us", (10_000, 30_000, 60_000), JITTER, {}, "longest_us"),
)
# how strong damage gets in lessons: of the whole sensor, events/s; pixels of 1 kHz; share
MOST_NOISE_HZ, MOST_HOT, MOST_LOST = 39e3, 30, 0.8


def fault_tolerance(
    folder: Annotated[Path, typer.Argument(help="Recordings to learn from: FOLDER/LABEL/RECORDING.")],
    test: Annotated[Path, typer.Argument(help="Recordings to be damaged and asked about.")],
    out: evaluation.Out,
    methods: Annotated[str, typer.Option(help=f"Some of {', '.join(METHODS)}.")] = ",".join(METHODS),
    seeds: evaluation.Seeds = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Times that every recording is seen.")] = 8,
    batch: evaluation.Batch = 16,
    cool: evaluation.Cool = 0.5,
    hidden: evaluation.Hidden = "200",
    sensor: evaluation.Sensor = "34x34",
    limit: evaluation.Limit = None,
    ask_limit: Annotated[int | None, typer.Option(help="Ask about so many recordings, all labels alike.")] = None,
    ask_skip: Annotated[
        int, typer.Option(min=0, help="Do not ask about the first so many recordings, all labels alike.")
    ] = 0,
    threads: evaluation.Threads = 0,
    damaged: Annotated[bool, typer.Option(help="Learn from damaged recordings too.")] = False,
    quick: Annotated[bool, typer.Option(help="One seed, two epochs, the middle level of each damage.")] = False,
    full: Annotated[bool, typer.Option(help="Five seeds, all methods.")] = False,
    on: evaluation.On = "",
    as_json: evaluation.Json = False,
) -> None:
    """Train by several methods, then ask about damaged recordings."""
    wanted = evaluation.chosen("--methods", methods, METHODS)
    width, height = size_of(sensor)
    recordings, labels = labelled(folder, limit, width, height)
    asked, _ = labelled(test, ask_limit or limit, width, height, ask_skip)
    if full:
        seeds, wanted = 5, list(METHODS)
    if quick:
        seeds, epochs = 1, min(epochs, 2)
    rate_hz = usual_rate_hz(recordings)
    settings = {"recordings": len(recordings), "asked": len(asked), "epochs": epochs, "batch": batch, "hidden": hidden}
    if ask_skip:
        settings["ask_skip"] = ask_skip
    if damaged:
        settings["damaged"] = True
    if cool:
        settings["cool"] = cool
    out.mkdir(parents=True, exist_ok=True)
    found = evaluation.read_results(out / "results.json", settings)

    def study(job: tuple[int, str]) -> list[dict[str, Any]]:
        seed, method = job
        lessons = _damaged(recordings, width, height, seed) if damaged else recordings
        graph = dense_layers(hidden, (height, width, 2), labels, seed)
        trainer = trainer_of(graph, method, threads or (1 if on else os.cpu_count()) or 1, rate_hz)
        with bar() as show:
            importlib.import_module("plasticity.train").train(
                trainer,
                lessons,
                folder=out / f"{method}-{seed}",
                epochs=max(1, epochs * len(recordings) // len(lessons)),  # as many recordings are seen as without
                batch=batch,
                cool=cool,
                seed=seed,
                progress=show,
            )
        network, readout = trainer.lanes[0], trainer.correction.readout
        return [
            {
                "seed": seed,
                "method": method,
                "carried": carried,
                "damage": name,
                "level": level,
                "right": ask(network, readout, asked, operator, carried, seed),
            }
            for carried in (False, True)
            for name, level, operator in damages(width, height, seed, quick)
        ]

    def keep(job: tuple[int, str], rows: list[dict[str, Any]]) -> None:
        print(f"{job[1]}, seed {job[0]}: trained and asked", file=sys.stderr, flush=True)
        found.extend(rows)
        evaluation.write_results(out / "results.json", settings, found)

    done = {(row["seed"], row["method"]) for row in found}
    evaluation.each(
        [job for job in itertools.product(range(1, seeds + 1), wanted) if job not in done], study, keep, on=on
    )
    _draw(out / "results.png", found, wanted)
    if as_json:
        print(json.dumps({"settings": settings, "results": found}))
        return
    _print(found, wanted)
    print(f"results in {out / 'results.json'}, picture in {out / 'results.png'}")


def usual_rate_hz(recordings: list[Any]) -> float:
    """Return the events a second of ordinary recordings, the mean over the first hundred."""
    n_events, span_us = 0, 0
    for it in recordings[:100]:
        events = it.read()
        if len(events):
            n_events, span_us = n_events + len(events), span_us + int(events["t"][-1] - events["t"][0])
    return 1e6 * n_events / max(span_us, 1)


def trainer_of(graph: Any, method: str, threads: int, rate_hz: float, rule: Mapping[str, float] = RULE) -> Any:
    """Make what trains a network by a method; ``rate_hz``: of an ordinary stream; ``rule``: how LP and HP begin."""
    first = next((it.source, it.target) for it in graph.projections)
    learn: tuple[str, ...] = ("weights", "times") if method == "GP" else ("weights", "rules", "times")
    more: dict[str, Any] = {"learn": learn}
    if method == "LP" or method.startswith("HP"):
        more["rules"] = {first: importlib.import_module("plasticity.hebbian").Hebbian(**rule)}
    if method.endswith(("STP", "SUR")):
        numbers = TERMINAL if method.endswith("STP") else TIRED
        more["terminals"] = {first: importlib.import_module("plasticity.short_term").ShortTerm(**numbers)}
    if method.endswith("SUR"):
        surround = importlib.import_module("plasticity.surround").Surround
        more["surrounds"] = {first: surround(rate_hz=rate_hz, **SURROUND)}
    if method == "LP":
        more["held"] = tuple(it.name for it in graph.populations if it.name != "scores")
    if stronger := STRONGER.get(method[-3:]):
        ways = list(graph.projections)
        for k, it in enumerate(ways):
            if (it.source, it.target) == first:
                ways[k] = it._replace(topology=it.topology._replace(weight=stronger * it.topology.weight))
        graph = graph._replace(projections=ways)
    return importlib.import_module("plasticity.train").Trainer(graph, readout="scores", threads=threads, **more)


def damages(width: int, height: int, seed: int, quick: bool) -> Iterator[tuple[str, float, Any]]:
    """Yield name, level and operator of each damage, none first; ``quick``: of the levels the middle one."""
    yield "none", 0.0, None
    for name, _, levels, kind, params, parameter in DAMAGES:
        module, _, cls = kind.rpartition(".")
        for level in levels[1:2] if quick else levels:
            more = {**params, parameter: int(level) if parameter in ("n_hot", "longest_us") else level}
            yield (
                name,
                level,
                getattr(importlib.import_module(module), cls)(width=width, height=height, seed=seed, **more),
            )


def _damaged(recordings: list[Any], width: int, height: int, seed: int) -> list[Any]:
    """Return each recording four times: clean, under noise, under hot pixels, with events lost."""
    import numpy as np

    lessons = []
    for k, recording in enumerate(recordings):
        rng = np.random.default_rng([seed, k])
        noise = {"rate_hz": float(rng.uniform(0, MOST_NOISE_HZ))}
        hot = {"rate_hz": 0.0, "n_hot": int(rng.integers(1, MOST_HOT + 1))}
        lost = {"kind": "loss", "level": float(rng.uniform(0, MOST_LOST))}
        lessons.append(recording)
        for kind, params in ((NOISE, noise), (NOISE, hot), (DAMAGE, lost)):
            module, _, cls = kind.rpartition(".")
            make = functools.partial(
                getattr(importlib.import_module(module), cls),
                width=width,
                height=height,
                seed=int(rng.integers(1 << 31)),
                **params,
            )
            lessons.append(recording._replace(read=functools.partial(_read_damaged, recording.read, make)))
    return lessons


def _read_damaged(read: Callable[[], Any], make: Callable[[], Any]) -> Any:
    """Return a recording's events as a camera would give them that is damaged from here on."""
    import numpy as np

    from stream.packet import Message, Packet

    events, kept = read(), []

    def take(port: str, message: Message) -> None:
        if isinstance(message, Packet):
            kept.append(message.items.copy())

    if not len(events):
        return events
    make().on_packet("events", Packet(events, int(events["t"][0]), int(events["t"][-1]) + 1), take)
    return np.concatenate(kept)


def ask(network: Any, readout: str, recordings: list[Any], operator: Any, carried: bool, seed: int) -> float:
    """Run recordings one after the other, in an order that the seed fixes; returns the share of right answers."""
    import numpy as np

    from stream.packet import Label, Message, Packet, Reset

    def nowhere(port: str, message: Message) -> None:
        pass

    def take(port: str, message: Message) -> None:
        if isinstance(message, Packet):
            network.on_packet("events", message, nowhere)

    network._resets_local = not carried
    network.begin(0)
    t_us, right = 0, 0
    for k in np.random.default_rng(seed).permutation(len(recordings)):
        events = recordings[k].read().copy()
        events["t"] += t_us - int(events["t"][0]) if len(events) else 0
        end_us = int(events["t"][-1]) + 1 if len(events) else t_us + 1
        network.on_mark("events", Reset(t_us), nowhere)
        packet = Packet(events, t_us, end_us)
        if operator is None:
            take("events", packet)
        else:
            operator.on_packet("events", packet, take)
            operator.on_mark("events", Label(end_us, 0, t_us), take)  # what it still holds back comes before a mark
        right += int(np.argmax(network.averages(readout))) == recordings[k].label
        t_us = end_us
    network._resets_local = True
    return right / len(recordings)


def _cell(found: list[dict[str, Any]], **what: Any) -> list[float]:
    return [100 * row["right"] for row in found if all(row[name] == value for name, value in what.items())]


def _print(found: list[dict[str, Any]], methods: list[str]) -> None:
    """Print one row for each damage, one column for each method: fresh / carried, means over seeds."""
    from rich.console import Console
    from rich.table import Table

    table = Table("damage", "level", *methods, title="right answers, %: fresh / carried", box=None)
    for name, level in dict.fromkeys((row["damage"], row["level"]) for row in found):
        cells = []
        for method in methods:
            both = [_cell(found, damage=name, level=level, method=method, carried=carried) for carried in (False, True)]
            cells.append(" / ".join(f"{sum(it) / len(it):.1f}" if it else "-" for it in both))
        table.add_row(name, f"{level:g}", *cells)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _draw(path: Path, found: list[dict[str, Any]], methods: list[str]) -> None:
    """Draw one panel for each damage: right answers over its level, with the spread over seeds."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [entry[0] for entry in DAMAGES]
    columns = math.ceil(len(names) / 2)
    figure = Figure(figsize=(3.2 * columns, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    for k, (name, unit, *_) in enumerate(DAMAGES):
        axes = figure.add_subplot(2, columns, k + 1)
        levels = sorted({row["level"] for row in found if row["damage"] == name})
        for method, color in COLORS.items():
            if method not in methods or not levels:
                continue
            for carried, style in ((False, "-"), (True, "--"))[: 1 if method == "GP" else 2]:  # GP has nothing to carry
                clean = _cell(found, damage="none", method=method, carried=carried)
                rows = [clean, *(_cell(found, damage=name, level=it, method=method, carried=carried) for it in levels)]
                if not all(rows):
                    continue
                middle = np.array([np.mean(row) for row in rows])
                spread = np.array([np.std(row) for row in rows])
                x = np.arange(len(rows))
                label = method + (", carried" if carried else "")
                axes.plot(x, middle, style, color=color, marker="o", markersize=3, label=label)
                axes.fill_between(x, middle - spread, middle + spread, color=color, alpha=0.12, linewidth=0)
        axes.set_title(name, fontsize=10)
        axes.set_xticks(range(len(levels) + 1), ["0", *(f"{it:g}" for it in levels)], fontsize=8)
        axes.set_xlabel(unit, fontsize=8)
        axes.set_ylim(0, 100)
        if k % columns == 0:
            axes.set_ylabel("right answers, %")
        if k == 0:
            axes.legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=110)
