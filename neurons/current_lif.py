"""Leaky integrate-and-fire units with an exponential synaptic current.

Equations
---------
An event of input i adds its row of weights to the current, and the current drives the membrane::

    tau_syn di/dt = -i                      i_j <- i_j + weight[i, j] at an event
    tau_mem dv/dt = v_leak - v + i
    fires when v rises above v_threshold, strictly
    v <- v - (v_threshold - v_reset)        soft reset;  v <- v_reset: hard reset
    v stands still for refractory_us after a spike, i goes on

Between events both have a closed form, exact for any gap. With x = v - v_leak, d = 1/tau_syn - 1/tau_mem::

    i(t) = i(0) exp(-t/tau_syn)
    x(t) = exp(-t/tau_mem) (x(0) + i(0)/tau_mem * (1 - exp(-t d))/d)          (1 - exp(-t d))/d = t where d = 0

so v can cross the threshold long after the event that made it rise. The crossing is found as a root of x(t) = theta,
not at the next event (which may never come): x(t) has one extreme at most, so the search is bracketed by it and cannot
miss (``neurons.crossing``). A bound, x+ + i+ times the height of a unit pulse, spares nearly all units the search.

Source: equations as in S. Rotter and M. Diesmann, "Exact digital simulation of time-invariant linear systems with
applications to neuronal modeling", Biol. Cybern. 81:381, 1999.
"""

from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

__all__ = ["CurrentLIFUnits"]


class CurrentLIFUnits(NamedTuple):
    """What a population is; numbers, or one for each unit."""

    tau_mem_us: float | NDArray[Any] = 20_000.0
    tau_syn_us: float | NDArray[Any] = 5_000.0
    v_threshold: float | NDArray[Any] = 1.0
    v_leak: float | NDArray[Any] = (
        0.0  # where the membrane rests without input; above the threshold: it fires by itself
    )
    v_reset: float | NDArray[Any] = 0.0
    reset: Literal["soft", "hard"] = "soft"
    refractory_us: int = 0
