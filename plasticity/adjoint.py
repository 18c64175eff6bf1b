"""Global correction: gradients by walking the tape of a window backwards, event by event.

There is no time grid. The cost is that of the forward pass, events x fan-out, whatever the span of the window.

Equations
---------
``lam`` (n_hidden,) is the derivative of the loss by v, ``mu`` (n_pre, n_hidden) that by hebb, right after event
k = (i, t). With z, u and the decayed row h as in ``plasticity.layer``, x = h + local_rate[i] * z before the clip, and
K(t) = tau/T * (1 - exp(-(T_end - t)/tau)), which a spike at t is worth to a readout of weight 1 (``neurons.readout``)::

    pass   = mu[i,:] where |x| <= hebb_max, else 0
    g_s    = K(t) * sum_m readout_weight[:, m] * dL/dscore[m] - v_threshold * lam
    lam_u  = lam + g_s * psi(u) + pass * local_rate[i] * (1 - z^2) / v_threshold
    d sliding_threshold -= pass * local_rate[i] * (1 - z^2)
    d local_rate[i]     += sum_j pass * z
    d weight[i,:]       += lam_u
    d mixing            += sum_j lam_u * h
    mu_h   = pass + mixing * lam_u
    d tau_mem           += sum_j lam_u * v_prev * exp(-dt / tau_mem) * dt / tau_mem^2
    d tau_hebb          += sum_j mu_h * h * dt_i / tau_hebb^2
    lam    = lam_u * exp(-dt / tau_mem);   mu[i,:] = mu_h * exp(-dt_i / tau_hebb)

g_s is what a spike is worth: downstream, minus its reset. psi stands in for the derivative of the spike: 1 where
abs(u - v_threshold) < width (``RECTANGLE``, the authors' choice), or that only where the unit really fired
(``SPIKES``), which costs half the time, because most events make nobody fire, and learns as well.

State at the window's start counts as given: its own derivatives are computed no further. Where weights changed in the
middle of a window (a correction that was due by the clock), the walk uses the present ones: the error is of second
order in the step.

Memory: the tape (``plasticity.network.Tape``: 1.6 kB an event with 200 float32 units, 26 MB for 16,384 events), mu
and the gradients, one table of the weights' size each. Only rows of mu that the tape names are ever touched.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plasticity.layer import PlasticParams, tanh_rational
from plasticity.network import NetworkParams, NetworkState, Tape
from stream.jit import kernel

__all__ = [
    "RECTANGLE",
    "SPIKES",
    "Gradients",
    "Scratch",
    "Window",
    "cross_entropy",
    "network_adjoint",
    "new_gradients",
    "new_scratch",
    "new_window",
    "readout_adjoint",
]

SPIKES = 0
RECTANGLE = 1


class Gradients(NamedTuple):
    """Derivative of the loss by each learned parameter; shapes as in the parameters."""

    weight: NDArray[Any]
    mixing: NDArray[Any]
    local_rate: NDArray[Any]
    sliding_threshold: NDArray[Any]
    tau_hebb_us: NDArray[Any]
    tau_mem_us: NDArray[Any]
    readout_weight: NDArray[Any]
    tau_readout_us: NDArray[Any]


class Window(NamedTuple):
    """Where the network stood when the tape began, and when that was."""

    v: NDArray[Any]  # real, shape (n_hidden,)
    o: NDArray[Any]  # real, shape (n_classes,), at the tape's start
    start_us: NDArray[np.int64]  # int64, shape (2,): of the time average; of the tape (later if the window was cut)


class Scratch(NamedTuple):
    """Room to walk in."""

    lam: NDArray[Any]  # real, shape (n_hidden,)
    mu: NDArray[Any]  # real, shape as hebb
    is_live: NDArray[np.bool_]  # bool, shape (n_pre,): whether the row of mu belongs to this walk; False between walks
    worth: NDArray[Any]  # float64, shape (n_hidden,): of a spike with K = 1
    slope: NDArray[Any]  # real, shape (n_hidden,)
    product: NDArray[Any]  # real, shape (n_hidden,): terms of the sum at hand


def new_gradients(params: NetworkParams) -> Gradients:
    """Return zeros of the parameters' shapes."""
    hidden, readout = params
    return Gradients(*(np.zeros_like(array) for array in (*hidden[:6], *readout)))


