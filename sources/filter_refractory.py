"""Refractory filter: after an event, a pixel is deaf for a while.

::

    kept  iff  t >= until[y, x]
    until[y, x] <- t + refractory     at a kept event (dead time), or at every event (``extend``)

What is remembered is the end of the dead time, not the last event's time: that needs no case for a pixel that has
never fired. The two kinds are the non-paralysable and the paralysable dead time of particle counters.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.filter_operator import LONGEST_US, NEVER_US, EventFilter, check_range, put
from stream.jit import kernel

__all__ = ["Refractory"]


@kernel
def refractory_run(until_us: Any, refractory_us: int, is_extended: bool, events: Any, out: Any) -> int:
    """Keep the events of pixels that are not deaf; return how many.

    Parameters
    ----------
    until_us
        int64, shape (height, width). Written to.
    refractory_us
        Dead time, us.
    is_extended
        Whether a dropped event begins the dead time anew.
    events, out
        EVENT_DTYPE, shape (n,).
    """
    n = 0
    for k in range(len(events)):
        event = events[k]
        t, x, y = event["t"], event["x"], event["y"]
        put(out, n, t, x, y, event["p"])
        until = until_us[y, x]
        is_kept = t >= until
        until_us[y, x] = t + refractory_us if is_kept or is_extended else until
        n += is_kept
    return n


class Refractory(EventFilter):
    """Drop the events of a pixel that follow a kept one too soon, whatever their polarity.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    refractory_us
        Dead time, us. An event exactly this long after the last is kept.
    extend
        Let dropped events begin the dead time anew, so that a pixel that never pauses passes its first event only.
    clear_on_reset
        Forget the dead times at a ``Reset`` mark.

    Raises
    ------
    ConfigError
        If a parameter is out of range.
    """

    def __init__(
        self, *, width: int, height: int, refractory_us: int = 1000, extend: bool = False, clear_on_reset: bool = False
    ) -> None:
        super().__init__(width=width, height=height, clear_on_reset=clear_on_reset)
        check_range(self.subject, "refractory_us", refractory_us, 0, LONGEST_US)
        self.refractory_us, self.extend = int(refractory_us), bool(extend)
        self._until_us = self._remember("until_us", (self.height, self.width), np.int64, NEVER_US)

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return refractory_run(self._until_us, self.refractory_us, self.extend, events, out)
