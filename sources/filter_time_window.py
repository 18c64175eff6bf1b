"""Time window filter: a piece of a recording, or the same piece of every period.

::

    kept  iff  t >= start  and  (t - start) mod period < duration

By the stream's clock, never the host's. Time itself is not cut: packets, though empty, and marks go by outside of the
window too, so that whatever follows knows how far the stream has come and where one recording ends.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.filter_operator import EARLIEST_US, LATEST_US, LONGEST_US, EventFilter, check_range, put
from stream.jit import kernel

__all__ = ["TimeWindow"]

FOR_EVER_US = LATEST_US - EARLIEST_US + 1  # no event is this long after another


@kernel
def time_window_run(start_us: int, duration_us: int, period_us: int, events: Any, out: Any) -> int:
    """Keep the events of the windows, all us; return how many."""
    n = 0
    for k in range(len(events)):
        event = events[k]
        t = event["t"]
        put(out, n, t, event["x"], event["y"], event["p"])
        since: Any = t - start_us
        n += 1 if (since >= 0) & (since % period_us < duration_us) else 0
    return n


class TimeWindow(EventFilter):
    """Keep the events from ``start_us`` on, for ``duration_us``; every ``period_us`` anew if there is one.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    start_us
        Beginning of the window, or of the first one, us of the stream's clock; itself inside.
    duration_us
        Length of a window, us; its end is outside.
    period_us
        From the beginning of a window to that of the next, us, at least ``duration_us``. 0 = one window only.

    Raises
    ------
    ConfigError
        If a parameter is out of range.
    """

    def __init__(self, *, width: int, height: int, duration_us: int, start_us: int = 0, period_us: int = 0) -> None:
        super().__init__(width=width, height=height)
        check_range(self.subject, "start_us", start_us, EARLIEST_US, LATEST_US)
        check_range(self.subject, "duration_us", duration_us, 1, LONGEST_US)
        if period_us:
            check_range(self.subject, "period_us", period_us, duration_us, LONGEST_US)
        self._window = int(start_us), int(duration_us), int(period_us) or FOR_EVER_US

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return time_window_run(*self._window, events, out)
