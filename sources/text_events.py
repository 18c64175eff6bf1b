"""Events as text: one event a line, columns time, x, y, polarity, parted by commas, semicolons, tabs or spaces.

A first line with words names the columns (``t, x, y, p``, in any order; ``time``, ``timestamp``, ``on``, ``polarity``
are understood too); without it the order is t, x, y, p. Some data sets write t, y, x, p, and no program can tell: say
so (``columns = "tyxp"``). A time with a decimal point is in seconds, else in microseconds, unless the unit is given;
it is *rounded* to microseconds, half to even, from the decimals that stand there (truncation puts one event in a
hundred 1 us early; so does the nearest binary fraction, now and then). A coordinate with decimals belongs to the pixel
that it lies in. Polarity is a number above 0 or ``true`` for brighter; 0, a negative number or ``false`` for darker.
The origin is top left. Empty lines and whatever follows a ``#`` are skipped.

A last line without its end of line is taken if it is whole. If it was cut within its last number, no program can tell.

faery reads such files as well, but moves backward times up without telling; here they reach the policy that counts
them. NumPy's ``loadtxt`` needs thirty times as long as the kernel below for lines of plain integers.
"""

from collections.abc import Iterator
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, InvalidOperation, localcontext
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sources.byte_stream import ByteStream
from sources.flat_writer import FlatWriter
from stream.errors import ConfigError, FormatError
from stream.jit import kernel
from stream.packet import EVENT_DTYPE

__all__ = ["TextLayout", "TextUnit", "TextWriter", "layout_as_asked", "read_text_events", "text_layout"]

TextUnit: TypeAlias = Literal["auto", "s", "ms", "us", "ns"]
"""Unit of the times; ``auto`` looks at the first one: decimals are seconds."""

_NAMES = {
    "t": ("t", "time", "timestamp", "ts", "t_us", "timestamps"),
    "x": ("x", "col", "column"),
    "y": ("y", "row"),
    "p": ("p", "on", "pol", "polarity"),
}
_DIGITS = {"s": 6, "ms": 3, "us": 0, "ns": -3}  # microseconds in a unit, as a power of ten
_CHUNK_BYTES = 1 << 17
_LONGEST_LINE = 1 << 16  # bytes; anything longer is not events
_MOST_COLUMNS = 64
_FARTHEST_US = 1 << 62
_POWERS = np.array([10**k for k in range(20)], np.uint64)

# what the text parser leaves behind, int64: bytes taken, lines taken, whether the next line is odd
_TAKEN, _LINES, _ODD = range(3)


class TextLayout(NamedTuple):
    """How the lines of one file are written."""

    separator: str | None  # None = any run of spaces and tabs
    skip_lines: int  # lines before the first event
    columns: tuple[int, int, int, int]  # where t, x, y, p stand
    seconds: bool | None  # the first time has decimals: seconds, unless the unit is given; None = no event seen yet
    unit: TextUnit = "auto"


def layout_as_asked(layout: TextLayout, *, columns: str = "", time_unit: TextUnit = "auto") -> TextLayout:
    """Change a layout to what the user knows better.

    Parameters
    ----------
    columns
        Order of the columns, such as ``tyxp``; other letters stand for columns to skip (``-xyt-p``). Empty = as found.
    time_unit
        Unit of the times.

    Raises
    ------
    ConfigError
        A column is named twice or not at all, or there is no such unit.
    """
    if columns and (any(columns.count(name) != 1 for name in "txyp") or len(columns) > _MOST_COLUMNS):
        raise ConfigError(
            f"columns: got {columns!r}, wanted each of t, x, y and p once among at most {_MOST_COLUMNS}, such as "
            f"'tyxp' or '-txyp' (skips the first)"
        )
    if time_unit != "auto" and time_unit not in _DIGITS:
        raise ConfigError(f"time unit: got {time_unit!r}, wanted auto, s, ms, us or ns")
    if columns:
        t, x, y, p = (columns.index(name) for name in "txyp")
        layout = layout._replace(columns=(t, x, y, p))
    return layout._replace(unit=time_unit)


