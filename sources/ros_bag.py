"""Events in ROS bags: ROS 1 ``.bag``, ROS 2 ``.db3`` and MCAP.

Message types that are read:

``event_camera_msgs/EventPacket`` (once ``event_array_msgs/EventArray``)
    A run of bytes in an ``encoding``: ``evt3`` is Prophesee's EVT 3.0 cut into messages, so row, column and time go on
    from one message to the next; times are the sensor's. ``mono`` (deprecated) has 64 bits an event: 31..0 ns after
    the message's ``time_base``, 47..32 x, 62..48 y, 63 polarity. ``trigger`` holds no pixels; ``libcaer`` and
    ``libcaer_cmp`` cannot be read.
``dvs_msgs/EventArray`` and ``prophesee_event_msgs/EventArray``
    x, y, time (s and ns, since 1970 as a rule) and polarity of each event. Nanoseconds below a microsecond are cut off.

Origin top left, polarity 1 = brighter, in all of them. A bag with several such topics needs to be told which: mixing
cameras would make nonsense of coordinates. Gaps in the numbers of packets are counted.

Formats: the message definitions in the packages of those names; CDR as in OMG formal/02-06-51 (numbers aligned to
their size, counted from byte 4); ROS 1 the same without gaps. The containers are in ``sources.ros_container``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sources.evt import evt3_decode, fresh_state
from sources.ros_container import Topic, read_messages, read_topics, unpacked_message
from stream.errors import FormatError
from stream.packet import EVENT_DTYPE

__all__ = ["RosBagDecoder", "bag_in", "read_ros_bag"]

_PACKETS = ("event_camera_msgs/EventPacket", "event_array_msgs/EventArray")
_ARRAYS = ("dvs_msgs/EventArray", "prophesee_event_msgs/EventArray")
_PIECE_EVENTS = 65536

# One event of dvs_msgs. In CDR it fills 16 bytes, and the time stands at a multiple of 4: so all but the first event
# have x two bytes before the place where a C compiler would put it, and the first has x and y two bytes after that.
_ROS1_EVENT = np.dtype([("x", "<u2"), ("y", "<u2"), ("s", "<u4"), ("ns", "<u4"), ("p", "u1")])
_CDR_EVENT = np.dtype(
    {
        "names": ["x", "y", "s", "ns", "p"],
        "formats": ["<u2", "<u2", "<i4", "<u4", "u1"],
        "offsets": [0, 2, 6, 10, 14],
        "itemsize": 16,
    }
)


class _Packet(NamedTuple):
    """The part of a message that says how to read its events."""

    width: int
    height: int
    number: int  # of the packet; -1 where the type has none
    base_ns: int
    encoding: str
    big_endian: bool
    events: memoryview  # bytes of the events, or of the array of structs
    n_structs: int  # -1 for bytes


class _Cursor:
    """Reads fields from a message, one after the other.

    Parameters
    ----------
    raw
        The message.
    coding
        ``ros1`` (no gaps) or ``cdr`` (numbers aligned to their size, after four bytes that tell the byte order).
    """

    def __init__(self, raw: bytes, coding: str) -> None:
        self.raw = memoryview(raw)
        self.is_cdr = coding == "cdr"
        self.at = 4 if self.is_cdr else 0
        if self.is_cdr and raw[:2] != b"\x00\x01":
            raise ValueError(f"it begins with {raw[:4]!r}, wanted little-endian CDR (00 01)")

    def number(self, n_bytes: int) -> int:
        if self.is_cdr:
            self.at += -self.at % n_bytes if n_bytes < 8 else (4 - self.at) % 8
        return int.from_bytes(self.take(n_bytes), "little")

    def take(self, n_bytes: int) -> memoryview:
        block = self.raw[self.at : self.at + n_bytes]
        if len(block) < n_bytes:
            raise ValueError(f"it ends at byte {len(self.raw)}, wanted {n_bytes} bytes at byte {self.at}")
        self.at += n_bytes
        return block

    def string(self) -> str:
        words = bytes(self.take(self.number(4)))
        return words.removesuffix(b"\x00").decode("latin-1")  # CDR counts a zero at the end


def _parse(raw: bytes, topic: Topic) -> _Packet:
    """Read a message up to its events; ValueError if it is too short."""
    cursor = _Cursor(raw, topic.coding)
    if not cursor.is_cdr:
        cursor.number(4)  # number of the message in its topic
    cursor.number(4), cursor.number(4), cursor.string()  # stamp, frame
    height, width = cursor.number(4), cursor.number(4)
    if topic.type in _ARRAYS:
        count = cursor.number(4)
        return _Packet(width, height, -1, 0, "", False, cursor.raw[cursor.at :], count)
    number, base_ns = cursor.number(8), cursor.number(8)
    encoding, big_endian = cursor.string(), cursor.number(1) != 0
    return _Packet(width, height, number, base_ns, encoding, big_endian, cursor.take(cursor.number(4)), -1)


def _array_events(packet: _Packet, is_cdr: bool) -> Iterator[NDArray[np.void]]:
    """Make events of the structs that are there; ValueError if these are fewer than promised."""
    if is_cdr:
        # the first one for itself, see _CDR_EVENT; the last one has no gap after it
        first = np.frombuffer(packet.events[:13], _ROS1_EVENT, 1 if len(packet.events) >= 13 else 0)
        rest = bytes(packet.events[14:]) + b"\x00"
        rows = np.frombuffer(rest, _CDR_EVENT, max(0, len(rest) // 16))
        parts = [first[: packet.n_structs], rows[: max(0, packet.n_structs - 1)]]
    else:
        parts = [np.frombuffer(packet.events, _ROS1_EVENT, len(packet.events) // 13)[: packet.n_structs]]
    for rows in parts:
        for start in range(0, len(rows), _PIECE_EVENTS):
            piece = rows[start : start + _PIECE_EVENTS]
            events = np.empty(len(piece), EVENT_DTYPE)
            events["t"] = piece["s"].astype(np.int64) * 1_000_000 + piece["ns"] // 1000
            events["x"], events["y"], events["p"] = piece["x"], piece["y"], piece["p"] != 0
            yield events
    n_events = sum(len(rows) for rows in parts)
    if n_events < packet.n_structs:
        raise ValueError(f"it holds {n_events} events, wanted the {packet.n_structs} that it promises")


def _mono_events(packet: _Packet) -> Iterator[NDArray[np.void]]:
    """Make events of 64-bit words; ValueError at a torn word."""
    words = np.frombuffer(packet.events, ">u8" if packet.big_endian else "<u8", len(packet.events) // 8)
    base_ns = np.uint64(packet.base_ns)
    for start in range(0, len(words), _PIECE_EVENTS):
        piece = words[start : start + _PIECE_EVENTS].astype(np.uint64)
        events = np.empty(len(piece), EVENT_DTYPE)
        events["t"] = ((piece & np.uint64(0xFFFFFFFF)) + base_ns) // np.uint64(1000)
        events["x"] = (piece >> np.uint64(32)) & np.uint64(0xFFFF)
        events["y"] = (piece >> np.uint64(48)) & np.uint64(0x7FFF)
        events["p"] = piece >> np.uint64(63)
        yield events
    if len(packet.events) % 8:
        raise ValueError(f"it holds {len(packet.events)} bytes of events, wanted a multiple of 8")


class RosBagDecoder:
    """One topic of a bag, read from its start each time it is iterated over; see ``read_ros_bag``."""

    def __init__(self, path: Path, topic: str) -> None:
        self.path = path
        self.topic = _choose(path, read_topics(path), topic)
        self.width: int | None = None
        self.height: int | None = None
        self.counts = np.zeros(4, np.int64)  # three of evt3_decode, and packets that are missing
        for message in read_messages(path, self.topic.name):
            width, height = self._parsed(message.raw, 0)[:2]
            if 0 < width <= 65536 and 0 < height <= 65536:
                self.width, self.height = width, height
            break

    def _parsed(self, raw: bytes, number: int) -> _Packet:
        subject = f"{self.path}: message {number} of {self.topic.name}"
        try:
            packet = _parse(unpacked_message(raw, subject), self.topic)
        except ValueError as error:
            raise FormatError(
                f"{subject}: cannot be read ({error}); it is damaged, or not of type {self.topic.type}; what came "
                f"before was read"
            ) from error
        if packet.n_structs < 0 and packet.encoding not in ("evt3", "mono"):
            raise FormatError(
                f"{subject}: has the encoding {packet.encoding[:40]!r}, wanted evt3 or mono (trigger holds no pixels, "
                f"others cannot be read yet); convert it with event_camera_tools"
            )
        return packet

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Decode the topic.

        Yields
        ------
        events
            EVENT_DTYPE, shape (n,), n <= 65536, in the order of the bag. The memory is used again for the next array.

        Raises
        ------
        FormatError
            At a fault, after everything before it was yielded.
        """
        self.counts = counts = np.zeros(4, np.int64)
        state, buffer = fresh_state(), np.empty(_PIECE_EVENTS, EVENT_DTYPE)
        last = -1
        for number, message in enumerate(read_messages(self.path, self.topic.name)):
            packet = self._parsed(message.raw, number)
            if 0 <= last < packet.number - 1:
                counts[3] += packet.number - 1 - last
            last = packet.number
            try:
                if packet.n_structs >= 0:
                    yield from _array_events(packet, self.topic.coding == "cdr")
                elif packet.encoding == "mono":
                    yield from _mono_events(packet)
                else:
                    yield from _evt3_events(packet, state, counts[:3], buffer)
            except ValueError as error:
                raise FormatError(
                    f"{self.path}: message {number} of {self.topic.name}: {error}; everything before was read"
                ) from error

    def losses(self) -> list[str]:
        """Put into words what was left out, as far as the bag was read."""
        said = (
            "events before the first time, row or column were dropped",
            "events past column 2047 were dropped",
            "words of a type that EVT3 does not know were skipped",
            "packets are missing from the bag, by their numbers",
        )
        return [f"{count} {words}" for count, words in zip(self.counts.tolist(), said, strict=True) if count]


