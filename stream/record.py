"""The recorder: writes every message of its inputs to a file, and reads such files back.

A recording is a line of text (``MAGIC``), a line of JSON (the recorder's ports and what they take), and then messages
in their wire form (``stream.wire``), each as::

    u32 number of frames, then for each frame: u32 length, bytes          all little-endian

The header's ``stream`` is the name of the recorder's port. The order between ports is that of arrival and carries no
meaning; within a port it is the stream's own. A recording whose end is torn off (power, disk, kill) is readable up to
the last whole message: nothing at its end is needed to read its beginning.
"""

import contextlib
import io
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError, FormatError, RunError, StreamError
from stream.operator import Emit, Operator, Port, Snapshot, check_shapes
from stream.packet import ITEM_DTYPES, Loss, Mark, Message, Packet
from stream.places import is_local, place, write_whole
from stream.wire import PacketBody, decode, encode, pieces

__all__ = [
    "MAGIC",
    "Recorder",
    "Recording",
    "is_recording",
    "read_recording",
    "recorded_messages",
    "recorded_ports",
    "recording_info",
]

MAGIC = b"hebbstream recording 1\n"
MAX_FRAMES = 1024
MAX_HEAD_BYTES = 1 << 16


class Recorder(Operator):
    """Write everything that arrives to one file.

    Parameters
    ----------
    path
        The file to write; ``~`` is expanded, missing folders are made, an existing file is replaced.
    ports
        Which inputs to have: name of the port -> item type.

    Raises
    ------
    ConfigError
        If an item type is unknown or the file cannot be written.
    """

    def __init__(self, *, path: str, ports: dict[str, str]) -> None:
        for name, item in ports.items():
            if item not in ITEM_DTYPES:
                raise ConfigError(f"recorder port '{name}': items '{item}', wanted one of {', '.join(ITEM_DTYPES)}")
        self.inputs: Mapping[str, Port] = {name: Port(item) for name, item in ports.items()}
        self.outputs: Mapping[str, Port] = {}
        self.there = place(path)
        self._is_here = is_local(self.there)
        self.path = self.there if self._is_here else Path(tempfile.mkdtemp(prefix="hebbstream-")) / self.there.name
        parent = next(folder for folder in self.path.absolute().parents if folder.exists())
        if self.path.is_dir() or not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise ConfigError(f"recording {self.path}: cannot be written there; choose another path")
        self._n_brought = 0  # bytes that are in the far place
        self._ports = dict(ports)
        self._file: BinaryIO | None = None  # opened late: `restore` goes on with the old file instead of a new one
        self._has_failed = False
        self._sequence = dict.fromkeys(ports, 0)
        self._items = dict.fromkeys(ports, 0)

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Write a packet."""
        del emit
        self._items[port] += len(packet.items)
        for part in pieces(packet):
            self._write(port, part)

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Write a mark."""
        del emit
        self._write(port, mark)

    def on_end(self, emit: Emit) -> None:
        """Leave a file behind even if nothing came."""
        del emit
        with self._told():
            self._opened().flush()

    def snapshot(self) -> Snapshot:
        """Return how much of the file was written by now."""
        with self._told():
            file = self._opened()
            file.flush()
        counts = [(self._sequence[name], self._items[name]) for name in self.inputs]
        return {"size": np.array(file.tell(), np.int64), "counts": np.array(counts, np.int64).reshape(-1, 2)}

    def restore(self, snapshot: Snapshot) -> None:
        """Go on behind what was written by then; what came later is cut off, so that nothing stands there twice."""
        shapes = {"size": np.array(0, np.int64), "counts": np.zeros((len(self.inputs), 2), np.int64)}
        check_shapes("recorder", shapes, snapshot)
        size = int(snapshot["size"])
        if not self._is_here:
            self._fetch(size)
        there = self.path.stat().st_size if self.path.exists() else 0
        if there < size:
            raise ConfigError(
                f"recording {self.path}: {there} bytes, but {size} at the snapshot; it was replaced since"
            )
        if self._file is not None:
            self._file.close()
        self._file = self.path.open("r+b")
        self._file.truncate(size)
        self._file.seek(size)
        for name, (sequence, items) in zip(self.inputs, snapshot["counts"].tolist(), strict=True):
            self._sequence[name], self._items[name] = sequence, items

    def statistics(self) -> dict[str, float]:
        """Return items written per port, and bytes."""
        bytes_written = 0 if self._file is None or self._file.closed else self._file.tell()
        return {**{f"{name} items": float(count) for name, count in self._items.items()}, "bytes": float(bytes_written)}

    def close(self) -> None:
        """Close the file; what was written is readable."""
        if self._file is not None and not self._file.closed:
            with contextlib.suppress(OSError) if self._has_failed else self._told():
                self._file.close()
                if not self._is_here:
                    self._bring(whole=True)
        if not self._is_here:
            shutil.rmtree(self.path.parent, ignore_errors=True)

    def settle(self) -> None:
        """Bring what was written to the disk, or to the far place."""
        with contextlib.suppress(ValueError):  # closed meanwhile
            if self._file is not None:
                os.fsync(self._file.fileno())
                if not self._is_here:
                    self._bring()

    # A far place holds a recording as parts, one for each snapshot, each named after its first byte: an object cannot
    # be added to. At the end the whole recording is put beside them. Parts may overlap after a rollback: where they do,
    # the one that begins later is the newer one.

    def _parts(self) -> Path:
        return self.there.with_name(f"{self.there.name}.parts")

    def _bring(self, *, whole: bool = False) -> None:
        with self.path.open("rb") as file:
            if whole:
                self.there.parent.mkdir(parents=True, exist_ok=True)
                write_whole(self.there, file.read())
                return
            file.seek(self._n_brought)
            data = file.read()
        if data:
            self._parts().mkdir(parents=True, exist_ok=True)
            write_whole(self._parts() / f"{self._n_brought:015d}", data)
            self._n_brought += len(data)

    def _fetch(self, size: int) -> None:
        """Put the recording together again, as it was when it had that many bytes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("wb") as file:
            parts = sorted(self._parts().iterdir()) if self._parts().is_dir() else []
            for part in parts:
                first = int(part.name)
                if first < size:
                    file.seek(first)
                    file.write(part.read_bytes())
        self._n_brought = size

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb")
            self._file.write(MAGIC + msgspec.json.encode(self._ports) + b"\n")
        return self._file

    def _write(self, port: str, message: Message) -> None:
        frames = encode(message, stream=port, sequence=self._sequence[port])
        self._sequence[port] += 1
        with self._told():
            file = self._opened()
            file.write(struct.pack("<I", len(frames)))
            for frame in frames:
                file.write(struct.pack("<I", len(frame)))
                file.write(frame)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say in words what a disk says in numbers."""
        try:
            yield
        except OSError as error:
            self._has_failed = True
            raise RunError(
                f"recording {self.path}: cannot be written on: {error.strerror}; what stands there is readable up to "
                f"its last whole message; make room, then begin again or resume"
            ) from None


