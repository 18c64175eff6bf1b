"""Triplet rule of spike-timing-dependent plasticity: it also tells how often spikes come, not only in which order.

Equations
---------
Two traces on each side; fast ones ``x_1`` (``tau_plus_us``), ``y_1`` (``tau_minus_us``), slow ones ``x_2``
(``tau_x_us``), ``y_2`` (``tau_y_us``). The slow ones are read before the spike at hand is added to them::

    presynaptic spike of i:    w[i,:] <- max(w[i,:] - y_1 * (a2_minus + a3_minus * x_2[i]), w_min)
    postsynaptic spike of j:   w[:,j] <- min(w[:,j] + x_1 * (a2_plus + a3_plus * y_2[j]), w_max)
    then both traces of the unit that fired grow by 1

Defaults: the fit of the full model, all pairs, to visual cortex data; in that paper's table 4 weights have no unit.

Source: J.-P. Pfister and W. Gerstner, "Triplets of spikes in a model of spike timing-dependent plasticity", J.
Neurosci. 26:9673 (2006).
"""

from typing import NamedTuple

__all__ = ["TripletSTDP"]


class TripletSTDP(NamedTuple):
    """What a triplet rule is; its changes are those of ``plasticity.pair_stdp`` with amplitudes that traces scale."""

    a2_plus: float = 5e-10
    a3_plus: float = 6.2e-3
    a2_minus: float = 7e-3
    a3_minus: float = 2.3e-4
    tau_plus_us: float = 16_800.0
    tau_x_us: float = 101_000.0
    tau_minus_us: float = 33_700.0
    tau_y_us: float = 125_000.0
    w_min: float = 0.0
    w_max: float = 1.0
