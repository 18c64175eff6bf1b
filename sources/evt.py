"""Prophesee EVT 2.0, 2.1 and 3.0: decoders that read piece by piece, and encoders.

The formats are described at https://docs.prophesee.ai/stable/data/encoding_formats/. All words are little-endian; the
four highest bits are the type. The origin is top left, polarity 1 = brighter, times in us::

    EVT2, 32 bits     0 off, 1 on     time 27..22, x 21..11, y 10..0
                      8 TIME_HIGH     time >> 6 in 27..0 (wraps after 4.77 h)
    EVT2.1, 64 bits   0 off, 1 on     time 59..54, first x 53..43, y 42..32, one bit a pixel in 31..0
                      8 TIME_HIGH     time >> 6 in 59..32
    EVT3, 16 bits     0 ADDR_Y        y 10..0
                      2 ADDR_X        polarity 11, x 10..0: an event
                      3 VECT_BASE_X   polarity 11, x 10..0
                      4 VECT_12       one bit a pixel in 11..0 from the base on, which moves on by 12
                      5 VECT_8        one bit a pixel in 7..0, the base moves on by 8
                      6 TIME_LOW      time in 11..0
                      8 TIME_HIGH     time >> 12 in 11..0 (wraps after 16.78 s)

Where the format leaves a choice, decoders in use differ. Ours:

- Only TIME_HIGH wraps: a step down of more than half of its range. A smaller step down is a time that went back, and
  is handed out as such; so is a TIME_LOW below the one before (cameras do that, by some microseconds). Silence longer
  than the range without TIME_HIGH words cannot be told from the file.
- A new TIME_HIGH sets the low bits of EVT3 to zero until the next TIME_LOW; the same one repeated does not.
- Events before the first TIME_HIGH have no time, EVT3's before the first ADDR_Y no row, and vectors before the first
  VECT_BASE_X no column: dropped and counted.
- A vector is the words that are there: VECT_8 may be missing, another word may stand between.
- A bit past column 2047, the last that an address can name, is dropped and counted. A bit past the right edge of the
  sensor is an event outside, of which ``sources.event_file`` decides. It is never moved to the last column.
- Triggers and vendors' words are passed over; words of a type that is not in the description are so too, and counted.

EVT2.1 of the IMX636 comes with its two 32-bit halves swapped, that of the GenX320 does not. Which one it is is told
from the first words: in the right half the types make sense and the times rise.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sources.byte_stream import ByteStream, Place
from sources.flat_writer import FlatWriter, first_unfit, own
from stream.errors import FormatError
from stream.jit import kernel
from stream.packet import EVENT_DTYPE

__all__ = [
    "WORD_DTYPES",
    "Evt2Writer",
    "Evt3Writer",
    "EvtDecoder",
    "EvtVersion",
    "decode_evt",
    "encode_evt2",
    "encode_evt3",
    "write_evt",
]

EvtVersion: TypeAlias = Literal["evt2", "evt2.1", "evt3"]
WORD_DTYPES: dict[str, np.dtype[Any]] = {"evt2": np.dtype("<u4"), "evt2.1": np.dtype("<u8"), "evt3": np.dtype("<u2")}

_COLUMNS = 2048  # that an address of 11 bits can name
_MOST_EVENTS_A_WORD = {"evt2": 1, "evt2.1": 32, "evt3": 12}
_BUFFER_EVENTS = 1 << 16
_MOST_FILLING = 1 << 24  # TIME_HIGH words to bridge one silence: absolute times (since 1970) would cost 10^8 of them
_TELLING_WORDS = 64  # of EVT2.1: enough to tell which of its halves is the upper one

# state of a decoder, int64
_TAKEN, _HIGH, _EPOCH, _LOW, _Y, _BASE, _P = range(7)
# counts of a decoder, int64
_EARLY, _PAST, _UNKNOWN = range(3)


@kernel
def evt2_decode(
    words: NDArray[np.uint32], state: NDArray[np.int64], counts: NDArray[np.int64], events: NDArray[np.void]
) -> int:
    """Decode EVT 2.0 words.

    Parameters
    ----------
    words
        uint32, shape (n,).
    state
        int64, shape (7,), from ``fresh_state``; carried from call to call. ``state[0]`` is set to the words taken.
    counts
        int64, shape (3,): events before the first time, past the last column, unknown words; added to.
    events
        EVENT_DTYPE, shape (>= 1,): written from the front. If it is full before the words are all taken, call again
        with the rest.

    Returns
    -------
    n_events
        How many were written.
    """
    n_events = 0
    high, epoch = state[_HIGH], state[_EPOCH]
    base_us = epoch + (high << 6)
    taken = len(words)
    for index in range(len(words)):
        word = np.int64(words[index])
        kind = word >> 28
        if kind <= 1:
            if high < 0:
                counts[_EARLY] += 1
                continue
            if n_events == len(events):
                taken = index
                break
            event = events[n_events]
            event["t"] = base_us + ((word >> 22) & 63)
            event["x"] = (word >> 11) & 2047
            event["y"] = word & 2047
            event["p"] = kind
            n_events += 1
        elif kind == 8:
            new = word & 0x0FFFFFFF
            if high - new > 1 << 27:
                epoch += 1 << 34
            high = new
            base_us = epoch + (high << 6)
        elif kind != 10 and kind != 14 and kind != 15:
            counts[_UNKNOWN] += 1
    state[_TAKEN] = taken
    state[_HIGH] = high
    state[_EPOCH] = epoch
    return n_events


@kernel
def evt21_decode(
    words: NDArray[np.uint64], state: NDArray[np.int64], counts: NDArray[np.int64], events: NDArray[np.void]
) -> int:
    """Decode EVT 2.1 words, uint64, shape (n,); ``events`` has room for 32 or more. Else as ``evt2_decode``."""
    n_events = 0
    high, epoch = state[_HIGH], state[_EPOCH]
    taken = len(words)
    for index in range(len(words)):
        upper = np.int64(words[index] >> np.uint64(32))
        kind = upper >> 28
        if kind <= 1:
            valid = np.int64(words[index] & np.uint64(0xFFFFFFFF))
            if high < 0:
                for bit in range(32):
                    counts[_EARLY] += (valid >> bit) & 1
                continue
            if n_events + 32 > len(events):
                taken = index
                break
            t_us = epoch + (high << 6) + ((upper >> 22) & 63)
            x = (upper >> 11) & 2047
            while valid:
                if valid & 1:
                    if x < _COLUMNS:
                        event = events[n_events]
                        event["t"] = t_us
                        event["x"] = x
                        event["y"] = upper & 2047
                        event["p"] = kind
                        n_events += 1
                    else:
                        counts[_PAST] += 1
                valid >>= 1
                x += 1
        elif kind == 8:
            new = upper & 0x0FFFFFFF
            if high - new > 1 << 27:
                epoch += 1 << 34
            high = new
        elif kind != 10 and kind != 14 and kind != 15:
            counts[_UNKNOWN] += 1
    state[_TAKEN] = taken
    state[_HIGH] = high
    state[_EPOCH] = epoch
    return n_events


@kernel
def evt3_decode(
    words: NDArray[np.uint16], state: NDArray[np.int64], counts: NDArray[np.int64], events: NDArray[np.void]
) -> int:
    """Decode EVT 3.0 words, uint16, shape (n,); ``events`` has room for 12 or more. Else as ``evt2_decode``."""
    n_events = 0
    high, epoch, low = state[_HIGH], state[_EPOCH], state[_LOW]
    y, base, p = state[_Y], state[_BASE], state[_P]
    t_us = epoch + (high << 12) + low
    last_start = len(events) - 12
    taken = len(words)
    for index in range(len(words)):
        word = np.int64(words[index])
        kind = word >> 12
        if kind == 2:
            if high < 0 or y < 0:
                counts[_EARLY] += 1
                continue
            if n_events > last_start:
                taken = index
                break
            event = events[n_events]
            event["t"] = t_us
            event["x"] = word & 2047
            event["y"] = y
            event["p"] = (word >> 11) & 1
            n_events += 1
        elif kind == 4 or kind == 5:
            width = 12 if kind == 4 else 8
            valid = word & ((1 << width) - 1)
            if high < 0 or y < 0 or base < 0:
                while valid:
                    counts[_EARLY] += valid & 1
                    valid >>= 1
            elif n_events > last_start:
                taken = index
                break
            elif base + width > _COLUMNS:
                for bit in range(width):
                    if (valid >> bit) & 1:
                        if base + bit < _COLUMNS:
                            event = events[n_events]
                            event["t"] = t_us
                            event["x"] = base + bit
                            event["y"] = y
                            event["p"] = p
                            n_events += 1
                        else:
                            counts[_PAST] += 1
            else:
                x = base
                while valid:
                    # written in any case, counted if it is one: which bits are set cannot be predicted, and a wrong
                    # guess of the processor costs more than the write
                    event = events[n_events]
                    event["t"] = t_us
                    event["x"] = x
                    event["y"] = y
                    event["p"] = p
                    n_events += int(valid & 1)
                    valid >>= 1
                    x += 1
            if base >= 0:
                base = min(base + width, _COLUMNS)
        elif kind == 0:
            y = word & 2047
        elif kind == 3:
            base = word & 2047
            p = (word >> 11) & 1
        elif kind == 6:
            low = word & 4095
            t_us = epoch + (high << 12) + low
        elif kind == 8:
            new = word & 4095
            if new != high:
                if high - new > 2048:
                    epoch += 1 << 24
                high = new
                low = np.int64(0)
                t_us = epoch + (high << 12)
        elif kind != 7 and kind != 10 and kind != 14 and kind != 15:
            counts[_UNKNOWN] += 1
    state[_TAKEN] = taken
    state[_HIGH] = high
    state[_EPOCH] = epoch
    state[_LOW] = low
    state[_Y] = y
    state[_BASE] = base
    state[_P] = p
    return n_events


_KERNELS: dict[str, Any] = {"evt2": evt2_decode, "evt2.1": evt21_decode, "evt3": evt3_decode}


def fresh_state() -> NDArray[np.int64]:
    """Return the state before the first word: no time, no row, no column."""
    state = np.zeros(7, np.int64)
    state[[_HIGH, _Y, _BASE]] = -1
    return state


class EvtDecoder:
    """One file, read from its first word each time it is iterated over.

    Parameters
    ----------
    path
        The file, or ``-`` for standard input.
    version
        ``evt2``, ``evt2.1`` or ``evt3``.
    header_bytes
        Where the first word stands; 0 for a file without a header.
    chunk_bytes
        How much is read at a time, >= 8. It carries no meaning.
    swapped
        EVT2.1 only: whether the two halves of each word are swapped. None = look at the first words.
    follow_s
        The file may still grow: it has ended when it has not for so long, seconds.
    """

    def __init__(
        self,
        path: Path,
        version: EvtVersion,
        header_bytes: int = 0,
        *,
        chunk_bytes: int = 1 << 17,
        swapped: bool | None = None,
        follow_s: float = 0.0,
    ) -> None:
        self.path = path
        self.version = version
        self.header_bytes = header_bytes
        self.chunk_bytes = max(8, chunk_bytes)
        self.swapped = swapped
        self.follow_s = follow_s
        self.counts = np.zeros(3, np.int64)
        self.start: Place | None = None  # where to begin, if not at the beginning
        self.place: Place | None = None  # where the chunk handed out last begins

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Decode the file.

        Yields
        ------
        events
            EVENT_DTYPE, shape (n,): as they stand in the file, times may step back. Empty: nothing yet. The memory is
            used again for the next array: copy what is to stay.

        Raises
        ------
        FormatError
            After everything that could be read was yielded: the last word is torn, or the disk failed.
        """
        dtype, decode = WORD_DTYPES[self.version], _KERNELS[self.version]
        begin, state = self.start or Place(self.header_bytes, fresh_state())
        state, counts = state.copy(), np.zeros(3, np.int64)
        self.counts = counts
        # a word may give many events, but on average gives one or two
        n_words = self.chunk_bytes // dtype.itemsize
        events = np.empty(max(2 * n_words, _MOST_EVENTS_A_WORD[self.version]), EVENT_DTYPE)
        with ByteStream(self.path, begin=begin, follow_s=self.follow_s) as stream:
            self.bytes = stream  # whoever shows progress looks at its position
            pieces = (raw.view(dtype) for raw in stream.records(dtype.itemsize, chunk_bytes=self.chunk_bytes))
            for words in pieces if self.version != "evt2.1" else _upper_half_first(pieces, self.swapped):
                if self.version != "evt2.1":  # it holds the first words back
                    self.place = Place(stream.position - words.nbytes, state.copy())
                if not len(words):
                    yield events[:0]
                while len(words):
                    n_events = decode(words, state, counts, events)
                    words = words[int(state[_TAKEN]) :]
                    if n_events:
                        yield events[:n_events]

    def losses(self) -> list[str]:
        """Put into words what the file holds (as far as it was read) that is no event of the stream."""
        said = (
            "events before the first time, row or column were dropped",
            f"events past column {_COLUMNS - 1} were dropped",
            f"words of a type that {self.version.upper()} does not know were skipped",
        )
        return [f"{count} {words}" for count, words in zip(self.counts.tolist(), said, strict=True) if count]


