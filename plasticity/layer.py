"""Plastic dense layer: a leaky integrate-and-fire layer whose synapses carry a fast, local, decaying change.

After Wu et al., "Brain-inspired global-local learning incorporated with neuromorphic computing", Nat. Commun. 13:65
(2022).

Equations
---------
At an event of input i at time t (``hebb`` is read as it stood before this event)::

    v      <- v * exp(-(t - t_v) / tau_mem)                      one time for the layer
    h[i,:] <- h[i,:] * exp(-(t - t_h[i]) / tau_hebb)             one time for each row
    u       = v + weight[i,:] + mixing * h[i,:]
    z       = tanh(u / v_threshold - sliding_threshold)
    h[i,:] <- clip(h[i,:] + local_rate[i] * z, -hebb_max, +hebb_max)
    s       = u > v_threshold (strict);   v = u - v_threshold * s

The paper computes this in time steps, with one decay a step and all inputs of a step at once; here every event is a
step of its own and decays follow its real distance in time. As in the authors' code, the postsynaptic term is the
membrane before its reset.

tanh
----
``libm``'s tanh is called for one number at a time, which would cost more than the rest of the layer together. Instead
``y P(y^2) / Q(y^2)`` approximates tanh y for y = x / 4, |x| <= 12 (beyond, tanh is 1 within 1e-10), and the argument
is doubled twice by tanh 2y = 2t / (1 + t^2). With t = p / q that reads (p, q) <- (2 p q, p^2 + q^2): no division
until the end. P(0) = Q(0) = 1, so the slope at 0 is exact. P and Q, of degree 2 each, were fitted at 4000 Chebyshev
points of 0 < y <= 3 by linear least squares of t Q - y P, its rows weighted with the effect on tanh 4y relative to
its value, and reweighted (Lawson) until the largest error stopped falling: 1.3e-10. All coefficients are positive, so
no digits cancel and float32 gives its last two bits.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.jit import kernel

__all__ = ["PlasticParams", "PlasticState", "hebb_decay", "plastic_jump", "tanh_rational"]


class PlasticParams(NamedTuple):
    """What a plastic layer is. Scalars are arrays, because all but the last two are learned in place."""

    weight: NDArray[Any]  # real, shape (n_pre, n_post)
    mixing: NDArray[Any]  # real, shape (1,): how much hebb adds to weight
    local_rate: NDArray[Any]  # real, shape (n_pre,)
    sliding_threshold: NDArray[Any]  # real, shape (n_post,)
    tau_hebb_us: NDArray[Any]  # real, shape (1,)
    tau_mem_us: NDArray[Any]  # real, shape (1,)
    v_threshold: NDArray[Any]  # real, shape (1,)
    hebb_max: NDArray[Any]  # real, shape (1,)


class PlasticState(NamedTuple):
    """Where a plastic layer stands."""

    v: NDArray[Any]  # real, shape (n_post,): right after ``t_us``
    hebb: NDArray[Any]  # real, shape (n_pre, n_post), or (0, n_post) when the layer is not plastic
    t_us: NDArray[np.int64]  # int64, shape (1,)
    t_hebb_us: NDArray[np.int64]  # int64, shape (n_pre,): the time of each row of ``hebb``


@kernel
def tanh_rational(x: Any) -> Any:
    """Approximate tanh without a branch; error 1e-9 in float64, 2 units in the last place in float32."""
    real = type(x)
    one, limit, two = real(1.0), real(12.0), real(2.0)
    y = min(max(x, -limit), limit) * real(0.25)
    s = y * y
    p = y * (one + s * (real(0.11047896964121169) + s * real(0.0010173103508888616)))
    q = one + s * (real(0.44381229373180214) + s * real(0.015621540394684197))
    p, q = two * p * q, p * p + q * q
    return two * p * q / (p * p + q * q)


@kernel
def hebb_decay(hebb: Any, pre: int, decay: float, kept: Any, row: int) -> None:
    """Let row ``pre`` decay, and keep a copy of it in ``kept[row, :]``."""
    factor = hebb.dtype.type(decay)
    for j in range(hebb.shape[1]):
        h = hebb[pre, j] * factor
        hebb[pre, j] = h
        kept[row, j] = h


@kernel
def plastic_jump(params: PlasticParams, state: PlasticState, pre: int, decay_v: float, decay_h: float) -> None:
    """Take in an event of input ``pre``: afterwards ``v`` holds the potentials before a possible reset.

    Same as ``neurons.lif.lif_jump`` for the membrane; potentials and hebb below 1e-30 become 0 for the same reason.
    An amplitude other than 1 (short-term plasticity) will multiply the bracket of ``u`` and the local rate, nothing
    else.
    """
    v, hebb, weight, eta = state.v, state.hebb, params.weight, params.sliding_threshold
    real = v.dtype.type
    factor_v, factor_h = real(decay_v), real(decay_h)
    mixing, rate, highest = params.mixing[0], params.local_rate[pre], params.hebb_max[0]
    per_theta = real(1.0) / params.v_threshold[0]
    tiny, zero = real(1e-30), real(0.0)
    for j in range(len(v)):
        h = hebb[pre, j] * factor_h
        u = v[j] * factor_v + (weight[pre, j] + mixing * h)
        h = min(max(h + rate * tanh_rational(u * per_theta - eta[j]), -highest), highest)
        hebb[pre, j] = h if abs(h) > tiny else zero
        v[j] = u if abs(u) > tiny else zero
