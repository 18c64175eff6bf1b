"""Messages of ROS bags: ROS 1 ``.bag``, ROS 2 ``.db3`` (SQLite) and MCAP.

A bag holds messages of many topics, each a run of bytes that only its message type explains. Here the bytes are
found; ``sources.ros_bag`` makes events of them. All three containers are read from front to back, in the order in which
they were recorded, a chunk at a time.

Roads not taken: the libraries ``rosbags`` and ``mcap``. They go through the index at the end of the file, so a
recording that was cut off (a full disk, a crashed robot) yields nothing; they unpack chunks without a bound, so 700
bytes can claim 800 MB; and they make a Python object of each event. The index is used for one thing here: to list the
topics without reading everything. Where it is missing or torn, the file is read through for that.

Formats: http://wiki.ros.org/Bags/Format/2.0; https://mcap.dev/spec; the tables ``topics`` and ``messages`` of
rosbag2_storage_sqlite3. Chunks may be packed with bzip2, LZ4 (package ``lz4``) or Zstandard (``backports.zstd``).
"""

import importlib
import io
import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

from stream.errors import FormatError

__all__ = ["MOST_BYTES", "Message", "Topic", "read_messages", "read_topics", "unpacked_message"]

MOST_BYTES = 1 << 28
"""Of one chunk or message; recorders write chunks of about a megabyte."""

_MAGIC_1 = b"#ROSBAG V2.0\n"
_MAGIC_MCAP = b"\x89MCAP0\r\n"
_MAGIC_SQLITE = b"SQLite format 3\x00"
_ZSTD = b"\x28\xb5\x2f\xfd"
_MOST_HEADER_BYTES = 1 << 20  # a ROS 1 record header names a topic at most, a connection's data its message definition
_MCAP_FOOTER_BYTES = 37  # record of 29 bytes, magic of 8


class Topic(NamedTuple):
    """A named stream of messages of one type."""

    number: int  # by which messages refer to it
    name: str
    type: str  # such as "dvs_msgs/EventArray", without the "msg/" of ROS 2
    coding: str  # "ros1" or "cdr"


class Message(NamedTuple):
    """One message, not decoded."""

    number: int  # of its topic
    raw: bytes


_Found: TypeAlias = Topic | Message


def read_topics(path: Path) -> list[Topic]:
    """List the topics of a bag, as far as it can be read.

    Raises
    ------
    FormatError
        The file cannot be opened, is none of the three containers, or is damaged before the first topic.
    """
    scan = _container(path)
    topics: dict[int, Topic] = {}
    fault: FormatError | None = None
    for whole in (False, True):  # the index first
        try:
            for found in scan(path, None, whole):
                if isinstance(found, Topic):
                    topics.setdefault(found.number, found)
        except FormatError as error:
            fault = error  # what was found counts; the reading of messages comes to the same place and tells
        else:
            if topics:
                break
    if fault is not None and not topics:
        raise fault
    return list(topics.values())


def read_messages(path: Path, name: str) -> Iterator[Message]:
    """Yield the messages of one topic in the order of the file.

    Raises
    ------
    FormatError
        At a fault, after everything that could be read before it was yielded.
    """
    numbers: set[int] = set()
    for found in _container(path)(path, name, True):
        if isinstance(found, Topic):
            if found.name == name:
                numbers.add(found.number)
        elif found.number in numbers:
            yield found


