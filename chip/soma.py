"""Soma: integrate, fire, reset, leak, in integers, in the order of the TianjicX simulators.

Equations
---------
For each neuron of a core, in index order, once a phase; U is what its dendrite collected::

    r      <- shift register: new bit 31 = bit 0 ^ 1 ^ 2 ^ 3 ^ 5 ^ 7, all others move down one
    m       = r & mask                          if r >= 0 (as signed 32 bit)
              ~(~r & mask) + 1                  else;   low n bits, signed
    Vth     = max(Vth0 + Vtheta + m, floor)
    V      <- V + U  if not refractory;         clamp to n bits
    fire    = V > Vth                           strict
    V      <- Vreset | V - Vth | V - dV | V     on fire, by reset mode
    V      <- (V * alpha >> 8) + beta           proportional leak (>> floors), or
              V + beta                          constant leak, or
              Vinit                             if the time window has ended
    V      <- max(clamp(V), floor)
    Vtheta <- (Vtheta * th_alpha >> 8) + th_beta  or  Vtheta + th_beta;  + th_increment on fire;  clamp
    refractory <- refractory_phases on fire, else down by one to 0

A refractory neuron ignores its input but *may fire*: one that is still above threshold fires and reloads its counter.
The window counts as ended when counter >= length, whether or not it is enabled; length 0 therefore resets V at every
call, which makes a soma without memory: what a partial-sum core needs, without a mode of its own. A register of 0
stays 0: that is how random thresholds are switched off, and it leaves no hidden state that moves in a silent core.

V, Vth0, Vtheta are n bits wide (28 on TianjicX), alpha 8 bits over 256, the refractory counter 4 bits.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.jit import kernel

__all__ = [
    "FIRE_MEMBRANE_AFTER_LEAK",
    "FIRE_MEMBRANE_BEFORE_RESET",
    "FIRE_SPIKE",
    "LEAK_CONSTANT",
    "LEAK_PROPORTIONAL",
    "RESET_NONE",
    "RESET_SUBTRACT_CONSTANT",
    "RESET_SUBTRACT_THRESHOLD",
    "RESET_TO_VALUE",
    "Soma",
    "SomaParams",
    "SomaState",
    "lfsr_step",
    "soma_phase",
    "soma_rest",
]

RESET_TO_VALUE, RESET_SUBTRACT_THRESHOLD, RESET_SUBTRACT_CONSTANT, RESET_NONE = 0, 1, 2, 3
LEAK_CONSTANT, LEAK_PROPORTIONAL = 0, 1
FIRE_MEMBRANE_BEFORE_RESET, FIRE_MEMBRANE_AFTER_LEAK, FIRE_SPIKE = 0, 1, 4


class Soma(NamedTuple):
    """The soma of one core, as a program writes it down. Defaults: a leakless neuron that subtracts its threshold."""

    v_threshold: int = 0
    mask: int = 0  # bits of the random number that count; n bits
    floor: int = -(2**27)  # lowest potential and lowest threshold
    reset_mode: int = RESET_SUBTRACT_THRESHOLD
    v_reset: int = 0
    v_decrement: int = 0  # dV of RESET_SUBTRACT_CONSTANT
    leak_mode: int = LEAK_CONSTANT
    alpha: int = 0  # 0 to 255, over 256
    beta: int = 0
    theta_mode: int = LEAK_CONSTANT
    theta_alpha: int = 0
    theta_beta: int = 0
    theta_increment: int = 0
    refractory_phases: int = 0
    window_enabled: int = 0
    window_length: int = 1
    v_init: int = 0
    fire_type: int = FIRE_SPIKE
    seed: int = 0  # 32-bit shift register; 0 = no random threshold


class SomaParams(NamedTuple):
    """The somas of all cores: the fields of :class:`Soma`, each int64, shape (n_cores,), and a potential's width."""

    v_threshold: NDArray[np.int64]
    mask: NDArray[np.int64]
    floor: NDArray[np.int64]
    reset_mode: NDArray[np.int64]
    v_reset: NDArray[np.int64]
    v_decrement: NDArray[np.int64]
    leak_mode: NDArray[np.int64]
    alpha: NDArray[np.int64]
    beta: NDArray[np.int64]
    theta_mode: NDArray[np.int64]
    theta_alpha: NDArray[np.int64]
    theta_beta: NDArray[np.int64]
    theta_increment: NDArray[np.int64]
    refractory_phases: NDArray[np.int64]
    window_enabled: NDArray[np.int64]
    window_length: NDArray[np.int64]
    v_init: NDArray[np.int64]
    fire_type: NDArray[np.int64]
    seed: NDArray[np.int64]
    membrane_bits: NDArray[np.int64]  # shape (1,)


class SomaState(NamedTuple):
    """What the somas of all cores remember."""

    v: NDArray[np.int32]  # shape (n_cores, n_neurons): membrane potentials
    v_theta: NDArray[np.int32]  # shape (n_cores, n_neurons): adaptive part of the threshold
    refractory: NDArray[np.uint8]  # shape (n_cores, n_neurons): phases left
    lfsr: NDArray[np.int64]  # shape (n_cores,): 32-bit shift registers, unsigned
    window: NDArray[np.int64]  # shape (n_cores,): phases since the window began


@kernel
def lfsr_step(r: int) -> int:
    """Move a 32-bit shift register on by one; x^32 + x^7 + x^5 + x^3 + x^2 + x + 1, period 2^32 - 1."""
    bit = (r ^ (r >> 1) ^ (r >> 2) ^ (r >> 3) ^ (r >> 5) ^ (r >> 7)) & 1
    return (r >> 1) | (bit << 31)


