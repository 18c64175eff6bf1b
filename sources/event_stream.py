"""Event Stream (``.es``): changes of DVS and ATIS cameras, five bytes each and a little for silence.

Magic ``Event Stream``, three bytes of version, one of type (1 = dvs, 2 = atis), width and height as uint16, all
little-endian; then, from byte 20 on::

    dvs    dt << 1 | p          x, x >> 8, y, y >> 8      dt below 127: us since the event before
           0xff                                           127 us more to the next event
           0xfe                                           reset: carries nothing
    atis   dt << 2 | p << 1 | e   x, x >> 8, y, y >> 8    dt below 63; e = 1: a threshold crossing
           0xfc | n                                       n times 63 us more to the next event; n = 0: reset

p = 1 is brighter. **y counts from the bottom**: it is turned to our top-left origin (``height - 1 - y``) unless the
stored bits are asked for. faery turns it too, the package ``event_stream`` of the format's authors does not. (A row
past the sensor stays past it when turned: the arithmetic is modulo 65536.)

An ATIS measures exposure as the time between two threshold crossings of a pixel. These are no changes of
brightness: they are passed over and counted. Their times count, since the next event's time is told from theirs.

A writer puts six resets in a row where it fears bit errors, so that at least one of them is taken for what it is. There
is no other way to find one's place again after a lost byte, and no length in the header: a file that was cut within an
event is told as torn, one that was cut between two events reads as a shorter one.

Only version 2 is read. Older versions pack their events otherwise and have no size in the header; their published
descriptions contradict each other, and no such file was there to decide between them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.byte_stream import ByteStream, peek
from sources.flat_writer import FlatWriter
from stream.errors import FormatError
from stream.jit import kernel
from stream.packet import EVENT_DTYPE

__all__ = ["EventStreamDecoder", "EventStreamWriter"]

_HEADER_BYTES = 20
_EVENT_BYTES = 5
_CHUNK_BYTES = 1 << 17
_TYPES = {0: "generic", 1: "dvs", 2: "atis", 3: "amd (display)", 4: "color"}
_MOST_SILENCE_US = 127 << 24  # 35.5 min as 16 MB of 0xff; times since 1970 would be 10^13 bytes

# state of a decoder, int64
_TAKEN, _TIME, _CROSSINGS = range(3)


@kernel
def es_dvs_decode(raw: NDArray[np.uint8], height: int, state: NDArray[np.int64], events: NDArray[np.void]) -> int:
    """Decode the bytes of dvs events.

    Parameters
    ----------
    raw
        uint8, shape (n_bytes,), from the first byte of an event on.
    height
        y becomes ``height - 1 - y``; 0 = leave it as it is.
    state
        int64, shape (3,), zeros at first: bytes taken by this call (an event that is not whole is left for the next),
        time so far, threshold crossings so far.
    events
        EVENT_DTYPE, shape (>= n_bytes // 5,): written from the front.

    Returns
    -------
    n_events
        How many were written.
    """
    n_events = 0
    t_us = state[_TIME]
    at = 0
    while at < len(raw):
        first = np.int64(raw[at])
        if first >= 0xFE:
            t_us += 127 * (first & 1)
            at += 1
            continue
        if at + _EVENT_BYTES > len(raw):
            break
        t_us += first >> 1
        y = np.int64(raw[at + 3]) | (np.int64(raw[at + 4]) << 8)
        event = events[n_events]
        event["t"] = t_us
        event["x"] = np.int64(raw[at + 1]) | (np.int64(raw[at + 2]) << 8)
        event["y"] = (height - 1 - y) & 65535 if height else y
        event["p"] = first & 1
        n_events += 1
        at += _EVENT_BYTES
    state[_TAKEN] = at
    state[_TIME] = t_us
    return n_events


@kernel
def es_atis_decode(raw: NDArray[np.uint8], height: int, state: NDArray[np.int64], events: NDArray[np.void]) -> int:
    """Decode the bytes of atis events, as ``es_dvs_decode`` does those of dvs events; crossings are counted only."""
    n_events = 0
    t_us = state[_TIME]
    at = 0
    while at < len(raw):
        first = np.int64(raw[at])
        if first >= 0xFC:
            t_us += 63 * (first & 3)
            at += 1
            continue
        if at + _EVENT_BYTES > len(raw):
            break
        t_us += first >> 2
        if first & 1:
            state[_CROSSINGS] += 1
        else:
            y = np.int64(raw[at + 3]) | (np.int64(raw[at + 4]) << 8)
            event = events[n_events]
            event["t"] = t_us
            event["x"] = np.int64(raw[at + 1]) | (np.int64(raw[at + 2]) << 8)
            event["y"] = (height - 1 - y) & 65535 if height else y
            event["p"] = (first >> 1) & 1
            n_events += 1
        at += _EVENT_BYTES
    state[_TAKEN] = at
    state[_TIME] = t_us
    return n_events


@kernel
def es_first_unfit(events: NDArray[np.void], last_us: int) -> int:
    """Return the index of the first event that comes after too long a silence."""
    for index in range(len(events)):
        if events[index]["t"] - last_us > _MOST_SILENCE_US:
            return index
        last_us = events[index]["t"]
    return len(events)


@kernel
def es_dvs_encode(events: NDArray[np.void], height: int, state: NDArray[np.int64], raw: NDArray[np.uint8]) -> int:
    """Encode events as dvs.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,), that fit.
    height
        Of the sensor, pixels.
    state
        int64, shape (3,), zeros at first: events taken by this call (as far as there was room; call again with the
        rest), time so far.
    raw
        uint8, shape (>= 5,): written from the front.

    Returns
    -------
    n_bytes
        How many were written.
    """
    n_bytes = 0
    t_us = state[_TIME]
    taken = len(events)
    for index in range(len(events)):
        event = events[index]
        while event["t"] - t_us >= 127 and n_bytes < len(raw):
            raw[n_bytes] = 0xFF
            n_bytes += 1
            t_us += 127
        if event["t"] - t_us >= 127 or n_bytes + _EVENT_BYTES > len(raw):
            taken = index
            break
        y = height - 1 - np.int64(event["y"])
        raw[n_bytes] = ((event["t"] - t_us) << 1) | event["p"]
        raw[n_bytes + 1] = event["x"] & 255
        raw[n_bytes + 2] = event["x"] >> 8
        raw[n_bytes + 3] = y & 255
        raw[n_bytes + 4] = y >> 8
        n_bytes += _EVENT_BYTES
        t_us = event["t"]
    state[_TAKEN] = taken
    state[_TIME] = t_us
    return n_bytes


_KERNELS: dict[str, Any] = {"dvs": es_dvs_decode, "atis": es_atis_decode}


class EventStreamDecoder:
    """One file, read from its first event each time it is iterated over.

    Parameters
    ----------
    path
        The file, or ``-`` for standard input.
    raw
        Leave y as it is stored, counted from the bottom.
    follow_s
        The file may still grow: it has ended when it has not for so long, seconds.

    Attributes
    ----------
    width, height : int
        The sensor, pixels.
    kind : str
        ``dvs`` or ``atis``.

    Raises
    ------
    FormatError
        The header is cut off, or tells of a version or of a type that holds no changes.
    """

    def __init__(self, path: Path, *, raw: bool = False, follow_s: float = 0.0) -> None:
        self.path, self.raw, self.follow_s = path, raw, follow_s
        head = peek(path, _HEADER_BYTES)
        if not head.startswith(b"Event Stream"[: len(head)]):
            raise FormatError(f"{path}: begins with {head[:12]!r}, wanted 'Event Stream'; it is another format")
        if len(head) >= 15 and head[12] != 2:
            raise FormatError(
                f"{path}: is Event Stream of version {head[12]}.{head[13]}.{head[14]}, wanted version 2; convert it "
                f"with the tool that wrote it"
            )
        kind = _TYPES.get(head[15], f"type {head[15]}") if len(head) >= 16 else "dvs"
        if kind not in _KERNELS:
            raise FormatError(
                f"{path}: is an Event Stream file of {kind} events, wanted dvs or atis; convert it with the tool that "
                f"wrote it"
            )
        if len(head) < _HEADER_BYTES:
            raise FormatError(
                f"{path}: the header ends at byte {len(head)}, wanted {_HEADER_BYTES} bytes; copy the file again"
            )
        self.kind = kind
        self.width = int.from_bytes(head[16:18], "little")
        self.height = int.from_bytes(head[18:20], "little")
        self._state = np.zeros(3, np.int64)

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Decode the file.

        Yields
        ------
        events
            EVENT_DTYPE, shape (n,): as they stand in the file. Empty: nothing yet. The memory is used again for the
            next array: copy what is to stay.

        Raises
        ------
        FormatError
            After everything that could be read was yielded: the last event is torn, or the disk failed.
        """
        decode = _KERNELS[self.kind]
        height = 0 if self.raw else self.height
        state = self._state = np.zeros(3, np.int64)
        buffer = np.empty(_CHUNK_BYTES + _EVENT_BYTES, np.uint8)
        events = np.empty(len(buffer) // _EVENT_BYTES, EVENT_DTYPE)
        left = 0  # bytes of an event that is not whole yet, at the front of the buffer
        with ByteStream(self.path, begin=_HEADER_BYTES, follow_s=self.follow_s) as stream:
            self.bytes = stream  # whoever shows progress looks at its position
            for raw in stream.records(1, chunk_bytes=_CHUNK_BYTES):
                end = left + len(raw)
                buffer[left:end] = raw
                n_events = decode(buffer[:end], height, state, events)
                taken = int(state[_TAKEN])
                left = end - taken
                buffer[:left] = buffer[taken:end].copy()
                yield events[:n_events]
            if left:
                raise FormatError(
                    f"{self.path}: torn event at byte {stream.position - left} of {stream.position}: got {left} bytes, "
                    f"wanted {_EVENT_BYTES}; everything before was read, copy the file again for the rest"
                )

    def losses(self) -> list[str]:
        """Put into words what the file holds (as far as it was read) that is no event of the stream."""
        crossings = int(self._state[_CROSSINGS])
        return [f"{crossings} threshold crossings (exposure, not change) were passed over"] if crossings else []


class EventStreamWriter(FlatWriter):
    """Write a dvs file of version 2.0.0; see ``FlatWriter``. A silence may last 35 min."""

    name = "Event Stream"
    most_pixels = 65535
    holds = "sorted times from 0 on without a silence of more than 35 min"

    def _header(self) -> bytes:
        self._state = np.zeros(3, np.int64)
        size = self.width.to_bytes(2, "little") + self.height.to_bytes(2, "little")
        return b"Event Stream" + bytes((2, 0, 0, 1)) + size

    def _first_unfit(self, events: NDArray[np.void], last_us: int) -> int:
        return es_first_unfit(events, last_us)

    def _encode(self, events: NDArray[np.void]) -> Iterator[bytes]:
        raw = np.empty(_CHUNK_BYTES, np.uint8)
        while len(events):
            n_bytes = es_dvs_encode(events, int(self.height), self._state, raw)
            events = events[int(self._state[_TAKEN]) :]
            yield raw[:n_bytes].tobytes()
