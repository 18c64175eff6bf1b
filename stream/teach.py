"""Teach by showing: marks enter the stream of a source while a person holds a key.

It wraps any source, whose own labels are left out. Every ``period_us`` of stream time a ``Label`` mark asks whoever
classifies the stream for an answer; while a class is shown the mark carries it and may be learned from, otherwise its
label is -1 and it may not.
A label stands at the end of what it labels and carries its start; only a span in which the class was shown from
beginning to end is taught. For what learns at every event a ``Show`` mark stands where a show begins, and one of -1
where it ends. ``Forget`` and ``Correct`` marks stand where the person said so, and what was learned elsewhere enters as
a ``Deploy`` mark. All ride in the stream, so a recording of it is a recording of the lesson: replayed, it teaches the
same, to the bit.
"""

import json
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from stream.errors import ConfigError
from stream.operator import Port, Snapshot, Source, check_shapes
from stream.packet import ITEM_DTYPES, Correct, Deploy, Forget, Label, Mark, Message, Packet, Reset, Show

__all__ = ["Teach", "read_taught", "write_taught"]

NOTHING = -1  # the label of a span in which no class was shown
MOST_WAITING = 1024  # wishes; what comes on top is left out
# places of the state: class shown; class that the running span may be taught as; end of the span (0: none has begun),
# its start; the class that the stream has been told; time up to which messages were handed out; whether there is one
SHOWN, TAUGHT, END_US, START_US, TOLD, DONE_US, HAS_BEGUN, N_STATE = range(8)


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
        self._state = np.zeros(N_STATE, np.int64)
        self._state[[SHOWN, TAUGHT, TOLD]] = NOTHING
        self._rest: Message | None = None  # what was cut off, or came too early, and is not handed out yet
        self._wishes: deque[Mark] = deque()  # their times are not known yet

    @property
    def shown(self) -> int:
        """The class that is shown now; -1: none."""
        return int(self._state[SHOWN])

    def show(self, label: int) -> None:
        """Show a class from the next message on; -1 ends that."""
        self._state[[SHOWN, TAUGHT]] = label, NOTHING

    def forget(self, label: int) -> None:
        """Make void what was taught of a class."""
        self._wish(Forget(0, label))

    def correct(self, label: int) -> None:
        """Say what it was that was last taught, or else last asked about."""
        self._wish(Correct(0, label))

    def load(self, arrays: Snapshot) -> None:
        """Hand on what was learned elsewhere; see ``plasticity.network_learner``."""
        self._wish(Deploy(0, 0, dict(arrays)))

    def _wish(self, mark: Mark) -> None:
        if len(self._wishes) < MOST_WAITING:
            self._wishes.append(mark)

    def poll(self, max_items: int) -> Message | None:
        """Hand out the next message: what a person wants, the source's, cut at the ends of spans, or a label mark."""
        message: Message | None = self._wanted() if self._state[HAS_BEGUN] else None
        if message is None:
            message, self._rest = (self._rest, None) if self._rest is not None else (self.source.poll(max_items), None)
            if message is not None and not self._state[HAS_BEGUN]:
                t_us = message.start_us if isinstance(message, Packet) else message.t_us
                self._state[[DONE_US, HAS_BEGUN]] = t_us, 1
                if (self._wishes or self.shown != self._state[TOLD]) and isinstance(message, Packet):
                    self._rest = message  # what is shown is said first
                    return self.poll(max_items)
            if isinstance(message, Label):
                return self.poll(max_items)  # here a person teaches
            if isinstance(message, Packet):
                message = self._of_packet(message)
            elif message is not None and (isinstance(message, Reset) or 0 < self._state[END_US] <= message.t_us):
                self._begin(message.t_us)  # a span with a hole in it (`Loss`) is not judged
        if message is not None:
            self._state[DONE_US] = message.end_us if isinstance(message, Packet) else message.t_us
        return message

    def _wanted(self) -> Mark | None:
        """Return a mark that a person wants here."""
        t_us = int(self._state[DONE_US])
        if self.shown != self._state[TOLD]:
            self._state[TOLD] = self.shown
            return Show(t_us, self.shown)
        if self._wishes:
            return msgspec.structs.replace(self._wishes.popleft(), t_us=t_us)
        return None

    def _of_packet(self, packet: Packet) -> Message:
        if not len(packet.items):
            return packet  # time that only passes is labelled with the next event
        t = packet.items["t"]
        if not self._state[END_US]:
            self._begin(int(t[0]))
        end_us = int(self._state[END_US])
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
        end_us = (t_us // self._period_us + 1) * self._period_us
        self._state[[TAUGHT, END_US, START_US]] = self.shown, end_us, t_us

    def _close(self, next_us: int) -> Label:
        """End the span; the next one is the one that holds what comes next, so that silence asks no questions."""
        shown, taught, end_us, start_us = self._state[: START_US + 1].tolist()
        is_taught = shown != NOTHING and taught == shown
        mark = Label(end_us, shown if is_taught else NOTHING, start_us, is_taught)
        until_us = max(end_us + self._period_us, (next_us // self._period_us + 1) * self._period_us)
        self._state[[TAUGHT, END_US, START_US]] = shown, until_us, end_us
        return mark

    def snapshot(self) -> Snapshot:
        """Return the source's position and ours, with the part of a packet that was cut off.

        What a person wished and the stream has not been told yet is of no position, and is not kept.
        """
        rest = self._rest if isinstance(self._rest, Packet) else None
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
        self._wishes.clear()

    def statistics(self) -> dict[str, float]:
        """Return the source's own."""
        return self.source.statistics()

    def close(self) -> None:
        """Close the source."""
        self.source.close()


def write_taught(path: Path, arrays: Snapshot, names: Mapping[str, int]) -> None:
    """Write what was taught, whole or not at all.

    Parameters
    ----------
    path
        A safetensors file, replaced if it is there.
    arrays
        Of ``stream.operator.Operator.taught``.
    names
        What classes are called.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    side = path.with_name(f".{path.name}.{os.getpid()}")
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(whole, side, metadata={"format": "hebbstream taught 1", "names": json.dumps(dict(names))})
    side.replace(path)


def read_taught(path: Path) -> tuple[Snapshot, dict[str, int]]:
    """Read what was taught, and what classes are called; ConfigError if the file holds no such thing."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "hebbstream taught 1":
                raise ConfigError(f"{path}: holds nothing that was taught; wanted a file of `hebbstream teach --save`")
            names = {str(name): int(unit) for name, unit in json.loads(metadata["names"]).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, names  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); wanted a file of `hebbstream teach --save`") from None
