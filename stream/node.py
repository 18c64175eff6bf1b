"""A node: a process that hosts the members of a pipeline that share its name. ``python -m stream.node``.

It talks with its supervisor (``stream.run``) in JSON lines over its standard input and output, and with its
neighbours over ZeroMQ::

    supervisor                        node
    Task                          ->            what to host
                                  <-  Ready     the ports of its members
    Bind {edge: endpoint}         ->
                                  <-  Bound {edge: endpoint}, kernels compiled
    Connect {edge: endpoint}      ->            and off it goes
                                  <-  Status    five times a second, and at the end
                                  <-  Kept      a member's snapshot is safe on the disk
                                  <-  Beat      every second from the first on: the process lives
    Tell {pause, speed, seek}     ->            what a person told the sources
    Stop                          ->            end the sources as if they had come to their end
    Rollback                      ->            another node was lost: drop everything, and begin again
                                  <-  Back      ready for the next Task, with kernels that are compiled already
    Abort, or end of file         ->            close everything now
                                  <-  Failure   instead of any of these

A pipe rather than a socket: it needs no address, and when the supervisor dies, however it dies, the node reads
an end of file and goes too. There is no way to leave an orphan behind.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec
import zmq

from stream import wire
from stream.curve import Curve
from stream.edge import Receiver, Sender
from stream.errors import HebbstreamError
from stream.host import Control, Host, Status
from stream.operator import Operator
from stream.pipeline import EdgeSpec, Pipeline, Ports, TapSpec, build, ports_of
from stream.places import place
from stream.snapshot import Keeper, Kept, Manifest, read_snapshot
from stream.tap import Tap

__all__ = [
    "Abort",
    "Back",
    "Beat",
    "Bind",
    "Bound",
    "Connect",
    "Failure",
    "Line",
    "Pass",
    "Ready",
    "Rollback",
    "Stop",
    "Task",
    "Tell",
    "keeper_of",
    "open_taps",
    "restore_members",
    "serve",
]

BEAT_S = 1.0


class Pass(msgspec.Struct):
    """A node's keys for one run, in Z85 (``stream.curve``). They are handed over in memory and written nowhere."""

    public: str
    secret: str
    peers: dict[str, str]  # public keys of all nodes of the run, by name


class Task(msgspec.Struct, tag=True):
    """What a node is to host."""

    pipeline: Pipeline
    node: str
    token: str
    plugins: list[str] = []
    begin: Manifest | None = None  # the snapshot to begin from
    keys: Pass | None = None  # None: nobody but us can reach the edges


class Bind(msgspec.Struct, tag=True):
    """Where to listen, by edge."""

    endpoints: dict[str, str]


class Connect(msgspec.Struct, tag=True):
    """Where the other ends listen, by edge."""

    endpoints: dict[str, str]


class Stop(msgspec.Struct, tag=True):
    """End the sources as if they had come to their end."""


class Tell(msgspec.Struct, tag=True):
    """What a person told the sources."""

    control: Control


class Rollback(msgspec.Struct, tag=True):
    """Drop everything, and wait for another task."""


class Abort(msgspec.Struct, tag=True):
    """Close everything now."""


class Ready(msgspec.Struct, tag=True):
    """The members are built."""

    ports: dict[str, Ports]


class Bound(msgspec.Struct, tag=True):
    """Where it listens, by edge; kernels are compiled."""

    endpoints: dict[str, str]


class Progress(msgspec.Struct, tag=True):
    """A status on its way."""

    status: Status


class Back(msgspec.Struct, tag=True):
    """Everything was dropped; what is reported after this belongs to the next task."""


class Beat(msgspec.Struct, tag=True):
    """The process lives."""


class Failure(msgspec.Struct, tag=True):
    """Something went wrong; the process ends."""

    message: str
    exit_code: int
    trace: str = ""


Command = Task | Bind | Connect | Tell | Stop | Rollback | Abort
Report = Ready | Bound | Progress | Kept | Beat | Back | Failure


class Aborted(Exception):
    """The supervisor is gone or has given up."""


class RolledBack(Exception):
    """The supervisor begins again."""


