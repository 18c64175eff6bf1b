"""Events in NumPy files (``.npy``, ``.npz``): reader, writer, and the step from columns to events.

There is no standard for events in arrays, so names decide: a structured array, or arrays of an ``.npz``, whose names
say which is time, x, y and polarity, in any order. A plain array of shape (n, 4) says nothing; its columns are taken
as t, x, y, p unless the caller states another order.

Times: integers are microseconds. Floating-point times are seconds if any of the first piece has a fraction, else
microseconds; both guesses are documented because no program can tell, and ``time_unit`` overrules them. Seconds are
*rounded* to microseconds, as in text. Polarity is darker for 0, -1 and false, brighter for what is above zero.

The arrays are read in pieces straight from the file or from the zip member. Road not taken: ``numpy.load``, which
refuses a torn file whole and inflates an ``.npz`` member at once. Pickled objects are never loaded: they could run
code. Members packed with bzip2 or LZMA, which NumPy never writes, are refused: Python unpacks them without a bound on
memory.

``NpzWriter`` writes four arrays t, x, y and p, as SpikingJelly does, because every name can be read alone with
``numpy.load`` and a structured array is one line away. Two more of a single number, width and height, declare the
sensor; readers that do not know them pass over them.

Formats: ``numpy.lib.format`` (NEP 1); ``.npz`` is a zip of such files.
"""

import io
import math
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sources.byte_stream import ByteStream, peek
from sources.flat_writer import first_unfit, own
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE

__all__ = [
    "COLUMN_NAMES",
    "Columns",
    "NpzWriter",
    "NumpyDecoder",
    "TimeUnit",
    "column_events",
    "find_columns",
    "guess_order",
    "read_numpy",
    "together",
]

TimeUnit: TypeAlias = Literal["auto", "s", "ms", "us", "ns"]
Columns: TypeAlias = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
"""Time, x, y and polarity of one piece, each of shape (n,)."""

