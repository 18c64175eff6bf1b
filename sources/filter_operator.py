"""What every event filter is: an operator that takes events in and lets some of them out, changed or not.

A filter adds a kernel ``(its memory, its parameters, events, out) -> count`` to what stands here: checking a packet
before anything is changed, keeping the span, passing marks on, counting, snapshots.

The kernels write every event to the next free place of ``out`` and then advance by 0 or 1, instead of jumping over what
is dropped. Noise is what a branch predictor is worst at: the jump costs more than the 13 bytes.

Times are bounded (:data:`EARLIEST_US`, ``stream.fit.LATEST_US``) so that no difference or sum of times can overflow in
a kernel: one comparison there instead of care everywhere.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stream.errors import ConfigError
from stream.fit import LATEST_US, check_events, first_unfit, read_only
from stream.jit import kernel
from stream.operator import Emit, Operator, Port, Snapshot, check_shapes
from stream.packet import EVENT_DTYPE, Mark, Packet, Reset

__all__ = ["EARLIEST_US", "LATEST_US", "LONGEST_US", "NEVER_US", "EventFilter", "check_range", "put"]

EARLIEST_US = -(2**61)  # 73 000 years before the sensor's zero
NEVER_US = -(2**62)  # a time in a memory that has seen nothing: longer ago than any duration
LONGEST_US = 2**60  # longest duration a parameter may name
MOST_PIXELS = 2**16  # x and y are uint16

COUNTS = ("last_t_us", "n_events", "n_kept")


@kernel
def put(out: Any, n: int, t: int, x: int, y: int, p: int) -> None:
    """Write an event to place ``n``."""
    event = out[n]
    event["t"] = t
    event["x"] = x
    event["y"] = y
    event["p"] = p


def check_range(subject: str, name: str, value: float, lowest: float, highest: float) -> None:
    """Raise ConfigError unless ``lowest <= value <= highest``."""
    if not lowest <= value <= highest:
        raise ConfigError(f"{subject} {name}: got {value}, wanted {lowest} to {highest}")


class EventFilter(Operator):
    """An operator from ``events`` to ``events``; the base of all filters.

    Packets out have the span and the ``origin_ns`` of the packets in, also when nothing is left in them, so that what
    follows knows how far time has come.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    size_out
        Width and height after the filter, pixels; default as before it.
    clear_on_reset
        Forget everything at a ``Reset`` mark. False: a ``Reset`` only passes through. What a filter remembers is about
        the sensor (which pixel is hot, which one fired last), and the sensor is the same after the mark.

    Raises
    ------
    ConfigError
        If a size is impossible.
    """

    def __init__(
        self, *, width: int, height: int, size_out: tuple[int, int] | None = None, clear_on_reset: bool = False
    ) -> None:
        self.subject = type(self).__name__
        check_range(self.subject, "width", width, 1, MOST_PIXELS)
        check_range(self.subject, "height", height, 1, MOST_PIXELS)
        self.width, self.height, self.clear_on_reset = int(width), int(height), bool(clear_on_reset)
        self.inputs = {"events": Port("events", self.width, self.height)}
        self.outputs = {"events": Port("events", *(size_out or (self.width, self.height)))}
        self.last_t_us = EARLIEST_US
        self.n_events = self.n_kept = 0
        self._memory: dict[str, tuple[NDArray[Any], int]] = {}
        self._room = np.empty(0, EVENT_DTYPE)

    def _remember(self, name: str, shape: tuple[int, ...], dtype: DTypeLike, at_first: int = 0) -> NDArray[Any]:
        """Make an array that belongs to the state, filled with ``at_first``."""
        array = np.full(shape, at_first, dtype)
        self._memory[name] = array, at_first
        return array

    @abstractmethod
    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        """Run the kernel: write what is kept to ``out`` (at least as long as ``events``), return how many."""

    def warm_up(self) -> None:
        """Compile the kernels, with no events: nothing changes."""
        nothing = read_only(np.empty(0, EVENT_DTYPE))
        first_unfit(nothing, self.width, self.height, self.last_t_us)
        self._select(nothing, self._room)

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Filter a packet; StreamError, and nothing changed or emitted, if an event does not fit."""
        events = read_only(packet.items)
        check_events(self.subject, events, self.width, self.height, self.last_t_us)
        if len(events) > len(self._room):
            self._room = np.empty(len(events), EVENT_DTYPE)
        n_kept = self._select(events, self._room)
        if len(events):
            self.last_t_us = int(events["t"][-1])
        self.n_events += len(events)
        self.n_kept += n_kept
        # as bytes: NumPy copies structured arrays field by field, four times slower
        size = EVENT_DTYPE.itemsize
        kept = self._room.view(np.uint8)[: n_kept * size].copy().view(EVENT_DTYPE)
        emit("events", Packet(kept, packet.start_us, packet.end_us, packet.origin_ns))

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Pass a mark on; forget at a ``Reset`` if asked to."""
        if self.clear_on_reset and isinstance(mark, Reset):
            for array, at_first in self._memory.values():
                array.fill(at_first)
        super().on_mark(port, mark, emit)

    def snapshot(self) -> Snapshot:
        """Return a copy of the whole state."""
        counts = {name: np.array(getattr(self, name), np.int64) for name in COUNTS}
        return {name: array.copy() for name, (array, _) in self._memory.items()} | counts

    def restore(self, snapshot: Snapshot) -> None:
        """Take over a state; ConfigError, and no change, if it is that of another filter or size."""
        arrays = {name: array for name, (array, _) in self._memory.items()}
        check_shapes(self.subject, arrays | {name: np.zeros((), np.int64) for name in COUNTS}, snapshot)
        for name, array in arrays.items():
            array[...] = snapshot[name]
        for name in COUNTS:
            setattr(self, name, int(snapshot[name]))

    def statistics(self) -> dict[str, float]:
        """Return counts of events: taken in, kept, dropped."""
        return {
            "events": float(self.n_events),
            "kept": float(self.n_kept),
            "dropped": float(self.n_events - self.n_kept),
        }