def new_scratch(params: NetworkParams, *, is_plastic: bool) -> Scratch:
    """Return room for walks of any length."""
    n_pre, n_hidden = params.hidden.weight.shape
    real = params.hidden.weight.dtype
    return Scratch(
        np.zeros(n_hidden, real),
        np.zeros((n_pre if is_plastic else 0, n_hidden), real),
        np.zeros(n_pre, np.bool_),
        np.zeros(n_hidden),
        np.zeros(n_hidden, real),
        np.zeros(n_hidden, real),
    )


def new_window(state: NetworkState) -> Window:
    """Return a window that begins at rest at time 0."""
    return Window(np.zeros_like(state.hidden.v), np.zeros_like(state.readout.o), np.zeros(2, np.int64))


def cross_entropy(score: NDArray[np.float64], label: int, gain: float) -> tuple[float, NDArray[np.float64]]:
    """Compute the cross-entropy of softmax(gain * score), and its derivative by the score.

    Parameters
    ----------
    score
        float64, shape (n_classes,).
    label
        The right class.
    gain
        Slope of the softmax, 1 / units of the score.
    """
    scaled = gain * (score - score.max())
    share = np.exp(scaled)
    total = share.sum()
    share /= total
    loss = float(math.log(total) - scaled[label])
    share[label] -= 1.0
    return loss, gain * share


@kernel
def spike_share(s_us: float, span_us: float, tau_us: float) -> float:
    """Return K: what a spike ``s_us`` before the window's end adds to the average of a readout of weight 1."""
    return -tau_us / span_us * math.expm1(-s_us / tau_us)


@kernel
def spike_share_slope(s_us: float, span_us: float, tau_us: float) -> float:
    """Return dK / d tau."""
    ratio = s_us / tau_us
    return (-math.expm1(-ratio) - ratio * math.exp(-ratio)) / span_us


@kernel
def readout_adjoint(
    params: NetworkParams, tape: Tape, n_taped: int, window: Window, end_us: int, d_score: Any, gradients: Gradients
) -> int:
    """Add the gradients of the readout's weight and time constant; it needs no walk backwards, being linear.

    Returns
    -------
    n_spikes
        Spikes found on the tape.
    """
    tau_us = np.float64(params.readout.tau_mem_us[0])
    span_us = np.float64(max(end_us - window.start_us[0], 1))
    theta = params.hidden.v_threshold[0]
    weight = params.readout.weight
    real = weight.dtype.type
    n_hidden, n_classes = weight.shape
    n_spikes = 0
    d_tau = 0.0
    slope = spike_share_slope(np.float64(end_us - window.start_us[1]), span_us, tau_us)
    for m in range(n_classes):
        d_tau += d_score[m] * np.float64(window.o[m]) * slope
    for k in range(n_taped):
        anyone = False
        for j in range(n_hidden):
            anyone |= tape.u[k, j] > theta
        if not anyone:
            continue
        s_us = np.float64(end_us - tape.t_us[k])
        share = spike_share(s_us, span_us, tau_us)
        slope = spike_share_slope(s_us, span_us, tau_us)
        for j in range(n_hidden):
            if tape.u[k, j] > theta:
                n_spikes += 1
                for m in range(n_classes):
                    gradients.readout_weight[j, m] += real(d_score[m] * share)
                    d_tau += d_score[m] * np.float64(weight[j, m]) * slope
    gradients.tau_readout_us[0] += real(d_tau)
    return n_spikes


@kernel
def spike_value(u: Any, k: int, theta: Any, width: Any, surrogate: int, worth: Any, share: float, lam: Any) -> None:
    """Add g_s * psi(u) to ``lam``."""
    real = lam.dtype.type
    share_ = real(share)
    zero = real(0.0)
    if surrogate == RECTANGLE:
        for j in range(len(lam)):
            value = share_ * real(worth[j]) - theta * lam[j]
            lam[j] += value if abs(u[k, j] - theta) < width else zero
        return
    for j in range(len(lam)):
        if u[k, j] > theta and u[k, j] - theta < width:
            lam[j] += share_ * real(worth[j]) - theta * lam[j]


