"""Run a pipeline: in this process, or as one process per node that this one supervises.

Recovery
--------
A run with a run directory (``stream.run_folder``) survives its nodes. When one dies or hangs, it is started again, and
*all* begin again from the last complete snapshot: the others drop members and sockets and build them anew (whoever
does not get there in time is killed and started again, too). Sources go back to where they stood, recorders cut their
files back, every edge gets a new secret, so that nobody of the dead generation is heard. What was computed since is
computed once more, to the same bits, so nothing is in a recording twice and the ledger of the whole run is that of an
undisturbed one. A live camera cannot go back: it goes on behind a ``Reset`` mark and counts the seconds that are
missing.

The road not taken is to roll back the dead node alone. Its neighbours would have to keep what it had not snapshotted
yet and to tell apart what it sends twice; that spares a repetition of seconds in a case that ought to be rare.

``recovery.restarts`` within ``recovery.within_s`` seconds are made, then the run gives up with the last cause; it can
be resumed. A member that *fails* (raises) is not restarted: the same input would make it fail again. A supervisor
that dies takes its nodes with it, and ``resume`` goes on from the directory.

A process that says nothing for ``recovery.hang_s`` seconds (each beats once a second, from a thread of its own) hangs,
as does one that lives but whose members have not returned for so long. It is named, killed, and counts as dead.
"""

import contextlib
import queue
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
import zmq

from stream import node as protocol
from stream.errors import ConfigError, HebbstreamError, RunError, UsageError
from stream.host import STOPPED, Control, EdgeStatus, Host, Status
from stream.ledger import EdgeCounts, LatencyPercentiles, Ledger
from stream.node import (
    Abort,
    Back,
    Beat,
    Bind,
    Bound,
    Command,
    Connect,
    Failure,
    Progress,
    Ready,
    Report,
    Rollback,
    Stop,
    Task,
    Tell,
)
from stream.operator import Operator
from stream.pipeline import EdgeSpec, Pipeline, Ports, build, check, ports_of
from stream.places import place
from stream.processes import Engine, LocalEngine, NodeProcess, Reports
from stream.run_folder import RunFolder, create, reopen
from stream.snapshot import FINAL, Kept, Manifest, Shelf, read_manifest

__all__ = [
    "Controls",
    "Interrupts",
    "OnStatus",
    "Restart",
    "RunResult",
    "result_json",
    "resume",
    "run",
]

OnStatus: TypeAlias = Callable[[dict[str, Status], str], None]
"""Called with the latest status of each node and a word on what is going on."""

Controls: TypeAlias = Callable[[], list[Control]]

STOP_PATIENCE_S = 10.0  # how long a stopped pipeline may drain before it is cut off
GONE_PATIENCE_S = 3.0  # how long a node may take to close its sockets
START_PATIENCE_S = 60.0  # how long a process may take to its first word, or to its first status
COMPILE_PATIENCE_S = 1200.0  # how long nodes may build their members and compile


class Restart(msgspec.Struct, frozen=True):
    """All nodes began again, because one was lost."""

    after_s: float  # wall time since the run began
    node: str
    reason: str
    resumed_from: int  # number of the snapshot; 0 = the beginning
    repeated_us: int  # stream time that is computed again


class RunResult(NamedTuple):
    """What a run came to."""

    ledgers: list[Ledger]
    members: dict[str, dict[str, float]]  # last statistics of each member
    latency: dict[str, LatencyPercentiles]  # source to this edge's far end, by edge
    refusals: dict[str, str]  # last reason for which a stranger was refused, by edge
    wall_s: float  # from the moment all nodes were joined to the last message
    cpu_s: float  # of all nodes
    stream_us: int  # time reached
    span_us: int  # how much of the stream that was: a camera's clock need not begin at 0
    reason: str  # why it ended early; "" if it came to its end
    restarts: list[Restart]
    resumed_from: int | None  # the snapshot with which this run began, if it was resumed
    snapshots: int  # completed
    snapshots_failed: int
    snapshot_failure: str  # why the last of them failed
    gaps: dict[str, float]  # by live source: seconds of stream that nobody saw

    @property
    def was_stopped(self) -> bool:
        """Whether a person (or a service manager) stopped it, which is no fault."""
        return self.reason.startswith(STOPPED)


