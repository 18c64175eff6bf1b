"""Several streams as one, in order of time: fan-in of cameras.

What comes out does not depend on which input's packets arrive first, nor on where they were cut: items are sorted by
time; at equal times the input that is named first comes first, and within an input the order stays. Marks are sorted
in like items.

To be sure of that the merge waits until every input has moved past a time. But a camera that is slow, or unplugged,
must not stop the others for ever: an input that lags more than ``lateness_us`` of stream time behind the furthest is
not waited for. What it brings too late is left out, counted, and told at its place by a ``Loss`` mark of reason
``late``; its marks are let through, at the time that has been reached. Within the bound nothing is late, and the result
is exact.

Memory: what arrived in the last ``lateness_us`` of stream time.
"""

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError, StreamError
from stream.operator import Emit, Operator, Port, Snapshot
from stream.packet import ITEM_DTYPES, Loss, Mark, Packet, packet_of
from stream.wire import decode, encode

__all__ = ["Merge"]

BEFORE_ALL_US = -(1 << 62)
AFTER_ALL_US = 1 << 62
MOST_X = 0x7FFF  # what the wire holds

_frames_decoder = msgspec.msgpack.Decoder(list[list[bytes]])


class _Pending:
    """What an input has brought and is not out yet."""

    def __init__(self, dtype: "np.dtype[np.void]") -> None:
        self.items = np.zeros(0, dtype)
        self.marks: list[tuple[int, Mark]] = []  # with the number of items in front of it


