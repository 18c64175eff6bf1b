"""The command ``hebbstream eval accuracy``: plain accuracy and its cost.

It trains on one folder of recordings and asks about another, event by event. It counts what a chip would have to do:
synaptic operations, which are the synapses that events and spikes went through, for each recording. Dense networks do
all of a row for each event, convolutions only what lies around it.
"""

import importlib
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stream import evaluation
from stream.train import bar, dense_layers, labelled, size_of

__all__ = ["accuracy"]

NETS = ("dense", "conv")


def accuracy(
    folder: Annotated[Path, typer.Argument(help="Recordings to learn from: FOLDER/LABEL/RECORDING.")],
    test: Annotated[Path, typer.Argument(help="Recordings to be asked about.")],
    out: evaluation.Out,
    nets: Annotated[str, typer.Option(help="Some of dense, conv.")] = ",".join(NETS),
    hidden: Annotated[str, typer.Option(help="Units of the dense network's hidden layers.")] = "400",
    channels: Annotated[str, typer.Option(help="Channels of convolutions; each halves the map.")] = "12,24",
    seeds: evaluation.Seeds = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Times that every recording is seen.")] = 8,
    batch: evaluation.Batch = 32,
    cool: evaluation.Cool = 0.0,
    sensor: evaluation.Sensor = "34x34",
    limit: evaluation.Limit = None,
    threads: evaluation.Threads = 0,
    quick: Annotated[bool, typer.Option(help="One seed, one epoch.")] = False,
    full: Annotated[bool, typer.Option(help="Five seeds, 20 epochs.")] = False,
    on: evaluation.On = "",
    as_json: evaluation.Json = False,
) -> None:
    """Train on recordings, ask about others, count synaptic operations."""
    wanted = evaluation.chosen("--nets", nets, NETS)
    width, height = size_of(sensor)
    recordings, labels = labelled(folder, limit, width, height)
    asked, _ = labelled(test, limit, width, height)
    if full:
        seeds, epochs = 5, 20
    if quick:
        seeds, epochs = 1, 1
    settings: dict[str, Any] = {"recordings": len(recordings), "asked": len(asked), "epochs": epochs, "batch": batch}
    if cool:
        settings["cool"] = cool
    settings |= {"hidden": hidden, "channels": channels}
    out.mkdir(parents=True, exist_ok=True)
    found = evaluation.read_results(out / "results.json", settings)
    module = importlib.import_module("plasticity.train")

    def study(job: tuple[int, str]) -> list[dict[str, Any]]:
        seed, name = job
        shape = (height, width, 2)
        graph = dense_layers(hidden, shape, labels, seed)
        if name == "conv":
            graph = _convolutions(channels, shape, labels, seed)
        trainer = module.Trainer(
            graph,
            readout="scores",
            threads=threads or (1 if on else os.cpu_count()) or 1,
            learn=("weights", "times"),
        )
        with bar() as show:
            module.train(
                trainer,
                recordings,
                folder=out / f"{name}-{seed}",
                epochs=epochs,
                batch=batch,
                cool=cool,
                seed=seed,
                progress=show,
            )
        return [{"net": name, "seed": seed, **_asked(trainer, asked)}]

    def keep(job: tuple[int, str], rows: list[dict[str, Any]]) -> None:
        print(f"{job[1]}, seed {job[0]}: trained and asked", file=sys.stderr, flush=True)
        found.extend(rows)
        evaluation.write_results(out / "results.json", settings, found)

    done = {(row["seed"], row["net"]) for row in found}
    evaluation.each(
        [job for job in itertools.product(range(1, seeds + 1), wanted) if job not in done], study, keep, on=on
    )
    _draw(out / "results.png", found)
    if as_json:
        print(json.dumps({"settings": settings, "results": found}))
        return
    for name in wanted:
        rows = [row for row in found if row["net"] == name]
        right = [100 * row["right"] for row in rows]
        middle = sum(right) / len(right)
        spread = (sum((it - middle) ** 2 for it in right) / len(right)) ** 0.5
        print(
            f"{name:6} {middle:5.1f} ± {spread:.1f} % of {len(asked)}   "
            f"{sum(row['events'] for row in rows) / len(rows):.0f} events, "
            f"{sum(row['spikes'] for row in rows) / len(rows):.0f} spikes, "
            f"{sum(row['operations'] for row in rows) / len(rows) / 1e6:.2f} M synaptic operations a recording"
        )
    print(f"results in {out / 'results.json'}, picture in {out / 'results.png'}", file=sys.stderr)


