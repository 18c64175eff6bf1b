"""A camera whose readout is late at random: every event waits up to ``longest_us`` before it gets its time stamp.

Event number k is stamped ``t + floor(longest_us * u_k)``, and events leave in the order of their stamps (of equal ones
the earlier number first), as from a crowded bus. Chance is looked up by the event's number
(``sources.counter_random``), so where packets are cut does not matter. Time of what comes out is ``longest_us`` behind
time of what comes in, until a mark or the stream's end: then everything that waits is handed out before it, stamped
before it at the latest.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.counter_random import uniform
from sources.filter_operator import EARLIEST_US, LONGEST_US, EventFilter, check_range
from stream.errors import ConfigError
from stream.fit import check_events, read_only
from stream.jit import kernel
from stream.operator import Emit, Snapshot
from stream.packet import EVENT_DTYPE, Mark, Packet

__all__ = ["TimeJitter"]


@kernel
def jitter_run(number: Any, longest_us: int, seed: int, events: Any, out: Any) -> int:
    """Stamp events anew, in their order; ``number``, int64 (1,), counts them and is written to. Return how many."""
    for k in range(len(events)):
        event, late = events[k], out[k]
        late["t"] = event["t"] + int(longest_us * uniform(seed, 0, number[0]))
        late["x"], late["y"], late["p"] = event["x"], event["y"], event["p"]
        number[0] += 1
    return len(events)


class TimeJitter(EventFilter):
    """Stamp events late, each by a time of its own.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    longest_us
        No event waits longer, us.
    seed
        Of chance.

    Raises
    ------
    ConfigError
        If a parameter is out of range.
    """

    def __init__(self, *, width: int, height: int, longest_us: int = 10_000, seed: int = 1) -> None:
        super().__init__(width=width, height=height)
        check_range(self.subject, "longest_us", longest_us, 0, LONGEST_US)
        check_range(self.subject, "seed", seed, 0, 2**62)
        self._longest_us, self._seed = int(longest_us), int(seed)
        self._number = self._remember("number", (1,), np.int64)
        self._told_us = self._remember("told_us", (1,), np.int64, EARLIEST_US)  # end of what was handed out
        self._waiting = np.empty(0, EVENT_DTYPE)  # by stamp, then number

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return jitter_run(self._number, self._longest_us, self._seed, events, out)

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Take a packet in, hand out what has waited; StreamError, and nothing changed, if an event does not fit."""
        events = read_only(packet.items)
        check_events(self.subject, events, self.width, self.height, self.last_t_us)
        late = np.empty(len(events), EVENT_DTYPE)
        self.n_events += self._select(events, late)
        if len(events):
            self.last_t_us = int(events["t"][-1])
            waiting = np.concatenate((self._waiting, late))
            self._waiting = waiting[np.argsort(waiting["t"], kind="stable")]
        if self._told_us[0] == EARLIEST_US:
            self._told_us[0] = packet.start_us
        self._hand_out(max(int(self._told_us[0]), packet.end_us - self._longest_us), emit, packet.origin_ns)

    def _hand_out(self, until_us: int, emit: Emit, origin_ns: int = 0) -> None:
        """Hand out what is stamped before a time."""
        n = int(np.searchsorted(self._waiting["t"], until_us))
        start_us, self._told_us[0] = int(self._told_us[0]), until_us
        items, self._waiting = self._waiting[:n].copy(), self._waiting[n:].copy()
        self.n_kept += n
        emit("events", Packet(items, start_us, until_us, origin_ns))

    def _let_go(self, until_us: int, emit: Emit) -> None:
        """Hand out everything, stamped before a time at the latest."""
        if len(self._waiting):
            until_us = max(until_us, self.last_t_us + 1)
            np.minimum(self._waiting["t"], until_us - 1, out=self._waiting["t"])
            self._hand_out(until_us, emit)

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Hand out what waits, then pass the mark on."""
        self._let_go(mark.t_us, emit)
        if self._told_us[0] != EARLIEST_US:
            self._told_us[0] = max(int(self._told_us[0]), mark.t_us)
        super().on_mark(port, mark, emit)

    def on_end(self, emit: Emit) -> None:
        """Hand out what waits."""
        self._let_go(int(self._waiting["t"][-1]) + 1 if len(self._waiting) else 0, emit)

    def snapshot(self) -> Snapshot:
        """Return a copy of the whole state, what waits included."""
        return super().snapshot() | {"waiting": np.frombuffer(self._waiting.tobytes(), np.uint8).copy()}

    def restore(self, snapshot: Snapshot) -> None:
        """Take over a state; ConfigError, and no change, if it is another filter's."""
        snapshot = dict(snapshot)
        waiting = np.asarray(snapshot.pop("waiting", np.empty(0)))
        if waiting.dtype != np.uint8 or waiting.size % EVENT_DTYPE.itemsize:
            raise ConfigError(f"snapshot of {self.subject}: waiting is {waiting.dtype} {waiting.shape}, wanted events")
        super().restore(snapshot)
        self._waiting = np.frombuffer(bytearray(waiting.tobytes()), EVENT_DTYPE)
