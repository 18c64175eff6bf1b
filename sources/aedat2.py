"""AEDAT 2.0, the format of jAER since 2010: one decoder for the DVS128 and the DAVIS cameras.

A text header, then records of eight bytes, both halves big-endian::

    address u32, time u32 (us)

The header is lines that begin with ``#``; jAER puts all its preferences there, so it may be hundreds of kilobytes long.
It ends with ``#End Of ASCII Header``, or (files before 2016) at the first line that does not begin with ``#`` or holds
bytes that no text has: a DAVIS address may well begin with the byte 35, which is ``#``, but then a zero byte follows.

What an address means depends on the camera, which the line ``# AEChip:`` names. A file without that line is taken for
a DVS128, the only camera of its time.

========================= ======================================================== ======================
chip                      event                                                    not an event
========================= ======================================================== ======================
dvs128 (eDVS also)        y 14..8, x 7..1, polarity 0                              bit 15 or 31: external
davis240, davis346,       bit 31 = 0, bit 10 = 0: y 30..22, x 21..12, polarity 11  bit 10: external
davis640                                                                           bits 31, 11, 10: IMU
                                                                                   bit 31 else: APS pixel
========================= ======================================================== ======================

What the bits mean for a viewer's eyes, and who says so:

- *Rows* count from the bottom in all of them (format document; jAER's extractors and iniVation's libcaer agree), ours
  from the top: ``y = height - 1 - stored``.
- *Columns* are mirrored in all of them. The document says nothing of it, but jAER's extractors of the DVS128 and of
  the DAVIS both turn them round, libcaer does so for the DVS128, v2e for the DAVIS: ``x = width - 1 - stored``.
- *Polarity* of the DVS128: a stored 0 is *brighter*. The document says the opposite; jAER and libcaer both invert the
  bit ("hardware is like this"), and the recordings agree with them: in one of a moving dark box the events that run
  ahead of the motion have a stored 1. The eDVS reaches files as DVS128 addresses. The DAVIS stores 1 = brighter.

Documents: https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-2.0.html;
https://github.com/SensorsINI/jaer, classes DVS128, DavisChip and DavisBaseCamera; libcaer, ``dvs128.c``.

Times are unsigned (some recordings pass 2^31) and wrap after 71.6 minutes: a step down of more than half of the range
is a wrap, and once there was one, a step up of more than half of it is a late event from before. A smaller step down is
a time that went back and is handed out as such. A camera that was reset after more than 36 minutes looks like a wrap.

Records that name a pixel outside of the sensor are passed over and counted: mirrored, they would have no place.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sources.byte_runs import NOTHING_YET
from sources.byte_stream import ByteStream, Place, peek
from stream.errors import ConfigError, FormatError
from stream.jit import kernel
from stream.packet import EVENT_DTYPE

__all__ = ["CHIP_SIZES", "Aedat2Decoder", "Aedat2Header", "aedat2_header"]

CHIP_SIZES = {"dvs128": (128, 128), "davis240": (240, 180), "davis346": (346, 260), "davis640": (640, 480)}
"""Width and height in pixels of the chips that can be read."""

_RECORD_BYTES = 8
_CHUNK_RECORDS = 1 << 14
_MAGIC = b"#!AER-DAT2"
_MOST_HEADER_BYTES = 1 << 26  # jAER's preferences have been seen at 0.3 MB
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_HEADER_END = re.compile(rb"#\s*end of ascii header", re.IGNORECASE)
_AE_CHIP = re.compile(rb"#\s*aechip:\s*(\S+)", re.IGNORECASE)
# the last part of the Java class: variants of a chip (A, B, C, blue, red, Mono, ...) share size and addresses
_CHIP_NAMES = (
    (re.compile(r"e?dvs128|tmpdiff128"), "dvs128"),
    (re.compile(r"davis240[a-c]?|sbret[123]0|sbret21"), "davis240"),
    (re.compile(r"davis?346\w*"), "davis346"),  # aedat4to2 writes DAVI346
    (re.compile(r"davis640(mono|color)?"), "davis640"),
)

# state of a decoder, int64
_LAST_US, _EPOCH_US = range(2)
# counts of a decoder, int64
_EXTERNAL, _APS, _IMU, _OUTSIDE, _FOREIGN = range(5)


class Aedat2Header(NamedTuple):
    """What the text before the records says."""

    width: int  # pixels
    height: int
    header_bytes: int  # where the records begin
    chip: str  # one of CHIP_SIZES


@kernel
def unwrap_time(time: np.int64, state: NDArray[np.int64]) -> np.int64:
    """Extend a 32-bit time; ``state`` (int64, shape (2,)) holds the stored time before (-1 = none) and the epoch."""
    step = time - state[0]
    if state[0] >= 0:
        if step < -(1 << 31):
            state[1] += 1 << 32
        elif step > 1 << 31 and state[1] > 0:
            state[1] -= 1 << 32
    state[0] = time
    return np.int64(state[1] + time)


@kernel
def dvs128_decode(
    words: NDArray[np.uint32],
    raw: bool,
    width: int,
    height: int,
    state: NDArray[np.int64],
    counts: NDArray[np.int64],
    events: NDArray[np.void],
) -> int:
    """Decode records of a DVS128.

    Parameters
    ----------
    words
        uint32, shape (2 n,): address, time, address, ...
    raw
        Whether to hand out the bits as stored.
    width, height
        The sensor, pixels.
    state
        int64, shape (2,), see ``unwrap_time``; carried from call to call.
    counts
        int64, shape (5,): external words, APS words, IMU words, pixels outside, foreign words; added to.
    events
        EVENT_DTYPE, shape (>= n,): written from the front.

    Returns
    -------
    n_events
        How many were written.
    """
    n_events = 0
    for index in range(0, len(words) - 1, 2):
        address = np.int64(words[index])
        t_us = unwrap_time(np.int64(words[index + 1]), state)
        if address & 0x80008000:
            counts[_EXTERNAL] += 1
            continue
        if address >> 16:
            counts[_FOREIGN] += 1
            continue
        x, y, p = (address >> 1) & 127, (address >> 8) & 127, address & 1
        event = events[n_events]
        event["t"] = t_us
        event["x"] = x if raw else width - 1 - x
        event["y"] = y if raw else height - 1 - y
        event["p"] = p if raw else 1 - p
        n_events += 1
    return n_events


@kernel
def davis_decode(
    words: NDArray[np.uint32],
    raw: bool,
    width: int,
    height: int,
    state: NDArray[np.int64],
    counts: NDArray[np.int64],
    events: NDArray[np.void],
) -> int:
    """Decode records of a DAVIS; parameters and result as for ``dvs128_decode``."""
    n_events = 0
    for index in range(0, len(words) - 1, 2):
        address = np.int64(words[index])
        t_us = unwrap_time(np.int64(words[index + 1]), state)
        if address >> 31:
            counts[_IMU if (address >> 10) & 3 == 3 else _APS] += 1
            continue
        if (address >> 10) & 1:
            counts[_EXTERNAL] += 1
            continue
        x, y = (address >> 12) & 1023, (address >> 22) & 511
        if x >= width or y >= height:
            counts[_OUTSIDE] += 1
            continue
        event = events[n_events]
        event["t"] = t_us
        event["x"] = x if raw else width - 1 - x
        event["y"] = y if raw else height - 1 - y
        event["p"] = (address >> 11) & 1
        n_events += 1
    return n_events


def _text_end(head: bytes, is_all: bool) -> int | None:
    """Return where the header's lines end; None if that lies beyond ``head``, -1 if the last line is torn."""
    at = 0
    while True:
        if at == len(head):
            return at if is_all else None
        if head[at] != ord("#"):
            return at
        end = head.find(b"\n", at)
        line = head[at : end + 1] if end >= 0 else head[at:]
        if _NOT_TEXT.search(line):
            return at
        if end < 0:
            return -1 if is_all else None
        at = end + 1
        if _HEADER_END.match(line):
            return at


