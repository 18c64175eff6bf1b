"""Prophesee DAT files of change-detection events.

A text header of lines that begin with ``%`` (``% Version 2``, ``% Width 304``, ``% Height 240``), two bytes (event
type, event size 8), then 8 bytes an event, little-endian: uint32 time in us, uint32 address. In version 2 the address
holds x in bits 0..13, y in 14..27, polarity (1 = brighter) in 28..31; in version 1 x in 0..8, y in 9..16, polarity in
17. The origin is top left. The type is 0x0c for "CD" and 0x00 for "2d", the older name of the same thing (N-Cars is
written so). The format is described at https://docs.prophesee.ai/stable/data/file_formats/dat.html.

Times wrap after 71.6 min. A step back of more than half of that span is taken for a wrap; a smaller one is a time that
went back, and is handed out as such. Silence of more than 35.8 min across a wrap cannot be told from the file, so the
writer refuses it.

faery reads DAT, but refuses type 0x00, and no peer unwraps the times; hence this codec.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sources.byte_stream import ByteStream, Place
from sources.flat_writer import FlatWriter
from stream.jit import kernel
from stream.packet import EVENT_DTYPE

__all__ = ["EVENT_TYPES", "DatDecoder", "DatWriter"]

EVENT_TYPES = (0x00, 0x0C)
_EVENT_BYTES = 8
_CHUNK_EVENTS = 1 << 16
_WRAP_US = 1 << 32
_SIDE = 1 << 14  # pixels that an address can name

# state of a decoder or encoder, int64
_LAST, _EPOCH = range(2)


@kernel
def dat_decode(words: NDArray[np.uint32], version: int, state: NDArray[np.int64], events: NDArray[np.void]) -> int:
    """Decode whole records.

    Parameters
    ----------
    words
        uint32, shape (2 * n,): time and address of each event.
    version
        1 or 2.
    state
        int64, shape (2,), zeros at first, carried from call to call: the time of the last event as stored, and what
        its wraps have added.
    events
        EVENT_DTYPE, shape (>= n,): written from the front.

    Returns
    -------
    n_events
        n.
    """
    last, epoch = state[_LAST], state[_EPOCH]
    if version == 1:
        x_mask, y_shift, y_mask, p_shift, p_mask = 511, 9, 255, 17, 1
    else:
        x_mask, y_shift, y_mask, p_shift, p_mask = 16383, 14, 16383, 28, 15
    for index in range(len(words) // 2):
        stored = np.int64(words[2 * index])
        address = np.int64(words[2 * index + 1])
        if last - stored > _WRAP_US // 2:
            epoch += _WRAP_US
        last = stored
        event = events[index]
        event["t"] = epoch + stored
        event["x"] = address & x_mask
        event["y"] = (address >> y_shift) & y_mask
        event["p"] = ((address >> p_shift) & p_mask) != 0
    state[_LAST] = last
    state[_EPOCH] = epoch
    return len(words) // 2


@kernel
def dat_first_unfit(events: NDArray[np.void], last_us: int) -> int:
    """Return the index of the first event that no decoder could place in time after the one before."""
    for index in range(len(events)):
        t_us = events[index]["t"]
        wraps = t_us // _WRAP_US - last_us // _WRAP_US
        if wraps > 1 or (wraps == 1 and t_us - last_us >= _WRAP_US // 2):
            return index
        last_us = t_us
    return len(events)


@kernel
def dat_encode(events: NDArray[np.void], words: NDArray[np.uint32]) -> int:
    """Encode events that fit, EVENT_DTYPE (n,), as uint32 words (>= 2 * n,) of version 2; return how many words."""
    for index in range(len(events)):
        event = events[index]
        words[2 * index] = event["t"] & (_WRAP_US - 1)
        place = (np.int64(event["y"]) << 14) | np.int64(event["x"])
        words[2 * index + 1] = (np.int64(event["p"]) << 28) | place
    return 2 * len(events)


class DatDecoder:
    """One file, read from its first event each time it is iterated over.

    Parameters
    ----------
    path
        The file, or ``-`` for standard input.
    header_bytes
        Where the first event stands: after the text and the two bytes of type and size.
    version
        1 or 2.
    follow_s
        The file may still grow: it has ended when it has not for so long, seconds.
    """

    def __init__(self, path: Path, header_bytes: int, *, version: int = 2, follow_s: float = 0.0) -> None:
        self.path, self.header_bytes, self.version, self.follow_s = path, header_bytes, version, follow_s
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
            After everything that could be read was yielded: the last record is torn, or the disk failed.
        """
        begin, state = self.start or Place(self.header_bytes, np.zeros(2, np.int64))
        state = state.copy()
        events = np.empty(_CHUNK_EVENTS, EVENT_DTYPE)
        with ByteStream(self.path, begin=begin, follow_s=self.follow_s) as stream:
            self.bytes = stream  # whoever shows progress looks at its position
            for raw in stream.records(_EVENT_BYTES, chunk_bytes=_CHUNK_EVENTS * _EVENT_BYTES):
                self.place = Place(stream.position - len(raw), state.copy())
                yield events[: dat_decode(raw.view("<u4"), int(self.version), state, events)]

    def losses(self) -> list[str]:
        """Nothing is left out."""
        return []


class DatWriter(FlatWriter):
    """Write a file of version 2; see ``FlatWriter``. The sensor is at most 16384 pixels each way."""

    name = "DAT"
    most_pixels = _SIDE
    holds = "sorted times from 0 on (the first below 71.6 min, none after a silence of more than 35.8 min)"

    def _header(self) -> bytes:
        text = f"% Data file containing CD events.\n% Version 2\n% Height {self.height}\n% Width {self.width}\n"
        return text.encode() + bytes((EVENT_TYPES[1], _EVENT_BYTES))

    def _first_unfit(self, events: NDArray[np.void], last_us: int) -> int:
        return dat_first_unfit(events, last_us)

    def _encode(self, events: NDArray[np.void]) -> Iterator[bytes]:
        words = np.empty(2 * _CHUNK_EVENTS, np.uint32)
        for start in range(0, len(events), _CHUNK_EVENTS):
            n_words = dat_encode(events[start : start + _CHUNK_EVENTS], words)
            yield words[:n_words].tobytes()
