"""Run a pipeline: in this process, or as one process per node that this one supervises."""

import contextlib
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import msgspec
import zmq

from stream import node as protocol
from stream.errors import HebbstreamError, RunError, UsageError
from stream.host import STOPPED, Control, EdgeStatus, Host, Status
from stream.ledger import EdgeCounts, LatencyPercentiles, Ledger
from stream.node import Abort, Bind, Bound, Command, Connect, Failure, Progress, Ready, Report, Stop, Task, Tell
from stream.operator import Operator
from stream.pipeline import EdgeSpec, Pipeline, Ports, build, check, ports_of

__all__ = ["Controls", "Interrupts", "OnStatus", "RunResult", "run"]

OnStatus: TypeAlias = Callable[[dict[str, Status], str], None]
"""Called with the latest status of each node and a word on what is going on."""

Controls: TypeAlias = Callable[[], list[Control]]

STOP_PATIENCE_S = 10.0  # how long a stopped pipeline may drain before it is cut off
GONE_PATIENCE_S = 3.0  # how long a node may take to close its sockets


class RunResult(NamedTuple):
    """What a run came to."""

    ledgers: list[Ledger]
    members: dict[str, dict[str, float]]  # last statistics of each member
    latency: dict[str, LatencyPercentiles]  # source to this edge's far end, by edge
    refusals: dict[str, str]  # last reason for which a stranger was refused, by edge
    wall_s: float  # from the moment all nodes were joined to the last message
    cpu_s: float  # of all nodes
    stream_us: int
    reason: str  # why it ended early; "" if it came to its end

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
    on_status: OnStatus = lambda statuses, phase: None,
    controls: Controls = list,
) -> RunResult:
    """Run a pipeline to its end.

    Ctrl-C (or SIGTERM) ends the sources and lets what is under way arrive; a second one cuts everything off. Either way
    the ledger comes out and no process or socket stays behind.

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
    on_status
        Called several times a second.
    controls
        Called several times a second: what a person told the sources since the last call.

    Raises
    ------
    ConfigError, GraphError
        If the description is wrong; nothing was started.
    HebbstreamError
        If a member failed. Its message names the node; ``error.result`` is the RunResult up to there, if it had begun.
    """
    with Interrupts() as interrupts:
        if processes:
            return _Supervisor(pipeline, list(plugins), restore, on_status, controls, interrupts).run()
        return _run_here(pipeline, list(plugins), restore, on_status, controls, interrupts)


class _StoppedEarly(Exception):
    """Ctrl-C came before the nodes were joined: nothing flowed, so the ledger is all zeros."""


