"""The walk back: derivatives of a loss by everything that is learned, from the tape of any network, event by event.

There is no time grid. ``neurons.engine`` writes what happens to a tape; here the tape is walked from its end to its
begin. The cost is that of the forward run, events x fan-out, whatever the span of the window.

Equations
---------
``lam`` is the derivative of the loss by a unit's potential, ``lam_w`` that by its second variable (synaptic current,
adaptation), ``mu`` that by a synapse's ``hebb``, each right after the happening that the walk stands at. Between
happenings all are linear, so ``lam`` goes back by the transposed flow::

    leaky, adaptive             lam   <- lam exp(-dt/tau_mem)            lam_w <- lam_w exp(-dt/tau_adapt)
    current                     lam_w <- lam_w exp(-dt/tau_syn) + lam * (what i = 1 makes of v in dt)
    leaky integrator, average   lam   <- lam exp(-dt/tau) + c tau (1 - exp(-dt/tau)),   c = dL/d(integral of v)

At a spike of unit j, which is worth ``worth`` to all that it was delivered to, u being the potential before::

    soft reset:  lam <- lam + psi(u) (worth - down lam)
    hard reset:  lam <- lam (1 - s) + psi(u) (worth + lam (v_reset - u))
    adaptive:    worth + adaptation lam_w in place of worth; lam_w <- lam_w - the same term, because u - theta counts

and at a spike of input i with amplitude a, through row w, z = post(y), y = u/theta - sliding_threshold, x the row of
hebb before its bound::

    pass    = mu where |x| <= hebb_max, else 0
    lam_u   = lam + pass a local_rate dz/dy / theta
    d sliding_threshold -= pass a local_rate dz/dy           d local_rate += a sum_j pass z
    d w     += a lam_u                                       d mixing     += a sum_j lam_u hebb
    mu      <- pass + a mixing lam_u                         d tau_hebb   += mu hebb dt / tau_hebb^2
    d a     += sum_j lam_u (w + mixing hebb) + local_rate sum_j pass z
    worth of the spike that it was += a * (the same)

(``add``; ``blend`` and ``mask`` likewise, by their formulas in ``plasticity.hebbian``.) From d a, the terminal's
parameters follow by the recursions of ``plasticity.short_term`` walked back, and d tau_mem by ``lam v dt / tau^2``.
In phases, where a row of hebb changes once, at the end, the first three lines are walked there, with the potentials of
the end and the sum of the row's amplitudes; what a row owed from before the window counts as given.

psi, which stands in for the derivative of a spike by u:

``SPIKES``        1 where the unit really fired (and u - theta < width), 0 elsewhere. Nothing is asked of units that
                  stayed silent: cheapest, and learns as well as the others. The default.
``RECTANGLE``     1 where abs(u - theta) < width; the authors' choice.
``FAST_SIGMOID``  1 / (1 + abs(u - theta) / width)^2.

The last two ask, for every unit an event reaches, what a spike would have been worth: its row of the next layers, read
at every event. Of spikes that did not happen, only what goes out without delay counts.

*When* spikes happen counts as given, and so does the state at the window's start.

Where potentials are needed (local rules, tired terminals, time constants, the last two psi) the window is first run
again from its start, and what stood in its rows is written down (:mod:`plasticity.replay`). Else the walk reads the
tape alone. See ``plasticity.correction`` for how a window is bounded.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.crossing import drift
from neurons.engine import (
    ADAPTIVE_LIF,
    CHANNELS,
    CONVOLUTION,
    CROSSED,
    CURRENT_LIF,
    DELIVERED,
    DIRECT,
    DIRECT_END,
    ENDED,
    EXTRA,
    FIRED,
    FIRST,
    GROUPS,
    HARD,
    INTEGRATE_FIRE,
    LEAKY_INTEGRATOR,
    LIF,
    MODEL,
    ONE_TO_ONE,
    PLACE,
    REFRACTORY_US,
    ROWS,
    SHIFT,
    SIZE_X,
    SIZE_Y,
    SOURCE,
    SOURCE_CHANNELS,
    SPARSE,
    TARGET,
    TAU_2,
    TAU_MEM,
    THRESHOLD,
    TOPOLOGY,
    UNIFORM,
    UNIT_OF,
    UNITS,
    WEIGHT,
    WHAT,
    WHEN,
    Program,
)
from neurons.front import decay_of
from plasticity.hebbian import ADD, BLEND, SOFTMAX
from plasticity.replay import (
    ONE,
    RECTANGLE,
    SPIKES,
    ZERO,
    Links,
    Options,
    Rows,
    Standing,
    amplitude_of,
    count_pieces,
    has_phases,
    hebb_factor,
    held_and_free,
    is_late,
    piece_of,
    post_term,
    row_of,
    set_row_times,
    takes,
    touched_us,
    typed,
    weigh_row,
)
from plasticity.rules import (
    FAST_MAX,
    FIRST_FAST,
    FIRST_POST,
    FIRST_PRE,
    FIRST_ROW,
    FORM,
    HAS_SHORT_TERM,
    HEBBIAN,
    MIXING,
    N_PRE,
    POST_TERM,
    RULE,
    TAU_FAST,
    Table,
)
from stream.jit import inline_kernel, inner_kernel, kernel

__all__ = ["Gradients", "Walk", "walk_back"]


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


@inline_kernel
def _flow_back(
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
def _through_test(
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
def _cross_back(
    program: Program, walk: Walk, options: Options, gradients: Gradients, links: Links, tape: Any, taped: Any, k: int
) -> None:
    """Take lam of a unit back through a spike between events."""
    p, unit, t_us = tape[k, PLACE], tape[k, UNIT_OF], tape[k, WHEN]
    row = program.population[p]
    j, b = row[FIRST] + unit, options.block[p, 1] + unit
    lag_us = taped[k]
    real = walk.lam.dtype.type
    _flow_back(program, walk, gradients, p, j, ONE, b, t_us, False, walk.lam, walk.lam, ZERO)
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
    _through_test(program, walk, options, p, j, theta, True, walk.worth[k])
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
def _ask(
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
def _through_tests(
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
        _through_test(program, walk, options, p, first + j, u, has_fired, worth)


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
        product[j] = mu[j] * min(max(hebb[j] + rate * z[j], -most), most)
    gradients.tau_fast[q] += lane_sum(product) * dt_us / (number[TAU_FAST] * number[TAU_FAST])
    for j in range(n):
        mu[j] = mu[j] if abs(hebb[j] + rate * z[j]) <= most else zero
    for j in range(n):
        product[j] = mu[j] * z[j]
    by_passed: float = lane_sum(product)
    gradients.local_rate[i] += amplitude * by_passed
    mean = real(by_passed) if place[POST_TERM] == SOFTMAX else zero
    for j in range(n):
        slope[j] *= rate * (mu[j] - mean)
    sliding, theta = gradients.sliding[first_post : first_post + n], program.theta[first : first + n]
    for j in range(n):
        sliding[j] -= slope[j]
    for j in range(n):
        lam[j] += slope[j] / theta[j]
    return by_passed


@inner_kernel
def _late_back(
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
def _through_rule(
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
            product[j] = mu[j] * hebb[j]
        gradients.tau_fast[q] += lane_sum(product) * dt_us / (number[TAU_FAST] * number[TAU_FAST])
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
        for j in range(n):
            product[j] = taken[j] * hebb[j]
        gradients.mixing[q] += amplitude * lane_sum(product)
        for j in range(n):
            mu[j] += a * alpha * taken[j]
    else:
        is_blend = place[FORM] == BLEND
        for j in range(n):
            part = table.share[at_fast + j]
            rest = one - part
            d_weight[j] += a * part * taken[j]
            product[j] = taken[j] * rest * hebb[j]
            if is_blend:
                gradients.share[at_fast + j] += a * taken[j] * (weight[j] - hebb[j])
                mu[j] += a * rest * taken[j]
            else:
                mu[j] += a * alpha * rest * taken[j]
        if not is_blend:
            gradients.mixing[q] += amplitude * lane_sum(product)
    if not is_asked:
        return 0.0
    weigh_row(table, place[FORM], alpha, weight, hebb, at_fast, n, product)
    for j in range(n):
        product[j] *= taken[j]
    return lane_sum(product) + np.float64(table.local_rate[i]) * by_passed


@inline_kernel
def _through_row(
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
    product = walk.scratch[2, :n]
    for j in range(n):
        product[j] = weight[j] * into[j]
    return lane_sum(product)


@inner_kernel
def _through_terminal(
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
def _end_terminals(table: Table, start: Standing, walk: Walk, gradients: Gradients) -> None:
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


@inline_kernel
def _fired_back(
    program: Program,
    walk: Walk,
    options: Options,
    gradients: Gradients,
    links: Links,
    tape: Any,
    taped: Any,
    s: int,
) -> None:
    """Take lam of a unit that fired, entry s, back through its reset (psi = SPIKES); its block stands at that time."""
    p = tape[s, PLACE]
    row = program.population[p]
    j = row[FIRST] + tape[s, UNIT_OF]
    walk.held_us[j], walk.lag_us[j] = links.held_us[s], links.lag_us[s]
    u = taped[s]
    if row[MODEL] == ADAPTIVE_LIF:
        walk.peek[j] = walk.peek.dtype.type(0.0)  # that it fired is what counts
    _through_test(program, walk, options, p, j, u, True, walk.worth[s])


@inline_kernel
def _stand_after(
    program: Program, rows: Rows, tape: Any, taped: Any, k: int, end: int, unit: int, n: int, at_row: int, sign: Any
) -> None:
    """Let a piece's row of potentials be that after its resets (sign -1), or before them (1)."""
    for s in range(k + 1, end):
        j = tape[s, UNIT_OF] - unit
        if tape[s, WHAT] != FIRED or j < 0 or j >= n:
            continue
        row = program.population[tape[s, PLACE]]
        i = row[FIRST] + unit + j
        if row[MODEL] == ADAPTIVE_LIF and len(rows.w) > 0:
            rows.w[at_row + j] -= sign * rows.w.dtype.type(program.constant[EXTRA, i])
        if not row[HARD]:
            rows.u[at_row + j] += sign * program.down[i]
        elif sign > 0:
            rows.u[at_row + j] = rows.u.dtype.type(taped[s])
        else:
            rows.u[at_row + j] = program.down[i]


