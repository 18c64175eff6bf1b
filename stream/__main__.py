"""The command line: ``hebbstream COMMAND`` or ``python -m stream COMMAND``.

Heavy modules (NumPy, Numba, ZeroMQ) are imported inside the commands: ``--help`` has to answer at once.
"""

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.chip import chip
from stream.evaluate import app as evaluations
from stream.net import net
from stream.train import train

if TYPE_CHECKING:
    from rich.console import Console

    from stream.host import Status
    from stream.ledger import LatencyPercentiles
    from stream.pipeline import Pipeline, SourceSpec
    from stream.run import RunResult
    from stream.run_folder import RunFolder

app = typer.Typer(
    name="hebbstream",
    help="Event cameras, spiking networks that learn event by event, and the many-core chip that runs them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(net, name="net")
app.add_typer(chip, name="chip")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Metrics = Annotated[int | None, typer.Option(help="Prometheus endpoint on this port of the loopback address.")]
OneProcess = Annotated[bool, typer.Option("--one-process", help="Everything in this process; same results to the bit.")]
Transport = Annotated[str | None, typer.Option(help="Between processes: ipc or tcp; default what the file says.")]
Plugin = Annotated[list[str] | None, typer.Option(help="A package of yours whose classes the pipeline may name.")]
Start = Annotated[float | None, typer.Option(help="Begin so long after the first event, s.")]
Duration = Annotated[float | None, typer.Option(help="Play so much of it, s.")]
Loop = Annotated[int | None, typer.Option(help="Play it so often; 0 until stopped.")]
Size = Annotated[str | None, typer.Option(help="The sensor, WIDTHxHEIGHT, where the file does not tell.")]
ReadFormat = Annotated[str, typer.Option("--from", help="Of a file without a header: bin, evt2, evt2.1, evt3.")]
WriteFormat = Annotated[
    str, typer.Option("--format", help="aedat4, bin, csv, dat, es, evt2, evt3, hdf5, npz; default by suffix.")
]
Rebase = Annotated[bool, typer.Option("--rebase", help="Let times begin at 0.")]
Backward = Annotated[str, typer.Option(help="Times that go back: clamp, drop, pass, error.")]
Outside = Annotated[str, typer.Option(help="Events outside of the sensor: clamp, drop, pass, error.")]
Raw = Annotated[bool, typer.Option("--raw", help="Bits as stored: no inversion, no mirroring.")]
Columns = Annotated[str, typer.Option(help="Order of columns in text and arrays, such as xypt.")]
TimeUnit = Annotated[str, typer.Option(help="Of text, arrays, HDF5: auto, s, ms, us, ns.")]
Content = Annotated[str, typer.Option(help="Which of several: a bag's topic, an HDF5 group, an AEDAT 2 chip.")]
On = Annotated[
    str, typer.Option("--on", help="Spread it over a cluster: 'ray', or 'ray://HEAD' (needs the extra 'cluster').")
]
View = Annotated[bool, typer.Option("--view", help="Show it in a browser while it runs; see the command view.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing while it runs.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the recording and the picture.")] = Path("runs/demo"),
    one_process: OneProcess = False,
    transport: Transport = None,
    speed: Annotated[str, typer.Option(help="'max', or stream seconds per second of wall time.")] = "max",
    small: Annotated[bool, typer.Option(help="A tenth of the recordings: a look in a few seconds.")] = False,
    view: View = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Play labelled recordings of a simulated camera through a learner onto the chip, and show what was learned."""
    from stream.pipeline import load

    console = _console(to_stderr=as_json)
    folder = _demo_recordings(console, quiet=quiet)
    os.environ["HEBBSTREAM_DEMO"] = str(folder)  # the shipped pipeline file names it; its processes inherit it
    pipeline = load(Path(__file__).parent / "pipelines" / "demo.toml")
    for source in pipeline.source:
        source.speed = _speed(speed)
        if small:
            for part in source.params["parts"]:
                part["limit"] = max(20, part.get("limit", 400) // 10)
    for operator in pipeline.operator:
        if operator.kind == "stream.record.Recorder":
            operator.params["path"] = str(out / "recording.hbs")
    _run(pipeline, console, one_process=one_process, transport=transport, view=view, as_json=as_json, quiet=quiet)


@app.command()
def run(
    pipeline: Annotated[Path | None, typer.Argument(help="A pipeline file (TOML).")] = None,
    one_process: OneProcess = False,
    transport: Transport = None,
    directory: Annotated[
        str | None, typer.Option("--dir", help="Keep snapshots, log and summary here (or a URL); restart dead nodes.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with the run in this directory, from its last complete snapshot.")
    ] = None,
    snapshot_every: Annotated[float | None, typer.Option(help="Stream time between two snapshots, s.")] = None,
    restarts: Annotated[int | None, typer.Option(help="Restarts a minute after which the run gives up.")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Instead of the file's source: event file, folder, recording, 'simulated', 'camera', 'camera:SERIAL', "
            "'udp://HOST:PORT', 'dv://HOST:PORT', '-'."
        ),
    ] = None,
    speed: Annotated[str | None, typer.Option(help="'max', or stream seconds per second of wall time.")] = None,
    start: Start = None,
    duration: Duration = None,
    loop: Loop = None,
    record: Annotated[
        list[str] | None, typer.Option(help="Record an output as well: MEMBER.PORT=FILE. May be given several times.")
    ] = None,
    restore: Annotated[int | None, typer.Option(help="Go on from the snapshot of this barrier.")] = None,
    on: On = "",
    metrics: Metrics = None,
    log: Annotated[
        Path | None, typer.Option(help="Append a JSON line a second, and the summary, to this file.")
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="Write the summary, with the ledger, to this JSON file.")] = None,
    plugin: Plugin = None,
    view: View = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a pipeline, one process per node. Ctrl-C stops it and shows the ledger."""
    from stream.errors import ConfigError
    from stream.pipeline import load, play_instead, record_too
    from stream.run_folder import create

    console = _console(to_stderr=as_json)
    if resume is not None:
        if pipeline is not None or directory is not None:
            raise ConfigError(f"--resume {resume}: goes on with what was run there; give neither a pipeline nor --dir")
        _resume(resume, console, restarts=restarts, on=on, as_json=as_json, quiet=quiet)
        return
    if pipeline is None:
        raise ConfigError("Missing argument 'PIPELINE': a pipeline file, or --resume DIR")
    described = load(pipeline)
    if source is not None:
        play_instead(described, source)
    for spec in described.source:
        spec.speed = _speed(speed) if speed is not None else spec.speed
        _part(spec, start, duration, loop)
    for wish in record or []:
        address, _, path = wish.partition("=")
        record_too(described, address, path, plugins=plugin or [])
    _set_transport(described, transport)
    _set_recovery(described, snapshot_every, restarts)
    if on and (view or one_process or transport):
        raise ConfigError(f"--on {on}: goes without --view, --one-process and --transport; look through a [[tap]]")
    folder = None
    if directory is not None:
        if restore is not None:
            raise ConfigError(f"--restore {restore}: goes with `snapshots` of the file, not with --dir; use --resume")
        text = pipeline.read_text(encoding="utf-8")
        folder = create(directory, described, plugins=plugin or [], processes=not one_process, text=text)
    _run(
        described,
        console,
        one_process=one_process,
        transport=None,
        restore=restore,
        folder=folder,
        plugins=plugin or [],
        metrics=metrics,
        log=log,
        summary=summary,
        view=view,
        on=on,
        as_json=as_json,
        quiet=quiet,
    )


@app.command()
def node(
    what: Annotated[str, typer.Argument(help="A source ('simulated', a file, ...) or module.Class.")],
    into: Annotated[list[str] | None, typer.Option("--in", help="Listen: ENDPOINT or PORT=ENDPOINT.")] = None,
    out: Annotated[
        list[str] | None, typer.Option("--out", help="Connect: ENDPOINT or PORT=ENDPOINT; several for all.")
    ] = None,
    params: Annotated[str, typer.Option(help="Of the class, as a JSON object.")] = "{}",
    token: Annotated[str, typer.Option(envvar="HEBBSTREAM_TOKEN", help="What all nodes of a chain have to say.")] = "",
    live: Annotated[bool, typer.Option("--live", help="Drop packets rather than wait for a slow receiver.")] = False,
    policy: Annotated[str, typer.Option(help="With --live: drop-oldest, drop-newest, sample.")] = "drop-oldest",
    speed: Annotated[str, typer.Option(help="Of a source: 'max', or stream seconds per second.")] = "max",
    wait: Annotated[float, typer.Option(help="How long to wait for who receives, s; 0: for ever.")] = 0.0,
    patience: Annotated[float, typer.Option(help="A neighbour that stands still for so many s counts as dead.")] = 30.0,
    key: Annotated[Path | None, typer.Option(help="This node's .key_secret (hebbstream keys).")] = None,
    allow: Annotated[Path | None, typer.Option(help="Folder of the .key files of those that may connect.")] = None,
    server_key: Annotated[Path | None, typer.Option(help="The .key file of who is connected to.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine without keys.")] = False,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Run one source or operator, chained to others by addresses, in any start order. Ctrl-C stops it."""
    from stream.chain import run_node
    from stream.errors import ConfigError, HebbstreamError, RunError
    from stream.run import Interrupts

    try:
        given = json.loads(params)
    except ValueError as error:
        raise ConfigError(f"--params: no JSON: {error}") from None
    if not 0.1 <= patience <= 86_400:
        raise ConfigError(f"--patience {patience:g}: wanted seconds from 0.1 to 86400")
    if not isinstance(given, dict):
        raise ConfigError(f"--params {params}: wanted a JSON object, such as '{{\"width\": 640}}'")

    def ready(endpoints: dict[str, str]) -> None:
        for port, endpoint in endpoints.items():
            print(f"hebbstream: {port} listens at {endpoint}", file=sys.stderr, flush=True)

    with Interrupts() as interrupts:

        def interrupted() -> bool:
            if interrupts.count > (0 if into else 1):  # what only receives has nothing to end by itself
                raise RunError("stopped before the stream ended; end the source to end the whole chain")
            return interrupts.count > 0

        failure: HebbstreamError | None = None
        status: Status | None
        try:
            status = run_node(
                what,
                params=given,
                inputs=tuple(into or ()),
                outputs=tuple(out or ()),
                token=token,
                live=live,
                policy=policy,  # type: ignore[arg-type]  # checked there
                speed=_speed(speed),
                wait_s=wait or float("inf"),
                patience_s=patience,
                key=key,
                allow=allow,
                server_key=server_key,
                insecure=insecure,
                plugins=tuple(plugin or ()),
                on_ready=ready,
                interrupted=interrupted,
            )
        except HebbstreamError as error:
            failure, status = error, getattr(error, "status", None)
            if status is None:
                raise
    import msgspec

    report = msgspec.to_builtins(status)
    if as_json:
        print(json.dumps(report))
    else:
        for edge in report["edges"]:
            counts = ", ".join(f"{name} {value:,}" for name, value in edge["counts"].items() if value)
            print(f"{edge['name']}: {counts}")
        if status.reason:
            print(f"ended early: {status.reason}")
    if failure is not None:
        raise failure


@app.command()
def keys(
    folder: Annotated[Path, typer.Argument(help="Where to put them.")],
    name: Annotated[str, typer.Argument(help="Of the node.")],
) -> None:
    """Make a key pair for nodes on several machines: NAME.key for the others, NAME.key_secret for this one."""
    from stream.curve import make_keys

    public, secret = make_keys(folder, name)
    print(f"{public}: copy it to whoever this node connects to, into the folder of --allow")
    print(f"{secret}: stays here; give it with --key")


@app.command()
def top(
    once: Annotated[bool, typer.Option("--once", help="Show it once.")] = False,
    as_json: Json = False,
) -> None:
    """Show the pipelines that run: rate, queue, drops, latency, lag, memory. Ctrl-C ends it."""
    from stream.observe import boards
    from stream.top import watch

    if as_json:
        print(json.dumps(boards()))
        return
    with contextlib.suppress(KeyboardInterrupt):
        watch(_console(), once=once)


@app.command()
def view(
    what: Annotated[
        list[str] | None, typer.Argument(help="A run's process number or name, or taps (ipc://..., tcp://...).")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine only with --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8765,
    token: Annotated[str, typer.Option(envvar="HEBBSTREAM_VIEW_TOKEN", help="What a browser has to bring.")] = "",
    tap_token: Annotated[str, typer.Option(help="What the taps ask for, if they do.")] = "",
    any_port: Annotated[bool, typer.Option("--any-port", help="If the port is taken, take the next free one.")] = False,
    until: Annotated[int, typer.Option(help="End when this process has gone.", hidden=True)] = 0,
) -> None:
    """Show a running pipeline in a browser; slows nothing. Give no name for the newest run. Ctrl-C ends it."""
    import time

    from stream.errors import ConfigError
    from stream.observe import is_alive
    from stream.run import Interrupts
    from stream.view import Page, Watcher

    wanted = list(what or [])
    endpoints = [word for word in wanted if word.startswith(("ipc://", "tcp://"))]
    if len(wanted) > 1 and len(endpoints) != len(wanted):
        raise ConfigError(f"view {' '.join(wanted)}: wanted one run, or taps (ipc://... or tcp://...)")
    watcher = Watcher("" if endpoints or not wanted else wanted[0], endpoints, token=tap_token)
    page: Page | None = None
    try:
        for number in range(port, port + (20 if any_port and port else 1)):
            with contextlib.suppress(ConfigError) if any_port and number < port + 19 else contextlib.nullcontext():
                page = Page(watcher, host=host, port=number, token=token)
                break
        assert page is not None
        print(f"hebbstream: page at {page.address}", file=sys.stderr, flush=True)
        with Interrupts() as interrupts:
            while not interrupts.count and not (until and not is_alive(until)):
                time.sleep(0.1)
    finally:
        if page is not None:
            page.close()
        watcher.close()


@app.command()
def teach(
    name: Annotated[str, typer.Argument(help="Of the class that is shown: a word, or a readout unit's number.")] = "",
    seconds: Annotated[float, typer.Option("--for", help="How long it is shown, s of wall time.")] = 2.0,
    forget: Annotated[bool, typer.Option("--forget", help="Make void what was taught of NAME.")] = False,
    correct: Annotated[bool, typer.Option("--correct", help="What was last taught, or asked about, was NAME.")] = False,
    save: Annotated[Path | None, typer.Option(help="Write what was taught to this file.")] = None,
    load: Annotated[Path | None, typer.Option(help="Put what this file holds in the place of what is known.")] = None,
    to: Annotated[str, typer.Option(help="A run's process number or name; default the newest.")] = "",
) -> None:
    """Teach a class to a pipeline that runs with --view and sources with teach_us, while it is shown to the camera."""
    import time

    from stream.desk import Press, press
    from stream.errors import ConfigError, UsageError
    from stream.teach import read_taught
    from stream.view import find_run

    wishes = [bool(name) and not forget and not correct, forget, correct, save is not None, load is not None]
    if sum(wishes) != 1 or bool(name) != (save is None and load is None):
        raise UsageError("teach: wanted NAME, with --forget or --correct if you like, or --save FILE, or --load FILE")
    subject = f"teach {name}".strip()
    run = find_run(to)
    folder = str(run["taps"]["folder"]) if run is not None else ""
    if run is None or not any(source.get("can_teach") for source in run["sources"].values()):
        raise ConfigError(f"{subject}: no run {to} with --view and a source with teach_us; start one first")

    def say(pressed: Press) -> None:
        if not press(folder, pressed):
            raise ConfigError(f"{subject}: {run['pipeline']} does not listen any more")

    if forget or correct:
        say(Press(forget=name) if forget else Press(correct=name))
    elif load is not None:
        read_taught(load)
        say(Press(load=str(load.resolve())))
    elif save is not None:
        before = save.stat().st_mtime_ns if save.exists() else 0
        say(Press(save=str(save.resolve())))
        for _ in range(50):
            if save.exists() and save.stat().st_mtime_ns != before:
                return
            time.sleep(0.1)
        raise ConfigError(f"{save}: was not written; does the run have a learner with teach = true?")
    else:
        try:
            say(Press(show=name))
            time.sleep(max(0.0, seconds))
        finally:
            press(folder, Press(show=""))


@app.command()
def check(
    pipeline: Annotated[Path, typer.Argument(help="A pipeline file (TOML).")],
    plugin: Plugin = None,
) -> None:
    """Build a pipeline without running it, and show its processes and edges."""
    from stream.pipeline import build, load, ports_of
    from stream.pipeline import check as check_graph

    console = _console()
    described = load(pipeline)
    members = build(described, plugins=plugin or [])
    try:
        ports = {name: ports_of(member) for name, member in members.items()}
        check_graph(described, ports)
    finally:
        for member in members.values():
            member.close()
    for node in described.nodes:
        console.print(f"[bold]process {node}[/bold]")
        for spec in described.members:
            if described.node_of(spec.name) == node:
                console.print(f"  {spec.name}: {spec.kind}", highlight=False)
    for edge in described.edge:
        name, _, port = edge.source.partition(".")
        console.print(f"{edge.name}  [dim]{ports[name].outputs[port]}, {edge.delivery}[/dim]", highlight=False)
    console.print(f"[green]{pipeline}: fits together[/green]")


@app.command()
def info(
    file: Annotated[str, typer.Argument(help="An event file; '-' is standard input.")],
    size: Size = None,
    read_format: ReadFormat = "auto",
    backward: Backward = "clamp",
    outside: Outside = "drop",
    raw: Raw = False,
    columns: Columns = "",
    time_unit: TimeUnit = "auto",
    content: Content = "",
    as_json: Json = False,
) -> None:
    """Tell what an event file or a recording (.hbs) holds."""
    from stream.record import is_recording, recording_info

    if is_recording(file):
        with _byte_bar(_console(to_stderr=True), f"reading {file}") as progress:
            _show_recording(recording_info(file, progress=progress), as_json=as_json)
        return
    reading = _reading(size, read_format, backward, outside, raw, columns, time_unit, content)
    with _byte_bar(_console(to_stderr=True), f"reading {file}") as progress:
        found: dict[str, Any] = importlib.import_module("sources.event_file").file_info(
            file, reading=reading, progress=progress
        )
    if as_json:
        print(json.dumps(found))
        return
    console = _console()
    warnings = found.pop("warnings")
    width = max(len(key) for key in found)
    for key, value in found.items():
        shown = f"{value:,}" if isinstance(value, int) else value
        console.print(f"[bold]{key:<{width}}[/bold]  {shown}", highlight=False)
    for warning in warnings:
        console.print(f"[yellow]{warning}[/yellow]", highlight=False)


def _show_recording(found: dict[str, Any], *, as_json: bool) -> None:
    """Print what ``recording_info`` found: a row for each stream."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from stream.terminal import duration

    if as_json:
        print(json.dumps(found))
        return
    console = _console()
    table = Table(title=f"{found['format']}, {found['bytes']:,} bytes", title_justify="left", box=SIMPLE_HEAD)
    for name in ("stream", "items", "", "lost", "packets", "from", "to", "marks"):
        table.add_column(name, justify="right" if name in ("items", "lost", "packets", "from", "to") else "left")
    for name, it in found["streams"].items():
        span = [duration(it[key]) if it[key] is not None else "-" for key in ("t_first_us", "t_last_us")]
        marks = ", ".join(f"{count} {kind}" for kind, count in it["marks"].items())
        table.add_row(name, f"{it['items']:,}", it["item"], f"{it['lost_items']:,}", f"{it['packets']:,}", *span, marks)
    console.print(table)
    for warning in found["warnings"]:
        console.print(warning, style="yellow", markup=False, highlight=False)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="An event file or a recording (.hbs); '-' is standard input.")],
    target: Annotated[Path, typer.Argument(help="The file to write; its suffix tells the format.")],
    write_format: WriteFormat = "",
    start: Start = None,
    duration: Duration = None,
    rebase: Rebase = False,
    size: Size = None,
    read_format: ReadFormat = "auto",
    backward: Backward = "clamp",
    outside: Outside = "drop",
    raw: Raw = False,
    columns: Columns = "",
    time_unit: TimeUnit = "auto",
    content: Content = "",
    as_json: Json = False,
) -> None:
    """Convert an event file to another format."""
    reading = _reading(size, read_format, backward, outside, raw, columns, time_unit, content)
    _convert(source, target, reading, write_format, start, duration, rebase, as_json=as_json)