class Recording(NamedTuple):
    """What a recording holds."""

    ports: dict[str, str]  # item type of each port
    streams: dict[str, list[Message]]  # by port, in stream order
    torn: str  # what is missing at the end; "" = whole

    def items(self, port: str) -> NDArray[np.void]:
        """Return all items of a port as one array, shape (n,). Raises FormatError if there is no such port."""
        packets = [message.items for message in self._of(port) if isinstance(message, Packet)]
        return np.concatenate([np.zeros(0, ITEM_DTYPES[self.ports[port]]), *packets])

    def marks(self, port: str) -> list[Mark]:
        """Return all marks of a port."""
        return [message for message in self._of(port) if not isinstance(message, Packet)]

    def _of(self, port: str) -> list[Message]:
        if port not in self.streams:
            raise FormatError(f"recording: no stream '{port}'; it has {', '.join(self.streams) or 'none'}")
        return self.streams[port]


def read_recording(path: str | Path) -> Recording:
    """Read a recording into memory.

    Returns
    -------
    Recording
        Everything up to the first message that is not whole.

    Raises
    ------
    FormatError
        If the file is missing or is no recording.
    """
    ports = recorded_ports(path)
    streams: dict[str, list[Message]] = {name: [] for name in ports}
    try:
        for port, message, _ in recorded_messages(path):
            streams[port].append(message)
    except FormatError as error:
        return Recording(ports, streams, str(error))
    return Recording(ports, streams, "")


def recorded_ports(path: str | Path) -> dict[str, str]:
    """Return the ports of a recording, name -> item type. Raises FormatError if it is missing or is no recording."""
    with _open(place(path)) as (_, ports):
        return ports