@inline_kernel
def _piece_to(
    program: Program,
    walk: Walk,
    options: Options,
    gradients: Gradients,
    rows: Rows,
    tape: Any,
    taped: Any,
    k: int,
    end: int,
    p: int,
    unit: int,
    n: int,
    at_row: int,
    now_us: int,
) -> None:
    """Take lam of a piece back to right after entry k, at which it was touched."""
    row = program.population[p]
    block = options.block[p, 0]
    real = rows.u.dtype.type
    if options.has_rows and end > k + 1:
        _stand_after(program, rows, tape, taped, k, end, unit, n, at_row, real(-1.0))
    for start in range(unit, unit + n, block):
        b = options.block[p, 1] + start // block
        _flow_back(
            program,
            walk,
            gradients,
            p,
            row[FIRST] + start,
            block,
            b,
            now_us,
            options.has_rows,
            rows.u,
            rows.w if len(rows.w) > 0 else rows.u,
            at_row + start - unit,
        )
    if options.has_rows and end > k + 1:
        _stand_after(program, rows, tape, taped, k, end, unit, n, at_row, real(1.0))


@inline_kernel
def _delivery_back(
    program: Program,
    table: Table,
    walk: Walk,
    options: Options,
    gradients: Gradients,
    links: Links,
    rows: Rows,
    tape: Any,
    taped: Any,
    k: int,
    end: int,
) -> None:
    """Walk back over a delivery and the spikes that it caused."""
    q, pre, t_us = tape[k, PLACE], tape[k, UNIT_OF], tape[k, WHEN]
    place = table.place[q]
    p: Any = program.projection[q, TARGET]
    row = program.population[p]
    now_us = touched_us(program, options, p, t_us)
    n_pieces = count_pieces(program, q, pre)
    is_tested = options.surrogate != SPIKES and program.phase_us == 0 and row[MODEL] != LEAKY_INTEGRATOR
    has_terminal = place[RULE] >= 0 and place[HAS_SHORT_TERM] > 0
    amplitude = amplitude_of(table, rows, tape, taped, k)
    unit: Any
    n: Any
    at: Any
    at_row: Any = rows.at[k] if options.has_rows else ZERO
    begin_row = at_row
    for piece in range(n_pieces):
        unit, n, at = piece_of(program, q, pre, typed(piece))
        _piece_to(program, walk, options, gradients, rows, tape, taped, k, end, p, unit, n, at_row, now_us)
        if is_tested:
            _ask(program, walk, options, rows, p, unit, n, at_row, t_us)
            _through_tests(program, walk, options, links, rows, tape, taped, k, end, p, unit, n, at_row, t_us)
        if options.has_rows:
            at_row += n
    if not is_tested:
        for s in range(end - 1, k, -1):
            if tape[s, WHAT] == FIRED:
                _fired_back(program, walk, options, gradients, links, tape, taped, typed(s))
    by_amplitude = 0.0
    cause = links.cause[k]
    is_asked = cause >= 0 or has_terminal
    at_row = begin_row
    for piece in range(n_pieces):
        unit, n, at = piece_of(program, q, pre, typed(piece))
        if place[RULE] == HEBBIAN:
            by_amplitude += _through_rule(
                program,
                table,
                walk,
                rows,
                gradients,
                q,
                pre,
                p,
                unit,
                n,
                at,
                at_row,
                amplitude,
                t_us,
                now_us,
                is_asked,
            )
        else:
            by_amplitude += _through_row(
                program, walk, gradients, p, row[FIRST] + unit, n, at, amplitude, now_us, is_asked
            )
        if options.has_rows:
            at_row += n
        if row[MODEL] == THRESHOLD and program.phase_us == 0:
            for j in range(row[FIRST] + unit, row[FIRST] + unit + n):
                walk.lam[j] = walk.lam.dtype.type(0.0)
    if place[RULE] == HEBBIAN:
        set_row_times(program, table, walk.mu_us, q, pre, now_us)
        for piece in range(n_pieces):
            unit, n, at = piece_of(program, q, pre, typed(piece))
            walk.is_live[row_of(program, table, q, pre, at)] = True
    if place[RULE] == HEBBIAN and has_phases(program, p):
        by_amplitude += walk.due[place[FIRST_PRE] + pre]
    if has_terminal:
        _through_terminal(table, walk, rows, gradients, k, place[FIRST_PRE] + pre, taped[k] * by_amplitude)
    if cause >= 0:
        walk.worth[cause] += amplitude * by_amplitude


