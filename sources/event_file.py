"""Recorded event files as a source, whole, or summed up.

Every decoder hands out what stands in the file. What a *stream* may hold is decided here, in one place, for all
formats:

- a time lower than the one before is raised to it (``clamped``), so that stream time never goes back;
- an event outside of the sensor is dropped (``outside``).

Both are counted and told. Roads not taken: passing disorder on (every consumer would need a policy), sorting (needs the
whole file), refusing (many real recordings hold a few backward steps of microseconds).

Files whose header gives no sensor size (.bin, text, DAT, many .raw) are read twice: once to find how far the events
reach. The size is then the smallest usual sensor of that format that holds them all. Give ``width`` and ``height`` to
spare that.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sources.atis_bin import read_atis_bin
from sources.dat import read_dat
from sources.data_path import expand_path
from sources.evt import EvtDecoder, EvtVersion
from sources.faery_decoder import FaeryDecoder
from sources.file_format import CONTAINERS, READABLE, FileFormat, recognise
from sources.text_events import TextLayout, read_text_events
from stream.errors import ConfigError, FormatError
from stream.jit import kernel
from stream.operator import Port, Snapshot, Source
from stream.packet import EVENT_DTYPE, End, Message, packet_of

__all__ = ["DECODERS", "EventFile", "FormatName", "Recording", "file_info", "read_events"]

Decoder: TypeAlias = Callable[[Path, FileFormat], Iterable[NDArray[np.void]]]

FormatName: TypeAlias = Literal["auto", "bin", "evt2", "evt2.1", "evt3"]
"""``auto`` looks at the content; the others are for files without a header, of which content says nothing."""

# The sensors usual with each format, smallest first: what to assume where a header gives no size.
_USUAL_SIZES = {
    "bin": ((34, 34),),  # N-MNIST; N-Caltech101 is cropped per object, so it takes the size of its events
    "dat": ((304, 240), (640, 480), (1280, 720)),  # ATIS, Gen3, Gen4
    "evt2": ((320, 320), (640, 480), (1280, 720)),  # GenX320, Gen3, Gen4
    "evt2.1": ((320, 320), (640, 480), (1280, 720)),
    "evt3": ((320, 320), (640, 480), (1280, 720)),
    "text": (),
}


class Recording(NamedTuple):
    """A whole file in memory."""

    events: NDArray[np.void]  # EVENT_DTYPE, (n,), sorted by time, inside of the sensor
    width: int  # pixels
    height: int
    format: str
    clamped: int  # events whose time went back and was raised
    outside: int  # events dropped because they lay outside of the sensor
    fault: str  # why the file could not be read to its end; empty if it could


class _Opened(NamedTuple):
    """A file that is about to be read."""

    path: Path
    kind: FileFormat
    width: int
    height: int
    warnings: list[str]


@kernel
def keep_in_order(
    events: NDArray[np.void], kept: NDArray[np.void], width: int, height: int, counts: NDArray[np.int64]
) -> int:
    """Raise backward times and drop events outside of the sensor.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,).
    kept
        EVENT_DTYPE, shape (>= n,): written from the front.
    width, height
        The sensor, pixels.
    counts
        int64, shape (3,): highest time so far (start with 0), times raised, events dropped.

    Returns
    -------
    n_kept
        How many events were written.
    """
    n_kept = 0
    last = counts[0]
    for index in range(len(events)):
        event = events[index]
        if event["x"] >= width or event["y"] >= height:
            counts[2] += 1
            continue
        t_us = event["t"]
        if t_us < last:
            t_us = last
            counts[1] += 1
        last = t_us
        out = kept[n_kept]
        out["t"] = t_us
        out["x"] = event["x"]
        out["y"] = event["y"]
        out["p"] = event["p"]
        n_kept += 1
    counts[0] = last
    return n_kept


def _container(module: str, function: str) -> Decoder:
    """Make a decoder that is imported when the first such file is opened: its library may be large, or missing."""

    def read(path: Path, kind: FileFormat) -> Iterable[NDArray[np.void]]:
        try:
            decode = getattr(importlib.import_module(module), function)
        except ImportError as error:
            missing = "yet" if error.name == module else f"without the package {error.name}"
            way_out = "convert it to one of them" if error.name == module else f"install {error.name}, or convert it"
            raise FormatError(
                f"{path}: is {CONTAINERS[kind.name]}, which cannot be read {missing}; wanted {READABLE}; {way_out}"
            ) from None
        chunks: Iterable[NDArray[np.void]] = decode(path)
        return chunks

    return read


def _read_text(path: Path, kind: FileFormat) -> Iterable[NDArray[np.void]]:
    return read_text_events(path, kind.layout if kind.layout is not None else TextLayout(None, 0, (0, 1, 2, 3), False))


def _read_evt(path: Path, kind: FileFormat) -> EvtDecoder:
    version: EvtVersion = "evt2" if kind.name == "evt2" else "evt3" if kind.name == "evt3" else "evt2.1"
    return EvtDecoder(path, version, kind.header_bytes)


DECODERS: dict[str, Decoder] = {
    "aedat4": FaeryDecoder,
    "bin": lambda path, kind: read_atis_bin(path),
    "dat": lambda path, kind: read_dat(path, kind.header_bytes, version=kind.version),
    "es": FaeryDecoder,
    "evt2": _read_evt,
    "evt2.1": _read_evt,
    "evt3": _read_evt,
    "text": _read_text,
    "hdf5": _container("sources.hdf5", "read_hdf5"),
    "npy": _container("sources.numpy_file", "read_numpy"),
    "npz": _container("sources.numpy_file", "read_numpy"),
    "mat": _container("sources.mat_file", "read_mat"),
    "rosbag1": _container("sources.ros_bag", "read_ros_bag"),
    "rosbag2": _container("sources.ros_bag", "read_ros_bag"),
    "mcap": _container("sources.ros_bag", "read_ros_bag"),
}
"""By the name that ``recognise`` gives a file: how to read it. A decoder yields EVENT_DTYPE arrays in the order of the
file and raises FormatError at a fault, after what could be read. What it yields is copied before it is asked for more.
If it leaves something out it may say so: ``losses()`` gives a list of str for people.
"""


def _chunks(path: Path, kind: FileFormat) -> Iterable[NDArray[np.void]]:
    """Open a file for one reading, with the decoder of its format."""
    return DECODERS[kind.name](path, kind)


def _reach(chunks: Iterable[NDArray[np.void]]) -> tuple[int, int]:
    """Return the smallest width and height that hold all readable events."""
    width = height = 1
    try:
        for events in chunks:
            if len(events):
                width, height = max(width, int(events["x"].max()) + 1), max(height, int(events["y"].max()) + 1)
    except FormatError:
        pass  # the reading that counts comes later and reports it
    return width, height


def _open(path: Path, width: int | None, height: int | None, name: FormatName) -> _Opened:
    """Recognise a file and settle the sensor's size."""
    if (width is None) != (height is None) or (width is not None and (width < 1 or (height or 0) < 1)):
        raise ConfigError(
            f"event file {path}: got width {width} and height {height}, wanted both from 1 on; give both or neither"
        )
    kind = recognise(path) if name == "auto" else FileFormat(name, _size(path))
    if kind.name == "bin" and kind.size_bytes < 5:
        raise FormatError(f"{path}: has {kind.size_bytes} bytes, wanted at least one event of 5; copy the file again")
    if kind.name in CONTAINERS:
        next(iter(_chunks(path, kind)), None)  # a container without events is refused here, not told as a fault
    if kind.name == "aedat4":
        decoder = FaeryDecoder(path, kind)
        declared: tuple[int, int] | None = (decoder.width, decoder.height)
    elif kind.width is not None and kind.height is not None:
        declared = kind.width, kind.height
    else:
        declared = None
    warnings: list[str] = []
    if width is not None and height is not None:
        if declared is not None and declared != (width, height):
            warnings.append(f"the file declares {declared[0]}x{declared[1]} pixels; taken as {width}x{height} as asked")
        return _Opened(path, kind, width, height, warnings)
    if declared is None:
        wide, high = _reach(_chunks(path, kind))
        usual = [size for size in _USUAL_SIZES.get(kind.name, ()) if wide <= size[0] and high <= size[1]]
        declared = usual[0] if usual else (wide, high)
        warnings.append(
            f"the file declares no sensor size; taken as {declared[0]}x{declared[1]} because its events reach "
            f"{wide}x{high} (set width and height if that is wrong)"
        )
    return _Opened(path, kind, *declared, warnings)


