"""Orientation filter: for a camera that hangs upside down, lies on its side, or looks into a mirror.

::

    x', y' <- y, x                  transpose
    x'     <- width' - 1 - x'       flip_x: left becomes right
    y'     <- height' - 1 - y'      flip_y: top becomes bottom
    x', y' <- ...                   turn: clockwise, seen on the screen, by 0, 90, 180 or 270 degrees

in this order. All of it together is one whole-number map, composed once: two multiplications a coordinate, whatever was
asked for.
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sources.filter_operator import EventFilter, put
from stream.errors import ConfigError
from stream.jit import kernel

__all__ = ["Orientation"]

Turn = Literal[0, 90, 180, 270]


@kernel
def orientation_run(xx: int, xy: int, x0: int, yx: int, yy: int, y0: int, events: Any, out: Any) -> int:
    """Move every event to ``x' = xx x + xy y + x0``, ``y' = yx x + yy y + y0``; return how many there are."""
    for k in range(len(events)):
        event = events[k]
        # the casts come first: uint16 arithmetic would wrap
        x: Any = np.int64(event["x"])
        y: Any = np.int64(event["y"])
        put(out, k, event["t"], xx * x + xy * y + x0, yx * x + yy * y + y0, event["p"])
    return len(events)


class Orientation(EventFilter):
    """Flip, transpose and turn the sensor: first ``transpose``, then ``flip_x`` and ``flip_y``, then ``turn``.

    Parameters
    ----------
    width, height
        Sensor's size, pixels. What comes out is ``height`` wide and ``width`` high after a transposition or a quarter
        turn, and as before after both.
    turn
        Degrees clockwise: 0, 90, 180 or 270.
    flip_x
        Mirror left and right.
    flip_y
        Mirror top and bottom.
    transpose
        Exchange x and y.

    Raises
    ------
    ConfigError
        If ``turn`` is none of these.
    """

    def __init__(
        self,
        *,
        width: int,
        height: int,
        turn: Turn = 0,
        flip_x: bool = False,
        flip_y: bool = False,
        transpose: bool = False,
    ) -> None:
        if turn not in get_args(Turn):
            raise ConfigError(f"Orientation turn: got {turn!r}, wanted 0, 90, 180 or 270 degrees clockwise")
        # each row of the map: how much of x, how much of y, how much for all
        x, y = (1, 0, 0), (0, 1, 0)
        wide, high = int(width), int(height)
        if transpose:
            x, y, wide, high = y, x, high, wide
        if flip_x:
            x = _mirrored(x, wide)
        if flip_y:
            y = _mirrored(y, high)
        for _ in range(turn // 90):
            x, y, wide, high = _mirrored(y, high), x, high, wide
        super().__init__(width=width, height=height, size_out=(wide, high))
        self._map = (*x, *y)

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return orientation_run(*self._map, events, out)


def _mirrored(row: tuple[int, int, int], size: int) -> tuple[int, int, int]:
    return -row[0], -row[1], size - 1 - row[2]
