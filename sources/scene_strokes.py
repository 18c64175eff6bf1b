"""Pen strokes as a scene: a pen writes, and the growing line makes the events.

A drawing is a file of strokes, a stroke a line through points x, y, t:

- ``.json``: a list of strokes, each a list of points: ``[[[x, y, t], [x, y, t]], [[x, y, t]]]``; or
  ``{"strokes": [...]}``. y points down.
- ``.txt``, ``.csv``: a point a line, three numbers with blanks or commas between them; an empty line ends a stroke;
  what follows ``#`` is not read. y points down.
- Omniglot's stroke files (Lake, Salakhutdinov and Tenenbaum 2015), also ``.txt``: ``START``, then points ``x,y,t``, and
  ``BREAK`` after each stroke. In this form y points **up**.

Times are milliseconds unless ``unit_us`` says otherwise, and count through the drawing, pen in the air included. A time
that steps back in a stroke is raised to the one before; a stroke that begins before the last one ended (each counts
from 0) is moved to follow it at once. A stroke of one point is a dot.

The pen moves evenly from point to point. It writes bright on dark, so that almost all events are ON (``invert`` for
ink on paper); what is written stays, and nothing else moves. Drawings are scaled and centred to fit the sensor.

Labels come from the folders, see ``scene_files``: Omniglot's ``ALPHABET/CHARACTER/FILE.txt`` makes a class of each
character.
"""

import math
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from sources.scene_files import FileScene, check_light, find_labelled_files
from stream.errors import ConfigError, FormatError
from stream.jit import kernel

__all__ = ["STROKE_SUFFIXES", "StrokeScene", "Strokes", "add_ink", "read_strokes"]

STROKE_SUFFIXES = frozenset((".json", ".txt", ".csv"))

_MOST_BYTES = 1 << 26  # a drawing of a million points
_LONGEST_US = 86_400_000_000
_FARTHEST = 1e15  # so that no sum overflows


