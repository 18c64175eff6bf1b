"""AEDAT 3.1 and 3.0, the formats of cAER: packets of events of one kind.

A text header (``#!AER-DAT3.1``, lines that begin with ``#``, at last ``#!END-HEADER``), then packets, everything in
them little-endian. Each packet begins with 28 bytes::

    type i16, source i16, event size i32, time offset i32, time overflow i32, capacity i32, number i32, valid i32

and goes on with ``capacity`` events of ``event size`` bytes, of which the first ``number`` are there and ``valid`` of
them are valid. Type 1 is change detection, eight bytes an event::

    data u32: valid 0, polarity 1 (1 = brighter), y 16..2, x 31..17
    time i32: us, 31 bits; the whole time is (overflow << 31) | time

The origin is top left in 3.1 and bottom left in 3.0, so that ``y = height - 1 - stored`` there. The file does not tell
the height, but names its camera.

All other kinds (special, frames, motion sensor, ...) are passed over and counted by name, events that are marked as not
valid, or whose time is negative, are dropped and counted. A file may hold several cameras ("sources"), each with a
clock of its own: one of them is read.

Document: https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-3.1.html (and aedat-3.0.html).
Only the format RAW is read; no software is known that writes one of the others.
"""

import re
import struct
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sources.byte_runs import ByteRuns
from sources.byte_stream import peek
from stream.errors import FormatError
from stream.jit import kernel
from stream.packet import EVENT_DTYPE

__all__ = ["Aedat3Decoder", "Aedat3Header", "aedat3_header"]

_MAGIC = re.compile(rb"#!AER-DAT3\.([01])\r?\n")
_HEADER_END = re.compile(rb"#!END-HEADER\r?\n")
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_MOST_HEADER_BYTES = 1 << 26
_PACKET = struct.Struct("<hhiiiiii")
_POLARITY = 1
_EVENT_BYTES = 8
_PIECE_EVENTS = 1 << 14  # a packet is read in pieces, so that memory does not depend on it
_KINDS = (
    *("special", "polarity", "frame", "6-axis motion", "9-axis motion", "ADC sample", "cochlea", "configuration"),
    *("1D point", "2D point", "3D point", "4D point", "spike", "matrix"),
)
# devices by the start of their names (old names too), width and height in pixels
_DEVICES = (
    (re.compile(r"dvs128|e-?dvs|tmpdiff128|davis128"), 128, 128),
    (re.compile(r"davis240|sbret"), 240, 180),
    (re.compile(r"davis208|pixelparade|sense?davis192"), 208, 192),
    (re.compile(r"davis346"), 346, 260),
    (re.compile(r"davis(het|rgbw?)?640|cdavis"), 640, 480),
    (re.compile(r"dvs132s"), 132, 104),
    (re.compile(r"dvxplorer"), 640, 480),
)

# counts of a decoder, int64
_INVALID, _NEGATIVE = range(2)


class Aedat3Header(NamedTuple):
    """What the text before the packets says."""

    version: str  # 3.0 or 3.1
    header_bytes: int  # where the packets begin
    devices: dict[int, str]  # name by source


@kernel
def aedat3_decode(
    words: NDArray[np.uint32],
    overflow_us: int,
    flip_height: int,
    counts: NDArray[np.int64],
    events: NDArray[np.void],
) -> int:
    """Decode the events of a polarity packet, or of a part of it.

    Parameters
    ----------
    words
        uint32, shape (2 n,): data, time, data, ...
    overflow_us
        Added to each time.
    flip_height
        0 = hand out y as stored, else ``y = flip_height - 1 - stored``; a stored row outside of it becomes 65535.
    counts
        int64, shape (2,): events that are not valid, that have a negative time; added to.
    events
        EVENT_DTYPE, shape (>= n,): written from the front.

    Returns
    -------
    n_events
        How many were written.
    """
    n_events = 0
    for index in range(0, len(words) - 1, 2):
        data, time = np.int64(words[index]), np.int64(words[index + 1])
        if data & 1 == 0:
            counts[_INVALID] += 1
            continue
        if time >> 31:
            counts[_NEGATIVE] += 1
            continue
        y = (data >> 2) & 0x7FFF
        if flip_height:
            y = flip_height - 1 - y if y < flip_height else np.int64(65535)
        event = events[n_events]
        event["t"] = overflow_us + time
        event["x"] = data >> 17
        event["y"] = y
        event["p"] = (data >> 1) & 1
        n_events += 1
    return n_events


