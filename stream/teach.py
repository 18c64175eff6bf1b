"""Teach by showing: label marks enter the stream of a source while a person holds a key.

It wraps any source, whose own labels are left out. Every ``period_us`` of stream time a ``Label`` mark asks whoever
classifies the stream for an answer; while a class is shown the mark carries it and may be learned from, otherwise its
label is -1 and it may not.
A mark stands at the end of what it labels and carries its start; only a span in which the class was shown from
beginning to end is taught. The marks ride in the stream, so a recording of it is a recording of the lesson: replayed,
it teaches the same, to the bit.
"""

import numpy as np

from stream.errors import ConfigError
from stream.operator import Port, Snapshot, Source, check_shapes
from stream.packet import ITEM_DTYPES, Label, Message, Packet, Reset

__all__ = ["Teach"]

NOTHING = -1  # the label of a span in which no class was shown


class Teach(Source):
    """A source whose stream asks for answers, and teaches what is shown.

    Parameters
    ----------
    source
        What to play.
    period_us
        Stream time between two label marks, us; they stand at its multiples.

    Raises
    ------
    ConfigError
        If the period is not above 0.
    """

    def __init__(self, source: Source, *, period_us: int) -> None:
        if period_us <= 0:
            raise ConfigError(f"teaching: got a period of {period_us} us, wanted more than 0")
        self.outputs: dict[str, Port] = dict(source.outputs)
        self.source, self._period_us = source, period_us
        # class shown, class that the running span may be taught as, end of the span (0: none has begun), its start
        self._state = np.array([NOTHING, NOTHING, 0, 0], np.int64)
        self._rest: Packet | None = None  # what was cut off and is not handed out yet

    @property
    def shown(self) -> int:
        """The class that is shown now; -1: none."""
        return int(self._state[0])

    def show(self, label: int) -> None:
        """Show a class from here on; -1 ends that. Takes effect with the next span."""
        self._state[:2] = label, NOTHING

    def poll(self, max_items: int) -> Message | None:
        """Hand out the next message: the source's, cut at the ends of spans, or a label mark."""
        message, self._rest = (self._rest, None) if self._rest is not None else (self.source.poll(max_items), None)
        if isinstance(message, Packet):
            return self._of_packet(message)
        if isinstance(message, Label):
            return self.poll(max_items)  # here a person teaches
        if message is not None and (isinstance(message, Reset) or 0 < self._state[2] <= message.t_us):
            self._begin(message.t_us)  # a span with a hole in it (`Loss`) is not judged
        return message

    def _of_packet(self, packet: Packet) -> Message:
        if not len(packet.items):
            return packet  # time that only passes is labelled with the next event
        t = packet.items["t"]
        if not self._state[2]:
            self._begin(int(t[0]))
        end_us = int(self._state[2])
        if t[0] >= end_us:
            self._rest = packet
            return self._close(int(t[0]))
        if t[-1] < end_us:
            return packet
        stop = int(np.searchsorted(t, end_us))
        self._rest = Packet(packet.items[stop:], end_us, packet.end_us, packet.origin_ns)
        return Packet(packet.items[:stop], packet.start_us, end_us, packet.origin_ns)

    def _begin(self, t_us: int) -> None:
        """Begin a span at a time; it ends at the next multiple of the period."""
        self._state[1:] = NOTHING, (t_us // self._period_us + 1) * self._period_us, t_us

    def _close(self, next_us: int | None = None) -> Label:
        """End the span; the next one is the one that holds what comes next, so that silence asks no questions."""
        shown, taught, end_us, start_us = self._state.tolist()
        is_taught = shown != NOTHING and taught == shown
        mark = Label(end_us, shown if is_taught else NOTHING, start_us, is_taught)
        until_us = end_us + self._period_us
        if next_us is not None:
            until_us = max(until_us, (next_us // self._period_us + 1) * self._period_us)
        self._state[1:] = shown, until_us, end_us
        return mark

    def snapshot(self) -> Snapshot:
        """Return the source's position and ours, with the part of a packet that was cut off."""
        rest = self._rest
        items = np.zeros(0, np.uint8) if rest is None else np.ascontiguousarray(rest.items).view(np.uint8)
        span = (0, 0, 0) if rest is None else (1, rest.start_us, rest.end_us)
        inner = {f"source.{name}": array for name, array in self.source.snapshot().items()}
        return inner | {"teach": self._state.copy(), "rest": items.copy(), "rest_us": np.array(span, np.int64)}

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a position."""
        own = {"teach": self._state, "rest_us": np.zeros(3, np.int64)}
        check_shapes("teaching", own, {name: snapshot[name] for name in own if name in snapshot})
        dtype = ITEM_DTYPES[self.outputs["events"].item]
        rest = np.asarray(snapshot.get("rest", np.zeros(1, np.uint8)))
        if rest.dtype != np.uint8 or rest.ndim != 1 or len(rest) % dtype.itemsize:
            raise ConfigError(f"snapshot of teaching: rest is {rest.dtype} {rest.shape}, wanted whole items as bytes")
        inner = {name.removeprefix("source."): it for name, it in snapshot.items() if name.startswith("source.")}
        self.source.restore(inner)
        self._state[:] = snapshot["teach"]
        is_there, start_us, end_us = np.asarray(snapshot["rest_us"]).tolist()
        self._rest = Packet(rest.view(dtype).copy(), start_us, end_us) if is_there else None

    def statistics(self) -> dict[str, float]:
        """Return the source's own."""
        return self.source.statistics()

    def close(self) -> None:
        """Close the source."""
        self.source.close()
