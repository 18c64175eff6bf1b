"""Background activity filter: an event that no neighbour has foretold is noise.

::

    support = number of the 8 neighbours whose last event is at most dt_us old
    kept  iff  support >= supporters

Edges make neighbours fire together; leak and shot noise strike pixels one by one. The pixel itself does not count: a
hot pixel would vouch for itself.

The times stand in a table with a rim one pixel wide that never fires, so that the border needs no branches. The road
not taken: an event writing its time to its 8 neighbours makes the question one load, but 8 stores, and cannot count
supporters.

Source: T. Delbruck, "Frame-free dynamic digital vision", Proc. Intl. Symp. on Secure-Life Electronics, 2008.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.filter_operator import LONGEST_US, NEVER_US, EventFilter, check_range, put
from stream.jit import kernel

__all__ = ["BackgroundActivity"]


@kernel
def background_run(last_us: Any, dt_us: int, supporters: int, events: Any, out: Any) -> int:
    """Keep the events that enough neighbours support; return how many.

    Parameters
    ----------
    last_us
        int64, shape (height + 2, width + 2): time of each pixel's last event, kept or not, inside a rim. Written to.
    dt_us
        Greatest age of a supporting event, us.
    supporters
        How many neighbours it takes.
    events, out
        EVENT_DTYPE, shape (n,).
    """
    n = 0
    for k in range(len(events)):
        event = events[k]
        t, x, y = event["t"], np.int64(event["x"]), np.int64(event["y"])
        put(out, n, t, event["x"], event["y"], event["p"])
        oldest = t - dt_us
        support = 0
        # all eight, without leaving early: a branch here is a coin toss
        for row in range(3):
            for column in range(3):
                if row != 1 or column != 1:
                    support += 1 if last_us[y + row, x + column] >= oldest else 0
        last_us[y + 1, x + 1] = t
        n += support >= supporters
    return n


class BackgroundActivity(EventFilter):
    """Drop events without a recent event, of either polarity, on a neighbouring pixel.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    dt_us
        Greatest age of an event that supports another, us; an event of exactly this age still does.
    supporters
        How many of the 8 neighbours must support it, 1 to 8.
    clear_on_reset
        Forget the last events at a ``Reset`` mark.

    Raises
    ------
    ConfigError
        If a parameter is out of range.
    """

    def __init__(
        self, *, width: int, height: int, dt_us: int = 5000, supporters: int = 1, clear_on_reset: bool = False
    ) -> None:
        super().__init__(width=width, height=height, clear_on_reset=clear_on_reset)
        check_range(self.subject, "dt_us", dt_us, 0, LONGEST_US)
        check_range(self.subject, "supporters", supporters, 1, 8)
        self.dt_us, self.supporters = int(dt_us), int(supporters)
        self._last_us = self._remember("last_us", (self.height + 2, self.width + 2), np.int64, NEVER_US)

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return background_run(self._last_us, self.dt_us, self.supporters, events, out)