def text_layout(head: bytes, *, columns: str = "", time_unit: TextUnit = "auto") -> TextLayout | None:
    """Recognise events in the first bytes of a file; None if these are not events as text, nor names of columns.

    Parameters
    ----------
    head
        Whole lines, but for the last line of the file.
    columns, time_unit
        As for ``layout_as_asked``; a given order overrules names in the first line.
    """
    lines = head.split(b"\n")
    asked = layout_as_asked(TextLayout(None, 0, (0, 1, 2, 3), False), columns=columns, time_unit=time_unit)
    places = asked.columns
    empty: TextLayout | None = None
    for number, line in enumerate(lines):
        try:
            text = line.decode("ascii").split("#")[0].strip()
        except UnicodeDecodeError:
            return None
        if not text:
            continue
        separator = next((mark for mark in (",", ";") if mark in text), None)
        words = [word.strip().lower() for word in text.split(separator)]
        named = [next((i for i, word in enumerate(words) if word in names), -1) for names in _NAMES.values()]
        if min(named) >= 0:
            if not columns:
                places = (named[0], named[1], named[2], named[3])
            empty = asked._replace(separator=separator, skip_lines=number + 1, columns=places, seconds=None)
            continue
        if max(places) >= min(len(words), _MOST_COLUMNS):
            return None
        try:
            t, *_ = [float(words[place]) for place in places[:3]]
            polarity = _polarity(words[places[3]])
        except (ValueError, InvalidOperation):
            return None
        if abs(polarity) > 1 or not np.isfinite(t):
            return None
        return asked._replace(separator=separator, skip_lines=number, columns=places, seconds="." in words[places[0]])
    return empty


def _order(columns: tuple[int, int, int, int]) -> str:
    """Write places as ``layout_as_asked`` reads them."""
    return "".join("txyp"[columns.index(place)] if place in columns else "-" for place in range(max(columns) + 1))


@kernel
def read_decimal(
    raw: NDArray[np.uint8], at: int, shift: int, powers: NDArray[np.uint64], number: NDArray[np.int64]
) -> int:
    """Read a decimal number, such as ``-12``, ``3.5`` or ``1.25e+03``.

    Parameters
    ----------
    raw
        uint8, shape (n,); somewhere after ``at`` stands a byte that belongs to no number.
    at
        Where it begins.
    shift
        Power of ten to multiply by.
    powers
        uint64, shape (20,): powers of ten.
    number
        int64, shape (>= 3,): set to the product rounded half to even, to the product rounded down, and to its sign.

    Returns
    -------
    end
        Where the number ends; -1 = this is none, or one too large or too long for 64 bits.
    """
    negative = raw[at] == 45  # -
    if negative or raw[at] == 43:  # +
        at += 1
    start = at
    point = -1
    mantissa = np.uint64(0)
    n_significant = 0
    while True:
        byte = raw[at]
        if 48 <= byte <= 57:
            if n_significant == 19:
                return -1
            mantissa = mantissa * np.uint64(10) + np.uint64(byte - 48)
            n_significant += int(mantissa != np.uint64(0))
        elif byte == 46 and point < 0:
            point = at
        else:
            break
        at += 1
    if at - start - int(point >= 0) == 0:
        return -1
    if point >= 0:
        shift -= at - point - 1
    if raw[at] == 101 or raw[at] == 69:  # e, E
        at += 1
        down = raw[at] == 45
        if down or raw[at] == 43:
            at += 1
        start = at
        exponent = np.int64(0)
        while 48 <= raw[at] <= 57 and at - start < 4:
            exponent = exponent * 10 + np.int64(raw[at]) - 48
            at += 1
        if at == start or at - start == 4:
            return -1
        shift += int(-exponent if down else exponent)
    whole = mantissa
    rest = np.uint64(0)
    half = np.uint64(1)
    if shift > 0 and mantissa != np.uint64(0):
        if shift > 18 or mantissa > np.uint64(_FARTHEST_US) // powers[shift]:
            return -1
        whole = mantissa * powers[shift]
    elif shift < -19:  # less than 19 digits that far behind the point
        whole = np.uint64(0)
        rest = np.uint64(mantissa != np.uint64(0))
        half = np.uint64(2)
    elif shift < 0:
        whole = mantissa // powers[-shift]
        rest = mantissa - whole * powers[-shift]
        half = powers[-shift] // np.uint64(2)
    if whole > np.uint64(_FARTHEST_US):
        return -1
    value = np.int64(whole)
    up = np.int64(rest > half or (rest == half and value & 1 == 1))
    number[0] = -(value + up) if negative else value + up
    number[1] = -value - np.int64(rest != np.uint64(0)) if negative else value
    number[2] = 0 if mantissa == np.uint64(0) else -1 if negative else 1
    return at


