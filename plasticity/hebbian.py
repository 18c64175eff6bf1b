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

hebb lies in coordinates that do not decay
-------------------------------------------
A row of hebb is kept as it was at the row's own time, and what is ``left`` of it enters where it is used: it is read as
``(mixing left) * hebb`` and grows by ``(a local_rate / left) z`` between bounds of ``hebb_max / left``. So nothing has
to be multiplied to decay. When less than 2^-12 is left, the row is brought to the present once. That depends on the
times of its own spikes alone.

tanh
----
``libm`` takes one number at a time, which would cost more than the rest of the layer together. In float64
``y P(y^2) / Q(y^2)`` approximates tanh y for y = x / 4, |x| <= 12 (beyond, tanh is 1 within 1e-10), and the argument
is doubled twice by tanh 2y = 2t / (1 + t^2). With t = p / q that reads (p, q) <- (2 p q, p^2 + q^2): no division
until the end. P(0) = Q(0) = 1, so the slope at 0 is exact. P and Q, of degree 2 each, were fitted at 4000 Chebyshev
points of 0 < y <= 3 by linear least squares of t Q - y P, its rows weighted with the effect on tanh 4y relative to
its value, and reweighted (Lawson) until the largest error stopped falling: 1.3e-10. All coefficients are positive, so
no digits cancel.

float32 has two forms, fitted in the same way to relative errors, and fuses products with sums. At |y| <= 1.05, where
potentials mostly are, ``y + y s P(s)``, s = y^2, with P of degree 3: 1.2e-5 (a degree more gives 1.1e-6, and takes 7 %
longer). It divides nothing, and a row multiplies the five numbers by its step once, instead of every z. Beyond, where
units are that are held down, ``x P(x^2) / Q(x^2)``, degrees 2 and 3, x = y within 6.4: 1.4e-5. The first form would be
right to the last bits there, and takes twice as many products, where half of a layer may be. These are errors of a
*step* of hebb: beside a hebb of 200 steps they are less than float32 rounds away. A block of units in which all are low
never computes the second form (``plasticity.hebbian_lanes``); which one a unit takes depends on its y alone.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from neurons.front import decay_of, flush
from neurons.lif import next_above
from plasticity.hebbian_lanes import (
    SMALL_SQUARE,
    grown,
    learn_16,
    learn_64,
    tanh_rational,
    tanh_small,
    tanh_wide,
)
from stream.jit import inline_kernel, inner_kernel, kernel
from stream.lanes import prefetch

__all__ = [
    "ADD",
    "BLEND",
    "LEAST_LEFT",
    "LINEAR",
    "MASK",
    "SOFTMAX",
    "TANH",
    "Hebbian",
    "hebbian_front",
    "hebbian_read",
    "hebbian_read_one",
    "hebbian_write",
    "hebbian_write_one",
    "share_all",
    "softmax_all",
    "tanh_all",
]

ADD, BLEND, MASK = range(3)
TANH, LINEAR, SOFTMAX = range(3)
LEAST_LEFT = 2.0**-12


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
def tanh_all(y: Any, z: Any) -> None:
    """Write tanh of ``y`` into ``z``; real, shape (n,) both, not the same."""
    real = y.dtype.type
    most = real(SMALL_SQUARE if y.itemsize == 4 else -1.0)
    is_wide = False
    for j in range(len(z)):
        z[j] = tanh_small(y[j])
        is_wide |= y[j] * y[j] > most
    if is_wide:
        for j in range(len(z)):
            one = real(tanh_wide(y[j])) if y.itemsize == 4 else tanh_rational(y[j])
            z[j] = one if y[j] * y[j] > most else z[j]


@inline_kernel
def share_all(u: Any, theta: Any, is_uniform: bool, sliding: Any, y: Any) -> None:
    """Write ``u / theta - sliding`` into ``y``, real, shape (n,); divides once if all thresholds are the same."""
    one = y.dtype.type(1.0)
    if is_uniform:
        inverse = one / theta[0]
        for j in range(len(y)):
            y[j] = u[j] * inverse - sliding[j]
        return
    for j in range(len(y)):
        y[j] = u[j] * (one / theta[j]) - sliding[j]