@kernel
def soma_phase(
    params: SomaParams, state: SomaState, core: int, n_neurons: int, current: Any, fired: Any, membrane: Any
) -> tuple[Any, Any, Any]:
    """Run the soma of one core for one phase.

    Parameters
    ----------
    params, state
        Of all cores; ``state`` of this one is moved on.
    core, n_neurons
        Which core, and how many of its neurons are in use.
    current
        int32, shape (>= n_neurons,): what the dendrites collected.
    fired
        uint8, shape (>= n_neurons,), out: 1 where a neuron fired.
    membrane
        int32, shape (>= n_neurons,), out: the potential that the core's fire type asks for.

    Returns
    -------
    n_fired, changed, clamped
        Spikes; 0 if nothing at all in the state moved; potentials that did not fit their width (an overflow).
    """
    half = np.int64(1) << (params.membrane_bits[0] - 1)
    top, bottom = half - 1, -half
    v_threshold, mask, floor = params.v_threshold[core], params.mask[core], params.floor[core]
    theta_proportional, theta_alpha = params.theta_mode[core] == 1, params.theta_alpha[core]
    theta_beta, theta_increment = params.theta_beta[core], params.theta_increment[core]
    refractory_phases = params.refractory_phases[core]
    before_reset = params.fire_type[core] == 0
    window, window_length = state.window[core], params.window_length[core]
    v_row, theta_row, rest_row = state.v[core], state.v_theta[core], state.refractory[core]

    # The four resets as one: v <- (v & keep) + shift - (threshold & drop), masks all ones or all zeros.
    reset_mode = params.reset_mode[core]
    keep, drop, shift = np.int64(-1), np.int64(0), np.int64(0)
    if reset_mode == 0:
        keep, shift = np.int64(0), params.v_reset[core]
    elif reset_mode == 1:
        drop = np.int64(-1)
    elif reset_mode == 2:
        shift = -params.v_decrement[core]
    # The three leaks as one: v * 256 >> 8 is v, and v * 0 >> 8 is 0.
    alpha, beta = np.int64(256), params.beta[core]
    if window >= window_length:
        alpha, beta = np.int64(0), params.v_init[core]
    elif params.leak_mode[core] == 1:
        alpha = params.alpha[core]

    first_r = state.lfsr[core]
    r = first_r
    n_fired, changed, clamped = np.int64(0), np.int64(0), np.int64(0)
    resting = np.int64(0)
    for j in range(n_neurons):
        resting |= np.int64(rest_row[j])
    if r == 0 and resting + refractory_phases == 0 and not theta_proportional and theta_beta | theta_increment == 0:
        # Thresholds stand still and nobody is refractory: the same neuron without branches, for vector lanes.
        for j in range(n_neurons):
            before = np.int64(v_row[j])
            whole = before + np.int64(current[j])
            u = min(max(whole, bottom), top)
            threshold = max(v_threshold + np.int64(theta_row[j]), floor)
            fires = np.int64(u > threshold)
            reset = (u & keep) + shift - (threshold & drop) if fires != 0 else u
            leaked = (reset * alpha >> 8) + beta
            v = min(max(leaked, bottom), top)
            clamped += np.int64(u != whole) + np.int64(v != leaked)
            v = max(v, floor)
            n_fired += fires
            changed |= v ^ before
            fired[j] = fires
            membrane[j] = u if before_reset else v
            v_row[j] = v
    else:
        for j in range(n_neurons):
            v_theta = np.int64(theta_row[j])
            m = np.int64(0)
            if r != 0:
                r = lfsr_step(r)
                m = r & mask
                if r >> 31 != 0:
                    m = ~(~r & mask) + 1
                m = ((m + half) & (2 * half - 1)) - half
            threshold = max(v_threshold + v_theta + m, floor)
            before = np.int64(v_row[j])
            rest: Any = np.int64(rest_row[j])
            whole = before + np.int64(current[j]) if rest == 0 else before
            u = min(max(whole, bottom), top)
            fires = np.int64(u > threshold)
            reset = (u & keep) + shift - (threshold & drop) if fires != 0 else u
            leaked = (reset * alpha >> 8) + beta
            v = min(max(leaked, bottom), top)
            clamped += np.int64(u != whole) + np.int64(v != leaked)
            v = max(v, floor)
            n_fired += fires
            fired[j] = fires
            membrane[j] = u if before_reset else v
            later_theta = (v_theta * theta_alpha >> 8) + theta_beta if theta_proportional else v_theta + theta_beta
            later_theta = min(max(later_theta + theta_increment * fires, bottom), top)
            later_rest: Any = refractory_phases if fires != 0 else max(rest - 1, 0)
            changed |= (v ^ before) | (later_theta ^ v_theta) | (later_rest ^ rest)
            v_row[j] = v
            theta_row[j] = later_theta
            rest_row[j] = later_rest
    state.lfsr[core] = r
    changed |= r ^ first_r
    if params.window_enabled[core] != 0:
        # an 8-bit counter: one that starts above its length wraps before it comes to it
        later_window = 0 if window == window_length else (window + 1) & 255
        changed |= later_window ^ window
        state.window[core] = later_window
    return n_fired, np.int64(changed != 0), clamped


def soma_rest(params: SomaParams, state: SomaState) -> None:
    """Put all somas at rest: potentials at their initial value, everything else as a program starts."""
    state.v[:] = params.v_init[:, None]
    state.v_theta[:] = 0
    state.refractory[:] = 0
    state.lfsr[:] = params.seed
    state.window[:] = 0