def _size(path: Path) -> int:
    """Return a file's size; FormatError where there is none."""
    if not path.is_file():
        raise FormatError(f"{path}: there is no such file; check the path (relative to {Path.cwd()})")
    if not (size := path.stat().st_size):
        raise FormatError(f"{path}: is empty (0 bytes), wanted an event file; copy or record it again")
    return size


def _kept(opened: _Opened, counts: NDArray[np.int64], told: list[str]) -> Iterator[NDArray[np.void]]:
    """Read a file under the policies; FormatError at a torn tail, after what could be read.

    When nothing is left, ``told`` is extended by what the decoder left out.
    """
    chunks = _chunks(opened.path, opened.kind)
    try:
        yield from _policed(chunks, opened, counts)
    finally:
        told += getattr(chunks, "losses", list)()


def _policed(
    chunks: Iterable[NDArray[np.void]], opened: _Opened, counts: NDArray[np.int64]
) -> Iterator[NDArray[np.void]]:
    """Copy what a decoder yields, under the policies."""
    for events in chunks:
        if not events.flags.writeable:  # a read-only array would compile the kernel a second time
            events = events.copy()
        kept = np.empty(len(events), EVENT_DTYPE)
        yield kept[: keep_in_order(events, kept, opened.width, opened.height, counts)]