@kernel
def lane_sum(values: Any) -> float:
    """Sum in eight lanes, and those in a fixed order.

    A plain loop adds one after the other and cannot use the machine's vectors. Letting the compiler reorder the sum
    (``fastmath``) is as fast as this or faster, but then its result depends on what the compiler made of the caller:
    a kernel just compiled and the same kernel loaded from the cache gave different last bits.
    """
    n = len(values)
    whole = n - n % 8
    zero = values.dtype.type(0.0)
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    for j in range(0, whole, 8):
        a += values[j]
        b += values[j + 1]
        c += values[j + 2]
        d += values[j + 3]
        e += values[j + 4]
        f += values[j + 5]
        g += values[j + 6]
        h += values[j + 7]
    for j in range(whole, n):
        a += values[j]
    return np.float64(((a + b) + (c + d)) + ((e + f) + (g + h)))


# The loops below are short on purpose. A loop over more than about five arrays is no longer vectorised, because the
# compiler would have to compare too many addresses; the rows are in the nearest cache after the first loop anyway.


@kernel
def local_rule_adjoint(params: PlasticParams, tape: Tape, k: int, mu: Any, is_live: bool, scratch: Scratch) -> float:
    """Turn row i of ``mu`` into ``pass``, write ``slope`` = pass * (1 - z^2), return sum_j pass * z."""
    slope, product = scratch.slope, scratch.product
    real = mu.dtype.type
    i = tape.unit[k]
    u, hebb, eta = tape.u, tape.hebb, params.sliding_threshold
    rate, highest = params.local_rate[i], params.hebb_max[0]
    per_theta = real(1.0) / params.v_threshold[0]
    one, zero = real(1.0), real(0.0)
    if not is_live:  # nothing came after this event through this row
        for j in range(mu.shape[1]):
            mu[i, j] = zero
            slope[j] = zero
        return 0.0
    for j in range(mu.shape[1]):
        product[j] = tanh_rational(u[k, j] * per_theta - eta[j])
    for j in range(mu.shape[1]):
        mu[i, j] = mu[i, j] if abs(hebb[k, j] + rate * product[j]) <= highest else zero
    for j in range(mu.shape[1]):
        z = product[j]
        slope[j] = mu[i, j] * (one - z * z)
        product[j] = mu[i, j] * z
    return lane_sum(product)


@kernel
def synapse_adjoint(
    mixing: Any, tape: Tape, k: int, lam: Any, mu: Any, d_weight: Any, decay: float, product: Any
) -> tuple[float, float]:
    """Add lam_u to the gradient of row i, and take row i of ``mu`` from ``pass`` to right after its previous event.

    Returns
    -------
    by_mixing, by_decay
        sum_j lam_u * h and sum_j mu_h * h.
    """
    real = lam.dtype.type
    i = tape.unit[k]
    hebb = tape.hebb
    decay_h, tiny, zero = real(decay), real(1e-30), real(0.0)
    for j in range(len(lam)):
        d_weight[i, j] += lam[j]
    for j in range(len(lam)):
        product[j] = lam[j] * hebb[k, j]
    by_mixing = lane_sum(product)
    for j in range(len(lam)):
        mu_h = mu[i, j] + mixing * lam[j]
        product[j] = mu_h * hebb[k, j]
        mu_h *= decay_h
        mu[i, j] = mu_h if abs(mu_h) > tiny else zero
    return by_mixing, lane_sum(product)