def run(
    pipeline: Pipeline,
    *,
    processes: bool = True,
    plugins: Sequence[str] = (),
    restore: int | None = None,
    directory: str | Path | RunFolder | None = None,
    on_status: OnStatus = lambda statuses, phase: None,
    controls: Controls = list,
    engine: Engine | None = None,
) -> RunResult:
    """Run a pipeline to its end.

    Ctrl-C (or SIGTERM) ends the sources and lets what is under way arrive; a second one cuts everything off. Either way
    the ledger comes out and no process or socket stays behind. SIGUSR1 asks for a snapshot here and now.

    Parameters
    ----------
    pipeline
        What to run.
    processes
        One process per node over ZeroMQ, or everything in this one. The results are the same to the bit.
    plugins
        Packages outside ours whose classes the pipeline may name.
    restore
        Number of the barrier in ``pipeline.snapshots`` from which to go on.
    directory
        A run directory to make. Nodes that die are then restarted, and the run can be resumed.
    on_status
        Called several times a second.
    controls
        Called several times a second: what a person told the sources since the last call.
    engine
        Who starts the processes; None: this machine.

    Raises
    ------
    ConfigError, GraphError
        If the description is wrong; nothing was started.
    HebbstreamError
        If a member failed. Its message names the node; ``error.result`` is the RunResult up to there, if it had begun.
    """
    if directory is not None:
        if isinstance(directory, RunFolder):
            folder = directory
        else:
            folder = create(directory, pipeline, plugins=list(plugins), processes=processes)
        with contextlib.closing(folder):
            return _run_in(folder, on_status, controls, engine)
    begin = None
    if restore is not None:
        if not pipeline.snapshots:
            raise ConfigError(f"pipeline '{pipeline.name}' keeps no snapshots; set snapshots = FOLDER")
        begin = read_manifest(place(pipeline.snapshots), restore)
    return _run(pipeline, processes, list(plugins), begin, None, on_status, controls, engine)


def resume(
    directory: str | Path | RunFolder,
    *,
    on_status: OnStatus = lambda statuses, phase: None,
    controls: Controls = list,
    engine: Engine | None = None,
) -> RunResult:
    """Go on with a run that was stopped, killed or given up, from its last complete snapshot.

    Relative paths in the pipeline begin at the current directory; ``Description.folder`` tells the one of then. A run
    that has come to its end is left as it is.

    Parameters
    ----------
    directory
        What ``run`` was given.
    on_status, controls, engine
        As for :func:`run`.

    Raises
    ------
    ConfigError
        There is no run to be resumed, or somebody is still at it.
    HebbstreamError
        As for :func:`run`.
    """
    folder = directory if isinstance(directory, RunFolder) else reopen(directory)
    with contextlib.closing(folder):
        return _run_in(folder, on_status, controls, engine)


def _run_in(folder: RunFolder, on_status: OnStatus, controls: Controls, engine: Engine | None) -> RunResult:
    """Run what a directory describes, from where it stands."""
    what = folder.description
    final = folder.final()
    if final is not None:
        folder.log("nothing to resume")
        return _result(what.pipeline, {}, 0.0, final, shelf=None)._replace(resumed_from=FINAL)
    begin = folder.begin()
    folder.log(
        "begin" if folder.is_new else "resume",
        pipeline=what.pipeline.name,
        snapshot=begin.number if begin is not None else None,
    )
    resumed_from = None if folder.is_new else begin.number if begin is not None else 0
    try:
        result = _run(what.pipeline, what.processes, what.plugins, begin, folder, on_status, controls, engine)
    except HebbstreamError as error:
        folder.log("failed", reason=str(error))
        if (found := getattr(error, "result", None)) is not None:
            error.result = found._replace(resumed_from=resumed_from)  # type: ignore[attr-defined] # handed over with the error
            folder.write_summary(result_json(what.pipeline, error.result))  # type: ignore[attr-defined] # handed over with the error
        raise
    result = result._replace(resumed_from=resumed_from)
    folder.log("end", reason=result.reason, restarts=len(result.restarts), snapshots=result.snapshots)
    folder.write_summary(result_json(what.pipeline, result))
    return result


