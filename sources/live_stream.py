"""A device's events as a stream: what every live source does with what its device hands over.

Time
----
A device's clock may start anywhere, start anew after it was unplugged, be reset by a cable, or show one wild value. The
stream's time never goes back and never stands still for long:

- What first comes sets the scale: the stream's times *are* the device's, until something breaks.
- After a break the stream goes on at *its last time plus the host's time that passed* between what was received last
  before the break and what was received first after it. A ``Reset`` mark stands at this seam: nobody should carry a
  membrane over a hole of unknown content. Breaks are: the device was lost and found again, the source was restored from
  a snapshot (then the wall clock tells how long that took), or the device's clock jumped.
- The clock *jumped* where an event stands more than 0.1 s before the one before it, or further ahead than the host's
  clock and 10 s more allow. Smaller steps back are raised to the time before and counted, as in files.
- A single event between two jumps that cancel each other is *wild*: it is dropped and counted, and there is no seam. So
  is every time below zero or beyond 2^62 us.

Queue
-----
A thread takes from the device whatever comes, at once, because a device that has to wait loses events without a word.
They wait in a queue that is bounded by events and by bytes; beyond either the *oldest* packets go, and are counted: a
live stream that lags is worth less than one with a hole.

Road not taken: following the host's clock all the time. It would wash out the microseconds for which event cameras
are bought, to mend a drift of some 50 us a second that hurts nobody.
"""

import collections
import threading
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sources.policy import keep_in_order
from stream.errors import ConfigError
from stream.operator import Snapshot, check_shapes
from stream.packet import EVENT_DTYPE, End, Packet, Reset, packet_of

__all__ = ["LiveStream", "PacketQueue", "Queued"]

BACK_US = 100_000
AHEAD_US = 10_000_000
_MAX_TIME_US = 1 << 62  # beyond lies garbage, which would overflow when shifted
_PACKET_BYTES = 512  # about what a queued packet costs beside its events


class Queued(NamedTuple):
    """What a device handed over at once."""

    events: NDArray[np.void]  # EVENT_DTYPE, (n,), n > 0, writeable
    host_ns: int  # when it was received, monotonic clock
    epoch: int  # how often the device was found again; its clock starts anew with each


