"""Events in MATLAB files of version 5 to 7.2 (``.mat``). Version 7.3 is HDF5: ``sources.hdf5``.

What is understood, by the shape and the names of the variables:

- a struct with a vector each for time, x, y and polarity (``TD.ts``, ``TD.x``, ``TD.y``, ``TD.p``), or four variables
  of such names;
- a matrix of n rows and four columns, or four rows and n columns. The order is told from the content (a polarity is
  -1, 0 or 1, a time never goes back), or by ``columns``;
- ``spiketrain`` of the tactile data set ST-MNIST: 101 rows, of which the last is time in seconds and row k holds -1, 0
  or 1 for taxel k. The file does not say how the sheet was held; here x = k mod 10, y = k div 10, 10 x 10 pixels.

A struct ``TD`` (changes of brightness) is preferred to others beside it, such as ``EM`` (exposure). Else, if there are
several, ``variable`` must say which.

**MATLAB counts from 1**, and so do the coordinates of some authors, but not those of others; nothing in the file
tells. If the lowest x and the lowest y are both exactly 1, one is subtracted from all, and ``losses`` says so: over
a whole sensor, 0 would else not be missing on both axes. ``raw`` leaves them as they are.

The columns of a variable stand one after the other, so the file is opened once for each of them, and memory is bounded.
Road not taken: ``scipy.io.loadmat``, which needs the whole variable in memory and crashes Python (no exception) on a
file of some thousand nested cells.

Format: MATLAB MAT-File Format, MathWorks, chapter 1 "Level 5 MAT-Files".
"""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sources.numpy_file import Columns, TimeUnit, column_events, find_columns, guess_order, together
from stream.errors import FormatError

__all__ = ["MatDecoder", "read_mat"]

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # by type
_INT8, _INT32, _UINT32, _MATRIX, _PACKED = 1, 5, 6, 14, 15
_STRUCT = 2  # class of an array; 6 and up are numbers
_HEADER_BYTES = 128
_TAXELS = 100
_PIECE_EVENTS = 65536
_MOST_FIELDS = 4096
_MOST_VARIABLES = 65536


class _Element(NamedTuple):
    """Where a variable stands in the file."""

    begin: int  # byte
    n_bytes: int
    packed: bool
    order: str  # of bytes, "<" or ">"


