"""Leaky integrators in a network: no threshold, no spikes; potentials and their averages are read.

Equations
---------
::

    tau_mem dv/dt = v_leak - v              v_j <- v_j + weight[i, j] at an event of input i
    integral_j = integral of v_j dt         since the last mark that began a window

exact for any gap.
"""

from typing import Any, NamedTuple

from numpy.typing import NDArray

__all__ = ["LeakyIntegratorUnits"]


class LeakyIntegratorUnits(NamedTuple):
    """What a population is; numbers, or one for each unit."""

    tau_mem_us: float | NDArray[Any] = 60_000.0
    v_leak: float | NDArray[Any] = 0.0
