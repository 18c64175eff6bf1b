"""Recorded event files as a source, whole, or summed up.

Every decoder hands out what stands in the file. What a *stream* may hold is decided here, in one place, for all
formats, by the two policies of ``sources.policy``. What they do is counted and told. A source of a pipeline cannot
``pass``, for a stream never goes back and never leaves its sensor; whoever reads a file whole can.

``raw`` hands out the bits as stored. It makes a difference where a format stores them in another sense than ours (1 =
brighter, origin top left): AEDAT 2 and 3 and Event Stream; their modules say in which.

Files whose header gives no sensor size (.bin, text, DAT, many .raw) are read twice: once to find how far the events
reach. The size is then the smallest usual sensor of that format that holds them all. Give ``width`` and ``height`` to
spare that; standard input (``-``) cannot be read twice and needs them, or a header that tells.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sources.byte_stream import STANDARD_INPUT, ByteStream, Place
from sources.data_path import expand_path
from sources.file_format import CONTAINERS, FileFormat, recognise
from sources.policy import POLICIES, Policy, apply_policies
from stream.errors import ConfigError, FormatError
from stream.operator import Port, Snapshot, Source
from stream.packet import EVENT_DTYPE, End, Message, packet_of

__all__ = [
    "AS_IT_SAYS",
    "DECODERS",
    "EventFile",
    "FormatName",
    "OpenEvents",
    "Reading",
    "Recording",
    "file_info",
    "open_events",
    "read_events",
]

FormatName: TypeAlias = Literal["auto", "bin", "evt2", "evt2.1", "evt3"]
"""``auto`` looks at the content; the others are for files without a header, of which content says nothing."""

TimeUnit: TypeAlias = Literal["auto", "s", "ms", "us", "ns"]

# The sensors usual with each format, smallest first: what to assume where a header gives no size.
_ANY = ((128, 128), (240, 180), (304, 240), (346, 260), (640, 480), (1280, 720))
_USUAL_SIZES = {
    "aedat2": ((128, 128), (240, 180), (346, 260)),
    "aedat3": ((128, 128), (240, 180), (346, 260), (640, 480)),
    "bin": ((34, 34),),  # N-MNIST; N-Caltech101 is cropped per object, so it takes the size of its events
    "dat": ((304, 240), (640, 480), (1280, 720)),  # ATIS, Gen3, Gen4
    "evt2": ((320, 320), (640, 480), (1280, 720)),  # GenX320, Gen3, Gen4
    "evt2.1": ((320, 320), (640, 480), (1280, 720)),
    "evt3": ((320, 320), (640, 480), (1280, 720)),
    "hdf5": _ANY,
    "npy": _ANY,
    "npz": _ANY,
    "text": _ANY,
}


class Reading(NamedTuple):
    """How a file is to be read, where it does not say so itself or says it wrongly."""

    width: int | None = None  # pixels; both or neither
    height: int | None = None
    format: FormatName = "auto"
    backward: Policy = "clamp"  # times that go back
    outside: Policy = "drop"  # events outside of the sensor
    raw: bool = False  # bits as stored
    columns: str = ""  # order of columns in text and plain arrays, such as "xypt"
    time_unit: TimeUnit = "auto"  # of text, arrays, HDF5
    content: str = ""  # which: a bag's topic, a group of HDF5, a variable of MATLAB, a chip of AEDAT 2
    follow_s: float = 0.0  # the file still grows: it has ended when nothing came for so long


AS_IT_SAYS = Reading()
"""Nothing to add to what the file says of itself."""

Decoder: TypeAlias = Callable[[Path, FileFormat, Reading], Iterable[NDArray[np.void]]]


class Recording(NamedTuple):
    """A whole file in memory."""

    events: NDArray[np.void]  # EVENT_DTYPE, (n,), under the policies asked for
    width: int  # pixels
    height: int
    format: str
    backward: int  # events whose time went back
    outside: int  # events outside of the sensor
    fault: str  # why the file could not be read to its end; empty if it could


class _Opened(NamedTuple):
    """A file that is about to be read."""

    path: Path
    kind: FileFormat
    width: int
    height: int
    reading: Reading
    warnings: list[str]


def _adapter(
    module: str, function: str, arguments: Callable[[FileFormat, Reading], dict[str, Any]] = lambda kind, reading: {}
) -> Decoder:
    """Make a decoder that is imported when the first such file is opened: its library may be large, or missing."""

    def read(path: Path, kind: FileFormat, reading: Reading) -> Iterable[NDArray[np.void]]:
        try:
            chunks: Iterable[NDArray[np.void]] = getattr(importlib.import_module(module), function)(
                path, **arguments(kind, reading)
            )
        except ImportError as error:
            raise FormatError(
                f"{path}: is {CONTAINERS.get(kind.name, kind.name)}, which cannot be read without the package "
                f"{error.name}; install it (pip install 'hebbstream[formats]' brings it), or convert the file"
            ) from None
        return chunks

    return read


def _follow(kind: FileFormat, reading: Reading) -> dict[str, Any]:
    return {"follow_s": reading.follow_s}


def _raw(kind: FileFormat, reading: Reading) -> dict[str, Any]:
    return {"raw": reading.raw}


def _evt(kind: FileFormat, reading: Reading) -> dict[str, Any]:
    return {"version": kind.name, "header_bytes": kind.header_bytes, **_follow(kind, reading)}


def _text(kind: FileFormat, reading: Reading) -> dict[str, Any]:
    return {"layout": kind.layout, **_follow(kind, reading)}


def _numpy(kind: FileFormat, reading: Reading) -> dict[str, Any]:
    return {"columns": reading.columns or "txyp", "time_unit": reading.time_unit, **_raw(kind, reading)}


def _dv(kind: FileFormat, reading: Reading) -> dict[str, Any]:
    which = {"source": "aedat3", "stream": "aedat4"}
    number = next(name for name, format in which.items() if format == kind.name)
    if reading.content and not reading.content.isdigit():
        raise ConfigError(f"{kind.name}: content is {reading.content!r}, wanted the number of a {number}")
    chosen = {number: int(reading.content)} if reading.content else {}
    return {**chosen, **_raw(kind, reading), **_follow(kind, reading)}


def _bag(kind: FileFormat, reading: Reading) -> dict[str, Any]:
    return {"topic": reading.content, **_raw(kind, reading)}


DECODERS: dict[str, Decoder] = {
    "aedat2": _adapter(
        "sources.aedat2",
        "Aedat2Decoder",
        lambda kind, reading: {"chip": reading.content or "auto", **_raw(kind, reading), **_follow(kind, reading)},
    ),
    "aedat3": _adapter("sources.aedat3", "Aedat3Decoder", _dv),
    "aedat4": _adapter("sources.aedat4", "Aedat4Decoder", _dv),
    "bin": _adapter("sources.atis_bin", "AtisBinDecoder", _follow),
    "dat": _adapter(
        "sources.dat",
        "DatDecoder",
        lambda kind, reading: {
            "header_bytes": kind.header_bytes,
            "version": kind.version,
            **_follow(kind, reading),
        },
    ),
    "es": _adapter(
        "sources.event_stream",
        "EventStreamDecoder",
        lambda kind, reading: {**_raw(kind, reading), **_follow(kind, reading)},
    ),
    "evt2": _adapter("sources.evt", "EvtDecoder", _evt),
    "evt2.1": _adapter("sources.evt", "EvtDecoder", _evt),
    "evt3": _adapter("sources.evt", "EvtDecoder", _evt),
    "evt2.1 text": _adapter("sources.evt21_text", "read_evt21_text"),
    "text": _adapter("sources.text_events", "read_text_events", _text),
    "hdf5": _adapter(
        "sources.hdf5",
        "read_hdf5",
        lambda kind, reading: {
            "mapping": reading.content,
            "columns": reading.columns,
            "time_unit": reading.time_unit,
            **_raw(kind, reading),
        },
    ),
    "npy": _adapter("sources.numpy_file", "read_numpy", _numpy),
    "npz": _adapter("sources.numpy_file", "read_numpy", _numpy),
    "mat": _adapter(
        "sources.mat_file",
        "read_mat",
        lambda kind, reading: {
            "variable": reading.content,
            "columns": reading.columns,
            "time_unit": reading.time_unit,
            **_raw(kind, reading),
        },
    ),
    "rosbag1": _adapter("sources.ros_bag", "read_ros_bag", _bag),
    "rosbag2": _adapter("sources.ros_bag", "read_ros_bag", _bag),
    "mcap": _adapter("sources.ros_bag", "read_ros_bag", _bag),
}
"""By the name that ``recognise`` gives a file: how to read it. A decoder yields EVENT_DTYPE arrays in the order of the
file and raises FormatError at a fault, after what could be read. What it yields is copied before it is asked for more;
an empty array means that nothing is there yet. If it leaves something out it may say so: ``losses()`` gives a list of
str for people. It may know the sensor's size: ``width`` and ``height``; and the ByteStream that it reads: ``bytes``.
"""


def _chunks(path: Path, kind: FileFormat, reading: Reading) -> Iterable[NDArray[np.void]]:
    """Open a file for one reading, with the decoder of its format."""
    return DECODERS[kind.name](path, kind, reading)


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


def _open(path: Path, reading: Reading) -> _Opened:
    """Recognise a file and settle the sensor's size."""
    width, height = reading.width, reading.height
    if (width is None) != (height is None) or (width is not None and (width < 1 or (height or 0) < 1)):
        raise ConfigError(
            f"event file {path}: got width {width} and height {height}, wanted both from 1 on; give both or neither"
        )
    for name, policy in (("backward", reading.backward), ("outside", reading.outside)):
        if policy not in POLICIES:
            raise ConfigError(f"event file {path}: {name} is {policy!r}, wanted one of {', '.join(POLICIES)}")
    if path.is_dir():
        from sources.ros_bag import bag_in  # here: other formats do without it

        path = bag_in(path)
    if reading.format == "auto":
        kind = recognise(path, columns=reading.columns, time_unit=reading.time_unit)
    else:
        kind = FileFormat(reading.format, _size(path))
    if kind.name == "bin" and 0 <= kind.size_bytes < 5:
        raise FormatError(f"{path}: has {kind.size_bytes} bytes, wanted at least one event of 5; copy the file again")
    chunks = _chunks(path, kind, reading)
    if kind.name in CONTAINERS:
        next(iter(chunks), None)  # a container without events is refused here, not told as a fault
    declared = (kind.width, kind.height)
    if None in declared:
        declared = getattr(chunks, "width", None), getattr(chunks, "height", None)
    warnings: list[str] = []
    if width is not None and height is not None:
        if None not in declared and declared != (width, height):
            warnings.append(f"the file declares {declared[0]}x{declared[1]} pixels; taken as {width}x{height} as asked")
        return _Opened(path, kind, width, height, reading, warnings)
    if declared[0] is not None and declared[1] is not None:
        return _Opened(path, kind, declared[0], declared[1], reading, warnings)
    if path == STANDARD_INPUT:
        raise ConfigError(
            f"standard input is {kind.name} without a sensor size and cannot be read twice to find it; "
            f"give width and height"
        )
    wide, high = _reach(_chunks(path, kind, reading._replace(follow_s=0.0)))
    usual = [size for size in _USUAL_SIZES.get(kind.name, ()) if wide <= size[0] and high <= size[1]]
    width, height = usual[0] if usual else (wide, high)
    warnings.append(
        f"the file declares no sensor size; taken as {width}x{height} because its events reach "
        f"{wide}x{high} (set width and height if that is wrong)"
    )
    return _Opened(path, kind, width, height, reading, warnings)


