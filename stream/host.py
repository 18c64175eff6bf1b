"""The host: runs the members of one process. A whole pipeline in one process is a host with no foreign edges.

A message goes from member to member by direct call where both live here, over an edge (``stream.edge``) where they
do not. The code of a member cannot tell the difference, and neither can its result.
"""

import contextlib
import dataclasses
import functools
import math
import resource
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq

from stream.edge import Receiver, Sender
from stream.errors import ConfigError
from stream.ledger import EdgeCounts, Latency, LatencyPercentiles
from stream.operator import Emit, Operator, Source
from stream.packet import Barrier, Deploy, End, Mark, Message, Packet
from stream.pipeline import EdgeSpec, Pipeline, SourceSpec, Speed
from stream.record import Recorder
from stream.replay import Replay
from stream.snapshot import FINAL, Keeper, Kept, Manifest
from stream.tap import Tap
from stream.teach import Teach, read_taught, write_taught

__all__ = ["Control", "EdgeStatus", "Host", "SourceStatus", "Status"]

STATUS_PERIOD_S = 0.2
NAP_S = 0.0002
STOPPED = "stopped"  # the reason of an ``End`` that nothing but a wish to stop has caused


class Control(msgspec.Struct, tag=True):
    """What a person tells running sources. It changes what is played and when, never how it is computed."""

    pause: bool | None = None
    steps: int = 0  # packets or marks to hand out while paused
    speed: Speed | None = None
    seek_us: int | None = None  # to that time after the source's first
    seek_by_us: int = 0  # from where it stands
    snapshot: bool = False  # take one now
    barrier: int = 0  # by the supervisor: the number of a barrier that every source is to let through now
    loop: bool | None = None  # begin again at the end, for ever
    show: int | None = None  # teach this class from here on; -1 ends that
    forget: int | None = None  # make void what was taught of this class
    correct: int | None = None  # what was last taught, or asked about, was of this class
    load: str | None = None  # a file of what was taught (``stream.teach``), to take the place of what is known
    save: str | None = None  # where to write what was taught
    names: dict[str, int] = {}  # of classes, for what is saved
    record: str | None = None  # write what the sources give to PATH-SOURCE.hbs; "" ends that

    @property
    def teaches(self) -> bool:
        """Whether it is about what is learned, and not about the pace."""
        return not all(it is None for it in (self.show, self.forget, self.correct, self.load, self.save))


class SourceStatus(msgspec.Struct):
    """How a source is played."""

    speed: Speed
    is_paused: bool
    can_seek: bool
    position_us: int  # after its first time, if it can seek
    is_looping: bool
    recording: str  # path; "" if none is made
    has_ended: bool
    can_teach: bool = False
    shown: int = -1  # the class that is taught now
    first_us: int | None = None  # time of its first item


class EdgeStatus(msgspec.Struct):
    """One end of an edge, or both of a local one."""

    name: str
    counts: EdgeCounts
    latency: LatencyPercentiles
    refusal: str = ""


class Status(msgspec.Struct):
    """What a host tells of itself, several times a second."""

    node: str
    stream_us: int
    members: dict[str, dict[str, float]]
    edges: list[EdgeStatus]
    cpu_s: float
    reason: str = ""
    done: bool = False
    memory_bytes: int = 0  # resident; 0 where the system does not tell
    sources: dict[str, SourceStatus] = {}


class LocalEdge:
    """An edge inside a process: a direct call, with the same ledger."""

    def __init__(self, spec: EdgeSpec, deliver: Callable[["LocalEdge", Message], None]) -> None:
        self.name, self.target = spec.name, spec.target
        self.counts = EdgeCounts()
        self.latency = Latency()
        self._deliver = deliver

    def put(self, message: Message) -> None:
        """Send a message; the receiver has worked on it when this returns (unless a barrier holds it back)."""
        self.counts.sent_messages += 1
        if isinstance(message, Packet):
            self.counts.sent_items += len(message.items)
            if len(message.items) and message.origin_ns:
                self.latency.add((time.monotonic_ns() - message.origin_ns) / 1000)
        self._deliver(self, message)

    def done(self, message: Message) -> None:
        """Count a message as delivered."""
        self.counts.delivered_messages += 1
        if isinstance(message, Packet):
            self.counts.delivered_items += len(message.items)


