"""Digits as pen strokes, each time written a little differently.

A digit is a few strokes in a unit square (x to the right, y down), through our own control points: straight from
point to point, or rounded by a Catmull-Rom spline (Catmull and Rom 1974). A hand that slants, turns, stretches and
trembles makes every specimen another one; some digits have several habits (a one with or without a flag, an open or a
closed four).

Why not a data set of scanned digits: this needs no download, has no licence but ours, and never runs out of specimens.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sources.counter_random import gaussian, uniform
from stream.jit import kernel

__all__ = ["N_DIGITS", "Hand", "Stroke", "ink", "pen_strokes", "written"]

N_DIGITS = 10


class Hand(NamedTuple):
    """How much specimens differ; deviations of normal distributions unless said otherwise."""

    slant: float = 0.20  # shear, x per y
    turn: float = 0.13  # radians
    stretch: float = 0.13  # of width and height, each by itself
    wobble: float = 0.036  # of each control point, in heights of a digit
    pen: float = 0.075  # mean width of the pen, in heights of a digit
    pen_spread: float = 0.35  # half range of the width, uniform, as a part of the mean


class Stroke(NamedTuple):
    """A line through points; ``rounded`` makes it a curve."""

    rounded: bool
    points: tuple[tuple[float, float], ...]


def _line(*points: tuple[float, float]) -> Stroke:
    return Stroke(False, points)


def _curve(*points: tuple[float, float]) -> Stroke:
    return Stroke(True, points)


_STEM = _line((0.52, 0.05), (0.50, 0.95))
_FLAG = _line((0.30, 0.27), (0.52, 0.05))
_FOOT = _line((0.28, 0.95), (0.74, 0.95))
_SEVEN = _line((0.18, 0.09), (0.82, 0.07), (0.42, 0.95))
_HEAD_OF_NINE = _curve((0.74, 0.29), (0.59, 0.08), (0.36, 0.09), (0.24, 0.28), (0.36, 0.47), (0.59, 0.45), (0.74, 0.29))

# For each digit the habits of different hands.
_GLYPHS: tuple[tuple[tuple[Stroke, ...], ...], ...] = (
    (
        (
            _curve(
                (0.52, 0.05),
                (0.25, 0.18),
                (0.16, 0.50),
                (0.25, 0.83),
                (0.50, 0.95),
                (0.76, 0.82),
                (0.84, 0.50),
                (0.75, 0.17),
                (0.50, 0.05),
            ),
        ),
    ),
    ((_STEM,), (_STEM, _FLAG), (_STEM, _FLAG, _FOOT)),
    (
        (
            _curve((0.20, 0.27), (0.36, 0.07), (0.66, 0.08), (0.78, 0.29), (0.61, 0.55), (0.19, 0.93)),
            _line((0.19, 0.93), (0.83, 0.92)),
        ),
        (
            _curve(
                (0.22, 0.22),
                (0.45, 0.05),
                (0.75, 0.18),
                (0.68, 0.50),
                (0.32, 0.88),
                (0.22, 0.78),
                (0.40, 0.76),
                (0.84, 0.94),
            ),
        ),
    ),
    (
        (
            _curve((0.20, 0.15), (0.48, 0.05), (0.75, 0.20), (0.68, 0.41), (0.42, 0.48)),
            _curve((0.42, 0.48), (0.74, 0.55), (0.80, 0.77), (0.55, 0.95), (0.19, 0.86)),
        ),
        (
            _line((0.20, 0.08), (0.75, 0.08), (0.44, 0.42)),
            _curve((0.44, 0.42), (0.75, 0.53), (0.77, 0.80), (0.50, 0.95), (0.20, 0.86)),
        ),
    ),
    (
        (_line((0.32, 0.06), (0.19, 0.58), (0.83, 0.57)), _line((0.65, 0.28), (0.62, 0.95))),
        (_line((0.62, 0.95), (0.64, 0.05), (0.15, 0.66), (0.86, 0.65)),),
    ),
    (
        (
            _line((0.79, 0.07), (0.31, 0.08), (0.26, 0.45)),
            _curve((0.26, 0.45), (0.55, 0.38), (0.79, 0.59), (0.68, 0.88), (0.42, 0.95), (0.19, 0.85)),
        ),
    ),
    (
        (
            _curve(
                (0.71, 0.06),
                (0.42, 0.20),
                (0.24, 0.50),
                (0.24, 0.78),
                (0.45, 0.95),
                (0.70, 0.86),
                (0.74, 0.65),
                (0.52, 0.52),
                (0.26, 0.67),
            ),
        ),
    ),
    ((_SEVEN,), (_SEVEN, _line((0.36, 0.52), (0.74, 0.50)))),
    (
        (
            _curve(
                (0.50, 0.48),
                (0.26, 0.31),
                (0.31, 0.10),
                (0.50, 0.05),
                (0.69, 0.10),
                (0.74, 0.31),
                (0.50, 0.48),
                (0.23, 0.69),
                (0.29, 0.90),
                (0.50, 0.96),
                (0.71, 0.90),
                (0.77, 0.69),
                (0.50, 0.48),
            ),
        ),
    ),
    (
        (_HEAD_OF_NINE, _line((0.74, 0.29), (0.71, 0.60), (0.60, 0.95))),
        (_HEAD_OF_NINE, _curve((0.74, 0.29), (0.76, 0.62), (0.65, 0.88), (0.43, 0.95), (0.25, 0.86))),
    ),
)

_POINTS_A_SPAN = 5


def _round(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put a Catmull-Rom spline through points, shape (n, 2) -> ((n - 1) * _POINTS_A_SPAN + 1, 2)."""
    before = np.vstack((2 * points[0] - points[1], points[:-2]))
    after = np.vstack((points[2:], 2 * points[-1] - points[-2]))
    here, there = points[:-1], points[1:]
    s = (np.arange(_POINTS_A_SPAN) / _POINTS_A_SPAN)[:, None, None]
    spans = 0.5 * (
        2 * here
        + (there - before) * s
        + (2 * before - 5 * here + 4 * there - after) * s**2
        + (3 * here - before - 3 * there + after) * s**3
    )
    return np.vstack((spans.transpose(1, 0, 2).reshape(-1, 2), points[-1]))