def _text_end(head: bytes, is_all: bool, needs_end: bool) -> int | None:
    """Return where the header's lines end; None if that lies beyond ``head``, -1 if they are torn."""
    at = 0
    while at < len(head) and head[at] == ord("#"):
        end = head.find(b"\n", at)
        line = head[at : end + 1] if end >= 0 else head[at:]
        if _NOT_TEXT.search(line):
            break
        if end < 0:
            return -1 if is_all else None
        at = end + 1
        if _HEADER_END.match(line):
            return at
    if at == len(head) and not is_all:
        return None
    return -1 if needs_end else at


def aedat3_header(path: Path) -> Aedat3Header:
    """Read the text header; of standard input (``-``) nothing is used up.

    Raises
    ------
    FormatError
        This is not AEDAT 3, its header is torn, or its packets are of another format than RAW.
    """
    n_bytes, end, magic = 1 << 16, None, None
    while end is None:
        try:
            head = peek(path, n_bytes)
        except OSError as error:
            raise FormatError(
                f"{path}: cannot be read: {error.strerror or error}; check path and permissions"
            ) from error
        magic = _MAGIC.match(head)
        if magic is None:
            raise FormatError(
                f"{path}: begins with {head[:14]!r}, wanted #!AER-DAT3.1 or #!AER-DAT3.0; it is not AEDAT 3, or was "
                f"cut off"
            )
        end = _text_end(head, len(head) < n_bytes, magic[1] == b"1")
        if end == -1 or (end is None and n_bytes >= _MOST_HEADER_BYTES):
            raise FormatError(
                f"{path}: the header has no end within {len(head)} bytes; wanted lines that begin with #, the last of "
                f"them #!END-HEADER; copy the file again"
            )
        n_bytes *= 4
    text = head[:end].decode("latin-1")
    format_name = re.search(r"^#\s*Format:\s*(\S+)", text, re.MULTILINE)
    if format_name is not None and format_name[1].upper() != "RAW":
        raise FormatError(
            f"{path}: its packets have the format {format_name[1][:40]}, wanted RAW; convert it with the tool that "
            f"wrote it"
        )
    devices = {
        int(number): name.strip() for number, name in re.findall(r"^#\s*Source\s+(\d{1,5}):([^\r\n]*)", text, re.M)
    }
    return Aedat3Header("3.1" if magic is not None and magic[1] == b"1" else "3.0", end, devices)


def _device_size(name: str) -> tuple[int, int] | None:
    """Return a camera's width and height, None if it is not known."""
    name = name.lower().replace(" ", "")
    return next(((width, height) for pattern, width, height in _DEVICES if pattern.match(name)), None)


