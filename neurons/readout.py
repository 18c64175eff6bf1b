"""Leaky integrator that reads a layer out: no threshold, no spikes, one score for each class.

Equations
---------
Between spikes, at a spike of unit j, and over a window of T us::

    tau do/dt = -o                                 o <- o * exp(-dt / tau)
    o_m <- o_m + weight[j, m]
    score_m = 1/T * integral of o_m dt             time average

Between spikes the integral has a closed form, ``o * tau * (1 - exp(-dt / tau))``, so the average is exact for any gap
and costs nothing when nothing happens. Hence a spike of j at t is worth ``weight[j, m] * tau/T * (1 - exp(-(T_end -
t)/tau))`` to the score of m, whatever else happens: the readout is linear, which the backward pass uses.

Roads not taken: the final value forgets the beginning of the window; the maximum has no useful gradient for most
spikes.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.jit import kernel

__all__ = ["ReadoutParams", "ReadoutState", "readout_advance", "readout_spike"]


class ReadoutParams(NamedTuple):
    """What a readout is."""

    weight: NDArray[Any]  # real, shape (n_pre, n_classes)
    tau_mem_us: NDArray[Any]  # real, shape (1,)


class ReadoutState(NamedTuple):
    """Where a readout stands."""

    o: NDArray[Any]  # real, shape (n_classes,): right after ``t_us``
    integral_us: NDArray[np.float64]  # float64, shape (n_classes,): of o over the window so far, up to ``t_us``
    t_us: NDArray[np.int64]  # int64, shape (1,)


@kernel
def readout_advance(params: ReadoutParams, state: ReadoutState, t_us: int) -> None:
    """Let time pass until ``t_us``."""
    dt_us = t_us - state.t_us[0]
    if dt_us == 0:
        return  # the other spikes of the same event
    o = state.o
    real = o.dtype.type
    tiny, zero = real(1e-30), real(0)
    tau_us = np.float64(params.tau_mem_us[0])
    ratio = np.float64(dt_us) / tau_us
    decay = real(math.exp(-ratio))
    share_us = -tau_us * math.expm1(-ratio)
    for m in range(len(o)):
        state.integral_us[m] += o[m] * share_us
        later = o[m] * decay
        o[m] = later if abs(later) > tiny else zero  # no denormals, see neurons.lif
    state.t_us[0] = t_us


@kernel
def readout_spike(params: ReadoutParams, state: ReadoutState, pre: int, t_us: int) -> None:
    """Take in a spike of unit ``pre``."""
    readout_advance(params, state, t_us)
    for m in range(len(state.o)):
        state.o[m] += params.weight[pre, m]
