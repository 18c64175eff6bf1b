"""An edge between two processes: one ZeroMQ socket at each end, credit, and an exact ledger.

The receiving end binds a ROUTER socket, the sending end connects a DEALER::

    sender                                receiver
    hello, {protocol, edge, port, ...}    ->
                                          <-  welcome, window, 0 or 1   or   refused, reason
    data, header, payload ...             ->                      (stream.wire; "data" crc32-u32 over tcp)
    "slot" number-u32 header, one frame   ->                      (stream.slots: payload in shared memory)
                                          <-  ack, count of messages done so far, u64

The sender never has more than ``window`` messages unacknowledged. That is the credit: a `lossless` edge waits for it, a
`live` edge keeps a bounded queue meanwhile and drops packets of it (``stream.backlog``), counted and told downstream by
a ``Loss`` mark. Marks are never dropped. The receiver acknowledges a message when its operator is *done* with it, so
what is in flight anywhere is bounded, and sent = delivered + dropped holds to the message when the edge closes.

Roads not taken. PUSH/PULL blocks at its high-water mark but hides how much is in flight and loses it with the
connection. PUB/SUB drops at the mark without a word (5,000 sent, 50 received, no error at either end). PAIR cannot
refuse a second peer. A ROUTER sees each peer by its own identity: whoever did not say the right hello is answered,
counted, and cannot touch the stream.
"""

import hmac
import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from stream.backlog import Backlog, Bounds, Policy
from stream.curve import Curve
from stream.errors import StreamError
from stream.ledger import EdgeCounts, Latency
from stream.operator import Port
from stream.packet import End, Message, Packet
from stream.slots import Slots
from stream.wire import MAX_FRAME_BYTES, PROTOCOL_VERSION, Header, decode, encode, pieces, schema

__all__ = ["Bounds", "Delivery", "Hello", "Receiver", "Sender", "checked", "is_whole", "listen", "understand_hello"]

Delivery: TypeAlias = Literal["lossless", "live"]

POLL_MS = 50  # how often a waiting end looks whether it should give up


