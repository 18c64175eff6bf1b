"""Taps: viewers and recorders that come and go while a pipeline runs, and can never slow it.

A pipeline file opens a tap on an output::

    [[tap]]
    from = "camera.events"
    endpoint = "ipc:///tmp/camera"         # or tcp://127.0.0.1:PORT

and anybody of the same user may look at it, with ``hebbstream record tap:ipc:///tmp/camera FILE.hbs`` or in Python with
:class:`TapSource`. Each viewer has a queue of its own (``stream.backlog``): a slow one loses packets, and is told so by
``Loss`` marks; a dead one is forgotten. The pipeline pays for packing what a viewer takes and for nothing else.

The tap binds and talks first; otherwise the protocol is that of an edge (``stream.edge``)::

    viewer                                 tap
    hello, {protocol, edge, port, ...}     ->     port's item "any": whatever there is
                                           <-     welcome, window, 0, port    or    refused, reason
                                           <-     data, header, payload ...
    ack, count of messages done, u64       ->
    look, what                             ->     between two messages, as often as the viewer likes
                                           <-     look, what, header of a deploy mark, its arrays ...
    bye                                    ->

The answer to ``look`` is what the member shows of itself (``Operator.look``): current scores, receptive fields.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq
from zmq.utils.monitor import recv_monitor_message

from stream.backlog import Backlog, Bounds, Policy
from stream.edge import Hello, checked, is_whole, listen, understand_hello
from stream.errors import ConfigError, StreamError
from stream.ledger import EdgeCounts
from stream.operator import Port, Snapshot, Source
from stream.packet import Deploy, End, Message, Packet
from stream.wire import MAX_FRAME_BYTES, PROTOCOL_VERSION, decode, encode, pieces

__all__ = ["Tap", "TapSource"]

WINDOW = 16
MOST_VIEWERS = 16
MOST_AT_ONCE = 32  # messages from viewers that are looked at in one go
MOST_LOOK_BYTES = 16  # of the word that says what is wanted
PATIENCE_S = 10.0  # a viewer that takes nothing for so long is forgotten
ANY = Port("any")


class _Viewer:
    def __init__(self, bounds: Bounds, policy: Policy, window: int) -> None:
        self.counts = EdgeCounts()
        self.backlog = Backlog(bounds, policy, self.counts)
        self.window = window
        self.sequence = self.acknowledged = 0
        self.in_flight: deque[int] = deque()  # items of each message
        self.heard_s = time.monotonic()


class Tap:
    """A place where an output can be looked at; binds when made.

    Parameters
    ----------
    context, name, port, endpoint, token
        As for ``stream.edge.Receiver``; ``name`` is the output's, ``member.port``.
    bounds, policy
        Of each viewer's queue.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        name: str,
        port: Port,
        endpoint: str,
        *,
        token: str = "",
        bounds: Bounds | None = None,
        policy: Policy = "drop-oldest",
    ) -> None:
        self.name, self.port = f"{name} -> tap", port
        self.counts = EdgeCounts()  # of the viewers that have gone; see `account`
        self.last_refusal = ""
        self.look: Callable[[str], Deploy | None] = lambda what: None  # whoever hosts the member puts its own here
        self._asked: dict[bytes, list[bytes]] = {}
        self._token, self._bounds, self._policy = token, bounds or Bounds(), policy
        self._viewers: dict[bytes, _Viewer] = {}
        self.socket = context.socket(zmq.ROUTER)
        self.endpoint = listen(self.socket, f"tap of {name}", endpoint, None)

    @property
    def n_viewers(self) -> int:
        """How many look at it now."""
        return len(self._viewers)

    def account(self) -> EdgeCounts:
        """Return the counts of all viewers, present and gone: sent to each, so a message counts once for each."""
        total = msgspec.structs.replace(self.counts)
        for viewer in self._viewers.values():
            _add(total, viewer.counts)
        return total

    def put(self, message: Message) -> None:
        """Offer a message to all viewers. Never blocks."""
        self.service()
        if not self._viewers:
            return
        for part in pieces(message) if isinstance(message, Packet) else (message,):
            for viewer in self._viewers.values():
                viewer.counts.sent_messages += 1
                viewer.counts.sent_items += len(part.items) if isinstance(part, Packet) else 0
                viewer.backlog.put(part)
        for identity, viewer in self._viewers.items():
            self._flush(identity, viewer)

    def service(self) -> None:
        """Let viewers in and out, take in what they have done, and send what waits. Never blocks."""
        for _ in range(MOST_AT_ONCE):
            if not int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                break
            identity, *frames = self.socket.recv_multipart()
            viewer = self._viewers.get(identity)
            if viewer is None:
                self._introduce(identity, frames)
            elif len(frames) == 2 and frames[0] == b"look" and len(frames[1]) <= MOST_LOOK_BYTES:
                words = self._asked.setdefault(identity, [])
                if len(words) < 4 and frames[1] not in words:  # who asks faster than can be answered gets one answer
                    words.append(frames[1])
            elif not self._heed(viewer, frames):
                self._forget(identity)
        for identity, viewer in list(self._viewers.items()):
            self._flush(identity, viewer)
            if viewer.in_flight and time.monotonic() - viewer.heard_s > PATIENCE_S:
                self._forget(identity)

    def answer(self) -> None:
        """Answer what viewers have asked; to be called between two messages, when the member's state is whole."""
        if not self._asked:
            return
        asked, self._asked = self._asked, {}
        for identity, words in asked.items():
            for what in words:
                seen = self.look(what.decode(errors="replace"))
                frames = encode(seen, stream=self.name, sequence=0) if seen is not None else []
                with contextlib.suppress(zmq.ZMQError):
                    self.socket.send_multipart([identity, b"look", what, *frames], zmq.NOBLOCK)

    def finish(self, *, timeout_s: float = 1.0) -> None:
        """Give viewers a moment to take what was sent, then let all of them go: the ledger is complete after it."""
        deadline = time.monotonic() + timeout_s
        while not self.socket.closed and self._viewers and time.monotonic() < deadline:
            if not any(viewer.in_flight or len(viewer.backlog) for viewer in self._viewers.values()):
                break
            self.socket.poll(20)
            self.service()
        for identity in list(self._viewers):
            self._forget(identity)

    def close(self) -> None:
        """Close the socket and take its ipc path away. Idempotent."""
        if not self.socket.closed:
            self.finish(timeout_s=0.0)
            self.socket.close()
        if self.endpoint.startswith("ipc://"):
            Path(self.endpoint.removeprefix("ipc://")).unlink(missing_ok=True)

    def _introduce(self, identity: bytes, frames: list[bytes]) -> None:
        if frames == [b"bye"]:
            return
        hello = understand_hello(frames, self._token)
        reason = hello if isinstance(hello, str) else ""
        if not isinstance(hello, str) and hello.port != ANY and not hello.port.accepts(self.port):
            reason = f"the tap gives {self.port}, wanted {hello.port}"
        elif len(self._viewers) >= MOST_VIEWERS:
            reason = f"{MOST_VIEWERS} viewers look at this tap already"
        if reason:
            self.counts.refused_messages += 1
            self.last_refusal = reason
            answer = [b"refused", reason.encode()]
        else:
            self._viewers[identity] = _Viewer(self._bounds, self._policy, WINDOW)
            answer = [b"welcome", msgspec.msgpack.encode(WINDOW), b"\0", msgspec.msgpack.encode(self.port)]
        with contextlib.suppress(zmq.ZMQError):
            self.socket.send_multipart([identity, *answer], zmq.NOBLOCK)

    def _heed(self, viewer: _Viewer, frames: list[bytes]) -> bool:
        """Take in an ack; False for anything else: it says goodbye, or nonsense."""
        if len(frames) != 2 or frames[0] != b"ack" or len(frames[1]) != 8:
            if frames != [b"bye"]:
                self.counts.refused_messages += 1
                self.last_refusal = f"a viewer sent {frames[0][:20]!r} in {len(frames)} frames"
            return False
        done = int.from_bytes(frames[1], "little")
        if not viewer.acknowledged <= done <= viewer.sequence:
            self.counts.refused_messages += 1
            self.last_refusal = f"a viewer acknowledged {done} of {viewer.sequence} messages"
            return False
        for _ in range(done - viewer.acknowledged):
            viewer.counts.delivered_messages += 1
            viewer.counts.delivered_items += viewer.in_flight.popleft()
        viewer.acknowledged = done
        viewer.heard_s = time.monotonic()
        return True

    def _flush(self, identity: bytes, viewer: _Viewer) -> None:
        is_checked = self.endpoint.startswith("tcp://")
        while len(viewer.backlog) and len(viewer.in_flight) < viewer.window:
            message = viewer.backlog.pop()
            frames = encode(message, stream=self.name, sequence=viewer.sequence, dropped=viewer.counts.dropped_items)
            if not viewer.in_flight:
                viewer.heard_s = time.monotonic()  # its patience begins with what it has not taken
            with contextlib.suppress(zmq.ZMQError):  # gone: it will be forgotten
                self.socket.send_multipart([identity, checked(frames) if is_checked else b"data", *frames], zmq.NOBLOCK)
            viewer.sequence += 1
            viewer.counts.bytes += sum(len(frame) for frame in frames)
            viewer.in_flight.append(len(message.items) if isinstance(message, Packet) else 0)
        viewer.backlog.trim()

    def _forget(self, identity: bytes) -> None:
        viewer = self._viewers.pop(identity)
        self._asked.pop(identity, None)
        viewer.backlog.clear()
        viewer.counts.dropped_messages += len(viewer.in_flight)  # nobody knows whether it got them
        viewer.counts.dropped_items += sum(viewer.in_flight)
        _add(self.counts, viewer.counts)


