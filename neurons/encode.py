"""From pixels to input lines: ``unit = (y * width + x) * 2 + p``.

Polarity is the fastest index, so that the two lines of a pixel, which fire in quick succession at an edge, have
weight rows that are neighbours in memory. The road not taken, ``p * width * height + y * width + x``, is what
frame-based code wants (two planes); a network imported from there permutes its rows once, at load time.
"""

from typing import Any

import numpy as np

from stream.fit import check_events, read_only
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