class Interrupts:
    """Counts Ctrl-C and SIGTERM instead of raising, so that a run can end in its own way."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.count += 1


def _run_here(
    pipeline: Pipeline,
    plugins: list[str],
    restore: int | None,
    on_status: OnStatus,
    controls: Controls,
    interrupts: Interrupts,
) -> RunResult:
    on_status({}, "building")
    members = build(pipeline, plugins=plugins)
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
        protocol.restore_members(pipeline, members, restore)
        on_status({}, "compiling")
        for member in members.values():
            if isinstance(member, Operator):
                member.warm_up()
        taps = protocol.open_taps(context, pipeline, ports)
        host = Host(pipeline, members, taps=taps, on_status=note, interrupted=interrupted, controls=controls)
        start_s = time.monotonic()
        try:
            host.run()
        except HebbstreamError as error:
            note(host.status())
            error.result = _result(pipeline, latest, time.monotonic() - start_s, str(error))  # type: ignore[attr-defined]
            raise
        return _result(pipeline, latest, time.monotonic() - start_s)
    finally:
        for tap in taps.values():
            tap.close()
        context.destroy(linger=200)
        for member in members.values():
            member.close()


class _Process:
    """A node's process as its supervisor sees it."""

    def __init__(self, task: Task, reports: "queue.SimpleQueue[tuple[str, Report | None]]") -> None:
        self.name = task.node
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # -P: the working directory must not shadow an installed package
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "stream.node"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            process_group=0,  # a Ctrl-C in the terminal goes to the supervisor alone, from the first moment on
        )
        self._listener = threading.Thread(target=self._listen, args=(reports,), daemon=True)
        self._listener.start()
        self.tell(task)

    def tell(self, command: Command) -> None:
        """Send a command; a node that is gone is noticed by its report of None."""
        assert self.popen.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self.popen.stdin.write(msgspec.json.encode(command) + b"\n")
            self.popen.stdin.flush()

    def last_words(self) -> str:
        """Return the end of what the process wrote to its standard error."""
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").strip()[-2000:]

    def end(self, deadline_s: float) -> None:
        """Wait for the process until a deadline, then kill it."""
        assert self.popen.stdin is not None
        with contextlib.suppress(OSError):
            self.popen.stdin.close()
        try:
            self.popen.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self._listener.join()
        self.errors.close()

    def _listen(self, reports: "queue.SimpleQueue[tuple[str, Report | None]]") -> None:
        assert self.popen.stdout is not None
        decoder = msgspec.json.Decoder(Report)
        with self.popen.stdout:
            for line in self.popen.stdout:
                reports.put((self.name, decoder.decode(line)))
        reports.put((self.name, None))


