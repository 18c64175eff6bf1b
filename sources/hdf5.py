"""Events in HDF5 files (package ``h5py``): reader and writer. MATLAB 7.3 files are HDF5 too.

There are many layouts and no standard. These are looked for, in this order:

- ``CD/events``, a table with fields x, y, p, t: Prophesee. Their recorder packs it with a codec of its own, ECF, which
  needs the plugin ``hdf5_ecf``;
- ``events/t``, ``x``, ``y``, ``p`` and a number ``t_offset``, which is added to all times: DSEC. The data set itself is
  packed with Blosc, which needs the package ``hdf5plugin``;
- any one group with four arrays whose names say what they are (``ts``, ``polarity``, ...), any table with such fields,
  or a matrix of four columns called ``events``. If there are several, such as two cameras, ``mapping`` says which.

A file declares its sensor by the attributes ``width`` and ``height``, ``geometry`` ("1280x720"), or
``sensor_resolution`` (height, width), of the file, the group or an array.

``Hdf5Writer`` writes the layout of DSEC, because more programs ask for ``events/t`` and its three neighbours than for
anything else, and a table cannot serve them. Road not taken: ``CD/events``, which Prophesee's programs read only with
an index beside it that is described nowhere.

Arrays are read a piece at a time, so memory is bounded. A file that was cut off cannot be opened at all: HDF5 keeps
its tables of contents where it likes, and its library refuses. Arrays that claim more than is stored (a chunk that was
never written reads as zeros) end with a FormatError where the data do. Data in other files (external, virtual) are not
followed.

Formats: HDF5 File Format Specification; https://dsec.ifi.uzh.ch/data-format/;
https://docs.prophesee.ai/stable/data/file_formats/hdf5.html.
"""

import contextlib
import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sources.flat_writer import first_unfit, own
from sources.numpy_file import Columns, TimeUnit, column_events, find_columns, guess_order
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE

__all__ = ["Hdf5Decoder", "Hdf5Writer", "read_hdf5"]

_PIECE_EVENTS = 65536
_MOST_CHUNK_BYTES = 1 << 28  # the library unpacks a chunk at once
_MOST_GROUPS = 20_000
_MOST_ROW_BYTES = 1 << 12
_MOST_MS = 86_400_000  # a day
_FARTHEST_US = 1 << 60
_SIZE_ATTRIBUTES = ("width", "height", "sensor_width", "sensor_height", "geometry", "sensor_resolution")
_FILTERS = {  # those that HDF5 itself lacks, by registered number
    0x8ECF: ("ECF", "install Prophesee's plugin hdf5_ecf and set HDF5_PLUGIN_PATH to its folder"),
    32001: ("Blosc", "pip install hdf5plugin"),
    32004: ("LZ4", "pip install hdf5plugin"),
    32008: ("Bitshuffle", "pip install hdf5plugin"),
    32015: ("Zstandard", "pip install hdf5plugin"),
    32026: ("Blosc2", "pip install hdf5plugin"),
}


class _Source(NamedTuple):
    """Where events are in a file."""

    name: str
    arrays: tuple[str, ...]  # paths of t, x, y, p; or of one table or matrix
    fields: tuple[str, ...] = ()  # of a table: t, x, y, p


def _h5py(subject: Path) -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError:
        raise FormatError(f"{subject}: is HDF5, which needs the package h5py; pip install h5py") from None


def _is_dataset(thing: Any) -> bool:
    """Tell arrays from groups and named types; an array without any shape is none."""
    return hasattr(thing, "chunks") and thing.shape is not None


def _length(dataset: Any) -> int:
    """Return the number of values of a vector, in whichever axis it lies; -1 if it is none."""
    shape = dataset.shape
    if not shape or math.prod(shape) != max(shape) or dataset.dtype.kind not in "iufb":
        return -1
    return int(max(shape)) if len(shape) <= 2 else -1


def _table_fields(dataset: Any) -> tuple[str, ...]:
    """Return the fields t, x, y, p of a table; empty if it has no such."""
    names = find_columns(dataset.dtype.names or ())
    return tuple(names[key] for key in "txyp") if names is not None and len(dataset.shape) == 1 else ()