def _size(path: Path) -> int:
    """Return a file's size, -1 for standard input; FormatError where there is none."""
    if path == STANDARD_INPUT:
        return -1
    if not path.is_file():
        raise FormatError(f"{path}: there is no such file; check the path (relative to {Path.cwd()})")
    if not (size := path.stat().st_size):
        raise FormatError(f"{path}: is empty (0 bytes), wanted an event file; copy or record it again")
    return size


class _Entry(NamedTuple):
    """A place in a file where reading may begin again."""

    place: Place
    counts: NDArray[np.int64]  # of the policies, before it
    n_before: int  # events decoded before it
    n_out: int  # events handed out before it


_ENTRY_BYTES = 1 << 20  # between two places of the index


class OpenEvents:
    """An event file that is being read: what its decoder yields, under the policies, in arrays of its own.

    Attributes
    ----------
    width, height : int
        The sensor, pixels.
    counts : array
        int64, shape (4,); see ``sources.policy``.
    told : list of str
        When nothing is left: what the decoder left out.
    """

    def __init__(self, opened: _Opened, index: list[_Entry] | None = None, entry: _Entry | None = None) -> None:
        self.counts = np.zeros(4, np.int64)
        self.told: list[str] = []
        self.width, self.height, self.format = opened.width, opened.height, opened.kind.name
        self._opened = opened
        self._decoder = _chunks(opened.path, opened.kind, opened.reading)
        self._index = index
        self._n_before = self.n_out = 0
        if entry is not None:
            setattr(self._decoder, "start", entry.place)  # noqa: B010 - only decoders of flat formats have it
            self.counts[:] = entry.counts
            self._n_before, self.n_out = entry.n_before, entry.n_out

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Yield EVENT_DTYPE arrays of shape (n,); FormatError at a fault, after what could be read."""
        opened, reading, counts = self._opened, self._opened.reading, self.counts
        backward, outside = POLICIES.index(reading.backward), POLICIES.index(reading.outside)
        chunks = iter(self._decoder)
        try:
            for events in chunks:
                self._note()
                if not (events.flags.writeable and events.flags.c_contiguous):
                    events = events.copy()  # another kind of array would compile the kernel a second time
                kept = np.empty(len(events), EVENT_DTYPE)
                n_kept = apply_policies(events, kept, opened.width, opened.height, backward, outside, counts)
                self.n_out += n_kept
                yield kept[:n_kept]
                if counts[3]:
                    raise FormatError(self._refusal(events[int(counts[3]) - 1], int(counts[3]) - 1))
                self._n_before += len(events)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
            self.told += getattr(self._decoder, "losses", list)()

    def _note(self) -> None:
        """Note where the chunk at hand begins, if that is far enough from the last place noted."""
        place: Place | None = getattr(self._decoder, "place", None)
        if self._index is None or place is None:
            return
        last = self._index[-1].place.position if self._index else 0
        if place.position >= last + _ENTRY_BYTES:
            self._index.append(_Entry(place, self.counts.copy(), self._n_before, self.n_out))

    def _refusal(self, event: Any, index: int) -> str:
        opened = self._opened
        where = f"{opened.path}: event {self._n_before + index} at {event['t']} us, x {event['x']}, y {event['y']}"
        if event["x"] >= opened.width or event["y"] >= opened.height:
            return f"{where} lies outside of {opened.width}x{opened.height} pixels; everything before was read"
        return f"{where} goes back in time; everything before was read"

    def losses(self) -> list[str]:
        """Put into words what had to be guessed, and what was left out or changed so far."""
        reading, counts = self._opened.reading, self.counts
        done = {
            "clamp": ("raised to the time before", "moved to the nearest pixel"),
            "drop": ("dropped", "dropped"),
            "pass": ("passed on", "passed on"),
            "error": ("refused", "refused"),
        }
        told = [*self._opened.warnings, *self.told]
        if counts[1]:
            told.append(f"{counts[1]} events went back in time and were {done[reading.backward][0]}")
        if counts[2]:
            size = f"{self._opened.width}x{self._opened.height}"
            told.append(f"{counts[2]} events outside of {size} pixels were {done[reading.outside][1]}")
        return told

    def progress(self) -> tuple[int, int]:
        """Return bytes decoded and bytes in all; (0, 0) where the decoder does not tell."""
        stream: ByteStream | None = getattr(self._decoder, "bytes", None)
        return (stream.position, max(0, self._opened.kind.size_bytes)) if stream is not None else (0, 0)


def open_events(path: str | Path, reading: Reading = AS_IT_SAYS) -> OpenEvents:
    """Open a file to be read once, piece by piece.

    Raises
    ------
    FormatError
        Not even the beginning can be read.
    ConfigError
        It is to be read in a way that cannot be.
    """
    return OpenEvents(_open(expand_path(str(path)), reading))


def read_events(
    path: str | Path,
    *,
    width: int | None = None,
    height: int | None = None,
    format: FormatName = "auto",
    backward: Policy = "clamp",
    outside: Policy = "drop",
    raw: bool = False,
    columns: str = "",
    time_unit: TimeUnit = "auto",
    content: str = "",
) -> Recording:
    """Read a whole recording into memory, up to its end or its first fault.

    Parameters
    ----------
    path
        May hold ``~`` and environment variables; ``-`` is standard input.
    width, height
        The sensor, pixels; both or neither. Default: what the header says, else the smallest usual one.
    format
        Needed for files without a header only.
    backward, outside
        What becomes of times that go back and of events outside of the sensor; see the module.
    raw
        Bits as stored; see the module.
    columns
        Order of the columns of text or plain arrays, such as ``xypt``, if a first line does not name them.
    time_unit
        Of text, arrays and HDF5; ``auto`` guesses as their modules tell.
    content
        Which of several: a bag's topic, an HDF5 group or mapping, a chip of AEDAT 2.

    Raises
    ------
    FormatError
        Not even the beginning can be read. A fault further on is told in ``fault``.
    """
    reading = Reading(width, height, format, backward, outside, raw, columns, time_unit, content)
    policed = open_events(path, reading)
    parts: list[NDArray[np.void]] = []
    fault = ""
    try:
        for events in policed:
            parts.append(events)
    except FormatError as error:
        fault = str(error)
    events = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, EVENT_DTYPE)
    return Recording(
        events, policed.width, policed.height, policed.format, int(policed.counts[1]), int(policed.counts[2]), fault
    )


def file_info(
    path: str | Path,
    *,
    reading: Reading = AS_IT_SAYS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, object]:
    """Sum up a recording, reading it piece by piece.

    Parameters
    ----------
    path
        May hold ``~`` and environment variables; ``-`` is standard input.
    reading
        How to read it.
    progress
        Called with bytes read and bytes in all, where the format lets them be told.

    Returns
    -------
    info
        ``format``, ``width``, ``height`` (pixels), ``events``, ``on_events``, ``t_first_us``, ``t_last_us`` (0 without
        events), ``sum_x``, ``sum_y`` (over all events, origin top left), ``warnings`` (list of str): the size that had
        to be guessed, what the policies did, a torn tail.

    Raises
    ------
    FormatError
        Not even the beginning can be read.
    """
    policed = open_events(path, reading)
    n_events = on_events = sum_x = sum_y = t_first = t_last = 0
    fault: list[str] = []
    try:
        for events in policed:
            progress(*policed.progress())
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
    warnings = policed.losses()
    if not n_events and not fault:
        warnings.append("the file holds no events")
    return {
        "format": policed.format,
        "width": policed.width,
        "height": policed.height,
        "events": n_events,
        "on_events": on_events,
        "t_first_us": t_first,
        "t_last_us": t_last,
        "sum_x": sum_x,
        "sum_y": sum_y,
        "warnings": warnings + fault,
    }


class EventFile(Source):
    """Play one recording.

    Parameters
    ----------
    path
        Any file that ``hebbstream info`` can read; may hold ``~`` and environment variables; ``-`` is standard input.
    width, height
        The sensor, pixels; both or neither. Default: what the header says, else the smallest usual one (which reads the
        file once more).
    format
        Needed for files without a header only.
    backward, outside
        What becomes of times that go back and of events outside of the sensor: ``clamp``, ``drop`` or ``error``.
    raw, columns, time_unit, content
        See ``read_events``.
    follow_s
        The file still grows: go on reading, until nothing has come for so long, seconds.

    Notes
    -----
    Times are those of the file. A position is a count of events. Of flat formats (EVT 2 and 3, DAT, .bin, AEDAT 2) an
    index is kept of what was read: a place every megabyte, with the decoder's state there, from which ``restore`` and
    ``skip_to`` go on. Other formats, and parts not read yet, are decoded up to there, at decoding speed.
    """

    def __init__(
        self,
        *,
        path: str,
        width: int | None = None,
        height: int | None = None,
        format: FormatName = "auto",
        backward: Policy = "clamp",
        outside: Policy = "drop",
        raw: bool = False,
        columns: str = "",
        time_unit: TimeUnit = "auto",
        content: str = "",
        follow_s: float = 0.0,
    ) -> None:
        if "pass" in (backward, outside):
            raise ConfigError(
                f"event file {path}: backward is {backward!r} and outside {outside!r}, wanted clamp, drop or error: "
                f"a stream never goes back and never leaves its sensor; `hebbstream convert` passes them"
            )
        reading = Reading(width, height, format, backward, outside, raw, columns, time_unit, content, follow_s)
        self._opened = _open(expand_path(path), reading)
        self._may_wait = follow_s > 0 or self._opened.path == STANDARD_INPUT
        self.outputs = {"events": Port("events", self._opened.width, self._opened.height)}
        self._index: list[_Entry] = []
        self._begin()

    def _begin(self, entry: _Entry | None = None) -> None:
        self._policed = OpenEvents(self._opened, self._index, entry)
        self._chunks = iter(self._policed)
        self._chunk = np.empty(0, EVENT_DTYPE)
        self._at = 0  # in the chunk
        self._n_out = entry.n_out if entry is not None else 0
        self._last_us = int(entry.counts[0]) if entry is not None else 0
        self._end: End | None = None

    def poll(self, max_items: int) -> Message | None:
        """Hand out the next events, at most ``max_items``, then ``End``; None while a growing file rests."""
        while self._end is None and self._at == len(self._chunk):
            try:
                self._chunk = next(self._chunks)
                self._at = 0
            except StopIteration:
                self._end = End(self._last_us + 1 if self._n_out else 0)
            except FormatError as error:
                self._end = End(self._last_us + 1 if self._n_out else 0, str(error))
            if self._may_wait and self._end is None and not len(self._chunk):
                return None
        if self._end is not None:
            return self._end
        items = self._chunk[self._at : self._at + max(1, max_items)]
        self._at += len(items)
        self._n_out += len(items)
        self._last_us = int(items["t"][-1])
        return packet_of(items)

    def skip_to(self, t_us: int) -> None:
        """Go on with the first event from ``t_us`` on (or the end); what lies before is not handed out."""
        ahead = [entry for entry in self._index if entry.counts[0] < t_us and entry.n_out > self._n_out]
        if ahead and self._end is None:
            self._leave()
            self._begin(ahead[-1])
        while self._end is None:
            if self._at < len(self._chunk):
                n_skipped = int(np.searchsorted(self._chunk["t"][self._at :], t_us))
                self._at += n_skipped
                self._n_out += n_skipped
                if self._at < len(self._chunk):
                    return
            before = self._end
            try:
                self._chunk = next(self._chunks)
                self._at = 0
            except StopIteration:
                self._end = End(max(self._last_us, t_us))
            except FormatError as error:
                self._end = End(max(self._last_us, t_us), str(error))
            if before is None and self._may_wait and not len(self._chunk):
                return

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
        wanted = int(snapshot["n_out"])
        if self._opened.path == STANDARD_INPUT and wanted != self._n_out:
            raise ConfigError(
                f"snapshot of standard input: stands at event {wanted}, but it cannot be read again; "
                f"play a file where a run is to be resumed"
            )
        if wanted != self._n_out or self._end is not None:
            self._leave()
            before = [entry for entry in self._index if entry.n_out <= wanted]
            self._begin(before[-1] if before else None)
        while self._n_out < wanted:
            if isinstance(self.poll(wanted - self._n_out), End):
                got = self._n_out
                self._begin()
                raise ConfigError(
                    f"snapshot of {self._opened.path}: stands at event {wanted}, but the file has {got}; "
                    f"restore it with the file that it was taken from"
                )

    def statistics(self) -> dict[str, float]:
        """Return events handed out, and what the policies did (in the part of the file decoded so far)."""
        done, total = self._policed.progress()
        counts = self._policed.counts
        found = {"events": float(self._n_out), "went back": float(counts[1]), "outside": float(counts[2])}
        return found | ({"bytes": float(done), "of bytes": float(total)} if total else {})

    def close(self) -> None:
        """Close the file; a later ``poll`` says End."""
        self._end = self._end or End(self._last_us + 1 if self._n_out else 0, "closed")
        self._leave()

    def _leave(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
