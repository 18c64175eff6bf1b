"""Events from the network, in datagrams.

UDP has no connection, no order and no sender that one could trust: a datagram is believed after it was checked whole,
or not at all. What was refused is counted by cause, and so is what did not fit the queue, here and (on Linux) in the
kernel.

Formats
-------
``spif``
    What aestream and SpiNNaker's peripheral interface speak: little-endian words of 32 bits, bit 31 set, x in bits
    16-30, polarity in bit 15, y in bits 0-14; at most 128 events, as aestream's receiver drops what follows. A
    word with bit 31 clear is an event that has its time, us, in the word after it. aestream's own receiver ignores
    that time and so does this one: *the time of a SPIF event is when its datagram was received*, on the host's
    monotonic clock, us since the first one.
``t64_x16_y16_on8``
    faery's default: ``t`` us (64 bits), ``x``, ``y`` (16 bits), polarity (8 bits), little-endian, 13 bytes an event.
``t32_x16_y15_on1``
    faery's short one: ``t`` us (32 bits, wraps after 71 minutes), ``x`` (16 bits), ``y * 2 + polarity`` (16 bits),
    8 bytes an event. faery 0.7.1 keeps 14 bits of y.

Time
----
A sender's clock may start anywhere, restart, or be a lie. Steps of up to a minute are believed (backward ones are
raised to the time before and counted, as in files). A longer step, either way, is a *clock jump*: the stream goes on
by the host's clock and the sender's new times count from there. So a single hostile time cannot freeze the stream.
"""

import collections
import socket
import threading
import time
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from sources.policy import keep_in_order
from stream.errors import ConfigError
from stream.jit import kernel
from stream.operator import Emit, Operator, Port, Snapshot, Source, check_shapes
from stream.packet import EVENT_DTYPE, End, Message, Packet, packet_of

__all__ = ["UdpFormat", "UdpSender", "UdpSource", "decode_datagram", "encode_datagrams", "send_events"]

UdpFormat: TypeAlias = Literal["spif", "t64_x16_y16_on8", "t32_x16_y15_on1"]

SPIF_EVENTS = 128  # a datagram
JUMP_US = 60_000_000
_EVENT_BYTES = {"spif": 4, "t64_x16_y16_on8": 13, "t32_x16_y15_on1": 8}
_SENT_EVENTS = {"spif": SPIF_EVENTS, "t64_x16_y16_on8": 93, "t32_x16_y15_on1": 151}  # fit an Ethernet frame
_SHORT_DTYPE = np.dtype([("t", "<u4"), ("x", "<u2"), ("y_on", "<u2")])
_MAX_TIME_US = 1 << 62
_SO_RXQ_OVFL = 40  # Linux: the kernel tells how many datagrams of this socket it has dropped; Python has no name for it
_RECEIVE_BUFFER_BYTES = 4 << 20
_WAKE_S = 0.1  # how often the receiver looks whether to stop


class _Datagram(NamedTuple):
    """What was received, and when."""

    payload: bytes
    host_ns: int  # monotonic clock


@kernel
def spif_events(words: NDArray[np.uint32], events: NDArray[np.void]) -> int:
    """Take SPIF words apart.

    Parameters
    ----------
    words
        uint32, shape (n,).
    events
        EVENT_DTYPE, shape (>= n,): written from the front. ``t`` is left alone.

    Returns
    -------
    n_events
        How many there are; -1 if the last event's time is missing.
    """
    n_events = 0
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word >> np.uint32(31) == 0:
            if index == len(words):
                return -1
            index += 1
        event = events[n_events]
        event["x"] = word >> np.uint32(16) & np.uint32(0x7FFF)
        event["y"] = word & np.uint32(0x7FFF)
        event["p"] = word >> np.uint32(15) & np.uint32(1)
        n_events += 1
    return n_events


