"""Undistortion filter: moves each event to where a lens without faults would have put it.

A pinhole sees a point of the scene at (x, y) of its picture plane; a real lens sends it to (x', y'), and the sensor has
it at pixel (u', v'). This is the model of Brown (1971), as OpenCV and ROS have it::

    r2 = x^2 + y^2                           a = 1 + k1 r2 + k2 r2^2 + k3 r2^3
    x' = x a + 2 p1 x y + p2 (r2 + 2 x^2)    u' = fx x' + cx
    y' = y a + p1 (r2 + 2 y^2) + 2 p2 x y    v' = fy y' + cy

Wanted is the way back, for which there is no formula. It is walked once for each pixel, when the filter is made, by
fixed-point iteration::

    (x, y) <- ((x', y') - tangential part at (x, y)) / a at (x, y)            from (x, y) = (x', y')

and kept in a table: an event then costs one look-up. The place is rounded to the nearest pixel, half up, so that where
the picture is stretched some pixels never fire, and where it is squeezed two pixels become one.

Dropped are the events that leave the sensor (at the rim of a barrel lens, many: ``zoom`` below 1 makes room for them),
and those of pixels that this lens reaches from nowhere, or from two places, which happens when a polynomial fitted to
the middle of the picture is extended to its corners.

Source: D. C. Brown, "Close-range camera calibration", Photogrammetric Engineering 37, 1971; OpenCV, "Camera calibration
and 3D reconstruction".
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.calibration import Calibration, read_calibration
from sources.data_path import expand_path
from sources.filter_operator import EventFilter, check_range, put
from stream.errors import ConfigError
from stream.jit import kernel

__all__ = ["Undistort", "undistorted_pixels"]

MOST_STEPS = 500
CLOSE = 1e-10  # of the picture plane: below a millionth of a pixel for any lens


def undistorted_pixels(
    lens: Calibration, width: int, height: int, zoom: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute where each pixel would be without the lens's distortion.

    Parameters
    ----------
    lens
        The calibration.
    width, height
        Sensor's size, pixels.
    zoom
        Focal lengths of the ideal camera, as multiples of the real one's.

    Returns
    -------
    u, v
        float64, shape (height, width), pixels; NaN for a pixel that has no place.
    """
    v, u = np.mgrid[0:height, 0:width].astype(np.float64)
    with np.errstate(all="ignore"):  # what runs away to infinity is found below
        x_seen, y_seen = (u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy
        x, y = x_seen, y_seen
        for _ in range(MOST_STEPS):
            x_last, y_last = x, y
            r2 = x * x + y * y
            a = 1 + r2 * (lens.k1 + r2 * (lens.k2 + r2 * lens.k3))
            x = (x_seen - 2 * lens.p1 * x_last * y_last - lens.p2 * (r2 + 2 * x_last * x_last)) / a
            y = (y_seen - lens.p1 * (r2 + 2 * y_last * y_last) - 2 * lens.p2 * x_last * y_last) / a
            is_there = np.hypot(x - x_last, y - y_last) < CLOSE
            if is_there.all():
                break
        r2 = x * x + y * y
        a = 1 + r2 * (lens.k1 + r2 * (lens.k2 + r2 * lens.k3))
        # beyond the radius at which r a(r) turns back, the lens would show the middle of the picture a second time
        slope = 1 + r2 * (3 * lens.k1 + r2 * (5 * lens.k2 + r2 * 7 * lens.k3))
        is_there &= (a > 0) & (slope > 0)
        u = np.where(is_there, lens.fx * zoom * x + lens.cx, np.nan)
        v = np.where(is_there, lens.fy * zoom * y + lens.cy, np.nan)
    return u, v


@kernel
def undistort_run(place: Any, events: Any, out: Any) -> int:
    """Move events by a table, int32 (height, width, 2) of x and y, -1 for none; return how many have a place."""
    n = 0
    for k in range(len(events)):
        event = events[k]
        to = place[event["y"], event["x"]]
        # without a place, something that fits uint16 is written and then overwritten
        put(out, n, event["t"], max(to[0], 0), to[1], event["p"])
        n += 1 if to[0] >= 0 else 0
    return n


class Undistort(EventFilter):
    """Move each event to where a lens without distortion would have put it; drop those that leave the sensor.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    calibration
        Calibration file of OpenCV or ROS; see ``sources.calibration`` for its forms. ``~`` and ``${NAME}`` are
        replaced.
    zoom
        Focal lengths of the ideal camera, as multiples of the real one's, 0.01 to 100. Below 1 the picture shrinks
        about the lens's axis, and more of its rim stays on the sensor.

    Raises
    ------
    ConfigError
        If a parameter is out of range or the file is of a sensor of another size.
    FormatError
        If the file is missing, damaged, or describes another lens model.
    """

    def __init__(self, *, width: int, height: int, calibration: str, zoom: float = 1.0) -> None:
        super().__init__(width=width, height=height)
        check_range(self.subject, "zoom", zoom, 0.01, 100)
        path = expand_path(calibration)
        lens = read_calibration(path)
        if (lens.width or width, lens.height or height) != (width, height):
            raise ConfigError(
                f"{self.subject} calibration: {path} is of a {lens.width}x{lens.height} sensor, wanted "
                f"{width}x{height}; undistort before cropping or downsampling, and turn the sensor after it"
            )
        self._place = _table(*undistorted_pixels(lens, self.width, self.height, zoom))

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return undistort_run(self._place, events, out)

    def statistics(self) -> dict[str, float]:
        """Return counts; ``lost pixels`` are those whose events leave the sensor."""
        return super().statistics() | {"lost pixels": float(np.count_nonzero(self._place[:, :, 0] < 0))}


def _table(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.int32]:
    """Round places to pixels; (-1, 0) for those off the sensor and for NaN."""
    height, width = u.shape
    column, row = np.floor(u + 0.5), np.floor(v + 0.5)
    is_on = (column >= 0) & (column < width) & (row >= 0) & (row < height)  # false for NaN
    place = np.zeros((height, width, 2), np.int32)
    place[:, :, 0] = np.where(is_on, column, -1)
    place[:, :, 1] = np.where(is_on, row, 0)
    return place