def _draw(path: Path, found: list[dict[str, Any]]) -> None:
    """Draw right answers over synaptic operations, a dot for each seed: what an answer costs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in dict.fromkeys(row["net"] for row in found):
        rows = [row for row in found if row["net"] == name]
        axes.plot([row["operations"] / 1e6 for row in rows], [100 * row["right"] for row in rows], "o", label=name)
    axes.set_xlim(0)
    axes.set_xlabel("M synaptic operations a recording")
    axes.set_ylabel("right answers, %")
    axes.legend()
    figure.savefig(path, dpi=110)


def _convolutions(channels: str, inputs: tuple[int, int, int], classes: int, seed: int) -> Any:
    """Draw convolutions of 5x5, then 3x3, each of stride 2, and a dense readout of leaky integrators."""
    import numpy as np

    from stream.errors import ConfigError

    graph = importlib.import_module("neurons.graph")
    lif = importlib.import_module("neurons.lif").LIFUnits(tau_mem_us=20_000.0)
    convolution = importlib.import_module("neurons.convolution").Convolution
    dense = importlib.import_module("neurons.dense").Dense
    integrator = importlib.import_module("neurons.leaky_integrator").LeakyIntegratorUnits(tau_mem_us=60_000.0)
    if not all(part.strip().isdigit() and int(part) for part in channels.split(",")):
        raise ConfigError(f"--channels {channels}: wanted whole numbers above 0, such as 12,24")
    rng = np.random.default_rng(seed)
    populations, projections = [], []
    source, shape = "input", tuple(inputs)
    for k, part in enumerate(channels.split(",")):
        side, name, c = 5 if k == 0 else 3, f"map{k + 1}", int(part)
        kernel = rng.normal(0.0, 1.2 / side, (side, side, shape[2], c))
        after = tuple((n + 2 * (side // 2) - side) // 2 + 1 for n in shape[:2])
        projections.append(
            graph.Projection(source, name, convolution(kernel, stride=(2, 2), padding=(side // 2, side // 2)))
        )
        source, shape = name, (*after, c)
        populations.append(graph.Population(name, lif, shape))
    n = int(np.prod(shape))
    populations.append(graph.Population("scores", integrator, (classes,)))
    projections.append(graph.Projection(source, "scores", dense(rng.normal(0.0, 2.0 / np.sqrt(n), (n, classes)))))
    return graph.Graph(inputs, populations, projections)


def _fan_out(graph: Any) -> dict[str, Any]:
    """Count, for each unit of each population, the synapses that its spikes go through: int64 (n_units,)."""
    import numpy as np

    shape_of = importlib.import_module("neurons.graph").shape_of
    counts: dict[str, Any] = {}
    for it in graph.projections:
        before, after = shape_of(graph, it.source), shape_of(graph, it.target)
        if hasattr(it.topology, "stride"):
            reached = []
            for axis in (0, 1):
                place = np.arange(before[axis])[:, None] + it.topology.padding[axis]
                tap = place - np.arange(after[axis]) * it.topology.stride[axis]
                reached.append(((tap >= 0) & (tap < it.topology.weight.shape[axis])).sum(axis=1))
            mine = np.repeat(np.outer(*reached).reshape(-1), before[2]) * after[2]
        else:
            mine = np.full(int(np.prod(before)), int(np.prod(after)))
        counts[it.source] = counts.get(it.source, 0) + mine
    return counts


def _asked(trainer: Any, recordings: list[Any]) -> dict[str, float]:
    """Ask about every recording; returns shares and, for each recording, mean counts."""
    import numpy as np

    network, readout = trainer.lanes[0], trainer.correction.readout
    fan_out = _fan_out(network.graph)
    right = n_events = n_spikes = operations = 0
    for recording in recordings:
        events = recording.read()
        network.begin(int(events["t"][0]) if len(events) else 0)
        fired = network.run(events)
        right += int(np.argmax(network.averages(readout))) == recording.label
        width = network.graph.inputs[1]
        place = (events["y"].astype(np.int64) * width + events["x"]) * 2 + events["p"]
        n_events += len(events)
        operations += int(fan_out["input"][place].sum())
        for name, spikes in fired.items():
            n_spikes += len(spikes)
            if name in fan_out:
                operations += int(fan_out[name][spikes["unit"]].sum())
    n = len(recordings)
    return {"right": right / n, "events": n_events / n, "spikes": n_spikes / n, "operations": operations / n}
