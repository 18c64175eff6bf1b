"""Synaptic scaling: all weights that lead to a unit grow together when it fires too little, and shrink when too much.

Equations
---------
At every multiple of ``period_us`` since time began, with ``rate`` as in ``plasticity.homeostasis``::

    w[:,j] <- clip(w[:,j] * (1 + gain * (target_hz - rate[j]) / target_hz), w_min, w_max)

Multiplying keeps what was learned, which is how the weights of a unit stand to each other. So this goes beside any
other rule, and takes from correlation-driven ones (STDP) their instability. All columns change at once, but no row is
touched before its next spike: the factors are a note in the population's log (``plasticity.rules``), which each row
goes through when it is needed. A kernel of a convolution is scaled for each channel of its target, by the mean rate.

Source: G. G. Turrigiano et al., "Activity-dependent scaling of quantal amplitude in neocortical neurons", Nature
391:892 (1998); M. C. W. van Rossum, G. Q. Bi and G. G. Turrigiano, J. Neurosci. 20:8812 (2000), eq. 5, without its
integral term.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.jit import inner_kernel

__all__ = ["SynapticScaling", "scale_weights", "scaling_factors"]


class SynapticScaling(NamedTuple):
    """What synaptic scaling is."""

    target_hz: float = 10.0
    gain: float = 0.001  # for each period
    tau_rate_us: float = 1_000_000.0
    period_us: int = 100_000
    w_min: float = -math.inf
    w_max: float = math.inf


def scaling_factors(rate_hz: NDArray[np.float64], rule: SynapticScaling) -> NDArray[np.float64]:
    """Return what the weights of each unit are multiplied with; never below 0."""
    factors: NDArray[np.float64] = np.maximum(1.0 + rule.gain * (rule.target_hz - rate_hz) / rule.target_hz, 0.0)
    return factors


@inner_kernel
def scale_weights(w: Any, at: int, n: int, factor: Any, first: int, bounds: Any) -> None:
    """Multiply ``w[at:at + n]`` with ``factor[first:first + n]``."""
    row, by = w[at : at + n], factor[first : first + n]
    low, high = bounds
    for j in range(n):
        changed = row[j] * by[j]
        changed = changed if changed > low else low
        row[j] = changed if changed < high else high
