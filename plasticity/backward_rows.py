"""The walk back through what a spike reaches: a row of weights, the local rule that changed it, its tired terminal.

Equations: ``plasticity.backward``.
"""

import math
from typing import Any

import numpy as np

from neurons.program import (
    CURRENT_LIF,
    FIRST,
    MODEL,
    PLACE,
    REFRACTORY_US,
    TARGET,
    UNIFORM,
    UNIT_OF,
    WEIGHT,
    WHEN,
    Program,
)
from plasticity.backward_units import Gradients, Walk
from plasticity.hebbian import ADD, BLEND, SOFTMAX
from plasticity.replay import (
    Rows,
    Standing,
    amplitude_of,
    count_pieces,
    has_phases,
    hebb_factor,
    is_late,
    piece_of,
    post_term,
    row_of,
    takes,
    typed,
    weigh_row,
)
from plasticity.table import (
    FAST_MAX,
    FIRST_FAST,
    FIRST_POST,
    FIRST_PRE,
    FORM,
    MIXING,
    POST_TERM,
    TAU_FAST,
    Table,
)
from stream.jit import inline_kernel, inner_kernel
from stream.lanes import dot

__all__ = ["end_terminals", "late_back", "through_row", "through_rule", "through_terminal"]


@inner_kernel
def _through_change(
    program: Program,
    table: Table,
    walk: Walk,
    gradients: Gradients,
    q: int,
    pre: int,
    unit: int,
    n: int,
    at: int,
    hebb: Any,
    u: Any,
    at_u: int,
    amplitude: float,
    t_us: int,
) -> float:
    """Take a piece back through the change of a row of hebb at ``t_us``, to right before it.

    Whoever calls this sets the row's time when all pieces of it are through (``_set_row_times``).

    Parameters
    ----------
    hebb
        real, shape (n,): the row before.
    u, at_u
        real, shape (any,): ``u[at_u:at_u + n]`` are the potentials that the rule saw.

    Returns
    -------
    float
        What ``local_rate`` times the amplitude was worth.
    """
    place, number = table.place[q], table.number[q]
    first, i = program.population[program.projection[q, TARGET], FIRST] + unit, place[FIRST_PRE] + pre
    real = walk.lam.dtype.type
    zero = real(0.0)
    first_post = place[FIRST_POST] + unit
    at_fast = place[FIRST_FAST] + at - program.projection[q, WEIGHT]
    which = row_of(program, table, q, pre, at)
    most = real(number[FAST_MAX])
    rate = real(amplitude * np.float64(table.local_rate[i]))
    z, slope, product = walk.scratch[0, :n], walk.scratch[1, :n], walk.scratch[2, :n]
    mu, lam = walk.mu[at_fast : at_fast + n], walk.lam[first : first + n]
    post_term(program, table, q, first, unit, n, u, at_u, walk.scratch)
    dt_us = np.float64(walk.mu_us[which] - t_us)
    left = real(hebb_factor(t_us, walk.mu_us[which], number[TAU_FAST]))
    for j in range(n):
        mu[j] *= left
    for j in range(n):
        product[j] = min(max(hebb[j] + rate * z[j], -most), most)
    gradients.tau_fast[q] += np.float64(dot(mu, product, n)) * dt_us / (number[TAU_FAST] * number[TAU_FAST])
    for j in range(n):
        mu[j] = mu[j] if abs(hebb[j] + rate * z[j]) <= most else zero
    by_passed = np.float64(dot(mu, z, n))
    gradients.local_rate[i] += amplitude * by_passed
    mean = real(by_passed) if place[POST_TERM] == SOFTMAX else zero
    for j in range(n):
        slope[j] *= rate * (mu[j] - mean)
    sliding, theta = gradients.sliding[first_post : first_post + n], program.theta[first : first + n]
    for j in range(n):
        sliding[j] -= slope[j]
    if program.population[program.projection[q, TARGET], UNIFORM]:
        inverse = real(1.0) / theta[0]
        for j in range(n):
            lam[j] += slope[j] * inverse
    else:
        for j in range(n):
            lam[j] += slope[j] * (real(1.0) / theta[j])
    return by_passed


