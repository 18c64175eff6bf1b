"""The contracts of a source and of an operator.

A class that honours one of them can be named in a pipeline file. Its constructor takes keyword arguments with type
annotations; those are the parameters a pipeline file may set, and nothing else is accepted.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError
from stream.packet import Mark, Message, Packet

__all__ = ["Emit", "Operator", "Port", "Snapshot", "Source", "check_shapes"]

Emit: TypeAlias = Callable[[str, Message], None]
"""Send a message out of the port of that name. May block (that is back-pressure), never drops by itself."""

Snapshot: TypeAlias = dict[str, NDArray[Any]]
"""Named arrays, all there is to know about a state. No pickles, no objects; scalars are arrays of shape ()."""


class Port(NamedTuple):
    """A named, typed way in or out: which items pass, and of what size. None = any size."""

    item: str  # a name of stream.packet.ITEM_DTYPES
    width: int | None = None  # pixels, for events
    height: int | None = None
    n_units: int | None = None  # for spikes

    def accepts(self, other: "Port") -> bool:
        """Tell whether what leaves ``other`` may enter here."""
        return self.item == other.item and all(
            mine is None or theirs is None or mine == theirs for mine, theirs in zip(self[1:], other[1:], strict=True)
        )

    def __str__(self) -> str:
        """``events 34x34``, ``spikes of 200 units``."""
        size = f" {self.width}x{self.height}" if self.width is not None else ""
        return f"{self.item}{size}" + (f" of {self.n_units} units" if self.n_units is not None else "")


class Source(ABC):
    """Where a stream begins. One output port, ``events``."""

    outputs: Mapping[str, Port]

    @abstractmethod
    def poll(self, max_items: int) -> Message | None:
        """Hand out the next message.

        Never blocks: None means that nothing is there yet. A packet holds at most ``max_items`` items. The last
        message is an ``End`` mark; what is polled after it is an ``End`` again. A fault in the middle (a file's torn
        tail, a lost camera) is an ``End`` with its reason after everything that could be read was handed out; only a
        source that cannot begin at all raises, from its constructor.
        """

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Return the position right after the last message handed out."""

    @abstractmethod
    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a position as if never stopped."""

    def statistics(self) -> dict[str, float]:
        """Return counts for people to look at; see ``Operator.statistics``."""
        return {}

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open; closing is optional on purpose
        """Release files and devices. Idempotent."""


class Operator(ABC):
    """A computation on streams, with explicit state.

    Calling order: for each input port, its messages in stream order. Between ports no order is promised, so an operator
    with several inputs must not let it matter. The runtime alone handles ``End``: when every input has ended it calls
    ``on_end`` and then ends every output. A ``Barrier`` too is handled and passed on by the runtime. Both still reach
    ``on_mark`` nowhere else.
    """

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]

    def warm_up(self) -> None:  # noqa: B027 - most operators compile nothing; warming up is optional on purpose
        """Compile what the first packets will need, and leave the state as it was. Called before the stream starts."""

    @abstractmethod
    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Take in a packet. Python is entered here once per packet; a kernel walks the items."""

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Take in a ``Reset``, ``Label``, ``Loss`` or ``Deploy``. The default passes it on to every output."""
        for name in self.outputs:
            emit(name, mark)

    def on_end(self, emit: Emit) -> None:  # noqa: B027 - optional on purpose
        """Emit what is left, after the last message of the last input."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Return a copy of the whole state: ``restore`` of it, into a fresh operator, continues bit for bit."""

    @abstractmethod
    def restore(self, snapshot: Snapshot) -> None:
        """Take over a state. Raises ConfigError if shapes do not fit, and then leaves the old state untouched."""

    def settle(self) -> None:  # noqa: B027 - only what writes files has something to settle
        """Make durable what the last snapshot counts on beside its own arrays, such as a file that was written.

        Called by another thread, before the snapshot counts for anything.
        """

    def statistics(self) -> dict[str, float]:
        """Return counts for people to look at while it runs, keyed by words for a table. Never part of a result."""
        return {}

    def taught(self) -> Snapshot:
        """Return what was taught, to be saved and loaded elsewhere; see ``stream.teach``. Reading changes nothing."""
        return {}

    def look(self, what: str) -> Snapshot:
        """Return small arrays for a viewer; asked between messages, a few times a second, and only if somebody looks.

        Parameters
        ----------
        what
            ``"state"``: what changes all the time (scores, activity); ``"weights"``: what is larger and changes slowly.

        Returns
        -------
        dict of str to array
            float32, float64, int8, int32 or int64, one megabyte at most together. Reading changes nothing.
        """
        del what
        return {}

    def close(self) -> None:  # noqa: B027 - most operators hold nothing open; closing is optional on purpose
        """Release files and devices. Idempotent."""


def check_shapes(subject: str, state: Mapping[str, NDArray[Any]], snapshot: Snapshot) -> None:
    """Raise ConfigError unless a snapshot has exactly the arrays of a state, with their shapes and types."""
    if snapshot.keys() != state.keys():
        raise ConfigError(
            f"snapshot of {subject}: got arrays {sorted(snapshot)}, wanted {sorted(state)}; "
            f"restore it into the operator, with the parameters, that it was taken from"
        )
    for name, array in state.items():
        got = np.asarray(snapshot[name])
        if got.shape != array.shape or got.dtype != array.dtype:
            raise ConfigError(
                f"snapshot of {subject}: {name} is {got.dtype} {got.shape}, wanted {array.dtype} {array.shape}; "
                f"restore it into the operator, with the parameters, that it was taken from"
            )