def decode_datagram(payload: bytes, format: UdpFormat) -> NDArray[np.void] | None:
    """Take a datagram apart.

    Parameters
    ----------
    payload
        What was received.
    format
        See the module.

    Returns
    -------
    events
        EVENT_DTYPE, shape (n,), n > 0, as sent: times may be in disorder (32-bit ones have not been unwrapped, SPIF has
        none: 0), coordinates may lie anywhere. None if this is no datagram of that format.
    """
    if not payload or len(payload) % _EVENT_BYTES[format]:
        return None
    if format == "spif":
        words = np.frombuffer(payload, "<u4").copy()
        events = np.zeros(len(words), EVENT_DTYPE)
        n_events = spif_events(words, events)
        return events[:n_events] if 0 < n_events <= SPIF_EVENTS else None
    if format == "t64_x16_y16_on8":
        events = np.frombuffer(payload, EVENT_DTYPE).copy()
        # unsigned on the wire: what is negative here lies beyond what a clock of microseconds will ever show
        if events["t"].min() < 0 or events["t"].max() > _MAX_TIME_US or events["p"].max() > 1:
            return None
        return events
    short = np.frombuffer(payload, _SHORT_DTYPE)
    events = np.empty(len(short), EVENT_DTYPE)
    events["t"], events["x"], events["y"], events["p"] = short["t"], short["x"], short["y_on"] >> 1, short["y_on"] & 1
    return events


def encode_datagrams(events: NDArray[np.void], format: UdpFormat = "spif") -> list[bytes]:
    """Put events into datagrams, as many into each as an Ethernet frame (SPIF: the protocol) allows.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,).
    format
        See the module.

    Raises
    ------
    ConfigError
        A coordinate does not fit the format.
    """
    short = format != "t64_x16_y16_on8"
    if short and len(events) and max(int(events["y"].max()), int(events["x"].max()) if format == "spif" else 0) > 32767:
        raise ConfigError(f"events for {format}: a coordinate is above 32767; send them as t64_x16_y16_on8")
    records: NDArray[Any]
    if format == "spif":
        x, y, p = (events[name].astype("<u4") for name in "xyp")
        records = np.uint32(1 << 31) | x << np.uint32(16) | p << np.uint32(15) | y
    elif format == "t64_x16_y16_on8":
        records = events
    else:
        records = np.empty(len(events), _SHORT_DTYPE)
        records["t"], records["x"] = events["t"] & 0xFFFFFFFF, events["x"]
        records["y_on"] = events["y"] << 1 | events["p"]
    size = _SENT_EVENTS[format]
    return [records[begin : begin + size].tobytes() for begin in range(0, len(records), size)]


def send_events(
    events: NDArray[np.void], *, host: str, port: int, format: UdpFormat = "spif", gap_s: float = 0.0
) -> int:
    """Send events to a UDP port; nobody says whether they arrive.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,).
    host, port
        Where to.
    format
        See the module. SPIF carries no times.
    gap_s
        Wait so long after each datagram, s: a receiver that is not given time drops.

    Returns
    -------
    n_datagrams
        How many were sent.
    """
    datagrams = encode_datagrams(events, format)
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, address)
            if gap_s:
                time.sleep(gap_s)
    return len(datagrams)


