"""Downsampling filter: squares of ``factor`` x ``factor`` pixels become one pixel each.

Where an event goes is a division. How many events come out is a choice, the ``law``; n is the number of pixels of the
square (fewer at the right and lower rim, if the sensor's size is no multiple of the factor):

``"divide"``
    All of them. An output pixel then fires n times as often as a pixel of the sensor: right if every event must be
    seen, wrong for whatever was tuned to a sensor's rates.

``"integrate"``
    Every n-th of a square and polarity: the square counts, fires at n, and begins anew::

        c[p] <- c[p] + 1;   fire with polarity p and c[p] <- 0   at c[p] = n

    An output pixel then fires as often as the mean of its sensor pixels, and so does each polarity.

``"difference"``
    On and off cancel::

        d <- d + 1 (on) or d - 1 (off);   fire with the sign of d and d <- 0   at |d| = n

    Each event says that the log light of a pixel moved by a threshold theta, so d theta / n is how far the *mean* log
    light of the square has moved: this is the event that one large pixel with the same threshold would have fired.
    Flicker of either sign and structure finer than the square vanish, as they would there.

What has been counted does not fade, so a square of silent pixels fires from noise after n events of it, whenever they
came; put a noise filter before this one. Roads not taken: a leak, or counting in slices of time, both of which need a
time constant that nobody knows; an output at the square's mean time, which would have to be foretold.

Source: counting per square, A. Gruel, J. Martinet, T. Serrano-Gotarredona and B. Linares-Barranco, "Event data
downscaling for embedded computer vision", VISAPP 2022; on minus off into integrate-and-fire, A. Ghosh et al.,
"Insect-inspired spatio-temporal downsampling of event-based input", ICONS 2023, doi 10.1145/3589737.3605994. Theirs
count in slices of time; here the counters run on.
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sources.filter_operator import EventFilter, check_range, put
from stream.errors import ConfigError
from stream.jit import kernel

__all__ = ["Downsample", "Law"]

Law = Literal["divide", "integrate", "difference"]
MOST = 1024  # largest factor


@kernel
def downsample_run(level: Any, n_pixels: Any, factor: int, is_signed: bool, events: Any, out: Any) -> int:
    """Count events into their squares, let the last of each full count out; return how many.

    Parameters
    ----------
    level
        int32, shape (rows of squares, columns, 2): the counts, [0] alone if ``is_signed``. Written to.
    n_pixels
        int32, shape (rows of squares, columns): the count that fires.
    factor
        Side of a square, pixels.
    is_signed
        Whether an off event takes away what an on event brought.
    events, out
        EVENT_DTYPE, shape (n,).
    """
    n = 0
    for k in range(len(events)):
        event = events[k]
        p: Any = np.int64(event["p"])
        column: Any = np.int64(event["x"]) // factor
        row: Any = np.int64(event["y"]) // factor
        put(out, n, event["t"], column, row, event["p"])
        slot = 0 if is_signed else p
        now = level[row, column, slot] + (2 * p - 1 if is_signed else 1)
        fires = abs(now) >= n_pixels[row, column]
        level[row, column, slot] = 0 if fires else now
        n += 1 if fires else 0
    return n


class Downsample(EventFilter):
    """Make one pixel of every square of pixels.

    Parameters
    ----------
    width, height
        Sensor's size, pixels. What comes out is a ``factor``-th of it, rounded up.
    factor
        Side of a square, pixels, 1 to 1024.
    law
        "integrate": a pixel out fires at the mean rate of its pixels in. "difference": the same, and on and off events
        cancel. "divide": every event passes.
    clear_on_reset
        Begin all counts anew at a ``Reset`` mark.

    Raises
    ------
    ConfigError
        If a parameter is out of range.
    """

    def __init__(
        self, *, width: int, height: int, factor: int, law: Law = "integrate", clear_on_reset: bool = False
    ) -> None:
        check_range("Downsample", "factor", factor, 1, MOST)
        if law not in get_args(Law):
            raise ConfigError(f"Downsample law: got {law!r}, wanted one of {', '.join(get_args(Law))}")
        self.factor, self.law = int(factor), law
        size_out = -(-int(width) // self.factor), -(-int(height) // self.factor)
        super().__init__(width=width, height=height, size_out=size_out, clear_on_reset=clear_on_reset)
        full = np.outer(_sides(self.height, self.factor), _sides(self.width, self.factor))
        # "divide" is no law of its own: squares that fire at every event
        self._n_pixels = np.ones_like(full) if law == "divide" else full
        self._level = self._remember("level", (*self._n_pixels.shape, 2), np.int32)

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return downsample_run(self._level, self._n_pixels, self.factor, self.law == "difference", events, out)


def _sides(size: int, factor: int) -> NDArray[np.int32]:
    """Return how many pixels each square covers along one side of the sensor."""
    starts = np.arange(0, size, factor, dtype=np.int32)
    return np.minimum(factor, size - starts).astype(np.int32)