class TapSource(Source):
    """Look at a tap of a running pipeline.

    Parameters
    ----------
    endpoint
        Where the tap listens.
    token
        If it asks for one.
    timeout_s
        How long to wait for it.

    Raises
    ------
    StreamError
        If nobody answers, or it refuses.
    """

    def __init__(self, *, endpoint: str, token: str = "", timeout_s: float = 5.0) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._received = self._acknowledged = 0
        self._last_us = 0
        self._end: End | None = None
        self._lost = 0
        self.seen: dict[str, Deploy] = {}  # the latest answer to each `ask`
        try:
            port, self._window = self._connect(endpoint, token, timeout_s)
        except BaseException:
            self.close()
            raise
        self.outputs = {"events": port}

    def poll(self, max_items: int) -> Message | None:
        """Return the next message; its packets are as large as they were sent."""
        del max_items
        if self._end is not None:
            return self._end
        try:
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            if self._received > self._acknowledged:
                self._acknowledge()
            if self._monitor.poll(0):
                recv_monitor_message(self._monitor)
                self._end = End(self._last_us, "the tap has gone")
            return self._end
        if frames[0] == b"look":
            with contextlib.suppress(StreamError, UnicodeDecodeError):
                _, seen = decode(frames[2:])
                if isinstance(seen, Deploy):
                    self.seen[frames[1].decode()] = seen
            return None
        try:
            header, message = decode(_content(frames))
        except StreamError as error:
            self._end = End(self._last_us, f"tap: {error}")
            return self._end
        if header.sequence != self._received:
            self._end = End(self._last_us, f"tap: message {header.sequence} came, wanted {self._received}")
            return self._end
        self._received += 1
        self._last_us = message.end_us if isinstance(message, Packet) else message.t_us
        self._lost = header.dropped
        if isinstance(message, End):
            self._end = message
        if 2 * (self._received - self._acknowledged) >= self._window or isinstance(message, End):
            self._acknowledge()
        return message

    def ask(self, what: str) -> None:
        """Ask the member behind the tap to show ``what``; the answer comes into ``seen`` while polling."""
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart([b"look", what.encode()], zmq.NOBLOCK)

    def snapshot(self) -> Snapshot:
        """Return how far it is; what is live cannot be played again."""
        return {"last_us": np.array(self._last_us, np.int64)}

    def restore(self, snapshot: Snapshot) -> None:
        """Go on with what is live now."""
        del snapshot

    def statistics(self) -> dict[str, float]:
        """Return how much was missed because this end was too slow."""
        return {"missed": float(self._lost)}

    def close(self) -> None:
        """Say goodbye. Idempotent."""
        if not self._socket.closed:
            with contextlib.suppress(zmq.ZMQError):
                self._socket.send(b"bye", zmq.NOBLOCK)
            self._socket.disable_monitor()
            self._socket.close()
            self._context.destroy(linger=200)

    def _connect(self, endpoint: str, token: str, timeout_s: float) -> tuple[Port, int]:
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise ConfigError(f"tap {endpoint}: {error.strerror}; wanted ipc://PATH or tcp://HOST:PORT") from None
        hello = Hello(PROTOCOL_VERSION, "", ANY, token)
        self._socket.send_multipart([b"hello", msgspec.msgpack.encode(hello)])
        if not self._socket.poll(round(timeout_s * 1000)):
            raise StreamError(
                f"tap {endpoint}: nobody answered within {timeout_s:g} s; does a pipeline with a [[tap]] there run?"
            )
        answer: list[Any] = self._socket.recv_multipart()
        if answer[0] != b"welcome" or len(answer) != 4:
            raise StreamError(f"tap {endpoint}: refused: {answer[-1].decode(errors='replace')}")
        try:
            return msgspec.msgpack.decode(answer[3], type=Port), msgspec.msgpack.decode(answer[1], type=int)
        except msgspec.DecodeError as error:
            raise StreamError(f"tap {endpoint}: welcome not understood: {error}") from None

    def _acknowledge(self) -> None:
        self._acknowledged = self._received
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart([b"ack", self._received.to_bytes(8, "little")], zmq.NOBLOCK)


def _content(frames: list[bytes]) -> list[bytes]:
    """Return what follows ``data``; raises StreamError if it was damaged on the way."""
    if frames[0][:4] != b"data" or len(frames[0]) not in (4, 8):
        return []
    if not is_whole(frames[0], frames[1:]):
        raise StreamError("a message was damaged on the way: its checksum does not fit")
    return frames[1:]


def _add(total: EdgeCounts, counts: EdgeCounts) -> None:
    for field in EdgeCounts.__struct_fields__:
        setattr(total, field, getattr(total, field) + getattr(counts, field))
