"""Leaky integrate-and-fire units whose threshold rises with every spike.

Equations
---------
::

    tau_mem dv/dt = v_leak - v              v_j <- v_j + weight[i, j] at an event of input i
    tau_adapt da/dt = -a                    a_j <- a_j + adaptation at a spike of j
    fires when v > v_threshold + a, strictly
    v <- v - (v_threshold - v_reset)        soft reset;  v <- v_reset: hard reset
    v stands still for refractory_us after a spike, a goes on

When the threshold sinks faster than the membrane leaks (tau_adapt < tau_mem; or the membrane stands still in a
refractory time, where a soft reset left it), when spikes lower it (adaptation < 0), or v_leak lies above v_threshold, a
unit can fire between events; that time is found exactly (``neurons.crossing``).

Source: G. Bellec et al., "Long short-term memory and learning-to-learn in networks of spiking neurons", NeurIPS 2018
(there in steps of 1 ms).
"""

from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

__all__ = ["AdaptiveLIFUnits"]


class AdaptiveLIFUnits(NamedTuple):
    """What a population is; numbers, or one for each unit."""

    tau_mem_us: float | NDArray[Any] = 20_000.0
    tau_adapt_us: float | NDArray[Any] = 200_000.0
    v_threshold: float | NDArray[Any] = 1.0
    adaptation: float | NDArray[Any] = 0.1  # by how much a spike raises the threshold
    v_leak: float | NDArray[Any] = 0.0
    v_reset: float | NDArray[Any] = 0.0
    reset: Literal["soft", "hard"] = "soft"
    refractory_us: int = 0