def _is_matrix(dataset: Any) -> bool:
    return len(dataset.shape or ()) == 2 and 4 in dataset.shape and dataset.dtype.kind in "iufb"


def _member(group: Any, key: str) -> Any:
    """Return what is in a group under a name; None for a link that leads out of the file or nowhere."""
    link = group.get(key, getlink=True)
    return None if hasattr(link, "filename") else group.get(key)


def _in_group(group: Any, path: str) -> list[_Source]:
    """Find events in a group itself, not in the groups within."""
    vectors: dict[str, str] = {}
    found: list[_Source] = []
    for key in group:
        thing = _member(group, key)
        if not _is_dataset(thing):
            continue
        name = f"{path}/{key}".lstrip("/")
        fields = _table_fields(thing)
        if fields:
            found.append(_Source(name, (name,), fields))
        elif key.lower() == "events" and _is_matrix(thing):
            found.append(_Source(name, (name,)))
        elif _length(thing) >= 0:
            vectors[key] = name
    names = find_columns(vectors)
    if names is not None and len({_length(group[names[key]]) for key in "txyp"}) == 1:
        found.append(_Source(path.strip("/") or "/", tuple(vectors[names[key]] for key in "txyp")))
    return found


def _everywhere(file: Any) -> Iterator[_Source]:
    """Search all groups. A group that contains itself (links may do that) is entered once."""
    address = importlib.import_module("h5py").h5o.get_info
    seen: set[int] = set()
    ahead = [(file["/"], "")]
    while ahead and len(seen) < _MOST_GROUPS:
        group, path = ahead.pop(0)
        place = address(group.id).addr
        if place in seen:
            continue
        seen.add(place)
        yield from _in_group(group, path)
        for key in group:
            thing = None if key.startswith("#") else _member(group, key)  # MATLAB's own begin with #
            if thing is not None and hasattr(thing, "keys"):
                ahead.append((thing, f"{path}/{key}"))


def _mapped(file: Any, mapping: str) -> list[_Source]:
    """Find what the caller names: a group, a table, or four arrays."""
    if "=" not in mapping:
        thing = file.get(mapping)
        if thing is None:
            return []
        if not _is_dataset(thing):
            return _in_group(thing, mapping.strip("/"))
        fields = _table_fields(thing)
        return [_Source(mapping, (mapping,), fields)] if fields or _is_matrix(thing) else []
    parts = {key.strip(): value.strip() for key, _, value in (part.partition("=") for part in mapping.split(","))}
    if parts.keys() != set("txyp") or any(
        not _is_dataset(file.get(value)) or _length(file[value]) < 0 for value in parts.values()
    ):
        return []
    return [_Source(mapping, tuple(parts[key] for key in "txyp"))]


def _find(file: Any, path: Path, mapping: str) -> _Source:
    if mapping:
        found = _mapped(file, mapping)
    else:
        found = []
        for name in ("CD/events", "events"):
            found = found or _mapped(file, name)
        found = found or list(_everywhere(file))
    if len(found) == 1:
        return found[0]
    names: list[str] = [source.name for source in found]
    if not found:
        file.visit(lambda name: names.append(name) if len(names) < 40 else True)
    raise FormatError(
        f"{path}: {f'mapping {mapping!r}' if mapping else 'what to play'} is not clear: the file holds "
        f"{', '.join(names)[:1000] or 'nothing'}; wanted one group with arrays t, x, y and p of one length, or one "
        f"table with such fields; name it (mapping = 'GROUP' or 't=...,x=...,y=...,p=...')"
    )


def _long_axis(dataset: Any) -> int:
    """Return the axis along which events follow each other."""
    if len(dataset.shape) == 1:
        return 0
    if dataset.shape[1] == 4 and dataset.shape[0] > 1:
        return 0
    return 1 if dataset.shape[1] > 1 or dataset.shape[0] == 4 else 0