class Merge(Operator):
    """Merge several inputs by time.

    Parameters
    ----------
    inputs
        Names of the inputs; their order decides at equal times.
    lateness_us
        How far an input may lag behind the furthest one, in stream time, us.
    item
        What they carry: events or spikes.
    width, height
        The sensor of each input, pixels; None takes any.
    beside
        Put the inputs side by side, the first on the left, instead of one over the other. Needs ``width``.

    Raises
    ------
    ConfigError
        If there are no inputs, a name stands twice, or the sensors do not fit side by side.
    """

    def __init__(
        self,
        *,
        inputs: list[str],
        lateness_us: int = 20_000,
        item: str = "events",
        width: int | None = None,
        height: int | None = None,
        beside: bool = False,
    ) -> None:
        if not inputs or len(set(inputs)) < len(inputs) or not all(name.isidentifier() for name in inputs):
            raise ConfigError(f"merge: inputs {inputs}: wanted one or more different names")
        if item not in ("events", "spikes") or lateness_us < 0:
            raise ConfigError(f"merge: item '{item}', lateness {lateness_us} us: wanted events or spikes, 0 or more us")
        if beside and (width is None or item != "events" or width * len(inputs) > MOST_X + 1):
            raise ConfigError(
                f"merge: {len(inputs)} x {width} pixels side by side: wanted events, at most {MOST_X + 1}"
            )
        n = len(inputs) if beside else 1
        self.inputs: Mapping[str, Port] = {name: Port(item, width, height) for name in inputs}
        self.outputs: Mapping[str, Port] = {item: Port(item, None if width is None else n * width, height)}
        self.lateness_us = lateness_us
        self._out, self._shift = item, width if beside and width is not None else 0
        self._index = {name: index for index, name in enumerate(inputs)}
        self._pending = [_Pending(ITEM_DTYPES[item]) for _ in inputs]
        self._reached_us = np.full(len(inputs), BEFORE_ALL_US, np.int64)  # nothing earlier will come, by input
        self._out_us = BEFORE_ALL_US  # everything earlier has gone out
        self._late = np.zeros(len(inputs), np.int64)
        self._merged = 0

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Take in a packet and emit what is certain by now."""
        index = self._index[port]
        items, t = packet.items, packet.items["t"]
        n_late = int(np.searchsorted(t, self._out_us))
        if n_late:
            self._late[index] += n_late
            emit(self._out, Loss(self._out_us, int(t[0]), 1, n_late, "late"))
            items = items[n_late:]
        if len(items):
            pending = self._pending[index]
            pending.items = np.concatenate([pending.items, items])
            if self._shift:
                pending.items["x"][-len(items) :] += np.uint16(index * self._shift)
        # the next packet may begin at the time of this one's last item
        self._advance(index, packet.end_us - 1, emit)

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Sort a mark in."""
        if mark.t_us < self._out_us:
            mark = msgspec.structs.replace(mark, t_us=self._out_us)
        index = self._index[port]
        pending = self._pending[index]
        pending.marks.append((len(pending.items), mark))
        self._advance(index, mark.t_us, emit)

    def on_end(self, emit: Emit) -> None:
        """Emit the rest."""
        self._flush(AFTER_ALL_US, emit)

    def statistics(self) -> dict[str, float]:
        """Return what went out, what waits, and what came too late, by input."""
        late = {f"late {name}": float(self._late[index]) for name, index in self._index.items()}
        waiting = sum(len(pending.items) for pending in self._pending)
        return {"merged": float(self._merged), "waiting": float(waiting), **late}

    def snapshot(self) -> Snapshot:
        """Return the times reached, the counts, and what waits."""
        arrays: Snapshot = {
            "reached_us": self._reached_us.copy(),
            "late": self._late.copy(),
            "counts": np.array([self._out_us, self._merged], np.int64),
        }
        for index, pending in enumerate(self._pending):
            arrays[f"items{index}"] = np.frombuffer(pending.items.tobytes(), np.uint8).copy()
            arrays[f"marks{index}"] = _packed(pending.marks)
        return arrays

    def restore(self, snapshot: Snapshot) -> None:
        """Take over a state; ConfigError, and no change, if it is that of another merge."""
        n = len(self._pending)
        wanted = {"reached_us", "late", "counts", *(f"{word}{i}" for word in ("items", "marks") for i in range(n))}
        try:
            if set(snapshot) != wanted or snapshot["reached_us"].shape != (n,) or snapshot["late"].shape != (n,):
                raise ValueError(f"arrays {sorted(snapshot)}, wanted those of {n} inputs")
            dtype = ITEM_DTYPES[self._out]
            items = [np.frombuffer(snapshot[f"items{i}"].tobytes(), dtype).copy() for i in range(n)]
            marks = [_unpacked(snapshot[f"marks{i}"]) for i in range(n)]
            out_us, merged = (int(value) for value in snapshot["counts"])
        except (ValueError, msgspec.DecodeError, StreamError) as error:
            raise ConfigError(f"snapshot of merge: {error}; restore it into the merge it was taken from") from None
        for pending, its_items, its_marks in zip(self._pending, items, marks, strict=True):
            pending.items, pending.marks = its_items, its_marks
        self._reached_us, self._late = snapshot["reached_us"].copy(), snapshot["late"].copy()
        self._out_us, self._merged = out_us, merged

    def _advance(self, index: int, t_us: int, emit: Emit) -> None:
        self._reached_us[index] = max(int(self._reached_us[index]), t_us)
        certain_us = max(int(self._reached_us.min()), int(self._reached_us.max()) - self.lateness_us)
        if certain_us > self._out_us:
            self._flush(certain_us, emit)

    def _flush(self, until_us: int, emit: Emit) -> None:
        """Emit everything earlier than a time."""
        items: list[NDArray[np.void]] = []
        times: list[NDArray[np.int64]] = []
        places: list[NDArray[np.int64]] = []  # of items: index; of marks: -1 - index
        marks: list[Mark] = []
        n = 0
        for pending in self._pending:
            t = pending.items["t"]
            n_out = int(np.searchsorted(t, until_us))
            out = [(at, mark) for at, mark in pending.marks if mark.t_us < until_us]
            at = np.array([at for at, _ in out], np.int64)
            times.append(np.insert(t[:n_out], at, [mark.t_us for _, mark in out]))
            places.append(np.insert(np.arange(n, n + n_out), at, -1 - np.arange(len(marks), len(marks) + len(out))))
            items.append(pending.items[:n_out])
            marks += [mark for _, mark in out]
            n += n_out
            pending.items = pending.items[n_out:]
            pending.marks = [(at - n_out, mark) for at, mark in pending.marks[len(out) :]]
        order = np.argsort(np.concatenate(times), kind="stable")
        place = np.concatenate(places)[order]
        merged = np.concatenate(items)
        self._merged += len(merged)
        self._out_us = until_us
        cuts = np.flatnonzero(place < 0)
        for part, cut in zip(np.split(place, cuts), [-1, *cuts.tolist()], strict=True):
            if cut >= 0:
                emit(self._out, marks[-1 - int(place[cut])])
                part = part[1:]
            if len(part):
                emit(self._out, packet_of(merged[part]))
        if until_us < AFTER_ALL_US:
            emit(self._out, packet_of(merged[:0], start_us=until_us))  # time has moved, even if nothing happened


def _packed(marks: list[tuple[int, Mark]]) -> NDArray[np.uint8]:
    """Write marks in their wire form, with their places as sequence."""
    frames = [[bytes(frame) for frame in encode(mark, stream="", sequence=at)] for at, mark in marks]
    return np.frombuffer(msgspec.msgpack.encode(frames), np.uint8).copy()


def _unpacked(array: NDArray[np.uint8]) -> list[tuple[int, Mark]]:
    found: list[tuple[int, Mark]] = []
    for frames in _frames_decoder.decode(array.tobytes()):
        header, mark = decode(frames)
        if isinstance(mark, Packet):
            raise StreamError("a packet among the marks")
        found.append((header.sequence, mark))
    return found