MOST_STRANGERS = 32  # messages from strangers that are looked at in one go, so that a flood leaves time for work
ASK_S = 0.5  # how often an idle receiver looks whether its sender is there
HANDSHAKE_MS = 5000  # a connection that has not introduced itself to ZeroMQ by then is cut


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a sending end introduces itself with."""

    protocol: int
    edge: str
    port: Port
    token: str
    schema: str = ""  # how an item lies on the wire; "" if the peer does not tell
    slots: str = ""  # where its shared memory is; "" if it has none


_hello_decoder = msgspec.msgpack.Decoder(Hello)


class Sender:
    """The sending end of an edge.

    Parameters
    ----------
    context
        ZeroMQ context of the process.
    name
        Name of the edge, ``operator.port -> operator.port``.
    port
        What is sent.
    token
        Secret of the run: the receiver refuses anybody else's.
    delivery, bounds, policy, window
        `lossless` or `live`; how much a `live` edge keeps waiting, and what it drops; most messages in flight.
    shared
        Offer shared memory to a receiver on the same machine.
    curve
        Keys, if the receiver asks for them.
    alive
        Called while waiting; raises when there is no point in waiting any longer.
    patience_s
        A receiver that is gone, or whose process does not stir for so long, ends the stream with a StreamError. None
        where a supervisor watches both ends.
    checksum
        Send one with every message; None: over tcp. In the memory of one machine nothing changes on the way.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        name: str,
        port: Port,
        *,
        token: str,
        delivery: Delivery = "lossless",
        bounds: Bounds | None = None,
        policy: Policy = "drop-oldest",
        window: int = 64,
        shared: bool = True,
        curve: Curve | None = None,
        alive: Callable[[], object] = lambda: None,
        patience_s: float | None = None,
        checksum: bool | None = None,
    ) -> None:
        self.name, self.port, self.delivery, self.alive = name, port, delivery, alive
        self.counts = EdgeCounts()
        self.window = window
        self.sequence = 0
        self.acknowledged = 0
        self._token = token
        self._waiting = Backlog(bounds or Bounds(), policy, self.counts)
        self._slots: Slots | None = None
        self._free: list[int] = []  # slots nobody reads; the one freed last is taken first: it is in the cache
        self._taken: deque[tuple[int, int]] = deque()  # sequence, slot
        self._is_shared = shared
        self._checksum = checksum
        self._endpoint = ""
        self._patience_s = patience_s
        self._monitor: zmq.Socket[bytes] | None = None
        self._is_over = False
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)  # `close` waits for acknowledgements, which is the stronger promise
        self.socket.setsockopt(zmq.MAXMSGSIZE, 1 << 16)  # nothing but short answers comes back
        if patience_s is not None:
            _beat(self.socket, patience_s)
        if curve is not None:
            curve.secure_client(self.socket)

    def connect(self, endpoint: str, *, timeout_s: float = 30.0) -> None:
        """Introduce this end and wait to be welcomed. Raises StreamError when refused or when nobody answers.

        The receiver may be started later: ZeroMQ tries again until it is there.
        """
        try:
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise StreamError(
                f"edge {self.name}: cannot connect to {endpoint}: {error.strerror}; wanted ipc://PATH or tcp://HOST:PORT"
            ) from None
        self._endpoint = endpoint
        self._checksum = endpoint.startswith("tcp://") if self._checksum is None else self._checksum
        if self._is_shared:
            # twice the window: a mark that a backlog puts in may go beyond it
            self._slots = Slots.create(2 * self.window)
            self._free = list(range(2 * self.window))
        place = self._slots.place if self._slots is not None else ""
        hello = Hello(PROTOCOL_VERSION, self.name, self.port, self._token, schema(self.port.item), place)
        self.socket.send_multipart([b"hello", msgspec.msgpack.encode(hello)])
        deadline = time.monotonic() + timeout_s
        while not self.socket.poll(POLL_MS):
            self.alive()
            if time.monotonic() > deadline:
                raise StreamError(
                    f"edge {self.name}: nobody answered at {endpoint} within {timeout_s:g} s; is the receiving node "
                    f"running, is the address right, and does it know this node's key if it wants one?"
                )
        answer = self.socket.recv_multipart()
        if answer[0] != b"welcome" or len(answer) not in (2, 3):
            reason = answer[1].decode(errors="replace") if len(answer) > 1 else repr(answer[0][:40])
            raise StreamError(f"edge {self.name}: refused at {endpoint}: {reason}")
        self.window = max(1, min(self.window, msgspec.msgpack.decode(answer[1], type=int)))
        if self._slots is not None and answer[2:] != [b"\1"]:
            self._slots.close()
            self._slots = None
        if self._patience_s is not None:
            # from here on: a connection that was tried and failed before is no reason to give up
            self._monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    @property
    def in_flight(self) -> int:
        """Messages sent and not yet acknowledged."""
        return self.sequence - self.acknowledged

    def put(self, message: Message) -> None:
        """Send a message. A `lossless` edge blocks for credit; a `live` edge never does, except for ``End``."""
        for part in pieces(message) if isinstance(message, Packet) else (message,):
            self.counts.sent_messages += 1
            self.counts.sent_items += _n_items(part)
            if self.delivery == "lossless":
                self._await_credit()
                self._transmit(part)
            else:
                self._waiting.put(part)
                self.service()
        if isinstance(message, End):
            while len(self._waiting):
                self._await_credit()
                self._flush()
            self._is_over = True

    def service(self) -> None:
        """Take in acknowledgements and send what waits, without blocking."""
        while _has_input(self.socket):
            self._acknowledge()
        self._look_for_peer()
        self._flush()
        self._waiting.trim()

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Wait until everything sent is acknowledged, or the time is over, then close the socket. Idempotent.

        What a `live` edge still keeps waiting is dropped, and counted.
        """
        self._waiting.clear()
        deadline = time.monotonic() + timeout_s
        while not self.socket.closed and self.in_flight and time.monotonic() < deadline:
            if self.socket.poll(POLL_MS):
                self._acknowledge()
            else:
                self._look_for_peer()
            self.alive()
        self.drop()

    def drop(self) -> None:
        """Close the socket at once, and give shared memory back. Idempotent."""
        if not self.socket.closed and self._monitor is not None:
            self.socket.disable_monitor()
            self._monitor.close()
        self.socket.close()
        if self._slots is not None:
            self._slots.close()
            self._slots = None

    def _await_credit(self) -> None:
        # look at the socket only when half the window is used: a poll costs more than packing a small packet
        if 2 * self.in_flight < self.window:
            return
        while _has_input(self.socket) or self.in_flight >= self.window:
            if _has_input(self.socket) or self.socket.poll(POLL_MS):
                self._acknowledge()
            else:
                self._look_for_peer()
                self.alive()

    def _look_for_peer(self) -> None:
        """Raise StreamError if the connection is lost while somebody is still needed at its other end."""
        if self._monitor is None or not _has_input(self._monitor):
            return
        while _has_input(self.socket):  # what it has said before
            self._acknowledge()
        if self.in_flight or not self._is_over:
            recv_monitor_message(self._monitor)
            raise StreamError(
                f"edge {self.name}: the receiving node at {self._endpoint} is gone: its process has died, stands still "
                f"for more than {self._patience_s:g} s, or cannot be reached; {self.in_flight} messages were under way"
            )

    def _acknowledge(self) -> None:
        frames = self.socket.recv_multipart()
        if len(frames) == 2 and frames[0] == b"ack" and len(frames[1]) in (8, 12):
            done = int.from_bytes(frames[1][:8], "little")
            if len(frames[1]) == 12 and zlib.crc32(frames[1][:8]) != int.from_bytes(frames[1][8:], "little"):
                raise StreamError(f"edge {self.name}: an ack was damaged on the way: its checksum does not fit")
            if self.acknowledged <= done <= self.sequence:
                self.acknowledged = done
                while self._taken and self._taken[0][0] < done:
                    self._free.append(self._taken.popleft()[1])
                return
        raise StreamError(
            f"edge {self.name}: the receiver answered {frames[0][:20]!r} in {len(frames)} frames, not an ack"
        )

    def _transmit(self, message: Message) -> None:
        slots, sequence, dropped = self._slots, self.sequence, self.counts.dropped_items
        if slots is not None and self._free and isinstance(message, Packet):
            slot = self._free[-1]
            frames = encode(message, stream=self.name, sequence=sequence, dropped=dropped, into=slots[slot])
            if len(frames) == 1:
                self._taken.append((sequence, self._free.pop()))
                # one frame: each costs the receiver as much as unpacking a thousand events
                self.socket.send(b"slot" + slot.to_bytes(4, "little") + frames[0])
                self.sequence += 1
                self.counts.bytes += len(frames[0])
                return
        else:
            frames = encode(message, stream=self.name, sequence=sequence, dropped=dropped)
        # copy=True: pyzmq's zero-copy path stalls for 170 ms at 64 KiB messages and gains nothing below 256 KiB
        send = self.socket.send  # `send_multipart` looks at every frame first and takes three times as long
        send(checked(frames) if self._checksum else b"data", zmq.SNDMORE)
        for frame in frames[:-1]:
            send(frame, zmq.SNDMORE)
        send(frames[-1])
        self.sequence += 1
        self.counts.bytes += sum(len(frame) for frame in frames)

    def _flush(self) -> None:
        while len(self._waiting) and self.in_flight < self.window:
            self._transmit(self._waiting.pop())


class Receiver:
    """The receiving end of an edge; binds when made.

    Parameters
    ----------
    context, name, port, token, window
        As for :class:`Sender`.
    endpoint
        Where to listen: ``ipc://PATH`` or ``tcp://HOST:*``. :attr:`endpoint` tells where it really listens.
    any_edge
        Take a sender whatever it calls the edge: nodes chained by hand do not know each other's names.
    curve
        Keys of this node, and whom it lets in.
    patience_s
        As for :class:`Sender`.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        name: str,
        port: Port,
        endpoint: str,
        *,
        token: str,
        window: int = 64,
        any_edge: bool = False,
        curve: Curve | None = None,
        patience_s: float | None = None,
    ) -> None:
        self.name, self.port, self.window = name, port, window
        self._any_edge = any_edge
        self._slots: Slots | None = None
        self.counts = EdgeCounts()
        self.latency = Latency()
        self.last_refusal = ""
        self._token = token
        self._peer: bytes | None = None
        self._expected = 0
        self._done = 0
        self._acknowledged = 0
        self._is_checked = self._is_over = False
        self._patience_s = patience_s
        self._asked_s = 0.0  # when the peer was last looked for
        self.socket = context.socket(zmq.ROUTER)
        if patience_s is not None:
            _beat(self.socket, patience_s)
            self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an ack to nobody is an error: that is how we know
        self.endpoint = listen(self.socket, f"edge {name}", endpoint, curve)

    def receive(self) -> Message | None:
        """Return the next message of the stream, or None if there is none yet. Never blocks.

        Raises
        ------
        StreamError
            If the edge's own peer sends what is no message of this stream, or leaves one out.
        """
        for _ in range(MOST_STRANGERS):
            frames = _receive(self.socket)
            if not frames:
                return None
            identity = frames.pop(0).bytes
            if identity != self._peer:
                self._introduce(identity, [frame.bytes for frame in frames])
                continue
            self.counts.bytes += sum(len(frame) for frame in frames)
            header, message = self._decode(frames)
            if header.sequence != self._expected:
                raise StreamError(
                    f"edge {self.name}: message {header.sequence} arrived, wanted {self._expected}: "
                    f"{header.sequence - self._expected} lost between the processes"
                )
            if isinstance(message, Packet):
                if message.items.dtype.names is None or header.body.item != self.port.item:  # type: ignore[union-attr] # of a packet
                    raise StreamError(f"edge {self.name}: a packet of {header.body.item}, wanted {self.port.item}")  # type: ignore[union-attr] # of a packet
                if len(message.items) and message.origin_ns:
                    self.latency.add((time.monotonic_ns() - message.origin_ns) / 1000)
            self._expected += 1
            self._is_over = isinstance(message, End)
            return message
        return None

    def done(self, message: Message) -> None:
        """Count a message as delivered: its operator has returned from it. This is what gives credit back."""
        self._done += 1
        self.counts.delivered_messages += 1
        self.counts.delivered_items += _n_items(message)
        if isinstance(message, End) or 2 * (self._done - self._acknowledged) >= self.window:
            self.acknowledge()

    def acknowledge(self) -> None:
        """Tell the sender what is done, if it does not know yet. Call it when idle, or a small window would starve."""
        if self._peer is None:
            return
        is_asking = self._patience_s is not None and not self._is_over and time.monotonic() - self._asked_s > ASK_S
        if self._done > self._acknowledged or is_asking:
            count = self._done.to_bytes(8, "little")
            if self._is_checked:
                count += zlib.crc32(count).to_bytes(4, "little")
            try:
                self.socket.send_multipart([self._peer, b"ack", count], zmq.NOBLOCK)
            except zmq.Again:
                return  # a sender that reads nothing; it will be told later
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                if self._is_over:
                    return
                raise StreamError(
                    f"edge {self.name}: the sending node is gone after {self._expected} messages and before the end of "
                    f"its stream: its process has died, stands still for more than {self._patience_s:g} s, or cannot "
                    f"be reached"
                ) from None
            self._acknowledged, self._asked_s = self._done, time.monotonic()

    def close(self) -> None:
        """Close the socket and take its ipc path away, which libzmq leaves behind. Idempotent."""
        self.socket.close()
        if self._slots is not None:
            self._slots.close()
            self._slots = None
        if self.endpoint.startswith("ipc://"):
            Path(self.endpoint.removeprefix("ipc://")).unlink(missing_ok=True)

    def _introduce(self, identity: bytes, frames: list[bytes]) -> None:
        hello = understand_hello(frames, self._token)
        reason = hello if isinstance(hello, str) else self._objection(hello)
        if not isinstance(hello, str) and not reason:
            self._peer = identity
            self._slots = Slots.open(hello.slots) if hello.slots else None
            has_slots = b"\1" if self._slots is not None else b"\0"
            self._answer(identity, b"welcome", msgspec.msgpack.encode(self.window), has_slots)
            return
        self.counts.refused_messages += 1
        self.last_refusal = reason
        self._answer(identity, b"refused", reason.encode())

    def _answer(self, identity: bytes, *frames: bytes) -> None:
        try:
            self.socket.send_multipart([identity, *frames], zmq.NOBLOCK)
        except zmq.ZMQError:
            return  # a stranger that does not read its answers, or has gone

    def _decode(self, frames: list[zmq.Frame]) -> tuple[Header, Message]:
        kind = frames[0].buffer[:4] if frames else b""
        if kind == b"data" and len(frames[0]) in (4, 8):
            content = [frame.buffer for frame in frames[1:]]
            self._is_checked = len(frames[0]) == 8
            if not is_whole(frames[0].buffer, content):
                self.counts.refused_messages += 1
                self.last_refusal = f"message {self._expected} was damaged on the way: its checksum does not fit"
                raise StreamError(f"edge {self.name}: {self.last_refusal}")
            return decode(content)
        if kind == b"slot" and len(frames) == 1 and len(frames[0]) > 8 and self._slots is not None:
            buffer = frames[0].buffer
            return decode([buffer[8:]], slot=self._slots[int.from_bytes(buffer[4:8], "little")].data)
        shown = _shown([frame.bytes for frame in frames])
        raise StreamError(f"edge {self.name}: the sender sent {shown} where data was wanted")

    def _objection(self, hello: Hello) -> str:
        if hello.edge != self.name and not self._any_edge:
            return f"this is edge {self.name}, not {hello.edge}"
        if hello.schema and hello.port.item == self.port.item and hello.schema != schema(self.port.item):
            return f"{hello.port.item} that are {hello.schema}, wanted {schema(self.port.item)}; run one version"
        if not self.port.accepts(hello.port):
            return f"the stream brings {hello.port}, wanted {self.port}"
        if self._peer is not None:
            return "the edge has its sender already"
        return ""