@inline_kernel
def _four_back(program: Program, walk: Walk, gradients: Gradients, tape: Any, k: int, b: int) -> None:
    """Walk back over the silent input events k, k - 1, k - 2 and k - 3; as ``_plain_back``, lam held in registers."""
    way = program.projection[tape[k, PLACE]]
    p = way[TARGET]
    row = program.population[p]
    n, first = row[UNITS], row[FIRST]
    lam, d_weight = walk.lam[first : first + n], gradients.weight
    real = lam.dtype.type
    tau_us = program.constant[TAU_MEM, first] if row[MODEL] == LIF else math.inf
    t_0, t_1, t_2, t_3 = tape[k, WHEN], tape[k - 1, WHEN], tape[k - 2, WHEN], tape[k - 3, WHEN]
    factor_0 = real(decay_of(program.decay[p], tau_us, walk.t_us[b] - t_0))
    factor_1 = real(decay_of(program.decay[p], tau_us, t_0 - t_1))
    factor_2 = real(decay_of(program.decay[p], tau_us, t_1 - t_2))
    factor_3 = real(decay_of(program.decay[p], tau_us, t_2 - t_3))
    walk.t_us[b] = t_3
    at_0, at_1 = way[WEIGHT] + tape[k, UNIT_OF] * n, way[WEIGHT] + tape[k - 1, UNIT_OF] * n
    at_2, at_3 = way[WEIGHT] + tape[k - 2, UNIT_OF] * n, way[WEIGHT] + tape[k - 3, UNIT_OF] * n
    row_0, row_1 = d_weight[at_0 : at_0 + n], d_weight[at_1 : at_1 + n]
    row_2, row_3 = d_weight[at_2 : at_2 + n], d_weight[at_3 : at_3 + n]
    for j in range(n):
        u = lam[j] * factor_0
        row_0[j] += u
        u *= factor_1
        row_1[j] += u
        u *= factor_2
        row_2[j] += u
        u *= factor_3
        row_3[j] += u
        lam[j] = u