class PacketQueue:
    """What waits between the thread that reads a device and the pipeline.

    Parameters
    ----------
    max_events, max_bytes
        What may wait. One packet always may, however large it is.

    Raises
    ------
    ConfigError
        A bound is below 1.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        if max_events < 1 or max_bytes < 1:
            raise ConfigError(
                f"queue of a live source: got queue_events {max_events} and queue_bytes {max_bytes}; wanted at least 1"
            )
        self._max_events, self._max_bytes = max_events, max_bytes
        self._packets: collections.deque[Queued] = collections.deque()
        self._lock = threading.Lock()
        self._events = self._bytes = self._dropped_events = self._dropped_packets = 0

    def put(self, packet: Queued) -> None:
        """Add the newest; the oldest go where it is too much."""
        with self._lock:
            self._packets.append(packet)
            self._account(packet, 1)
            while len(self._packets) > 1 and (self._events > self._max_events or self._bytes > self._max_bytes):
                oldest = self._packets.popleft()
                self._account(oldest, -1)
                self._dropped_packets += 1
                self._dropped_events += len(oldest.events)

    def take(self) -> Queued | None:
        """Return the oldest, None if there is none. Never waits for more than the addition of a packet."""
        with self._lock:
            if not self._packets:
                return None
            packet = self._packets.popleft()
            self._account(packet, -1)
            return packet

    def _account(self, packet: Queued, sign: int) -> None:
        self._events += sign * len(packet.events)
        self._bytes += sign * (packet.events.nbytes + _PACKET_BYTES)

    def statistics(self) -> dict[str, float]:
        """Return what waits and what was dropped."""
        return {
            "events waiting": self._events,
            "events dropped": self._dropped_events,
            "packets dropped": self._dropped_packets,
        }


def _is_jump(steps_us: NDArray[np.int64], ahead_us: int) -> NDArray[np.bool_]:
    """Tell which steps of a clock, shape (n,), are none that it would take by itself."""
    return (steps_us < -BACK_US) | (steps_us > ahead_us)


class LiveStream:
    """Puts packets of a device on the stream's time, drops what lies outside, and cuts what is handed out.

    Parameters
    ----------
    subject
        The device, for messages.
    width, height
        The sensor, pixels.
    """

    def __init__(self, subject: str, width: int, height: int) -> None:
        self.subject, self._width, self._height = subject, width, height
        self._counts = np.zeros(4, np.int64)  # see keep_in_order
        self._epoch: int | None = None  # of the last packet; None = nothing came yet; -1 = restored
        self._offset_us = 0  # stream time minus the device's
        self._host_ns = 0  # when the last events were received, monotonic clock
        self._messages: collections.deque[Reset | Packet] = collections.deque()
        self.n_out = self._out_us = self._out_ns = 0  # what was handed out: events, the last time, when it was received
        self._breaks = self._jumps = self._wild = self._gap_us = self._n_forgotten = 0
        # compiled before the first packet comes
        keep_in_order(np.zeros(0, EVENT_DTYPE), np.zeros(0, EVENT_DTYPE), 1, 1, np.zeros(4, np.int64))

    def push(self, packet: Queued) -> None:
        """Take in what a device has handed over; its events are ours from now on."""
        passed_us = max(0, (packet.host_ns - self._host_ns) // 1000) if self._epoch is not None else 0
        for events in self._calm_runs(packet.events, AHEAD_US + passed_us):
            self._push_run(events, passed_us, packet)
            passed_us = 0  # what follows came at the same time

    def _calm_runs(self, events: NDArray[np.void], ahead_us: int) -> list[NDArray[np.void]]:
        """Drop events whose time cannot be, and cut where the clock jumps."""
        t = events["t"]
        n_before = len(t)
        if n_before and (t.min() < 0 or t.max() > _MAX_TIME_US):
            events = events[(t >= 0) & (t <= _MAX_TIME_US)]
        runs = [events] if len(events) else []
        if len(events) and np.ptp(events["t"]) > BACK_US:  # nearly always less, and then there is no jump
            t = events["t"]
            jumps = _is_jump(np.diff(t), ahead_us)
            lone = np.flatnonzero(jumps[:-1] & jumps[1:]) + 1
            events = np.delete(events, lone[~_is_jump(t[lone + 1] - t[lone - 1], ahead_us)])
            runs = np.split(events, np.flatnonzero(_is_jump(np.diff(events["t"]), ahead_us)) + 1)
        self._wild += n_before - len(events)
        return runs

    def _push_run(self, events: NDArray[np.void], passed_us: int, packet: Queued) -> None:
        """Put events without jumps on the stream's time; the first of them may follow a break."""
        last_us = int(self._counts[0])
        first_us = int(events["t"][0]) + self._offset_us
        is_new = packet.epoch != self._epoch
        if self._epoch is not None and (is_new or not -BACK_US <= first_us - last_us <= passed_us + AHEAD_US):
            start_us = last_us + passed_us
            self._offset_us += start_us - first_us
            self._counts[0] = start_us  # what stands before the first event of its run must not pass the mark
            self._messages.append(Reset(start_us))
            if is_new:
                self._breaks += 1
                self._gap_us += passed_us
            else:
                self._jumps += 1
        self._epoch, self._host_ns = packet.epoch, packet.host_ns
        events["t"] += self._offset_us
        kept = np.empty(len(events), EVENT_DTYPE)
        kept = kept[: keep_in_order(events, kept, self._width, self._height, self._counts)]
        if len(kept):
            self._messages.append(packet_of(kept, origin_ns=packet.host_ns))

    def pop(self, max_items: int) -> Reset | Packet | None:
        """Return the next message, of at most ``max_items``; None = nothing there."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        if isinstance(message, Reset):
            return message
        max_items = max(1, max_items)
        if len(message.items) > max_items:
            self._messages.appendleft(packet_of(message.items[max_items:], origin_ns=message.origin_ns))
            message = packet_of(message.items[:max_items], origin_ns=message.origin_ns)
        self.n_out += len(message.items)
        self._out_us, self._out_ns = message.end_us - 1, message.origin_ns
        return message

    def end(self, reason: str) -> End:
        """Return the mark for an end right here."""
        return End(self._out_us + 1 if self._out_ns else self._out_us, reason)

    def snapshot(self) -> Snapshot:
        """Return the state of the clock: of a live source there is nothing else to go back to.

        ``t_us``: the last time handed out; ``wall_us``: when that was received, us since 1970, 0 = nothing came yet.
        """
        wall_us = (time.time_ns() - (time.monotonic_ns() - self._out_ns)) // 1000 if self._out_ns else 0
        return {"t_us": np.array(self._out_us, np.int64), "wall_us": np.array(wall_us, np.int64)}

    def restore(self, snapshot: Snapshot) -> None:
        """Go on at that time plus what has passed since; ConfigError if that is no such snapshot."""
        check_shapes(self.subject, self.snapshot(), snapshot)
        t_us, wall_us = int(snapshot["t_us"]), int(snapshot["wall_us"])
        self._n_forgotten += sum(len(message.items) for message in self._messages if isinstance(message, Packet))
        self._messages.clear()
        if not wall_us:
            return
        passed_us = max(0, time.time_ns() // 1000 - wall_us)
        self._epoch, self._host_ns = -1, time.monotonic_ns() - passed_us * 1000
        self._counts[0] = self._out_us = t_us
        self._offset_us, self._out_ns = 0, self._host_ns

    def statistics(self) -> dict[str, float]:
        """Return what was handed out, and what the rules of this module did."""
        return {
            "events": self.n_out,
            "seams": self._breaks,
            "seconds missing": self._gap_us / 1e6,
            "clock jumps": self._jumps,
            "times raised": int(self._counts[1]),
            "wild times dropped": self._wild,
            "outside dropped": int(self._counts[2]),
            "forgotten by restore": self._n_forgotten,
        }
