"""Integrate-and-fire units: no leak.

Equations
---------
::

    dv/dt = drive_per_us                    v_j <- v_j + weight[i, j] at an event of input i
    fires when v > v_threshold, strictly
    v <- v - (v_threshold - v_reset)        soft reset;  v <- v_reset: hard reset
    v stands still for refractory_us after a spike

With a drive above 0 a unit fires between events, every (v_threshold - v_reset) / drive_per_us when nothing comes in.
"""

from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

__all__ = ["IntegrateFireUnits"]


class IntegrateFireUnits(NamedTuple):
    """What a population is; numbers, or one for each unit."""

    v_threshold: float | NDArray[Any] = 1.0
    drive_per_us: float | NDArray[Any] = 0.0  # constant input, potential per us
    v_reset: float | NDArray[Any] = 0.0
    reset: Literal["soft", "hard"] = "soft"
    refractory_us: int = 0