@kernel
def network_adjoint(
    params: NetworkParams,
    is_plastic: bool,
    tape: Tape,
    n_taped: int,
    window: Window,
    end_us: int,
    d_score: Any,
    surrogate: int,
    surrogate_width: float,
    gradients: Gradients,
    scratch: Scratch,
) -> int:
    """Add the gradients of all parameters.

    Parameters
    ----------
    params
        Those in force.
    is_plastic
        As in the forward run. False: the gradients of the local rule stay as they are.
    tape, n_taped
        What happened.
    window
        Where it began.
    end_us
        End of the time average, us.
    d_score
        float64, shape (n_classes,). Derivative of the loss by the score.
    surrogate
        ``SPIKES`` or ``RECTANGLE``.
    surrogate_width
        Half the rectangle's width, in units of the potential.
    gradients
        Added to.
    scratch
        Its ``is_live`` must be, and is left, False throughout.

    Returns
    -------
    n_spikes
        Spikes found on the tape.
    """
    hidden = params.hidden
    lam, mu, is_live, worth, slope, product = scratch
    real = lam.dtype.type
    tiny, zero = real(1e-30), real(0.0)
    n_hidden, n_classes = params.readout.weight.shape
    theta, mixing = hidden.v_threshold[0], hidden.mixing[0]
    half_width = real(surrogate_width)
    tau_v_us, tau_h_us = np.float64(hidden.tau_mem_us[0]), np.float64(hidden.tau_hebb_us[0])
    tau_o_us = np.float64(params.readout.tau_mem_us[0])
    span_us = np.float64(max(end_us - window.start_us[0], 1))
    d_weight, d_eta = gradients.weight, gradients.sliding_threshold
    d_tau_v = d_tau_h = d_mixing = 0.0
    n_spikes: int = readout_adjoint(params, tape, n_taped, window, end_us, d_score, gradients)
    for j in range(n_hidden):
        worth[j] = 0.0
        for m in range(n_classes):
            worth[j] += np.float64(params.readout.weight[j, m]) * d_score[m]
        lam[j] = zero
    for back in range(n_taped):
        k = n_taped - 1 - back
        i = tape.unit[k]
        # the worth of the spikes comes first: it needs lam as it is right after the event
        anyone = surrogate == RECTANGLE
        if not anyone:
            for j in range(n_hidden):
                anyone |= tape.u[k, j] > theta
        share = spike_share(np.float64(end_us - tape.t_us[k]), span_us, tau_o_us) if anyone else 0.0
        if is_plastic:
            rate = hidden.local_rate[i]
            gradients.local_rate[i] += real(local_rule_adjoint(hidden, tape, k, mu, is_live[i], scratch))
            is_live[i] = True
            if anyone:
                spike_value(tape.u, k, theta, half_width, surrogate, worth, share, lam)
            rate_per_theta = rate / theta
            for j in range(n_hidden):
                d_eta[j] -= rate * slope[j]
                lam[j] += rate_per_theta * slope[j]
        elif anyone:
            spike_value(tape.u, k, theta, half_width, surrogate, worth, share, lam)
        # lam is lam_u now
        dt_v_us = np.float64(tape.dt_v_us[k])
        decay_v = real(math.exp(-dt_v_us / tau_v_us))
        if k > 0:
            for j in range(n_hidden):
                u = tape.u[k - 1, j]
                product[j] = lam[j] * (u - (theta if u > theta else zero))
        else:
            for j in range(n_hidden):
                product[j] = lam[j] * window.v[j]
        d_tau_v += lane_sum(product) * np.float64(decay_v) * dt_v_us
        if is_plastic:
            dt_h_us = np.float64(tape.dt_hebb_us[k])
            by_mixing: float
            by_decay: float
            by_mixing, by_decay = synapse_adjoint(
                mixing, tape, k, lam, mu, d_weight, math.exp(-dt_h_us / tau_h_us), product
            )
            d_mixing += by_mixing
            d_tau_h += by_decay * dt_h_us
        else:
            for j in range(n_hidden):
                d_weight[i, j] += lam[j]
        for j in range(n_hidden):
            later = lam[j] * decay_v
            lam[j] = later if abs(later) > tiny else zero
    for k in range(n_taped):
        is_live[tape.unit[k]] = False
    gradients.tau_mem_us[0] += real(d_tau_v / (tau_v_us * tau_v_us))
    if is_plastic:
        gradients.mixing[0] += real(d_mixing)
        gradients.tau_hebb_us[0] += real(d_tau_h / (tau_h_us * tau_h_us))
    return n_spikes