def _run(
    pipeline: Pipeline,
    processes: bool,
    plugins: list[str],
    begin: Manifest | None,
    folder: RunFolder | None,
    on_status: OnStatus,
    controls: Controls,
    engine: Engine | None,
) -> RunResult:
    with Interrupts() as interrupts:

        def all_controls() -> list[Control]:
            asked, interrupts.snapshots = interrupts.snapshots, 0
            return [*controls(), *([Control(snapshot=True)] if asked and pipeline.snapshots else [])]

        if processes or engine is not None:
            engine = engine or LocalEngine(pipeline.transport, folder)
            return _Supervisor(pipeline, plugins, begin, folder, on_status, all_controls, interrupts, engine).run()
        return _run_here(pipeline, plugins, begin, folder, on_status, all_controls, interrupts)


class _StoppedEarly(Exception):
    """Ctrl-C came before the nodes were joined: nothing flowed, so the ledger is all zeros."""


class NodeLost(RunError):
    """A node died or hangs."""

    def __init__(self, node: str, words: str) -> None:
        super().__init__(f"node '{node}' {words}")
        self.node = node


class Interrupts:
    """Counts Ctrl-C and SIGTERM instead of raising, so that a run can end in its own way; and wishes for snapshots."""

    def __init__(self) -> None:
        self.count = 0
        self.snapshots = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
            self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._note_snapshot)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.count += 1

    def _note_snapshot(self, *_: object) -> None:
        self.snapshots += 1


def _shelf(pipeline: Pipeline, begin: Manifest | None) -> Shelf | None:
    """Make what puts snapshots together, if the pipeline keeps any."""
    if not pipeline.snapshots:
        return None
    edges = {edge.name: (edge.source.partition(".")[0], edge.target.partition(".")[0]) for edge in pipeline.edge}
    members = [member.name for member in pipeline.members]
    folder = place(pipeline.snapshots)
    return Shelf(folder, members, edges, keep=pipeline.recovery.keep, begin=begin)


def _note_kept(shelf: Shelf | None, folder: RunFolder | None, kept: Kept) -> None:
    """Take in what a member has written, and log what that completes or breaks."""
    if shelf is None:
        return
    n_failed = shelf.n_failed
    for manifest in shelf.note(kept):
        if folder is not None:
            folder.log("snapshot", number=manifest.number, stream_us=manifest.stream_us)
    if shelf.n_failed > n_failed and folder is not None:
        folder.log("snapshot failed", reason=shelf.failure)


def _run_here(
    pipeline: Pipeline,
    plugins: list[str],
    begin: Manifest | None,
    folder: RunFolder | None,
    on_status: OnStatus,
    controls: Controls,
    interrupts: Interrupts,
) -> RunResult:
    on_status({}, "building")
    members = build(pipeline, plugins=plugins)
    shelf: Shelf | None = None
    latest: dict[str, Status] = {}

    def note(status: Status) -> None:
        latest[status.node] = status
        on_status(latest, "running")

    def interrupted() -> bool:
        if interrupts.count > 1:
            raise RunError("cut off by a second Ctrl-C")
        return interrupts.count > 0

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    taps = {}
    try:
        ports = {name: ports_of(member) for name, member in members.items()}
        check(pipeline, ports)
        protocol.restore_members(pipeline, members, begin)
        on_status({}, "compiling")
        for member in members.values():
            if isinstance(member, Operator):
                member.warm_up()
        shelf = _shelf(pipeline, begin)
        keeper = protocol.keeper_of(pipeline, lambda kept: _note_kept(shelf, folder, kept))
        taps = protocol.open_taps(context, pipeline, ports)
        host = Host(
            pipeline,
            members,
            taps=taps,
            on_status=note,
            interrupted=interrupted,
            controls=controls,
            keeper=keeper,
            begin=begin,
        )
        start_s = time.monotonic()
        try:
            host.run()
        except HebbstreamError as error:
            note(host.status())
            wall_s = time.monotonic() - start_s
            error.result = _result(pipeline, latest, wall_s, begin, str(error), shelf=shelf)  # type: ignore[attr-defined] # handed over with the error
            raise
        finally:
            if keeper is not None:
                keeper.close(finish=False)
        return _finished(shelf, _result(pipeline, latest, time.monotonic() - start_s, begin, shelf=shelf))
    finally:
        for tap in taps.values():
            tap.close()
        context.destroy(linger=200)
        for member in members.values():
            member.close()