def _upper_half_first(pieces: Iterator[NDArray[Any]], swapped: bool | None) -> Iterator[NDArray[Any]]:
    """Put the halves of EVT 2.1 words right. The first words are held back until there are enough to judge by."""
    held: NDArray[Any] = np.empty(0, WORD_DTYPES["evt2.1"])
    fault = None
    while fault is None:
        try:
            words = next(pieces, None)
        except FormatError as error:
            fault, words = error, None
        if swapped is None:
            if words is not None:
                held = np.concatenate([held, words])
            if words is not None and len(held) < _TELLING_WORDS:
                yield held[:0]
                continue
            swapped, words = looks_swapped(held), held if len(held) else words
        elif words is None:
            break
        if words is not None:
            yield (words << np.uint64(32)) | (words >> np.uint64(32)) if swapped else words
    if fault is not None:
        raise fault


def looks_swapped(words: NDArray[np.uint64]) -> bool:
    """Tell whether the lower halves of the first EVT 2.1 words look more like types and times than the upper ones.

    Sparse masks look like known types too (most begin with four zeros), but their values do not rise like times.
    """

    def score(halves: NDArray[np.uint64]) -> tuple[int, int]:
        kinds = (halves >> np.uint64(28)) & np.uint64(15)
        times = (halves[kinds == 8] & np.uint64(0x0FFFFFFF)).astype(np.int64)
        return int(np.isin(kinds, (0, 1, 8, 10, 14, 15)).sum()), int(np.sign(np.diff(times)).sum())

    first = words[:4096]
    return score(first & np.uint64(0xFFFFFFFF)) > score(first >> np.uint64(32))


