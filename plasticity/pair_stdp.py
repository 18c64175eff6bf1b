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

import math
from typing import Any, NamedTuple

import numpy as np

from neurons.front import decay_of, flush
from stream.jit import inline_kernel, inner_kernel
from stream.lanes import prefetch

__all__ = ["PairSTDP", "pair_stdp_front", "pair_stdp_notes", "pair_stdp_post", "pair_stdp_pre"]


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


@inline_kernel
def pair_stdp_notes(
    w: Any, at: int, n: int, units: Any, left: Any, k_0: int, k_1: int, gain: float, w_max: Any
) -> None:
    """Let a dense row go through notes ``k_0`` to ``k_1 - 1`` of postsynaptic spikes; ``gain left`` is a_plus x."""
    real = w.dtype.type
    row = w[at : at + n]
    for k in range(k_0, k_1):
        post: Any = np.uint64(units[k])  # an index that cannot be negative takes less to compute
        if post < np.uint64(n):  # else: a reward
            row[post] = pair_stdp_post(row[post], real(gain * left[k]), w_max)


@inner_kernel
def pair_stdp_front(
    layer: Any,
    v: Any,
    t_0: int,
    decay: Any,
    weight: Any,
    x: Any,
    x_us: Any,
    seen: Any,
    y: Any,
    y_us: int,
    log_us: Any,
    log_unit: Any,
    left: Any,
    n_log: int,
    renew_after_us: int,
    a_minus: float,
    a_plus: float,
    tau_plus_us: float,
    tau_minus_us: float,
    w_min: float,
    w_max: float,
    nearest: float,
    items: Any,
    k: int,
    end: int,
    due_us: int,
) -> tuple[int, int, bool]:
    """Run events through a dense layer until one brings a unit above its threshold; each row in one pass.

    Parameters
    ----------
    layer
        ``plasticity.hebbian.Front``.
    v
        real, shape (n_all,): potentials at ``t_0``. Written to.
    decay
        Of ``neurons.front.decay_table``.
    weight, x, x_us, seen, y, y_us, log_us, log_unit, left, n_log
        As in ``plasticity.rules``; the ``n_log`` notes are consumed.
    renew_after_us
        Events later than this are not begun: the log is too old.
    items, k, end, due_us
        As for ``plasticity.hebbian.hebbian_front``.

    Returns
    -------
    k, t_0, is_above
        As for ``plasticity.hebbian.hebbian_front``.
    """
    real = v.dtype.type
    n, first, theta = layer.n, layer.first, layer.theta
    low, high, one = real(w_min), real(w_max), real(1.0)
    while k < end:
        t: Any = np.int64(items[k]["t"])
        if t >= due_us or t > renew_after_us:
            return k, t_0, False
        pre: Any = np.int64(items[k]["unit"])
        k += 1
        at, i = layer.at_weight + pre * n, layer.first_pre + pre
        if k < end:  # the next row is far away
            ahead: Any = layer.at_weight + np.int64(items[k]["unit"]) * n
            for j in range(0, n, 16):
                prefetch(weight, ahead + j)
        if seen[i] < n_log:
            x_anchor = x[i] * math.exp(np.float64(x_us[i] - log_us[0]) / tau_plus_us)
            pair_stdp_notes(weight, at, n, log_unit, left, seen[i], n_log, a_plus * x_anchor, high)
            seen[i] = n_log
        factor = one
        if t != t_0:
            factor = real(decay_of(decay, layer.tau_mem_us, t - t_0))
        down = real(a_minus * math.exp(-np.float64(t - y_us) / tau_minus_us))
        here, row, trace = v[first : first + n], weight[at : at + n], y[layer.first_post : layer.first_post + n]
        is_above = False
        for j in range(n):
            w = row[j]
            u = here[j] * factor + w
            here[j] = u
            is_above |= u > theta
            changed = w - down * trace[j]
            row[j] = changed if changed > low else low
        x[i] = 1.0 if nearest != 0.0 else x[i] * math.exp(-np.float64(t - x_us[i]) / tau_plus_us) + 1.0
        x_us[i] = t
        if is_above:
            return k, t_0, True
        if (t - layer.anchor_us) >> layer.shift != (t_0 - layer.anchor_us) >> layer.shift:
            flush(v, first, first + n)
        t_0 = t
    return k, t_0, False