@inline_kernel
def _are_silent(program: Program, walk: Walk, options: Options, tape: Any, k: int, b: int) -> Any:
    """Tell whether entry k and the three before it may go through ``_four_back``."""
    if k < 3:
        return False
    q = tape[k, PLACE]
    for i in range(4):
        if tape[k - i, WHAT] != DELIVERED or tape[k - i, PLACE] != q:
            return False
    way = program.projection[q]
    row = program.population[way[TARGET]]
    if way[SOURCE] >= 0 or row[MODEL] == LEAKY_INTEGRATOR:
        return False
    # a row that comes twice would be added to twice at once
    one, two, three, four = tape[k, UNIT_OF], tape[k - 1, UNIT_OF], tape[k - 2, UNIT_OF], tape[k - 3, UNIT_OF]
    if one in (two, three, four) or two in (three, four) or three == four:
        return False
    last_us, first_us = walk.t_us[b] - options.anchor_us, tape[k - 3, WHEN] - options.anchor_us
    return last_us >> row[SHIFT] == first_us >> row[SHIFT]


@inline_kernel
def _plain_back(
    program: Program,
    walk: Walk,
    gradients: Gradients,
    links: Links,
    tape: Any,
    taped: Any,
    k: int,
    end: int,
    b: int,
    width: float,
    anchor_us: int,
) -> None:
    """Do as ``_delivery_back`` where most time is spent: dense rows to units that only leak, or to integrators.

    All are alike and share a time, nobody is held, no rows are needed, and psi asks only those that fired.
    """
    q, pre, t_us = tape[k, PLACE], tape[k, UNIT_OF], tape[k, WHEN]
    way = program.projection[q]
    row = program.population[way[TARGET]]
    n, first = row[UNITS], row[FIRST]
    at = way[WEIGHT] + pre * n
    lam, d_weight, weight = walk.lam[first : first + n], gradients.weight[at : at + n], program.weight[at : at + n]
    real = lam.dtype.type
    tiny, zero = real(1e-30), real(0.0)
    dt_us: Any = walk.t_us[b] - t_us
    walk.t_us[b] = t_us
    cause = links.cause[k]
    if row[MODEL] == LEAKY_INTEGRATOR:
        tau_us = program.constant[TAU_MEM, first]
        ratio = np.float64(dt_us) / tau_us
        left, grown = real(math.exp(-ratio)), -tau_us * math.expm1(-ratio)
        source = walk.source[first : first + n]
        worth = zero
        for j in range(n):
            lam_j = lam[j] * left + real(source[j] * grown)
            lam[j] = lam_j
            d_weight[j] += lam_j
            worth += weight[j] * lam_j
        if cause >= 0:
            walk.worth[cause] += np.float64(worth)
        return
    factor = real(1.0)
    if row[MODEL] == LIF:
        factor = real(decay_of(program.decay[way[TARGET]], program.constant[TAU_MEM, first], dt_us))
    if (t_us + dt_us - anchor_us) >> row[SHIFT] != (t_us - anchor_us) >> row[SHIFT]:
        for j in range(n):  # no denormals; as ``neurons.front`` does it
            lam[j] = lam[j] if abs(lam[j]) > tiny else zero
    if end == k + 1 and cause < 0:
        for j in range(n):
            lam[j] *= factor
            d_weight[j] += lam[j]
        return
    for j in range(n):
        lam[j] *= factor
    for s in range(end - 1, k, -1):
        j = tape[s, UNIT_OF]
        theta, down = program.theta[first + j], np.float64(program.down[first + j])
        if taped[s] - np.float64(theta) < width:
            if row[HARD]:
                lam[j] = real(walk.worth[s] + np.float64(lam[j]) * (down - taped[s]))
            else:
                lam[j] += real(walk.worth[s] - down * np.float64(lam[j]))
        elif row[HARD]:
            lam[j] = zero
    for j in range(n):
        d_weight[j] += lam[j]
    if cause >= 0:
        product = walk.scratch[2, :n]
        for j in range(n):
            product[j] = weight[j] * lam[j]
        walk.worth[cause] += lane_sum(product)


