"""Events as text: one event a line, columns time, x, y, polarity, parted by commas, semicolons, tabs or spaces.

A first line with words names the columns (``t, x, y, p``, in any order; ``time``, ``timestamp``, ``on``, ``polarity``
are understood too); without it the order is t, x, y, p. Some data sets write t, y, x, p, and no program can tell:
such a file needs a first line. A time with a decimal point is in seconds and is *rounded* to microseconds (truncation
puts one event in a hundred 1 us early), else it is in microseconds. Polarity is 1 or ``true`` for brighter; 0, -1 or
``false`` for darker. The origin is top left. Lines that are empty or begin with ``#`` are skipped.

faery reads such files as well, but moves backward times up without telling; here they reach the policy that counts
them.
"""

import io
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.errors import FormatError
from stream.packet import EVENT_DTYPE

__all__ = ["TextLayout", "read_text_events", "text_layout"]

_NAMES = {
    "t": ("t", "time", "timestamp", "ts", "t_us", "timestamps"),
    "x": ("x", "col", "column"),
    "y": ("y", "row"),
    "p": ("p", "on", "pol", "polarity"),
}
_POLARITIES = {"1": 1, "0": 0, "-1": 0, "true": 1, "false": 0, "1.0": 1, "0.0": 0, "-1.0": 0}


class TextLayout(NamedTuple):
    """How the lines of one file are written."""

    separator: str | None  # None = any run of spaces and tabs
    skip_lines: int  # lines before the first event
    columns: tuple[int, int, int, int]  # where t, x, y, p stand
    seconds: bool  # times are seconds with decimals, not microseconds


def text_layout(head: bytes) -> TextLayout | None:
    """Recognise events in the first bytes of a file; None if these are not events as text."""
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        return None
    lines = text.splitlines()
    columns = (0, 1, 2, 3)
    for number, line in enumerate(lines):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        separator = next((mark for mark in (",", ";") if mark in line), None)
        words = [word.strip().lower() for word in line.split(separator)]
        places = [next((i for i, word in enumerate(words) if word in names), -1) for names in _NAMES.values()]
        if min(places) >= 0:
            columns = (places[0], places[1], places[2], places[3])
            continue
        try:
            [float(words[place]) for place in columns[:3]]
        except (ValueError, IndexError):
            return None
        if len(words) <= columns[3] or (words[columns[3]] not in _POLARITIES and len(lines) > number + 1):
            return None
        return TextLayout(separator, number, columns, "." in words[columns[0]])
    return None


def _parse(lines: list[str], layout: TextLayout) -> NDArray[np.float64]:
    """Parse lines at C speed; raises ValueError if any of them is odd."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "input contained no data": a block of empty lines is fine
        return np.loadtxt(
            io.StringIO("".join(lines)), delimiter=layout.separator, usecols=layout.columns, ndmin=2, dtype=np.float64
        )


def _parse_slowly(lines: list[str], layout: TextLayout) -> tuple[NDArray[np.float64], int]:
    """Parse line by line up to the first bad one; returns the rows and its index, or -1."""
    rows: list[tuple[float, float, float, float]] = []
    bad = -1
    for index, line in enumerate(lines):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = [word.strip().lower() for word in line.split(layout.separator)]
        try:
            t, x, y = (float(words[place]) for place in layout.columns[:3])
            rows.append((t, x, y, _POLARITIES[words[layout.columns[3]]]))
        except (ValueError, IndexError, KeyError):
            bad = index
            break
    return np.array(rows, np.float64).reshape(-1, 4), bad


def read_text_events(path: Path, layout: TextLayout, *, chunk_lines: int = 65536) -> Iterator[NDArray[np.void]]:
    """Read a file piece by piece.

    Yields
    ------
    events
        EVENT_DTYPE, shape (n,), as they stand in the file. A coordinate that is negative or above 65535 becomes
        65535, which lies outside of every sensor.

    Raises
    ------
    FormatError
        At the first line that is no event, after everything before it was yielded.
    """
    number = layout.skip_lines
    with path.open("r", encoding="ascii", errors="replace") as file:
        for _ in islice(file, layout.skip_lines):
            pass
        while lines := list(islice(file, chunk_lines)):
            bad = -1
            try:
                rows = _parse(lines, layout)
            except ValueError:
                rows, bad = _parse_slowly(lines, layout)
            if not np.isfinite(rows).all():
                rows, bad = _parse_slowly(lines, layout)
                good = np.isfinite(rows).all(axis=1)
                rows = rows[good]
            events = np.empty(len(rows), EVENT_DTYPE)
            events["t"] = np.rint(np.clip(rows[:, 0] * (1e6 if layout.seconds else 1.0), -(2.0**62), 2.0**62))
            for axis, column in (("x", 1), ("y", 2)):
                inside = (rows[:, column] >= 0) & (rows[:, column] <= 65535)
                events[axis] = np.where(inside, rows[:, column], 65535)
            events["p"] = rows[:, 3] > 0
            if len(events):
                yield events
            if bad >= 0:
                raise FormatError(
                    f"{path}: line {number + bad + 1}: got {lines[bad].strip()[:60]!r}, wanted time, x, y and "
                    f"polarity; everything before was read, mend or remove the line for the rest"
                )
            number += len(lines)
