"""The local rule of hybrid learning: a fast, decaying, Hebbian change beside each slow weight.

After Wu et al., "Brain-inspired global-local learning incorporated with neuromorphic computing", Nat. Commun. 13:65
(2022), in event form.

Equations
---------
At a presynaptic spike of i with amplitude a (1, or what ``plasticity.short_term`` makes of it); ``hebb`` decays with
``tau_hebb_us``, is read as it stood before, and changed by the potentials u as they stand after this spike's row was
added and before anyone is reset::

    v      <- v + a * mixed(w[i,:], hebb[i,:])
    u       = v
    z       = post(u / v_threshold - sliding_threshold)
    hebb   <- clip(hebb + a * local_rate[i] * z, -hebb_max, +hebb_max)

========  ===================================  ===============================================================
mixed     formula                              in the authors' code
========  ===================================  ===============================================================
add       w + mixing * hebb                    fault tolerance, demo, image classification
blend     mixing * w + (1 - mixing) * hebb     few-shot; ``mixing`` is a number for each synapse
mask      mask * w + mixing * (1-mask) * hebb  continual learning; ``mask`` (0 or 1) is a number for each synapse
========  ===================================  ===============================================================

========  ===================  =============================================================================
post      z                    in the authors' code
========  ===================  =============================================================================
tanh      tanh(y)              fault tolerance, demo, continual learning
linear    y                    image classification, where ``local_rate`` is negative
softmax   softmax of all y     few-shot, on the u themselves: set ``v_threshold`` of the units to 1
========  ===================  =============================================================================

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

from typing import Any, Literal, NamedTuple

import numpy as np

from stream.jit import inner_kernel, kernel

__all__ = [
    "ADD",
    "BLEND",
    "LINEAR",
    "MASK",
    "SOFTMAX",
    "TANH",
    "Hebbian",
    "hebbian_read",
    "hebbian_write",
    "tanh_rational",
]

ADD, BLEND, MASK = range(3)
TANH, LINEAR, SOFTMAX = range(3)


class Hebbian(NamedTuple):
    """What the local rule is. Numbers, or arrays: one value for each presynaptic unit, postsynaptic unit, synapse."""

    local_rate: Any = 0.013  # number, or (n_pre,)
    sliding_threshold: Any = 0.0  # number, or (n_post,)
    mixing: Any = 0.12  # number; for ``blend`` shape of the weights
    tau_hebb_us: float = 100_000.0
    hebb_max: float = 1.0  # inf: no bound
    mixed: Literal["add", "blend", "mask"] = "add"
    post: Literal["tanh", "linear", "softmax"] = "tanh"
    mask: Any = None  # shape of the weights, for ``mask``


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


@inner_kernel
def hebbian_read(
    w: Any, at: int, fast: Any, share: Any, at_fast: int, n: int, left: float, form: int, mixing: float, out: Any
) -> None:
    """Let a row of hebb decay, and write what the synapses weigh into ``out[:n]``.

    ``share``: real, as ``fast`` for ``BLEND`` (mixing) and ``MASK`` (mask), else shape (0,).
    """
    real = fast.dtype.type
    factor, alpha, one, tiny, zero = real(left), real(mixing), real(1.0), real(1e-30), real(0.0)
    row, hebb = w[at : at + n], fast[at_fast : at_fast + n]
    for j in range(n):
        h = hebb[j] * factor
        hebb[j] = h if abs(h) > tiny else zero
    if form == ADD:
        for j in range(n):
            out[j] = row[j] + alpha * hebb[j]
        return
    part = share[at_fast : at_fast + n]
    if form == BLEND:
        for j in range(n):
            out[j] = part[j] * row[j] + (one - part[j]) * hebb[j]
    else:
        for j in range(n):
            out[j] = part[j] * row[j] + alpha * ((one - part[j]) * hebb[j])


@inner_kernel
def hebbian_write(
    fast: Any,
    at_fast: int,
    n: int,
    v: Any,
    first: int,
    theta: Any,
    eta: Any,
    first_post: int,
    rate: float,
    most: float,
    post: int,
    scratch: Any,
) -> None:
    """Change a row of hebb by the potentials ``v[first:first + n]`` before any reset."""
    real = fast.dtype.type
    step, high = real(rate), real(most)
    hebb, u = fast[at_fast : at_fast + n], v[first : first + n]
    threshold, sliding = theta[first : first + n], eta[first_post : first_post + n]
    for j in range(n):
        scratch[j] = u[j] / threshold[j] - sliding[j]
    if post == TANH:
        for j in range(n):
            scratch[j] = tanh_rational(scratch[j])
    elif post == SOFTMAX:
        largest = scratch[0]
        for j in range(n):
            largest = max(largest, scratch[j])
        total = 0.0
        for j in range(n):
            scratch[j] = np.exp(scratch[j] - largest)
            total += np.float64(scratch[j])
        per_total = real(1.0 / total)
        for j in range(n):
            scratch[j] *= per_total
    for j in range(n):
        h = hebb[j] + step * scratch[j]
        hebb[j] = min(max(h, -high), high)