@kernel
def walk_back(
    program: Program,
    table: Table,
    options: Options,
    tape: Any,
    taped: Any,
    n_tape: int,
    links: Links,
    rows: Rows,
    start: Standing,
    walk: Walk,
    gradients: Gradients,
) -> None:
    """Walk a window back from its end to its start, and add to the gradients.

    Parameters
    ----------
    program, table
        The network and its rules, with the weights in force.
    options
        How.
    tape, taped, n_tape
        What happened (``neurons.engine.State``).
    links
        Of ``link``.
    rows
        Of ``replay``; read only if ``options.has_rows``.
    start
        Where the window began.
    walk
        Prepared as its fields say; changed.
    gradients
        Added to.
    """
    k: Any = typed(n_tape) - 1
    asked_us: Any = -ONE
    while k >= 0:
        first: Any = links.touch[k]
        what = tape[first, WHAT]
        if what == CROSSED:
            _cross_back(program, walk, options, gradients, links, tape, taped, first)
            k = first - 1
            continue
        p: Any = tape[first, PLACE] if what == ENDED else program.projection[tape[first, PLACE], TARGET]
        end = k + 1
        if what == DELIVERED and options.is_plain[tape[first, PLACE]]:
            if end == first + 1 and _are_silent(program, walk, options, tape, first, options.block[p, 1]):
                _four_back(program, walk, gradients, tape, first, options.block[p, 1])
                k = first - 4
                continue
            _plain_back(
                program,
                walk,
                gradients,
                links,
                tape,
                taped,
                first,
                end,
                options.block[p, 1],
                options.width,
                options.anchor_us,
            )
        elif what == DELIVERED:
            _delivery_back(program, table, walk, options, gradients, links, rows, tape, taped, first, end)
        else:
            row = program.population[p]
            t_us = tape[first, WHEN]
            n: Any = row[UNITS]
            at_row: Any = rows.at[first] if options.has_rows else ZERO
            begin_us = t_us - program.phase_us
            if options.surrogate != SPIKES and t_us != asked_us:
                # all populations fire before any spike of theirs arrives
                asked_us = t_us
                s_0: Any = first
                while s_0 >= 0 and tape[s_0, WHEN] == t_us and (tape[s_0, WHAT] == ENDED or tape[s_0, WHAT] == FIRED):
                    if tape[s_0, WHAT] == ENDED:
                        other: Any = tape[s_0, PLACE]
                        n_other: Any = program.population[other, UNITS]
                        _ask(program, walk, options, rows, other, ZERO, n_other, rows.at[s_0], t_us)
                    s_0 -= 1
            _piece_to(program, walk, options, gradients, rows, tape, taped, first, end, p, ZERO, n, at_row, begin_us)
            if options.surrogate != SPIKES:
                _through_tests(program, walk, options, links, rows, tape, taped, first, end, p, ZERO, n, at_row, t_us)
            else:
                for s in range(end - 1, first, -1):
                    _fired_back(program, walk, options, gradients, links, tape, taped, typed(s))
            if len(rows.late) > 0:
                _late_back(program, table, walk, gradients, start, tape, taped, rows, first, p)
        for s in range(end - 1, first, -1):
            if tape[s, WHAT] == CROSSED:
                _cross_back(program, walk, options, gradients, links, tape, taped, typed(s))
        k = first - 1
    # to the start of the window, for what time constants did on the way
    for p in range(len(program.population)):
        row = program.population[p]
        block = options.block[p, 0]
        for b in range(row[UNITS] // block):
            g = options.block[p, 1] + b
            first_unit = row[FIRST] + b * block
            _flow_back(
                program,
                walk,
                gradients,
                typed(p),
                first_unit,
                block,
                g,
                start.t_us[g],
                options.has_rows,
                start.v,
                start.w,
                first_unit,
            )
    for q in range(len(table.place)):
        if table.place[q, RULE] == HEBBIAN:
            _hebb_to_start(program, table, start, walk, gradients, typed(q))
    _end_terminals(table, start, walk, gradients)


@inner_kernel
def _hebb_to_start(program: Program, table: Table, start: Standing, walk: Walk, gradients: Gradients, q: int) -> None:
    """Count what ``tau_hebb`` did between the window's start and each row's first read."""
    way, place, tau_us = program.projection[q], table.place[q], table.number[q, TAU_FAST]
    n_post = program.population[way[TARGET], UNITS]
    n: Any = n_post
    if way[TOPOLOGY] == CONVOLUTION:
        n = program.population[way[TARGET], CHANNELS]
    elif way[TOPOLOGY] == ONE_TO_ONE:
        n = ONE
    first_row = place[FIRST_ROW]
    n_rows = _n_rows(program, table, q, n)
    for r in range(n_rows):
        which = first_row + r
        if not walk.is_live[which]:
            continue
        walk.is_live[which] = False
        at: Any = place[FIRST_FAST] + r * n
        if way[TOPOLOGY] == SPARSE:
            begin = program.links[way[ROWS] + r]
            n = program.links[way[ROWS] + r + 1] - begin
            at = place[FIRST_FAST] + begin
        dt_us = np.float64(walk.mu_us[which] - start.fast_us[which])
        left = hebb_factor(start.fast_us[which], walk.mu_us[which], tau_us)
        total = 0.0
        for j in range(n):
            total += np.float64(walk.mu[at + j]) * np.float64(start.fast[at + j])
        gradients.tau_fast[q] += total * left * dt_us / (tau_us * tau_us)


@inner_kernel
def _n_rows(program: Program, table: Table, q: int, n: int) -> Any:
    """Count the rows of hebb of a projection, n long each (convolution), or one for each presynaptic unit."""
    way = program.projection[q]
    if way[TOPOLOGY] == CONVOLUTION:
        n_taps = way[SIZE_X] * way[SIZE_Y]
        return n_taps * way[SOURCE_CHANNELS] // max(way[GROUPS], 1)
    return table.place[q, N_PRE]