def decode_evt(raw: bytes | NDArray[np.uint8], version: EvtVersion) -> NDArray[np.void]:
    """Decode words held in memory, from a fresh state.

    Parameters
    ----------
    raw
        The words without a header; bytes after the last whole word are ignored.

    Returns
    -------
    events
        EVENT_DTYPE, shape (n,), as they stand there.
    """
    dtype, decode = WORD_DTYPES[version], _KERNELS[version]
    raw = bytes(raw)
    # through a bytearray: a read-only array would compile the kernel a second time
    words = np.frombuffer(bytearray(raw[: len(raw) // dtype.itemsize * dtype.itemsize]), dtype)
    state, counts = fresh_state(), np.zeros(3, np.int64)
    buffer = np.empty(_BUFFER_EVENTS, EVENT_DTYPE)
    parts = [np.empty(0, EVENT_DTYPE)]
    while len(words):
        n_events = decode(words, state, counts, buffer)
        parts.append(buffer[:n_events].copy())
        words = words[int(state[_TAKEN]) :]
    return np.concatenate(parts)


@kernel
def next_high(high: np.int64, target: np.int64, bits: int) -> np.int64:
    """Return the TIME_HIGH (unwrapped) to write after ``high`` on the way to ``target``; -1 = nothing written yet.

    Every quarter of the range one is written, and before a wrap the very last value: some decoders take a step down
    for a wrap only from the end of the range to its start.
    """
    span = np.int64(1) << np.int64(bits)
    if high < 0:
        return target if target < span else np.int64(0)
    if high & (span - 1) == span - 1:
        return high + 1
    return min(target, high + span // 4, high | (span - 1))


@kernel
def evt2_encode(events: NDArray[np.void], final: bool, state: NDArray[np.int64], words: NDArray[np.uint32]) -> int:
    """Encode events as EVT 2.0 words.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,), that fit.
    final
        No event follows. (Of meaning for EVT 3.0 only, whose vectors may go on in the next call.)
    state
        int64, shape (7,), from ``_fresh_encoder``; carried from call to call. ``state[0]`` is set to the events taken.
    words
        uint32, shape (>= 1,): written from the front. If it is full before the events are all taken, call again with
        the rest.

    Returns
    -------
    n_words
        How many were written.
    """
    n_words = 0
    high = state[_HIGH]
    taken = len(events)
    for index in range(len(events)):
        event = events[index]
        t_us = np.int64(event["t"])
        while high != t_us >> 6 and n_words < len(words):
            high = next_high(high, t_us >> 6, 28)
            words[n_words] = (8 << 28) | (high & 0x0FFFFFFF)
            n_words += 1
        if n_words == len(words):
            taken = index
            break
        place = (np.int64(event["x"]) << 11) | np.int64(event["y"])
        words[n_words] = (np.int64(event["p"]) << 28) | ((t_us & 63) << 22) | place
        n_words += 1
    state[_TAKEN] = taken
    state[_HIGH] = high
    return n_words


@kernel
def evt3_encode(events: NDArray[np.void], final: bool, state: NDArray[np.int64], words: NDArray[np.uint16]) -> int:
    """Encode events as EVT 3.0 words, uint16, shape (>= 6,); else as ``evt2_encode``.

    Events at the end that may be the beginning of a longer vector are not taken unless ``final``: at most 32.
    """
    n_words = 0
    high, low, row = state[_HIGH], state[_LOW], state[_Y]
    index = 0
    while index < len(events):
        event = events[index]
        t_us, x, y, p = np.int64(event["t"]), np.int64(event["x"]), np.int64(event["y"]), np.int64(event["p"])
        # events of the same moment, row and polarity whose columns rise, within 32 pixels
        end = index + 1
        mask = np.int64(1)
        while end < len(events):
            other = events[end]
            step = np.int64(other["x"]) - x
            if other["t"] != t_us or other["y"] != y or other["p"] != p or step > 31 or step <= 0 or mask >> step:
                break
            mask |= np.int64(1) << step
            end += 1
        if end == len(events) and not final:
            break
        while high != t_us >> 12 and n_words < len(words):
            high = next_high(high, t_us >> 12, 12)
            low = np.int64(-1)
            words[n_words] = (8 << 12) | (high & 4095)
            n_words += 1
        if n_words + 6 > len(words):  # time, row, and the four words of a vector
            break
        if low != t_us & 4095:
            low = t_us & 4095
            words[n_words] = (6 << 12) | low
            n_words += 1
        if row != y:
            row = y
            words[n_words] = y
            n_words += 1
        if end - index > 4:  # a vector costs four words whatever it holds
            words[n_words] = (3 << 12) | (p << 11) | x
            words[n_words + 1] = (4 << 12) | (mask & 4095)
            words[n_words + 2] = (4 << 12) | ((mask >> 12) & 4095)
            words[n_words + 3] = (5 << 12) | (mask >> 24)
            n_words += 4
            index = end
        else:
            words[n_words] = (2 << 12) | (p << 11) | x
            n_words += 1
            index += 1
    state[_TAKEN] = index
    state[_HIGH] = high
    state[_LOW] = low
    state[_Y] = row
    return n_words


@kernel
def evt_first_unfit(events: NDArray[np.void], last_us: int, quarter_us: int) -> int:
    """Return the index of the first event that comes after too long a silence."""
    for index in range(len(events)):
        if (events[index]["t"] - last_us) // quarter_us > _MOST_FILLING:
            return index
        last_us = events[index]["t"]
    return len(events)


_ENCODERS: dict[str, Any] = {"evt2": evt2_encode, "evt3": evt3_encode}
_QUARTERS_US = {"evt2": 1 << 32, "evt3": 1 << 22}  # of the range of TIME_HIGH: in a silence one is written for each


def _fresh_encoder() -> NDArray[np.int64]:
    """Return the state before the first event: nothing written."""
    return np.full(7, -1, np.int64)


def _encoded(
    events: NDArray[np.void], version: str, state: NDArray[np.int64], *, final: bool
) -> Iterator[NDArray[Any]]:
    """Encode events that fit; yield words whose memory is used again. ``state`` tells how many events were taken."""
    words: NDArray[Any] = np.empty(_BUFFER_EVENTS, WORD_DTYPES[version])
    n_taken, n_words = 0, 1
    while n_words and n_taken < len(events):
        n_words = _ENCODERS[version](events[n_taken:], final, state, words)
        n_taken += int(state[_TAKEN])
        yield words[:n_words]
    state[_TAKEN] = n_taken


def _encode(events: NDArray[np.void], version: str) -> bytes:
    events = own(events)
    n_fit = first_unfit(events, 0, _COLUMNS, _COLUMNS)
    n_fit = evt_first_unfit(events[:n_fit], 0, _QUARTERS_US[version])
    if n_fit < len(events):
        event = events[n_fit]
        raise FormatError(
            f"event {n_fit} (t {event['t']} us, x {event['x']}, y {event['y']}, p {event['p']}): {version.upper()} "
            f"holds {_holds(version)}, x and y up to {_COLUMNS - 1}, polarity 0 or 1; sort or crop the events, or "
            f"shift the times so that they begin near 0"
        )
    return b"".join(words.tobytes() for words in _encoded(events, version, _fresh_encoder(), final=True))


def _holds(version: str) -> str:
    days = _QUARTERS_US[version] * _MOST_FILLING // 86_400_000_000
    return f"sorted times from 0 on without a silence of more than {days} days"


def encode_evt2(events: NDArray[np.void]) -> bytes:
    """Encode events as EVT 2.0 words, without a header.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,), sorted by time, times from 0 on, x and y < 2048, p 0 or 1.

    Raises
    ------
    FormatError
        The format cannot hold an event; the message names the first such one.
    """
    return _encode(events, "evt2")


def encode_evt3(events: NDArray[np.void]) -> bytes:
    """Encode events as EVT 3.0 words, without a header; see ``encode_evt2``. Order is kept, also at equal times."""
    return _encode(events, "evt3")


class _EvtWriter(FlatWriter):
    """What the two writers share."""

    version = ""
    most_pixels = _COLUMNS

    def _header(self) -> bytes:
        self._state = _fresh_encoder()
        self._held = np.empty(0, EVENT_DTYPE)  # may be the beginning of a vector
        number = self.version.removeprefix("evt")
        size = f"{self.width}x{self.height}"
        text = f"% evt {number}.0\n% format EVT{number};height={self.height};width={self.width}\n% geometry {size}\n"
        return (text + "% end\n").encode()

    def _first_unfit(self, events: NDArray[np.void], last_us: int) -> int:
        return evt_first_unfit(events, last_us, _QUARTERS_US[self.version])

    def _encode(self, events: NDArray[np.void], *, final: bool = False) -> Iterator[bytes]:
        if len(self._held):
            events = np.concatenate([self._held, events])
        for words in _encoded(events, self.version, self._state, final=final):
            yield words.tobytes()
        self._held = events[int(self._state[_TAKEN]) :].copy()

    def _tail(self) -> Iterator[bytes]:
        return self._encode(self._held[:0], final=True)


class Evt2Writer(_EvtWriter):
    """Write EVT 2.0; see ``FlatWriter``. The sensor is at most 2048 pixels each way."""

    name, version, holds = "EVT2", "evt2", _holds("evt2")


class Evt3Writer(_EvtWriter):
    """Write EVT 3.0; see ``FlatWriter``. The sensor is at most 2048 pixels each way.

    The last events of a call, at most 32, are held back until the next one: they may belong to a vector.
    """

    name, version, holds = "EVT3", "evt3", _holds("evt3")


def write_evt(
    path: Path, events: NDArray[np.void], width: int, height: int, version: Literal["evt2", "evt3"] = "evt3"
) -> None:
    """Write a whole recording, with a header that tells format and sensor.

    Parameters
    ----------
    path
        The file; replaced if it is there.
    events
        As for ``encode_evt2``, inside of the sensor.
    width, height
        The sensor, pixels, at most 2048.
    version
        ``evt2`` or ``evt3``.

    Raises
    ------
    FormatError
        The format cannot hold an event, or one lies outside of the sensor. What came before it was written.
    ConfigError
        The format cannot hold the sensor.
    """
    with (Evt2Writer if version == "evt2" else Evt3Writer)(path, width, height) as writer:
        writer.write(events)
