"""Pair-based spike-timing-dependent plasticity (STDP).

Equations
---------
Traces of the presynaptic spikes, ``x``, and of the postsynaptic ones, ``y``, decay with ``tau_plus_us`` and
``tau_minus_us``::

    presynaptic spike of i:    w[i,:] <- max(w[i,:] - a_minus * y, w_min);   then x[i] <- x[i] + 1
    postsynaptic spike of j:   w[:,j] <- min(w[:,j] + a_plus * x, w_max);    then y[j] <- y[j] + 1

So every pair of spikes counts; with ``nearest`` a trace is set to 1 instead, and a spike is paired with the last one of
the other side alone. A spike acts on the membrane with the weight as it was before. One that makes a unit fire at once
counts as before it.

Source: S. Song, K. D. Miller and L. F. Abbott, "Competitive Hebbian learning through spike-timing-dependent synaptic
plasticity", Nat. Neurosci. 3:919 (2000); the two ways of pairing: A. Morrison, M. Diesmann and W. Gerstner,
"Phenomenological models of synaptic plasticity based on spike timing", Biol. Cybern. 98:459 (2008).
"""

from typing import Any, NamedTuple

from stream.jit import inner_kernel

__all__ = ["PairSTDP", "pair_stdp_post", "pair_stdp_pre"]


class PairSTDP(NamedTuple):
    """What a pair rule is; amplitudes in units of the weights."""

    a_plus: float = 0.005
    a_minus: float = 0.00525
    tau_plus_us: float = 20_000.0
    tau_minus_us: float = 20_000.0
    w_min: float = 0.0
    w_max: float = 1.0
    nearest: bool = False


@inner_kernel
def pair_stdp_pre(w: Any, at: int, n: int, y: Any, first: int, a_minus: Any, w_min: Any) -> None:
    """Weaken a row: ``w[at:at + n]`` belongs to ``y[first:first + n]``; ``a_minus`` is times what is left of them."""
    row, trace = w[at : at + n], y[first : first + n]
    for j in range(n):
        changed = row[j] - a_minus * trace[j]
        row[j] = changed if changed > w_min else w_min


@inner_kernel
def pair_stdp_post(w: Any, change: Any, w_max: Any) -> Any:
    """Return a weight that was ``w``; ``change`` is a_plus * x."""
    changed = w + change
    return changed if changed < w_max else w_max
