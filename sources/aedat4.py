r"""AEDAT 4.0, the format of iniVation's DV: events, frames and motion samples in compressed packets.

::

    #!AER-DAT4.0\r\n
    header    FlatBuffer IOHE: compression, place of the index (-1 = none), the streams in words (XML)
    packets   stream i32, size i32, then size bytes: a compressed FlatBuffer (EVTS, FRME, IMUS, TRIG)
    index     compressed FlatBuffer FTAB: place, size, number of elements and times of each packet

All integers are little-endian. A FlatBuffer is preceded by its size (u32). Compression is none, LZ4 or Zstandard, one
frame a packet. Times are us since 1970, polarity 1 = brighter, the origin is top left: the bits are ours as they
stand. Coordinates are signed in the file; a negative one comes out above 32767, outside of any sensor.

A file may hold several event streams (cameras): one of them is read. Packets of other streams are passed over and
counted; ``read_aedat4_frames`` and ``read_aedat4_imu`` read two kinds of them.

What a reader can know of a damaged file, this one tells: a packet that is cut off, that no stream of the header owns,
that does not decompress or whose FlatBuffer leads outside of itself; an index that the header promises and that is
missing, torn, or tells of other packets than were found. A cut between two packets of a file without an index cannot be
told. Nothing is decompressed to more than 256 MB.

Roads not taken, all seen: faery aborts the process on some single flipped bits and cannot open a file whose last packet
is torn; dv-processing never returns from some damaged packets, and opens no file whose index is missing. So the
containers are walked here, in plain Python, once a packet; the libraries lz4 and backports.zstd decompress.

Document: https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-4.0.html, and the schemas of
dv-processing (https://gitlab.com/inivation/dv/dv-processing).
"""

import importlib
import struct
import time
from array import array
from collections import Counter
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from sources.byte_runs import NOTHING_YET, ByteRuns
from sources.byte_stream import STANDARD_INPUT, peek
from sources.flat_writer import FlatWriter
from stream.errors import ConfigError, FormatError
from stream.jit import kernel
from stream.packet import EVENT_DTYPE

__all__ = [
    "IMU_DTYPE",
    "Aedat4Compression",
    "Aedat4Decoder",
    "Aedat4Frame",
    "Aedat4Header",
    "Aedat4Stream",
    "Aedat4Writer",
    "aedat4_header",
    "read_aedat4_frames",
    "read_aedat4_imu",
]

Aedat4Compression: TypeAlias = Literal["none", "lz4", "zstd"]

IMU_DTYPE = np.dtype(
    [
        ("t", "<i8"),  # us
        ("temperature", "<f4"),  # degrees Celsius
        *[(f"accelerometer_{axis}", "<f4") for axis in "xyz"],  # g
        *[(f"gyroscope_{axis}", "<f4") for axis in "xyz"],  # degrees per second
        *[(f"magnetometer_{axis}", "<f4") for axis in "xyz"],  # uT
    ]
)
"""One sample of the motion sensor."""