def aedat2_header(path: Path, *, chip: str = "auto") -> Aedat2Header:
    """Read the text header.

    Parameters
    ----------
    path
        The file, or ``-``, of which nothing is used up.
    chip
        One of ``CHIP_SIZES``, ``edvs``, or ``auto`` to believe the header.

    Raises
    ------
    ConfigError
        There is no such chip.
    FormatError
        This is not AEDAT 2.0, its header is torn, or it names a camera that cannot be read.
    """
    if chip not in (*CHIP_SIZES, "auto", "edvs"):
        raise ConfigError(f"chip: got {chip!r}, wanted auto, edvs or one of {', '.join(CHIP_SIZES)}; name one of them")
    n_bytes, end = 1 << 16, None
    while end is None:
        try:
            head = peek(path, n_bytes)
        except OSError as error:
            raise FormatError(
                f"{path}: cannot be read: {error.strerror or error}; check path and permissions"
            ) from error
        if not head.startswith(_MAGIC):
            raise FormatError(f"{path}: begins with {head[:12]!r}, wanted {_MAGIC!r}; it is not AEDAT 2.0")
        end = _text_end(head, len(head) < n_bytes)
        if end == -1 or (end is None and n_bytes >= _MOST_HEADER_BYTES):
            raise FormatError(
                f"{path}: the header has no end within {len(head)} bytes; wanted lines that begin with # and then "
                f"records; copy the file again"
            )
        n_bytes *= 4
    named = _AE_CHIP.search(head[:end])
    if chip == "auto":
        chip = "dvs128" if named is None else _chip_of(path, named[1].decode("latin-1"))
    chip = "dvs128" if chip == "edvs" else chip
    return Aedat2Header(*CHIP_SIZES[chip], end, chip)