@kernel
def read_truth(raw: NDArray[np.uint8], at: int, number: NDArray[np.int64]) -> int:
    """Read ``true`` or ``false`` in any case as 1 or 0, else as ``read_decimal``."""
    is_true = raw[at] | 32 == 116
    for letter in (116, 114, 117, 101) if is_true else (102, 97, 108, 115):
        if raw[at] | 32 != letter:
            return -1
        at += 1
    if not is_true:
        if raw[at] | 32 != 101:
            return -1
        at += 1
    number[2] = int(is_true)
    return at


@kernel
def text_decode(
    raw: NDArray[np.uint8],
    columns: NDArray[np.int64],
    n_columns: int,
    separator: int,
    shift: int,
    powers: NDArray[np.uint64],
    number: NDArray[np.int64],
    state: NDArray[np.int64],
    events: NDArray[np.void],
) -> int:
    """Decode whole lines up to the first odd one.

    Parameters
    ----------
    raw
        uint8, shape (n_bytes,): lines, each with its end.
    columns
        int64, shape (4,): where t, x, y and p stand.
    n_columns
        How many there are up to the last of them; columns beyond are passed over.
    separator
        Byte that parts columns; 32 = any run of spaces and tabs.
    shift
        The power of ten that makes the times microseconds.
    powers
        As for ``read_decimal``.
    number
        int64, shape (4,): memory to work with.
    state
        int64, shape (3,): set to bytes taken, lines taken, and 1 if the next line needs more care.
    events
        EVENT_DTYPE, shape (>= n_bytes // 8,): written from the front.

    Returns
    -------
    n_events
        How many were written.
    """
    n_events = 0
    n_lines = 0
    at = 0
    state[_ODD] = 0
    n_plain = n_columns if shift == 0 and n_columns == 4 else 0
    while at < len(raw) and n_events < len(events):
        start = at
        event = events[n_events]
        # the usual line: digits, separator, digits, ..., end; whatever is otherwise goes the long way
        column = 0
        while column < n_plain:
            value = np.int64(0)
            first = at
            while 48 <= raw[at] <= 57 and at - first < 18:
                value = value * 10 + np.int64(raw[at]) - 48
                at += 1
            if at == first or raw[at] != (separator if column < n_plain - 1 else 10):
                break
            number[column] = value
            at += 1
            column += 1
        if n_plain and column == n_plain:
            event["t"] = number[columns[0]]
            event["x"] = min(number[columns[1]], 65535)
            event["y"] = min(number[columns[2]], 65535)
            event["p"] = number[columns[3]] > 0
            n_events += 1
            n_lines += 1
            continue
        at = start
        column = 0
        found = 0
        odd = False
        while True:
            while raw[at] == 32 or raw[at] == 9 or raw[at] == 13:
                at += 1
            if raw[at] == 10 or raw[at] == 35:  # the end of the line, #
                break
            role = -1
            for wanted in range(4):
                role = wanted if columns[wanted] == column else role
            if role >= 0:
                if role == 3 and raw[at] >= 65:
                    end = read_truth(raw, at, number)
                else:
                    end = read_decimal(raw, at, shift if role == 0 else 0, powers, number)
                if end < 0:
                    odd = True
                    break
                at = end
                found += 1
                place = number[1] if 0 <= number[1] <= 65535 else 65535
                if role == 0:
                    event["t"] = number[0]
                elif role == 1:
                    event["x"] = place
                elif role == 2:
                    event["y"] = place
                else:
                    event["p"] = number[2] > 0
            else:
                while raw[at] != separator and raw[at] != 10 and raw[at] != 35 and (raw[at] != 9 or separator != 32):
                    at += 1
            blanks = at
            while raw[at] == 32 or raw[at] == 9 or raw[at] == 13:
                at += 1
            if separator != 32 and raw[at] == separator:
                at += 1
            elif raw[at] != 10 and raw[at] != 35 and (separator != 32 or at == blanks):
                odd = True
                break
            column += 1
        if odd or (found != 4 and column):
            state[_ODD] = 1
            at = start
            break
        while raw[at] != 10:
            at += 1
        at += 1
        n_lines += 1
        n_events += int(found == 4)
    state[_TAKEN] = at
    state[_LINES] = n_lines
    return n_events


