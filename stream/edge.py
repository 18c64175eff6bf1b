"""An edge between two processes: one ZeroMQ socket at each end, credit, and an exact ledger.

The receiving end binds a ROUTER socket, the sending end connects a DEALER::

    sender                                receiver
    hello, {protocol, edge, port, token}  ->
                                          <-  welcome, {window}   or   refused, reason
    data, header, payload ...             ->                      (stream.wire)
                                          <-  ack, count of messages done so far, u64

The sender never has more than ``window`` messages unacknowledged. That is the credit: a `lossless` edge waits for it, a
`live` edge keeps a bounded queue meanwhile and drops the oldest packets of it, counted and told downstream in the next
header. Marks are never dropped. The receiver acknowledges a message when its operator is *done* with it, so what is
in flight anywhere is bounded, and sent = delivered + dropped holds to the message when the edge closes.

Roads not taken. PUSH/PULL blocks at its high-water mark but hides how much is in flight and loses it with the
connection. PUB/SUB drops at the mark without a word (5,000 sent, 50 received, no error at either end). PAIR cannot
refuse a second peer. A ROUTER sees each peer by its own identity: whoever did not say the right hello is answered,
counted, and cannot touch the stream.
"""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import numpy as np
import zmq

from stream.errors import StreamError
from stream.ledger import EdgeCounts, Latency
from stream.operator import Port
from stream.packet import End, Message, Packet
from stream.wire import MAX_FRAME_BYTES, PROTOCOL_VERSION, decode, encode, pieces

__all__ = ["Bounds", "Delivery", "Receiver", "Sender"]

Delivery: TypeAlias = Literal["lossless", "live"]