def recorded_messages(path: str | Path, *, begin: int = 0) -> Iterator[tuple[str, Message, int]]:
    """Read a recording message by message, in bounded memory.

    Parameters
    ----------
    path
        A recorder's file.
    begin
        Byte at which to begin: 0, or an ``end`` that was handed out before.

    Yields
    ------
    port, message, end
        In the order of arrival; ``end`` is the byte behind the message.

    Raises
    ------
    FormatError
        If the file is missing or is no recording; or, after everything whole was handed out, if its end is torn.
    """
    path = place(path)
    with _open(path) as (file, ports):
        size = path.stat().st_size
        file.seek(max(begin, file.tell()))
        while (at := file.tell()) < size:
            try:
                header, message = decode(_frames(file, size))
                if header.stream not in ports:
                    raise StreamError(f"stream '{header.stream}' is not among the ports")
                if isinstance(header.body, PacketBody) and header.body.item != ports[header.stream]:
                    raise StreamError(f"a packet of {header.body.item} on port '{header.stream}'")
            except (StreamError, struct.error) as error:
                raise FormatError(
                    f"recording {path}: {size - at} bytes from byte {at} on are no whole message: {error}; "
                    f"what stands before them was read"
                ) from None
            yield header.stream, message, file.tell()


def is_recording(path: str | Path) -> bool:
    """Tell whether a file begins as a recorder's does."""
    try:
        with place(path).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def recording_info(
    path: str | Path, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Sum up a recording, message by message, in bounded memory.

    Parameters
    ----------
    path
        A recorder's file.
    progress
        Called now and then with bytes done and bytes in all.

    Returns
    -------
    dict
        ``format``, ``bytes``, ``warnings`` (what is torn), and ``streams``: for each port ``item``, ``items``,
        ``packets``, ``marks`` (counts by kind), ``t_first_us``, ``t_last_us`` (of items; None without any), and the
        account of what is missing, from the ``Loss`` marks: ``lost_items``, ``lost_packets``. Sent to the recorder were
        ``items + lost_items``.

    Raises
    ------
    FormatError
        If the file is missing or is no recording.
    """
    ports = recorded_ports(path)
    streams: dict[str, dict[str, Any]] = {
        name: {
            "item": item,
            "items": 0,
            "packets": 0,
            "lost_items": 0,
            "lost_packets": 0,
            "t_first_us": None,
            "t_last_us": None,
            "marks": {},
        }
        for name, item in ports.items()
    }
    size = place(path).stat().st_size
    warnings = []
    try:
        for port, message, end in recorded_messages(path):
            progress(end, size)
            it = streams[port]
            if not isinstance(message, Packet):
                kind = type(message).__name__.lower()
                it["marks"][kind] = it["marks"].get(kind, 0) + 1
                if isinstance(message, Loss):
                    it["lost_items"] += message.items
                    it["lost_packets"] += message.packets
                continue
            it["packets"] += 1
            it["items"] += len(message.items)
            if len(message.items):
                if it["t_first_us"] is None:
                    it["t_first_us"] = int(message.items["t"][0])
                it["t_last_us"] = int(message.items["t"][-1])
    except FormatError as error:
        warnings.append(str(error))
    return {"format": "hebbstream recording", "bytes": size, "streams": streams, "warnings": warnings}


@contextlib.contextmanager
def _open(path: Path) -> Iterator[tuple[BinaryIO, dict[str, str]]]:
    """Open a recording and read its head."""
    try:
        opened: Any = path.open("rb")
    except OSError as error:
        raise FormatError(f"recording {path}: cannot be read: {error.strerror}") from None
    file: BinaryIO = opened if is_local(path) else io.BufferedReader(opened)  # fsspec's own reads lines in full only
    with file:
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            raise FormatError(f"recording {path}: begins with {magic!r}, wanted {MAGIC!r}; is it a recorder's file?")
        try:
            ports = msgspec.json.decode(file.readline(MAX_HEAD_BYTES), type=dict[str, str])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FormatError(f"recording {path}: its list of ports is damaged: {error}") from None
        if unknown := set(ports.values()) - set(ITEM_DTYPES):
            raise FormatError(f"recording {path}: items of type {', '.join(sorted(unknown))}; made by a later version?")
        yield file, ports


def _frames(file: BinaryIO, size: int) -> list[bytes]:
    """Read the frames of one message; nothing is read on the strength of a length that the file does not have."""
    (n_frames,) = struct.unpack("<I", file.read(4))
    if n_frames > MAX_FRAMES:
        raise StreamError(f"{n_frames} frames in one message")
    frames = []
    for _ in range(n_frames):
        (length,) = struct.unpack("<I", file.read(4))
        if file.tell() + length > size:
            raise StreamError(f"a frame of {length} bytes, {size - file.tell()} are left")
        frames.append(file.read(length))
    return frames