@kernel
def text_encode(events: NDArray[np.void], raw: NDArray[np.uint8]) -> int:
    """Write events, EVENT_DTYPE (n,), as lines ``t,x,y,p`` into uint8 (>= 40 * n,); return how many bytes."""
    n_bytes = 0
    for index in range(len(events)):
        event = events[index]
        for column in range(4):
            if column == 0:
                value = np.int64(event["t"])
            elif column == 1:
                value = np.int64(event["x"])
            elif column == 2:
                value = np.int64(event["y"])
            else:
                value = np.int64(event["p"])
            if value < 0:
                raw[n_bytes] = 45
                n_bytes += 1
                value = -value
            rest = value // 10
            end = n_bytes + 1
            while rest:
                rest //= 10
                end += 1
            for place in range(end - 1, n_bytes - 1, -1):
                raw[place] = 48 + value % 10
                value //= 10
            raw[end] = 10 if column == 3 else 44
            n_bytes = end + 1
    return n_bytes


def _polarity(word: str) -> int:
    """Return 1, 0 or -1; ValueError or InvalidOperation where there is no polarity."""
    if word in ("true", "false"):
        return int(word == "true")
    value = _number(word)
    return -1 if value < 0 else 1 if value == 1 else 0 if value == 0 else 2


def _number(word: str) -> Decimal:
    value = Decimal(word)
    if not value.is_finite() or "_" in word:
        raise ValueError(word)
    if value and not -99 < value.adjusted() < 99:
        # further out nothing changes, and 10^10^9 written out would not fit into memory
        return Decimal(1).copy_sign(value).scaleb(99 if value.adjusted() > 0 else -99)
    return value


def _parse_carefully(line: bytes, layout: TextLayout, shift: int) -> tuple[int, int, int, int] | None:
    """Parse a line of which the kernel can make nothing; None if it is no event."""
    try:
        words = [word.strip().lower() for word in line.decode("ascii").split("#")[0].split(layout.separator)]
        t, x, y, p = (words[place] for place in layout.columns)
        with localcontext(prec=len(line) + 200):
            t_us = int(_number(t).scaleb(shift).to_integral_value(ROUND_HALF_EVEN))
            x_in, y_in = (int(_number(word).to_integral_value(ROUND_FLOOR)) for word in (x, y))
        on = int(_polarity(p) > 0)
    except (ValueError, IndexError, InvalidOperation):
        return None
    x_in, y_in = (place if 0 <= place <= 65535 else 65535 for place in (x_in, y_in))
    return max(-_FARTHEST_US, min(t_us, _FARTHEST_US)), x_in, y_in, on