def checked(frames: Sequence[bytes | memoryview]) -> bytes:
    """Return the first frame of a message with a checksum: ``data`` and the CRC-32 of all that follows."""
    crc = 0
    for frame in frames:
        crc = zlib.crc32(frame, crc)
    return b"data" + crc.to_bytes(4, "little")


def is_whole(word: bytes | memoryview, frames: Sequence[bytes | memoryview]) -> bool:
    """Compare a message with the checksum in its first frame; True if there is none."""
    return len(word) == 4 or checked(frames) == word


def _beat(socket: "zmq.Socket[bytes]", patience_s: float) -> None:
    """Let libzmq's own thread ask the peer's how it is, so that neither has to be between two messages."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, max(100, min(1000, round(patience_s * 300))))
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, round(patience_s * 1000))


def listen(socket: "zmq.Socket[bytes]", subject: str, endpoint: str, curve: Curve | None) -> str:
    """Bind a ROUTER so that strangers can do little harm; returns where it really listens.

    A socket file of ours is for its owner alone, from its first moment on.
    """
    socket.setsockopt(zmq.LINGER, 1000)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    if curve is not None:
        curve.secure_server(socket)
    has_file = endpoint.startswith("ipc://") and not endpoint.startswith("ipc://@")
    # what other threads make meanwhile is for its owner alone, too; folders among it can still be entered
    before = os.umask(0o077) if has_file else 0
    try:
        socket.bind(endpoint)
        if has_file:
            Path(endpoint.removeprefix("ipc://")).chmod(0o600)
    except zmq.ZMQError as error:
        socket.close()
        raise StreamError(f"{subject}: cannot listen at {endpoint}: {error.strerror}; choose a free one") from None
    finally:
        if has_file:
            os.umask(before)
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def understand_hello(frames: list[bytes], token: str) -> Hello | str:
    """Read a hello; a string says why it is none, or not one of ours."""
    if len(frames) != 2 or frames[0] != b"hello" or len(frames[1]) > 4096:
        return f"got {_shown(frames)}, wanted a hello of protocol {PROTOCOL_VERSION}"
    try:
        hello = _hello_decoder.decode(frames[1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"hello not understood: {error}"
    if hello.protocol != PROTOCOL_VERSION:
        return f"protocol {hello.protocol}, wanted {PROTOCOL_VERSION}; run one version of hebbstream everywhere"
    if not hmac.compare_digest(hello.token.encode(), token.encode()):
        return "wrong token: this edge belongs to another run"
    return hello


def _receive(socket: "zmq.Socket[bytes]") -> list[zmq.Frame]:
    """Return the frames of the next message, none if there is none; without a copy, and without a look at options."""
    try:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return []
    frames = [frame]
    while frame.more:
        frame = socket.recv(copy=False)
        frames.append(frame)
    return frames


def _has_input(socket: "zmq.Socket[bytes]") -> bool:
    # one option read; `socket.poll(0)` builds a poller first and costs as much as packing a small packet
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def _n_items(message: Message) -> int:
    return len(message.items) if isinstance(message, Packet) else 0


def _shown(frames: list[bytes]) -> str:
    return f"{len(frames)} frames, the first {frames[0][:20]!r}" if frames else "no frames"