def _chip_of(path: Path, java_class: str) -> str:
    name = java_class.rpartition(".")[2].lower()
    for pattern, chip in _CHIP_NAMES:
        if pattern.fullmatch(name):
            return chip
    raise FormatError(
        f"{path}: is a recording of {java_class[:80]}, wanted one of {', '.join(CHIP_SIZES)}; say chip = ... if its "
        f"addresses are those of one of them"
    )


class Aedat2Decoder:
    """One file, read from its first record each time it is iterated over.

    Parameters
    ----------
    path
        The file, or ``-`` for standard input.
    chip
        ``auto`` believes the header; else ``dvs128``, ``edvs`` (the same), ``davis240``, ``davis346``, ``davis640``.
    raw
        Hand out x, y and polarity as stored: x mirrored, y from the bottom, polarity of the DVS128 inverted.
    follow_s
        A file counts as ended only when it has not grown for so long, seconds.

    Attributes
    ----------
    width, height : int
        The sensor, pixels.
    chip : str
        What the addresses were taken for.

    Raises
    ------
    ConfigError, FormatError
        As ``aedat2_header``.
    """

    def __init__(self, path: Path, *, chip: str = "auto", raw: bool = False, follow_s: float = 0.0) -> None:
        self.path, self.raw, self._follow_s = path, raw, follow_s
        self.width, self.height, self.header_bytes, self.chip = aedat2_header(path, chip=chip)
        self.counts = np.zeros(5, np.int64)
        self.start: Place | None = None  # where to begin, if not at the beginning
        self.place: Place | None = None  # where the chunk handed out last begins

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
            After everything that could be read was yielded: the last record is torn, or the disk failed.
        """
        decode: Any = dvs128_decode if self.chip == "dvs128" else davis_decode
        begin, state = self.start or Place(self.header_bytes, np.array([-1, 0], np.int64))
        state, counts = state.copy(), np.zeros(5, np.int64)
        self.counts = counts
        words = np.empty(2 * _CHUNK_RECORDS, np.uint32)
        events = np.empty(_CHUNK_RECORDS, EVENT_DTYPE)
        with ByteStream(self.path, begin=begin, follow_s=self._follow_s) as stream:
            self.bytes = stream  # whoever shows progress looks at its position
            for block in stream.records(_RECORD_BYTES, chunk_bytes=_RECORD_BYTES * _CHUNK_RECORDS):
                if not len(block):
                    yield NOTHING_YET
                    continue
                self.place = Place(stream.position - len(block), state.copy())
                n_words = len(block) // 4
                words[:n_words] = block.view(">u4")
                n_events = decode(words[:n_words], bool(self.raw), self.width, self.height, state, counts, events)
                if n_events:
                    yield events[:n_events]

    def losses(self) -> list[str]:
        """Put into words what the file holds (as far as it was read) that is no event of the stream."""
        said = (
            "words of the external input were passed over",
            "words of grey values (APS) were passed over",
            "words of the motion sensor (IMU) were passed over",
            f"words name a pixel outside of {self.width}x{self.height} and were passed over",
            f"words have address bits that a {self.chip} has not and were passed over (is it another chip?)",
        )
        return [f"{count} {words}" for count, words in zip(self.counts.tolist(), said, strict=True) if count]
