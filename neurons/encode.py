"""From pixels to input lines: ``unit = (y * width + x) * 2 + p``.

Polarity is the fastest index, so that the two lines of a pixel, which fire in quick succession at an edge, have
weight rows that are neighbours in memory. The road not taken, ``p * width * height + y * width + x``, is what
frame-based code wants (two planes); a network imported from there permutes its rows once, at load time.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import StreamError
from stream.jit import kernel

__all__ = ["check_events", "n_input_units", "read_only", "unit_of"]


def n_input_units(width: int, height: int) -> int:
    """Count the input lines of a sensor: ``width * height * 2``."""
    return width * height * 2


@kernel
def unit_of(event: Any, width: int) -> int:
    """Return the number of the input line of an event (a record of EVENT_DTYPE); ``width`` in pixels."""
    # the cast comes first: uint16 arithmetic would wrap
    x, y, p = np.int64(event["x"]), np.int64(event["y"]), np.int64(event["p"])
    return (y * width + x) * 2 + p  # type: ignore[return-value]  # compiled, an int is an int64


@kernel
def first_unfit(events: Any, width: int, height: int, t_us: int) -> int:
    """Find the first event that lies outside the sensor or before its predecessor; ``len(events)`` if there is none."""
    for k in range(len(events)):
        event = events[k]
        t = event["t"]
        if event["x"] >= width or event["y"] >= height or event["p"] > 1 or t < t_us:
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
    if x < width and y < height and p <= 1:
        before = int(events["t"][k - 1]) if k else t_us
        raise StreamError(
            f"{subject}: event {k} of the packet is at {t} us, wanted {before} us or later; "
            f"sort the recording by time, or send a new stream through a fresh pipeline"
        )
    raise StreamError(
        f"{subject}: event {k} of the packet is (t={t} us, x={x}, y={y}, p={p}), wanted x < {width}, y < {height}, "
        f"p <= 1; set width and height to the sensor's size, or crop the stream before it comes here"
    )
