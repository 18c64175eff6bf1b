"""Commands about networks: ``hebbstream net info NET`` and ``hebbstream net run NET EVENTS``.

NET is a file of ours (``neurons.graph_file.save_graph``) or a ``.nir`` file; which of them, its first bytes tell.

A run reads the events piece by piece and keeps no more than a piece in memory, spikes and potentials included: they go
to files beside the target, which becomes an ``.npz`` archive at the end (and stands there whole or not at all).

``.npz`` archive
----------------
``NAME.t``        int64, shape (n_spikes,): times of the spikes of population NAME, us, of the events' clock
``NAME.unit``     uint32, shape (n_spikes,)
``potentials.t``  int64, shape (n_samples,): with ``--potentials``; ``every_us``, 2 ``every_us``, ... after the first
                  event, after all that happened up to and at that time
``NAME.v``        real, shape (n_samples, shape of the population)
"""

import importlib
import json
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

net = typer.Typer(
    help="Networks: what one is, and what it does with events.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MOST_BYTES = 2**33  # of sampled potentials

Net = Annotated[Path, typer.Argument(help="A network: .nir, or .safetensors written by save_graph.")]
DtUs = Annotated[
    float | None, typer.Option("--dt-us", help=".nir: the time step of the framework that exported it, us.")
]
Step = Annotated[str, typer.Option(help=".nir: how that framework steps: impulse, pulse, euler.")]
Reset = Annotated[str | None, typer.Option(help=".nir: what a spike does: soft or hard. Default: hard.")]
FeedbackDelayUs = Annotated[
    int, typer.Option("--feedback-delay-us", help=".nir: delay of what closes a cycle without delay, us.")
]
TimeUnitUs = Annotated[float, typer.Option("--time-unit-us", help=".nir: its unit of time, us; NIR says seconds.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def load_net(
    path: Path,
    *,
    dt_us: float | None = None,
    step: str = "impulse",
    reset: str | None = None,
    feedback_delay_us: int = 1,
    time_unit_us: float = 1e6,
) -> Any:
    """Read a network from either kind of file; the options are those of ``neurons.nir_file.from_nir``.

    Returns
    -------
    neurons.graph.Graph

    Raises
    ------
    FormatError
        If it is not there, damaged, or neither.
    ConfigError
        If the network cannot run here, or needs an option; the message says which.
    """
    from stream.errors import ConfigError

    path = path.expanduser()
    nodes, files = importlib.import_module("neurons.nir_nodes"), importlib.import_module("neurons.graph_file")
    try:
        with path.open("rb") as file:
            is_nir = file.read(8) == nodes.HDF5_MAGIC
    except OSError:
        is_nir = path.suffix == ".nir"  # whoever reads it says why it cannot
    if not is_nir and path.suffix != ".nir":
        if (dt_us, reset) != (None, None):
            raise ConfigError(f"network {path}: is no .nir file; its spikes and resets need no options")
        return files.load_graph(path)
    return importlib.import_module("neurons.nir_file").from_nir(
        path,
        dt_us=dt_us,
        step=step,
        reset=reset,
        feedback_delay_us=feedback_delay_us,
        time_unit_us=time_unit_us,
    )


# -- info --------------------------------------------------------------------------------------------------------------


def _range(value: Any) -> Any:
    """Sum an array up; leave numbers and words as they are."""
    return [float(value.min()), float(value.max())] if getattr(value, "ndim", 0) else value


def describe(graph: Any) -> dict[str, Any]:
    """Describe a network for programs: arrays are given as their least and largest number."""
    n_units = importlib.import_module("neurons.graph").n_units
    projections = []
    for projection in graph.projections:
        values = projection.topology._asdict()
        weight = values.pop("weight", values.get("strength"))
        projections.append(
            {
                "source": projection.source,
                "target": projection.target,
                "topology": type(projection.topology).__name__,
                "delay_us": int(projection.delay_us),
                "fade": None if projection.fade is None else projection.fade._asdict(),
                "weights": int(getattr(weight, "size", 1)),
                "weight": _range(weight),
                "options": {name: value for name, value in values.items() if not hasattr(value, "ndim")},
            }
        )
    return {
        "inputs": list(graph.inputs),
        "populations": [
            {
                "name": population.name,
                "model": type(population.model).__name__.removesuffix("Units"),
                "shape": list(population.shape),
                "units": n_units(population.shape),
                "parameters": {name: _range(value) for name, value in population.model._asdict().items()},
            }
            for population in graph.populations
        ],
        "projections": projections,
        "units": sum(n_units(population.shape) for population in graph.populations),
        "weights": sum(projection["weights"] for projection in projections),
    }


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple) and value and isinstance(value[0], float):
        return " to ".join(f"{number:.6g}" for number in value)
    return "x".join(str(number) for number in value) if isinstance(value, list | tuple) else str(value)


@net.command()
def info(
    network: Net,
    dt_us: DtUs = None,
    step: Step = "impulse",
    reset: Reset = None,
    feedback_delay_us: FeedbackDelayUs = 1,
    time_unit_us: TimeUnitUs = 1e6,
    as_json: Json = False,
) -> None:
    """Tell what a network consists of."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    graph = load_net(
        network,
        dt_us=dt_us,
        step=step,
        reset=reset,
        feedback_delay_us=feedback_delay_us,
        time_unit_us=time_unit_us,
    )
    found = describe(graph)
    if as_json:
        print(json.dumps(found))
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    populations = Table("population", "model", "shape", "units", "parameters", box=SIMPLE)
    populations.add_row("input", "", _words(found["inputs"]), "", "")
    for row in found["populations"]:
        parameters = ", ".join(f"{name} {_words(value)}" for name, value in row["parameters"].items())
        populations.add_row(row["name"], row["model"], _words(row["shape"]), f"{row['units']:,}", parameters)
    projections = Table("projection", "topology", "delay us", "weights", "from - to", "options", box=SIMPLE)
    for row in found["projections"]:
        options = ", ".join(f"{name} {_words(value)}" for name, value in row["options"].items())
        way = f"{row['source']} -> {row['target']}"
        cells = (f"{row['delay_us']:,}", f"{row['weights']:,}", _words(row["weight"]))
        projections.add_row(way, row["topology"], *cells, options)
    console.print(populations)
    console.print(projections)
    console.print(f"{found['units']:,} units, {found['weights']:,} weights", highlight=False)


# -- run ---------------------------------------------------------------------------------------------------------------


class Columns:
    """Arrays that grow on disk and end as one ``.npz`` archive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._kinds: dict[str, tuple[Any, tuple[int, ...]]] = {}
        self.rows: dict[str, int] = {}

    def append(self, name: str, rows: Any) -> None:
        """Append rows; all of a name are of one type, and of one shape but for their number."""
        if name not in self._files:
            self._files[name] = (self.folder / str(len(self._files))).open("w+b")
            self._kinds[name] = (rows.dtype, rows.shape[1:])
            self.rows[name] = 0
        self._files[name].write(memoryview(rows.tobytes()))
        self.rows[name] += len(rows)

    def pack(self, path: Path) -> None:
        """Write the archive, piece by piece."""
        layout = importlib.import_module("numpy").lib.format
        with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
            for name, source in self._files.items():
                dtype, shape = self._kinds[name]
                header = {"descr": dtype.str, "fortran_order": False, "shape": (self.rows[name], *shape)}
                source.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as target:
                    layout.write_array_header_1_0(target, header)
                    shutil.copyfileobj(source, target, 2**20)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def play(
    network: Any, chunks: Iterable[Any], columns: Columns, *, every_us: int = 0, duration_us: int | None = None
) -> tuple[int, int, int]:
    """Send items through a network and keep what comes out.

    Parameters
    ----------
    network
        A ``neurons.network.Network``.
    chunks
        Arrays of what it takes (EVENT_DTYPE or SPIKE_DTYPE), sorted. How they are cut changes nothing.
    columns
        Gets ``NAME.t`` and ``NAME.unit`` of each population that spikes; with ``every_us``, ``potentials.t`` and
        ``NAME.v`` of every population.
    every_us
        Between two samples, us; 0 for none.
    duration_us
        How long, from the first item; also beyond the last one.

    Returns
    -------
    n_items, first_us, last_us
        Counted, and the span of time that was run.
    """
    import numpy as np

    from stream.errors import RunError
    from stream.packet import SPIKE_DTYPE

    nothing: Any = None
    n_items = n_bytes = first_us = last_us = sample_us = 0
    stop_us = 2**62

    def keep(spikes_of: dict[str, Any]) -> None:
        for name, spikes in spikes_of.items():
            columns.append(f"{name}.t", spikes["t"])
            columns.append(f"{name}.unit", spikes["unit"])

    def sample() -> None:
        nonlocal sample_us, n_bytes
        columns.append("potentials.t", np.array([sample_us], np.int64))
        for population in network.graph.populations:
            values = network.potentials(population.name)[None]
            n_bytes += values.nbytes
            columns.append(f"{population.name}.v", values)
        if n_bytes > MOST_BYTES:
            raise RunError(
                f"potentials: more than {MOST_BYTES / 2**30:.0f} GiB up to {sample_us} us; sample less often "
                f"(--every-us), or give a shorter --duration"
            )
        sample_us += every_us

    for items in chunks:
        if not len(items):
            continue
        t_us = np.ascontiguousarray(items["t"])
        if nothing is None:
            nothing = items[:0].copy()
            first_us = last_us = int(t_us[0])
            sample_us = first_us + every_us
            stop_us = 2**62 if duration_us is None else first_us + duration_us
        is_over = int(t_us[-1]) >= stop_us
        if is_over:
            n = int(np.searchsorted(t_us, stop_us))
            items, t_us = items[:n], t_us[:n]
        k = 0
        # a sample comes after all that happens at its time, so it waits for an item that is later
        while every_us and len(t_us) and sample_us < t_us[-1]:
            n = int(np.searchsorted(t_us, sample_us, side="right"))
            keep(network.run(items[k:n], sample_us))
            sample()
            k = n
        keep(network.run(items[k:]))
        n_items += len(items)
        last_us = int(t_us[-1]) if len(t_us) else last_us
        if is_over:
            break
    if nothing is None:
        keep({name: np.zeros(0, SPIKE_DTYPE) for name in network.outputs})
        return 0, 0, 0
    if duration_us is not None:
        last_us = stop_us - 1
    while every_us and sample_us <= last_us:
        keep(network.run(nothing, sample_us))
        sample()
    keep(network.run(nothing, last_us))
    return n_items, first_us, last_us


def read_spikes(path: Path, n_inputs: int) -> Any:
    """Read spikes, ``t`` and ``unit``, from an ``.npz`` archive."""
    import numpy as np

    from stream.errors import FormatError
    from stream.packet import SPIKE_DTYPE

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            t, unit = np.asarray(archive["t"]), np.asarray(archive["unit"])
    except FileNotFoundError:
        raise FormatError(f"spikes {path}: not there") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"spikes {path}: wanted an .npz archive with 't' (us) and 'unit', for the network takes spikes of "
            f"{n_inputs} units: {error}"
        ) from None
    if t.ndim != 1 or t.shape != unit.shape or t.dtype.kind not in "iu" or unit.dtype.kind not in "iu":
        raise FormatError(
            f"spikes {path}: t is {t.dtype}, shape {t.shape}, unit {unit.dtype}, shape {unit.shape}; wanted whole "
            f"numbers, two lines of the same length"
        )
    if len(t) and (np.any(t[1:] < t[:-1]) or unit.max() >= n_inputs or unit.min() < 0 or abs(int(t[-1])) > 2**61):
        raise FormatError(f"spikes {path}: wanted times that do not go back, and units 0 to {n_inputs - 1}")
    items = np.zeros(len(t), SPIKE_DTYPE)
    items["t"], items["unit"] = t, unit
    return items