def _evt3_events(
    packet: _Packet, state: NDArray[np.int64], counts: NDArray[np.int64], buffer: NDArray[np.void]
) -> Iterator[NDArray[np.void]]:
    """Decode the words of one packet, going on from the one before; ValueError at a torn word."""
    whole = len(packet.events) // 2 * 2
    # through a bytearray: a read-only array would compile the kernel a second time
    words = np.frombuffer(bytearray(packet.events[:whole]), "<u2")
    if packet.big_endian:
        words = words.byteswap()
    while len(words):
        n_events = evt3_decode(words, state, counts, buffer)
        words = words[int(state[0]) :]
        if n_events:
            yield buffer[:n_events]
    if whole < len(packet.events):
        raise ValueError(f"it holds {len(packet.events)} bytes of EVT3, wanted whole words of 2")


def _choose(path: Path, topics: list[Topic], name: str) -> Topic:
    """Find the topic to play."""
    given = [topic for topic in topics if topic.type in _PACKETS + _ARRAYS and topic.coding in ("ros1", "cdr")]
    names = sorted({topic.name for topic in given})
    chosen = [topic for topic in given if topic.name == (name or names[0])] if names else []
    if len({(topic.type, topic.coding) for topic in chosen}) != 1 or (len(names) > 1 and not name):
        listed = ", ".join(f"{topic.name} ({topic.type})" for topic in topics)[:1000] or "none"
        raise FormatError(
            f"{path}: topic {name or '(not told)'} cannot be played; the topics are {listed}; wanted one of events "
            f"({', '.join(_PACKETS + _ARRAYS)}); name it (topic = ...)"
        )
    return chosen[0]