def _losses(counts: NDArray[np.int64], opened: _Opened) -> list[str]:
    """Put what the policies did into words."""
    told = []
    if counts[1]:
        told.append(f"{counts[1]} events went back in time and were raised to the time before")
    if counts[2]:
        told.append(f"{counts[2]} events outside of {opened.width}x{opened.height} pixels were dropped")
    return told


def read_events(
    path: str | Path, *, width: int | None = None, height: int | None = None, format: FormatName = "auto"
) -> Recording:
    """Read a whole recording into memory, up to its end or its first fault.

    Parameters
    ----------
    path
        May hold ``~`` and environment variables.
    width, height
        The sensor, pixels; both or neither. Default: what the header says, else the smallest usual one.
    format
        Needed for files without a header only.

    Raises
    ------
    FormatError
        Not even the beginning can be read. A fault further on is told in ``fault``.
    """
    opened = _open(expand_path(str(path)), width, height, format)
    counts = np.zeros(3, np.int64)
    told: list[str] = []
    parts: list[NDArray[np.void]] = []
    fault = ""
    try:
        for events in _kept(opened, counts, told):
            parts.append(events)
    except FormatError as error:
        fault = str(error)
    events = np.concatenate(parts) if parts else np.empty(0, EVENT_DTYPE)
    return Recording(events, opened.width, opened.height, opened.kind.name, int(counts[1]), int(counts[2]), fault)


def file_info(
    path: str | Path, *, width: int | None = None, height: int | None = None, format: FormatName = "auto"
) -> dict[str, object]:
    """Sum up a recording, reading it piece by piece.

    Returns
    -------
    info
        ``format`` (aedat4, evt2, evt2.1, evt3, dat, es, bin, text), ``width``, ``height`` (pixels), ``events``,
        ``on_events``, ``t_first_us``, ``t_last_us`` (0 without events), ``sum_x``, ``sum_y`` (over all events, origin
        top left), ``warnings`` (list of str): the size that had to be guessed, what the policies did, a torn tail.

    Raises
    ------
    FormatError
        Not even the beginning can be read.
    """
    opened = _open(expand_path(str(path)), width, height, format)
    counts = np.zeros(3, np.int64)
    n_events = on_events = sum_x = sum_y = t_first = t_last = 0
    warnings = list(opened.warnings)
    told: list[str] = []
    fault: list[str] = []
    try:
        for events in _kept(opened, counts, told):
            if not len(events):
                continue
            t_first = t_first if n_events else int(events["t"][0])
            t_last = int(events["t"][-1])
            n_events += len(events)
            on_events += int(np.count_nonzero(events["p"]))
            sum_x += int(events["x"].sum(dtype=np.int64))
            sum_y += int(events["y"].sum(dtype=np.int64))
    except FormatError as error:
        fault.append(str(error))
    if not n_events and not fault:
        warnings.append("the file holds no events")
    return {
        "format": opened.kind.name,
        "width": opened.width,
        "height": opened.height,
        "events": n_events,
        "on_events": on_events,
        "t_first_us": t_first,
        "t_last_us": t_last,
        "sum_x": sum_x,
        "sum_y": sum_y,
        "warnings": warnings + told + _losses(counts, opened) + fault,
    }