@inner_kernel
def late_back(
    program: Program,
    table: Table,
    walk: Walk,
    gradients: Gradients,
    start: Standing,
    tape: Any,
    taped: Any,
    rows: Rows,
    k: int,
    p: int,
) -> None:
    """Walk back over what changed in hebb at the end of a phase, entry k, of population p."""
    t_us: Any = tape[k, WHEN]
    e_0: Any = typed(k)
    while e_0 > 0 and tape[e_0 - 1, WHEN] >= t_us - program.phase_us:
        e_0 -= 1
    for e in range(e_0, k):
        if is_late(program, table, tape, e, p):
            i = table.place[tape[e, PLACE], FIRST_PRE] + tape[e, UNIT_OF]
            walk.first_at[i] = -1
    for e in range(e_0, k):
        if is_late(program, table, tape, e, p):
            i = table.place[tape[e, PLACE], FIRST_PRE] + tape[e, UNIT_OF]
            if walk.first_at[i] < 0:
                walk.first_at[i] = e
                walk.owed[i] = start.owed[i] if e_0 == 0 else 0.0
            walk.owed[i] += amplitude_of(table, rows, tape, taped, e)
    for e in range(k - 1, e_0 - 1, -1):
        if not is_late(program, table, tape, e, p):
            continue
        q: Any = tape[e, PLACE]
        pre: Any = tape[e, UNIT_OF]
        i = table.place[q, FIRST_PRE] + pre
        if walk.first_at[i] != e:
            continue
        walk.due[i] = 0.0
        at_row: Any = rows.at[e]
        for piece in range(count_pieces(program, q, pre)):
            unit: Any
            n: Any
            at: Any
            unit, n, at = piece_of(program, q, pre, typed(piece))
            if walk.is_live[row_of(program, table, q, pre, at)]:
                hebb = rows.late[at_row : at_row + n]
                by_passed = _through_change(
                    program,
                    table,
                    walk,
                    gradients,
                    q,
                    pre,
                    unit,
                    n,
                    at,
                    hebb,
                    rows.u,
                    rows.at[k] + unit,
                    walk.owed[i],
                    t_us,
                )
                walk.due[i] += np.float64(table.local_rate[i]) * by_passed
            at_row += n
        for piece in range(count_pieces(program, q, pre)):
            unit, n, at = piece_of(program, q, pre, typed(piece))
            which = row_of(program, table, q, pre, at)
            if walk.is_live[which]:
                walk.mu_us[which] = t_us


@inline_kernel
def through_rule(
    program: Program,
    table: Table,
    walk: Walk,
    rows: Rows,
    gradients: Gradients,
    q: int,
    pre: int,
    p: int,
    unit: int,
    n: int,
    at: int,
    at_row: int,
    amplitude: float,
    t_us: int,
    now_us: int,
    is_asked: bool,
) -> Any:
    """Take a piece back through rule and row; returns what its amplitude is worth, if that ``is_asked``."""
    way, place, number = program.projection[q], table.place[q], table.number[q]
    row = program.population[p]
    real = walk.lam.dtype.type
    zero, one = real(0.0), real(1.0)
    first, i = row[FIRST] + unit, place[FIRST_PRE] + pre
    at_fast = place[FIRST_FAST] + at - way[WEIGHT]
    which = row_of(program, table, q, pre, at)
    a, alpha = real(amplitude), real(number[MIXING])
    taken, product = walk.scratch[0, :n], walk.scratch[2, :n]  # taken: what of lam the row reached
    mu, hebb = walk.mu[at_fast : at_fast + n], rows.hebb[at_row : at_row + n]
    by_passed = 0.0
    if not walk.is_live[which]:
        for j in range(n):
            mu[j] = zero
    elif not has_phases(program, p):
        by_passed = _through_change(
            program, table, walk, gradients, q, pre, unit, n, at, hebb, rows.u, at_row, amplitude, t_us
        )
    elif walk.mu_us[which] > now_us:  # from the phase's end to its begin
        dt_us = np.float64(walk.mu_us[which] - now_us)
        left = real(hebb_factor(now_us, walk.mu_us[which], number[TAU_FAST]))
        for j in range(n):
            mu[j] *= left
        gradients.tau_fast[q] += np.float64(dot(mu, hebb, n)) * dt_us / (number[TAU_FAST] * number[TAU_FAST])
    into = walk.lam_w[first : first + n] if row[MODEL] == CURRENT_LIF else walk.lam[first : first + n]
    for j in range(n):
        taken[j] = into[j]
    if row[REFRACTORY_US] > 0:
        for j in range(n):
            if not takes(program, walk.held_us, p, first + j, now_us):
                taken[j] = zero
    weight, d_weight = program.weight[at : at + n], gradients.weight[at : at + n]
    if place[FORM] == ADD:
        for j in range(n):
            d_weight[j] += a * taken[j]
        gradients.mixing[q] += amplitude * np.float64(dot(taken, hebb, n))
        for j in range(n):
            mu[j] += a * alpha * taken[j]
    else:
        is_blend = place[FORM] == BLEND
        for j in range(n):
            part = table.share[at_fast + j]
            rest = one - part
            d_weight[j] += a * part * taken[j]
            product[j] = rest * hebb[j]
            if is_blend:
                gradients.share[at_fast + j] += a * taken[j] * (weight[j] - hebb[j])
                mu[j] += a * rest * taken[j]
            else:
                mu[j] += a * alpha * rest * taken[j]
        if not is_blend:
            gradients.mixing[q] += amplitude * np.float64(dot(taken, product, n))
    if not is_asked:
        return 0.0
    weigh_row(table, place[FORM], alpha, weight, hebb, at_fast, n, product)
    return np.float64(dot(product, taken, n)) + np.float64(table.local_rate[i]) * by_passed