def bag_in(folder: Path) -> Path:
    """Return the file in the folder of a ROS 2 bag, ``metadata.yaml`` beside one ``.db3`` or ``.mcap``.

    Raises
    ------
    FormatError
        It is another folder, or its bag was split into several files, which are read one at a time.
    """
    if not (folder / "metadata.yaml").is_file():
        raise FormatError(f"{folder}: is a folder, wanted an event file; name a file in it, or play it by its labels")
    files = sorted(path for path in folder.iterdir() if path.suffix in (".db3", ".mcap"))
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise FormatError(f"{folder}: got {len(files)} files of a ROS 2 bag ({names}), wanted one; name one of them")
    return files[0]


def read_ros_bag(path: Path, *, topic: str = "", raw: bool = False) -> RosBagDecoder:
    """Read the events of one topic of a bag, message by message.

    Parameters
    ----------
    path
        A ROS 1 bag, or the ``.db3`` or ``.mcap`` file of a ROS 2 bag; its first bytes tell which.
    topic
        Needed if the bag holds events of several topics.
    raw
        Changes nothing: what the messages hold follows our conventions.

    Returns
    -------
    decoder
        Iterable of EVENT_DTYPE arrays, with ``width``, ``height`` (of the first message) and ``losses()``.

    Raises
    ------
    FormatError
        The file cannot be opened, holds no such topic, or its first message cannot be read.
    """
    return RosBagDecoder(path, topic)
