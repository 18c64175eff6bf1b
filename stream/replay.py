"""Play a part of a source, several times over, and jump about in it: start, duration, loop, seek.

It wraps any source and needs nothing of it but the contract: the snapshot of the untouched source, restored, is its
beginning. A source that can find a time faster than by playing up to it says so with ``skip_to(t_us)``.

Times stay those of the source until the first jump. From then on stream time goes on where it was, for a stream never
goes back: every later time is shifted by a constant, and a ``Reset`` mark stands at the seam, where what is shown has
nothing to do with what was before.
"""

from typing import Any

import msgspec
import numpy as np

from stream.errors import ConfigError
from stream.operator import Port, Snapshot, Source, check_shapes
from stream.packet import End, Label, Mark, Message, Packet, Reset

__all__ = ["Replay"]

_NEVER_US = 2**62


class Replay(Source):
    """A window of a source, played ``loop`` times.

    Parameters
    ----------
    source
        What to play; untouched yet.
    start_us
        Where to begin, counted from the source's first item or mark.
    duration_us
        How much to play; None: up to its end.
    loop
        How often; 0: until stopped. A source that ends with a fault is not begun again.

    Raises
    ------
    ConfigError
        A number is out of range.
    """

    def __init__(
        self, source: Source, *, start_us: int = 0, duration_us: int | None = None, loop: int = 1, name: str = "source"
    ) -> None:
        if start_us < 0 or loop < 0 or (duration_us is not None and duration_us <= 0):
            raise ConfigError(
                f"{name}: got start_us {start_us}, duration_us {duration_us}, loop {loop}; wanted a start and a loop "
                f"from 0 on and a duration above 0"
            )
        self.outputs: dict[str, Port] = dict(source.outputs)
        self._source, self._name = source, name
        self._start_us, self._duration_us, self._loop = start_us, duration_us, loop
        self._beginning = source.snapshot()
        # first time of the source (or _NEVER_US), where the window of this round begins (counted from there), what is
        # added to times, rounds finished, end of what was handed out, whether the window was entered
        self._state = np.array([_NEVER_US, start_us, 0, 0, 0, 0], np.int64)
        self._seam: Reset | None = None
        self._end: End | None = None

    def poll(self, max_items: int) -> Message | None:
        """Hand out the next message inside of the window."""
        while self._end is None:
            if self._seam is not None:
                seam, self._seam = self._seam, None
                return seam
            message = self._source.poll(max_items)
            if message is None:
                return None
            if isinstance(message, End):
                self._close_round(message)
                continue
            kept = self._inside(message)
            if kept is not None:
                return kept
        return self._end

    def seek(self, t_us: int) -> None:
        """Go on at another place, ``t_us`` after the source's first time; stream time goes on where it is."""
        self._end = None
        self._rewind(max(0, t_us))

    def loop_for_ever(self, wanted: bool) -> None:
        """Begin again at the end, for ever; or play to the end of the round."""
        self._loop = 0 if wanted else 1

    @property
    def is_looping(self) -> bool:
        """Whether it begins again at the end, for ever."""
        return self._loop == 0

    def position_us(self) -> int:
        """Return how far after the source's first time the stream stands."""
        first, _, shift, _, last, entered = self._state.tolist()
        return int(last - shift - first) if entered and first != _NEVER_US else int(self._state[1])

    def _rewind(self, start_us: int) -> None:
        """Begin a round at ``start_us``, with times that go on where they are."""
        self._source.restore(self._beginning)
        first, last = int(self._state[0]), int(self._state[4])
        self._state[1] = start_us
        self._state[5] = 0
        if first == _NEVER_US:
            return  # nothing was handed out yet: times stay those of the source
        self._state[2] = last - (first + start_us)
        self._seam = Reset(last)
        self._skip(first + start_us)

    def _skip(self, t_us: int) -> None:
        skip: Any = getattr(self._source, "skip_to", None)
        if skip is not None:
            skip(t_us)

    def _stop_us(self) -> int:
        """Return the source's time at which the window ends."""
        if self._duration_us is None:
            return _NEVER_US
        return int(self._state[0]) + self._start_us + self._duration_us

    def _inside(self, message: Packet | Mark) -> Message | None:
        """Cut a message to the window and shift it; None if nothing of it is inside."""
        t_us = message.t_us if not isinstance(message, Packet) else message.start_us
        if isinstance(message, Packet) and len(message.items):
            t_us = int(message.items["t"][0])
        if isinstance(message, Label):
            t_us = min(t_us, message.start_us)
        if self._state[0] == _NEVER_US:
            self._state[0] = t_us
        begin_us, stop_us = int(self._state[0] + self._state[1]), self._stop_us()
        shift = int(self._state[2])
        if isinstance(message, Packet):
            return self._cut(message, begin_us, stop_us, shift)
        if message.t_us < begin_us:
            return None
        if message.t_us > stop_us:
            self._close_round(End(stop_us))
            return None
        self._state[4], self._state[5] = max(self._state[4], message.t_us + shift), 1
        return shifted(message, shift) if shift else message

    def _cut(self, packet: Packet, begin_us: int, stop_us: int, shift: int) -> Packet | None:
        if packet.end_us <= begin_us:
            self._skip(begin_us)
            return None
        times = packet.items["t"]
        first = 0 if packet.start_us >= begin_us else int(np.searchsorted(times, begin_us))
        stop = len(times) if packet.end_us <= stop_us else int(np.searchsorted(times, stop_us))
        is_last = packet.end_us > stop_us
        items = packet.items[first:stop]
        start_us = min(max(packet.start_us, begin_us), stop_us) + shift
        end_us = max(min(packet.end_us, stop_us) + shift, start_us)
        if shift:
            items = items.copy()
            items["t"] += shift
        cut = Packet(items, start_us, end_us)
        self._state[4], self._state[5] = max(self._state[4], end_us), 1
        if is_last:
            self._close_round(End(stop_us))
        return cut

    def _close_round(self, end: End) -> None:
        """Decide what follows the end of a round."""
        self._state[3] += 1
        last = max(int(self._state[4]), end.t_us + int(self._state[2]) if self._state[5] else 0)
        self._state[4] = last
        was_empty = not self._state[5]
        if end.reason or was_empty or (self._loop and self._state[3] >= self._loop):
            reason = end.reason
            if was_empty and not reason and self._state[1]:
                reason = f"{self._name} has nothing {self._state[1] / 1e6:g} s after its beginning"
            self._end = End(last, reason)
            return
        self._rewind(self._start_us)

    def snapshot(self) -> Snapshot:
        """Return the source's position and ours."""
        inner = {f"source.{name}": array for name, array in self._source.snapshot().items()}
        seam = np.array(self._seam is not None)
        return inner | {"replay": self._state.copy(), "seam": seam}

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a position."""
        own = {name: array for name, array in snapshot.items() if not name.startswith("source.")}
        check_shapes(self._name, {"replay": self._state, "seam": np.array(False)}, own)
        self._source.restore(
            {name.removeprefix("source."): array for name, array in snapshot.items() if name.startswith("source.")}
        )
        self._state[:] = own["replay"]
        self._seam = Reset(int(self._state[4])) if own["seam"] else None
        self._end = None

    def statistics(self) -> dict[str, float]:
        """Return the source's own, and the rounds played."""
        rounds = {"rounds": float(self._state[3])} if self._loop != 1 else {}
        return self._source.statistics() | rounds

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def shifted(mark: Mark, shift_us: int) -> Mark:
    """Return a mark moved in time."""
    if isinstance(mark, Label):
        return msgspec.structs.replace(mark, t_us=mark.t_us + shift_us, start_us=mark.start_us + shift_us)
    return msgspec.structs.replace(mark, t_us=mark.t_us + shift_us)