class Strokes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How drawings are written.

    Parameters
    ----------
    passes
        How often each is shown; None = without end.
    unit_us
        What 1 of t lasts: 1000 if t is in milliseconds; 500 to write such a file twice as fast.
    size
        Longer side of a drawing, in smaller sides of the sensor.
    pen
        Width of the line, in smaller sides of the sensor.
    invert
        Dark ink on white paper instead of bright on dark.
    black
        Luminance of the dark; white is 1.
    """

    passes: int | None = None
    unit_us: float = 1000.0
    size: float = 0.75
    pen: float = 0.06
    invert: bool = False
    black: float = 0.1


class _Drawing(msgspec.Struct):
    strokes: list[list[tuple[float, float, float]]]


def read_strokes(path: Path) -> list[NDArray[np.float64]]:
    """Read a drawing; see the module for the formats.

    Returns
    -------
    strokes
        float64, shape (n, 3) each, n >= 1: x, y (down), t in units of the file, never decreasing.

    Raises
    ------
    FormatError
        It is no drawing; the message names the line.
    """
    way_out = "wanted points x, y, t; see sources.scene_strokes for the formats"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise FormatError(f"{path}: {path.stat().st_size} bytes, wanted at most {_MOST_BYTES}; {way_out}")
        content = path.read_bytes()
        if path.suffix.lower() == ".json":
            read = msgspec.json.decode(content, type=list[list[tuple[float, float, float]]] | _Drawing)
            lines = read.strokes if isinstance(read, _Drawing) else read
        else:
            lines = _read_text(path, content.decode(), way_out)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); {way_out}") from error
    strokes = [np.array(line, np.float64) for line in lines if line]
    if not strokes or not all((np.abs(stroke) <= _FARTHEST).all() for stroke in strokes):
        raise FormatError(
            f"{path}: holds {f'a number beyond {_FARTHEST:g}, or none at all' if strokes else 'no points'}; {way_out}"
        )
    end = -math.inf
    for stroke in strokes:
        if stroke[0, 2] < end:
            stroke[:, 2] += end - stroke[0, 2]
        np.maximum.accumulate(stroke[:, 2], out=stroke[:, 2])
        end = float(stroke[-1, 2])
    return strokes


def _read_text(path: Path, text: str, way_out: str) -> list[list[tuple[float, float, float]]]:
    """Read points line by line."""
    strokes: list[list[tuple[float, float, float]]] = [[]]
    up = 1.0
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if words == ["START"]:
            up = -1.0  # Omniglot's form
        elif words == ["BREAK"] or not line.strip():
            strokes.append([])
        elif words:
            try:
                x, y, t = (float(word) for word in words)
            except ValueError:
                raise FormatError(f"{path}: line {number}: got {line[:60]!r}; {way_out}") from None
            strokes[-1].append((x, up * y, t))
    return strokes


@kernel
def add_ink(ax: float, ay: float, bx: float, by: float, pen: float, image: NDArray[np.float32]) -> None:
    """Draw a line with a round pen over what is there: 1 on the line, with a smooth edge one and a half pixels wide.

    Parameters
    ----------
    ax, ay, bx, by
        Both ends, pixels.
    pen
        Width, pixels.
    image
        float32, shape (height, width): ink so far; where lines cross, the greater counts.
    """
    soft = 1.5
    far = 0.5 * (pen + soft)
    wide = bx - ax
    high = by - ay
    length = wide * wide + high * high
    for row in range(max(0, math.floor(min(ay, by) - far)), min(image.shape[0], math.ceil(max(ay, by) + far) + 1)):
        for column in range(
            max(0, math.floor(min(ax, bx) - far)), min(image.shape[1], math.ceil(max(ax, bx) + far) + 1)
        ):
            along = 0.0
            if length > 0.0:
                along = min(1.0, max(0.0, ((column - ax) * wide + (row - ay) * high) / length))
            dx = column - ax - along * wide
            dy = row - ay - along * high
            edge = (0.5 * pen - math.sqrt(dx * dx + dy * dy)) / soft + 0.5
            edge = min(1.0, max(0.0, edge))
            image[row, column] = max(image[row, column], edge * edge * (3.0 - 2.0 * edge))


class StrokeScene(FileScene):
    """Drawings in the making; ``path`` is a folder (see ``scene_files``) or one drawing.

    Raises
    ------
    ConfigError
        There are no drawings, or an option is out of range.
    """

    def __init__(self, *, width: int, height: int, seed: int, path: Path, strokes: Strokes) -> None:
        subject = "scene of strokes"
        check_light(subject, gamma=1.0, black=strokes.black, passes=strokes.passes)
        if not (0.0 < strokes.size <= 16.0 and 0.0 < strokes.pen <= 1.0 and 0.0 < strokes.unit_us <= 1e9):
            raise ConfigError(
                f"{subject}: got size {strokes.size}, pen {strokes.pen} and unit_us {strokes.unit_us}; "
                f"wanted a size above 0 and up to 16, a pen above 0 and up to 1, and a unit above 0 and up to 1e9 us"
            )
        self._paths, labels, names = find_labelled_files(path, STROKE_SUFFIXES, subject=subject)
        super().__init__(width=width, height=height, seed=seed, labels=labels, class_names=names, passes=strokes.passes)
        self._strokes = strokes
        self._pen = float(strokes.pen * min(width, height))
        self._lines = np.empty((0, 4))  # ax, ay, bx, by, pixels
        self._us = np.empty((0, 2), np.int64)  # when the pen is at either end
        self._dry = np.zeros((height, width), np.float32)  # ink of the first ``_n_dry`` lines
        self._n_dry = 0
        self._wet = np.zeros((height, width), np.float32)  # and of the one being drawn

    def show(self, number: int) -> int:
        """Take the drawing of this number, of which nothing is drawn yet."""
        file = self.file_of(number)
        strokes = read_strokes(self._paths[file])
        points = np.concatenate(strokes)
        lowest, highest = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        extent = float((highest - lowest).max())
        scale = self._strokes.size * min(self.width, self.height) / extent if extent > 0.0 else 0.0
        center = 0.5 * np.array([self.width - 1, self.height - 1])
        duration_us = (points[-1, 2] - points[0, 2]) * self._strokes.unit_us
        if duration_us > _LONGEST_US:
            raise FormatError(
                f"{self._paths[file]}: takes {duration_us:g} us; wanted a drawing that takes a day at most; "
                f"check that the columns are x, y and t, and unit_us"
            )
        lines, times = [], []
        for stroke in strokes:
            at = (stroke[:, :2] - 0.5 * (lowest + highest)) * scale + center
            us = np.rint((stroke[:, 2] - points[0, 2]) * self._strokes.unit_us).astype(np.int64)
            last = slice(1, None) if len(at) > 1 else slice(0, 1)  # a dot begins and ends in one point
            lines.append(np.hstack((at[: len(at[last])], at[last])))
            times.append(np.stack((us[: len(us[last])], us[last]), axis=1))
        self._lines, self._us = np.concatenate(lines), np.concatenate(times)
        self.object_us = int(self._us[-1, 1]) + 1  # a dot at the very end wants to be seen
        self._wipe()
        return self._labels[file]

    def _wipe(self) -> None:
        self._dry[:] = 0.0
        self._n_dry = 0

    def render(self, elapsed_us: int, frame: NDArray[np.float32]) -> None:
        """Render what is drawn at a time: what the pen began before it. Quick if times go up."""
        begun = int(np.searchsorted(self._us[:, 0], elapsed_us))
        # A line that the pen is still at is drawn anew each time, from its beginning: a frame must not depend, not by a
        # last bit, on which frames were rendered before.
        done = begun - (begun > 0 and bool(self._us[begun - 1, 1] > elapsed_us))
        if done < self._n_dry:
            self._wipe()
        for index in range(self._n_dry, done):
            ax, ay, bx, by = self._lines[index].tolist()
            add_ink(ax, ay, bx, by, self._pen, self._dry)
        self._n_dry = done
        ink = self._dry
        if done < begun:
            ink = self._wet
            ink[:] = self._dry
            (ax, ay, bx, by), (start, stop) = self._lines[done].tolist(), self._us[done].tolist()
            part = (elapsed_us - start) / (stop - start)
            add_ink(ax, ay, ax + part * (bx - ax), ay + part * (by - ay), self._pen, ink)
        black = self._strokes.black
        from_light, to_light = (1.0, black) if self._strokes.invert else (black, 1.0)
        np.multiply(ink, np.float32(to_light - from_light), out=frame)
        frame += np.float32(from_light)
