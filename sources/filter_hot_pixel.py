"""Hot pixel filter: a pixel that fires faster than any scene could make it is broken, for as long as it does.

Each pixel keeps the count of its current window and of the one before, and estimates the events of the last
``window_us`` as if those of the window before had been spread evenly::

    estimate = before * (window - into) / window + now        into = t - start[y, x]
    hot  iff   estimate > max_hz * window

In whole numbers, multiplied through by the window: no rounding, the same on every machine, and shift the stream in time
and the same events are kept. Each pixel's windows begin with its own first event, so there is no grid to agree on and
no division.

Roads not taken. An exponential average costs an exponential an event and rounds. Counting over slices of a recording
makes the result depend on the slices. Comparing pixels with each other (so many deviations above the mean) needs a
sweep over the sensor, and takes a busy corner of the scene for a defect.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sources.data_path import expand_path
from sources.filter_mask import check_writable, write_mask
from sources.filter_operator import LATEST_US, NEVER_US, EventFilter, check_range, put
from stream.jit import kernel
from stream.operator import Emit

__all__ = ["HotPixel"]

HOUR_US = 3_600_000_000


class HotPixelState(NamedTuple):
    """What is known about each pixel; all of shape (height, width)."""

    start_us: NDArray[np.int64]  # when its current window began
    now: NDArray[np.int64]  # events in it
    before: NDArray[np.int64]  # events in the window before
    is_hot: NDArray[np.bool_]  # as of its last event


@kernel
def hot_pixel_run(state: HotPixelState, window_us: int, limit: int, events: Any, out: Any) -> int:
    """Keep the events of pixels that are not hot; return how many.

    Parameters
    ----------
    state
        Written to.
    window_us
        Length of a window, us.
    limit
        Greatest estimate that is not hot, events times ``window_us``.
    events, out
        EVENT_DTYPE, shape (n,).
    """
    n = 0
    for k in range(len(events)):
        event = events[k]
        t, x, y = event["t"], event["x"], event["y"]
        put(out, n, t, x, y, event["p"])
        into = t - state.start_us[y, x]
        if into >= window_us:
            if into < 2 * window_us:
                state.before[y, x] = state.now[y, x]
                state.start_us[y, x] += window_us
                into -= window_us
            else:
                state.before[y, x] = 0
                state.start_us[y, x] = t
                into = 0
            state.now[y, x] = 0
        state.now[y, x] += 1
        estimate = state.before[y, x] * (window_us - into) + state.now[y, x] * window_us
        is_hot = estimate > limit
        state.is_hot[y, x] = is_hot
        n += not is_hot
    return n


class HotPixel(EventFilter):
    """Drop the events of pixels whose rate over the last while is too high; learned as the stream goes.

    Dropped events count in the rate. A pixel is let through again once it has slowed down.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    max_hz
        Highest rate of a sound pixel, events/s.
    window_us
        Time over which the rate is taken, us. A pixel passes up to ``max_hz`` times this many events at once.
    clear_on_reset
        Forget the rates at a ``Reset`` mark.
    save
        File to write the pixels to that are hot when the stream has ended, for ``filter_mask.Mask`` to drop from then
        on; see there for its forms. "" writes none.

    Raises
    ------
    ConfigError
        If a parameter is out of range, or the file could not be written.
    """

    def __init__(
        self,
        *,
        width: int,
        height: int,
        max_hz: float = 200.0,
        window_us: int = 1_000_000,
        clear_on_reset: bool = False,
        save: str = "",
    ) -> None:
        super().__init__(width=width, height=height, clear_on_reset=clear_on_reset)
        self.save = expand_path(save) if save else None
        if self.save is not None:
            check_writable(self.save)
        check_range(self.subject, "max_hz", max_hz, 1e-3, 1e6)
        check_range(self.subject, "window_us", window_us, 1, HOUR_US)
        self.max_hz, self.window_us = float(max_hz), int(window_us)
        self._limit = min(int(self.max_hz * self.window_us / 1e6 * self.window_us), LATEST_US)
        shape = self.height, self.width
        self.state = HotPixelState(
            self._remember("start_us", shape, np.int64, NEVER_US),
            self._remember("now", shape, np.int64),
            self._remember("before", shape, np.int64),
            self._remember("is_hot", shape, np.bool_),
        )

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return hot_pixel_run(self.state, self.window_us, self._limit, events, out)

    def on_end(self, emit: Emit) -> None:
        """Write what was learned, if asked to; StreamError if the disk refuses."""
        if self.save is not None:
            write_mask(self.save, self.state.is_hot)

    def statistics(self) -> dict[str, float]:
        """Return counts; ``hot pixels`` are those that were hot when they fired last."""
        return super().statistics() | {"hot pixels": float(np.count_nonzero(self.state.is_hot))}