@kernel
def softmax_all(z: Any) -> None:
    """Replace ``z``, real, shape (n,), by its softmax."""
    largest = z[0]
    for j in range(len(z)):
        largest = max(largest, z[j])
    total = 0.0
    for j in range(len(z)):
        z[j] = np.exp(z[j] - largest)
        total += np.float64(z[j])
    share = z.dtype.type(1.0 / total)
    for j in range(len(z)):
        z[j] *= share


@inner_kernel
def hebbian_read(
    w: Any, at: int, fast: Any, share: Any, at_fast: int, n: int, left: float, form: int, mixing: float, out: Any
) -> None:
    """Write what the synapses of a row weigh into ``out[:n]``; ``left``: what is left of hebb.

    ``share``: real, as ``fast`` for ``BLEND`` (mixing) and ``MASK`` (mask), else shape (0,).
    """
    real = fast.dtype.type
    factor, alpha, one = real(left), real(mixing * left), real(1.0)
    row, hebb = w[at : at + n], fast[at_fast : at_fast + n]
    if form == ADD:
        for j in range(n):
            out[j] = row[j] + alpha * hebb[j]
        return
    part = share[at_fast : at_fast + n]
    if form == BLEND:
        for j in range(n):
            out[j] = part[j] * row[j] + (one - part[j]) * (factor * hebb[j])
    else:
        for j in range(n):
            out[j] = part[j] * row[j] + (one - part[j]) * (alpha * hebb[j])


@inner_kernel
def hebbian_write(
    fast: Any,
    at_fast: int,
    n: int,
    left: float,
    v: Any,
    first: int,
    theta: Any,
    is_uniform: bool,
    eta: Any,
    first_post: int,
    rate: float,
    most: float,
    post: int,
    scratch: Any,
) -> None:
    """Change a row of hebb, of which ``left`` is left, by the potentials ``v[first:first + n]`` before any reset.

    ``is_uniform``: all ``theta`` are the same. ``scratch``: real, shape (2, n or more).
    """
    real = fast.dtype.type
    step, high = real(rate / left), real(most / left)
    hebb, u = fast[at_fast : at_fast + n], v[first : first + n]
    y, z = scratch[0, :n], scratch[1, :n]
    share_all(u, theta[first : first + n], is_uniform, eta[first_post : first_post + n], y)
    if post == TANH and fast.itemsize == 4:
        limit, is_wide = real(SMALL_SQUARE), False
        for j in range(n):
            z[j] = grown(hebb[j], y[j], step)
            is_wide |= y[j] * y[j] > limit
        if is_wide:
            for j in range(n):
                wide = hebb[j] + step * tanh_wide(y[j])
                z[j] = wide if y[j] * y[j] > limit else z[j]
        for j in range(n):
            hebb[j] = min(max(z[j], -high), high)
        return
    if post == TANH:
        tanh_all(y, z)
    else:
        for j in range(n):
            z[j] = y[j]
        if post == SOFTMAX:
            softmax_all(z)
    for j in range(n):
        h = hebb[j] + step * z[j]
        hebb[j] = min(max(h, -high), high)


@inline_kernel
def grown_by_tanh(fast: Any, at_fast: int, y: Any, step: Any) -> Any:
    """Return ``fast[at_fast] + step tanh y``; all of one type."""
    if fast.itemsize == 8:
        return fast[at_fast] + step * tanh_rational(y)
    if y * y <= type(y)(SMALL_SQUARE):
        return grown(fast[at_fast], y, step)
    return fast[at_fast] + step * tanh_wide(y)


@inline_kernel
def hebbian_read_one(
    w: Any, at: int, fast: Any, share: Any, at_fast: int, left: float, form: int, mixing: float
) -> Any:
    """Return what one synapse weighs; as ``hebbian_read``, whose calls and slices cost more than a synapse does."""
    real = fast.dtype.type
    alpha, one, hebb = real(mixing * left), real(1.0), fast[at_fast]
    if form == ADD:
        return w[at] + alpha * hebb
    part = share[at_fast]
    if form == BLEND:
        return part * w[at] + (one - part) * (real(left) * hebb)
    return part * w[at] + (one - part) * (alpha * hebb)


