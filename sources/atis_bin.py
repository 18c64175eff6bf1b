"""The 40-bit ATIS ``.bin`` format of N-MNIST and N-Caltech101.

Five bytes an event, most significant byte first, no header::

    byte  0         1         2                   3          4
          xxxxxxxx  yyyyyyyy  p ttttttt           tttttttt   tttttttt
          column    row       1 = brighter, time in us (23 bits, wraps after 8.39 s)

The origin is top left. An event whose row is 240, one past the last row of an ATIS, is not an event: it adds
2**13 us to the time of everything that follows, itself excluded from the stream (Orchard et al. 2015, "Converting
static image datasets to spiking neuromorphic datasets using saccades", and the readers its authors published with the
data). No file of either data set is long enough to need it; the encoder here uses it for longer recordings.

The format knows neither a sensor's size nor its own end: whatever is not a multiple of five bytes is a torn tail.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sources.byte_stream import ByteStream, Place
from sources.flat_writer import FlatWriter, first_unfit, own
from stream.errors import FormatError
from stream.jit import kernel
from stream.packet import EVENT_DTYPE

__all__ = [
    "EVENT_BYTES",
    "OVERFLOW_ROW",
    "OVERFLOW_US",
    "AtisBinDecoder",
    "AtisBinWriter",
    "decode_atis_bin",
    "encode_atis_bin",
    "read_atis_bin",
    "write_atis_bin",
]

EVENT_BYTES = 5
OVERFLOW_ROW = 240
OVERFLOW_US = 1 << 13
TIME_SPAN_US = 1 << 23

# In one silence. Absolute times (microseconds since 1970) would cost 10^11 overflow events.
_MOST_OVERFLOWS = 1 << 24
_CHUNK_EVENTS = 1 << 15

# state of an encoder, int64
_TAKEN, _OFFSET = range(2)


@kernel
def atis_bin_decode(raw: NDArray[np.uint8], offset_us: NDArray[np.int64], events: NDArray[np.void]) -> int:
    """Decode whole records.

    Parameters
    ----------
    raw
        uint8, shape (5 * n,).
    offset_us
        int64, shape (1,): time added by the overflow events so far; carried from chunk to chunk.
    events
        EVENT_DTYPE, shape (>= n,): written from the front.

    Returns
    -------
    n_events
        How many were written; overflow events are not among them.
    """
    n_events = 0
    offset = offset_us[0]
    for start in range(0, len(raw) - EVENT_BYTES + 1, EVENT_BYTES):
        row = raw[start + 1]
        if row == OVERFLOW_ROW:
            offset += OVERFLOW_US
            continue
        high = np.int64(raw[start + 2])
        event = events[n_events]
        event["t"] = offset + (((high & 127) << 16) | (np.int64(raw[start + 3]) << 8) | np.int64(raw[start + 4]))
        event["x"] = raw[start]
        event["y"] = row
        event["p"] = high >> 7
        n_events += 1
    offset_us[0] = offset
    return n_events


@kernel
def overflows_before(t_us: int, offset_us: int) -> int:
    """Return how many overflow events have to stand before an event at ``t_us``."""
    ahead_us = t_us - offset_us - TIME_SPAN_US
    return ahead_us // OVERFLOW_US + 1 if ahead_us >= 0 else 0


@kernel
def atis_bin_first_unfit(events: NDArray[np.void], offset_us: int) -> int:
    """Return the index of the first event that 40 bits cannot hold after ``offset_us`` of overflows, else n."""
    for index in range(len(events)):
        event = events[index]
        n_overflows = overflows_before(event["t"], offset_us)
        if event["x"] > 255 or event["y"] > 255 or event["y"] == OVERFLOW_ROW or n_overflows > _MOST_OVERFLOWS:
            return index
        offset_us += n_overflows * OVERFLOW_US
    return len(events)


@kernel
def atis_bin_encode(events: NDArray[np.void], state: NDArray[np.int64], raw: NDArray[np.uint8]) -> int:
    """Encode events that fit.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,), sorted by time.
    state
        int64, shape (2,), zeros at first: events taken by this call (as far as there was room; call again with the
        rest), time that overflow events have added so far.
    raw
        uint8, shape (>= 5,): written from the front.

    Returns
    -------
    n_bytes
        How many bytes were written.
    """
    at = 0
    offset = state[_OFFSET]
    taken = len(events)
    for index in range(len(events)):
        event = events[index]
        while event["t"] - offset >= TIME_SPAN_US and at + EVENT_BYTES <= len(raw):
            raw[at] = 0
            raw[at + 1] = OVERFLOW_ROW
            raw[at + 2] = 0
            raw[at + 3] = 0
            raw[at + 4] = 0
            at += EVENT_BYTES
            offset += OVERFLOW_US
        if at + EVENT_BYTES > len(raw):
            taken = index
            break
        time = event["t"] - offset
        raw[at] = event["x"]
        raw[at + 1] = event["y"]
        raw[at + 2] = (event["p"] << 7) | (time >> 16)
        raw[at + 3] = (time >> 8) & 255
        raw[at + 4] = time & 255
        at += EVENT_BYTES
    state[_TAKEN] = taken
    state[_OFFSET] = offset
    return at


def decode_atis_bin(raw: NDArray[np.uint8]) -> NDArray[np.void]:
    """Decode a whole recording held in memory.

    Parameters
    ----------
    raw
        uint8, shape (n_bytes,). Bytes after the last whole record are ignored; ``AtisBinDecoder`` reports them.

    Returns
    -------
    events
        EVENT_DTYPE, shape (n_events,), times as stored: not necessarily sorted if the file is damaged.
    """
    events = np.empty(len(raw) // EVENT_BYTES, EVENT_DTYPE)
    return events[: atis_bin_decode(_own(raw), np.zeros(1, np.int64), events)]


def encode_atis_bin(events: NDArray[np.void]) -> NDArray[np.uint8]:
    """Encode a recording.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,), sorted by time, times from 0 on, x < 256, y < 256 but not 240.

    Returns
    -------
    raw
        uint8, shape (n_bytes,).

    Raises
    ------
    FormatError
        The format cannot hold an event; the message names the first such one.
    """
    events = own(events)
    n_fit = atis_bin_first_unfit(events[: first_unfit(events, 0, 256, 256)], 0)
    if n_fit < len(events):
        event = events[n_fit]
        raise FormatError(
            f"event {n_fit} (t {event['t']} us, x {event['x']}, y {event['y']}, p {event['p']}): 40-bit .bin holds "
            f"{AtisBinWriter.holds}, polarity 0 or 1; crop the events, shift the times so that they begin near 0, or "
            f"write another format"
        )
    blocks = _encoded(events, np.zeros(2, np.int64))
    return np.frombuffer(bytearray().join(blocks), np.uint8)


def _encoded(events: NDArray[np.void], state: NDArray[np.int64]) -> Iterator[bytes]:
    """Encode events that fit, block by block."""
    raw = np.empty(_CHUNK_EVENTS * EVENT_BYTES, np.uint8)
    while len(events):
        n_bytes = atis_bin_encode(events, state, raw)
        events = events[int(state[_TAKEN]) :]
        yield raw[:n_bytes].tobytes()


class AtisBinDecoder:
    """One file, read from its first event each time it is iterated over.

    Parameters
    ----------
    path
        The file, or ``-`` for standard input.
    follow_s
        The file may still grow: it has ended when it has not for so long, seconds.
    chunk_events
        How many records are read at a time. It carries no meaning.
    """

    def __init__(self, path: Path, *, follow_s: float = 0.0, chunk_events: int = _CHUNK_EVENTS) -> None:
        self.path, self.follow_s, self.chunk_events = path, follow_s, max(1, chunk_events)
        self.start: Place | None = None  # where to begin, if not at the beginning
        self.place: Place | None = None  # where the chunk handed out last begins

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Decode the file.

        Yields
        ------
        events
            EVENT_DTYPE, shape (n,), n <= ``chunk_events``, times as stored. Empty: nothing yet. The memory is used
            again for the next array: copy what is to stay.

        Raises
        ------
        FormatError
            After everything that could be read was yielded: the size is no multiple of five bytes, or the disk failed.
        """
        begin, offset_us = self.start or Place(0, np.zeros(1, np.int64))
        offset_us = offset_us.copy()
        events = np.empty(self.chunk_events, EVENT_DTYPE)
        with ByteStream(self.path, begin=begin, follow_s=self.follow_s) as stream:
            self.bytes = stream  # whoever shows progress looks at its position
            for raw in stream.records(EVENT_BYTES, chunk_bytes=self.chunk_events * EVENT_BYTES):
                self.place = Place(stream.position - len(raw), offset_us.copy())
                yield events[: atis_bin_decode(raw, offset_us, events)]

    def losses(self) -> list[str]:
        """Nothing is left out."""
        return []


