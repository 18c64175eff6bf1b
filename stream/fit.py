"""Do these events fit? The check that every operator on events makes before it changes anything.

An event off the sensor would be written outside of an array, and one earlier than its predecessor would run a membrane
backwards; both are a fault of whatever sent them, so the packet is refused whole, with the event's position in it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import StreamError
from stream.jit import kernel

__all__ = ["LATEST_US", "check_events", "first_unfit", "read_only"]

LATEST_US = 2**61  # 73 000 years after the sensor's zero: no sum or difference of times below it overflows an int64


@kernel
def first_unfit(events: Any, width: int, height: int, t_us: int) -> int:
    """Find the first event that may not be let in; ``len(events)`` if there is none.

    Parameters
    ----------
    events
        Read-only EVENT_DTYPE, shape (n,).
    width, height
        Sensor's size, pixels.
    t_us
        Time of the last event before these, us.
    """
    for k in range(len(events)):
        event = events[k]
        t = event["t"]
        if event["x"] >= width or event["y"] >= height or event["p"] > 1 or t < t_us or t > LATEST_US:
            return k
        t_us = t
    return len(events)


def read_only(items: NDArray[np.void]) -> NDArray[np.void]:
    """Return a view that cannot be written to.

    Items from a socket are read-only, items from a decoder are not, and Numba compiles a kernel once for each. One kind
    in, one compiled kernel.
    """
    view = items.view()
    view.flags.writeable = False
    return view


def check_events(subject: str, events: NDArray[np.void], width: int, height: int, t_us: int) -> None:
    """Raise StreamError unless every event lies on the sensor and none is earlier than the one before.

    Parameters
    ----------
    subject
        Who asks, for the message.
    events
        Read-only EVENT_DTYPE, shape (n,).
    width, height
        Sensor's size, pixels.
    t_us
        Time of the last event before these, us.

    Raises
    ------
    StreamError
        Naming the first offender, its position in the packet and what was wanted.
    """
    k = first_unfit(events, width, height, t_us)
    if k == len(events):
        return
    t, x, y, p = (int(number) for number in events[k].tolist())
    if x >= width or y >= height or p > 1:
        raise StreamError(
            f"{subject}: event {k} of the packet is (t={t} us, x={x}, y={y}, p={p}), wanted x < {width}, y < {height}, "
            f"p <= 1; set width and height to the size of what comes in, or crop the stream before it comes here"
        )
    before = int(events["t"][k - 1]) if k else t_us
    raise StreamError(
        f"{subject}: event {k} of the packet is at {t} us, wanted {before} us or later, and {LATEST_US} us at most; "
        f"sort the recording by time, or send a new stream through a fresh pipeline"
    )
