"""The walk back through units: leaks, spikes, and what spikes that did not happen would have been worth.

Equations: ``plasticity.backward``.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.crossing import drift
from neurons.program import (
    ADAPTIVE_LIF,
    CURRENT_LIF,
    DIRECT,
    DIRECT_END,
    EXTRA,
    FIRED,
    FIRST,
    HARD,
    INTEGRATE_FIRE,
    LEAKY_INTEGRATOR,
    LIF,
    MODEL,
    PLACE,
    REFRACTORY_US,
    TARGET,
    TAU_2,
    TAU_MEM,
    THRESHOLD,
    UNIFORM,
    UNIT_OF,
    UNITS,
    WHAT,
    WHEN,
    Program,
)
from plasticity.replay import (
    ONE,
    RECTANGLE,
    SPIKES,
    ZERO,
    Links,
    Options,
    Rows,
    count_pieces,
    held_and_free,
    piece_of,
    takes,
    touched_us,
    typed,
)
from stream.jit import inline_kernel, inner_kernel

__all__ = ["Gradients", "Walk", "ask", "cross_back", "flow_back", "through_test", "through_tests"]


class Walk(NamedTuple):
    """Where a walk stands."""

    lam: NDArray[Any]  # real, shape (n_all,); to begin: dL/dv at the window's end
    lam_w: NDArray[Any]  # real, shape (n_all,); to begin: 0
    source: NDArray[np.float64]  # float64, shape (n_all,): dL/d(integral of v) of leaky integrators
    t_us: NDArray[np.int64]  # int64, shape (n_blocks,); to begin: the window's end
    early_us: NDArray[np.float64]  # float64, shape (n_blocks,): how much before ``t_us`` it is; to begin: 0
    worth: NDArray[np.float64]  # float64, shape (tape's room,); to begin: what spikes are worth to the loss itself
    mu: NDArray[Any]  # real, shape (n_fast,); to begin: 0
    mu_us: NDArray[np.int64]  # int64, shape (n_rows,)
    is_live: NDArray[np.bool_]  # bool, shape (n_rows,): whether mu of the row is not 0; to begin: False
    terminal: NDArray[np.float64]  # float64, shape (n_all_pre, 2): by resource and release after a spike; to begin: 0
    terminal_us: NDArray[np.float64]  # float64, shape (n_all_pre,): time from that spike to its next
    held_us: NDArray[np.int64]  # int64, shape (n_all,): as at the window's end
    lag_us: NDArray[np.float64]  # float64, shape (n_all,)
    scratch: NDArray[Any]  # real, shape (3, longest row)
    peek: NDArray[Any]  # real, shape (n_all,): scratch
    would: NDArray[np.float64]  # float64, shape (n_all,): what spikes that did not happen would have been worth
    owed: NDArray[np.float64]  # float64, shape (n_all_pre,): scratch, the sum of a row's amplitudes in a phase
    first_at: NDArray[np.int64]  # int64, shape (n_all_pre,): scratch, the first delivery of a row in a phase
    due: NDArray[np.float64]  # float64, shape (n_all_pre,): what the rule at the end makes of an amplitude; to begin: 0


class Gradients(NamedTuple):
    """Derivatives, added to; parameters of the same shape stand where the names say."""

    weight: NDArray[Any]  # real, shape (n_weights,): Program.weight
    tau: NDArray[Any]  # real, shape (n_all,): Program.constant[TAU_MEM]
    tau_2: NDArray[Any]  # real, shape (n_all,): Program.constant[TAU_2] of adaptive units
    sliding: NDArray[Any]  # real, shape (n_all_post,): Table.sliding
    local_rate: NDArray[np.float64]  # float64, shape (n_all_pre,): Table.local_rate
    share: NDArray[Any]  # real, shape (n_share,): Table.share
    mixing: NDArray[np.float64]  # float64, shape (n_projections,): Table.number[:, MIXING]
    tau_fast: NDArray[np.float64]  # float64, shape (n_projections,): Table.number[:, TAU_FAST]
    terminal: NDArray[np.float64]  # float64, shape (n_all_pre, 5): Table.terminal


@inline_kernel
def flow_back(
    program: Program,
    walk: Walk,
    gradients: Gradients,
    p: int,
    first: int,
    n: int,
    b: int,
    t_us: int,
    has_v: bool,
    v: Any,
    w: Any,
    at: int,
) -> None:
    """Take lam of a block back to ``t_us``; with ``has_v``, ``v[at:at + n]`` is where its units stood then."""
    row, constant = program.population[p], program.constant
    model = row[MODEL]
    lam, lam_w = walk.lam, walk.lam_w
    real = lam.dtype.type
    t_1: Any = walk.t_us[b]
    early_us = walk.early_us[b]
    walk.t_us[b] = t_us
    walk.early_us[b] = 0.0
    dt_us = np.float64(t_1 - t_us) - early_us
    tiny, zero = real(1e-30), real(0.0)
    if dt_us == 0.0:
        return
    if model == THRESHOLD:
        for j in range(first, first + n):
            lam[j] = zero
        return
    if row[UNIFORM] and row[REFRACTORY_US] == 0 and model == LIF:
        tau_us = constant[TAU_MEM, first]
        factor, by_tau = real(math.exp(-dt_us / tau_us)), real(dt_us / (tau_us * tau_us))
        here = lam[first : first + n]
        for j in range(n):
            later = here[j] * factor
            here[j] = later if abs(later) > tiny else zero
        if has_v:
            stood, grown = v[at : at + n], gradients.tau[first : first + n]
            for j in range(n):
                grown[j] += here[j] * stood[j] * by_tau
        return
    for j in range(n):
        u = first + j
        if model == LEAKY_INTEGRATOR:
            tau_us = constant[TAU_MEM, u]
            left = math.exp(-dt_us / tau_us)
            before = np.float64(lam[u])
            rest = -math.expm1(-dt_us / tau_us)
            lam[u] = real(before * left + walk.source[u] * tau_us * rest)
            if has_v:
                by_tau_here = before * left * dt_us / (tau_us * tau_us) + walk.source[u] * (
                    rest - left * dt_us / tau_us
                )
                gradients.tau[u] += real(np.float64(v[at + j]) * by_tau_here)
            continue
        held, free = held_and_free(walk.held_us[u], walk.lag_us[u], t_us, early_us, t_1)
        lam_v_j, lam_w_j = np.float64(lam[u]), np.float64(lam_w[u])
        if model == CURRENT_LIF:
            lam_w_j = lam_w_j * math.exp(-free / constant[TAU_2, u])
            lam_w_j += lam_v_j * drift(0.0, 1.0, free, constant[TAU_MEM, u], constant[TAU_2, u])
            lam_w_j *= math.exp(-held / constant[TAU_2, u])
        elif model == ADAPTIVE_LIF:
            tau_2_us = constant[TAU_2, u]
            lam_w_j *= math.exp(-dt_us / tau_2_us)
            if has_v:
                gradients.tau_2[u] += real(lam_w_j * np.float64(w[at + j]) * dt_us / (tau_2_us * tau_2_us))
        if model != INTEGRATE_FIRE:
            tau_us = constant[TAU_MEM, u]
            lam_v_j *= math.exp(-free / tau_us)
            if has_v and model != CURRENT_LIF:
                gradients.tau[u] += real(lam_v_j * np.float64(v[at + j]) * free / (tau_us * tau_us))
        lam[u] = real(lam_v_j) if abs(lam_v_j) > 1e-30 else zero
        lam_w[u] = real(lam_w_j) if abs(lam_w_j) > 1e-30 else zero


@inner_kernel
def _psi(options: Options, distance: float, has_fired: bool) -> Any:
    """Return what stands in for the derivative of a spike."""
    if options.surrogate == SPIKES:
        return 1.0 if has_fired and distance < options.width else 0.0
    if options.surrogate == RECTANGLE:
        return 1.0 if abs(distance) < options.width else 0.0
    return 1.0 / (1.0 + abs(distance) / options.width) ** 2


@inner_kernel
def through_test(
    program: Program, walk: Walk, options: Options, p: int, j: int, u: float, has_fired: bool, worth: float
) -> None:
    """Take lam of a unit back through the test of its threshold, and its reset if it fired."""
    row = program.population[p]
    lam: float = np.float64(walk.lam[j])
    lam_w = np.float64(walk.lam_w[j])
    real = walk.lam.dtype.type
    theta: float = np.float64(program.theta[j])
    down = np.float64(program.down[j])
    if row[MODEL] == ADAPTIVE_LIF:
        worth += program.constant[EXTRA, j] * lam_w
        # its threshold as it stood, which only the rows know; without them the spike was just above it
        theta = u - np.float64(walk.peek[j]) if options.has_rows else u
    psi = _psi(options, u - theta, has_fired)
    if row[MODEL] == THRESHOLD:
        change = psi * worth
        lam = 0.0
    elif row[HARD]:
        change = psi * (worth + lam * (down - u))
        lam = 0.0 if has_fired else lam
    else:
        change = psi * (worth - down * lam)
    walk.lam[j] = real(lam + change)
    if row[MODEL] == ADAPTIVE_LIF:
        walk.lam_w[j] = real(lam_w - change)


@inner_kernel
def cross_back(
    program: Program, walk: Walk, options: Options, gradients: Gradients, links: Links, tape: Any, taped: Any, k: int
) -> None:
    """Take lam of a unit back through a spike between events."""
    p, unit, t_us = tape[k, PLACE], tape[k, UNIT_OF], tape[k, WHEN]
    row = program.population[p]
    j, b = row[FIRST] + unit, options.block[p, 1] + unit
    lag_us = taped[k]
    real = walk.lam.dtype.type
    flow_back(program, walk, gradients, p, j, ONE, b, t_us, False, walk.lam, walk.lam, ZERO)
    # from t_us to where it really was: free, or held
    walk.held_us[j], walk.lag_us[j] = links.held_us[k], links.lag_us[k]
    lam, lam_w = np.float64(walk.lam[j]), np.float64(walk.lam_w[j])
    model, constant = row[MODEL], program.constant
    is_held = row[REFRACTORY_US] > 0
    if model == CURRENT_LIF:
        lam_w *= math.exp(-lag_us / constant[TAU_2, j])
        if not is_held:
            lam_w += lam * drift(0.0, 1.0, lag_us, constant[TAU_MEM, j], constant[TAU_2, j])
    elif model == ADAPTIVE_LIF:
        lam_w *= math.exp(-lag_us / constant[TAU_2, j])
    if not is_held and model != INTEGRATE_FIRE:
        lam *= math.exp(-lag_us / constant[TAU_MEM, j])
    walk.lam[j], walk.lam_w[j] = real(lam), real(lam_w)
    theta = np.float64(program.theta[j])
    walk.peek[j] = real(0.0)  # it stood at its threshold
    through_test(program, walk, options, p, j, theta, True, walk.worth[k])
    walk.t_us[b] = t_us
    walk.early_us[b] = lag_us


@inner_kernel
def _peek(program: Program, walk: Walk, options: Options, p: int, t_us: int) -> None:
    """Write lam of those that population p leads to, as it is at ``t_us``, into ``walk.peek``."""
    row = program.population[p]
    real = walk.lam.dtype.type
    for d in range(row[DIRECT], row[DIRECT_END]):
        target = program.projection[program.links[d], TARGET]
        it = program.population[target]
        block = options.block[target, 0]
        lam = walk.lam_w if it[MODEL] == CURRENT_LIF else walk.lam
        for unit in range(it[UNITS]):
            j = it[FIRST] + unit
            b = options.block[target, 1] + unit // block
            at_us = touched_us(program, options, target, t_us)
            dt_us = np.float64(walk.t_us[b] - at_us) - walk.early_us[b]
            value: float = np.float64(lam[j])
            if it[MODEL] == LEAKY_INTEGRATOR:
                tau_us = program.constant[TAU_MEM, j]
                left = math.exp(-dt_us / tau_us)
                value = value * left - walk.source[j] * tau_us * math.expm1(-dt_us / tau_us)
            elif dt_us > 0.0:
                held, free = held_and_free(walk.held_us[j], walk.lag_us[j], at_us, walk.early_us[b], walk.t_us[b])
                if it[MODEL] == CURRENT_LIF:
                    value *= math.exp(-free / program.constant[TAU_2, j])
                    value += np.float64(walk.lam[j]) * drift(
                        0.0, 1.0, free, program.constant[TAU_MEM, j], program.constant[TAU_2, j]
                    )
                    value *= math.exp(-held / program.constant[TAU_2, j])
                elif it[MODEL] == THRESHOLD:
                    value = 0.0
                elif it[MODEL] != INTEGRATE_FIRE:
                    value *= math.exp(-free / program.constant[TAU_MEM, j])
            if not takes(program, walk.held_us, target, j, at_us):
                value = 0.0
            walk.peek[j] = real(value)


@inner_kernel
def _would_be_worth(program: Program, walk: Walk, p: int, unit: int) -> Any:
    """Return what a spike that did not happen would have been worth; ``_peek`` came before."""
    row = program.population[p]
    worth = 0.0
    for d in range(row[DIRECT], row[DIRECT_END]):
        q: Any = program.links[d]
        target = program.population[program.projection[q, TARGET]]
        for piece in range(count_pieces(program, q, unit)):
            start: Any
            n: Any
            at: Any
            start, n, at = piece_of(program, q, unit, typed(piece))
            for j in range(n):
                worth += np.float64(program.weight[at + j]) * np.float64(walk.peek[target[FIRST] + start + j])
    return worth


@inner_kernel
def ask(
    program: Program, walk: Walk, options: Options, rows: Rows, p: int, unit: int, n: int, at: int, t_us: int
) -> None:
    """Fill ``walk.would`` for those of a piece that are near their thresholds; ``rows.u[at]`` is its first one's."""
    row = program.population[p]
    _peek(program, walk, options, p, t_us)
    for j in range(n):
        i = row[FIRST] + unit + j
        distance = np.float64(rows.u[at + j]) - np.float64(program.theta[i])
        if row[MODEL] == ADAPTIVE_LIF:
            distance -= np.float64(rows.w[at + j])
        walk.would[i] = 0.0
        if _psi(options, distance, False) != 0.0:
            walk.would[i] = _would_be_worth(program, walk, p, typed(unit + j))