COLUMN_NAMES = {
    "t": ("t", "ts", "time", "timestamp", "timestamps", "t_us", "times"),
    "x": ("x", "xs", "x_pos", "col", "column"),
    "y": ("y", "ys", "y_pos", "row"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on", "pols"),
}
_UNIT_US = {"s": 1e6, "ms": 1e3, "us": 1.0}
_FARTHEST_US = 2.0**62  # beyond it float64 to int64 is undefined
_PIECE_EVENTS = 65536
_PIECE_BYTES = 16 << 20
_MOST_HEADER_BYTES = 1 << 16  # NumPy itself parses no more than 10000
_ORDERS = ("txyp", "xypt", "xytp")


def find_columns(names: Iterable[str]) -> dict[str, str] | None:
    """Tell which of ``names`` are t, x, y and p (keys); None unless all four are there."""
    given = {name.lower(): name for name in names}
    found = {key: next((given[word] for word in words if word in given), "") for key, words in COLUMN_NAMES.items()}
    return found if all(found.values()) else None


def guess_order(rows: NDArray[Any]) -> str:
    """Tell the order of the columns of a plain array from what stands in them.

    A polarity is -1, 0 or 1; a time never goes back, and does go on; no coordinate is negative. Of the orders in use,
    the only one that this leaves, such as ``xypt``; empty if it leaves none or several.

    Parameters
    ----------
    rows
        Numbers, shape (n, 4).
    """
    signs = [bool(np.isin(rows[:, k], (-1, 0, 1)).all()) for k in range(4)]
    rising = [bool((rows[1:, k] >= rows[:-1, k]).all() and len(rows) and rows[0, k] < rows[-1, k]) for k in range(4)]
    places = [bool((rows[:, k] >= 0).all()) for k in range(4)]
    # t, y, x, p cannot be told from t, x, y, p and is never guessed
    fit = [
        order
        for order in _ORDERS
        if signs[order.index("p")] and rising[order.index("t")] and all(places[order.index(k)] for k in "xy")
    ]
    return fit[0] if len(fit) == 1 else ""


def column_events(
    path: Path, pieces: Iterable[Columns], *, time_unit: TimeUnit = "auto", offset_us: int = 0
) -> Iterator[NDArray[np.void]]:
    """Make events of columns.

    Parameters
    ----------
    path
        For messages.
    pieces
        Columns of successive parts of the recording.
    time_unit
        Unit of the times; see the module for ``auto``.
    offset_us
        Added to every time, microseconds.

    Yields
    ------
    events
        EVENT_DTYPE, shape (n,), as they stand in the file; empty where a piece is. A coordinate that is negative or
        above 65535 becomes 65535, which lies outside of every sensor; of a fraction the whole part is taken.

    Raises
    ------
    FormatError
        At the first event whose time or coordinate is no finite number that int64 microseconds can hold, after what
        came before it was yielded; or when the columns are not numbers of equal length.
    """
    n_before = 0
    unit: str = time_unit
    for columns in pieces:
        t, x, y, p = (np.asarray(column) for column in columns)
        if any(column.dtype.kind not in "iufb" for column in (t, x, y, p)) or not (
            t.shape == x.shape == y.shape == p.shape == (len(t),)
        ):
            raise FormatError(
                f"{path}: columns t, x, y, p are {', '.join(f'{c.dtype} {c.shape}' for c in (t, x, y, p))}; wanted "
                f"four rows of numbers of one length; write them so, or convert the file"
            )
        if not len(t):
            yield np.empty(0, EVENT_DTYPE)
            continue
        if unit == "auto":
            fractions = t.dtype.kind == "f" and bool((np.mod(t[np.isfinite(t)], 1) != 0).any())
            unit = "s" if fractions else "us"
        good, times = _microseconds(t, unit, offset_us)
        good &= np.isfinite(x) & np.isfinite(y) & np.isfinite(p)
        n_good = len(good) if good.all() else int(good.argmin())
        events = np.empty(n_good, EVENT_DTYPE)
        events["t"] = times[:n_good]
        for axis, column in (("x", x[:n_good]), ("y", y[:n_good])):
            inside = (column >= 0) & (column <= 65535)
            events[axis] = np.where(inside, column, 65535)
        events["p"] = p[:n_good] > 0
        if n_good:
            yield events
        if n_good < len(t):
            row = (t[n_good], x[n_good], y[n_good], p[n_good])
            raise FormatError(
                f"{path}: event {n_before + n_good}: got t, x, y, p = {', '.join(str(v) for v in row)} (time in "
                f"{unit}), wanted finite numbers and a time within 2^62 us; everything before was read, mend the file"
            )
        n_before += len(t)


def _microseconds(t: NDArray[Any], unit: str, offset_us: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which times can be held, and the times; integers stay exact."""
    limit = int(_FARTHEST_US) - abs(offset_us)
    if t.dtype.kind == "f" or unit in ("s", "ms"):
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
            scaled = t.astype(np.float64) * _UNIT_US.get(unit, 1e-3)
        if t.dtype.kind != "f":  # whole seconds: exact in integers where they fit
            fits = np.abs(scaled) <= limit
            return fits, np.where(fits, t, 0).astype(np.int64) * int(_UNIT_US[unit]) + offset_us
        fits = np.abs(scaled) <= limit  # False for NaN
        return fits, np.rint(np.where(fits, scaled, 0)).astype(np.int64) + offset_us
    fits = (
        np.ones(len(t), bool) if t.dtype.kind == "b" else (t <= limit) & (t >= (0 if t.dtype.kind == "u" else -limit))
    )
    times = np.where(fits, t, np.zeros(1, t.dtype)).astype(np.int64)
    return fits, (times // 1000 if unit == "ns" else times) + offset_us


class _Array(NamedTuple):
    """The head of one stored array."""

    shape: tuple[int, ...]
    rows_apart: bool  # Fortran order of more than one axis
    dtype: np.dtype[Any]
    begin: int  # byte at which the data start

    def row_bytes(self) -> int:
        """Return the size of one row, 1 for an array without any."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize or 1


def _head(read: Callable[[int], bytes], subject: str) -> _Array:
    """Read the header of an array."""
    try:
        magic = read(8)
        version = np.lib.format.read_magic(io.BytesIO(magic))
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"version {version[0]}.{version[1]}")
        length = read(2 if version == (1, 0) else 4)
        n_bytes = int.from_bytes(length, "little")
        if n_bytes > _MOST_HEADER_BYTES:
            raise ValueError(f"it claims {n_bytes} bytes")
        words = io.BytesIO(length + read(n_bytes))
        parse: Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]
        parse = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd headers NumPy warns before it raises, or reads on
            shape, fortran, dtype = parse(words)
    except Exception as error:  # the header is a Python literal: odd bytes fail in any step of parsing it
        raise FormatError(
            f"{subject}: its header cannot be read ({_words(error)}); wanted a NumPy array; copy or save it again"
        ) from error
    if dtype.hasobject or not 0 < dtype.itemsize <= _PIECE_BYTES or any(n < 0 for n in shape):
        raise FormatError(
            f"{subject}: holds {str(dtype)[:200]} of shape {shape}, wanted numbers; objects are not loaded because "
            f"they could run code; save t, x, y and p as plain arrays"
        )
    return _Array(shape, fortran and len(shape) > 1, dtype, 8 + len(length) + n_bytes)


