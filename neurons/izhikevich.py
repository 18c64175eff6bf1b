"""Izhikevich's units: a quadratic membrane and a slow recovery, which between them fire in many patterns.

Equations
---------
Time in milliseconds, as published::

    dv/dt = 0.04 v^2 + 5 v + 140 - u + drive           v_j <- v_j + weight[i, j] at an event of input i
    du/dt = a (b v - u)
    fires when v >= v_peak:  v <- c,  u <- u + d

There is no closed form, so time is cut in steps. They are anchored in the *stream's* time, not in packets: at every
multiple of ``step_us``, and at every event that reaches the population, which then jumps at its own microsecond. Each
piece is one step of the explicit midpoint rule. So the result does not depend on how the stream is cut, and an event is
never moved to a grid. (The grid begins where the stream does, and anew at a ``Reset`` mark.)

How exact: between spikes the error falls with the square of ``step_us``. Spikes and their resets fall on grid points or
on events, so each comes up to one step late, and the error of spike times falls with ``step_us`` itself.

When a whole step changes no unit by more than 1e-6 of itself (float64: 1e-12), the population rests and time costs
nothing until the next event; with a drive that makes it fire for ever it never rests.

Source: E. M. Izhikevich, "Simple model of spiking neurons", IEEE Trans. Neural Networks 14:1569, 2003.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream.jit import kernel

__all__ = ["IzhikevichUnits", "izhikevich_step", "resting_point"]

Values: TypeAlias = NDArray[np.float64]


class IzhikevichUnits(NamedTuple):
    """What a population is; numbers, or one for each unit. Defaults: regular spiking."""

    a: float | NDArray[Any] = 0.02  # 1/ms
    b: float | NDArray[Any] = 0.2
    c: float | NDArray[Any] = -65.0  # mV
    d: float | NDArray[Any] = 8.0
    v_peak: float | NDArray[Any] = 30.0  # mV
    drive: float | NDArray[Any] = 0.0  # mV/ms
    step_us: int = 100


@kernel
def izhikevich_step(v: float, u: float, dt_ms: float, a: float, b: float, drive: float) -> tuple[float, float]:
    """Take one step of the explicit midpoint rule; float64. Returns v, u."""
    half = 0.5 * dt_ms
    v_mid = v + half * (0.04 * v * v + 5.0 * v + 140.0 - u + drive)
    u_mid = u + half * a * (b * v - u)
    return (
        v + dt_ms * (0.04 * v_mid * v_mid + 5.0 * v_mid + 140.0 - u_mid + drive),
        u + dt_ms * a * (b * v_mid - u_mid),
    )


def resting_point(b: Values, drive: Values, c: Values) -> tuple[Values, Values]:
    """Return v, u where units start: their stable resting points where there are any, else (c, b c). float64, (n,)."""
    # 0.04 v^2 + (5 - b) v + 140 + drive = 0, the lower root
    inside = (5.0 - b) ** 2 - 0.16 * (140.0 + drive)
    v = np.where(inside >= 0, (b - 5.0 - np.sqrt(np.maximum(inside, 0.0))) / 0.08, c)
    return v, b * v