def _container(path: Path) -> Any:
    """Tell the container from the first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}; check path and permissions") from error
    for magic, scan in ((_MAGIC_1, _scan_bag), (_MAGIC_MCAP, _scan_mcap), (_MAGIC_SQLITE, _scan_sqlite)):
        if head.startswith(magic):
            return scan
    raise FormatError(
        f"{path}: begins with {head!r}, wanted a ROS 1 bag of version 2.0, a ROS 2 bag (SQLite) or MCAP; migrate an "
        f"older bag with `rosbag fix`"
    )


def _take(file: IO[bytes], n_bytes: int, end: int, subject: str, most: int = MOST_BYTES) -> bytes:
    """Read exactly so many bytes; asks for no more memory than the file can fill."""
    at = file.tell()
    if n_bytes > most:
        raise FormatError(
            f"{subject}: claims {n_bytes} bytes at byte {at}, wanted at most {most}; the file is damaged there, what "
            f"came before was read"
        )
    if n_bytes > end - at:
        raise FormatError(
            f"{subject}: is cut off: {n_bytes} bytes wanted at byte {at}, got {max(0, end - at)}; everything before "
            f"was read, copy or record it again for the rest"
        )
    try:
        block = file.read(n_bytes)
    except OSError as error:
        raise FormatError(f"{subject}: reading failed at byte {at}: {error}; what came before was read") from error
    if len(block) < n_bytes:
        raise FormatError(f"{subject}: got {len(block)} of {n_bytes} bytes at byte {at}; the file shrank meanwhile")
    return block


def _chunk(
    file: IO[bytes], n_bytes: int, end: int, packing: str, size: int, subject: str
) -> tuple[io.BytesIO, int, FormatError | None]:
    """Read and unpack a chunk as far as possible: content, its length, and the fault if that is not all of it."""
    at = file.tell()
    fault: FormatError | None = None
    if size > MOST_BYTES or n_bytes > MOST_BYTES:
        raise FormatError(
            f"{subject}: a chunk at byte {at} claims {n_bytes} bytes, {size} unpacked; wanted at most {MOST_BYTES}; "
            f"the file is damaged there, what came before was read"
        )
    if n_bytes > end - at:
        fault = FormatError(
            f"{subject}: is cut off in the chunk at byte {at}: got {end - at} bytes, wanted {n_bytes}; everything "
            f"before was read, copy or record it again for the rest"
        )
        n_bytes = end - at
    packed = _take(file, n_bytes, end, subject)
    content, words = (packed, "") if packing in ("", "none") else _unpacked(packed, packing, size, subject)
    if fault is None and words:
        fault = FormatError(
            f"{subject}: the chunk at byte {at} cannot be unpacked to its end ({words}); everything before was read, "
            f"copy the file again for the rest"
        )
    return io.BytesIO(content), len(content), fault


def _unpacked(packed: bytes, packing: str, size: int, subject: str) -> tuple[bytes, str]:
    """Unpack at most ``size`` bytes; what came out, and what went wrong (empty if nothing)."""
    unpacker = _unpacker(packing, subject)
    out = bytearray()
    words = ""
    try:
        for start in range(0, len(packed), 1 << 16):
            out += unpacker.decompress(packed[start : start + (1 << 16)], size + 1 - len(out))
            while len(out) <= size and not unpacker.needs_input and not unpacker.eof:
                more = unpacker.decompress(b"", size + 1 - len(out))
                if not more:
                    break
                out += more
            if unpacker.eof or len(out) > size:
                break
    except Exception as error:  # each of the three libraries has its own
        words = (str(error).splitlines() or [type(error).__name__])[0][:200]
    if not words and len(out) != size:
        words = f"got {'more' if len(out) > size else len(out)} bytes, wanted {size}"
    return bytes(out[:size]), words


def _unpacker(packing: str, subject: str) -> Any:
    """Make an object that unpacks piece by piece; all three libraries give it the same methods."""
    zstd = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    known = {
        "bz2": ("bz2", "BZ2Decompressor"),
        "lz4": ("lz4.frame", "LZ4FrameDecompressor"),
        "zstd": (zstd, "ZstdDecompressor"),
    }
    if packing not in known:
        raise FormatError(
            f"{subject}: a chunk is packed by {packing[:20]!r}, wanted none, {', '.join(known)}; convert it"
        )
    module, name = known[packing]
    try:
        return getattr(importlib.import_module(module), name)()
    except ImportError:
        raise FormatError(
            f"{subject}: is packed by {packing}, which cannot be read without the package "
            f"{module.removesuffix('.frame')}; install it"
        ) from None


# ROS 1


def _scan_bag(path: Path, name: str | None, whole: bool) -> Iterator[_Found]:
    with path.open("rb") as file:
        end = file.seek(0, 2)
        begin = file.seek(len(_MAGIC_1))
        head = _take(file, _u32(_take(file, 4, end, str(path))), end, str(path), _MOST_HEADER_BYTES)
        index = int.from_bytes(_bag_fields(head, str(path)).get("index_pos", b""), "little")
        is_closed = begin <= index <= end
        if not whole and not is_closed:
            return
        file.seek(begin if whole else index)
        yield from _bag_records(file, end, str(path), within=False, topics_only=name is None)
        if not is_closed:
            raise FormatError(
                f"{path}: its index should stand at byte {index}, the file has {end}: it was cut off, or the recorder "
                f"was; everything in it was read, `rosbag reindex` mends it"
            )


def _bag_records(file: IO[bytes], end: int, subject: str, *, within: bool, topics_only: bool) -> Iterator[_Found]:
    """Read records up to the end of a file or of a chunk."""
    while file.tell() < end:
        head = _take(file, _u32(_take(file, 4, end, subject)), end, subject, _MOST_HEADER_BYTES)
        fields = _bag_fields(head, subject)
        n_bytes = _u32(_take(file, 4, end, subject))
        kind = fields.get("op", b"")
        number = int.from_bytes(fields.get("conn", b""), "little")
        if kind == b"\x02" and not topics_only:
            yield Message(number, _take(file, n_bytes, end, subject))
        elif kind == b"\x07":
            about = _bag_fields(_take(file, n_bytes, end, subject, _MOST_HEADER_BYTES), subject)
            yield Topic(number, _text(fields.get("topic", b"")), _text(about.get("type", b"")), "ros1")
        elif kind == b"\x05":
            if within:
                raise FormatError(f"{subject}: a chunk stands in a chunk; the file is damaged there")
            packing, size = _text(fields.get("compression", b"none")), int.from_bytes(fields.get("size", b""), "little")
            inner, length, fault = _chunk(file, n_bytes, end, packing, size, subject)
            yield from _bag_records(inner, length, f"{subject}, chunk", within=True, topics_only=topics_only)
            if fault is not None:
                raise fault
        elif kind in (b"\x02", b"\x03", b"\x04", b"\x06"):
            if n_bytes > end - file.tell():
                _take(file, n_bytes, end, subject)  # raises
            file.seek(n_bytes, 1)
        else:
            raise FormatError(
                f"{subject}: got a record of kind {kind[:8]!r} before byte {file.tell()}, wanted 2 to 7; the file is "
                f"damaged there, what came before was read"
            )


def _bag_fields(head: bytes, subject: str) -> dict[str, bytes]:
    """Read ``name=value`` fields, each with its length before it."""
    fields = {}
    at = 0
    while at < len(head):
        length = int.from_bytes(head[at : at + 4], "little")
        field = head[at + 4 : at + 4 + length]
        key, mark, value = field.partition(b"=")
        if len(field) < length or not mark:
            raise FormatError(
                f"{subject}: a record header holds {field[:40]!r}, wanted fields as name=value; the file is damaged "
                f"there, what came before was read"
            )
        fields[_text(key)] = value
        at += 4 + length
    return fields


# MCAP


def _scan_mcap(path: Path, name: str | None, whole: bool) -> Iterator[_Found]:
    with path.open("rb") as file:
        end = file.seek(0, 2)
        begin = len(_MAGIC_MCAP)
        if not whole:
            if end < begin + _MCAP_FOOTER_BYTES:
                return
            file.seek(end - _MCAP_FOOTER_BYTES)
            footer = _take(file, _MCAP_FOOTER_BYTES, end, str(path))
            begin = int.from_bytes(footer[9:17], "little")
            if footer[0] != 0x02 or not footer.endswith(_MAGIC_MCAP) or not len(_MAGIC_MCAP) <= begin < end:
                return  # never closed: no summary
        file.seek(begin)
        yield from _mcap_records(file, end, str(path), {}, within=False, topics_only=name is None)


def _mcap_records(
    file: IO[bytes], end: int, subject: str, schemas: dict[int, str], *, within: bool, topics_only: bool
) -> Iterator[_Found]:
    """Read records up to the end of the data, of the summary, or of a chunk."""
    while file.tell() < end or not within:
        kind, n_bytes = struct.unpack("<BQ", _take(file, 9, end, subject))
        if kind in (0x02, 0x0F):  # footer, end of data
            return
        if kind == 0x05 and not topics_only:
            record = _take(file, n_bytes, end, subject)
            _long_enough(record, 22, subject)
            yield Message(_u16(record), record[22:])
        elif kind == 0x03:
            record = _take(file, n_bytes, end, subject)
            schemas[_u16(record)] = _text(_mcap_string(record, 2, subject)[0])
        elif kind == 0x04:
            record = _take(file, n_bytes, end, subject)
            name, at = _mcap_string(record, 4, subject)
            coding, _ = _mcap_string(record, at, subject)
            yield Topic(
                _u16(record), _text(name), schemas.get(_u16(record[2:]), "").replace("/msg/", "/"), _text(coding)
            )
        elif kind == 0x06:
            if within:
                raise FormatError(f"{subject}: a chunk stands in a chunk; the file is damaged there")
            record = _take(file, 32, end, subject)
            size = int.from_bytes(record[16:24], "little")
            packing = _take(file, _u32(record[28:]), end, subject, 64)
            length = int.from_bytes(_take(file, 8, end, subject), "little")
            if 32 + len(packing) + 8 + length != n_bytes:
                raise FormatError(
                    f"{subject}: a chunk before byte {file.tell()} holds {length} bytes in a record of {n_bytes}; the "
                    f"file is damaged there, what came before was read"
                )
            inner, got, fault = _chunk(file, length, end, _text(packing), size, subject)
            yield from _mcap_records(inner, got, f"{subject}, chunk", schemas, within=True, topics_only=topics_only)
            if fault is not None:
                raise fault
        else:  # header, indexes, attachments, and kinds yet to come
            if n_bytes > end - file.tell():
                raise FormatError(
                    f"{subject}: is cut off: a record of {n_bytes} bytes begins at byte {file.tell()} of {end}; "
                    f"everything before was read"
                )
            file.seek(n_bytes, 1)


def _mcap_string(record: bytes, at: int, subject: str) -> tuple[bytes, int]:
    """Read a string with its length before it; also where the next field begins."""
    _long_enough(record, at + 4, subject)
    end = at + 4 + _u32(record[at:])
    _long_enough(record, end, subject)
    return record[at + 4 : end], end


def _long_enough(record: bytes, n_bytes: int, subject: str) -> None:
    if len(record) < n_bytes:
        raise FormatError(
            f"{subject}: a record has {len(record)} bytes, wanted at least {n_bytes}; the file is damaged there, what "
            f"came before was read"
        )


# ROS 2, SQLite


def _missing_bytes(path: Path) -> int:
    """Return how many bytes of a database are missing, by its header; 0 if it does not tell.

    FormatError if it ends within a page: SQLite would take zeros for the rest of the page, and zeros are events too.
    """
    with path.open("rb") as file:
        head = file.read(100)
        size = file.seek(0, 2)
    if len(head) < 100 or head[24:28] != head[92:96]:
        return 0
    page_bytes = int.from_bytes(head[16:18], "big")
    page_bytes = 65536 if page_bytes == 1 else page_bytes
    wanted = int.from_bytes(head[28:32], "big") * page_bytes
    if size < wanted and size % page_bytes:
        whole = size // page_bytes * page_bytes
        raise FormatError(
            f"{path}: is cut off: {wanted} bytes wanted, got {size}, the last page of them torn; copy it again, or cut "
            f"a copy of it to {whole} bytes (truncate -s {whole}) to read what is whole"
        )
    return max(0, wanted - size)


def _scan_sqlite(path: Path, name: str | None, whole: bool) -> Iterator[_Found]:
    # `immutable` spares lock files, but would hide what a recorder has not moved into the main file yet
    written = path.with_name(path.name + "-wal").exists()
    missing = 0 if written else _missing_bytes(path)
    uri = f"{path.absolute().as_uri()}?mode=ro{'' if written else '&immutable=1'}"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as base:
            base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
            base.text_factory = _text
            # a hostile file may hold views in place of tables, and functions in them
            base.execute("PRAGMA trusted_schema = OFF")
            # without it, SQLite reads nothing of a file that was cut off; nothing is ever written here
            base.execute("PRAGMA writable_schema = ON")
            tables = {row[0] for row in base.execute("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 1000")}
            if not {"topics", "messages"} <= tables:
                raise FormatError(
                    f"{path}: its tables are {', '.join(map(str, sorted(tables)))[:500] or 'none'}; wanted topics and "
                    f"messages, as a ROS 2 bag has them"
                )
            numbers = []
            for number, topic, kind, coding in base.execute(
                "SELECT id, name, type, serialization_format FROM topics LIMIT 10000"
            ):
                if isinstance(number, int) and all(isinstance(words, str) for words in (topic, kind, coding)):
                    yield Topic(number, topic, kind.replace("/msg/", "/"), coding)
                    numbers += [number] * (topic == name)
            if name is None or not whole:
                return
            last = None
            marks = ", ".join("?" * len(numbers))
            query = f"SELECT id, topic_id, data FROM messages WHERE topic_id IN ({marks}) ORDER BY id"
            for row, number, raw in base.execute(query, numbers):
                if (last is not None and row <= last) or not isinstance(raw, bytes) or not isinstance(number, int):
                    raise FormatError(
                        f"{path}: message {row} after {last} is out of order or holds no bytes; the file is damaged "
                        f"there, what came before was read"
                    )
                last = row
                yield Message(number, raw)
            if missing:
                raise FormatError(
                    f"{path}: is cut off: {missing} bytes are missing at its end; every message that could be found "
                    f"was read, copy it again for the rest"
                )
    except (sqlite3.Error, OverflowError, UnicodeError) as error:
        raise FormatError(
            f"{path}: SQLite cannot read on ({str(error)[:200]}); everything before was read, copy the file again for "
            f"the rest"
        ) from error


def unpacked_message(raw: bytes, subject: str) -> bytes:
    """Unpack a message that rosbag2 packed for itself (``compression_mode: message``)."""
    if not raw.startswith(_ZSTD):
        return raw
    unpacker = _unpacker("zstd", subject)
    try:
        content: bytes = unpacker.decompress(raw, MOST_BYTES)
    except Exception as error:  # the library's own
        raise FormatError(f"{subject}: cannot be unpacked ({str(error)[:200]}); what came before was read") from error
    return content


def _u16(block: bytes) -> int:
    return int.from_bytes(block[:2], "little")


def _u32(block: bytes) -> int:
    return int.from_bytes(block[:4], "little")


def _text(words: bytes) -> str:
    return words.decode("utf-8", "replace")