class _Array(NamedTuple):
    """Numbers of one type, one after the other."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    element: _Element
    begin: int  # byte in the (unpacked) content of the element

    def vector(self) -> bool:
        """Tell whether all axes but one have length 1."""
        return math.prod(self.shape) == max(self.shape)


class _Content:
    """The content of a variable, from front to back, unpacked as it is asked for."""

    def __init__(self, path: Path, element: _Element) -> None:
        self.position = 0
        self.fault = ""  # why it ends too early
        self._file = path.open("rb")
        self._file.seek(element.begin)
        self._left = element.n_bytes  # in the file
        self._zlib = zlib.decompressobj() if element.packed else None

    def read(self, n_bytes: int) -> bytes:
        """Return so many bytes, or what there is."""
        out = bytearray()
        while len(out) < n_bytes and not self.fault:
            block = self._zlib.unconsumed_tail if self._zlib is not None else b""
            if not block:
                try:
                    block = self._file.read(
                        min(self._left, 1 << 16, n_bytes - len(out) if self._zlib is None else 1 << 16)
                    )
                except OSError as error:
                    self.fault = str(error)
                self._left -= len(block)
            if not block:
                self.fault = self.fault or "it ends there"
            elif self._zlib is None:
                out += block
            else:
                try:
                    out += self._zlib.decompress(block, n_bytes - len(out))
                except zlib.error as error:
                    self.fault = str(error)
                if self._zlib.eof and len(out) < n_bytes:
                    self.fault = self.fault or "it ends there"
        self.position += len(out)
        return bytes(out)

    def need(self, n_bytes: int) -> bytes:
        """Return so many bytes; ValueError if there are fewer."""
        block = self.read(n_bytes)
        if len(block) < n_bytes:
            raise ValueError(f"{n_bytes} bytes wanted, got {len(block)}: {self.fault}")
        return block

    def skip_to(self, position: int) -> None:
        """Go forward; ValueError if the content ends before."""
        if self._zlib is None:
            ahead = min(max(0, position - self.position), self._left)
            self._file.seek(ahead, 1)
            self._left -= ahead
            self.position += ahead
        while self.position < position:
            self.need(min(position - self.position, 1 << 20))

    def __enter__(self) -> "_Content":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _tag(content: _Content, order: str) -> tuple[int, int, bytes | None]:
    """Read type and size of an element; also its data if these are so few that they stand in the tag."""
    head = content.need(8)
    first = int.from_bytes(head[:4], "little" if order == "<" else "big")
    if first >> 16:
        kind, n_bytes = first & 0xFFFF, first >> 16
        if n_bytes > 4:
            raise ValueError(f"a short element claims {n_bytes} bytes")
        return kind, n_bytes, head[4 : 4 + n_bytes]
    return first, int.from_bytes(head[4:], "little" if order == "<" else "big"), None


def _small(content: _Content, order: str, wanted: int, most: int) -> bytes:
    """Read a short element of the type wanted."""
    kind, n_bytes, data = _tag(content, order)
    if kind != wanted or n_bytes > most:
        raise ValueError(f"an element of type {kind} and {n_bytes} bytes stands where type {wanted} is wanted")
    if data is None:
        data = content.need(n_bytes)
        content.need(-n_bytes % 8)
    return data


def _array_head(content: _Content, order: str) -> tuple[int, tuple[int, ...], str]:
    """Read class, shape and name."""
    flags = np.frombuffer(_small(content, order, _UINT32, 8), order + "u4")
    shape = np.frombuffer(_small(content, order, _INT32, 4 * 32), order + "i4").tolist()
    name = _small(content, order, _INT8, 4096).decode("latin-1")
    if len(flags) != 2 or len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"an array has the shape {shape}")
    if int(flags[0]) >> 8 & 0x08:
        return 0, tuple(shape), name  # complex: no event is
    return int(flags[0]) & 0xFF, tuple(shape), name


def _numbers(content: _Content, element: _Element, kind: int, shape: tuple[int, ...], name: str) -> _Array | None:
    """Read up to the numbers of an array of a numeric class; None if its class is another."""
    if not 6 <= kind <= 15:
        return None
    stored, n_bytes, data = _tag(content, element.order)
    if stored not in _NUMBERS:
        raise ValueError(f"{name or 'an array'} holds numbers of type {stored}")
    dtype = np.dtype(element.order + _NUMBERS[stored])
    if n_bytes != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name or 'an array'} of shape {shape} holds {n_bytes} bytes of {dtype}")
    return _Array(name, shape, dtype, element, content.position - (4 if data is not None else 0))


def _arrays(path: Path, element: _Element) -> Iterator[_Array]:
    """Yield the numeric arrays of one variable: itself, or the fields of a struct of one element (``TD.x``).

    ValueError where its description does not hold together.
    """
    with _Content(path, element) as content:
        if element.packed:
            wanted, _, _ = _tag(content, element.order)
            if wanted != _MATRIX:
                return
        kind, shape, name = _array_head(content, element.order)
        if kind != _STRUCT:
            array = _numbers(content, element, kind, shape, name)
            if array is not None:
                yield array
            return
        if math.prod(shape) != 1:
            return
        width = int.from_bytes(_small(content, element.order, _INT32, 4), "little" if element.order == "<" else "big")
        names = _small(content, element.order, _INT8, 1 << 16)
        if not 0 < width <= 4096 or len(names) // width > _MOST_FIELDS:
            raise ValueError(f"the fields of {name} have names of {width} bytes")
        for start in range(0, len(names) // width * width, width):
            field = names[start : start + width].split(b"\x00")[0].decode("latin-1")
            wanted, n_bytes, _ = _tag(content, element.order)
            end = content.position + n_bytes
            if wanted != _MATRIX:
                raise ValueError(f"field {field} of {name} is of type {wanted}")
            if n_bytes:
                kind, shape, _ = _array_head(content, element.order)
                array = _numbers(content, element, kind, shape, f"{name}.{field}")
                if array is not None:
                    yield array
            content.skip_to(end)


class _Events(NamedTuple):
    """Arrays that hold events together."""

    name: str
    arrays: tuple[_Array, ...]  # t, x, y, p, or one

    def n_events(self) -> int:
        """Return how many there are (samples, for ``spiketrain``)."""
        shape = self.arrays[0].shape
        return math.prod(shape) if len(self.arrays) == 4 else max(shape)


def _find(path: Path) -> tuple[list[_Events], list[str], str]:
    """Look through a file: what may be events, the names of all numeric arrays, and what is wrong with the file."""
    arrays: list[_Array] = []
    fault = ""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
        if len(head) < _HEADER_BYTES or head[126:128] not in (b"IM", b"MI"):
            raise FormatError(
                f"{path}: its header of {len(head)} bytes ends with {head[124:]!r}, wanted 128 bytes with IM or MI at "
                f"their end; copy the file again, or save it with MATLAB's -v7"
            )
        order = "<" if head[126:128] == b"IM" else ">"
        at = _HEADER_BYTES
        for _ in range(_MOST_VARIABLES):
            tag = file.read(8)
            if len(tag) < 8:
                fault = f"is cut off at byte {at + len(tag)}" if tag else ""
                break
            kind, n_bytes = np.frombuffer(tag, order + "u4").tolist()
            if kind not in (_MATRIX, _PACKED):
                fault = f"holds an element of type {kind} at byte {at}, wanted 14 or 15"
                break
            try:
                arrays.extend(_arrays(path, _Element(at + 8, min(n_bytes, size - at - 8), kind == _PACKED, order)))
            except ValueError as error:
                fault = f"is damaged in the variable at byte {at} ({error})"
            at += 8 + n_bytes
            if at > size:
                fault = fault or f"is cut off: its last variable ends at byte {at}, the file at byte {size}"
                break
            file.seek(at)
    return list(_candidates(arrays)), [array.name for array in arrays], fault


def _candidates(arrays: list[_Array]) -> Iterator[_Events]:
    groups: dict[str, dict[str, _Array]] = {}
    for array in arrays:
        group, _, field = array.name.rpartition(".")
        if array.shape and array.vector():
            groups.setdefault(group, {})[field] = array
    for group, fields in groups.items():
        names = find_columns(fields)
        if names is not None:
            found = tuple(fields[names[key]] for key in "txyp")
            if len({math.prod(array.shape) for array in found}) == 1:
                yield _Events(group, found)
    for array in arrays:
        tactile = array.name == "spiketrain" and array.shape[0] == _TAXELS + 1
        # one row of four numbers is rather a region or a clock
        if len(array.shape) == 2 and ((4 in array.shape and not array.vector()) or tactile):
            yield _Events(array.name, (array,))


class MatDecoder:
    """One variable of a file, read from its start each time it is iterated over; see ``read_mat``."""

    def __init__(self, path: Path, variable: str, columns: str, time_unit: TimeUnit, raw: bool) -> None:
        if columns and sorted(columns) != sorted("txyp"):
            raise FormatError(f"columns: got {columns!r}, wanted each of t, x, y and p once, such as 'xypt'")
        self.path, self.time_unit = path, time_unit
        try:
            found, names, self._fault = _find(path)
        except OSError as error:
            raise FormatError(
                f"{path}: cannot be read: {error.strerror or error}; check path and permissions"
            ) from error
        named = [events for events in found if events.name == (variable or "TD")] or ([] if variable else found)
        if len(named) != 1:
            listed = ", ".join(f"{events.name or 'the four variables'} ({events.n_events()})" for events in found)
            raise FormatError(
                f"{path}: {f'variable {variable!r}' if variable else 'what to play'} is not clear: it may be events in "
                f"{listed or 'none'} of its arrays {', '.join(names)[:500] or '(none)'}; wanted one struct with t, x, "
                f"y, p, or one matrix of four columns; name it (variable = ...)"
                + (f"; the file {self._fault}" if self._fault else "")
            )
        self._events = named[0]
        self._others = [events for events in found if events is not self._events]
        array = self._events.arrays[0]
        self._tactile = len(self._events.arrays) == 1 and 4 not in array.shape
        self.width: int | None = 10 if self._tactile else None
        self.height: int | None = 10 if self._tactile else None
        self._order = "txyp"
        if len(self._events.arrays) == 1 and not self._tactile:
            self._order = columns or self._guess()
        self._origin = 0 if raw or self._tactile else self._find_origin()

    def _guess(self) -> str:
        rows = next(self._rows(), np.empty((0, 4)))
        if not len(rows):
            return "txyp"  # any will do
        order = guess_order(rows)
        if order:
            return order
        raise FormatError(
            f"{self.path}: the order of the columns of {self._events.name} cannot be told from the first numbers "
            f"{rows[:2].tolist()}; wanted t, x, y and p; name it (columns = 'xypt' or the like)"
        )

    def _find_origin(self) -> int:
        """Return 1 if the lowest x and the lowest y are 1, else 0."""
        lowest = [math.inf, math.inf]
        try:
            for _, x, y, _ in self._columns():
                if len(x):
                    lowest = [min(lowest[0], x.min()), min(lowest[1], y.min())]
        except FormatError:
            pass  # the reading that counts comes later and reports it
        return int(lowest == [1, 1])

    def _pieces(self, array: _Array, start: int, stop: int, step: int) -> Iterator[NDArray[Any]]:
        """Read numbers ``start`` to ``stop`` of an array, ``step`` at a time; FormatError where they are torn."""
        size = array.dtype.itemsize
        with _Content(self.path, array.element) as content:
            try:
                content.skip_to(array.begin + start * size)
                while start < stop:
                    wanted = min(step, stop - start)
                    block = content.read(wanted * size)
                    yield np.frombuffer(block, array.dtype, len(block) // size)
                    if len(block) < wanted * size:
                        raise ValueError(content.fault)
                    start += wanted
            except (ValueError, OSError) as error:
                raise FormatError(
                    f"{self.path}: {array.name} ends {stop - start} numbers before the {stop} wanted ({error}); every "
                    f"event before was read, copy the file again for the rest"
                ) from error

    def _rows(self) -> Iterator[NDArray[Any]]:
        """Read a matrix, shape (n, 4), or (n, 101) for ``spiketrain``."""
        array = self._events.arrays[0]
        n_rows, n_columns = array.shape
        if n_columns == 4:
            parts = [self._pieces(array, k * n_rows, (k + 1) * n_rows, _PIECE_EVENTS) for k in range(4)]
            for columns in together(parts):
                yield np.stack(columns, axis=1)
            return
        for piece in self._pieces(array, 0, n_rows * n_columns, n_rows * (_PIECE_EVENTS * 4 // n_rows)):
            yield piece[: len(piece) // n_rows * n_rows].reshape(-1, n_rows)

    def _columns(self) -> Iterator[Columns]:
        """Read t, x, y and p as they are stored."""
        if self._tactile:
            for rows in self._rows():
                sample, taxel = np.nonzero(rows[:, :_TAXELS])
                yield rows[sample, _TAXELS], taxel % 10, taxel // 10, rows[sample, taxel]
        elif len(self._events.arrays) == 1:
            places = [self._order.index(name) for name in "txyp"]
            for rows in self._rows():
                t, x, y, p = (rows[:, place] for place in places)
                yield t, x, y, p
        else:
            yield from together(
                [self._pieces(array, 0, math.prod(array.shape), _PIECE_EVENTS) for array in self._events.arrays]
            )

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Yield EVENT_DTYPE arrays; FormatError at a fault, after everything before it was yielded."""
        unit: TimeUnit = "s" if self._tactile and self.time_unit == "auto" else self.time_unit
        for events in column_events(self.path, self._columns(), time_unit=unit):
            if not len(events):
                continue
            if self._origin:
                for axis in "xy":
                    events[axis] -= events[axis] < 65535
            yield events
        if self._fault:
            raise FormatError(f"{self.path}: {self._fault}; the events were read")

    def losses(self) -> list[str]:
        """Put into words what was changed or left out."""
        told = [
            f"{events.name or 'four variables'} ({events.n_events()} events) left aside; name it to play it"
            for events in self._others
        ]
        if self._origin:
            told.append("x and y begin at 1 and were taken to be counted from there; 1 was subtracted")
        return told


def read_mat(
    path: Path, *, variable: str = "", columns: str = "", time_unit: TimeUnit = "auto", raw: bool = False
) -> MatDecoder:
    """Read the events of a MATLAB file, version 5 to 7.2, piece by piece.

    Parameters
    ----------
    path
        The file.
    variable
        The struct or matrix to play, if there are several.
    columns
        Order of the columns of a matrix, such as ``xypt``; empty = as its content tells.
    time_unit
        Unit of the times; ``auto`` takes whole numbers for microseconds and fractions for seconds.
    raw
        Leave coordinates that are counted from 1 as they are.

    Returns
    -------
    decoder
        Iterable of EVENT_DTYPE arrays of shape (n,), with ``width``, ``height`` (None but for ST-MNIST) and
        ``losses()``. A coordinate that no uint16 holds becomes 65535.

    Raises
    ------
    FormatError
        The file cannot be opened, or holds no events, or several sets of them.
    """
    return MatDecoder(path, variable, columns, time_unit, raw)