class Aedat3Decoder:
    """One file, read from its first packet each time it is iterated over.

    Parameters
    ----------
    path
        The file, or ``-`` for standard input.
    source
        Number of the camera to read; None = the first that the header names, or that sends events.
    raw
        Hand out y as stored. It makes a difference in 3.0 only.
    follow_s
        A file counts as ended only when it has not grown for so long, seconds.

    Attributes
    ----------
    width, height : int or None
        The sensor, pixels, if the camera that the header names is a known one.

    Raises
    ------
    FormatError
        As ``aedat3_header``; or the rows of a 3.0 file cannot be turned because the height is not known.
    """

    def __init__(self, path: Path, *, source: int | None = None, raw: bool = False, follow_s: float = 0.0) -> None:
        self.path, self.source, self.raw, self._follow_s = path, source, raw, follow_s
        self.header = aedat3_header(path)
        devices = self.header.devices
        size = _device_size(devices.get(min(devices, default=0) if source is None else source, ""))
        self.width: int | None = None if size is None else size[0]
        self.height: int | None = None if size is None else size[1]
        if size is None and self.header.version == "3.0" and not raw:
            raise FormatError(
                f"{path}: is AEDAT 3.0, which counts rows from the bottom, of a camera of unknown height "
                f"({', '.join(devices.values()) or 'none named'}); read it with raw and turn the rows yourself"
            )
        self.counts = np.zeros(2, np.int64)
        self._passed: Counter[str] = Counter()

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Decode the file.

        Yields
        ------
        events
            EVENT_DTYPE, shape (n,): as they stand in the file, times may step back. The memory is used again for the
            next array. Empty: nothing yet.

        Raises
        ------
        FormatError
            After everything that could be read was yielded: a packet is torn or makes no sense, or the disk failed.
        """
        self.counts, self._passed = np.zeros(2, np.int64), Counter()
        source = min(self.header.devices, default=None) if self.source is None else self.source
        flip_height = self.height if self.header.version == "3.0" and not self.raw and self.height else 0
        events = np.empty(_PIECE_EVENTS, EVENT_DTYPE)
        with ByteRuns(self.path, begin=self.header.header_bytes, follow_s=self._follow_s) as runs:
            while True:
                begin = runs.position
                head = yield from runs.take(_PACKET.size)
                if not len(head):
                    return
                if len(head) < _PACKET.size:
                    raise self._torn(begin, runs.position, _PACKET.size)
                kind, of_source, size, time_at, overflow, capacity, number, valid = _PACKET.unpack(head.data)
                if kind < 0 or size <= 0 or overflow < 0 or not 0 <= valid <= number <= capacity:
                    got = f"type {kind}, size {size}, overflow {overflow}, {valid} of {number} valid, room {capacity}"
                    raise self._nonsense(begin, got)
                if kind != _POLARITY:
                    yield from self._pass_over(runs, begin, size * capacity)
                    self._passed[_KINDS[kind] if kind < len(_KINDS) else f"type {kind}"] += number
                    continue
                if size != _EVENT_BYTES or time_at != 4:
                    raise self._nonsense(begin, f"polarity events of {size} bytes with their time at byte {time_at}")
                source = of_source if source is None else source
                if of_source != source:
                    yield from self._pass_over(runs, begin, size * capacity)
                    self._passed[f"polarity (of source {of_source})"] += number
                    continue
                left = number
                while left:
                    piece = yield from runs.take(_EVENT_BYTES * min(left, _PIECE_EVENTS))
                    whole = len(piece) // _EVENT_BYTES
                    words = piece[: whole * _EVENT_BYTES].view("<u4")
                    n_events = aedat3_decode(words, int(overflow) << 31, int(flip_height), self.counts, events)
                    if n_events:
                        yield events[:n_events]
                    if whole < min(left, _PIECE_EVENTS):
                        raise self._torn(begin, runs.position, _PACKET.size + size * capacity)
                    left -= whole
                yield from self._pass_over(runs, begin, size * (capacity - number))

    def _pass_over(self, runs: ByteRuns, begin: int, n_bytes: int) -> Generator[NDArray[np.void], None, None]:
        wanted = runs.position + n_bytes
        while runs.position < wanted:
            before = runs.position
            yield from runs.take(min(wanted - runs.position, 1 << 17))
            if runs.position == before:
                raise self._torn(begin, runs.position, wanted - begin)

    def _torn(self, begin: int, end: int, wanted: int) -> FormatError:
        return FormatError(
            f"{self.path}: torn packet at byte {begin} of {end}: got {end - begin} bytes, wanted {wanted}; everything "
            f"before was read, copy the file again for the rest"
        )

    def _nonsense(self, begin: int, got: str) -> FormatError:
        return FormatError(
            f"{self.path}: damaged at byte {begin}: got a packet of {got}; wanted counts that fit each other; "
            f"everything before was read, copy the file again for the rest"
        )

    def losses(self) -> list[str]:
        """Put into words what the file holds (as far as it was read) that is no event of the stream."""
        said = ("polarity events marked as not valid were dropped", "polarity events with a negative time were dropped")
        told = [f"{count} {words}" for count, words in zip(self.counts.tolist(), said, strict=True) if count]
        return told + [f"{count} {kind} events were passed over" for kind, count in sorted(self._passed.items())]