def _after(chunks: Iterable[Any], start_us: int) -> Iterator[Any]:
    """Leave out what comes before a start, counted from the first item."""
    first_us = None
    for items in chunks:
        if not len(items):
            continue
        first_us = int(items["t"][0]) if first_us is None else first_us
        yield items if items["t"][0] >= first_us + start_us else items[items["t"] >= first_us + start_us]


@net.command()
def run(
    network: Net,
    events: Annotated[str, typer.Argument(help="An event file; '-' is standard input. Or spikes (.npz: t, unit).")],
    out: Annotated[Path, typer.Option(help="The .npz archive to write.")],
    potentials: Annotated[bool, typer.Option("--potentials", help="Sample the potentials too.")] = False,
    every_us: Annotated[int, typer.Option("--every-us", help="Between two samples, us.")] = 1000,
    discipline: Annotated[str, typer.Option(help="Thresholds are tested: event or phase.")] = "event",
    phase_us: Annotated[int, typer.Option("--phase-us", help="Length of a phase, us.")] = 1000,
    precision: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    start: Annotated[float | None, typer.Option(help="Begin so long after the first event, s.")] = None,
    duration: Annotated[float | None, typer.Option(help="Run so much of it, s; also beyond its end.")] = None,
    size: Annotated[str | None, typer.Option(help="The sensor, WIDTHxHEIGHT, where the file does not tell.")] = None,
    read_format: Annotated[
        str, typer.Option("--from", help="Of a file without a header: bin, evt2, evt2.1, evt3.")
    ] = "auto",
    dt_us: DtUs = None,
    step: Step = "impulse",
    reset: Reset = None,
    feedback_delay_us: FeedbackDelayUs = 1,
    time_unit_us: TimeUnitUs = 1e6,
    as_json: Json = False,
) -> None:
    """Run events through a network and keep its spikes."""
    from stream.__main__ import _byte_bar, _console, _reading, _us
    from stream.errors import ConfigError, FormatError, RunError

    if every_us < 1:
        raise ConfigError(f"--every-us {every_us}: wanted whole us, 1 or more")
    duration_us, start_us = _us(duration, "--duration"), _us(start, "--start") or 0
    if duration_us == 0:
        raise ConfigError("--duration 0: wanted seconds above 0")
    graph = load_net(
        network,
        dt_us=dt_us,
        step=step,
        reset=reset,
        feedback_delay_us=feedback_delay_us,
        time_unit_us=time_unit_us,
    )
    if potentials and any(population.name == "potentials" for population in graph.populations):
        raise ConfigError("population 'potentials': with --potentials, that is the name of the samples; rename it")
    made = importlib.import_module("neurons.network").Network.of(
        graph, discipline=discipline, phase_us=phase_us, precision=precision
    )
    out = out.expanduser()
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}; make it, or write elsewhere")
    if out.is_dir() or out.suffix != ".npz":
        raise ConfigError(f"--out {out}: wanted a file that ends in .npz")
    warnings: list[str] = []
    port = made.inputs.get("events")
    where: Callable[[], tuple[int, int]] | None = None
    told: Callable[[], list[str]] = list
    if port is None:
        opened: Iterable[Any] = [read_spikes(Path(events).expanduser(), made.inputs["spikes"].n_units)]
    else:
        source = importlib.import_module("sources.event_file").open_events(events, _reading(size, read_format))
        if (source.width, source.height) != (port.width, port.height):
            raise ConfigError(
                f"{events}: is of a sensor of {source.width}x{source.height} pixels, and {network} takes "
                f"{port.width}x{port.height}; give --size {port.width}x{port.height} if the file's size was only "
                f"guessed, else crop the events or downsample them (sources.filter_crop, sources.filter_downsample)"
            )
        opened, where, told = source, source.progress, source.losses

    fault = ""
    begun = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder,
        _byte_bar(_console(to_stderr=True), f"{events} -> {out}") as progress,
    ):
        columns = Columns(Path(folder))
        try:

            def chunks() -> Iterator[Any]:
                nonlocal fault
                try:
                    for items in opened:
                        if where is not None:
                            progress(*where())
                        yield items
                except FormatError as error:  # a torn file: what came before counts
                    fault = str(error)

            n_items, first_us, last_us = play(
                made,
                _after(chunks(), start_us),
                columns,
                every_us=every_us if potentials else 0,
                duration_us=duration_us,
            )
            columns.pack(Path(folder) / "archive.npz")
        finally:
            columns.close()
        (Path(folder) / "archive.npz").replace(out)
    wall_s = time.perf_counter() - begun
    warnings += told()
    if not n_items:
        warnings.append("there was nothing to run")
    span_s = (last_us - first_us) / 1e6
    spikes = {name.removesuffix(".t"): n for name, n in columns.rows.items() if name.endswith(".t")}
    n_samples = spikes.pop("potentials", 0) if potentials else 0
    report = {
        "network": str(network),
        "events": n_items,
        "t_first_us": first_us,
        "t_last_us": last_us,
        "spikes": spikes,
        "samples": n_samples,
        "wall_s": wall_s,
        "out": str(out),
        "warnings": warnings,
    }
    console = _console(to_stderr=as_json)
    if as_json:
        print(json.dumps(report))
    else:
        _tell(console, report, graph, span_s)
    if fault:
        raise RunError(f"{fault}; what was read has been run, and is in {out}")


def _tell(console: Any, report: dict[str, Any], graph: Any, span_s: float) -> None:
    """Print what a run came to."""
    from rich.box import SIMPLE
    from rich.table import Table

    n_units = importlib.import_module("neurons.graph").n_units
    words = f"{report['events']:,} events, {span_s:,.3f} s of stream in {report['wall_s']:.2f} s"
    console.print(words, highlight=False)
    table = Table("population", "spikes", "Hz a unit", box=SIMPLE)
    for population in graph.populations:
        if population.name in report["spikes"]:
            n = report["spikes"][population.name]
            rate = f"{n / span_s / n_units(population.shape):.3g}" if span_s > 0 else ""
            table.add_row(population.name, f"{n:,}", rate)
    console.print(table)
    samples = f", {report['samples']:,} samples of the potentials" if report["samples"] else ""
    console.print(f"{report['out']}: spikes{samples}", highlight=False)
    for warning in report["warnings"]:
        console.print(warning, style="yellow", markup=False, highlight=False)
