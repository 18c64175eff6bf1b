"""Burst filters: of a step of light keep the first event, or the second, or all but the first.

A step of light makes a pixel fire several times in a row; noise mostly fires it once. A *burst* of a pixel is a run of
events of one polarity, each less than ``window_us`` after the one before::

    place <- place + 1   if p = last p and t - last t < window        (0 = first of its burst)
             0           otherwise

``Trail``
    keeps place 0. One event an edge: the best timing, the noise with it.

``SpatioTemporalContrast``
    keeps place 1: the second event vouches that the first was no noise, and what trails behind is cut off. With
    ``keep_trail`` it keeps place 1 and all that follow.

So Trail and the other with ``keep_trail`` split a stream in two: each event is in exactly one of them.

Source: the event trail filter of Prophesee's sensors (TRAIL, STC_CUT_TRAIL and STC_KEEP_TRAIL), as its driver's
documentation (OpenEB, ``i_event_trail_filter_module.h``) and that of the sensors' event signal processing describe it.
Neither says on which side an event exactly ``window_us`` later falls; here it begins a new burst, as ``Refractory``
lets it pass. One difference to know: the filter of that vendor's computer vision library cuts the trail up to the next
change of polarity however long that takes, which loses the second of two edges of the same sign.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.filter_operator import LONGEST_US, NEVER_US, EventFilter, check_range, put
from stream.jit import kernel

__all__ = ["SpatioTemporalContrast", "Trail"]


@kernel
def burst_run(last_us: Any, burst: Any, window_us: int, first_kept: int, last_kept: int, events: Any, out: Any) -> int:
    """Keep the events with a place in their burst from ``first_kept`` to ``last_kept``; return how many.

    Parameters
    ----------
    last_us
        int64, shape (height, width): time of each pixel's last event. Written to.
    burst
        uint8, shape (height, width): place of that event in its burst, at most 2, times 2, plus its polarity. Written
        to.
    window_us
        Shortest pause that ends a burst, us.
    first_kept, last_kept
        0 = first event, 1 = second, 2 = all later ones.
    events, out
        EVENT_DTYPE, shape (n,).
    """
    n = 0
    for k in range(len(events)):
        event = events[k]
        t, x, y, p = event["t"], event["x"], event["y"], event["p"]
        put(out, n, t, x, y, p)
        # the cast comes first: uint8 arithmetic would wrap
        before: Any = np.int64(burst[y, x])
        goes_on = (t - last_us[y, x] < window_us) & ((before & 1) == p)
        place = min((before >> 1) + 1, 2) if goes_on else 0
        last_us[y, x] = t
        burst[y, x] = 2 * place + p
        n += 1 if first_kept <= place <= last_kept else 0
    return n


class _Burst(EventFilter):
    """What the two filters share: the memory, and which places of a burst are kept."""

    def __init__(self, *, width: int, height: int, window_us: int, clear_on_reset: bool, kept: tuple[int, int]) -> None:
        super().__init__(width=width, height=height, clear_on_reset=clear_on_reset)
        check_range(self.subject, "window_us", window_us, 0, LONGEST_US)
        self.window_us, self._kept = int(window_us), kept
        self._last_us = self._remember("last_us", (self.height, self.width), np.int64, NEVER_US)
        self._burst = self._remember("burst", (self.height, self.width), np.uint8)

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return burst_run(self._last_us, self._burst, self.window_us, *self._kept, events, out)


class SpatioTemporalContrast(_Burst):
    """Keep the second event of each burst of a pixel: single events are noise, and later ones add nothing.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    window_us
        A burst ends with a change of polarity or this long a pause, us.
    keep_trail
        Keep the events after the second too: only the first of each burst is dropped.
    clear_on_reset
        Forget the last events at a ``Reset`` mark.

    Raises
    ------
    ConfigError
        If a parameter is out of range.
    """

    def __init__(
        self,
        *,
        width: int,
        height: int,
        window_us: int = 10_000,
        keep_trail: bool = False,
        clear_on_reset: bool = False,
    ) -> None:
        kept = (1, 2 if keep_trail else 1)
        super().__init__(width=width, height=height, window_us=window_us, clear_on_reset=clear_on_reset, kept=kept)


class Trail(_Burst):
    """Keep the first event of each burst of a pixel, and drop the trail behind it.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    window_us
        A burst ends with a change of polarity or this long a pause, us.
    clear_on_reset
        Forget the last events at a ``Reset`` mark.

    Raises
    ------
    ConfigError
        If a parameter is out of range.
    """

    def __init__(self, *, width: int, height: int, window_us: int = 10_000, clear_on_reset: bool = False) -> None:
        super().__init__(width=width, height=height, window_us=window_us, clear_on_reset=clear_on_reset, kept=(0, 0))