_MAGIC = b"#!AER-DAT4.0\r\n"
_EVENTS, _FRAME, _IMU = "EVTS", "FRME", "IMUS"
_KINDS = {_EVENTS: "events", _FRAME: "frames", _IMU: "motion samples", "TRIG": "triggers"}
_COMPRESSIONS = ("none", "lz4", "lz4", "zstd", "zstd")  # LZ4_HIGH and ZSTD_HIGH decompress like the others
# three bytes of padding, left unnamed: Numba has no type for them
_STORED_EVENT = np.dtype(
    {"names": ["t", "x", "y", "p"], "formats": ["<i8", "<u2", "<u2", "u1"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)
_FRAMING_BYTES = 32  # of an event packet's FlatBuffer: everything but the events
_PACKET_EVENTS = 10_000  # of those that are written
_MOST_BYTES = 1 << 28  # of a packet, compressed or not: 16 million events, or the largest of frames
_MOST_HEADER_BYTES = 1 << 24
_MOST_PIXELS = 32768  # each way: coordinates are signed 16-bit
_DAMAGE = (struct.error, ValueError, IndexError)  # what reading past the end of a FlatBuffer raises

# a stored index entry, reached through one vtable that all entries share
_INDEX_ENTRY = np.dtype(
    [("vtable", "<i4"), ("at", "<i8"), ("n", "<i8"), ("first", "<i8"), ("last", "<i8"), ("stream", "<i4"),
     ("size", "<i4"), ("padding", "V4")]
)  # fmt: skip


class Aedat4Stream(NamedTuple):
    """One stream that the header declares."""

    number: int
    kind: str  # EVTS, FRME, IMUS, TRIG, ...
    width: int | None  # pixels, where declared
    height: int | None
    camera: str


class Aedat4Header(NamedTuple):
    """What stands before the packets."""

    header_bytes: int  # where the packets begin
    compression: str  # none, lz4 or zstd
    index_at: int  # byte of the index, -1 = none
    streams: dict[int, Aedat4Stream]


class Aedat4Frame(NamedTuple):
    """One image."""

    t_us: int  # as stored: DV puts the middle of the exposure
    exposure_start_us: int  # 0 = not told
    exposure_end_us: int
    x: int  # of its upper left corner on the sensor, pixels
    y: int
    pixels: NDArray[Any]  # (height, width) or, in the order blue, green, red (, opacity), (height, width, channels)


class _Packet(NamedTuple):
    at: int  # byte in the file
    stream: int
    body: NDArray[np.uint8]  # compressed


# --- FlatBuffers, as much of them as is needed -----------------------------------------------------------------------


def _root(data: bytes, identifier: str) -> int:
    """Return where the root table stands in a size-prefixed buffer; ValueError if it is another one."""
    size, offset = struct.unpack_from("<II", data)
    if size != len(data) - 4 or data[8:12] != identifier.encode():
        raise ValueError(f"no {identifier} of {len(data)} bytes")
    return int(4 + offset)


def _field(data: bytes, table: int, index: int) -> int:
    """Return where a field of a table stands, 0 if it is left out."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise ValueError("vtable before the buffer")
    if 4 + 2 * index >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * index)[0]
    return int(table + offset) if offset else 0


def _value(data: bytes, table: int, index: int, code: str, default: int = 0) -> Any:
    """Return a number."""
    at = _field(data, table, index)
    return struct.unpack_from("<" + code, data, at)[0] if at else default


def _vector(data: bytes, table: int, index: int) -> tuple[int, int]:
    """Return the place and the length of a vector or string, (0, 0) if it is left out."""
    at = _field(data, table, index)
    if not at:
        return 0, 0
    at += struct.unpack_from("<I", data, at)[0]
    return int(at + 4), int(struct.unpack_from("<I", data, at)[0])


def _tables(data: bytes, table: int, index: int) -> Iterator[int]:
    """Yield where the tables of a vector of them stand."""
    start, length = _vector(data, table, index)
    if 4 * length > len(data) - start:
        raise ValueError("vector past the end")
    for at in range(start, start + 4 * length, 4):
        yield at + struct.unpack_from("<I", data, at)[0]


# --- Header, compression, packets ------------------------------------------------------------------------------------


def aedat4_header(path: Path) -> Aedat4Header:
    """Read what stands before the packets; of standard input (``-``) nothing is used up.

    Raises
    ------
    FormatError
        This is not AEDAT 4, or its header is torn or damaged.
    """
    try:
        head = peek(path, len(_MAGIC) + 4)
        n_bytes = int.from_bytes(head[len(_MAGIC) :], "little")
        if head.startswith(_MAGIC) and n_bytes < _MOST_HEADER_BYTES:
            head = peek(path, len(_MAGIC) + 4 + n_bytes)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}; check path and permissions") from error
    if not head.startswith(_MAGIC[: len(head)]):
        raise FormatError(f"{path}: begins with {head[:14]!r}, wanted {_MAGIC!r}; it is not AEDAT 4.0")
    data = head[len(_MAGIC) :]
    if len(data) < 4 + n_bytes or len(data) < 4:
        raise FormatError(
            f"{path}: the AEDAT 4 header ends at byte {len(head)}, wanted {len(_MAGIC) + 4 + n_bytes} bytes; copy the "
            f"file again"
        )
    try:
        table = _root(data, "IOHE")
        compression = _COMPRESSIONS[_value(data, table, 0, "I")]
        index_at = int(_value(data, table, 1, "q", -1))
        start, length = _vector(data, table, 2)
        streams = _streams(data[start : start + length].decode())
    except (*_DAMAGE, ElementTree.ParseError) as error:
        raise FormatError(
            f"{path}: the AEDAT 4 header of {len(head)} bytes is damaged ({error}); copy the file again"
        ) from error
    if index_at != -1 and index_at < len(head):
        raise FormatError(
            f"{path}: the AEDAT 4 header is damaged: places the index at byte {index_at}, wanted one from {len(head)} "
            f"on; copy the file again"
        )
    return Aedat4Header(len(head), compression, index_at, streams)


def _streams(words: str) -> dict[int, Aedat4Stream]:
    """Read the streams from the header's XML."""
    if "<!" in words:
        raise ValueError("its XML declares entities")
    streams = {}
    for node in ElementTree.fromstring(words).iterfind(".//node[@name='outInfo']/node"):
        told = {attr.get("key", ""): (attr.text or "").strip() for attr in node.iterfind("attr")}
        told |= {attr.get("key", ""): (attr.text or "").strip() for attr in node.iterfind("node[@name='info']/attr")}
        number = int(node.get("name", ""))
        width, height = (int(told[key]) if key in told else None for key in ("sizeX", "sizeY"))
        if not all(size is None or 0 < size <= _MOST_PIXELS for size in (width, height)):
            raise ValueError(f"stream {number} of {width}x{height} pixels")
        streams[number] = Aedat4Stream(number, told.get("typeIdentifier", "?"), width, height, told.get("source", ""))
    return streams


def _library(path: Path, compression: str) -> Any:
    """Import what decompresses and compresses."""
    module, package = ("lz4.frame", "lz4") if compression == "lz4" else ("backports.zstd", "backports.zstd")
    try:
        return importlib.import_module(module)
    except ImportError:
        raise FormatError(
            f"{path}: is compressed with {compression}, for which the package {package} is missing; pip install "
            f"{package}"
        ) from None


def _unpack(library: Any, compression: str, body: NDArray[np.uint8]) -> bytes:
    """Decompress one frame; ValueError if it is damaged, or grows too large."""
    if compression == "none":
        return body.tobytes()
    rest = body.tobytes()
    if not rest:
        raise ValueError("empty")
    machine = library.LZ4FrameDecompressor() if compression == "lz4" else library.ZstdDecompressor()
    parts, n_bytes = [], 0
    try:
        while not machine.eof:
            part = machine.decompress(rest, max(1 << 16, 4 * len(body)))
            if not part and not rest:
                raise ValueError("its compressed data end too early")
            rest = b""
            parts.append(part)
            n_bytes += len(part)
            if n_bytes > _MOST_BYTES:
                raise ValueError(f"it grows to more than {_MOST_BYTES} bytes")
    except Exception as error:  # each library has errors of its own, and RuntimeError
        raise ValueError(str(error)) from error
    if machine.unused_data:
        raise ValueError("bytes after its compressed data")
    return b"".join(parts)


def _packets(
    path: Path, header: Aedat4Header, follow_s: float = 0.0
) -> Generator[NDArray[np.void] | _Packet, None, None]:
    """Yield each packet, empty event arrays while there is nothing yet, and compare with the index at the end."""
    seen: Counter[int] = Counter()
    index_at, beginning = header.index_at, np.empty(0, np.uint8)
    with ByteRuns(path, begin=header.header_bytes, follow_s=follow_s) as runs:
        while index_at == -1 or runs.position < index_at:
            at = runs.position
            head = yield from runs.take(8)
            if not len(head) and index_at == -1:
                return
            if len(head) < 8:
                raise _torn(path, at, runs.position, 8, header)
            stream, size = struct.unpack("<ii", head.data)
            if stream not in header.streams or not 0 <= size <= _MOST_BYTES:
                if index_at == -1 and (yield from _is_now_index(path, at, follow_s)):
                    index_at, beginning = at, head
                    break
                raise _damaged(path, at, f"a packet of stream {stream} and {size} bytes")
            body = yield from runs.take(size)
            if len(body) < size:
                raise _torn(path, at, runs.position, 8 + size, header)
            seen[stream] += 1
            yield _Packet(at, stream, body)
        if not len(beginning) and runs.position > index_at:
            raise _damaged(path, runs.position, f"a packet that reaches into the index at byte {index_at}")
        rest = yield from runs.take(_MOST_BYTES)
    try:
        library = None if header.compression == "none" else _library(path, header.compression)
        data = _unpack(library, header.compression, np.concatenate([beginning, rest]))
        told = Counter(islice(_indexed(data), sum(seen.values()) + 1))
    except _DAMAGE as error:
        raise FormatError(
            f"{path}: the index at byte {index_at} is torn or damaged ({error}); all packets before it were read, copy "
            f"the file again"
        ) from error
    if told != seen:
        raise FormatError(f"{path}: holds {_listed(seen)}, but its index tells of {_listed(told)}; copy the file again")


def _is_now_index(path: Path, at: int, follow_s: float) -> Generator[NDArray[np.void], None, bool]:
    """Tell whether the writer has finished since we began: it then told the place of the index in the header."""
    last_look_s = time.monotonic() + follow_s
    while path != STANDARD_INPUT:
        is_last_look = time.monotonic() >= last_look_s
        if aedat4_header(path).index_at == at:
            return True
        if is_last_look:
            break
        yield NOTHING_YET
    return False


def _indexed(data: bytes) -> Iterator[int]:
    """Yield the stream of each packet that the index tells of."""
    for table in _tables(data, _root(data, "FTAB"), 0):
        yield int(_value(data, table, 1, "i"))


def _listed(packets: Counter[int]) -> str:
    """Put the packets of each stream into words."""
    return ", ".join(f"{n} packets of stream {stream}" for stream, n in sorted(packets.items())) or "no packets"


def _torn(path: Path, at: int, end: int, wanted: int, header: Aedat4Header) -> FormatError:
    promised = "" if header.index_at == -1 else f" and an index at byte {header.index_at}"
    return FormatError(
        f"{path}: torn packet at byte {at} of {end}: got {end - at} bytes, wanted {wanted}{promised}; everything "
        f"before was read, copy the file again for the rest"
    )


def _damaged(path: Path, at: int, got: str) -> FormatError:
    return FormatError(
        f"{path}: damaged at byte {at}: got {got}; everything before was read, copy the file again for the rest"
    )


def _chosen(path: Path, header: Aedat4Header, kind: str, number: int | None) -> Aedat4Stream:
    """Return the stream asked for, or the first of its kind."""
    fitting = [stream for stream in header.streams.values() if stream.kind == kind and number in (None, stream.number)]
    if not fitting:
        there = ", ".join(f"{n} ({_KINDS.get(s.kind, s.kind)})" for n, s in sorted(header.streams.items()))
        raise FormatError(
            f"{path}: has no stream{'' if number is None else f' {number}'} of {_KINDS[kind]}, only {there or 'none'}; "
            f"name one of those that are there, or another file"
        )
    return min(fitting)


# --- Readers ---------------------------------------------------------------------------------------------------------


@kernel
def _copy_events(stored: Any, events: Any) -> None:
    """Write stored events as ours; any polarity but 0 is 1. NumPy, field by field, takes ten times as long."""
    for k in range(len(stored)):
        events[k]["t"] = stored[k]["t"]
        events[k]["x"] = stored[k]["x"]
        events[k]["y"] = stored[k]["y"]
        events[k]["p"] = stored[k]["p"] != 0


class Aedat4Decoder:
    """One event stream of a file, read from its first packet each time it is iterated over.

    Parameters
    ----------
    path
        The file, or ``-`` for standard input.
    stream
        Number of the event stream; None = the first.
    raw
        Changes nothing: the bits are stored as we want them.
    follow_s
        A file counts as ended only when it has not grown for so long, seconds.

    Attributes
    ----------
    width, height : int or None
        The sensor, pixels, if declared.

    Raises
    ------
    FormatError
        As ``aedat4_header``; or there is no such stream, or no library for its compression.
    """

    def __init__(self, path: Path, *, stream: int | None = None, raw: bool = False, follow_s: float = 0.0) -> None:
        self.path, self._follow_s = path, follow_s
        self.header = aedat4_header(path)
        self.stream = _chosen(path, self.header, _EVENTS, stream)
        self.width, self.height = self.stream.width, self.stream.height
        compressed = self.header.compression != "none"
        self._library = _library(path, self.header.compression) if compressed else None
        self._passed: Counter[int] = Counter()

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
            After everything that could be read was yielded: see the module.
        """
        self._passed = Counter()
        events = np.empty(_PACKET_EVENTS, EVENT_DTYPE)
        for packet in _packets(self.path, self.header, self._follow_s):
            if isinstance(packet, np.ndarray):
                yield packet
                continue
            if packet.stream != self.stream.number:
                self._passed[packet.stream] += 1
                continue
            try:
                data = _unpack(self._library, self.header.compression, packet.body)
                start, length = _vector(data, _root(data, _EVENTS), 0)
                stored = np.frombuffer(data, _STORED_EVENT, length, start) if length else np.empty(0, _STORED_EVENT)
                if len(data) - stored.nbytes >= _FRAMING_BYTES + _STORED_EVENT.itemsize:
                    raise ValueError(f"{length} events, but bytes for more")
            except _DAMAGE as error:
                raise _damaged(self.path, packet.at, f"an event packet that cannot be read ({error})") from error
            if length > len(events):
                events = np.empty(length, EVENT_DTYPE)
            if length:
                _copy_events(stored, events)
                yield events[:length]

    def losses(self) -> list[str]:
        """Put into words what the file holds (as far as it was read) that is no event of the stream."""
        kinds = {number: _KINDS.get(stream.kind, stream.kind) for number, stream in self.header.streams.items()}
        return [f"{n} packets of {kinds[s]} (stream {s}) were passed over" for s, n in sorted(self._passed.items())]


def _opened_packets(path: Path, kind: str, number: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield the place and the decompressed FlatBuffer of each packet of a stream."""
    header = aedat4_header(path)
    stream = _chosen(path, header, kind, number)
    library = None if header.compression == "none" else _library(path, header.compression)
    for packet in _packets(path, header):
        if isinstance(packet, np.ndarray) or packet.stream != stream.number:
            continue
        try:
            data = _unpack(library, header.compression, packet.body)
        except _DAMAGE as error:
            raise _damaged(path, packet.at, f"a packet of {_KINDS[kind]} that cannot be read ({error})") from error
        yield packet.at, data


def read_aedat4_frames(path: Path, *, stream: int | None = None) -> Iterator[Aedat4Frame]:
    """Read the images of a file.

    Parameters
    ----------
    path
        The file.
    stream
        Number of the frame stream; None = the first.

    Raises
    ------
    FormatError
        There is no such stream; or at a fault, after everything before it was yielded.
    """
    for at, data in _opened_packets(path, _FRAME, stream):
        try:
            table = _root(data, _FRAME)
            code, width, height = (_value(data, table, index, kind) for index, kind in ((5, "b"), (6, "h"), (7, "h")))
            # the codes are OpenCV's: depth in the lower three bits, channels - 1 above them
            dtype = np.dtype(("u1", "i1", "<u2", "<i2", "<i4", "<f4", "<f8", "<f2")[code & 7])
            n_channels = (code >> 3) + 1
            start, n_bytes = _vector(data, table, 10)
            if width < 0 or height < 0 or n_channels < 1 or n_bytes != width * height * n_channels * dtype.itemsize:
                raise ValueError(f"{n_bytes} bytes for {width}x{height} pixels of {n_channels} {dtype}")
            shape = (height, width) if n_channels == 1 else (height, width, n_channels)
            pixels = np.frombuffer(data[start : start + n_bytes], dtype).reshape(shape)
            t_us, start_us, end_us = (int(_value(data, table, index, "q")) for index in (0, 3, 4))
            x, y = (int(_value(data, table, index, "h")) for index in (8, 9))
        except _DAMAGE as error:
            raise _damaged(path, at, f"a frame that cannot be read ({error})") from error
        yield Aedat4Frame(t_us, start_us, end_us, x, y, pixels)


def read_aedat4_imu(path: Path, *, stream: int | None = None) -> Iterator[NDArray[np.void]]:
    """Read the motion samples of a file, packet by packet: IMU_DTYPE, shape (n,).

    Parameters
    ----------
    path
        The file.
    stream
        Number of the motion stream; None = the first.

    Raises
    ------
    FormatError
        There is no such stream; or at a fault, after everything before it was yielded.
    """
    for at, data in _opened_packets(path, _IMU, stream):
        try:
            rows = [
                (_value(data, table, 0, "q"), *(_value(data, table, index, "f") for index in range(1, 11)))
                for table in _tables(data, _root(data, _IMU), 0)
            ]
        except _DAMAGE as error:
            raise _damaged(path, at, f"motion samples that cannot be read ({error})") from error
        yield np.array(rows, IMU_DTYPE)


# --- Writer ----------------------------------------------------------------------------------------------------------


class Aedat4Writer(FlatWriter):
    """Write one event stream, with an index at the end.

    Memory is that of one packet and 40 bytes for each packet written. A file that was left without ``close`` has no
    index and lacks up to 9999 events; it reads up to there.

    Parameters
    ----------
    path
        The file; replaced if it is there.
    width, height
        The sensor, pixels, at most 32768.
    compression
        ``none``, ``lz4``, or ``zstd`` (smaller, slower).

    Raises
    ------
    ConfigError
        The sensor's size or the compression is none of those, or the file cannot be opened.
    """

    name = "AEDAT4"
    most_pixels = _MOST_PIXELS

    def __init__(self, path: Path, width: int, height: int, compression: Aedat4Compression = "lz4") -> None:
        if compression not in ("none", "lz4", "zstd"):
            raise ConfigError(f"compression: got {compression!r}, wanted none, lz4 or zstd; name one of them")
        self._compression = compression
        self._library = None if compression == "none" else _library(path, compression)
        self._held = np.zeros(_PACKET_EVENTS, _STORED_EVENT)
        self._n_held = self._at = 0
        self._index = array("q")  # place, elements, first and last time, size: of each packet
        super().__init__(path, width, height)

    def _header(self) -> bytes:
        words = _DESCRIPTION.format(compression=self._compression.upper(), width=self.width, height=self.height)
        body = words.encode()
        code = _COMPRESSIONS.index(self._compression)
        # root offset, IOHE, vtable (10 bytes, table of 20, fields at 4, 8, 16), table, string
        data = struct.pack("<I4s5H2xiiqI", 20, b"IOHE", 10, 20, 4, 8, 16, 12, code, -1, 4)
        data += struct.pack("<I", len(body)) + body + b"\0"
        header = _MAGIC + struct.pack("<I", len(data)) + data
        self._at = len(header)
        return header

    def _encode(self, events: NDArray[np.void]) -> Iterator[bytes]:
        while len(events):
            part = events[: _PACKET_EVENTS - self._n_held]
            held = self._held[self._n_held : self._n_held + len(part)]
            for name in ("t", "x", "y", "p"):
                held[name] = part[name]
            self._n_held += len(part)
            events = events[len(part) :]
            if self._n_held == _PACKET_EVENTS:
                yield self._packet()

    def _packet(self) -> bytes:
        held = self._held[: self._n_held]
        # root offset, EVTS, vtable (6 bytes, table of 8, field at 4), table, vector
        data = struct.pack("<I4s2x3HiII", 16, b"EVTS", 6, 8, 4, 6, 4, len(held)) + held.tobytes()
        body = self._pack(struct.pack("<I", len(data)) + data)
        self._index.extend((self._at + 8, len(held), int(held["t"][0]), int(held["t"][-1]), len(body)))
        self._at += 8 + len(body)
        self._n_held = 0
        return struct.pack("<ii", 0, len(body)) + body

    def _pack(self, data: bytes) -> bytes:
        return data if self._library is None else bytes(self._library.compress(data))

    def _tail(self) -> Iterator[bytes]:
        if self._n_held:
            yield self._packet()
        if not self._file.seekable():  # nowhere to tell the place of an index
            return
        index_at = self._at
        rows = np.array(self._index, np.int64).reshape(-1, 5)
        entries = np.zeros(len(rows), _INDEX_ENTRY)
        for column, name in enumerate(("at", "n", "first", "last", "size")):
            entries[name] = rows[:, column]
        # root, vector of offsets to the entries, their vtable (14 bytes, table of 44, fields at 4, 36, 12, 20, 28)
        vtable_at = 32 + 4 * len(rows)
        first_at = (vtable_at + 14 + 7) // 8 * 8 + 4
        places = first_at + entries.itemsize * np.arange(len(rows))
        entries["vtable"] = places - vtable_at
        data = struct.pack("<I4s2x3HiII", 16, b"FTAB", 6, 8, 4, 6, 4, len(rows))
        data += (places - 32 - 4 * np.arange(len(rows))).astype("<u4").tobytes()
        data += struct.pack("<7H", 14, 44, 4, 36, 12, 20, 28).ljust(first_at - vtable_at, b"\0") + entries.tobytes()
        yield self._pack(struct.pack("<I", len(data)) + data)
        self._file.seek(len(_MAGIC) + 32)
        yield struct.pack("<q", index_at)


_DESCRIPTION = """<dv version="2.0">
    <node name="outInfo" path="/outInfo/">
        <node name="0" path="/outInfo/0/">
            <attr key="compression" type="string">{compression}</attr>
            <attr key="originalModuleName" type="string">hebbstream</attr>
            <attr key="originalOutputName" type="string">events</attr>
            <attr key="typeDescription" type="string">Array of events (polarity ON/OFF).</attr>
            <attr key="typeIdentifier" type="string">EVTS</attr>
            <node name="info" path="/outInfo/0/info/">
                <attr key="sizeX" type="int">{width}</attr>
                <attr key="sizeY" type="int">{height}</attr>
                <attr key="source" type="string">hebbstream</attr>
            </node>
        </node>
    </node>
</dv>
"""