def _slice(dataset: Any, axis: int, start: int, stop: int) -> NDArray[Any]:
    """Read rows; they come along the first axis."""
    return np.asarray(dataset[start:stop] if axis == 0 else dataset[:, start:stop].T)


def _stored_rows(dataset: Any, axis: int) -> int:
    """Return how many rows are really in the file: space that was never written reads as zeros, without end."""
    rows = int(dataset.shape[axis])
    if not rows:
        return 0
    row_bytes = dataset.dtype.itemsize * (math.prod(dataset.shape) // rows)
    if dataset.chunks is None:
        stored = dataset.id.get_storage_size() // max(1, row_bytes)
    else:
        axes = enumerate(zip(dataset.shape, dataset.chunks, strict=True))
        across = math.prod(-(-size // chunk) for k, (size, chunk) in axes if k != axis)
        stored = dataset.id.get_num_chunks() // max(1, across) * dataset.chunks[axis]
    return min(rows, int(stored))


def _check(dataset: Any, subject: str) -> None:
    """Refuse what cannot be read, or not within bounds."""
    if dataset.is_virtual or dataset.external:
        raise FormatError(
            f"{subject}: its data are in other files, wanted them in this one; repack the file (h5repack)"
        )
    chunk_bytes = math.prod(dataset.chunks or (1,)) * dataset.dtype.itemsize
    if chunk_bytes > _MOST_CHUNK_BYTES or dataset.dtype.itemsize > _MOST_ROW_BYTES:
        raise FormatError(
            f"{subject}: has chunks of {chunk_bytes} bytes and values of {dataset.dtype.itemsize}, wanted at most "
            f"{_MOST_CHUNK_BYTES} and {_MOST_ROW_BYTES}; repack the file (h5repack), or it is damaged"
        )
    h5z = importlib.import_module("h5py").h5z
    properties = dataset.id.get_create_plist()
    for k in range(properties.get_nfilters()):
        code, _, _, words = properties.get_filter(k)
        if not h5z.filter_avail(code):
            with contextlib.suppress(ImportError):
                importlib.import_module("hdf5plugin")  # makes its filters known to HDF5
            if not h5z.filter_avail(code):
                name, way_out = _FILTERS.get(
                    code, (words.decode("latin-1")[:40], "install its plugin and set HDF5_PLUGIN_PATH to its folder")
                )
                raise FormatError(
                    f"{subject}: is packed with the HDF5 filter {code} ({name}), which is not there; {way_out}, or "
                    f"unpack the file where it is (h5repack -f NONE)"
                )


class Hdf5Decoder:
    """One set of events in a file, read from its start each time it is iterated over; see ``read_hdf5``."""

    def __init__(self, path: Path, mapping: str, columns: str, time_unit: TimeUnit, raw: bool) -> None:
        if columns and sorted(columns) != sorted("txyp"):
            raise FormatError(f"columns: got {columns!r}, wanted each of t, x, y and p once, such as 'xypt'")
        self.path, self.time_unit = path, time_unit
        self.width: int | None = None
        self.height: int | None = None
        with self._opened() as file:
            try:
                self._source = _find(file, path, mapping)
                for name in self._source.arrays:
                    _check(file[name], f"{path}: {name}")
                self.width, self.height = _declared_size(file, self._source)
                self._offset_us = 0 if raw else self._find_offset(file)
                is_matrix = len(self._source.arrays) == 1 and not self._source.fields
                self._order = (columns or self._guess(file)) if is_matrix else "txyp"
                is_matlab = "MATLAB_class" in file[self._source.arrays[0]].attrs
                self._origin = 0 if raw or not is_matlab else self._find_origin(file)
            except FormatError:
                raise
            except Exception as error:  # h5py raises nearly every kind on a damaged file
                raise FormatError(
                    f"{path}: its table of contents cannot be read ({_words(error)}); copy the file again"
                ) from error

    def _opened(self) -> Any:
        h5py = _h5py(self.path)
        try:
            return h5py.File(self.path, "r")
        except Exception as error:  # OSError as a rule
            raise FormatError(
                f"{self.path}: HDF5 cannot open it ({_words(error)}); a file that was cut off cannot be read in part: "
                f"copy it again"
            ) from error

    def _find_offset(self, file: Any) -> int:
        """Read DSEC's ``t_offset``, beside the arrays or above them."""
        group = file[self._source.arrays[0]].parent
        for home in (group, group.parent):
            offset = home.get("t_offset")
            if _is_dataset(offset) and offset.shape in ((), (1,)) and offset.dtype.kind in "iu":
                value = int(np.asarray(offset[()]).reshape(-1)[0])
                if abs(value) < 1 << 62:
                    return value
        return 0

    def _guess(self, file: Any) -> str:
        rows = next(self._rows(file), np.empty((0, 4)))
        order = guess_order(rows) if len(rows) else "txyp"
        if order:
            return order
        raise FormatError(
            f"{self.path}: the order of the columns of {self._source.name} cannot be told from the first numbers "
            f"{rows[:2].tolist()}; wanted t, x, y and p; name it (columns = 'xypt' or the like)"
        )

    def _find_origin(self, file: Any) -> int:
        """Return 1 if the lowest x and the lowest y are 1: MATLAB counts from there (see ``sources.mat_file``)."""
        lowest = [math.inf, math.inf]
        try:
            for _, x, y, _ in self._columns(file):
                if len(x):
                    lowest = [min(lowest[0], x.min()), min(lowest[1], y.min())]
        except FormatError:
            pass  # the reading that counts comes later and reports it
        return int(lowest == [1, 1])

    def _blocks(self, datasets: list[Any]) -> Iterator[list[NDArray[Any]]]:
        """Read arrays side by side, the same rows of each; FormatError where one of them ends or is damaged.

        Whole chunks are read, so that none is unpacked twice. Where that fails, smaller pieces get at what stands
        before the bad chunk.
        """
        axes = [_long_axis(dataset) for dataset in datasets]
        rows = int(datasets[0].shape[axes[0]])
        stored = min(_stored_rows(dataset, axis) for dataset, axis in zip(datasets, axes, strict=True))
        chunks = [dataset.chunks[axis] for dataset, axis in zip(datasets, axes, strict=True) if dataset.chunks]
        step = _PIECE_EVENTS // max(chunks) * max(chunks) if chunks and max(chunks) <= _PIECE_EVENTS else _PIECE_EVENTS
        start, fault = 0, "the rest was never written"
        while start < stored:
            stop = min(start + step, stored)
            try:
                blocks = [_slice(dataset, axis, start, stop) for dataset, axis in zip(datasets, axes, strict=True)]
            except Exception as error:  # a chunk that cannot be unpacked, the disk
                fault = _words(error)
                if step == 1:
                    break
                step = max(1, step // 8)
                continue
            yield blocks
            start = stop
        if start < rows:
            raise FormatError(
                f"{self.path}: {self._source.name} can be read up to row {start} of {rows} ({fault}); everything "
                f"before was read, copy the file again for the rest"
            )

    def _rows(self, file: Any) -> Iterator[NDArray[Any]]:
        """Read a table or matrix by rows."""
        for (rows,) in self._blocks([file[self._source.arrays[0]]]):
            yield rows

    def _columns(self, file: Any) -> Iterator[Columns]:
        """Read t, x, y and p as they are stored."""
        if self._source.fields:
            t_, x_, y_, p_ = self._source.fields
            for rows in self._rows(file):
                yield rows[t_], rows[x_], rows[y_], rows[p_]
        elif len(self._source.arrays) == 1:
            places = [self._order.index(name) for name in "txyp"]
            for rows in self._rows(file):
                t, x, y, p = (rows[:, place] for place in places)
                yield t, x, y, p
        else:
            for t, x, y, p in self._blocks([file[name] for name in self._source.arrays]):
                yield t.reshape(-1), x.reshape(-1), y.reshape(-1), p.reshape(-1)

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Yield EVENT_DTYPE arrays; FormatError at a fault, after everything before it was yielded."""
        with self._opened() as file:
            pieces = column_events(self.path, self._columns(file), time_unit=self.time_unit, offset_us=self._offset_us)
            while True:
                try:
                    events = next(pieces, None)
                except FormatError:
                    raise
                except Exception as error:  # h5py raises nearly every kind on a damaged file
                    raise FormatError(
                        f"{self.path}: reading failed ({_words(error)}); everything before was read, copy the file "
                        f"again for the rest"
                    ) from error
                if events is None:
                    return
                if self._origin:
                    for axis in "xy":
                        events[axis] -= events[axis] < 65535
                if len(events):
                    yield events

    def losses(self) -> list[str]:
        """Put into words what was changed."""
        if self._origin:
            return ["x and y begin at 1 and were taken to be counted from there; 1 was subtracted"]
        return []


def _declared_size(file: Any, source: _Source) -> tuple[int | None, int | None]:
    """Find the sensor's size in attributes."""
    array = file[source.arrays[0]]
    for home in (array, array.parent, array.parent.parent, file):
        try:
            words = {key.lower(): home.attrs[key] for key in home.attrs if key.lower() in _SIZE_ATTRIBUTES}
            if "geometry" in words:
                geometry = words["geometry"]
                text = geometry.decode("latin-1") if isinstance(geometry, bytes) else str(geometry)
                sizes = [int(number) for number in text.lower().split("x")]
            elif "sensor_resolution" in words:
                sizes = [int(number) for number in np.ravel(words["sensor_resolution"])[::-1]]
            else:
                sizes = [
                    int(np.ravel(next(words[key] for key in keys if key in words))[0])
                    for keys in (("width", "sensor_width"), ("height", "sensor_height"))
                ]
        except Exception:  # no such attribute, or one of another meaning
            continue
        if len(sizes) == 2 and all(0 < size <= 65536 for size in sizes):
            return sizes[0], sizes[1]
    return None, None


def read_hdf5(
    path: Path, *, mapping: str = "", columns: str = "", time_unit: TimeUnit = "auto", raw: bool = False
) -> Hdf5Decoder:
    """Read the events of an HDF5 or MATLAB 7.3 file, piece by piece.

    Parameters
    ----------
    path
        The file.
    mapping
        Where the events are, if that is not clear: the path of a group, table or matrix within the file
        (``davis/left``), or the four arrays (``t=a/time,x=a/x,y=a/y,p=a/sign``).
    columns
        Order of the columns of a matrix, such as ``xytp``; empty = as its content tells.
    time_unit
        Unit of the times; ``auto`` takes whole numbers for microseconds and fractions for seconds.
    raw
        Leave ``t_offset`` off, and MATLAB's coordinates as they are.

    Returns
    -------
    decoder
        Iterable of EVENT_DTYPE arrays of shape (n,), with ``width``, ``height`` (None where the file does not declare
        them) and ``losses()``. A coordinate that no uint16 holds becomes 65535.

    Raises
    ------
    FormatError
        The file cannot be opened, holds no events or several sets of them, or is packed with a filter that is not
        there.
    """
    return Hdf5Decoder(path, mapping, columns, time_unit, raw)


class Hdf5Writer:
    """Write ``events/t``, ``x``, ``y``, ``p``, ``t_offset`` and ``ms_to_idx``: the layout of DSEC.

    ``t`` (int64, us) counts from the first event, ``t_offset`` (int64) is its time. ``ms_to_idx`` (uint64) holds for
    each millisecond of ``t`` the first event at or after it; it is left out if the recording is longer than a day. x
    and y are uint16, p is uint8. Chunks of 65536, packed with deflate, which every HDF5 library has. Where the pieces
    are cut changes no byte. What was written before a crash can be read up to the last whole chunk, if the disk has
    it.

    Parameters
    ----------
    path
        The file; replaced if it is there.
    width, height
        The sensor, pixels: attributes of ``events``.

    Raises
    ------
    ConfigError
        The sensor's size is none, or the file cannot be opened.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        if not (0 < width <= 65536 and 0 < height <= 65536):
            raise ConfigError(f"{path}: got a sensor of {width}x{height} pixels, wanted 1 to 65536 each way")
        self.path, self.width, self.height = path, width, height
        self.n_events = 0
        self._last_us = -_FARTHEST_US
        self._held = np.empty(_PIECE_EVENTS, EVENT_DTYPE)
        self._n_held = 0
        self._n_stored = 0
        self._next_ms = 0
        self._offset_us = 0
        h5py = _h5py(path)
        try:
            self._file = h5py.File(path, "w")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({_words(error)}); name another file") from error
        packed = {"chunks": (_PIECE_EVENTS,), "maxshape": (None,), "compression": "gzip", "compression_opts": 1}
        group = self._file.create_group("events")
        for name, dtype in (("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")):
            group.create_dataset(name, (0,), dtype, shuffle=True, **packed)
        group.attrs["width"], group.attrs["height"] = width, height
        self._file.create_dataset("ms_to_idx", (0,), "<u8", shuffle=True, **packed)
        self._file.create_dataset("t_offset", (), "<i8")

    def write(self, events: NDArray[np.void]) -> None:
        """Append events.

        Parameters
        ----------
        events
            EVENT_DTYPE, shape (n,), sorted by time, inside of the sensor, not before those of the last call.

        Raises
        ------
        FormatError
            An event is none of these, or lies beyond 2^60 us; or the disk is full. The events before it are written.
        """
        events = own(events)
        n_fit = int(first_unfit(events, self._last_us, self.width, self.height))
        n_fit = int(np.searchsorted(events["t"][:n_fit], _FARTHEST_US, "right"))
        at = 0
        while at < n_fit:
            if not self.n_events:
                self._offset_us = int(events["t"][0])
                self._file["t_offset"][()] = self._offset_us
            n = min(n_fit - at, _PIECE_EVENTS - self._n_held)
            self._held[self._n_held : self._n_held + n] = events[at : at + n]
            self._n_held += n
            self.n_events += n
            at += n
            self._last_us = int(events["t"][at - 1])
            if self._n_held == _PIECE_EVENTS:
                self._store()
        if n_fit < len(events):
            raise FormatError(
                f"{self.path}: event {self.n_events} is {events[n_fit]}, wanted sorted times within 2^60 us, x and y "
                f"within {self.width}x{self.height} and polarity 0 or 1; sort, shift or crop the events"
            )

    def _store(self) -> None:
        """Append what is held."""
        held, self._n_held = self._held[: self._n_held], 0
        t_us = held["t"] - self._offset_us
        end = self._n_stored + len(held)
        try:
            for name in "txyp":
                array = self._file["events"][name]
                array.resize((end,))
                array[self._n_stored :] = t_us if name == "t" else held[name]
            self._index(t_us)
            self._file.flush()
        except OSError as error:
            raise FormatError(
                f"{self.path}: writing failed after event {self._n_stored} ({_words(error)}); make room and write it "
                f"again"
            ) from error
        self._n_stored = end

    def _index(self, t_us: NDArray[np.int64]) -> None:
        """Continue ``ms_to_idx`` up to the last event's millisecond."""
        if "ms_to_idx" not in self._file or not len(t_us):
            return
        end_ms = int(t_us[-1]) // 1000 + 1
        if end_ms > _MOST_MS:
            del self._file["ms_to_idx"]
            return
        index = self._file["ms_to_idx"]
        while self._next_ms < end_ms:
            stop_ms = min(end_ms, self._next_ms + (1 << 20))
            index.resize((stop_ms,))
            marks_us = np.arange(self._next_ms, stop_ms, dtype=np.int64) * 1000
            index[self._next_ms :] = self._n_stored + np.searchsorted(t_us, marks_us)
            self._next_ms = stop_ms

    def close(self) -> None:
        """Write what is held, and close the file. Idempotent."""
        if self._file:
            try:
                if self._n_held:
                    self._store()
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


def _words(error: BaseException) -> str:
    """Give the first line of an error's text, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
