"""Deep continuous local learning (DECOLLE): each population has a random readout of its own, and learns to please it.

Equations
---------
``s`` is the trace of a population's own spikes, which decays with ``tau_readout_us``; G, fixed, of shape (n_classes,
n), is drawn once from a normal distribution of variance 1 / n. As long as a target is set (``PlasticNetwork.target``),
at every multiple of ``period_us`` since time began::

    y      = G s
    e      = y - onehot(target)
    l[j]   = sum_c G[c,j] e[c]
    w[i,j] <- clip(w[i,j] - rate * l[j] * psi(v[j]) * x[i], w_min, w_max)

with trace x, potential v and psi as in ``plasticity.error_modulated``, whose rule the last line is. So errors come from
the population itself, at once: nothing is sent back from layers further up, and nothing is kept for later. A stack of
such populations learns layer by layer, each from what the one before makes of the input. The scores y are what the
population itself would answer (``PlasticNetwork.local_scores``).

The authors compute this in steps of 1 ms, at each of them, with a second filter in the presynaptic trace and
regularisers on potentials; here a delta synapse needs one filter, and the loss stands alone.

Source: J. Kaiser, H. Mostafa and E. Neftci, "Synaptic plasticity dynamics for deep continuous local learning
(DECOLLE)", Front. Neurosci. 14:424 (2020), eqs. 7 to 10.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Decolle", "local_readout", "local_signal"]


class Decolle(NamedTuple):
    """What a population's local loss is; the same for all projections that lead to it."""

    n_classes: int
    rate: float = 0.001
    tau_pre_us: float = 20_000.0
    tau_readout_us: float = 20_000.0
    period_us: int = 1000
    width: float = 0.5
    w_min: float = -math.inf
    w_max: float = math.inf
    seed: int = 0


def local_readout(rule: Decolle, n: int) -> NDArray[np.float64]:
    """Draw G; float64, shape (n_classes, n)."""
    return np.random.default_rng(rule.seed).normal(0.0, n**-0.5, (rule.n_classes, n))


def local_signal(readout: NDArray[np.float64], trace: NDArray[np.float64], target: int) -> NDArray[np.float64]:
    """Return l, float64, shape (n,)."""
    error = readout @ trace
    error[target] -= 1.0
    signal: NDArray[np.float64] = error @ readout
    return signal
