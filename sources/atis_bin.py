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

from stream.errors import FormatError
from stream.jit import kernel
from stream.packet import EVENT_DTYPE

__all__ = [
    "EVENT_BYTES",
    "OVERFLOW_ROW",
    "OVERFLOW_US",
    "decode_atis_bin",
    "encode_atis_bin",
    "read_atis_bin",
    "write_atis_bin",
]

EVENT_BYTES = 5
OVERFLOW_ROW = 240
OVERFLOW_US = 1 << 13
TIME_SPAN_US = 1 << 23

# Every 8 ms past the first 8.4 s cost an overflow event; absolute times (microseconds since 1970) would cost 10^11.
_MOST_OVERFLOWS = 1 << 24


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
def atis_bin_records(events: NDArray[np.void]) -> int:
    """Count the records that ``atis_bin_encode`` will write, or return ``-1 - index`` of an event it cannot write."""
    n_records = len(events)
    offset = 0
    last = 0
    for index in range(len(events)):
        event = events[index]
        t_us = event["t"]
        if t_us < last or event["x"] > 255 or event["y"] > 255 or event["y"] == OVERFLOW_ROW:
            return -1 - index
        last = t_us
        if t_us - offset >= TIME_SPAN_US:
            n_overflows = (t_us - offset - TIME_SPAN_US) // OVERFLOW_US + 1
            n_records += n_overflows
            offset += n_overflows * OVERFLOW_US
    return n_records


@kernel
def atis_bin_encode(events: NDArray[np.void], raw: NDArray[np.uint8]) -> int:
    """Encode events that ``atis_bin_records`` has found fit.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,), sorted by time.
    raw
        uint8, shape (>= 5 * atis_bin_records(events),).

    Returns
    -------
    n_bytes
        How many bytes were written.
    """
    at = 0
    offset = 0
    for index in range(len(events)):
        event = events[index]
        while event["t"] - offset >= TIME_SPAN_US:
            raw[at] = 0
            raw[at + 1] = OVERFLOW_ROW
            raw[at + 2] = 0
            raw[at + 3] = 0
            raw[at + 4] = 0
            at += EVENT_BYTES
            offset += OVERFLOW_US
        time = event["t"] - offset
        raw[at] = event["x"]
        raw[at + 1] = event["y"]
        raw[at + 2] = (event["p"] << 7) | (time >> 16)
        raw[at + 3] = (time >> 8) & 255
        raw[at + 4] = time & 255
        at += EVENT_BYTES
    return at


def decode_atis_bin(raw: NDArray[np.uint8]) -> NDArray[np.void]:
    """Decode a whole recording held in memory.

    Parameters
    ----------
    raw
        uint8, shape (n_bytes,). Bytes after the last whole record are ignored; ``read_atis_bin`` reports them.

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
    events = np.ascontiguousarray(events, EVENT_DTYPE)
    if not events.flags.writeable:  # a read-only array would compile the kernels a second time
        events = events.copy()
    n_records = atis_bin_records(events)
    if n_records < 0:
        event = events[-1 - n_records]
        raise FormatError(
            f"event {-1 - n_records} (t {event['t']} us, x {event['x']}, y {event['y']}): "
            f"40-bit .bin holds sorted times from 0 on, x up to 255 and y up to 255 without 240; "
            f"crop or shift the events, or write another format"
        )
    if n_records - len(events) > _MOST_OVERFLOWS:
        raise FormatError(
            f"last event at {events['t'][-1]} us: 40-bit .bin would need {n_records - len(events)} overflow records "
            f"for it, wanted at most {_MOST_OVERFLOWS}; shift the times so that they begin near 0"
        )
    raw = np.empty(n_records * EVENT_BYTES, np.uint8)
    return raw[: atis_bin_encode(events, raw)]


def read_atis_bin(path: Path, *, chunk_events: int = 65536) -> Iterator[NDArray[np.void]]:
    """Read a file piece by piece.

    Yields
    ------
    events
        EVENT_DTYPE, shape (n,), n <= ``chunk_events``.

    Raises
    ------
    FormatError
        After everything that could be read was yielded: the size is no multiple of five bytes, or the disk failed.
    """
    offset_us = np.zeros(1, np.int64)
    at = 0
    with path.open("rb") as file:
        while True:
            try:
                block = file.read(chunk_events * EVENT_BYTES)
            except OSError as error:
                raise FormatError(f"{path}: reading failed at byte {at}: {error}; what came before was read") from error
            whole = len(block) // EVENT_BYTES * EVENT_BYTES
            if whole:
                events = np.empty(whole // EVENT_BYTES, EVENT_DTYPE)
                n_events = atis_bin_decode(np.frombuffer(bytearray(block[:whole]), np.uint8), offset_us, events)
                yield events[:n_events]
            at += whole
            if len(block) > whole:
                raise FormatError(
                    f"{path}: torn record at byte {at} of {at + len(block) - whole}: got {len(block) - whole} bytes, "
                    f"wanted 5; everything before was read, copy the file again for the rest"
                )
            if not block:
                return


def write_atis_bin(path: Path, events: NDArray[np.void]) -> None:
    """Write a recording; see ``encode_atis_bin`` for what it can hold."""
    encode_atis_bin(events).tofile(path)


def _own(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make an array contiguous and writable, so that the kernel has a single signature."""
    raw = np.ascontiguousarray(raw, np.uint8)
    return raw if raw.flags.writeable else raw.copy()