@inner_kernel
def through_tests(
    program: Program,
    walk: Walk,
    options: Options,
    links: Links,
    rows: Rows,
    tape: Any,
    taped: Any,
    k: int,
    end: int,
    p: int,
    unit: int,
    n: int,
    at_row: int,
    t_us: int,
) -> None:
    """Take a piece that was reached back through the test of its thresholds, where psi asks all units."""
    row = program.population[p]
    first = row[FIRST] + unit
    for j in range(n - 1, -1, -1):
        entry: Any = -ONE
        for s in range(k + 1, end):
            if tape[s, WHAT] == FIRED and tape[s, UNIT_OF] == unit + j:
                entry = typed(s)
        has_fired = entry >= 0
        # a unit in its refractory time is not asked
        if not has_fired and row[REFRACTORY_US] > 0 and walk.held_us[first + j] > t_us:
            continue
        u = np.float64(rows.u[at_row + j])
        theta = np.float64(program.theta[first + j])
        if row[MODEL] == ADAPTIVE_LIF:
            theta += np.float64(rows.w[at_row + j])
        psi = _psi(options, u - theta, has_fired)
        if psi == 0.0 and not has_fired:
            continue
        worth = walk.worth[entry] if has_fired else walk.would[first + j]
        if row[MODEL] == ADAPTIVE_LIF:
            walk.peek[first + j] = walk.peek.dtype.type(u - theta)
        if has_fired:
            walk.held_us[first + j], walk.lag_us[first + j] = links.held_us[entry], links.lag_us[entry]
        through_test(program, walk, options, p, first + j, u, has_fired, worth)