@app.command()
def cut(
    source: Annotated[str, typer.Argument(help="An event file or a recording (.hbs).")],
    target: Annotated[Path, typer.Argument(help="The file to write; its suffix tells the format.")],
    start: Start = None,
    duration: Duration = None,
    write_format: WriteFormat = "",
    rebase: Rebase = False,
    size: Size = None,
    as_json: Json = False,
) -> None:
    """Cut a part out of an event file."""
    from stream.errors import ConfigError

    if start is None and duration is None:
        raise ConfigError(f"cut {source}: wanted --start or --duration, in seconds from its first event")
    _convert(source, target, _reading(size), write_format, start, duration, rebase, as_json=as_json)


@app.command()
def replay(
    what: Annotated[str, typer.Argument(help="Event file, folder, recording, 'simulated', '-'.")],
    to: Annotated[str, typer.Option(help="udp://HOST:PORT (SPIF datagrams), or a file to write.")] = "",
    speed: Annotated[str, typer.Option(help="'max', or stream seconds per second of wall time.")] = "1",
    start: Start = None,
    duration: Duration = None,
    loop: Loop = None,
    size: Size = None,
    view: View = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Play a recording at its own pace. Keys: space pause, . step, + - pace, < > jump."""
    pipeline = _simple_pipeline("replay", what, to, size)
    spec = pipeline.source[0]
    spec.speed, spec.seekable = _speed(speed), what != "-"
    _part(spec, start, duration, loop)
    _run(
        pipeline, _console(to_stderr=as_json), one_process=True, transport=None, view=view, as_json=as_json, quiet=quiet
    )


@app.command()
def record(
    what: Annotated[str, typer.Argument(help="'camera', 'camera:SERIAL', 'udp://HOST:PORT', 'simulated', a file, ...")],
    to: Annotated[str, typer.Argument(help="The file to write; .hbs keeps labels and other marks too.")],
    duration: Duration = None,
    size: Size = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Record a camera or any other source to a file. Ctrl-C ends the recording."""
    pipeline = _simple_pipeline("record", what, to, size)
    _part(pipeline.source[0], None, duration, None)
    _run(pipeline, _console(to_stderr=as_json), one_process=True, transport=None, as_json=as_json, quiet=quiet)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look at what works on this machine, and say the way out where something does not."""
    from stream.doctor import examine

    findings = list(examine())
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings]))
    else:
        console = _console()
        colours = {"ok": "green", "note": "yellow", "fault": "bold red"}
        for finding in findings:
            colour = colours[finding.state]
            console.print(f"[{colour}]{finding.state:<5}[/{colour}] [bold]{finding.subject:<18}[/bold] ", end="")
            console.print(finding.text, markup=False, highlight=False)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)


@app.command()
def bench(
    quick: Annotated[bool, typer.Option(help="Small sizes and few rounds: does it run at all?")] = False,
    only: Annotated[str, typer.Option(help="Only these suites (neurons.bench,chip.bench), or names with this.")] = "",
    baseline: Annotated[Path | None, typer.Option(help="Compare with the ratios kept in this file.")] = None,
    save: Annotated[Path | None, typer.Option(help="Keep the ratios in this file.")] = None,
    as_json: Json = False,
) -> None:
    """Measure speeds as ratios to a limit taken in the same run."""
    from stream.bench import run_all

    run_all(_console(to_stderr=as_json), quick=quick, only=only, baseline=baseline, save=save, as_json=as_json)


def _reading(
    size: str | None,
    read_format: str = "auto",
    backward: str = "clamp",
    outside: str = "drop",
    raw: bool = False,
    columns: str = "",
    time_unit: str = "auto",
    content: str = "",
) -> Any:
    """Put the options of the command line together."""
    width, height = _size(size)
    make = importlib.import_module("sources.event_file").Reading
    return make(width, height, read_format, backward, outside, raw, columns, time_unit, content)


def _size(word: str | None) -> tuple[int | None, int | None]:
    """Read WIDTHxHEIGHT."""
    from stream.errors import ConfigError

    if word is None:
        return None, None
    width, _, height = word.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ConfigError(f"--size {word}: wanted WIDTHxHEIGHT in pixels, such as 640x480")
    return int(width), int(height)


def _us(seconds: float | None, option: str) -> int | None:
    """Read seconds."""
    from stream.errors import ConfigError

    if seconds is not None and not 0 <= seconds < 1e12:
        raise ConfigError(f"{option} {seconds}: wanted seconds from 0 on")
    return None if seconds is None else round(seconds * 1e6)


def _part(spec: "SourceSpec", start: float | None, duration: float | None, loop: int | None) -> None:
    """Let a source play a part, or several times."""
    spec.start_us = _us(start, "--start") or spec.start_us
    spec.duration_us = _us(duration, "--duration") or spec.duration_us
    spec.loop = spec.loop if loop is None else max(0, loop)


@contextlib.contextmanager
def _byte_bar(console: "Console", words: str) -> "Iterator[Callable[[int, int], None]]":
    """Show progress in bytes; nothing where the console is no terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(words, total=None)

        def show(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total or None)

        yield show


def _convert(
    source: str,
    target: Path,
    reading: Any,
    write_format: str,
    start: float | None,
    duration: float | None,
    rebase: bool,
    *,
    as_json: bool,
) -> None:
    from stream.errors import RunError

    console = _console(to_stderr=as_json)
    with _byte_bar(_console(to_stderr=True), f"{source} -> {target}") as progress:
        done = importlib.import_module("sources.convert").convert(
            source,
            target,
            reading=reading,
            format=write_format,
            start_us=_us(start, "--start") or 0,
            duration_us=_us(duration, "--duration"),
            rebase=rebase,
            progress=progress,
        )
    if as_json:
        print(json.dumps(done._asdict()))
    else:
        words = f"{target}: {done.written:,} of {done.read:,} events, {done.width}x{done.height}, {done.format}"
        console.print(words, highlight=False)
        for warning in done.warnings:
            console.print(warning, style="yellow", markup=False, highlight=False)
    if done.fault:
        raise RunError(f"{done.fault}; what was read is in {target}")


def _simple_pipeline(name: str, what: str, to: str, size: str | None) -> "Pipeline":
    """Join a source and, if one is named, a place where its events go."""
    from stream.errors import ConfigError
    from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec, build, source_of

    kind, params = source_of(what)
    width, height = _size(size)
    if width is not None:
        params |= {"width": width, "height": height}
    pipeline = Pipeline(name=name, source=[SourceSpec(name="source", kind=kind, params=params, packet_items=16384)])
    if not to:
        return pipeline
    source = build(pipeline)["source"]
    port = source.outputs["events"]
    source.close()
    place: dict[str, Any] = {"width": port.width, "height": port.height}
    if kind == "sources.event_file.EventFile" and what != "-":
        params |= place  # so that the size is not looked for once more
    if to.startswith("udp://"):
        host, _, number = to.removeprefix("udp://").rpartition(":")
        if not host or not number.isdigit():
            raise ConfigError(f"--to {to}: wanted udp://HOST:PORT, such as udp://127.0.0.1:7777")
        place |= {"host": host, "port": int(number)}
        sink = OperatorSpec(name="sender", kind="sources.udp.UdpSender", params=place)
    elif to.endswith(".hbs"):
        ports = {"events": port.item}
        sink = OperatorSpec(name="file", kind="stream.record.Recorder", params={"path": to, "ports": ports})
    elif port.item != "events" or port.width is None:
        raise ConfigError(f"{what}: gives {port}, wanted events of a known size; give --size, or write to an .hbs file")
    else:
        sink = OperatorSpec(name="file", kind="sources.event_writer.FileWriter", params={**place, "path": to})
    pipeline.operator.append(sink)
    pipeline.edge.append(EdgeSpec(source="source.events", target=f"{sink.name}.events"))
    return pipeline


def _speed(word: str) -> Any:
    """Read a pace from the command line."""
    from stream.errors import ConfigError

    try:
        factor = None if word == "max" else float(word)
    except ValueError:
        factor = 0.0
    if factor is not None and not factor > 0:
        raise ConfigError(f"--speed {word}: wanted 'max' or a number above 0, such as 1 or 0.5")
    return "max" if factor is None else factor


def _console(*, to_stderr: bool = False) -> "Console":
    from rich.console import Console

    # a pipe or a log has no width of its own: wide enough for the ledger
    return Console(stderr=to_stderr, width=None if sys.stdout.isatty() else 120)


def _demo_recordings(console: "Console", *, quiet: bool) -> Path:
    """Make the demo's recordings with the simulated camera, unless an earlier run has."""
    from rich.progress import Progress

    from stream.jit import cache_root

    recordings = importlib.import_module("sources.recordings")
    folder: Path = cache_root() / "demo-recordings"
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        bar = progress.add_task("simulated camera records digits", total=None)

        def show(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        recordings.make_recordings(folder, train_per_class=DEMO_TRAIN, test_per_class=DEMO_TEST, seed=1, progress=show)
    return folder


DEMO_TRAIN, DEMO_TEST = 80, 20  # recordings a class


def _set_transport(pipeline: "Pipeline", transport: str | None) -> None:
    from stream.errors import ConfigError

    if transport is not None:
        if transport not in ("ipc", "tcp"):
            raise ConfigError(f"--transport {transport}: wanted ipc or tcp")
        pipeline.transport = transport  # type: ignore[assignment] # one of the two: just checked


def _set_recovery(pipeline: "Pipeline", snapshot_every: float | None, restarts: int | None) -> None:
    import msgspec

    from stream.errors import ConfigError

    if restarts is not None:
        if restarts < 0:
            raise ConfigError(f"--restarts {restarts}: wanted a number from 0 on")
        pipeline.recovery = msgspec.structs.replace(pipeline.recovery, restarts=restarts, within_s=60.0)
    every_us = _us(snapshot_every, "--snapshot-every")
    if every_us is not None:
        pipeline.recovery = msgspec.structs.replace(pipeline.recovery, snapshot_every_us=max(1, every_us))


def _resume(path: str, console: "Console", *, restarts: int | None, on: str, as_json: bool, quiet: bool) -> None:
    """Go on with the run of a directory."""
    from stream.errors import ConfigError
    from stream.run_folder import reopen

    folder = reopen(path)
    described = folder.description.pipeline
    _set_recovery(described, None, restarts)
    try:
        os.chdir(folder.description.folder)  # where its relative paths begin
    except OSError as error:
        folder.close()
        raise ConfigError(
            f"run directory {path}: its working directory {folder.description.folder}: {error.strerror}; put it back"
        ) from None
    if folder.final() is not None:
        console.print(f"{path}: this run has come to its end already", highlight=False)
        with contextlib.suppress(OSError):
            if as_json:
                print((folder.path / "summary.json").read_text(encoding="utf-8").strip())
        folder.close()
        return
    one_process = not folder.description.processes
    _run(
        described, console, one_process=one_process, transport=None, folder=folder, on=on, as_json=as_json, quiet=quiet
    )


def _run(
    pipeline: "Pipeline",
    console: "Console",
    *,
    one_process: bool,
    transport: str | None,
    restore: int | None = None,
    folder: "RunFolder | None" = None,
    plugins: "list[str] | tuple[str, ...]" = (),
    metrics: int | None = None,
    log: Path | None = None,
    summary: Path | None = None,
    view: bool = False,
    on: str = "",
    as_json: bool,
    quiet: bool,
) -> None:
    from stream.errors import HebbstreamError, RunError
    from stream.keys import Keys
    from stream.observe import Observer
    from stream.run import result_json
    from stream.run import run as run_pipeline
    from stream.show import make_visible, page_of
    from stream.terminal import StatusView

    _set_transport(pipeline, transport)
    failure: HebbstreamError | None = None
    result: RunResult | None
    engine = None
    if on:
        from stream.cluster import RayEngine

        engine = RayEngine(on, pipeline)
    if view:
        make_visible(pipeline)
    observer = Observer(pipeline, metrics=metrics, log=log)
    if observer.address:
        print(f"hebbstream: metrics at {observer.address}", file=sys.stderr, flush=True)
    with (
        observer,
        Keys(pipeline) as keys,
        StatusView(pipeline, console, keys, quiet=quiet) as status_view,
        page_of(pipeline, keys, observer, wanted=view) as shown,
    ):

        def on_status(statuses: dict[str, Any], phase: str) -> None:
            status_view(statuses, phase)
            observer(statuses, phase)
            shown.on_status(statuses, phase)

        try:
            result = run_pipeline(
                pipeline,
                processes=not one_process,
                plugins=list(plugins),
                restore=restore,
                directory=folder,
                on_status=on_status,
                controls=shown.controls,
                engine=engine,
            )
        except HebbstreamError as error:
            failure, result = error, getattr(error, "result", None)
        if result is not None:
            numbers = result_json(pipeline, result)
            observer.write({"event": "end", **numbers})
            if summary is not None:
                summary.parent.mkdir(parents=True, exist_ok=True)
                summary.write_text(json.dumps(numbers, allow_nan=False, default=str, indent=1) + "\n")
    if observer.fault:
        print(f"hebbstream: {observer.fault}", file=sys.stderr)
    if result is not None:
        report = _report(pipeline, result, console, as_json=as_json)
        if folder is not None:
            folder.write_summary(report)
    if failure is not None:
        raise failure
    if result is not None and result.reason and not result.was_stopped:
        raise RunError(f"a source ended early: {result.reason}; what came before was processed and kept")


def _report(pipeline: "Pipeline", result: "RunResult", console: "Console", *, as_json: bool) -> dict[str, Any]:
    """Print what a run came to, and draw what it recorded; returns it as plain values."""
    from stream.places import is_local, place
    from stream.record import read_recording
    from stream.run import result_json
    from stream.summary import draw, summarise, summary_table, to_json
    from stream.terminal import counts_line, duration, ledger_table, si

    report = result_json(pipeline, result)
    recorders = [operator for operator in pipeline.operator if operator.kind == "stream.record.Recorder"]
    for operator in recorders:
        path = place(operator.params["path"])
        if not path.exists() or not path.stat().st_size:
            continue
        summary = summarise(read_recording(path))
        report["summary"] = to_json(summary)
        if summary.answers and any(len(answers) for answers in summary.answers.values()):
            picture = (path if is_local(path) else Path("runs") / path.name).with_suffix(".png")
            draw(summary, picture, title=f"hebbstream: {pipeline.name}")
            report["picture"] = str(picture)
        if not as_json and summary.parts:
            console.print(summary_table(summary))
    if as_json:
        print(json.dumps(report, allow_nan=False, default=str))
        return report
    first = next((ledger.items[1] for ledger in result.ledgers), 0)
    rate = f"{si(first / max(result.wall_s, 1e-9))} items/s on the first edge, " if result.ledgers else ""
    console.print(
        f"{result.span_us / 1e6:,.1f} s of stream in {duration(result.wall_s * 1e6)}, {rate}"
        f"{result.cpu_s:.1f} s of processor time in all processes",
        highlight=False,
    )
    for member in pipeline.members:
        if member.name in result.members:
            console.print(f"[bold]{member.name}[/bold]: {counts_line(result.members[member.name])}", highlight=False)
    for source, latency in _spike_latencies(pipeline, result):
        words = f"p50 {duration(latency.p50_us)}, p99 {duration(latency.p99_us)}"
        console.print(f"[bold]source to spikes of {source}[/bold]: {words}", highlight=False)
    if result.ledgers:
        console.print(ledger_table(result.ledgers, result))
    for edge, reason in result.refusals.items():
        console.print(f"[yellow]{edge}: a stranger was refused: {reason}[/yellow]", highlight=False)
    if result.resumed_from is not None:
        console.print(f"resumed from snapshot {result.resumed_from or '0, the beginning'}", highlight=False)
    for restart in result.restarts:
        console.print(
            f"restart after {restart.after_s:.1f} s from snapshot {restart.resumed_from}, "
            f"{duration(restart.repeated_us)} of stream once more: {restart.reason.splitlines()[0]}",
            style="yellow",
            markup=False,
            highlight=False,
        )
    for source, seconds in result.gaps.items():
        console.print(f"[yellow]{source}: {seconds:.3g} s are missing, nobody saw them[/yellow]", highlight=False)
    if result.snapshots_failed:
        console.print(
            f"{result.snapshots_failed} snapshots not written, the last: {result.snapshot_failure}",
            style="yellow",
            markup=False,
            highlight=False,
        )
    if result.was_stopped:
        console.print(f"[yellow]{result.reason}[/yellow]", highlight=False)
    if "picture" in report:
        console.print(f"picture: {report['picture']}", highlight=False)
    return report


def _spike_latencies(pipeline: "Pipeline", result: "RunResult") -> "Iterator[tuple[str, LatencyPercentiles]]":
    """Find how long it took from the source to recorded spikes, by the member that fired them."""
    recorded = {
        f"{operator.name}.{port}"
        for operator in pipeline.operator
        if operator.kind == "stream.record.Recorder"
        for port, item in operator.params["ports"].items()
        if item == "spikes"
    }
    for edge in pipeline.edge:
        if edge.target in recorded and edge.name in result.latency:
            yield edge.source.partition(".")[0], result.latency[edge.name]


app.command()(train)
app.add_typer(evaluations, name="eval")


def main() -> None:
    """Run the command line; the exit code is 0 done, 1 failure, 2 usage or bad input."""
    from stream.errors import HebbstreamError

    try:
        app(standalone_mode=True)
    except HebbstreamError as error:
        print(f"hebbstream: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("hebbstream: stopped", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