@inline_kernel
def hebbian_write_one(
    fast: Any, at_fast: int, left: float, u: Any, theta: Any, eta: Any, rate: float, most: float, post: int
) -> None:
    """Change one synapse's hebb by the potential u before any reset; as ``hebbian_write``, but for ``SOFTMAX``."""
    real = fast.dtype.type
    step, high = real(rate / left), real(most / left)
    y = u * (real(1.0) / theta) - eta
    new = fast[at_fast] + step * y if post == LINEAR else grown_by_tanh(fast, at_fast, y, step)
    fast[at_fast] = min(max(new, -high), high)


@inline_kernel
def freshen(fast: Any, fast_us: Any, at: int, n: int, row: int, tau_us: float, t_us: int) -> Any:
    """Return what is left of a row at ``t_us``; if that is little, bring the row there."""
    left: Any = math.exp(-np.float64(t_us - fast_us[row]) / tau_us)
    if left >= LEAST_LEFT:
        return left
    decay_row(fast, fast_us, at, n, row, left, t_us)
    return 1.0


@inner_kernel
def decay_row(fast: Any, fast_us: Any, at: int, n: int, row: int, left: float, t_us: int) -> None:
    """Bring ``fast[at:at + n]`` to ``t_us``, when ``left`` is left of it; no denormals."""
    real = fast.dtype.type
    factor, tiny, zero = real(left), real(1e-30), real(0.0)
    here = fast[at : at + n]
    for j in range(n):
        kept = here[j] * factor
        here[j] = kept if abs(kept) > tiny else zero
    fast_us[row] = t_us


class Front(NamedTuple):
    """What the fast loop needs to know of a population, its projection and the rule, in numbers."""

    n: int  # units
    first: int  # unit
    at_weight: int
    first_fast: int
    first_row: int
    first_pre: int
    first_post: int
    theta: Any  # real
    most: Any  # real: of ``plasticity.hebbian_lanes.most_square``
    kind: Any  # int64: of ``kind_of`` there
    tau_mem_us: float  # inf: no leak
    mixing: float
    tau_hebb_us: float
    hebb_max: float
    anchor_us: int  # when to flush
    shift: int
    population: int
    down: Any  # real: soft reset: what a spike takes away; hard: where it leads
    is_hard: bool
    is_last: bool  # nothing comes of its spikes but that they are written down


class Step(NamedTuple):
    """An event, and what it does to every synapse of its row."""

    t_us: Any  # int64
    pre: Any  # int64
    factor: Any  # real: what is left of the potentials
    left: float  # of the row of hebb
    alpha: Any  # real: hebb counts so much
    step: Any  # real: hebb grows by so much times z
    high: Any  # real: bound of hebb


@inline_kernel
def _step_of(layer: Front, v: Any, decay: Any, local_rate: Any, item: Any, t_0: int, left: float) -> Any:
    """Tell what an event does, when ``left`` is left of its row; little is brought to the present before."""
    real = v.dtype.type
    t: Any = np.int64(item["t"])
    pre: Any = np.int64(item["unit"])
    factor = real(1.0)
    if t != t_0:
        factor = real(decay_of(decay, layer.tau_mem_us, t - t_0))
    rate = np.float64(local_rate[layer.first_pre + pre])
    kept = left if left >= LEAST_LEFT else 1.0
    return Step(t, pre, factor, left, real(layer.mixing * kept), real(rate / kept), real(layer.hebb_max / kept))


@inline_kernel
def _left_of(layer: Front, fast_us: Any, item: Any) -> Any:
    """Return what is left of an event's row, if it is not brought to the present before."""
    dt_us = np.int64(item["t"]) - fast_us[layer.first_row + np.int64(item["unit"])]
    return math.exp(-np.float64(dt_us) / layer.tau_hebb_us)


@inner_kernel
def _fire(layer: Front, v: Any, t_us: Any, out: Any, n_out: Any) -> Any:
    """Reset the units that are above the threshold, and write their spikes from ``out[n_out]`` on; returns the end."""
    first, last = layer.first, layer.first + layer.n
    j = next_above(v, first, last, layer.theta)
    while j < last:
        v[j] = layer.down if layer.is_hard else v[j] - layer.down
        out[n_out]["t"], out[n_out]["unit"], out[n_out]["population"] = t_us, j - first, layer.population
        n_out += 1
        j = next_above(v, j + 1, last, layer.theta)
    return n_out