@inline_kernel
def through_row(
    program: Program,
    walk: Walk,
    gradients: Gradients,
    p: int,
    first: int,
    n: int,
    at: int,
    amplitude: float,
    now_us: int,
    is_asked: bool,
) -> Any:
    """Take a piece back through its row of weights; returns what its amplitude is worth, if that ``is_asked``."""
    row = program.population[p]
    real = walk.lam.dtype.type
    a = real(amplitude)
    into = walk.lam_w[first : first + n] if row[MODEL] == CURRENT_LIF else walk.lam[first : first + n]
    weight, d_weight = program.weight[at : at + n], gradients.weight[at : at + n]
    if row[REFRACTORY_US] > 0:
        total = 0.0
        for j in range(n):
            if takes(program, walk.held_us, p, first + j, now_us):
                d_weight[j] += a * into[j]
                total += np.float64(weight[j]) * np.float64(into[j])
        return total
    for j in range(n):
        d_weight[j] += a * into[j]
    if not is_asked:
        return 0.0
    return np.float64(dot(weight, into, n))


@inner_kernel
def through_terminal(
    table: Table, walk: Walk, rows: Rows, gradients: Gradients, k: int, i: int, by_amplitude: float
) -> None:
    """Take the derivatives by an input's resource and release back over its spike, entry k."""
    depletion, tau_rec_us, f_rest, f_step, tau_fac_us = table.terminal[i]
    resource, release = rows.terminal[k, 0], rows.terminal[k, 1]
    # from right after this spike to right before the next one
    dt_us = walk.terminal_us[i]
    after_r, after_f = resource * (1.0 - depletion), release + (1.0 - release) * f_step
    by_r, by_f = walk.terminal[i, 0], walk.terminal[i, 1]
    if by_r != 0.0 or by_f != 0.0:
        left_r, left_f = math.exp(-dt_us / tau_rec_us), math.exp(-dt_us / tau_fac_us)
        gradients.terminal[i, 1] -= by_r * (1.0 - after_r) * left_r * dt_us / (tau_rec_us * tau_rec_us)
        gradients.terminal[i, 4] += by_f * (after_f - f_rest) * left_f * dt_us / (tau_fac_us * tau_fac_us)
        gradients.terminal[i, 2] += by_f * (1.0 - left_f)
        by_r, by_f = by_r * left_r, by_f * left_f
    gradients.terminal[i, 0] -= by_r * resource
    gradients.terminal[i, 3] += by_f * (1.0 - release)
    walk.terminal[i, 0] = by_r * (1.0 - depletion) + by_amplitude * release
    walk.terminal[i, 1] = by_f * (1.0 - f_step) + by_amplitude * resource
    walk.terminal_us[i] = rows.terminal[k, 2]


@inner_kernel
def end_terminals(table: Table, start: Standing, walk: Walk, gradients: Gradients) -> None:
    """Take what is left back to the window's start, where terminals count as given."""
    for i in range(len(table.terminal)):
        by_r, by_f = walk.terminal[i, 0], walk.terminal[i, 1]
        if by_r == 0.0 and by_f == 0.0:
            continue
        dt_us, tau_rec_us, tau_fac_us = walk.terminal_us[i], table.terminal[i, 1], table.terminal[i, 4]
        left_r, left_f = math.exp(-dt_us / tau_rec_us), math.exp(-dt_us / tau_fac_us)
        f_rest = table.terminal[i, 2]
        gradients.terminal[i, 1] -= by_r * (1.0 - start.fatigue[i, 0]) * left_r * dt_us / (tau_rec_us * tau_rec_us)
        gradients.terminal[i, 4] += by_f * (start.fatigue[i, 1] - f_rest) * left_f * dt_us / (tau_fac_us * tau_fac_us)
        gradients.terminal[i, 2] += by_f * (1.0 - left_f)
        walk.terminal[i, 0] = walk.terminal[i, 1] = 0.0
