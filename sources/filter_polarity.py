"""Polarity filter: keep one kind of event, or turn bright into dark."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sources.filter_operator import EventFilter, put
from stream.errors import ConfigError
from stream.jit import kernel

__all__ = ["Polarity"]

Keep = Literal["both", "on", "off"]


@kernel
def polarity_run(keeps_off: bool, keeps_on: bool, flip: int, events: Any, out: Any) -> int:
    """Keep the wanted polarities, with ``flip`` (0 or 1) added modulo 2; return how many."""
    n = 0
    for k in range(len(events)):
        event = events[k]
        p = event["p"]
        put(out, n, event["t"], event["x"], event["y"], p ^ flip)
        n += keeps_on if p == 1 else keeps_off
    return n


class Polarity(EventFilter):
    """Keep events of one polarity, or of both, and invert them if asked to.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    keep
        "on" (brighter, p = 1), "off" (darker, p = 0) or "both"; as they come in.
    invert
        Make on events of off events, and the other way round, after choosing.

    Raises
    ------
    ConfigError
        If ``keep`` is none of these.
    """

    def __init__(self, *, width: int, height: int, keep: Keep = "both", invert: bool = False) -> None:
        super().__init__(width=width, height=height)
        if keep not in get_args(Keep):
            raise ConfigError(f"Polarity keep: got {keep!r}, wanted one of {', '.join(get_args(Keep))}")
        self.keep, self.invert = keep, bool(invert)

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return polarity_run(self.keep != "on", self.keep != "off", int(self.invert), events, out)