def _as_rows(block: NDArray[np.uint8], array: _Array) -> NDArray[Any]:
    """Take whole rows out of bytes."""
    return block.view(array.dtype).reshape(-1, *array.shape[1:])


def _rows(file: IO[bytes], array: _Array, subject: str) -> Iterator[NDArray[Any]]:
    """Yield the rows of an array in pieces; FormatError at a torn end, after what could be read."""
    row_bytes = array.row_bytes()
    left = array.shape[0]
    while left:
        wanted = min(left, _PIECE_EVENTS, max(1, _PIECE_BYTES // row_bytes))
        try:
            block = np.frombuffer(file.read(wanted * row_bytes), np.uint8)
        except Exception as error:  # the disk, zip checksums, zlib
            raise FormatError(
                f"{subject}: reading failed {left} rows before its end ({_words(error)}); everything before was "
                f"read, copy the file again for the rest"
            ) from error
        whole = len(block) // row_bytes
        if whole:
            yield _as_rows(block[: whole * row_bytes], array)
        if whole < wanted:
            raise FormatError(_torn(subject, left - whole, array))
        left -= whole


def _torn(subject: str, n_missing: int, array: _Array) -> str:
    return (
        f"{subject}: ends {n_missing} rows before the {array.shape[0]} that its header promises; everything before "
        f"was read, copy the file again for the rest"
    )


def _stream_rows(path: Path, array: _Array) -> Iterator[NDArray[Any]]:
    """Yield the rows of an array file; an empty piece where standard input has none yet."""
    row_bytes = array.row_bytes()
    left = array.shape[0]
    with ByteStream(path, begin=array.begin) as stream:
        blocks = stream.records(row_bytes, chunk_bytes=min(_PIECE_EVENTS * row_bytes, _PIECE_BYTES)) if left else ()
        try:
            for block in blocks:
                rows = _as_rows(block, array)[:left]
                left -= len(rows)
                yield rows
                if not left:
                    return  # what follows the array is none of ours
        except FormatError as error:
            raise FormatError(f"{_torn(str(path), left, array)} ({error})") from error
    if left:
        raise FormatError(_torn(str(path), left, array))


def _one_array(path: Path, array: _Array, rows: Iterator[NDArray[Any]], order: str) -> Iterator[Columns]:
    """Part a structured array, or a plain one of four columns."""
    if array.dtype.names is not None and len(array.shape) == 1:
        names = find_columns(array.dtype.names)
        if names is None:
            raise FormatError(
                f"{path}: its fields are {', '.join(array.dtype.names)}; wanted time (t, ts, timestamp), x, y and "
                f"polarity (p, pol, polarity); rename the fields"
            )
        for part in rows:
            yield part[names["t"]], part[names["x"]], part[names["y"]], part[names["p"]]
        return
    if array.dtype.names is not None or len(array.shape) != 2 or array.shape[1] != 4:
        raise FormatError(
            f"{path}: holds {array.dtype} of shape {array.shape}; wanted a structured array of shape (n,) with t, x, y "
            f"and p, or numbers of shape (n, 4); save it so"
        )
    t, x, y, p = (order.index(name) for name in "txyp")
    for part in rows:
        yield part[:, t], part[:, x], part[:, y], part[:, p]


def _npy_pieces(path: Path, order: str) -> Iterator[Columns]:
    """Read one array file, or one from standard input."""
    at = 0

    def read(n_bytes: int) -> bytes:
        nonlocal at
        block = peek(path, at + n_bytes)[at:]
        at += n_bytes
        return block

    array = _head(read, str(path))
    if array.rows_apart and array.shape[1:] == (4,) and array.dtype.names is None:
        with ExitStack() as stack:
            yield from _columns_apart(lambda: stack.enter_context(path.open("rb")), array, str(path), order)
        return
    yield from _one_array(path, array, _stream_rows(path, array) if array.shape else iter(()), order)


def _columns_apart(open_again: Callable[[], IO[bytes]], array: _Array, subject: str, order: str) -> Iterator[Columns]:
    """Read an array in Fortran order: each of its columns stands together, so each is read for itself."""
    column = array._replace(shape=array.shape[:1])
    parts = []
    for name in "txyp":
        try:
            file = open_again()
            file.seek(array.begin + order.index(name) * array.shape[0] * array.dtype.itemsize)
        except Exception as error:  # standard input, the disk, zip checksums, a length beyond any file
            raise FormatError(
                f"{subject}: its columns, which stand one after the other, cannot be reached ({_words(error)}); copy "
                f"the file again, or save it in C order"
            ) from error
        parts.append(_rows(file, column, f"{subject}: {name}"))
    yield from together(parts)


def together(parts: Iterable[Iterator[NDArray[Any]]]) -> Iterator[Columns]:
    """Put t, x, y and p side by side, up to where the first of them is torn; its FormatError comes next."""
    for t, x, y, p in zip(*parts, strict=True):
        n = min(len(t), len(x), len(y), len(p))
        yield t[:n], x[:n], y[:n], p[:n]


def _npz_pieces(path: Path, order: str) -> Iterator[Columns]:
    """Read an archive: four named arrays, or one array of events."""
    with ExitStack() as stack:
        archive, members = _open_zip(path, stack)
        names = find_columns(members)
        single = "events" if "events" in members else next(iter(members), "") if len(members) == 1 else ""
        wanted = [names[key] for key in "txyp"] if names else [single] if single else []
        if not wanted:
            raise FormatError(
                f"{path}: its arrays are {', '.join(members)[:500] or 'none'}; wanted t, x, y and p, or one array of "
                f"events; rename them"
            )
        files = [_open_member(path, archive, members[name], stack) for name in wanted]
        arrays = [_head(file.read, f"{path}: {name}") for file, name in zip(files, wanted, strict=True)]
        if names is None:
            array = arrays[0]
            if array.rows_apart and array.shape[1:] == (4,) and array.dtype.names is None:
                yield from _columns_apart(
                    lambda: _open_member(path, archive, members[single], stack), array, str(path), order
                )
                return
            yield from _one_array(path, array, _rows(files[0], array, str(path)) if array.shape else iter(()), order)
            return
        if any(len(array.shape) != 1 or array.shape != arrays[0].shape for array in arrays):
            raise FormatError(
                f"{path}: t, x, y and p have the shapes {', '.join(str(array.shape) for array in arrays)}; wanted one "
                f"length for all; save them again"
            )
        columns = zip(files, arrays, wanted, strict=True)
        yield from together([_rows(file, array, f"{path}: {name}") for file, array, name in columns])


def _open_zip(path: Path, stack: ExitStack) -> tuple[zipfile.ZipFile, dict[str, str]]:
    """Open an archive, and find its arrays: member by name without suffix."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except Exception as error:  # torn directory, disk, odd names
        raise FormatError(f"{path}: is no readable zip archive ({_words(error)}); copy the file again") from error
    return archive, {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}


def _open_member(path: Path, archive: zipfile.ZipFile, name: str, stack: ExitStack) -> IO[bytes]:
    try:
        packing = archive.getinfo(name).compress_type
        if packing not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"it is packed by method {packing}, wanted 0 (stored) or 8 (deflate)")
        return stack.enter_context(archive.open(name))
    except Exception as error:  # encryption, a directory that lies
        raise FormatError(f"{path}: its member {name} cannot be opened ({_words(error)}); save it again") from error


def _declared_size(path: Path) -> tuple[int | None, int | None]:
    """Look for arrays ``width`` and ``height`` of one number each."""
    sizes: list[int] = []
    try:
        with ExitStack() as stack:
            archive, members = _open_zip(path, stack)
            for name in ("width", "height"):
                if name in members:
                    file = _open_member(path, archive, members[name], stack)
                    array = _head(file.read, name)
                    if array.dtype.kind in "iu" and array.shape in ((), (1,)):
                        sizes.append(int(np.frombuffer(file.read(array.dtype.itemsize), array.dtype)[0]))
    except Exception:  # reading the events will tell what is wrong, if anything is
        return None, None
    if len(sizes) == 2 and all(0 < size <= 65536 for size in sizes):
        return sizes[0], sizes[1]
    return None, None


class NumpyDecoder:
    """One file, read from its start each time it is iterated over; see ``read_numpy``."""

    def __init__(self, path: Path, columns: str, time_unit: TimeUnit) -> None:
        if sorted(columns) != sorted("txyp"):
            raise FormatError(f"columns: got {columns!r}, wanted each of t, x, y and p once, such as 'xypt'")
        self.path, self.columns, self.time_unit = path, columns, time_unit
        try:
            self._zipped = peek(path, 2) == b"PK"
        except OSError as error:
            raise FormatError(
                f"{path}: cannot be read: {error.strerror or error}; check path and permissions"
            ) from error
        self.width, self.height = _declared_size(path) if self._zipped else (None, None)

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Yield EVENT_DTYPE arrays of at most 65536; FormatError at a fault, after everything before it."""
        pieces = _npz_pieces(self.path, self.columns) if self._zipped else _npy_pieces(self.path, self.columns)
        return column_events(self.path, pieces, time_unit=self.time_unit)

    def losses(self) -> list[str]:
        """Return nothing: every row is an event."""
        return []


def read_numpy(path: Path, *, columns: str = "txyp", time_unit: TimeUnit = "auto", raw: bool = False) -> NumpyDecoder:
    """Read a ``.npy`` or ``.npz`` file piece by piece.

    Parameters
    ----------
    path
        The file; its first bytes tell which of the two it is. ``-`` for a ``.npy`` from standard input.
    columns
        Order of the columns of a plain array of shape (n, 4), such as ``xypt``. Not used where names tell.
    time_unit
        Unit of the times; ``auto`` takes integers for microseconds and fractions for seconds.
    raw
        Changes nothing: the numbers are handed out as they are stored in any case.

    Returns
    -------
    decoder
        Iterable of EVENT_DTYPE arrays of shape (n,), n <= 65536, with ``width`` and ``height`` (None where the file
        does not declare them). FormatError at a fault, after everything before it was yielded.

    Raises
    ------
    FormatError
        The file cannot be opened.
    """
    return NumpyDecoder(path, columns, time_unit)


class NpzWriter:
    """Write an ``.npz`` of the arrays t (int64, us), x, y (uint16), p (uint8), width and height (int64).

    A zip holds one array after the other, and events come one after the other: until ``close`` the four arrays grow as
    nameless files beside the target, which take 13 bytes an event of disk and no memory. Where the pieces are cut
    changes no byte.

    Parameters
    ----------
    path
        The file; replaced by ``close``. The suffix is not added.
    width, height
        The sensor, pixels.
    compress
        Deflate, as ``numpy.savez_compressed`` does, but at level 1: the higher ones take five times as long for a few
        per cent.

    Raises
    ------
    ConfigError
        The sensor's size is none, or nothing can be written there.
    """

    def __init__(self, path: Path, width: int, height: int, *, compress: bool = True) -> None:
        if not (0 < width <= 65536 and 0 < height <= 65536):
            raise ConfigError(f"{path}: got a sensor of {width}x{height} pixels, wanted 1 to 65536 each way")
        self.path, self.width, self.height = path, width, height
        self.n_events = 0
        self._last_us = -(2**63)
        self._packing = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        self._open = ExitStack()
        try:
            self._spools = {
                name: self._open.enter_context(tempfile.TemporaryFile(dir=path.absolute().parent))  # noqa: SIM115 - the stack closes it
                for name in "txyp"
            }
        except OSError as error:
            self._open.close()
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}; name another file") from error
        self._closed = False

    def write(self, events: NDArray[np.void]) -> None:
        """Append events.

        Parameters
        ----------
        events
            EVENT_DTYPE, shape (n,), sorted by time, inside of the sensor, not before those of the last call.

        Raises
        ------
        FormatError
            An event is none of these, or the disk is full. The events before it are kept.
        """
        events = own(events)
        n_fit = int(first_unfit(events, self._last_us, self.width, self.height))
        try:
            for name, spool in self._spools.items():
                spool.seek(self.n_events * EVENT_DTYPE[name].itemsize)  # the last write may have failed half way
                spool.write(np.ascontiguousarray(events[name][:n_fit]).tobytes())
                spool.flush()
        except (OSError, ValueError) as error:
            raise FormatError(
                f"{self.path}: writing failed after event {self.n_events} ({_words(error)}); close it to keep these"
            ) from error
        self.n_events += n_fit
        if n_fit:
            self._last_us = int(events["t"][n_fit - 1])
        if n_fit < len(events):
            raise FormatError(
                f"{self.path}: event {self.n_events} is {events[n_fit]}, wanted sorted times, x and y within "
                f"{self.width}x{self.height} and polarity 0 or 1; sort or crop the events"
            )

    def close(self) -> None:
        """Write the archive. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with self._open:
            try:
                with zipfile.ZipFile(self.path, "w", self._packing, compresslevel=1) as archive:
                    for name, spool in self._spools.items():
                        n_bytes = self.n_events * EVENT_DTYPE[name].itemsize
                        spool.seek(0)
                        with self._member(archive, name, EVENT_DTYPE[name], (self.n_events,), n_bytes) as member:
                            while n_bytes:
                                block = spool.read(min(n_bytes, 1 << 20))
                                n_bytes -= len(block)
                                member.write(block)
                    for name, size in (("width", self.width), ("height", self.height)):
                        with self._member(archive, name, np.dtype("<i8"), (), 8) as member:
                            member.write(size.to_bytes(8, "little"))
            except OSError as error:
                raise FormatError(
                    f"{self.path}: writing failed: {error.strerror or error}; make room and write it again"
                ) from error

    def _member(
        self, archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], n_bytes: int
    ) -> IO[bytes]:
        """Begin an array in the archive."""
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        # opened by name it gets the date 1980: a true one would make two equal recordings differ
        member = archive.open(f"{name}.npy", "w", force_zip64=n_bytes > 1 << 31)
        member.write(head.getvalue())
        return member

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write the archive."""
        self.close()


def _words(error: BaseException) -> str:
    """Give the first line of an error's text, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