class _Supervisor:
    """Starts the nodes of a pipeline, joins them, watches them, and sees to it that none is left."""

    def __init__(
        self,
        pipeline: Pipeline,
        plugins: list[str],
        begin: Manifest | None,
        folder: RunFolder | None,
        on_status: OnStatus,
        controls: Controls,
        interrupts: Interrupts,
        engine: Engine,
    ) -> None:
        self.pipeline, self.on_status, self.controls, self.interrupts = pipeline, on_status, controls, interrupts
        self.engine = engine
        self.n_endpoints = 0
        self.plugins, self.begin, self.run_folder = plugins, begin, folder
        self.reports: Reports = queue.SimpleQueue()
        self.latest: dict[str, Status] = {}
        self.processes: dict[str, NodeProcess] = {}
        self.shelf: Shelf | None = None
        self.phase = "starting"
        self.restarts: list[Restart] = []
        self.n_snapshots = self.n_snapshots_failed = 0  # of earlier generations
        self.snapshot_failure = ""
        self.cpu_s = 0.0  # of earlier generations
        self.number = 0  # of the last barrier, where they are numbered here
        self.period: int | None = None
        self.has_leader = len({pipeline.node_of(source.name) for source in pipeline.source}) == 1
        self.born_s = time.monotonic()
        self.start_s: float | None = None
        self.looked_s = time.monotonic()

    def run(self) -> RunResult:
        """Run to the end."""
        try:
            while True:
                try:
                    self._start()
                    self._join()
                    self._watch()
                    break
                except NodeLost as lost:
                    self._recover(lost)
        except _StoppedEarly:
            self._end(GONE_PATIENCE_S)
            return self._result(f"{STOPPED} before the stream began")
        except HebbstreamError as error:
            self._end(GONE_PATIENCE_S)
            if self.start_s is not None:  # before that nothing has flowed, and zeros would only hide the message
                error.result = self._result(str(error))  # type: ignore[attr-defined] # handed over with the error
            raise
        except BaseException:
            self._end(0.0)
            raise
        self._end(GONE_PATIENCE_S)
        return _finished(self.shelf, self._result())

    def _start(self) -> None:
        """Start a generation of nodes, with a secret and sockets of its own; processes that are there are taken."""
        generation = len(self.restarts)
        token = secrets.token_hex(16)
        self.cpu_s += sum(status.cpu_s for status in self.latest.values())
        if self.shelf is not None:
            self.n_snapshots += self.shelf.n_complete
            self.n_snapshots_failed += self.shelf.n_failed
            self.snapshot_failure = self.shelf.failure or self.snapshot_failure
        self.latest = {}
        self.phase = "starting" if not generation else f"starting again ({self.restarts[-1].reason})"
        self.shelf = _shelf(self.pipeline, self.begin)
        self.number, self.period = self.begin.number if self.begin is not None else 0, None
        for name in self.pipeline.nodes:
            if name not in self.processes:
                self.processes[name] = self.engine.start(name, self.reports)
        for name, process in self.processes.items():
            process.tell(Task(self.pipeline, name, token, self.plugins, self.begin, self.engine.keys(name)))

    def _recover(self, lost: NodeLost) -> None:
        """Get ready to begin again from the last complete snapshot; raises when there is none to be had."""
        stream_us = max((status.stream_us for status in self.latest.values()), default=0)
        if self.run_folder is None:
            raise lost
        self._roll_back(lost.node)
        recovery, now_s = self.pipeline.recovery, time.monotonic() - self.born_s
        self.run_folder.log("lost", node=lost.node, reason=str(lost))
        recent = [restart for restart in self.restarts if restart.after_s > now_s - recovery.within_s]
        if len(recent) >= recovery.restarts:
            raise RunError(
                f"{lost}\ngiven up: {len(recent)} restarts within {recovery.within_s:g} s (recovery.restarts); see "
                f"{self.run_folder.path / 'log.jsonl'}, then `hebbstream run --resume {self.run_folder.path}`"
            )
        self.begin = self.run_folder.begin()
        number, begin_us = (self.begin.number, self.begin.stream_us) if self.begin is not None else (0, 0)
        restart = Restart(now_s, lost.node, str(lost), number, max(0, stream_us - begin_us))
        self.restarts.append(restart)
        self.run_folder.log("restart", snapshot=number, repeated_us=restart.repeated_us)

    def _roll_back(self, lost: str) -> None:
        """Let all nodes drop what they do; afterwards only those are there that have."""
        self.processes.pop(lost).kill()
        for process in self.processes.values():
            process.tell(Rollback())
        back: set[str] = set()
        deadline_s = time.monotonic() + GONE_PATIENCE_S
        while back < self.processes.keys() and time.monotonic() < deadline_s:
            try:
                process, report = self.reports.get(timeout=0.05)
            except queue.Empty:
                continue
            if self.processes.get(process.name) is not process:
                self._note_late(process, report)
            elif report is None:  # it had come to its end, or failed for want of the lost one
                self.processes.pop(process.name).kill()
            elif isinstance(report, Back):
                back.add(process.name)
                process.heard_s = process.worked_s = time.monotonic()
            else:
                self._note_late(process, report)
        for name in self.processes.keys() - back:
            self.processes.pop(name).kill()
        while not self.reports.empty():  # nothing of this generation may reach the next
            self._note_late(*self.reports.get())

    def _note_late(self, process: NodeProcess, report: Report | None) -> None:
        """Take in what a node says on its way out; what it has written counts."""
        if isinstance(report, Progress):
            self.latest[process.name] = report.status
        elif isinstance(report, Kept):
            _note_kept(self.shelf, self.run_folder, report)

    def _result(self, reason: str = "") -> RunResult:
        wall_s = time.monotonic() - self.start_s if self.start_s is not None else 0.0
        found = _result(self.pipeline, self.latest, wall_s, self.begin, reason, shelf=self.shelf)
        return found._replace(
            restarts=list(self.restarts),
            cpu_s=found.cpu_s + self.cpu_s,
            snapshots=found.snapshots + self.n_snapshots,
            snapshots_failed=found.snapshots_failed + self.n_snapshots_failed,
            snapshot_failure=found.snapshot_failure or self.snapshot_failure,
        )

    def _join(self) -> None:
        """Bring the nodes together: ports checked, receivers bound, senders connected."""
        ports: dict[str, Ports] = {}
        for _, ready in self._gather(Ready, "starting"):
            ports.update(ready.ports)
        check(self.pipeline, ports)
        node_of = self.pipeline.node_of
        foreign = [
            (edge.name, node_of(edge.source.partition(".")[0]), node_of(edge.target.partition(".")[0]))
            for edge in self.pipeline.edge
        ]
        foreign = [edge for edge in foreign if edge[1] != edge[2]]
        for name, process in self.processes.items():
            process.tell(Bind({edge: self._endpoint(name) for edge, _, into in foreign if into == name}))
        endpoints: dict[str, str] = {}
        for _, bound in self._gather(Bound, "compiling"):
            endpoints.update(bound.endpoints)
        for name, process in self.processes.items():
            process.tell(Connect({edge: endpoints[edge] for edge, out, _ in foreign if out == name}))
        self.start_s = self.start_s or time.monotonic()

    def _endpoint(self, name: str) -> str:
        self.n_endpoints += 1
        return self.engine.endpoint(name, self.n_endpoints)

    def _gather(self, kind: Any, phase: str) -> Iterator[tuple[str, Any]]:
        """Wait for one report of a kind from every node."""
        if not self.restarts:
            self.phase = phase
        missing = set(self.processes)
        deadline_s = time.monotonic() + COMPILE_PATIENCE_S
        while missing:
            name, report = self._next_report()
            if time.monotonic() > deadline_s:
                name = sorted(missing)[0]
                raise NodeLost(name, f"has not come to the end of {phase} within {COMPILE_PATIENCE_S:g} s")
            if isinstance(report, kind):
                missing.discard(name)
                yield name, report

    def _next_report(self) -> tuple[str, Report]:
        """Wait a moment for the next report; raises what a node failed with, or that one is lost."""
        if self.interrupts.count and self.phase != "running":
            raise _StoppedEarly
        self.on_status(self.latest, self.phase)
        self._look_for_silence()
        try:
            process, report = self.reports.get(timeout=0.1)
        except queue.Empty:
            return "", Beat()
        name = process.name
        if self.processes.get(name) is not process:
            return "", Beat()  # of a generation that is gone
        process.has_spoken, process.heard_s = True, time.monotonic()
        if report is None:
            is_done = name in self.latest and self.latest[name].done
            if not is_done or process.exit_code(GONE_PATIENCE_S):
                raise self._death(name)
            process.is_gone = True  # it has done its part, and closed what it was writing
            return name, Beat()
        if isinstance(report, Failure):
            raise self._failure(name, report)
        if isinstance(report, Progress):
            self.latest[name] = report.status
            process.worked_s = process.heard_s
        elif isinstance(report, Kept):
            _note_kept(self.shelf, self.run_folder, report)
        return name, report

    def _look_for_silence(self) -> None:
        """Raise when a node hangs."""
        hang_s, now_s = self.pipeline.recovery.hang_s, time.monotonic()
        was_away = now_s - self.looked_s > hang_s / 2  # stopped or suspended ourselves: nobody's silence means anything
        self.looked_s = now_s
        for name, process in self.processes.items():
            if was_away:
                process.heard_s = process.worked_s = now_s
            if process.is_gone:
                continue
            if now_s - process.heard_s > (hang_s if process.has_spoken else max(hang_s, START_PATIENCE_S)):
                silent_s = now_s - process.heard_s
                if not process.pid:
                    raise NodeLost(name, f"has found no machine to run on within {silent_s:.0f} s")
                raise NodeLost(name, f"hangs: its process {process.pid} has said nothing for {silent_s:.1f} s")
            if self.phase != "running" or (name in self.latest and self.latest[name].done):
                process.worked_s = now_s
            elif now_s - process.heard_s > 1.5 * protocol.BEAT_S:
                continue  # no beat: it is the process that is silent, and not (only) its members; wait until it counts
            elif now_s - process.worked_s > (hang_s if name in self.latest else max(hang_s, START_PATIENCE_S)):
                here = [member.name for member in self.pipeline.members if self.pipeline.node_of(member.name) == name]
                raise NodeLost(
                    name,
                    f"hangs: it lives, but {' or '.join(here)} has not returned for {now_s - process.worked_s:.1f} s",
                )

    def _watch(self) -> None:
        """Follow the running nodes until each has ended."""
        self.phase = "running"
        if self.run_folder is not None:
            self.run_folder.log("running", nodes={name: process.pid for name, process in self.processes.items()})
        stopped_s = 0.0
        while not all(process.is_gone for process in self.processes.values()):
            if self.interrupts.count and not stopped_s:
                stopped_s = time.monotonic()
                self._call_barrier()
                self._tell_all(Stop())
            if self.interrupts.count > 1:
                raise RunError("cut off by a second Ctrl-C")
            for control in self.controls():
                if control.snapshot and not self.has_leader:
                    self._call_barrier()
                else:
                    self._tell_all(Tell(control))
            if stopped_s and time.monotonic() - stopped_s > STOP_PATIENCE_S:
                slow = [name for name in self.processes if name not in self.latest or not self.latest[name].done]
                raise RunError(f"stopped, but {', '.join(slow)} did not end within {STOP_PATIENCE_S:g} s; cut off")
            self._next_report()
            if not self.has_leader and not stopped_s:
                self._keep_time()

    def _tell_all(self, command: Command) -> None:
        for process in self.processes.values():
            process.tell(command)

    def _keep_time(self) -> None:
        """Call a barrier when stream time has moved on, one at a time."""
        every_us = self.pipeline.recovery.snapshot_every_us
        if every_us is None or self.shelf is None or not self.latest or self.shelf.is_waiting(self.number):
            return
        period = max(status.stream_us for status in self.latest.values()) // every_us
        before, self.period = self.period, period
        if before is not None and period > before:
            self._call_barrier()

    def _call_barrier(self) -> None:
        """Let a barrier into all sources, unless they live in one node, which then numbers them itself."""
        if self.shelf is not None and not self.has_leader:
            self.number += 1
            self._tell_all(Tell(Control(barrier=self.number)))

    def _failure(self, name: str, failure: Failure) -> HebbstreamError:
        trace = f"\n{failure.trace}" if failure.trace else ""
        kind = UsageError if failure.exit_code == UsageError.exit_code else RunError
        return kind(f"node '{name}': {failure.message}{trace}")

    def _death(self, name: str) -> NodeLost:
        """Explain a node's end without a report of its own; its final status may have come before."""
        process = self.processes[name]
        code = process.exit_code(GONE_PATIENCE_S)
        words = process.last_words()
        if code is None:
            how = "its process, or the machine that it ran on, is gone"
        else:
            how = f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        return NodeLost(name, f"died: {how}" + (f"; its last words:\n{words}" if words else ""))

    def _end(self, patience_s: float) -> None:
        """Close everything: no process and no socket file stays behind."""
        for process in self.processes.values():
            if process.name not in self.latest or not self.latest[process.name].done:
                process.tell(Abort())
        deadline_s = time.monotonic() + patience_s
        for process in self.processes.values():
            process.end(deadline_s)
        while not self.reports.empty():  # what the nodes still said on their way out
            self._note_late(*self.reports.get())
        self.engine.close()