class Line:
    """The node's end of the line to its supervisor."""

    def __init__(self, commands: BinaryIO, reports: BinaryIO) -> None:
        self._reports = reports
        self._is_speaking = threading.Lock()  # three threads report: members', snapshots', heartbeat
        self._decoder = msgspec.json.Decoder(Command)
        self._pending: list[Command] = []
        self._arrived = threading.Condition()
        self._is_stopping = self._is_aborting = self._is_rolling_back = False
        self._controls: list[Control] = []
        threading.Thread(target=self._listen, args=(commands,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def report(self, report: Report) -> None:
        """Send a line; a supervisor that is gone is noticed elsewhere."""
        line = msgspec.json.encode(report) + b"\n"
        with contextlib.suppress(OSError), self._is_speaking:
            if not self._reports.closed:
                self._reports.write(line)
                self._reports.flush()

    def close(self) -> None:
        """Report no more; where the process lives on, this is how the other end knows."""
        with contextlib.suppress(OSError), self._is_speaking:
            self._reports.close()

    def command(self) -> Any:
        """Wait for the next command."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._pending or self._is_aborting or self._is_rolling_back)
            self.interrupted()
            return self._pending.pop(0)

    def interrupted(self) -> bool:
        """Tell whether to stop; raises Aborted or RolledBack when told to drop everything."""
        if self._is_aborting:
            raise Aborted
        if self._is_rolling_back:
            raise RolledBack
        return self._is_stopping

    def back(self) -> None:
        """Say that everything was dropped."""
        with self._arrived:
            self._is_rolling_back = False
        self.report(Back())

    def controls(self) -> list[Control]:
        """Return what a person told the sources since the last call."""
        if not self._controls:
            return []
        with self._arrived:
            controls, self._controls = self._controls, []
        return controls

    def _beat(self) -> None:
        while True:
            self.report(Beat())
            time.sleep(BEAT_S)

    def _listen(self, commands: BinaryIO) -> None:
        for line in commands:
            command = self._decoder.decode(line)
            with self._arrived:
                if isinstance(command, Abort):
                    break
                if isinstance(command, Rollback):
                    self._pending, self._controls = [], []
                    self._is_stopping, self._is_rolling_back = False, True
                elif isinstance(command, Stop):
                    self._is_stopping = True
                elif isinstance(command, Tell):
                    self._controls.append(command.control)
                else:
                    self._pending.append(command)
                self._arrived.notify_all()
        with self._arrived:
            self._is_aborting = True
            self._arrived.notify_all()
        # the main thread looks up many times a second; if it does not, it hangs in foreign code
        threading.Timer(10.0, os._exit, (1,)).start()


def restore_members(pipeline: Pipeline, members: dict[str, Any], begin: Manifest | None) -> None:
    """Give members the state of a snapshot; None leaves them fresh."""
    if begin is not None and pipeline.snapshots:
        folder = place(pipeline.snapshots)
        for name, member in members.items():
            member.restore(read_snapshot(folder, begin.number, name))


def keeper_of(pipeline: Pipeline, tell: Callable[[Kept], None]) -> Keeper | None:
    """Make what writes a process's snapshots, if the pipeline keeps any."""
    return Keeper(place(pipeline.snapshots), tell) if pipeline.snapshots else None


def serve(line: Line) -> int:
    """Host what the supervisor asks for, until it ends; returns the exit code of the process."""
    while True:
        try:
            host_task(line, line.command())
            return 0
        except RolledBack:
            line.back()
        except Aborted:
            return 1
        except HebbstreamError as error:
            line.report(Failure(str(error), error.exit_code))
            return error.exit_code
        except BaseException as error:
            line.report(Failure(f"{type(error).__name__}: {error}", 1, traceback.format_exc()))
            return 1


def host_task(line: Line, task: Task) -> None:
    """Build members, join them with those of other nodes, and run them to their end."""
    pipeline = task.pipeline
    here = [member.name for member in pipeline.members if pipeline.node_of(member.name) == task.node]
    members = build(pipeline, here, task.plugins)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    folders: set[Path] = set()
    keys = task.keys
    peers = {name: key.encode() for name, key in keys.peers.items()} if keys is not None else {}
    curve = Curve(keys.public.encode(), keys.secret.encode(), allow=peers.values()) if keys is not None else None
    try:
        ports = {name: ports_of(member) for name, member in members.items()}
        line.report(Ready(ports))
        restore_members(pipeline, members, task.begin)
        edges = {edge.name: edge for edge in pipeline.edge}
        receivers: dict[str, Receiver] = {}
        for name, endpoint in line.command().endpoints.items():
            port = ports[edges[name].target.partition(".")[0]].inputs[edges[name].target.partition(".")[2]]
            window = edges[name].window
            receivers[name] = Receiver(context, name, port, endpoint, token=task.token, window=window, curve=curve)
            if endpoint.startswith("ipc://"):
                folders.add(Path(endpoint.removeprefix("ipc://")).parent)
        wire.warm_up()
        for member in members.values():
            if isinstance(member, Operator):
                member.warm_up()
        line.report(Bound({name: receiver.endpoint for name, receiver in receivers.items()}))
        endpoints: dict[str, str] = line.command().endpoints
        taps = open_taps(context, pipeline, ports)
        senders = {}
        for name in endpoints:
            there = pipeline.node_of(edges[name].target.partition(".")[0])
            towards = curve.towards(peers[there]) if curve is not None else None
            senders[name] = _sender(context, edges[name], ports, task.token, towards, line)
        host = Host(
            pipeline,
            members,
            node=task.node,
            senders=senders,
            receivers=receivers,
            taps=taps,
            on_status=lambda status: line.report(Progress(status)),
            interrupted=line.interrupted,
            controls=line.controls,
            keeper=keeper_of(pipeline, line.report),
            begin=task.begin,
        )
        try:
            # one after the other is enough: nodes form no cycle, so the last in the chain is in its loop already and
            # welcomes, then the one before it, and so on
            for name, sender in senders.items():
                sender.connect(endpoints[name])
            host.run()
        except BaseException:
            line.report(Progress(host.status()))  # the ledger counts to the last message, whatever happened
            raise
        finally:
            host.close()
    finally:
        for member in members.values():
            member.close()
        if curve is not None:
            curve.close()
        context.destroy(linger=1000)
        for folder in folders:
            with contextlib.suppress(OSError):  # the last one out takes the folder away
                folder.rmdir()


def open_taps(context: Any, pipeline: Pipeline, ports: dict[str, Ports]) -> dict[str, Tap]:
    """Open the taps of the members that are here, by ``member.port``."""
    taps: dict[str, Tap] = {}
    listed = {spec.source for spec in pipeline.tap}
    outputs = [f"{name}.{port}" for name, there in ports.items() for port in there.outputs] if pipeline.taps else []
    more = [TapSpec(source=it, endpoint=f"ipc://{pipeline.taps}/{it}") for it in outputs if it not in listed]
    try:
        for spec in [*pipeline.tap, *more]:
            name, _, port = spec.source.partition(".")
            if name in ports:
                there = ports[name].outputs[port]
                bounds, policy = spec.bounds, spec.policy
                taps[spec.source] = Tap(context, spec.source, there, spec.endpoint, bounds=bounds, policy=policy)
    except BaseException:
        for tap in taps.values():
            tap.close()
        raise
    return taps


def _sender(
    context: Any, edge: EdgeSpec, ports: dict[str, Ports], token: str, curve: Curve | None, line: Line
) -> Sender:
    name, _, port = edge.source.partition(".")

    def alive() -> None:
        line.interrupted()

    return Sender(
        context,
        edge.name,
        ports[name].outputs[port],
        token=token,
        delivery=edge.delivery,
        bounds=edge.bounds,
        policy=edge.policy,
        window=edge.window,
        curve=curve,
        alive=alive,
    )


def main() -> NoReturn:
    """Run the process."""
    # Ctrl-C and a service manager's SIGTERM may reach every process; the supervisor alone decides what they mean
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # what members or their libraries print must not end up among the reports
    reports = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    code = serve(Line(sys.stdin.buffer, reports))
    # a thread of a library must not keep a finished node alive
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