class _Supervisor:
    """Starts the nodes of a pipeline, joins them, watches them, and sees to it that none is left."""

    def __init__(
        self,
        pipeline: Pipeline,
        plugins: list[str],
        restore: int | None,
        on_status: OnStatus,
        controls: Controls,
        interrupts: Interrupts,
    ) -> None:
        self.pipeline, self.on_status, self.controls, self.interrupts = pipeline, on_status, controls, interrupts
        self.reports: queue.SimpleQueue[tuple[str, Report | None]] = queue.SimpleQueue()
        self.latest: dict[str, Status] = {}
        self.phase = "starting"
        self.start_s = time.monotonic()
        self.folder = Path(tempfile.mkdtemp(prefix="hebbstream-"))
        token = secrets.token_hex(16)
        self.processes: dict[str, _Process] = {}
        try:
            for name in pipeline.nodes:
                self.processes[name] = _Process(Task(pipeline, name, token, plugins, restore), self.reports)
        except BaseException:
            self._end(0.0)
            raise

    def run(self) -> RunResult:
        """Run to the end."""
        try:
            self._join()
            self._watch()
            wall_s = time.monotonic() - self.start_s
        except _StoppedEarly:
            self._end(GONE_PATIENCE_S)
            return _result(self.pipeline, self.latest, 0.0, f"{STOPPED} before the stream began")
        except HebbstreamError as error:
            wall_s = time.monotonic() - self.start_s
            self._end(GONE_PATIENCE_S)
            if self.phase == "running":  # before that nothing has flowed, and zeros would only hide the message
                error.result = _result(self.pipeline, self.latest, wall_s, str(error))  # type: ignore[attr-defined]
            raise
        except BaseException:
            self._end(0.0)
            raise
        self._end(GONE_PATIENCE_S)
        return _result(self.pipeline, self.latest, wall_s)

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
            wanted = {edge: self._endpoint(index) for index, (edge, _, into) in enumerate(foreign) if into == name}
            process.tell(Bind(wanted))
        endpoints: dict[str, str] = {}
        for _, bound in self._gather(Bound, "compiling"):
            endpoints.update(bound.endpoints)
        for name, process in self.processes.items():
            process.tell(Connect({edge: endpoints[edge] for edge, out, _ in foreign if out == name}))
        self.start_s = time.monotonic()

    def _endpoint(self, index: int) -> str:
        return f"ipc://{self.folder}/{index}" if self.pipeline.transport == "ipc" else "tcp://127.0.0.1:*"

    def _gather(self, kind: Any, phase: str) -> Iterator[tuple[str, Any]]:
        """Wait for one report of a kind from every node."""
        self.phase = phase
        missing = set(self.processes)
        while missing:
            name, report = self._next_report()
            if isinstance(report, kind):
                missing.discard(name)
                yield name, report

    def _next_report(self) -> tuple[str, Report]:
        """Wait for the next report; raises what a node failed with."""
        while True:
            if self.interrupts.count and self.phase != "running":
                raise _StoppedEarly
            self.on_status(self.latest, self.phase)
            with contextlib.suppress(queue.Empty):
                name, report = self.reports.get(timeout=0.1)
                if report is None and name in self.latest and self.latest[name].done:
                    continue  # it has done its part and gone
                if report is None:
                    raise self._death(name)
                if isinstance(report, Failure):
                    raise self._failure(name, report)
                if isinstance(report, Progress):
                    self.latest[name] = report.status
                return name, report
            if self.phase == "running":
                return "", Progress(Status("", 0, {}, [], 0.0))

    def _watch(self) -> None:
        """Follow the running nodes until each has ended."""
        self.phase = "running"
        stopped_s = 0.0
        while not all(name in self.latest and self.latest[name].done for name in self.processes):
            if self.interrupts.count and not stopped_s:
                stopped_s = time.monotonic()
                for process in self.processes.values():
                    process.tell(Stop())
            if self.interrupts.count > 1:
                raise RunError("cut off by a second Ctrl-C")
            for control in self.controls():
                for process in self.processes.values():
                    process.tell(Tell(control))
            if stopped_s and time.monotonic() - stopped_s > STOP_PATIENCE_S:
                slow = [name for name in self.processes if name not in self.latest or not self.latest[name].done]
                raise RunError(f"stopped, but {', '.join(slow)} did not end within {STOP_PATIENCE_S:g} s; cut off")
            self._next_report()

    def _failure(self, name: str, failure: Failure) -> HebbstreamError:
        trace = f"\n{failure.trace}" if failure.trace else ""
        kind = UsageError if failure.exit_code == UsageError.exit_code else RunError
        return kind(f"node '{name}': {failure.message}{trace}")

    def _death(self, name: str) -> HebbstreamError:
        """Explain a node's end without a report of its own; its final status may have come before."""
        process = self.processes[name]
        code = process.popen.wait()
        words = process.last_words()
        how = f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        return RunError(f"node '{name}' died: {how}" + (f"; its last words:\n{words}" if words else ""))

    def _end(self, patience_s: float) -> None:
        """Close everything: no process and no socket file stays behind."""
        for process in self.processes.values():
            if process.name not in self.latest or not self.latest[process.name].done:
                process.tell(Abort())
        deadline_s = time.monotonic() + patience_s
        for process in self.processes.values():
            process.end(deadline_s)
        while not self.reports.empty():  # what the nodes still said on their way out
            name, report = self.reports.get()
            if isinstance(report, Progress):
                self.latest[name] = report.status
        shutil.rmtree(self.folder, ignore_errors=True)


def _result(pipeline: Pipeline, latest: dict[str, Status], wall_s: float, reason: str = "") -> RunResult:
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
        messages = (counts.sent_messages, counts.delivered_messages, counts.dropped_messages)
        items = (counts.sent_items, counts.delivered_items, counts.dropped_items)
        ledgers.append(Ledger(name, edge.delivery, messages, items, counts.refused_messages, counts.bytes))
    latency = {name: end.latency for name, both in ends.items() for end in both if end.latency.count}
    return RunResult(
        ledgers,
        {name: statistics for status in latest.values() for name, statistics in status.members.items()},
        latency,
        {name: end.refusal for name, both in ends.items() for end in both if end.refusal},
        wall_s,
        sum(status.cpu_s for status in latest.values()),
        max((status.stream_us for status in latest.values()), default=0),
        reason or next((status.reason for status in latest.values() if status.reason), ""),
    )