class Inlet:
    """What the runtime knows of an operator's inputs: which have ended, which wait behind a barrier."""

    def __init__(self, edges: set[str]) -> None:
        self.edges = edges
        self.ended: set[str] = set()
        self.behind_barrier: set[str] = set()
        self.barrier: Barrier | None = None
        self.held: deque[tuple[Any, Message]] = deque()


class Outlet:
    """A source's own state in the runtime: what it has handed out but is not due yet, and its pace."""

    def __init__(self, spec: SourceSpec, source: Source) -> None:
        self.spec, self.source = spec, source
        self.waiting: deque[Message] = deque()
        self.barriers: deque[int] = deque()  # to be let through once nothing waits
        self.last_us = 0
        self.first_us: int | None = None  # time of the first item that it handed out
        self.start: tuple[int, float] | None = None  # stream time (us) and wall time (s) at which the pace began
        self.speed = spec.speed
        self.is_paused = False
        self.steps = 0
        self.has_ended = False
        self.recorder: Recorder | None = None
        self.fault = ""
        self.teach = source if isinstance(source, Teach) else None
        inner = self.teach.source if self.teach is not None else source
        self.replay = inner if isinstance(inner, Replay) else None

    def due_s(self, message: Message) -> float:
        """Return the wall time at which a message may leave: a camera hands a packet over at its end."""
        t_us = message.end_us if isinstance(message, Packet) else message.t_us
        if self.is_paused:
            return 0.0 if self.steps else math.inf
        if self.speed == "max":
            return 0.0
        if self.start is None:
            self.start = (message.start_us if isinstance(message, Packet) else t_us, time.monotonic())
        return self.start[1] + (t_us - self.start[0]) / 1e6 / self.speed

    def heed(self, control: Control) -> None:
        """Do what a person said about the pace."""
        if control.snapshot or control.barrier:
            return
        if control.pause is not None:
            self.is_paused, self.steps = control.pause, 0
        if control.speed is not None:
            self.speed = control.speed
        self.steps += control.steps if self.is_paused else 0
        if control.record is None and not control.teaches:
            self.start = None  # the pace begins anew with the next message
        if control.loop is not None and self.replay is not None:
            self.replay.loop_for_ever(control.loop)
        if self.teach is not None:
            self._teach(self.teach, control)
        if control.record is not None:
            self._record(control.record)
        if control.seek_us is None and not control.seek_by_us:
            return
        if self.replay is not None and not self.has_ended:
            at_us = control.seek_us if control.seek_us is not None else self.replay.position_us() + control.seek_by_us
            self.waiting.clear()
            self.replay.seek(at_us)

    def _teach(self, teach: Teach, control: Control) -> None:
        if control.show is not None:
            teach.show(control.show)
        if control.forget is not None:
            teach.forget(control.forget)
        if control.correct is not None:
            teach.correct(control.correct)
        if control.load is not None:
            try:
                teach.load(read_taught(Path(control.load))[0])
            except ConfigError as error:
                self.fault = str(error)

    def _record(self, path: str) -> None:
        self.close()
        if path and not self.has_ended:
            try:
                item = self.source.outputs["events"].item
                self.recorder = Recorder(path=f"{path}-{self.spec.name}.hbs", ports={"events": item})
            except ConfigError as error:
                self.fault = str(error)

    def note(self, message: Message) -> None:
        """Record a message, if a person asked for that; a full disk ends the recording and not the run."""
        if self.recorder is None:
            return
        try:
            if isinstance(message, Packet):
                self.recorder.on_packet("events", message, _nowhere)
            elif not isinstance(message, End):
                self.recorder.on_mark("events", message, _nowhere)
        except OSError as error:
            self.fault = f"recording {self.recorder.path}: {error}"
            self.close()

    def status(self) -> SourceStatus:
        """Say how it is played."""
        recording = str(self.recorder.path) if self.recorder is not None else ""
        return SourceStatus(
            self.speed,
            self.is_paused,
            self.replay is not None,
            self.replay.position_us() if self.replay is not None else 0,
            self.replay is not None and self.replay.is_looping,
            recording or self.fault,
            self.has_ended,
            self.teach is not None,
            self.teach.shown if self.teach is not None else -1,
            self.first_us,
        )

    def close(self) -> None:
        """Close the recording, if there is one."""
        if self.recorder is not None:
            recorder, self.recorder = self.recorder, None
            recorder.close()


