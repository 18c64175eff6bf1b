"""Scenes to look at, each object shown for a while and moving; written digits, shapes, and gratings are made here.

Scenes out of files stand beside: ``scene_images``, ``scene_video``, ``scene_strokes``.

A scene shows one *object* after the other. An object has a label and a path; ``render`` gives the luminance at any
time of it: float32 in (0, 1], 1 = white, which a camera takes the logarithm of. Rendering is mostly by shifting: an
object is drawn once, on a canvas with a margin, and each frame looks at the canvas through a window that moves by parts
of a pixel.

What object number k is depends on the seed and on k alone, and a frame depends on the object and the time alone, not on
the frames before: so a stream can be taken up at any moment.

Digits are shown through three saccades along a triangle, 100 ms each, as N-MNIST was recorded (Orchard et al. 2015).
Eyes and pan-tilt heads start and stop gently, so position follows the minimum-jerk profile 10 s^3 - 15 s^4 + 6 s^5
(Flash and Hogan 1985): events come in three swells with silence between, not as a drizzle.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sources.counter_random import gaussian, shuffled, uniform
from sources.handwriting import N_DIGITS, Hand, ink, pen_strokes
from stream.jit import kernel

__all__ = [
    "TRIANGLE",
    "DigitScene",
    "GratingScene",
    "Scene",
    "SceneName",
    "ShapeScene",
    "look_through",
    "saccade",
    "scene_of",
]

SceneName: TypeAlias = Literal["digits", "shapes", "gratings"]

# Where three saccades lead, in units of their reach. The gaze returns to where it began.
TRIANGLE = ((-0.5, -0.5), (0.0, 0.5), (0.5, -0.5), (-0.5, -0.5))

_GROUND = 0.10  # luminance of the ground: a contrast of ten, about that of print or of a dim screen


class Scene(ABC):
    """What a camera may look at.

    Parameters
    ----------
    width, height
        Pixels of the frames.
    seed
        Fixes every object.

    Attributes
    ----------
    n_labels
        Labels are 0 to ``n_labels - 1``.
    object_us
        How long the object on the stage is shown. A scene that learns this only while it renders (a video, of which no
        more than two frames are in memory) begins with a time that never comes, and sets it in the very ``render`` that
        reaches the end.
    n_objects
        How many there are; None = one after the other without end.
    is_labelled
        Whether objects have labels.
    class_names
        What labels 0, 1, ... mean, or () if they speak for themselves.
    """

    n_labels: int
    object_us: int
    n_objects: int | None = None
    is_labelled: bool = True
    class_names: tuple[str, ...] = ()

    def __init__(self, *, width: int, height: int, seed: int) -> None:
        self.width, self.height, self.seed = width, height, seed

    def label_of(self, number: int) -> int:
        """Return the label of an object; each round of ``n_labels`` objects shows each label once, in another order."""
        turn, place = divmod(number, self.n_labels)
        return shuffled(self.n_labels, seed=self.seed, stream=1_000_003 + turn)[place]

    @abstractmethod
    def show(self, number: int) -> int | None:
        """Put object ``number`` (0, 1, ...) on the stage and return its label, None if it has none.

        Raises
        ------
        FormatError
            A file that shows it cannot be read. ``render`` too may raise this.
        """

    @abstractmethod
    def render(self, elapsed_us: int, frame: NDArray[np.float32]) -> None:
        """Render the object ``elapsed_us`` after it came on; ``frame`` is float32, shape (height, width)."""

    def close(self) -> None:  # noqa: B027 - most scenes hold nothing open; closing is optional on purpose
        """Release files. Idempotent."""


def saccade(
    elapsed_us: int, saccade_us: int, corners: Sequence[tuple[float, float]], *, gentle: bool = True
) -> tuple[float, float]:
    """Return where the gaze is on a path of saccades.

    Parameters
    ----------
    elapsed_us
        Time since the first saccade began; before and after the path the gaze rests on its ends.
    saccade_us
        Time of each.
    corners
        x, y of where they begin and end: one more than there are saccades.
    gentle
        Whether they start and stop gently; else at constant speed.
    """
    leg = min(max(elapsed_us, 0) // saccade_us, len(corners) - 2)
    s = min(max(elapsed_us / saccade_us - leg, 0.0), 1.0)
    eased = s * s * s * (10.0 + s * (6.0 * s - 15.0)) if gentle else s
    (ax, ay), (bx, by) = corners[leg], corners[leg + 1]
    return ax + eased * (bx - ax), ay + eased * (by - ay)


@kernel
def look_through(canvas: NDArray[np.float32], left: float, top: float, frame: NDArray[np.float32]) -> None:
    """Copy a window of a canvas, by bilinear interpolation.

    Parameters
    ----------
    canvas
        float32, shape (canvas_height, canvas_width).
    left, top
        Where the window's pixel (0, 0) lies on the canvas; the window and one pixel more must fit.
    frame
        float32, shape (height, width), overwritten.
    """
    column = int(left)
    row = int(top)
    right_part = np.float32(left - column)
    lower_part = np.float32(top - row)
    one = np.float32(1.0)
    a = (one - lower_part) * (one - right_part)
    b = (one - lower_part) * right_part
    c = lower_part * (one - right_part)
    d = lower_part * right_part
    for y in range(frame.shape[0]):
        upper = canvas[row + y]
        lower = canvas[row + y + 1]
        for x in range(frame.shape[1]):
            frame[y, x] = (
                a * upper[column + x] + b * upper[column + x + 1] + c * lower[column + x] + d * lower[column + x + 1]
            )


@kernel
def fill(corners: NDArray[np.float32], image: NDArray[np.float32]) -> None:
    """Draw a filled polygon with a soft edge one and a half pixels wide: 1 inside, 0 outside.

    Parameters
    ----------
    corners
        float32, shape (n, 2): x, y, pixels, in order around the polygon (which may be concave).
    image
        float32, shape (height, width), overwritten.
    """
    n = corners.shape[0]
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            nearest = 1e30
            inside = False
            for index in range(n):
                ax = corners[index, 0]
                ay = corners[index, 1]
                bx = corners[(index + 1) % n, 0]
                by = corners[(index + 1) % n, 1]
                # a ray to the right crosses the outline an odd number of times from inside
                if (ay > row) != (by > row) and column < (bx - ax) * (row - ay) / (by - ay) + ax:
                    inside = not inside
                wide = bx - ax
                high = by - ay
                along = ((column - ax) * wide + (row - ay) * high) / (wide * wide + high * high)
                along = min(1.0, max(0.0, along))
                dx = column - ax - along * wide
                dy = row - ay - along * high
                nearest = min(nearest, dx * dx + dy * dy)
            distance = math.sqrt(nearest) if inside else -math.sqrt(nearest)
            edge = min(1.0, max(0.0, distance / 1.5 + 0.5))
            image[row, column] = edge * edge * (3.0 - 2.0 * edge)


@kernel
def grating(
    wave_x: float, wave_y: float, phase: float, mean: float, amplitude: float, frame: NDArray[np.float32]
) -> None:
    """Render luminance ``mean + amplitude * sin(wave_x * x + wave_y * y - phase)``; waves in radians per pixel."""
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            frame[y, x] = mean + amplitude * math.sin(wave_x * x + wave_y * y - phase)


class _MovedCanvas(Scene):
    """A scene whose objects are drawn once and then moved by at most ``reach`` pixels off the centre."""

    def __init__(self, *, width: int, height: int, seed: int, reach: float) -> None:
        super().__init__(width=width, height=height, seed=seed)
        self._margin = math.ceil(reach) + 1
        self._canvas = np.zeros((height + 2 * self._margin + 1, width + 2 * self._margin + 1), np.float32)

    def _tint(self, number: int) -> None:
        """Turn ink (0 to 1) into luminance; prints differ in brightness."""
        bright = 0.6 + 0.4 * uniform(self.seed, 7, number)
        self._canvas *= np.float32(bright - _GROUND)
        self._canvas += np.float32(_GROUND)

    def _look(self, dx: float, dy: float, frame: NDArray[np.float32]) -> None:
        look_through(self._canvas, self._margin + dx, self._margin + dy, frame)


class DigitScene(_MovedCanvas):
    """Handwritten digits 0 to 9, bright on dark, through three saccades.

    Parameters
    ----------
    width, height, seed
        See ``Scene``.
    reach
        Way of a saccade, as a part of the smaller side: 6 pixels of N-MNIST's 34.
    hand
        How much specimens differ.
    """

    n_labels = N_DIGITS
    saccade_us = 100_000
    object_us = 3 * saccade_us

    def __init__(self, *, width: int, height: int, seed: int, reach: float = 0.18, hand: Hand | None = None) -> None:
        self._reach = reach * min(width, height)
        super().__init__(width=width, height=height, seed=seed, reach=self._reach)
        self._hand = hand or Hand()

    def show(self, number: int) -> int:
        """Write the digit of this number."""
        label = self.label_of(number)
        self.write(label, number)
        return label

    def write(self, digit: int, specimen: int) -> None:
        """Write a given digit, in a given specimen of handwriting."""
        segments, pen = pen_strokes(digit, seed=self.seed, specimen=specimen, hand=self._hand)
        tall = 0.60 * min(self.width, self.height)
        shift = 0.03 * min(self.width, self.height)
        high, wide = self._canvas.shape
        ink(
            segments,
            tall,
            pen * tall,
            0.5 * (wide - 2) + shift * gaussian(self.seed, 11, specimen),
            0.5 * (high - 2) + shift * gaussian(self.seed, 12, specimen),
            self._canvas,
        )
        self._tint(specimen)

    def render(self, elapsed_us: int, frame: NDArray[np.float32]) -> None:
        """Render the digit at a time of its three saccades."""
        x, y = saccade(elapsed_us, self.saccade_us, TRIANGLE)
        self._look(self._reach * x, self._reach * y, frame)


class ShapeScene(_MovedCanvas):
    """Filled shapes on a round path: label 0 triangle, 1 square, 2 circle, 3 star, turned and sized at random."""

    n_labels = 4
    object_us = 400_000

    def __init__(self, *, width: int, height: int, seed: int) -> None:
        self._reach = 0.18 * min(width, height)
        super().__init__(width=width, height=height, seed=seed, reach=self._reach)
        self._start = 0.0
        self._way = 1.0

    def show(self, number: int) -> int:
        """Draw the shape of this number."""
        label = self.label_of(number)
        n_corners, inner = ((3, 1.0), (4, 1.0), (48, 1.0), (10, 0.45))[label]
        radius = min(self.width, self.height) * (0.20 + 0.06 * uniform(self.seed, 21, number))
        turn = 2.0 * math.pi * uniform(self.seed, 22, number)
        angles = turn + 2.0 * math.pi * np.arange(n_corners) / n_corners
        radii = np.where(np.arange(n_corners) % 2, inner, 1.0) * radius
        high, wide = self._canvas.shape
        center = (0.5 * (wide - 2), 0.5 * (high - 2))
        corners = np.stack((center[0] + radii * np.cos(angles), center[1] + radii * np.sin(angles)), axis=1)
        fill(corners.astype(np.float32), self._canvas)
        self._tint(number)
        self._start = 2.0 * math.pi * uniform(self.seed, 23, number)
        self._way = 1.0 if uniform(self.seed, 24, number) < 0.5 else -1.0
        return label

    def render(self, elapsed_us: int, frame: NDArray[np.float32]) -> None:
        """Render the shape on its round, one round an object."""
        angle = self._start + self._way * 2.0 * math.pi * elapsed_us / self.object_us
        self._look(self._reach * math.cos(angle), self._reach * math.sin(angle), frame)


class GratingScene(Scene):
    """Drifting sine gratings: the label is the direction of drift, 0 = right, 1 = down right, ... 7 = up right."""

    n_labels = 8
    object_us = 400_000
    drift_hz = 5.0  # periods that pass a pixel each second

    def __init__(self, *, width: int, height: int, seed: int) -> None:
        super().__init__(width=width, height=height, seed=seed)
        self._wave_x = self._wave_y = self._start = 0.0
        self._amplitude = 0.3

    def show(self, number: int) -> int:
        """Set direction, period, contrast and first phase of the grating of this number."""
        label = self.label_of(number)
        period = min(self.width, self.height) * (0.2 + 0.15 * uniform(self.seed, 31, number))
        angle = 2.0 * math.pi * label / self.n_labels
        self._wave_x = 2.0 * math.pi / period * math.cos(angle)
        self._wave_y = 2.0 * math.pi / period * math.sin(angle)
        self._start = 2.0 * math.pi * uniform(self.seed, 32, number)
        self._amplitude = 0.25 + 0.15 * uniform(self.seed, 33, number)
        return label

    def render(self, elapsed_us: int, frame: NDArray[np.float32]) -> None:
        """Render the grating, drifted so far."""
        phase = self._start + 2.0 * math.pi * self.drift_hz * elapsed_us * 1e-6
        grating(self._wave_x, self._wave_y, phase, 0.5, self._amplitude, frame)


def scene_of(name: SceneName, *, width: int, height: int, seed: int) -> Scene:
    """Make a scene by its name in a pipeline file."""
    if name == "digits":
        return DigitScene(width=width, height=height, seed=seed)
    if name == "shapes":
        return ShapeScene(width=width, height=height, seed=seed)
    return GratingScene(width=width, height=height, seed=seed)
