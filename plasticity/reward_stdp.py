"""Reward-modulated STDP: pairs of spikes leave a mark at the synapse, a reward turns marks into weights.

Equations
---------
As in ``plasticity.pair_stdp``, but what would change the weight changes the eligibility ``e``, which decays with
``tau_eligibility_us``; a reward ``r`` (a number in the stream, of either sign) comes for all synapses at once::

    presynaptic spike of i:    e[i,:] <- e[i,:] - a_minus * y;    x[i] <- x[i] + 1
    postsynaptic spike of j:   e[:,j] <- e[:,j] + a_plus * x;     y[j] <- y[j] + 1
    reward r:                  w      <- clip(w + rate * r * e, w_min, w_max)

Source: E. M. Izhikevich, "Solving the distal reward problem through linkage of STDP and dopamine signaling", Cereb.
Cortex 17:2443 (2007), with rewards that are pulses; R. V. Florian, Neural Comput. 19:1468 (2007).
"""

from typing import Any, NamedTuple

from stream.jit import inner_kernel

__all__ = ["RewardSTDP", "reward_stdp_reward"]


class RewardSTDP(NamedTuple):
    """What a reward-modulated rule is."""

    rate: float = 1.0
    a_plus: float = 0.005
    a_minus: float = 0.00525
    tau_plus_us: float = 20_000.0
    tau_minus_us: float = 20_000.0
    tau_eligibility_us: float = 1_000_000.0
    w_min: float = 0.0
    w_max: float = 1.0


@inner_kernel
def reward_stdp_reward(w: Any, at: int, n: int, fast: Any, at_fast: int, gain: Any, bounds: Any) -> None:
    """Turn a row's eligibilities into weights; ``gain`` is rate * reward * what is left of them."""
    row, eligibility = w[at : at + n], fast[at_fast : at_fast + n]
    low, high = bounds
    for j in range(n):
        changed = row[j] + gain * eligibility[j]
        changed = changed if changed > low else low
        row[j] = changed if changed < high else high
