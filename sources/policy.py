"""What a stream may hold: policies for times that go back and for events outside of the sensor.

- ``backward``: an event whose time is lower than the highest before it is raised to that (``clamp``, the default of
  every source), dropped, passed as it is, or an error that ends the reading;
- ``outside``: an event outside of the sensor is dropped (the default), moved to the nearest pixel (``clamp``), passed,
  or an error.

All are counted. Road not taken: sorting, which needs the whole recording; and one rule for all, because many real
recordings hold a few backward steps of microseconds, while whoever checks a camera wants to see them.
"""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream.jit import kernel

__all__ = ["POLICIES", "Policy", "apply_policies", "keep_in_order"]

Policy: TypeAlias = Literal["clamp", "drop", "pass", "error"]
POLICIES = ("clamp", "drop", "pass", "error")
"""In the order of the numbers that ``apply_policies`` takes."""


@kernel
def apply_policies(
    events: NDArray[np.void],
    kept: NDArray[np.void],
    width: int,
    height: int,
    backward: int,
    outside: int,
    counts: NDArray[np.int64],
) -> int:
    """Apply the policies.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,).
    kept
        EVENT_DTYPE, shape (>= n,): written from the front; may be ``events`` itself.
    width, height
        The sensor, pixels.
    backward, outside
        0 clamp, 1 drop, 2 pass, 3 error.
    counts
        int64, shape (4,): highest time so far (start with 0), times that went back, events outside, and 1 + the index
        of the event at which an error ended the work (else 0).

    Returns
    -------
    n_kept
        How many events were written.
    """
    n_kept = 0
    last = counts[0]
    for index in range(len(events)):
        event = events[index]
        t_us = np.int64(event["t"])
        x, y = np.int64(event["x"]), np.int64(event["y"])
        if x >= width or y >= height:
            counts[2] += 1
            if outside == 1:
                continue
            if outside == 3:
                counts[3] = index + 1
                break
            if outside == 0:
                x = x if x < width else np.int64(width - 1)
                y = y if y < height else np.int64(height - 1)
        if t_us < last:
            counts[1] += 1
            if backward == 1:
                continue
            if backward == 3:
                counts[3] = index + 1
                break
            if backward == 0:
                t_us = last
        else:
            last = t_us
        out = kept[n_kept]
        out["p"] = event["p"]
        out["t"] = t_us
        out["x"] = x
        out["y"] = y
        n_kept += 1
    counts[0] = last
    return n_kept


def keep_in_order(
    events: NDArray[np.void], kept: NDArray[np.void], width: int, height: int, counts: NDArray[np.int64]
) -> int:
    """Apply the defaults, clamp and drop; see ``apply_policies``. ``counts`` has shape (4,) here too."""
    return apply_policies(events, kept, width, height, 0, 1, counts)