class AtisBinWriter(FlatWriter):
    """Write a file; see ``FlatWriter``. The format does not keep the sensor's size.

    Every 8 ms past the first 8.4 s cost an overflow event of five bytes.
    """

    name = "40-bit .bin"
    most_pixels = 256
    holds = "sorted times from 0 on without a silence of more than 38 h, x up to 255 and y up to 255 without 240"

    def _header(self) -> bytes:
        self._state = np.zeros(2, np.int64)
        return b""

    def _first_unfit(self, events: NDArray[np.void], last_us: int) -> int:
        return atis_bin_first_unfit(events, int(self._state[_OFFSET]))

    def _encode(self, events: NDArray[np.void]) -> Iterator[bytes]:
        return _encoded(events, self._state)


def read_atis_bin(path: Path) -> Iterator[NDArray[np.void]]:
    """Read a file piece by piece as ``AtisBinDecoder`` does, but into arrays that may be kept."""
    for events in AtisBinDecoder(path):
        yield events.copy()


def write_atis_bin(path: Path, events: NDArray[np.void]) -> None:
    """Write a whole recording; see ``encode_atis_bin`` for what it can hold. Nothing is written if it cannot."""
    encode_atis_bin(events).tofile(path)


def _own(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make an array contiguous and writable, so that the kernel has a single signature."""
    raw = np.ascontiguousarray(raw, np.uint8)
    return raw if raw.flags.writeable else raw.copy()