class EventFile(Source):
    """Play one recording.

    Parameters
    ----------
    path
        AEDAT4, EVT2, EVT2.1, EVT3, DAT, Event Stream, 40-bit ATIS or text; may hold ``~`` and environment variables.
    width, height
        The sensor, pixels; both or neither. Default: what the header says, else the smallest usual one (which reads the
        file once more).
    format
        Needed for files without a header only.

    Notes
    -----
    Times are those of the file. A position is a count of events: decoders of compressed formats cannot jump, so
    ``restore`` reads the file again up to there, at decoding speed.
    """

    def __init__(
        self, *, path: str, width: int | None = None, height: int | None = None, format: FormatName = "auto"
    ) -> None:
        self._opened = _open(expand_path(path), width, height, format)
        self.outputs = {"events": Port("events", self._opened.width, self._opened.height)}
        self._rewind()

    def _rewind(self) -> None:
        self._counts = np.zeros(3, np.int64)
        self._chunks: Iterator[NDArray[np.void]] = _kept(self._opened, self._counts, [])
        self._chunk = np.empty(0, EVENT_DTYPE)
        self._at = 0  # in the chunk
        self._n_out = 0
        self._last_us = 0
        self._end: End | None = None

    def poll(self, max_items: int) -> Message | None:
        """Hand out the next events, at most ``max_items``, then ``End``."""
        while self._end is None and self._at == len(self._chunk):
            try:
                self._chunk = next(self._chunks)
                self._at = 0
            except StopIteration:
                self._end = End(self._last_us + 1 if self._n_out else 0)
            except FormatError as error:
                self._end = End(self._last_us + 1 if self._n_out else 0, str(error))
        if self._end is not None:
            return self._end
        items = self._chunk[self._at : self._at + max(1, max_items)]
        self._at += len(items)
        self._n_out += len(items)
        self._last_us = int(items["t"][-1])
        return packet_of(items)

    def snapshot(self) -> Snapshot:
        """Return how many events were handed out."""
        return {"n_out": np.array(self._n_out, np.int64)}

    def restore(self, snapshot: Snapshot) -> None:
        """Read up to the position again; ConfigError if the file is shorter than that."""
        if snapshot.keys() != {"n_out"}:
            raise ConfigError(
                f"snapshot of {self._opened.path}: got arrays {sorted(snapshot)}, wanted n_out; "
                f"restore the snapshot of an event file"
            )
        self._rewind()
        wanted = int(snapshot["n_out"])
        while self._n_out < wanted:
            if isinstance(self.poll(wanted - self._n_out), End):
                got = self._n_out
                self._rewind()
                raise ConfigError(
                    f"snapshot of {self._opened.path}: stands at event {wanted}, but the file has {got}; "
                    f"restore it with the file that it was taken from"
                )

    def statistics(self) -> dict[str, float]:
        """Return events handed out, and what the policies did (in the part of the file decoded so far)."""
        return {"events": self._n_out, "times raised": int(self._counts[1]), "outside dropped": int(self._counts[2])}

    def close(self) -> None:
        """Close the file; a later ``poll`` says End."""
        self._end = self._end or End(self._last_us + 1 if self._n_out else 0, "closed")
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
