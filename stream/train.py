"""The command ``hebbstream train``: a network learns from folders of labelled recordings.

Folders are FOLDER/LABEL/RECORDING, in any format that is read, as ``sources.folder`` has them. Progress goes to the
terminal, results to OUT: ``best.safetensors`` is the network, for ``hebbstream net run`` and pipelines. The same
command with the same OUT goes on where it was interrupted.
"""

import contextlib
import functools
import importlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.evaluation import Cool

__all__ = ["RULE", "bar", "dense_layers", "labelled", "size_of", "train"]

# Where learning of the Hebbian rule begins: about as weak as the authors' (both drawn from 0 to 0.01). From there it
# finds its sign: on damaged streams minus, which turns down what never rests. From the rule's own defaults, plus and
# 150 times stronger, gradients explode under hot pixels, and it ends 13 points behind no rule at all.
RULE = {"local_rate": 1e-3, "mixing": 1e-2}


def train(
    folder: Annotated[Path, typer.Argument(help="Recordings to learn from: FOLDER/LABEL/RECORDING.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for what is learned; go on from what it holds.")],
    test: Annotated[Path | None, typer.Option(help="Recordings that are held back, to judge every epoch.")] = None,
    net: Annotated[
        Path | None, typer.Option(help="A network to begin with; default: dense layers, see --hidden.")
    ] = None,
    readout: Annotated[str, typer.Option(help="Its population that answers.")] = "scores",
    hidden: Annotated[str, typer.Option(help="Units of hidden layers, such as 512 or 512,128.")] = "200",
    sensor: Annotated[str, typer.Option(help="Sensor's size, such as 34x34.")] = "34x34",
    mode: Annotated[
        str, typer.Option(help="GP: weights alone; HP: with a local rule; STP: with tired terminals.")
    ] = "GP",
    epochs: Annotated[int, typer.Option(min=1, help="Times that every recording is seen.")] = 4,
    batch: Annotated[int, typer.Option(min=1, help="Recordings between two steps.")] = 32,
    rate: Annotated[float, typer.Option(help="Adam's rate for weights.")] = 2e-3,
    meta_rate: Annotated[float, typer.Option(help="Adam's rate for all else.")] = 1e-3,
    patience: Annotated[int, typer.Option(min=0, help="Stop after so many epochs without gain; 0: never.")] = 0,
    cool: Cool = 0.0,
    limit: Annotated[int | None, typer.Option(help="Use so many recordings of each folder, all labels alike.")] = None,
    form: Annotated[
        str, typer.Option(help="adjoint, or eligibility: forward in time; for GP and dense layers.")
    ] = "adjoint",
    weight_bits: Annotated[
        int, typer.Option(help="8: learn weights that the chip takes as they are; 0: whole ones.")
    ] = 0,
    loss: Annotated[
        str,
        typer.Option(help="cross_entropy, or mse; of the readout's spikes: spike_count, first_spike."),
    ] = "cross_entropy",
    threads: Annotated[int, typer.Option(min=0, help="0: one for each core. Does not change the result.")] = 0,
    on: Annotated[
        str, typer.Option(help="Spread it over a cluster: 'ray', 'ray://HEAD' (extra 'cluster'). Same result.")
    ] = "",
    workers: Annotated[int, typer.Option(min=0, help="With --on: processes; 0: one for each core there.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of first weights and of the order of recordings.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a network on labelled recordings, event by event."""
    from stream.errors import ConfigError

    if mode not in ("GP", "HP", "STP"):
        raise ConfigError(f"--mode {mode}: wanted GP, HP or STP")
    width, height = size_of(sensor)
    recordings, labels = labelled(folder, limit, width, height)
    held_back, _ = labelled(test, limit, width, height) if test is not None else ([], 0)
    correction = importlib.import_module("plasticity.train")
    has_spikes = loss in ("spike_count", "first_spike")
    if net is not None:
        graph = importlib.import_module("stream.net").load_net(net)
    else:
        graph = dense_layers(hidden, (height, width, 2), labels, seed, readout, fires=has_spikes)
    first = ("input", next(it.target for it in graph.projections if it.source == "input"))
    rules, terminals = {}, {}
    if mode == "HP":
        rules[first] = importlib.import_module("plasticity.hebbian").Hebbian(**RULE)
    if mode == "STP":
        # resources that outlast a recording, and a release that wakes at the second event of a burst
        terminals[first] = importlib.import_module("plasticity.short_term").ShortTerm(
            depletion=0.2, tau_rec_us=300_000.0, f_rest=0.25, f_step=0.5, tau_fac_us=10_000.0
        )
    make = correction.Trainer
    if on:
        make = functools.partial(importlib.import_module("plasticity.spread").SpreadTrainer, on=on, workers=workers)
    trainer = make(
        graph,
        readout="" if has_spikes else readout,
        output=readout if has_spikes else "",
        loss=loss,
        rules=rules,
        terminals=terminals,
        threads=threads or os.cpu_count() or 1,
        learn=("weights",) if mode == "GP" else ("weights", "rules", "times"),
        weight_rate=rate,
        meta_rate=meta_rate,
        weight_bits=weight_bits,
        form=form,
    )
    with bar() as show:
        done = correction.train(
            trainer,
            recordings,
            held_back,
            folder=out,
            epochs=epochs,
            batch=batch,
            patience=patience,
            cool=cool,
            seed=seed,
            progress=show,
        )
    if as_json:
        rows = [
            {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in it._asdict().items()} for it in done
        ]
        more = {"efficiency": trainer.efficiency, "losses": trainer.losses} if on else {}
        print(json.dumps({"recordings": len(recordings), "held_back": len(held_back), "epochs": rows, **more}))
        return
    print(f"{len(recordings)} recordings, {len(held_back)} held back, network in {out / 'best.safetensors'}")
    for it in done:
        judged = "" if math.isnan(it.held_back) else f"   held back {100 * it.held_back:5.1f} %"
        print(f"epoch {it.number:3}   loss {it.loss:.3f}   right {100 * it.accuracy:5.1f} %{judged}")
    if on:
        print(f"{trainer.efficiency:.0%} of the workers' time went to recordings; {trainer.losses} workers were lost")
    for meta in trainer.correction.metas:
        middle = float(sum(meta.value) / len(meta.value))
        print(f"{meta.name:40} {middle:.4g}" + (f"  (mean of {len(meta.value)})" if len(meta.value) > 1 else ""))


def size_of(words: str) -> tuple[int, int]:
    """Read a sensor's size; ConfigError if it is none."""
    from stream.errors import ConfigError

    width, _, height = words.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ConfigError(f"--sensor {words}: wanted WIDTHxHEIGHT, such as 34x34")
    return int(width), int(height)


def labelled(folder: Path, limit: int | None, width: int, height: int, skip: int = 0) -> tuple[list[Any], int]:
    """List recordings, without those that ``skip`` as a limit would choose, and count the classes."""
    module = importlib.import_module("sources.folder")
    read = importlib.import_module("sources.event_file").read_events
    make = importlib.import_module("plasticity.train").Recording

    def reader(path: Path) -> Callable[[], Any]:
        return lambda: read(path, width=width, height=height).events

    found = module.recordings_of(module.Part(path=str(folder), limit=None if limit is None else skip + limit))
    if skip:
        left_out = {it.path for it in module.recordings_of(module.Part(path=str(folder), limit=skip))}
        found = [it for it in found if it.path not in left_out]
    return [make(it.label, reader(it.path)) for it in found], 1 + max(it.label for it in found)


def dense_layers(
    hidden: str, inputs: tuple[int, int, int], classes: int, seed: int, readout: str = "scores", fires: bool = False
) -> Any:
    """Draw dense layers of leaky units with a readout of leaky integrators, or of units that fire."""
    import numpy as np

    from stream.errors import ConfigError

    graph = importlib.import_module("neurons.graph")
    lif = importlib.import_module("neurons.lif").LIFUnits(tau_mem_us=20_000.0)
    dense = importlib.import_module("neurons.dense").Dense
    integrator = importlib.import_module("neurons.leaky_integrator").LeakyIntegratorUnits(tau_mem_us=60_000.0)
    if not all(part.strip().isdigit() and int(part) for part in hidden.split(",")):
        raise ConfigError(f"--hidden {hidden}: wanted whole numbers above 0, such as 512,128")
    rng = np.random.default_rng(seed)
    populations, projections = [], []
    source, n, spread = "input", int(np.prod(inputs)), 0.07
    for k, part in enumerate(hidden.split(",")):
        m, name = int(part), f"hidden{k + 1}"
        populations.append(graph.Population(name, lif, (m,)))
        projections.append(graph.Projection(source, name, dense(rng.normal(0.0, spread, (n, m)))))
        source, n, spread = name, m, 2.0 / math.sqrt(m)  # spikes of a layer are fewer than events
    populations.append(graph.Population(readout, lif if fires else integrator, (classes,)))
    projections.append(
        graph.Projection(source, readout, dense(rng.normal(0.0, (2.0 if fires else 1.0) / math.sqrt(n), (n, classes))))
    )
    return graph.Graph(inputs, populations, projections)


@contextlib.contextmanager
def bar(what: str = "") -> Iterator[Callable[[int, int, int, float], None]]:
    """Show progress of learning, or of ``what``, such as "recordings"; nothing where the terminal is none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("compiling", total=None)

        def show(epoch: int, done: int, total: int, accuracy: float) -> None:
            words = what or f"epoch {epoch}, right so far {100 * accuracy:.1f} %"
            progress.update(bar, description=words, completed=done, total=total or None)  # None: nobody knows

        yield show