class Host:
    """Run members until their streams end.

    Parameters
    ----------
    pipeline
        The whole description; edges between members that are not here need a sender or receiver.
    members
        The sources and operators of this process, by name.
    node
        Name of this process, for the status.
    senders, receivers
        Foreign edges, by name.
    taps
        Places where outputs can be looked at, by ``member.port``.
    on_status
        Called about five times a second, and at the end.
    interrupted
        Called often. True: end the sources as if they had come to their end. May raise to give up at once.
    controls
        Called often: what a person told the sources since the last call.
    keeper
        Takes the snapshots that barriers ask for; None = barriers pass and nothing is kept.
    begin
        The snapshot that the members have been restored from.

    Notes
    -----
    Where a barrier stands in the stream carries no meaning. If all sources of the pipeline are here, this host lets
    one into each of them, with the next number, whenever stream time passes a multiple of
    ``pipeline.recovery.snapshot_every_us``, when a source marks one itself, when somebody asks for one, and before a
    stop. Otherwise the supervisor numbers them, and what sources mark themselves is passed over: a node that waits
    for a barrier on one input holds back the other, so all sources must let the same one through at once.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        members: Mapping[str, Source | Operator],
        *,
        node: str = "",
        senders: Mapping[str, Sender] | None = None,
        receivers: Mapping[str, Receiver] | None = None,
        taps: Mapping[str, Tap] | None = None,
        on_status: Callable[[Status], None] = lambda status: None,
        interrupted: Callable[[], bool] = lambda: False,
        controls: Callable[[], list[Control]] = list,
        keeper: Keeper | None = None,
        begin: Manifest | None = None,
    ) -> None:
        self.node, self.members = node or pipeline.name, members
        self._keeper = keeper
        self._leads = all(spec.name in members for spec in pipeline.source)
        self._number = begin.number if begin is not None else 0  # of the last barrier
        self._every_us = pipeline.recovery.snapshot_every_us
        self._period: int | None = None  # how many times `_every_us` fit into the stream so far
        self._over = {name for name, part in begin.members.items() if part.ended} if begin is not None else set()
        self._senders, self._receivers = dict(senders or {}), dict(receivers or {})
        self._taps = dict(taps or {})
        self._on_status, self._interrupted, self._controls = on_status, interrupted, controls
        self._next_status_s = 0.0
        self._origin_ns = 0
        self._stream_us = begin.stream_us if begin is not None else 0
        self._reason = ""
        self._outlets = [Outlet(spec, members[spec.name]) for spec in pipeline.source if spec.name in members]  # type: ignore[arg-type] # a source by its name
        for outlet in self._outlets if begin is not None else ():
            outlet.last_us = begin.members[outlet.spec.name].t_us  # type: ignore[union-attr] # not None in this loop
        self._inlets: dict[str, Inlet] = {}
        self._targets: dict[tuple[str, str], list[LocalEdge | Sender | Tap]] = {}
        self._locals: list[LocalEdge] = []
        self._receiver_targets: dict[str, str] = {}
        for name, member in members.items():
            if isinstance(member, Operator):
                into = {edge.name for edge in pipeline.edge if edge.target.partition(".")[0] == name}
                self._inlets[name] = Inlet(into)
        for edge in pipeline.edge:
            source, _, port = edge.source.partition(".")
            target = edge.target.partition(".")[0]
            if source in members:
                out: LocalEdge | Sender
                if target in members:
                    out = LocalEdge(edge, self._deliver)
                    self._locals.append(out)
                else:
                    out = self._senders[edge.name]
                    out.alive = self.look_up
                self._targets.setdefault((source, port), []).append(out)
            elif target in members:
                self._receiver_targets[edge.name] = edge.target
        for address, tap in self._taps.items():
            source, _, port = address.partition(".")
            self._targets.setdefault((source, port), []).append(tap)
            tap.look = functools.partial(self._look, source)
        self._emitters = {name: self._emitter(name) for name in members}

    def run(self) -> Status:
        """Run until every source and every operator here has ended, then close the edges.

        Returns
        -------
        Status
            The final one; its counts are complete.
        """
        poller = zmq.Poller()
        for sender in self._senders.values():
            poller.register(sender.socket, zmq.POLLIN)
        for receiver in self._receivers.values():
            poller.register(receiver.socket, zmq.POLLIN)
        for tap in self._taps.values():
            poller.register(tap.socket, zmq.POLLIN)
        while not self._has_ended():
            self._heed()
            progressed = any([self._step(outlet) for outlet in self._outlets if not outlet.has_ended])
            for receiver in self._receivers.values():
                # a bounded bite of each input, so that none starves and status goes out
                for _ in range(receiver.window):
                    message = receiver.receive()
                    if message is None:
                        break
                    progressed = True
                    self._deliver(receiver, message)
            for tap in self._taps.values():
                tap.answer()
            if not progressed:
                for receiver in self._receivers.values():
                    receiver.acknowledge()
                if not poller.poll(patience_ms := self._patience_ms()) and not patience_ms:
                    time.sleep(NAP_S)  # a source is due within the millisecond, the shortest that a poll can wait
                for sender in self._senders.values():
                    sender.service()
                for tap in self._taps.values():
                    tap.service()
        for outlet in self._outlets:
            outlet.close()
        for sender in self._senders.values():
            # whatever a lossless edge still carries arrives, however long its far end takes; the supervisor watches, or
            # the edge itself (``patience_s``)
            sender.close(timeout_s=math.inf if sender.delivery == "lossless" else 5.0)
        if self._keeper is not None:
            self._keeper.close(finish=True)
        for tap in self._taps.values():
            tap.finish()
        status = self.status(done=True)
        self._on_status(status)
        return status

    def status(self, *, done: bool = False) -> Status:
        """Return the counts of this moment."""
        none = LatencyPercentiles(0, 0.0, 0.0, 0.0)
        edges = [
            *(EdgeStatus(sender.name, sender.counts, none) for sender in self._senders.values()),
            *(EdgeStatus(local.name, local.counts, local.latency.percentiles()) for local in self._locals),
            *(
                EdgeStatus(receiver.name, receiver.counts, receiver.latency.percentiles(), receiver.last_refusal)
                for receiver in self._receivers.values()
            ),
            *(EdgeStatus(tap.name, tap.account(), none, tap.last_refusal) for tap in self._taps.values()),
        ]
        statistics = {name: member.statistics() for name, member in self.members.items()}
        cpu_s, memory = time.process_time(), resident_bytes()
        sources = {outlet.spec.name: outlet.status() for outlet in self._outlets}
        return Status(self.node, self._stream_us, statistics, edges, cpu_s, self._reason, done, memory, sources)

    def _look(self, name: str, what: str) -> Deploy | None:
        """Let a member show itself to a viewer."""
        member = self.members[name]
        arrays = member.look(what) if isinstance(member, Operator) else {}
        return Deploy(self._stream_us, 0, arrays) if arrays else None

    def close(self) -> None:
        """Close every member and edge of this process. Idempotent; what members were writing is kept."""
        if self._keeper is not None:
            self._keeper.close(finish=False)
        for outlet in self._outlets:
            outlet.close()
        for sender in self._senders.values():
            sender.drop()
        for receiver in self._receivers.values():
            receiver.close()
        for tap in self._taps.values():
            tap.close()
        for member in self.members.values():
            member.close()

    # Sources

    def _step(self, outlet: Outlet) -> bool:
        """Let a source hand out one message, if one is due. Returns whether it did."""
        if not outlet.waiting:
            if outlet.barriers:
                self._release(outlet, Barrier(outlet.last_us, outlet.barriers.popleft()))
                return True
            message = outlet.source.poll(outlet.spec.packet_items)
            if message is None:
                return False
            if isinstance(message, Barrier):
                self._call_barrier()
                return True
            outlet.waiting.extend(_slices(message, outlet) if isinstance(message, Packet) else [message])
        if outlet.due_s(outlet.waiting[0]) > time.monotonic():
            return False
        outlet.steps -= 1 if outlet.is_paused else 0
        self._release(outlet, outlet.waiting.popleft())
        if self._every_us is not None and self._leads and self._keeper is not None:
            before, self._period = self._period, self._stream_us // self._every_us
            if before is not None and self._period > before:
                self._call_barrier()
        return True

    def _release(self, outlet: Outlet, message: Message) -> None:
        emit = self._emitters[outlet.spec.name]
        if isinstance(message, Packet):
            outlet.last_us = message.end_us
            if outlet.first_us is None and len(message.items):
                outlet.first_us = int(message.items["t"][0])
            # a camera knows better when its events came
            message = dataclasses.replace(message, origin_ns=message.origin_ns or time.monotonic_ns())
        else:
            outlet.last_us = message.t_us
        outlet.note(message)
        self._stream_us = max(self._stream_us, outlet.last_us)
        if isinstance(message, Barrier):
            self._keep(message.number, outlet.spec.name, outlet.last_us)
        if isinstance(message, End):
            outlet.has_ended = True
            self._reason = self._reason or message.reason
        for port in outlet.source.outputs:
            emit(port, message)
        if isinstance(message, End):
            self._keep(FINAL, outlet.spec.name, outlet.last_us)

    def _call_barrier(self) -> None:
        """Let the next barrier into every source, if it is here that they are numbered."""
        if self._leads:
            self._number += 1
            for outlet in self._outlets:
                outlet.barriers.append(self._number)

    def _stop(self) -> None:
        """End the sources; what they have handed out goes out first, and a barrier, from which to go on another day."""
        if self._keeper is not None and any(not outlet.has_ended for outlet in self._outlets):
            self._call_barrier()
        for outlet in self._outlets:
            if not outlet.has_ended:
                for message in (*outlet.waiting, *(Barrier(outlet.last_us, number) for number in outlet.barriers)):
                    if not outlet.has_ended:
                        self._release(outlet, message)
                outlet.waiting.clear()
                if not outlet.has_ended:
                    self._release(outlet, End(outlet.last_us, STOPPED))

    # Operators

    def _emitter(self, name: str) -> Emit:
        targets = {port: out for (owner, port), out in self._targets.items() if owner == name}
        ports = self.members[name].outputs

        def emit(port: str, message: Message) -> None:
            if port not in ports:
                raise KeyError(f"'{name}' emitted on '{port}'; it has {', '.join(ports) or 'no outputs'}")
            if isinstance(message, Packet) and not message.origin_ns and self._origin_ns:
                message = dataclasses.replace(message, origin_ns=self._origin_ns)
            for target in targets.get(port, ()):
                target.put(message)

        return emit

    def _deliver(self, edge: LocalEdge | Receiver, message: Message) -> None:
        address = edge.target if isinstance(edge, LocalEdge) else self._receiver_targets[edge.name]
        name, _, port = address.partition(".")
        inlet = self._inlets[name]
        if edge.name in inlet.behind_barrier:
            if isinstance(message, Packet):  # its items belong to the sender; what is held outlives the call
                message = dataclasses.replace(message, items=message.items.copy())
            inlet.held.append((edge, message))  # not acknowledged, so the sender's window bounds what is held
            return
        operator, emit = self.members[name], self._emitters[name]
        assert isinstance(operator, Operator)
        if isinstance(message, Packet):
            self._stream_us = max(self._stream_us, message.end_us)
            before, self._origin_ns = self._origin_ns, message.origin_ns
            operator.on_packet(port, message, emit)
            self._origin_ns = before
        elif isinstance(message, End):
            self._reason = self._reason or message.reason
            inlet.ended.add(edge.name)
            if inlet.ended == inlet.edges:
                if name not in self._over:  # else it was restored from behind its end
                    operator.on_end(emit)
                self._emit_all(name, message)
        elif isinstance(message, Barrier):
            inlet.behind_barrier.add(edge.name)
            inlet.barrier = message
        else:
            operator.on_mark(port, message, emit)
        edge.done(message)
        if isinstance(message, End) and inlet.ended == inlet.edges:
            self._keep(FINAL, name, self._stream_us)
        if inlet.barrier is not None and inlet.behind_barrier | inlet.ended == inlet.edges:
            self._lift(name, inlet, inlet.barrier)

    def _lift(self, name: str, inlet: Inlet, barrier: Barrier) -> None:
        """Take the snapshot for a barrier that has reached every input still open, and go on behind it."""
        self._keep(barrier.number, name, self._stream_us)
        self._emit_all(name, barrier)
        inlet.behind_barrier.clear()
        inlet.barrier = None
        held, inlet.held = inlet.held, deque()
        for edge, message in held:
            self._deliver(edge, message)

    def _emit_all(self, name: str, mark: Mark) -> None:
        for port in self.members[name].outputs:
            self._emitters[name](port, mark)

    def _keep(self, number: int, name: str, t_us: int) -> None:
        """Copy a member's state here and now; the keeper's thread writes it."""
        if self._keeper is None:
            return
        out = {edge.name: edge.counts for (owner, _), to in self._targets.items() if owner == name for edge in to}
        into = {edge.name: edge.counts for edge in self._locals if edge.target.partition(".")[0] == name}
        for edge, receiver in self._receivers.items():
            if self._receiver_targets[edge].partition(".")[0] == name:
                into[edge] = receiver.counts
        kept = Kept(
            number,
            name,
            t_us,
            {edge: (counts.sent_messages, counts.sent_items, counts.bytes) for edge, counts in out.items()},
            {edge: (counts.delivered_messages, counts.delivered_items) for edge, counts in into.items()},
        )
        member = self.members[name]
        self._keeper.put(kept, member.snapshot(), member.settle if isinstance(member, Operator) else _nothing)

    # The loop

    def _has_ended(self) -> bool:
        return all(outlet.has_ended for outlet in self._outlets) and all(
            inlet.ended == inlet.edges for inlet in self._inlets.values()
        )

    def _heed(self) -> None:
        """Between two messages: say how it goes, and do what was asked for."""
        is_stopping = self.look_up()
        for control in self._controls():
            if control.snapshot:
                self._call_barrier()
            if control.save is not None:
                self._save(Path(control.save), control.names)
            for outlet in self._outlets:
                if control.barrier and not outlet.has_ended:
                    outlet.barriers.append(control.barrier)
                outlet.heed(control)
        if is_stopping:
            self._stop()

    def _save(self, path: Path, names: dict[str, int]) -> None:
        """Write what operators here were taught; who asked for it looks whether the file is there."""
        for member in self.members.values():
            arrays = member.taught() if isinstance(member, Operator) else {}
            if arrays:
                with contextlib.suppress(OSError):
                    write_taught(path, arrays, names)

    def look_up(self) -> bool:
        """Say how it goes, also from the middle of a message that waits for credit; raises when all is to be cut off.

        Returns
        -------
        bool
            Whether to stop, which has to wait until the message is through: an ``End`` must not overtake it.
        """
        now = time.monotonic()
        if now >= self._next_status_s:
            self._next_status_s = now + STATUS_PERIOD_S
            self._on_status(self.status())
        return self._interrupted()

    def _patience_ms(self) -> int:
        """Return how long to wait for sockets before looking at the sources again."""
        dues = [outlet.due_s(outlet.waiting[0]) for outlet in self._outlets if outlet.waiting and not outlet.has_ended]
        idle_ms = 1 if any(not outlet.has_ended and not outlet.waiting for outlet in self._outlets) else 50
        if not dues:
            return idle_ms
        return int(np.clip((min(dues) - time.monotonic()) * 1000, 0, idle_ms if idle_ms == 1 else 50))


def _nothing() -> None:
    pass


def _nowhere(port: str, message: Message) -> None:
    """Send nothing to nobody."""


def resident_bytes() -> int:
    """Return how much memory this process holds; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def _slices(packet: Packet, outlet: Outlet) -> list[Message]:
    """Cut a paced packet by time, so that packing adds no more than ``packet_us`` of latency."""
    spec = outlet.spec
    if outlet.speed == "max" or packet.end_us - packet.start_us <= spec.packet_us:
        return [packet]
    edges = np.arange(packet.start_us + spec.packet_us, packet.end_us, spec.packet_us)
    if len(edges) > 2 * len(packet.items):  # a long silence: cut at the items instead of at every tick of it
        edges = np.unique(packet.items["t"] // spec.packet_us * spec.packet_us + spec.packet_us)
    cuts = np.unique(np.searchsorted(packet.items["t"], edges))
    parts = [part for part in np.split(packet.items, cuts) if len(part)]
    ends = [int(part["t"][-1]) + 1 for part in parts[:-1]] + [packet.end_us]
    starts = [packet.start_us, *(int(part["t"][0]) for part in parts[1:])]
    return [Packet(part, start, end) for part, start, end in zip(parts, starts, ends, strict=True)] or [packet]