def read_text_events(path: Path, layout: TextLayout, *, follow_s: float = 0.0) -> Iterator[NDArray[np.void]]:
    """Read a file piece by piece.

    Parameters
    ----------
    path
        The file, or ``-`` for standard input.
    layout
        As ``text_layout`` found it.
    follow_s
        The file may still grow: it has ended when it has not for so long, seconds. A line without its end waits.

    Yields
    ------
    events
        EVENT_DTYPE, shape (n,), as they stand in the file. Empty: nothing yet. The memory is used again for the next
        array: copy what is to stay. A coordinate that is negative or above 65535 becomes 65535, which lies outside of
        every sensor; a time beyond 2^62 us becomes that.

    Raises
    ------
    FormatError
        At the first line that is no event, after everything before it was yielded.
    """
    shift = _DIGITS[layout.unit] if layout.unit != "auto" else 6 if layout.seconds else 0
    undecided = layout.unit == "auto" and layout.seconds is None
    columns, n_columns = np.array(layout.columns, np.int64), max(layout.columns) + 1
    separator = ord(layout.separator or " ")
    number, state = np.zeros(4, np.int64), np.zeros(3, np.int64)
    buffer = bytearray(_CHUNK_BYTES + _LONGEST_LINE + 1)
    raw = np.frombuffer(buffer, np.uint8)
    events = np.empty(len(buffer) // 8, EVENT_DTYPE)
    left = 0  # bytes of a line that has no end yet, at the front of the buffer
    n_lines = 0
    ended = False
    with ByteStream(path, follow_s=follow_s) as stream:
        pieces = stream.records(1, chunk_bytes=_CHUNK_BYTES)
        while not ended:
            piece = next(pieces, None)
            if piece is None:
                ended = True
                if not left:
                    return
                piece = np.array([10], np.uint8)
            end = left + len(piece)
            raw[left:end] = piece
            begin = stream.position - end + int(ended)  # byte in the file of the front of the buffer
            whole = buffer.rfind(b"\n", left, end) + 1
            at = 0
            while at < whole and n_lines < layout.skip_lines:
                at = buffer.find(b"\n", at, whole) + 1
                n_lines += 1
            if undecided and at < whole:  # the names stood there alone when the layout was made
                first = text_layout(bytes(buffer[at:whole]), columns=_order(layout.columns))
                undecided = first is None
                shift = 6 if first is not None and first.seconds else 0
            n_events = 0
            bad = False
            while at < whole and not bad:
                n_events += text_decode(
                    raw[at:whole], columns, n_columns, separator, shift, _POWERS, number, state, events[n_events:]
                )
                at += int(state[_TAKEN])
                n_lines += int(state[_LINES])
                if state[_ODD]:
                    after = buffer.find(b"\n", at, whole) + 1
                    event = _parse_carefully(bytes(buffer[at:after]), layout, shift)
                    bad = event is None
                    if event is not None:
                        events[n_events] = event
                        n_events += 1
                        n_lines += 1
                        at = after
            yield events[:n_events]
            if bad:
                line = bytes(buffer[at : buffer.find(b"\n", at, whole)]).decode("ascii", "replace").strip()
                raise FormatError(
                    f"{path}: line {n_lines + 1}: got {line[:60]!r} at byte {begin + at}"
                    f"{', torn by the end of the file' if ended else ''}, wanted time, x, y and polarity; everything "
                    f"before was read, mend or remove the line for the rest"
                )
            left = end - max(at, whole)
            if left > _LONGEST_LINE:
                raise FormatError(
                    f"{path}: line {n_lines + 1} (byte {begin + at}) is longer than {_LONGEST_LINE} bytes; wanted "
                    f"time, x, y and polarity; everything before was read"
                )
            buffer[:left] = buffer[end - left : end]


class TextWriter(FlatWriter):
    """Write lines ``t,x,y,p`` of integers, times in microseconds, after a line that says so; see ``FlatWriter``."""

    name = "text"
    first_us = -_FARTHEST_US
    holds = "sorted times of less than 2^62 us"

    def _header(self) -> bytes:
        return b"t,x,y,p\n"

    def _first_unfit(self, events: NDArray[np.void], last_us: int) -> int:
        return int(np.searchsorted(events["t"], _FARTHEST_US, side="right"))

    def _encode(self, events: NDArray[np.void]) -> Iterator[bytes]:
        raw = np.empty(_CHUNK_BYTES, np.uint8)
        step = len(raw) // 40
        for start in range(0, len(events), step):
            n_bytes = text_encode(events[start : start + step], raw)
            yield raw[:n_bytes].tobytes()