def _finished(shelf: Shelf | None, result: RunResult) -> RunResult:
    """Declare a run that has come to its end finished."""
    if shelf is None or result.was_stopped:
        return result
    shelf.finish()
    return result._replace(snapshots_failed=shelf.n_failed, snapshot_failure=shelf.failure)


def _result(
    pipeline: Pipeline,
    latest: dict[str, Status],
    wall_s: float,
    begin: Manifest | None,
    reason: str = "",
    *,
    shelf: Shelf | None,
) -> RunResult:
    """Put statuses together; ledgers count on from the snapshot with which the nodes began."""
    ends: dict[str, list[EdgeStatus]] = {edge.name: [] for edge in pipeline.edge}
    for status in latest.values():
        for end in status.edges:
            ends.setdefault(end.name, []).append(end)
    ledgers = []
    of_taps = [EdgeSpec(source=tap.source, target="tap.any", delivery="live") for tap in pipeline.tap]
    for edge in [*pipeline.edge, *of_taps]:
        name = edge.name if edge in pipeline.edge else f"{edge.source} -> tap"
        counts = EdgeCounts()
        for end in ends.get(name, []):
            for field in EdgeCounts.__struct_fields__:
                setattr(counts, field, max(getattr(counts, field), getattr(end.counts, field)))
        if reason:
            # cut off: what was in flight is lost, and a loss is never silent
            counts.dropped_messages = counts.sent_messages - counts.delivered_messages
            counts.dropped_items = counts.sent_items - counts.delivered_items
        before = (begin.ledger.get(name) if begin is not None else None) or EdgeCounts()
        for field in EdgeCounts.__struct_fields__:
            setattr(counts, field, getattr(counts, field) + getattr(before, field))
        messages = (counts.sent_messages, counts.delivered_messages, counts.dropped_messages)
        items = (counts.sent_items, counts.delivered_items, counts.dropped_items)
        ledgers.append(Ledger(name, edge.delivery, messages, items, counts.refused_messages, counts.bytes))
    latency = {name: end.latency for name, both in ends.items() for end in both if end.latency.count}
    members = {name: statistics for status in latest.values() for name, statistics in status.members.items()}
    missing = {name: statistics.get("seconds missing", 0.0) for name, statistics in members.items()}
    stream_us = max(
        (status.stream_us for status in latest.values()), default=begin.stream_us if begin is not None else 0
    )
    firsts = [it.first_us for status in latest.values() for it in status.sources.values() if it.first_us is not None]
    # what goes on from a snapshot has forgotten where it began; its clock is the best there is
    span_us = stream_us - min(firsts) if firsts and begin is None else stream_us
    return RunResult(
        ledgers,
        members,
        latency,
        {name: end.refusal for name, both in ends.items() for end in both if end.refusal},
        wall_s,
        sum(status.cpu_s for status in latest.values()),
        stream_us,
        span_us,
        reason or next((status.reason for status in latest.values() if status.reason), ""),
        restarts=[],
        resumed_from=None,
        snapshots=shelf.n_complete if shelf is not None else 0,
        snapshots_failed=shelf.n_failed if shelf is not None else 0,
        snapshot_failure=shelf.failure if shelf is not None else "",
        gaps={name: seconds for name, seconds in missing.items() if seconds},
    )


def result_json(pipeline: Pipeline, result: RunResult) -> dict[str, Any]:
    """Return a result as plain values, for a summary that programs read."""
    return {
        "pipeline": pipeline.name,
        "reason": result.reason,
        "wall_s": result.wall_s,
        "cpu_s": result.cpu_s,
        "stream_s": result.span_us / 1e6,
        "members": result.members,
        "ledger": [ledger._asdict() | {"balanced": ledger.is_balanced} for ledger in result.ledgers],
        "latency_us": {
            name: {"p50": it.p50_us, "p99": it.p99_us, "p99.9": it.p999_us} for name, it in result.latency.items()
        },
        "restarts": [msgspec.structs.asdict(restart) for restart in result.restarts],
        "resumed_from": result.resumed_from,
        "snapshots": {
            "complete": result.snapshots,
            "failed": result.snapshots_failed,
            "failure": result.snapshot_failure,
        },
        "gaps_s": result.gaps,
    }