def pen_strokes(digit: int, *, seed: int, specimen: int, hand: Hand | None = None) -> tuple[NDArray[np.float32], float]:
    """Write a digit.

    Parameters
    ----------
    digit
        0 to 9.
    seed, specimen
        The same pair gives the same strokes.
    hand
        How much specimens differ.

    Returns
    -------
    segments
        float32, shape (n, 4): x, y of both ends, in heights of a digit, centred on 0.
    pen
        Width of the pen in heights of a digit.
    """
    stream = specimen * N_DIGITS + digit + 1
    habits = _GLYPHS[digit]
    return written(habits[int(uniform(seed, stream, 0) * len(habits))], seed, stream, hand or Hand())


def written(strokes: Sequence[Stroke], seed: int, stream: int, hand: Hand) -> tuple[NDArray[np.float32], float]:
    """Write strokes as a hand does it; (seed, stream) tell the hand's chances. Returns as ``pen_strokes``."""
    pen = hand.pen * (1.0 + hand.pen_spread * (2.0 * uniform(seed, stream, 1) - 1.0))
    slant = hand.slant * gaussian(seed, stream, 2)
    turn = hand.turn * gaussian(seed, stream, 3)
    wide = math.exp(hand.stretch * gaussian(seed, stream, 4))
    high = math.exp(hand.stretch * gaussian(seed, stream, 5))
    cos, sin = math.cos(turn), math.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[wide, -slant], [0.0, high]])
    count = 8
    moved: dict[tuple[float, float], tuple[float, float]] = {}  # strokes that meet in a point keep meeting
    segments: list[NDArray[np.float64]] = []
    for stroke in strokes:
        for x, y in stroke.points:
            if (x, y) not in moved:
                shift = (hand.wobble * gaussian(seed, stream, count), hand.wobble * gaussian(seed, stream, count + 1))
                moved[x, y] = (x - 0.5 + shift[0], y - 0.5 + shift[1])
                count += 2
        points = np.array([moved[point] for point in stroke.points])
        points = (_round(points) if stroke.rounded else points) @ matrix.T
        segments.append(np.hstack((points[:-1], points[1:])))
    return np.vstack(segments).astype(np.float32), pen


@kernel
def ink(
    segments: NDArray[np.float32],
    scale: float,
    pen: float,
    center_x: float,
    center_y: float,
    image: NDArray[np.float32],
) -> int:
    """Draw strokes with a soft-edged pen: 1 on the stroke, 0 away from it, a smooth edge one and a half pixels wide.

    Parameters
    ----------
    segments
        float32, shape (n, 4).
    scale
        Pixels for a length of 1.
    pen
        Width of the pen, pixels.
    center_x, center_y
        Where (0, 0) falls, pixels.
    image
        float32, shape (height, width), overwritten.

    Returns
    -------
    n_pixels
        How many pixels hold some ink.
    """
    n_pixels = 0
    soft = 1.5
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            x = (column - center_x) / scale
            y = (row - center_y) / scale
            nearest = 1e30
            for index in range(segments.shape[0]):
                ax = segments[index, 0]
                ay = segments[index, 1]
                bx = segments[index, 2] - ax
                by = segments[index, 3] - ay
                length = bx * bx + by * by
                along = 0.0
                if length > 0.0:
                    along = min(1.0, max(0.0, ((x - ax) * bx + (y - ay) * by) / length))
                dx = x - ax - along * bx
                dy = y - ay - along * by
                nearest = min(nearest, dx * dx + dy * dy)
            edge = (0.5 * pen - math.sqrt(nearest) * scale) / soft + 0.5
            edge = min(1.0, max(0.0, edge))
            image[row, column] = edge * edge * (3.0 - 2.0 * edge)
            n_pixels += edge > 0.0
    return n_pixels
