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
from typing import Any

import numpy as np

from neurons.front import decay_of
from neurons.program import (
    ADAPTIVE_LIF,
    CHANNELS,
    CONVOLUTION,
    CROSSED,
    DELIVERED,
    ENDED,
    EXTRA,
    FIRED,
    FIRST,
    GROUPS,
    HARD,
    LEAKY_INTEGRATOR,
    LIF,
    MODEL,
    ONE_TO_ONE,
    PLACE,
    ROWS,
    SHIFT,
    SIZE_X,
    SIZE_Y,
    SOURCE,
    SOURCE_CHANNELS,
    SPARSE,
    TARGET,
    TAU_MEM,
    THRESHOLD,
    TOPOLOGY,
    UNIT_OF,
    UNITS,
    WEIGHT,
    WHAT,
    WHEN,
    Program,
)
from plasticity.backward_rows import end_terminals, late_back, through_row, through_rule, through_terminal
from plasticity.backward_units import Gradients, Walk, ask, cross_back, flow_back, through_test, through_tests
from plasticity.replay import (
    ONE,
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
    piece_of,
    row_of,
    set_row_times,
    touched_us,
    typed,
)
from plasticity.table import (
    FIRST_FAST,
    FIRST_PRE,
    FIRST_ROW,
    HAS_SHORT_TERM,
    HEBBIAN,
    N_PRE,
    RULE,
    TAU_FAST,
    Table,
)
from stream.jit import inline_kernel, inner_kernel, kernel
from stream.lanes import dot, prefetch

__all__ = ["walk_back"]


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
    through_test(program, walk, options, p, j, u, True, walk.worth[s])


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
        flow_back(
            program,
            walk,
            gradients,
            p,
            row[FIRST] + start,
            block,
            b,
            now_us,
            options.has_times,
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
    if options.has_rows and k > 0 and tape[k - 1, WHAT] == DELIVERED:
        # a window's rows are longer than caches, and no processor expects them to be read from the end; asked for now,
        # they come while this one is walked (rows of weights and of mu as well: no gain)
        earlier: Any = rows.at[k - 1]
        for j in range(earlier, at_row, 16):
            prefetch(rows.u, j)
        for j in range(earlier, at_row, 16):
            prefetch(rows.hebb, j)
    for piece in range(n_pieces):
        unit, n, at = piece_of(program, q, pre, typed(piece))
        _piece_to(program, walk, options, gradients, rows, tape, taped, k, end, p, unit, n, at_row, now_us)
        if is_tested:
            ask(program, walk, options, rows, p, unit, n, at_row, t_us)
            through_tests(program, walk, options, links, rows, tape, taped, k, end, p, unit, n, at_row, t_us)
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
            by_amplitude += through_rule(
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
            by_amplitude += through_row(
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
        through_terminal(table, walk, rows, gradients, k, place[FIRST_PRE] + pre, taped[k] * by_amplitude)
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
        walk.worth[cause] += np.float64(dot(weight, lam, n))


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
        What happened (``neurons.program.State``).
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
            cross_back(program, walk, options, gradients, links, tape, taped, first)
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
                        ask(program, walk, options, rows, other, ZERO, n_other, rows.at[s_0], t_us)
                    s_0 -= 1
            _piece_to(program, walk, options, gradients, rows, tape, taped, first, end, p, ZERO, n, at_row, begin_us)
            if options.surrogate != SPIKES:
                through_tests(program, walk, options, links, rows, tape, taped, first, end, p, ZERO, n, at_row, t_us)
            else:
                for s in range(end - 1, first, -1):
                    _fired_back(program, walk, options, gradients, links, tape, taped, typed(s))
            if len(rows.late) > 0:
                late_back(program, table, walk, gradients, start, tape, taped, rows, first, p)
        for s in range(end - 1, first, -1):
            if tape[s, WHAT] == CROSSED:
                cross_back(program, walk, options, gradients, links, tape, taped, typed(s))
        k = first - 1
    # to the start of the window, for what time constants did on the way
    for p in range(len(program.population)):
        row = program.population[p]
        block = options.block[p, 0]
        for b in range(row[UNITS] // block):
            g = options.block[p, 1] + b
            first_unit = row[FIRST] + b * block
            flow_back(
                program,
                walk,
                gradients,
                typed(p),
                first_unit,
                block,
                g,
                start.t_us[g],
                options.has_times,
                start.v,
                start.w,
                first_unit,
            )
    for q in range(len(table.place)):
        if table.place[q, RULE] == HEBBIAN:
            _hebb_to_start(program, table, start, walk, gradients, typed(q))
    end_terminals(table, start, walk, gradients)


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