class UdpSender(Operator):
    """Send the events that come in as datagrams; nobody says whether they arrive.

    Parameters
    ----------
    host, port
        Where to.
    width, height
        The sensor, pixels.
    format
        See the module. SPIF carries no times: play at speed 1 where they matter.
    """

    def __init__(self, *, host: str, port: int, width: int, height: int, format: UdpFormat = "spif") -> None:
        self.inputs = {"events": Port("events", width, height)}
        self.outputs: dict[str, Port] = {}
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        except OSError as error:
            raise ConfigError(f"UDP to {host}:{port}: {error}; wanted a host's name or address and a port") from None
        self._address: Any = address
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._format: UdpFormat = format
        self._counts = np.zeros(2, np.int64)  # events, datagrams

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Send a packet."""
        for datagram in encode_datagrams(packet.items, self._format):
            self._socket.sendto(datagram, self._address)
            self._counts[1] += 1
        self._counts[0] += len(packet.items)

    def snapshot(self) -> Snapshot:
        """Return the counts."""
        return {"counts": self._counts.copy()}

    def restore(self, snapshot: Snapshot) -> None:
        """Take over the counts."""
        check_shapes("UDP sender", {"counts": self._counts}, snapshot)
        self._counts[:] = snapshot["counts"]

    def statistics(self) -> dict[str, float]:
        """Return what was sent."""
        return {"events": float(self._counts[0]), "datagrams": float(self._counts[1])}

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class UdpSource(Source):
    """Receive events in datagrams.

    Parameters
    ----------
    port
        Where to listen; 0 = any free one (see ``port``).
    width, height
        The sensor, pixels. Events outside are dropped and counted, the rest of their datagram is kept.
    host
        Address to listen on. Anybody who can reach it can send events, so the default is this machine alone.
    format
        See the module.
    queue_datagrams
        How many wait at most for a slow pipeline; the newest are dropped and counted beyond that.
    end_after_silence_s
        The stream ends after so much silence, s, once something came; 0 = never.

    Raises
    ------
    ConfigError
        The address cannot be listened on.

    Notes
    -----
    A thread of its own receives, because the time of a SPIF event is when it came, not when the pipeline had time.
    """

    def __init__(
        self,
        *,
        port: int = 3333,
        width: int,
        height: int,
        host: str = "127.0.0.1",
        format: UdpFormat = "spif",
        queue_datagrams: int = 4096,
        end_after_silence_s: float = 0.0,
    ) -> None:
        if format not in get_args(UdpFormat):
            raise ConfigError(f"UDP source: got format {format!r}, wanted one of {', '.join(get_args(UdpFormat))}")
        if not (0 <= port < 1 << 16 and 1 <= width <= 1 << 16 and 1 <= height <= 1 << 16):
            raise ConfigError(
                f"UDP source: got port {port}, width {width}, height {height}; wanted a port from 0 to 65535 and "
                f"a size from 1 to 65536"
            )
        if queue_datagrams < 1 or end_after_silence_s < 0:
            raise ConfigError(
                f"UDP source: got queue_datagrams {queue_datagrams} and end_after_silence_s {end_after_silence_s}; "
                f"wanted at least 1 datagram, and 0 s or more"
            )
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            raise ConfigError(f"UDP source: {host} is no address to listen on ({error}); use 127.0.0.1") from error
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            if hasattr(socket, "SO_INCOMING_CPU"):  # Linux
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
            self._socket.settimeout(_WAKE_S)
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise ConfigError(
                f"UDP source: cannot listen on {host} port {port} ({error}); end what listens there or take "
                f"another port"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self.outputs = {"events": Port("events", width, height)}
        self._format, self._width, self._height = format, width, height
        self._silence_s = end_after_silence_s
        self._counts = np.zeros(3, np.int64)
        self._waiting = np.empty(0, EVENT_DTYPE)
        self._n_events = self._n_datagrams = self._refused = self._jumps = 0
        self._sender_us: int | None = None  # the sender's clock at the last event, None before the first one
        self._offset_us = 0  # stream time minus the sender's
        self._before_ns = 0  # when the datagram before was received
        self._end: End | None = None
        self._queue: collections.deque[_Datagram] = collections.deque()
        self._queue_datagrams = queue_datagrams
        self._dropped = self._dropped_by_kernel = 0
        self._stopping = threading.Event()
        spif_events(np.zeros(1, np.uint32), np.zeros(1, EVENT_DTYPE))  # compiled before the first datagram comes
        keep_in_order(np.zeros(0, EVENT_DTYPE), np.zeros(0, EVENT_DTYPE), 1, 1, np.zeros(3, np.int64))
        self._receiver = threading.Thread(target=self._receive, name=f"udp {self.port}", daemon=True)
        self._receiver.start()

    def _receive(self) -> None:
        """Take datagrams off the socket (in a thread of its own)."""
        while not self._stopping.is_set():
            try:
                payload, ancillary, _, _ = self._socket.recvmsg(1 << 16, 64)
            except TimeoutError:
                continue
            except OSError:
                if self._stopping.is_set():
                    return
                continue  # an error that an earlier datagram caused; the socket goes on
            host_ns = time.monotonic_ns()
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL:
                    self._dropped_by_kernel = int.from_bytes(data[:4], "little")
            # len and append are atomic, and only this thread appends
            if len(self._queue) >= self._queue_datagrams:
                self._dropped += 1
            else:
                self._queue.append(_Datagram(payload, host_ns))

    def poll(self, max_items: int) -> Message | None:
        """Hand out what came, at most ``max_items``."""
        if self._end is not None:
            return self._end
        max_items = max(1, max_items)
        parts, n = [self._waiting], len(self._waiting)
        while n < max_items and self._queue:
            events = self._take(self._queue.popleft())
            parts.append(events)
            n += len(events)
        if n:
            events = np.concatenate(parts)
            self._waiting = events[max_items:]
            self._n_events += min(n, max_items)
            return packet_of(events[:max_items])
        if self._silence_s and self._before_ns and time.monotonic_ns() - self._before_ns > self._silence_s * 1e9:
            self._end = End(int(self._counts[0]) + 1 if self._n_events else 0)
            return self._end
        return None

    def _take(self, datagram: _Datagram) -> NDArray[np.void]:
        """Check a datagram and put its events on the stream's time."""
        events = decode_datagram(datagram.payload, self._format)
        if events is not None and self._format == "t32_x16_y15_on1":
            # times of one datagram lie close together: take them as signed steps from the first, across a wrap too
            first = int(events["t"][0])
            events["t"] = first + ((events["t"] - first + (1 << 31)) % (1 << 32) - (1 << 31))
        if events is None or int(np.ptp(events["t"])) > JUMP_US:
            self._refused += 1
            return np.empty(0, EVENT_DTYPE)
        passed_us = (datagram.host_ns - self._before_ns) // 1000 if self._before_ns else 0
        if self._format == "spif":
            events["t"] = self._by_host(passed_us)
        else:
            self._follow(events, passed_us)
        self._before_ns = datagram.host_ns
        self._n_datagrams += 1
        kept = np.empty(len(events), EVENT_DTYPE)
        return kept[: keep_in_order(events, kept, self._width, self._height, self._counts)]

    def _by_host(self, passed_us: int) -> int:
        """Return the stream's time by the host's clock."""
        self._offset_us += passed_us
        return self._offset_us

    def _follow(self, events: NDArray[np.void], passed_us: int) -> None:
        """Put the sender's times on the stream's time, over wraps and jumps of its clock."""
        first, last = int(events["t"][0]), int(events["t"][-1])
        if self._sender_us is None:
            if self._counts[0]:  # restored: the stream goes on from where it stood
                self._offset_us = int(self._counts[0]) - first
        else:
            step = first - self._sender_us
            if self._format == "t32_x16_y15_on1":
                turns = (step + (1 << 31)) >> 32  # whole wraps, in whichever direction makes the step short
                step -= turns << 32
                self._offset_us -= turns << 32
            if not -JUMP_US <= step <= JUMP_US + passed_us:
                self._jumps += 1
                self._offset_us = int(self._counts[0]) + passed_us - first
        self._sender_us = last
        events["t"] += self._offset_us

    def snapshot(self) -> Snapshot:
        """Return the stream's time: of a live source there is nothing else to go back to."""
        return {"t_us": np.array(self._counts[0], np.int64)}

    def restore(self, snapshot: Snapshot) -> None:
        """Go on at that time with what comes from now on."""
        if snapshot.keys() != {"t_us"}:
            raise ConfigError(
                f"snapshot of a UDP source: got arrays {sorted(snapshot)}, wanted t_us; restore that of a UDP source"
            )
        self._counts[0] = self._offset_us = int(snapshot["t_us"])
        self._sender_us = None

    def statistics(self) -> dict[str, float]:
        """Return what came, what was refused and why, what was dropped and where."""
        return {
            "events": self._n_events,
            "datagrams": self._n_datagrams,
            "datagrams refused": self._refused,
            "datagrams dropped": self._dropped,
            "datagrams dropped by kernel": self._dropped_by_kernel,
            "datagrams waiting": len(self._queue),
            "clock jumps": self._jumps,
            "times raised": int(self._counts[1]),
            "outside dropped": int(self._counts[2]),
        }

    def close(self) -> None:
        """Stop listening; a later ``poll`` says End."""
        self._stopping.set()
        self._receiver.join()
        self._socket.close()
        self._end = self._end or End(int(self._counts[0]) + 1 if self._n_events else 0, "closed")