@inner_kernel
def hebbian_front(
    layer: Front,
    v: Any,
    t_0: int,
    decay: Any,
    weight: Any,
    fast: Any,
    fast_us: Any,
    local_rate: Any,
    sliding: Any,
    items: Any,
    k: int,
    end: int,
    due_us: int,
    out: Any,
    n_out: Any,
) -> tuple[int, int, bool, Any]:
    """Run events through a dense layer (``ADD``, ``TANH``) until one brings a unit above its threshold.

    Or beyond it, if ``layer.is_last``: leaving the loop and coming back takes as long as half an event. In one pass
    over each row, all else as ``hebbian_read`` and ``hebbian_write`` do it, bit for bit.

    Parameters
    ----------
    v
        real, shape (n_all,): potentials at ``t_0``. Written to.
    decay
        Of ``neurons.front.decay_table``.
    weight, fast, fast_us, local_rate, sliding
        As in ``plasticity.rules``.
    items, k, end
        SPIKE_DTYPE, shape (any,); where to begin, and where to stop.
    due_us
        When to stop.
    out, n_out
        FIRED_DTYPE, shape (n_out + n or more,): spikes are written from ``n_out`` on.

    Returns
    -------
    k, t_0, is_above
        The first event not begun; the time of the one before the last, at which the potentials have to be flushed or
        not; whether the last one brought units above the threshold, which are still to fire.
    n_out
        Where spikes end.
    """
    real = v.dtype.type
    n, first, theta = layer.n, layer.first, layer.theta
    inverse = real(1.0) / theta
    in_blocks = n - n % 16
    short = in_blocks % 64  # first: what takes long for one is done beside the rest
    if k == end:
        return k, t_0, False, n_out
    event = _step_of(layer, v, decay, local_rate, items[k], t_0, _left_of(layer, fast_us, items[k]))
    while True:
        t, pre = event.t_us, event.pre
        if t >= due_us:
            return k, t_0, False, n_out
        at, at_fast, row = layer.at_weight + pre * n, layer.first_fast + pre * n, layer.first_row + pre
        if event.left < LEAST_LEFT:
            decay_row(fast, fast_us, at_fast, n, row, event.left, t)
        factor, alpha, step, high = event.factor, event.alpha, event.step, event.high
        # The next event's numbers are at hand when its row begins: an exponential and two divisions take as long as a
        # quarter of a row, but can be computed beside it. Its row is far away, and asked for piece by piece: more
        # requests than a processor can have under way would hold up this row's own.
        k += 1
        later = items[k if k < end else k - 1]
        ahead: Any = np.int64(later["unit"]) * n
        event = _step_of(layer, v, decay, local_rate, later, t, _left_of(layer, fast_us, later))
        is_above = False
        j = 0
        while j < short:
            prefetch(weight, layer.at_weight + ahead + j)
            prefetch(fast, layer.first_fast + ahead + j)
            is_above |= learn_16(
                v, first + j, factor, weight, at + j, fast, at_fast + j, sliding, layer.first_post + j,
                alpha, theta, inverse, step, high, layer.most, layer.kind,
            )  # fmt: skip
            j += 16
        while j < in_blocks:
            for piece in range(j, j + 64, 16):
                prefetch(weight, layer.at_weight + ahead + piece)
                prefetch(fast, layer.first_fast + ahead + piece)
            is_above |= learn_64(
                v, first + j, factor, weight, at + j, fast, at_fast + j, sliding, layer.first_post + j,
                alpha, theta, inverse, step, high, layer.most, layer.kind,
            )  # fmt: skip
            j += 64
        while j < n:
            u = v[first + j] * factor + (weight[at + j] + alpha * fast[at_fast + j])
            v[first + j] = u
            is_above |= u > theta
            y = u * inverse - sliding[layer.first_post + j]
            fast[at_fast + j] = min(max(grown_by_tanh(fast, at_fast + j, y, step), -high), high)
            j += 1
        if is_above:
            if not layer.is_last:
                return k, t_0, True, n_out
            n_out = _fire(layer, v, t, out, n_out)
        if (t - layer.anchor_us) >> layer.shift != (t_0 - layer.anchor_us) >> layer.shift:
            flush(v, first, first + n)
        t_0 = t
        if k == end or len(out) - n_out < n:
            return k, t_0, False, n_out
