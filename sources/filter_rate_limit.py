"""Rate limit: a token bucket in stream time.

::

    level <- min(full, level + dt_us * max_hz)       millionths of an event, so that all is whole numbers
    kept  iff  level >= 1e6;  then level <- level - 1e6

By the stream's clock, never the host's: a replay drops the same events as the live run did.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.filter_operator import NEVER_US, EventFilter, check_range, put
from stream.jit import kernel

__all__ = ["RateLimit"]

EVENT = 1_000_000  # tokens an event costs


@kernel
def rate_limit_run(level: Any, last_us: Any, max_hz: int, burst: int, events: Any, out: Any) -> int:
    """Keep what the bucket pays for; ``level`` and ``last_us``, int64 (1,), are written to. Return how many."""
    full = burst * EVENT
    fill_us = full // max_hz + 1  # after this long it is full; multiplying a longer time might overflow
    n = 0
    for k in range(len(events)):
        event = events[k]
        t = event["t"]
        put(out, n, t, event["x"], event["y"], event["p"])
        dt_us = t - last_us[0]
        now = full if dt_us >= fill_us else min(full, level[0] + dt_us * max_hz)
        is_kept = now >= EVENT
        level[0] = now - EVENT if is_kept else now
        last_us[0] = t
        n += 1 if is_kept else 0
    return n


class RateLimit(EventFilter):
    """Drop the events beyond a rate, whichever pixels they are of.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    max_hz
        Rate that is let through for ever, events/s.
    burst
        Events let through at once after a silence.
    clear_on_reset
        Fill the bucket at a ``Reset`` mark.

    Raises
    ------
    ConfigError
        If a parameter is out of range.
    """

    def __init__(
        self, *, width: int, height: int, max_hz: int = 1_000_000, burst: int = 1000, clear_on_reset: bool = False
    ) -> None:
        super().__init__(width=width, height=height, clear_on_reset=clear_on_reset)
        check_range(self.subject, "max_hz", max_hz, 1, 10**12)
        check_range(self.subject, "burst", burst, 1, 10**9)
        self.max_hz, self.burst = int(max_hz), int(burst)
        self._level = self._remember("level", (1,), np.int64)
        self._last_us = self._remember("last_us", (1,), np.int64, NEVER_US)

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return rate_limit_run(self._level, self._last_us, self.max_hz, self.burst, events, out)