POLL_MS = 50  # how often a waiting end looks whether it should give up


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much a `live` edge may keep waiting. The first bound that is reached drops the oldest packet."""

    messages: int = 64
    bytes: int = 16 << 20
    age_us: int = 100_000  # wall time: a live picture older than a tenth of a second is of no use


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a sending end introduces itself with."""

    protocol: int
    edge: str
    port: Port
    token: str


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
    delivery, bounds, window
        Policy; bounds of the waiting queue of a `live` edge; most messages in flight.
    alive
        Called while waiting; raises when there is no point in waiting any longer.
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
        window: int = 16,
        alive: Callable[[], object] = lambda: None,
    ) -> None:
        self.name, self.port, self.delivery, self.alive = name, port, delivery, alive
        self.counts = EdgeCounts()
        self.window = window
        self.sequence = 0
        self.acknowledged = 0
        self._token = token
        self._bounds = bounds or Bounds()
        self._waiting: deque[tuple[Message, float]] = deque()
        self._waiting_bytes = 0
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)  # `close` waits for acknowledgements, which is the stronger promise
        self.socket.setsockopt(zmq.MAXMSGSIZE, 1 << 16)  # nothing but short answers comes back

    def connect(self, endpoint: str, *, timeout_s: float = 30.0) -> None:
        """Introduce this end and wait to be welcomed. Raises StreamError when refused or when nobody answers."""
        self.socket.connect(endpoint)
        hello = Hello(PROTOCOL_VERSION, self.name, self.port, self._token)
        self.socket.send_multipart([b"hello", msgspec.msgpack.encode(hello)])
        deadline = time.monotonic() + timeout_s
        while not self.socket.poll(POLL_MS):
            self.alive()
            if time.monotonic() > deadline:
                raise StreamError(
                    f"edge {self.name}: nobody answered at {endpoint} within {timeout_s:g} s; "
                    f"is the receiving node running, and is the address right?"
                )
        answer = self.socket.recv_multipart()
        if answer[0] != b"welcome" or len(answer) != 2:
            reason = answer[1].decode(errors="replace") if len(answer) > 1 else repr(answer[0][:40])
            raise StreamError(f"edge {self.name}: refused at {endpoint}: {reason}")
        self.window = max(1, min(self.window, msgspec.msgpack.decode(answer[1], type=int)))

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
                self._enqueue(part)
        if isinstance(message, End):
            while self._waiting:
                self._await_credit()
                self._flush()

    def service(self) -> None:
        """Take in acknowledgements and send what waits, without blocking."""
        while _has_input(self.socket):
            self._acknowledge()
        self._flush()

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Wait until everything sent is acknowledged, or the time is over, then close the socket. Idempotent.

        What a `live` edge still keeps waiting is dropped, and counted.
        """
        while self._drop_oldest():
            pass
        deadline = time.monotonic() + timeout_s
        while not self.socket.closed and self.in_flight and time.monotonic() < deadline:
            if self.socket.poll(POLL_MS):
                self._acknowledge()
            self.alive()
        self.socket.close()

    def _await_credit(self) -> None:
        # look at the socket only when half the window is used: a poll costs more than packing a small packet
        if 2 * self.in_flight < self.window:
            return
        while _has_input(self.socket) or self.in_flight >= self.window:
            if _has_input(self.socket) or self.socket.poll(POLL_MS):
                self._acknowledge()
            else:
                self.alive()

    def _acknowledge(self) -> None:
        frames = self.socket.recv_multipart()
        if len(frames) == 2 and frames[0] == b"ack" and len(frames[1]) == 8:
            done = int.from_bytes(frames[1], "little")
            if self.acknowledged <= done <= self.sequence:
                self.acknowledged = done
                return
        raise StreamError(
            f"edge {self.name}: the receiver answered {frames[0][:20]!r} in {len(frames)} frames, not an ack"
        )

    def _transmit(self, message: Message) -> None:
        # copy=True: pyzmq's zero-copy path stalls for 170 ms at 64 KiB messages and gains nothing below 256 KiB
        frames = encode(message, stream=self.name, sequence=self.sequence, dropped=self.counts.dropped_items)
        self.socket.send_multipart([b"data", *frames], copy=True)
        self.sequence += 1
        self.counts.bytes += sum(len(frame) for frame in frames)

    def _enqueue(self, message: Message) -> None:
        if isinstance(message, Packet):  # its items belong to the operator that emits; a queue outlives the call
            items = message.items.view(np.uint8).copy().view(message.items.dtype)  # as bytes: ten times faster
            message = Packet(items, message.start_us, message.end_us, message.origin_ns)
            self._waiting_bytes += message.items.nbytes
        self._waiting.append((message, time.monotonic()))
        self.service()
        bounds = self._bounds
        while self._waiting and (
            len(self._waiting) > bounds.messages
            or self._waiting_bytes > bounds.bytes
            or (time.monotonic() - self._waiting[0][1]) * 1e6 > bounds.age_us
        ):
            if not self._drop_oldest():
                break

    def _drop_oldest(self) -> bool:
        for index, (message, _) in enumerate(self._waiting):
            if isinstance(message, Packet):
                del self._waiting[index]
                self._waiting_bytes -= message.items.nbytes
                self.counts.dropped_messages += 1
                self.counts.dropped_items += len(message.items)
                return True
        return False

    def _flush(self) -> None:
        while self._waiting and self.in_flight < self.window:
            message, _ = self._waiting.popleft()
            if isinstance(message, Packet):
                self._waiting_bytes -= message.items.nbytes
            self._transmit(message)


class Receiver:
    """The receiving end of an edge; binds when made.

    Parameters
    ----------
    context, name, port, token, window
        As for :class:`Sender`.
    endpoint
        Where to listen: ``ipc://PATH`` or ``tcp://HOST:*``. :attr:`endpoint` tells where it really listens.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        name: str,
        port: Port,
        endpoint: str,
        *,
        token: str,
        window: int = 16,
    ) -> None:
        self.name, self.port, self.window = name, port, window
        self.counts = EdgeCounts()
        self.latency = Latency()
        self.last_refusal = ""
        self._token = token
        self._peer: bytes | None = None
        self._expected = 0
        self._done = 0
        self._acknowledged = 0
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 1000)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.socket.close()
            raise StreamError(
                f"edge {name}: cannot listen at {endpoint}: {error.strerror}; choose a free one"
            ) from None
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def receive(self) -> Message | None:
        """Return the next message of the stream, or None if there is none yet. Never blocks.

        Raises
        ------
        StreamError
            If the edge's own peer sends what is no message of this stream, or leaves one out.
        """
        while _has_input(self.socket):
            identity, *frames = self.socket.recv_multipart()
            if identity != self._peer:
                self._introduce(identity, frames)
                continue
            if frames[:1] != [b"data"]:
                raise StreamError(f"edge {self.name}: the sender sent {_shown(frames)} where data was wanted")
            header, message = decode(frames[1:])
            if header.sequence != self._expected:
                raise StreamError(
                    f"edge {self.name}: message {header.sequence} arrived, wanted {self._expected}: "
                    f"{header.sequence - self._expected} lost between the processes"
                )
            if isinstance(message, Packet):
                if message.items.dtype.names is None or header.body.item != self.port.item:  # type: ignore[union-attr]
                    raise StreamError(f"edge {self.name}: a packet of {header.body.item}, wanted {self.port.item}")  # type: ignore[union-attr]
                if len(message.items) and message.origin_ns:
                    self.latency.add((time.monotonic_ns() - message.origin_ns) / 1000)
            self._expected += 1
            self.counts.bytes += sum(len(frame) for frame in frames)
            return message
        return None

    def done(self, message: Message) -> None:
        """Count a message as delivered: its operator has returned from it. This is what gives credit back."""
        self._done += 1
        self.counts.delivered_messages += 1
        self.counts.delivered_items += _n_items(message)
        if isinstance(message, End) or 4 * (self._done - self._acknowledged) >= self.window:
            self.acknowledge()

    def acknowledge(self) -> None:
        """Tell the sender what is done, if it does not know yet. Call it when idle, or a small window would starve."""
        if self._done > self._acknowledged and self._peer is not None:
            self.socket.send_multipart([self._peer, b"ack", self._done.to_bytes(8, "little")])
            self._acknowledged = self._done

    def close(self) -> None:
        """Close the socket and take its ipc path away, which libzmq leaves behind. Idempotent."""
        self.socket.close()
        if self.endpoint.startswith("ipc://"):
            Path(self.endpoint.removeprefix("ipc://")).unlink(missing_ok=True)

    def _introduce(self, identity: bytes, frames: list[bytes]) -> None:
        reason = self._objection(frames)
        if not reason:
            self._peer = identity
            self.socket.send_multipart([identity, b"welcome", msgspec.msgpack.encode(self.window)])
            return
        self.counts.refused_messages += 1
        self.last_refusal = reason
        self.socket.send_multipart([identity, b"refused", reason.encode()])

    def _objection(self, frames: list[bytes]) -> str:
        if len(frames) != 2 or frames[0] != b"hello" or len(frames[1]) > 4096:
            return f"got {_shown(frames)}, wanted a hello of protocol {PROTOCOL_VERSION}"
        try:
            hello = _hello_decoder.decode(frames[1])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return f"hello not understood: {error}"
        if hello.protocol != PROTOCOL_VERSION:
            return f"protocol {hello.protocol}, wanted {PROTOCOL_VERSION}; run one version of hebbstream everywhere"
        if hello.token != self._token:
            return "wrong token: this edge belongs to another run"
        if hello.edge != self.name:
            return f"this is edge {self.name}, not {hello.edge}"
        if not self.port.accepts(hello.port):
            return f"the stream brings {hello.port}, wanted {self.port}"
        if self._peer is not None:
            return "the edge has its sender already"
        return ""


def _has_input(socket: "zmq.Socket[bytes]") -> bool:
    # one option read; `socket.poll(0)` builds a poller first and costs as much as packing a small packet
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def _n_items(message: Message) -> int:
    return len(message.items) if isinstance(message, Packet) else 0


def _shown(frames: list[bytes]) -> str:
    return f"{len(frames)} frames, the first {frames[0][:20]!r}" if frames else "no frames"
