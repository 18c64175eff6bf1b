"""Crop filter: a rectangle of the sensor becomes the whole of it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.filter_operator import EventFilter, check_range, put
from stream.jit import kernel

__all__ = ["Crop"]


@kernel
def crop_run(left: int, top: int, width: int, height: int, events: Any, out: Any) -> int:
    """Keep the events of a rectangle, pixels, counted from its corner; return how many."""
    n = 0
    for k in range(len(events)):
        event = events[k]
        # the casts come first: what lies left of the rectangle is below zero
        x: Any = np.int64(event["x"]) - left
        y: Any = np.int64(event["y"]) - top
        is_kept = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        # outside, something that fits uint16 is written and then overwritten
        put(out, n, event["t"], x if is_kept else 0, y if is_kept else 0, event["p"])
        n += 1 if is_kept else 0
    return n


class Crop(EventFilter):
    """Keep a rectangle of the sensor; its top left corner becomes (0, 0).

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    left, top
        Corner of the rectangle, pixels.
    crop_width, crop_height
        Size of the rectangle, pixels: the size of what comes out.

    Raises
    ------
    ConfigError
        If the rectangle does not lie on the sensor.
    """

    def __init__(
        self, *, width: int, height: int, crop_width: int, crop_height: int, left: int = 0, top: int = 0
    ) -> None:
        super().__init__(width=width, height=height, size_out=(int(crop_width), int(crop_height)))
        check_range(self.subject, "left", left, 0, width - 1)
        check_range(self.subject, "top", top, 0, height - 1)
        check_range(self.subject, "crop_width", crop_width, 1, width - left)
        check_range(self.subject, "crop_height", crop_height, 1, height - top)
        self._rectangle = int(left), int(top), int(crop_width), int(crop_height)

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return crop_run(*self._rectangle, events, out)
