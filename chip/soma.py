"""Soma: integrate, fire, reset, leak, in integers, in the order of the TianjicX simulators; or look up an activation.

Equations of the neuron
-----------------------
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

What leaves
-----------
By fire type (the numbers are TianjicX's, but the last)::

    0 V before the reset     2 the same, cut     4 a spike
    1 V after the leak       3 the same, cut     6 the random number m     7 its low byte, signed
    8 table[index(U)]: an artificial neuron; it has no membrane, and nothing above moves

    cut(x)   = clamp(x >> cut_shift)            to the width of the values that the core sends; >> floors
    index(U) = clamp(U >> cut_shift)            to the table's address width, signed; as two's complement, so that a
                                                table of 256 runs f(0), f(1), ..., f(127), f(-128), ..., f(-1)

A cut that clamps is no overflow: clamping is what it is for. A whole membrane (0, 1) that does not fit the values'
width is one.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.jit import inline_kernel, kernel

__all__ = [
    "FIRE_CUT_AFTER_LEAK",
    "FIRE_CUT_BEFORE_RESET",
    "FIRE_MASK",
    "FIRE_MASK_BYTE",
    "FIRE_MEMBRANE_AFTER_LEAK",
    "FIRE_MEMBRANE_BEFORE_RESET",
    "FIRE_SPIKE",
    "FIRE_TABLE",
    "LEAK_CONSTANT",
    "LEAK_PROPORTIONAL",
    "RESET_NONE",
    "RESET_SUBTRACT_CONSTANT",
    "RESET_SUBTRACT_THRESHOLD",
    "RESET_TO_VALUE",
    "SOMA_DTYPE",
    "Soma",
    "SomaState",
    "cut",
    "lfsr_step",
    "look_up",
    "soma_phase",
    "soma_rest",
]

RESET_TO_VALUE, RESET_SUBTRACT_THRESHOLD, RESET_SUBTRACT_CONSTANT, RESET_NONE = 0, 1, 2, 3
LEAK_CONSTANT, LEAK_PROPORTIONAL = 0, 1
FIRE_MEMBRANE_BEFORE_RESET, FIRE_MEMBRANE_AFTER_LEAK, FIRE_CUT_BEFORE_RESET, FIRE_CUT_AFTER_LEAK = 0, 1, 2, 3
FIRE_SPIKE, FIRE_MASK, FIRE_MASK_BYTE, FIRE_TABLE = 4, 6, 7, 8


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
    cut_shift: int = 0  # bits, of the fire types that cut or look up


SOMA_DTYPE = np.dtype([(field, "<i8") for field in Soma._fields])
"""The somas of all cores, one record each, as the kernels read them."""


class SomaState(NamedTuple):
    """What the somas of all cores remember."""

    v: NDArray[np.int32]  # shape (n,), the neurons of all cores: membrane potentials
    v_theta: NDArray[np.int32]  # shape (n,): adaptive part of the threshold
    refractory: NDArray[np.uint8]  # shape (n,): phases left
    lfsr: NDArray[np.int64]  # shape (n_cores,): 32-bit shift registers, unsigned
    window: NDArray[np.int64]  # shape (n_cores,): phases since the window began


SMALL = 2**21  # a power of two; a reset leaves less than twice it, which times an alpha of 256 fits 32 bits


@kernel
def lfsr_step(r: int) -> int:
    """Move a 32-bit shift register on by one; x^32 + x^7 + x^5 + x^3 + x^2 + x + 1, period 2^32 - 1."""
    bit = (r ^ (r >> 1) ^ (r >> 2) ^ (r >> 3) ^ (r >> 5) ^ (r >> 7)) & 1
    return (r >> 1) | (bit << 31)


@inline_kernel
def _lanes(
    v: Any,
    v_theta: Any,
    current: Any,
    fired: Any,
    v_threshold: Any,
    floor: Any,
    keep: Any,
    drop: Any,
    shift: Any,
    alpha: Any,
    beta: Any,
    limits: tuple[Any, Any],
    before_reset: bool,
) -> tuple[Any, Any, Any]:
    """Run neurons whose thresholds stand still, of which none is refractory, in lanes of 32 bits.

    The four resets are one: v <- (v & keep) + shift - (threshold & drop), masks all ones or all zeros. So are the three
    leaks: v * 256 >> 8 is v, and v * 0 >> 8 is 0; v * alpha needs 37 bits, and is taken apart.
    """
    bottom, top = limits
    n_fired, changed, clamped = np.int32(0), np.int32(0), np.int32(0)
    for j in range(len(v)):
        before = v[j]
        whole = np.int32(before + current[j])
        u = min(max(whole, bottom), top)
        threshold = max(np.int32(v_threshold + v_theta[j]), floor)
        reset = np.int32(np.int32(np.int32(u & keep) + shift) - np.int32(threshold & drop))
        fires = u > threshold
        if not fires:
            reset = u
        high, low = np.int32(reset >> 8), np.int32(reset & 255)
        leaked = np.int32(np.int32(high * alpha) + np.int32(np.int32(low * alpha) >> 8))
        leaked = np.int32(leaked + beta)
        later = min(max(leaked, bottom), top)
        clamped = np.int32(clamped + np.int32(u != whole) + np.int32(later != leaked))
        later = max(later, floor)
        n_fired = np.int32(n_fired + np.int32(fires))
        changed = np.int32(changed | np.int32(later ^ before))
        fired[j] = np.uint8(fires)
        current[j] = u if before_reset else later
        v[j] = later
    return np.int64(n_fired), np.int64(changed), np.int64(clamped)


@inline_kernel
def _are_small(v: Any, v_theta: Any, current: Any) -> bool:
    """Tell whether each potential with its input is below ``SMALL`` in magnitude, and no threshold is adapted."""
    large, moved = np.int32(0), np.int32(0)
    for j in range(len(v)):
        whole = np.int32(v[j] + current[j])
        large = np.int32(large | np.int32(whole ^ np.int32(whole >> 31)))
        moved = np.int32(moved | v_theta[j])
    return bool((large < SMALL) & (moved == 0))


@inline_kernel
def _small_lanes(
    v: Any,
    current: Any,
    fired: Any,
    threshold: Any,
    floor: Any,
    keep: Any,
    shift: Any,
    alpha: Any,
    beta: Any,
    before_reset: bool,
) -> tuple[Any, Any]:
    """Do as ``_lanes`` where ``_are_small``: nothing can be clamped, and a product with alpha fits 32 bits."""
    n_fired, changed = np.int32(0), np.int32(0)
    for j in range(len(v)):
        before = v[j]
        u = np.int32(before + current[j])
        reset = np.int32(np.int32(u & keep) + shift)
        fires = u > threshold
        if not fires:
            reset = u
        later = max(np.int32(np.int32(np.int32(reset * alpha) >> 8) + beta), floor)
        n_fired = np.int32(n_fired + np.int32(fires))
        changed = np.int32(changed | np.int32(later ^ before))
        fired[j] = np.uint8(fires)
        current[j] = u if before_reset else later
        v[j] = later
    return np.int64(n_fired), np.int64(changed)


@inline_kernel
def soma_phase(
    p: Any,
    v_row: Any,
    theta_row: Any,
    rest_row: Any,
    first_r: int,
    window: int,
    current: Any,
    fired: Any,
    bits: int,
    reach: int,
) -> tuple[Any, Any, Any, Any, Any]:
    """Run the soma of one core for one phase.

    Parameters
    ----------
    p
        Its record of SOMA_DTYPE.
    v_row, theta_row, rest_row, first_r, window
        Its part of :class:`SomaState`; the arrays are moved on, of the numbers the later ones are returned.
    current
        int32, shape (n_neurons,): what the dendrites collected; afterwards what the fire type asks for, not cut.
    fired
        uint8, shape (>= n_neurons,), out: 1 where a neuron fired.
    bits
        Width of a potential.
    reach
        A bound of the magnitude of every number in ``current``.

    Returns
    -------
    n_fired, changed, clamped, r, window
        Spikes; 0 if nothing at all in the state moved; potentials that did not fit their width (an overflow).
    """
    n_neurons = len(v_row)
    half = np.int64(1) << (bits - 1)
    top, bottom = half - 1, -half
    fire_type = p["fire_type"]
    before_reset = fire_type == 0 or fire_type == 2
    window_length = p["window_length"]
    keep, drop, shift = np.int64(-1), np.int64(0), np.int64(0)
    if p["reset_mode"] == 0:
        keep, shift = np.int64(0), p["v_reset"]
    elif p["reset_mode"] == 1:
        drop = np.int64(-1)
    elif p["reset_mode"] == 2:
        shift = -p["v_decrement"]
    alpha, beta = np.int64(256), p["beta"]
    if window >= window_length:
        alpha, beta = np.int64(0), p["v_init"]
    elif p["leak_mode"] == 1:
        alpha = p["alpha"]
    theta_proportional = p["theta_mode"] == 1
    theta_beta, theta_increment, refractory_phases = p["theta_beta"], p["theta_increment"], p["refractory_phases"]

    r = first_r
    moving = r | theta_beta | theta_increment | refractory_phases | (p["theta_mode"] & 1)
    if moving == 0:
        resting = np.uint8(0)
        for j in range(n_neurons):
            resting = np.uint8(resting | rest_row[j])
        moving = np.int64(resting)
    # 28-bit potentials, thresholds of 29 and inputs of 30 bits leave room for every sum in 32
    is_still = moving == 0 and fire_type < 6 and bits <= 28 and reach < 2**30
    threshold = max(p["v_threshold"], p["floor"])
    taken_away = shift - (threshold & drop)
    # nobody small is above a threshold of SMALL or more, so where a spike happens what it takes away is small, too;
    # after leak and bias less than 2^23 is left, which 24 bits hold without clamping
    has_small_steps = bits >= 24 and threshold > -SMALL and abs(shift) < SMALL and abs(beta) < SMALL
    if is_still and has_small_steps and _are_small(v_row, theta_row, current):
        clamped = np.int64(0)
        n_fired, changed = _small_lanes(
            v_row,
            current,
            fired,
            np.int32(threshold),
            np.int32(p["floor"]),
            np.int32(keep),
            np.int32(taken_away),
            np.int32(alpha),
            np.int32(beta),
            before_reset,
        )
    elif is_still:
        n_fired, changed, clamped = _lanes(
            v_row,
            theta_row,
            current,
            fired,
            np.int32(p["v_threshold"]),
            np.int32(p["floor"]),
            np.int32(keep),
            np.int32(drop),
            np.int32(shift),
            np.int32(alpha),
            np.int32(beta),
            (np.int32(bottom), np.int32(top)),
            before_reset,
        )
    else:
        mask, v_threshold, floor, theta_alpha = p["mask"], p["v_threshold"], p["floor"], p["theta_alpha"]
        n_fired, changed, clamped = np.int64(0), np.int64(0), np.int64(0)
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
            if fire_type == 6:
                current[j] = m
            elif fire_type == 7:
                current[j] = ((m + 128) & 255) - 128
            else:
                current[j] = u if before_reset else v
            later_theta = (v_theta * theta_alpha >> 8) + theta_beta if theta_proportional else v_theta + theta_beta
            later_theta = min(max(later_theta + theta_increment * fires, bottom), top)
            later_rest: Any = refractory_phases if fires != 0 else max(rest - 1, 0)
            changed |= (v ^ before) | (later_theta ^ v_theta) | (later_rest ^ rest)
            v_row[j] = v
            theta_row[j] = later_theta
            rest_row[j] = later_rest
        changed |= r ^ first_r
    later_window = window
    if p["window_enabled"] != 0:
        # an 8-bit counter: one that starts above its length wraps before it comes to it
        later_window = 0 if window == window_length else (window + 1) & 255
        changed |= later_window ^ window
    return n_fired, np.int64(changed != 0), clamped, r, later_window


@kernel
def look_up(table: Any, shift: int, current: Any) -> None:
    """Replace each number by what a table says of it; int32, the table's length a power of two."""
    half = np.int64(len(table) >> 1)
    mask = np.int64(len(table) - 1)
    for j in range(len(current)):
        current[j] = table[min(max(np.int64(current[j]) >> shift, -half), half - 1) & mask]


@kernel
def cut(current: Any, shift: int, low: int, high: int) -> Any:
    """Replace each number by clamp(number >> shift). Returns how many were clamped."""
    n_clamped = np.int32(0)
    bottom, top = np.int32(low), np.int32(high)
    for j in range(len(current)):
        shifted = np.int32(current[j] >> shift)
        bounded = min(max(shifted, bottom), top)
        n_clamped = np.int32(n_clamped + np.int32(shifted != bounded))
        current[j] = bounded
    return np.int64(n_clamped)


def soma_rest(somas: NDArray[np.void], neurons: NDArray[np.int64], state: SomaState) -> None:
    """Put all somas at rest.

    Parameters
    ----------
    somas
        SOMA_DTYPE, of all cores.
    neurons
        int64, shape (n_cores + 1,): where the neurons of each core start in the state.
    state
        Potentials go to their initial value, everything else to where a program starts.
    """
    state.v[:] = np.repeat(somas["v_init"], np.diff(neurons))
    state.v_theta[:] = 0
    state.refractory[:] = 0
    state.lfsr[:] = somas["seed"]
    state.window[:] = 0
