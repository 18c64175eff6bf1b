"""The machine that runs any network: one compiled kernel over flat arrays. ``neurons.network`` is its user's side.

A network is a program in tables of numbers: one row for each population, one for each projection; parameters, weights
and states of all populations stand in flat arrays, one slice each. So every network runs in the same compiled code, and
nothing is compiled when a network is loaded. The switch on model and topology stands outside of the loops over units.

Order
-----
What happens *inside* (a delayed spike that arrives, a threshold crossed between events, a step of a grid) waits in a
heap, ordered by (time, order in which it was scheduled). What is due at a time <= t comes before the input event at t.

A spike without delay is delivered at once. The cascade of one happening goes level by level: populations in an order in
which projections without delay lead forward (the first one listed whose sources are through); in a population its
incoming projections as the graph lists them; in a projection the source's spikes in the order in which they were fired.

Each delivery is an event of its own. It goes piece by piece, ascending; a piece is what the row reaches together (see
time groups). In a piece: potentials of the time group leak to the event's time, and units whose crossing is due fire on
the way, ascending; the row is added; the units that were reached are tested, once each, ascending; their next crossings
are foreseen, ascending.

A crossing between events has a real-valued time. The reset acts at that real time; the spike carries the next whole
microsecond (later than the event before it) and is delivered then. When at that same microsecond something else reaches
the unit's time group, the crossing, being earlier, comes first; and all crossings of a group at one microsecond are one
happening. A unit crosses once a microsecond at most: what it would cross again, it crosses when that is over.

A unit that a soft reset leaves above its threshold fires again: one microsecond later (or after its refractory time)
where the model looks between events, else at the next event that reaches it. A population looks between events if one
of its units can rise above its threshold by itself.

Order of scheduling
-------------------
Of two happenings at one microsecond the one scheduled first comes first. In what order are they scheduled?

- At the start: populations as listed; in each its crossings, units ascending, or its grid's first step.
- A delayed spike when it is fired, projections as listed; an input event's before its cascade.
- A crossing when it is foreseen: after each delivery to the unit, and after each crossing (the spike's delays first).
  As long as its whole microsecond stays the same it keeps its place.
- A grid's next step after the spikes of this one, before their cascade; its first step after rest when the event that
  ends the rest is delivered, before that reaches anyone.

Nothing can cause anything at its own time except its own cascade: delays are 1 us or more, crossings are found after
their event, grids lie ahead. Hence, when all that is due up to a time has been run, a later event at that same time
finds the same state, wherever the stream was cut.

Time groups
-----------
Potentials leak when they are touched, not before. Units that are always touched together share one time,
``population[p, GROUP]`` of them. Dense rows and inhibition reach a whole population together, a convolution the
channels of a site (or of one filter group there); a time group is the greatest common divisor of these numbers.
Pooling, sparse rows and one-to-one reach single units, and, with them, the leak of their group; where nothing else
leads to a population, every unit is a group. Izhikevich's units are one group.

The tape
--------
Where ``State.tape`` has room, everything that happens is written to it, for those who walk backwards
(``plasticity.backward``): each delivery, followed by the spikes that it causes, and spikes that were crossings. Nothing
else is needed to compute all potentials again.

Whole numbers
-------------
Behind the input, weights of 8 bits (``neurons.quantised_dense``) are added up as whole numbers while the microsecond
lasts, in ``State.pending``; a potential is then ``v`` plus its part of that. Whoever else looks at ``v`` makes it whole
first (``_fold``): what is due inside comes before the events of its microsecond, so none of those is cut in two by it.

Firing disciplines
------------------
``event``: as above. ``phase``: time is cut in phases of ``phase_us``. Rows that arrive in a phase are added to
potentials that leaked to its begin, and are not tested; at its end every population fires, as listed, once for each
unit above threshold; then all the spikes are delivered, into the phase that begins. So a spike takes one phase for each
layer, and longer by its delay. The end of a phase comes before what else is due at its microsecond: that is of the next
phase. A unit in its refractory time loses the phases that begin in it. Leaky integrators, which never fire, have no
phases: rows reach them when they arrive.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from neurons.crossing import drift, first_crossing
from neurons.decay import left_and_gone
from neurons.front import Layer, convolution_front, decay_of, dense_front, flush, leak_held, read_out
from neurons.heap import heap_has_room, is_stale, pop, push
from neurons.izhikevich import izhikevich_step
from neurons.lif import leak, leak_add, next_above
from neurons.program import (
    ACTIVE,
    ADAPTIVE_LIF,
    ANCHOR_US,
    ARRIVAL,
    ARRIVING,
    AT_POPULATION,
    AT_PROJECTION,
    AT_SPIKE,
    AWAITED,
    AWAITED_PRE,
    BUSY,
    CHANNELS,
    CROSSED,
    CROSSES,
    CROSSING,
    CURRENT_LIF,
    DELAY_US,
    DELAYED,
    DELAYED_END,
    DELIVERED,
    DENSE,
    DIRECT,
    DIRECT_END,
    DONE,
    DRIVE,
    DRIVEN,
    ENDED,
    EXTRA,
    FADES,
    FIRED,
    FIRST,
    FIRST_GROUP,
    FROM_INPUT,
    GROUP,
    GROUPS,
    HARD,
    HEAP_FULL,
    HELD_UNTIL_US,
    IDLE,
    INCOMING,
    INCOMING_END,
    INHIBITION,
    INSIDE,
    INTEGRATE_FIRE,
    IS_DELIVERED,
    IS_READ,
    IZ_A,
    IZ_B,
    IZ_C,
    IZ_D,
    IZ_DRIVE,
    IZ_PEAK,
    IZHIKEVICH,
    KIND,
    LAST_FIRED,
    LEAKY_INTEGRATOR,
    LIF,
    LOG_FULL,
    LOGGED,
    MODEL,
    N_DELAYED,
    N_DELIVERIES,
    N_DIRECT,
    N_HEAP,
    N_LATE,
    N_LOG,
    N_OUT,
    N_PENDING,
    N_QUEUE,
    N_SPIKES,
    N_TAPE,
    NEVER_US,
    NEXT,
    NOW_US,
    ONE,
    ONE_TO_ONE,
    ONSET_US,
    OUT_FULL,
    PHASE,
    PHASE_ENDS,
    PLACE,
    PLASTIC,
    PLASTIC_SPIKE,
    POOLING,
    PRE,
    QUEUE_FULL,
    RECORDED,
    REFRACTORY_US,
    ROWS,
    SHIFT,
    SIZE_X,
    SOURCE,
    SOURCE_CHANNELS,
    SOURCE_WIDTH,
    SPAN_FIRST,
    SPAN_LAST,
    SPARSE,
    STEP,
    STEP_US,
    STRIDE_X,
    STRIDE_Y,
    SYNAPSES,
    TAPE_FULL,
    TAPE_STOP,
    TARGET,
    TAU_2,
    TAU_MEM,
    THRESHOLD,
    TICKING,
    TIME,
    TOPOLOGY,
    UNFOLDED,
    UNIFORM,
    UNIT,
    UNIT_OF,
    UNITS,
    WEIGHT,
    WEIGHT_STEP,
    WHAT,
    WHEN,
    WHERE,
    WHOLE,
    WIDTH,
    WINDOW_FULL,
    WINDOWS_X,
    WINDOWS_Y,
    ZERO,
    Program,
    State,
)
from neurons.quantised_front import LONGEST_RUN, fold, quantised_front
from stream.jit import inline_kernel, inner_kernel, kernel

# -- one unit ----------------------------------------------------------------------------------------------------------


@inner_kernel
def _flushed(value: float) -> float:
    """Keep denormals away."""
    return value if abs(value) > 1e-30 else 0.0


@inner_kernel
def _move(all_v: Any, all_w: Any, constant: Any, model: int, j: int, dt_us: float, held: int) -> None:
    """Let time pass for one unit of a model that can cross, or be held (1)."""
    is_held = held != 0
    v: Any = np.float64(all_v[j])
    w: Any = np.float64(all_w[j])
    if model == LIF:
        v = v if is_held else v * math.exp(-dt_us / constant[TAU_MEM, j])
    elif model == CURRENT_LIF:
        v = v if is_held else drift(v, w, dt_us, constant[TAU_MEM, j], constant[TAU_2, j])
        w = w * math.exp(-dt_us / constant[TAU_2, j])
    elif model == ADAPTIVE_LIF:
        v = v if is_held else v * math.exp(-dt_us / constant[TAU_MEM, j])
        w = w * math.exp(-dt_us / constant[TAU_2, j])
    elif model == INTEGRATE_FIRE:
        v = v if is_held else v + constant[DRIVE, j] * dt_us
    all_v[j] = _flushed(v)
    all_w[j] = _flushed(w)


@inner_kernel
def _time_to_cross(constant: Any, threshold: float, model: int, j: int, v: float, w: float) -> float:
    """Return after how many us a unit with this v and w fires by itself; inf if never."""
    theta = np.float64(threshold)
    if model == LIF:
        return first_crossing(v, 0.0, theta, constant[TAU_MEM, j], 1.0)
    if model == CURRENT_LIF:
        # no sum of what is there now and the highest pulse that the current can still make reaches the threshold
        if theta >= 0.0 and max(v, 0.0) + max(w, 0.0) * constant[EXTRA, j] <= theta:
            return math.inf
        return first_crossing(v, w, theta, constant[TAU_MEM, j], constant[TAU_2, j])
    if model == ADAPTIVE_LIF:
        if theta >= 0.0 and max(v, 0.0) - min(w, 0.0) <= theta:
            return math.inf
        # the gap v - w to the fixed part of the threshold obeys the equation of a membrane with a current
        tau_us, tau_adapt_us = constant[TAU_MEM, j], constant[TAU_2, j]
        rate = 1.0 / tau_adapt_us - 1.0 / tau_us
        if rate == 0.0:
            return first_crossing(v - w, 0.0, theta, tau_us, tau_us)
        return first_crossing(v - w, w * tau_us * rate, theta, tau_us, tau_adapt_us)
    drive = constant[DRIVE, j]
    if v > theta:
        return 0.0
    return (theta - v) / drive if drive > 0.0 else math.inf


@inner_kernel
def _foresee(program: Program, state: State, p: int, j: int, t_us: int) -> None:
    """Find a unit's next crossing and schedule it; its state is that of ``t_us``."""
    model = program.population[p, MODEL]
    v: Any = np.float64(state.v[j])
    w: Any = np.float64(state.w[j])
    wait_us = 0.0
    if state.held_us[j] > t_us:
        wait_us = np.float64(state.held_us[j] - t_us) - state.lag_us[j]
        if model in (CURRENT_LIF, ADAPTIVE_LIF):
            w *= math.exp(-wait_us / program.constant[TAU_2, j])
    dt_us = wait_us + _time_to_cross(program.constant, program.theta[j], model, j, v, w)
    next_us = NEVER_US
    if dt_us < 1e17:
        next_us = t_us + max(math.ceil(dt_us), 1)
    if next_us == state.next_us[j]:
        return
    if next_us != NEVER_US:
        state.progress[p, N_PENDING] += 1
    if state.next_us[j] != NEVER_US:
        state.progress[p, N_PENDING] -= 1
    state.next_us[j] = next_us
    state.next_sequence[j] = -1
    if next_us != NEVER_US:
        state.next_sequence[j] = push(state.heap, state.book, next_us, CROSSING, p, j)


@inner_kernel
def _reset_unit(program: Program, state: State, p: int, j: int, spike_us: int, lag_us: float) -> None:
    """Reset a unit after a spike; ``lag_us`` is how much earlier than its whole microsecond the spike really was."""
    row = program.population[p]
    model = row[MODEL]
    if model == IZHIKEVICH:
        state.v[j] = program.constant[IZ_C, j]
        state.w[j] += state.w.dtype.type(program.constant[IZ_D, j])
        return
    if row[HARD]:
        state.v[j] = program.down[j]
    else:
        state.v[j] -= program.down[j]
    if model == ADAPTIVE_LIF:
        state.w[j] += state.w.dtype.type(program.constant[EXTRA, j])
    if row[REFRACTORY_US] > 0:
        state.held_us[j] = spike_us + row[REFRACTORY_US]
        state.lag_us[j] = lag_us
        state.progress[p, HELD_UNTIL_US] = max(state.progress[p, HELD_UNTIL_US], state.held_us[j])


@inline_kernel
def put_on_tape(state: State, t_us: int, what: int, place: int, unit: int, value: float) -> None:
    """Write an entry of the tape, if there is one; there is room."""
    if len(state.tape) > 0:
        n_tape = state.book[N_TAPE]
        state.tape[n_tape, WHEN], state.tape[n_tape, WHAT] = t_us, what
        state.tape[n_tape, PLACE], state.tape[n_tape, UNIT_OF] = place, unit
        state.taped[n_tape] = value
        state.book[N_TAPE] += 1


@inner_kernel
def _tell(program: Program, state: State, p: int, j: int, t_us: int, what: int, value: float, out: Any) -> None:
    """Pass a spike on: to the cascade, to what is recorded, and on its way through delays."""
    row, book = program.population[p], state.book
    unit = j - row[FIRST]
    put_on_tape(state, t_us, what, p, unit, value)
    state.queue[book[N_QUEUE]] = unit
    book[N_QUEUE] += 1
    book[N_SPIKES] += 1
    if row[LOGGED]:
        n_log: Any = state.progress[p, N_LOG]
        state.log_us[p, n_log] = t_us
        state.log_unit[p, n_log] = unit
        state.progress[p, N_LOG] += 1
    for d in range(row[DELAYED], row[DELAYED_END]):
        q = program.links[d]
        push(state.heap, book, t_us + program.projection[q, DELAY_US], ARRIVAL, q, unit)
    if row[RECORDED]:
        n_out: Any = book[N_OUT]
        out[n_out]["t"] = t_us
        out[n_out]["unit"] = unit
        out[n_out]["population"] = p
        book[N_OUT] += 1


# -- many units --------------------------------------------------------------------------------------------------------


@inner_kernel
def _fold(program: Program, state: State, p: int) -> None:
    """Make the potentials of the front's population whole."""
    row = program.population[p]
    fold(state.v, state.pending, program.scale, row[FIRST], row[UNITS])
    state.progress[p, UNFOLDED] = 0


@inner_kernel
def _advance(program: Program, state: State, p: int, g: int, t_us: int, out: Any) -> None:
    """Bring a time group to ``t_us``; units whose crossing is due fire on the way."""
    row = program.population[p]
    model, n = row[MODEL], row[GROUP]
    if state.progress[p, UNFOLDED]:
        _fold(program, state, p)
    t_0: Any = state.t_us[row[FIRST_GROUP] + g]
    if t_0 == t_us:
        return
    state.t_us[row[FIRST_GROUP] + g] = t_us
    first = row[FIRST] + g * n
    last = first + n
    dt_us: Any = np.float64(t_us - t_0)
    constant = program.constant
    if model == LEAKY_INTEGRATOR:
        if row[UNIFORM]:
            tau_us = constant[TAU_MEM, first]
            rest, share = left_and_gone(-dt_us / tau_us)
            for j in range(first, last):
                v = np.float64(state.v[j])
                state.integral_us[j] -= v * tau_us * share
                state.v[j] = _flushed(v * rest)
            return
        for j in range(first, last):
            rest, share = left_and_gone(-dt_us / constant[TAU_MEM, j])
            v = np.float64(state.v[j])
            state.integral_us[j] -= v * constant[TAU_MEM, j] * share
            state.v[j] = _flushed(v * rest)
        return
    if model == THRESHOLD:
        for j in range(first, last):
            state.v[j] = 0.0
        return
    if model == IZHIKEVICH:
        if not state.progress[p, ACTIVE]:
            return  # at rest
        has_moved: Any = False
        small = 1e-6 if state.v.itemsize == 4 else 1e-12
        for j in range(first, last):
            v_mv: Any = np.float64(state.v[j])
            u: Any = np.float64(state.w[j])
            v_new, u_new = izhikevich_step(
                v_mv, u, dt_us / 1000.0, constant[IZ_A, j], constant[IZ_B, j], constant[IZ_DRIVE, j]
            )
            has_moved |= abs(v_new - v_mv) > small * abs(v_mv) or abs(u_new - u) > small * (abs(u) + 1.0)
            if v_new >= constant[IZ_PEAK, j]:
                has_moved = True
                state.v[j], state.w[j] = v_new, u_new
                _reset_unit(program, state, p, j, t_us, 0.0)
                _tell(program, state, p, j, t_us, FIRED, v_new, out)
            else:
                state.v[j], state.w[j] = v_new, u_new
        if not has_moved and dt_us == np.float64(row[STEP_US]):
            state.progress[p, ACTIVE] = 0
        return
    is_calm = t_0 >= state.progress[p, HELD_UNTIL_US] and state.progress[p, N_PENDING] == 0
    if is_calm and row[UNIFORM]:
        if model == LIF:
            leak(state.v, first, last, decay_of(program.decay[p], constant[TAU_MEM, first], t_us - t_0))
            return
        if model == INTEGRATE_FIRE and constant[DRIVE, first] == 0.0:
            return
        if model == ADAPTIVE_LIF:
            leak(state.v, first, last, math.exp(-dt_us / constant[TAU_MEM, first]))
            leak(state.w, first, last, math.exp(-dt_us / constant[TAU_2, first]))
            return
        if model == CURRENT_LIF:
            real = state.v.dtype.type
            gain = real(drift(0.0, 1.0, dt_us, constant[TAU_MEM, first], constant[TAU_2, first]))
            leak(state.v, first, last, math.exp(-dt_us / constant[TAU_MEM, first]))
            for j in range(first, last):
                state.v[j] += state.w[j] * gain
            leak(state.w, first, last, math.exp(-dt_us / constant[TAU_2, first]))
            return
    if model == LIF and row[UNIFORM] and not row[CROSSES]:
        leak_held(state.v, state.held_us, first, last, t_0, t_us, program.decay[p], constant[TAU_MEM, first])
        return
    for j in range(first, last):
        held_us = state.held_us[j]
        held_dt_us = 0.0
        free_dt_us = dt_us
        if held_us > t_us:
            held_dt_us, free_dt_us = dt_us, 0.0
        elif held_us > t_0:
            free_dt_us = np.float64(t_us - held_us) + state.lag_us[j]
            held_dt_us = dt_us - free_dt_us
        if held_dt_us > 0.0:
            _move(state.v, state.w, constant, model, j, held_dt_us, ONE)
        if state.next_us[j] > t_us:
            if free_dt_us > 0.0:
                _move(state.v, state.w, constant, model, j, free_dt_us, ZERO)
            continue
        # due: the same search from the same state as when it was foreseen, or from a later one with its rounding
        at_us = _time_to_cross(
            program.constant, program.theta[j], model, j, np.float64(state.v[j]), np.float64(state.w[j])
        )
        at_us = min(at_us, free_dt_us)
        if at_us > 0.0:
            _move(state.v, state.w, constant, model, j, at_us, ZERO)
        lag_us = free_dt_us - at_us
        _reset_unit(program, state, p, j, t_us, lag_us)
        if row[REFRACTORY_US] == 0:
            if lag_us > 0.0:
                _move(state.v, state.w, constant, model, j, lag_us, ZERO)
        elif lag_us > 0.0:
            _move(state.v, state.w, constant, model, j, lag_us, ONE)
        _tell(program, state, p, j, t_us, CROSSED, lag_us, out)
        state.next_us[j] = NEVER_US
        state.next_sequence[j] = -1
        state.progress[p, N_PENDING] -= 1
        _foresee(program, state, p, j, t_us)


@inner_kernel
def _fire(program: Program, state: State, p: int, first: int, last: int, t_us: int, out: Any) -> None:
    """Let the units fire that are above their thresholds, and are not held."""
    model = program.population[p, MODEL]
    if model in (LIF, INTEGRATE_FIRE) and program.population[p, UNIFORM]:
        threshold = program.theta[first]
        k = next_above(state.v, first, last, threshold)
        while k < last:
            if state.held_us[k] <= t_us:
                u: Any = np.float64(state.v[k])
                _reset_unit(program, state, p, k, t_us, 0.0)
                _tell(program, state, p, k, t_us, FIRED, u, out)
            k = next_above(state.v, k + 1, last, threshold)
        return
    for j in range(first, last):
        theta = program.theta[j]
        if model == ADAPTIVE_LIF:
            theta += state.w[j]
        is_above = state.v[j] >= theta if model == IZHIKEVICH else state.v[j] > theta
        if is_above and (model == IZHIKEVICH or state.held_us[j] <= t_us):
            u = np.float64(state.v[j])
            _reset_unit(program, state, p, j, t_us, 0.0)
            _tell(program, state, p, j, t_us, FIRED, u, out)


@inner_kernel
def _jump(program: Program, state: State, p: int, first: int, last: int, weight: Any, at: int, t_us: int) -> bool:
    """Add weights from ``weight[at]`` on to units whose time is ``t_us``; tell whether one may be above threshold."""
    row = program.population[p]
    model = row[MODEL]
    v, w = state.v, state.w
    is_phased = program.phase_us > 0
    if row[UNIFORM] and t_us >= state.progress[p, HELD_UNTIL_US] and (model in (LIF, INTEGRATE_FIRE)):
        return leak_add(v, first, last, 1.0, weight, at, program.theta[first])
    anyone = False
    if model == CURRENT_LIF:
        for j in range(first, last):
            w[j] += weight[at + j - first]
    elif model == THRESHOLD:
        for j in range(first, last):
            v[j] = (v[j] if is_phased else 0.0) + weight[at + j - first]
            anyone |= v[j] > program.theta[j]
    elif model in (LEAKY_INTEGRATOR, IZHIKEVICH):
        for j in range(first, last):
            v[j] += weight[at + j - first]
            anyone |= v[j] >= program.theta[j]
    else:
        for j in range(first, last):
            if state.held_us[j] <= t_us:
                v[j] += weight[at + j - first]
                anyone |= v[j] > program.theta[j] + (w[j] if model == ADAPTIVE_LIF else 0.0)
    return anyone


@inline_kernel
def rouse(program: Program, state: State, q: int, pre: int, t_us: int) -> None:
    """Begin to deliver a spike: count it, tape it, and let grids tick again that stood still."""
    p = program.projection[q, TARGET]
    row = program.population[p]
    state.book[N_DELIVERIES] += 1
    put_on_tape(state, t_us, DELIVERED, q, pre, 0.0)
    if program.phase_us > 0:
        since_us = t_us - state.book[ANCHOR_US]
        state.progress[p, ACTIVE] = 1
        if not state.book[TICKING]:
            state.book[TICKING] = 1
            next_us = t_us - since_us % program.phase_us + program.phase_us
            push(state.heap, state.book, next_us, PHASE, ZERO, ZERO)
    elif row[MODEL] == IZHIKEVICH and not state.progress[p, ACTIVE]:
        state.progress[p, ACTIVE] = 1
        state.t_us[row[FIRST_GROUP]] = t_us  # nothing has moved since
        since_us = t_us - state.book[ANCHOR_US]
        push(state.heap, state.book, t_us - since_us % row[STEP_US] + row[STEP_US], STEP, p, ZERO)


@inline_kernel
def reached_us(program: Program, state: State, p: int, t_us: int) -> Any:
    """Return the time for which a spike counts that reaches a population at ``t_us``."""
    now_us: Any = t_us
    if program.phase_us > 0 and program.population[p, MODEL] != LEAKY_INTEGRATOR:  # what never fires needs no phases
        # all that arrives in a phase counts as if it came at its begin
        now_us = t_us - (t_us - state.book[ANCHOR_US]) % program.phase_us
    return now_us


@inline_kernel
def _is_whole(program: Program, p: int, n: int) -> bool:
    """Tell whether a piece of n units is what ``neurons.front`` might also be given."""
    row = program.population[p]
    model = row[MODEL]
    return row[UNIFORM] != 0 and row[CROSSES] == 0 and (model in (LIF, INTEGRATE_FIRE)) and n >= row[GROUP]


@inline_kernel
def add_row(
    program: Program, state: State, p: int, start: int, n: int, weight: Any, at: int, t_us: int, out: Any
) -> tuple[bool, int]:
    """Let units from ``start`` on, a time group or a part of one, leak, and add ``weight[at:at + n]`` to them.

    Returns
    -------
    anyone, t_0
        Whether one may be above threshold; the time that the group had, which ``fire_reached`` wants.
    """
    row = program.population[p]
    model = row[MODEL]
    if state.progress[p, UNFOLDED]:
        _fold(program, state, p)
    now_us = reached_us(program, state, p, t_us)
    g = row[FIRST_GROUP] + start // row[GROUP]
    first = row[FIRST] + start
    t_0: Any = state.t_us[g]
    is_driven = model == INTEGRATE_FIRE and program.constant[DRIVE, row[FIRST]] != 0.0  # moves between events
    if _is_whole(program, p, n) and not is_driven and t_0 >= state.progress[p, HELD_UNTIL_US]:
        factor = 1.0
        if model == LIF and t_0 != now_us:
            factor = decay_of(program.decay[p], program.constant[TAU_MEM, first], now_us - t_0)
        state.t_us[g] = now_us
        return leak_add(state.v, first, first + n, factor, weight, at, program.theta[first]), t_0
    _advance(program, state, p, start // row[GROUP], now_us, out)
    if model == IZHIKEVICH:
        state.progress[p, ACTIVE] = 1  # a whole step may just have found it at rest
    return _jump(program, state, p, first, first + n, weight, at, now_us), t_0


@inline_kernel
def fire_reached(
    program: Program, state: State, p: int, start: int, n: int, reached: tuple[bool, int], t_us: int, out: Any
) -> None:
    """Let those fire of the units that ``add_row`` reached that are above threshold; ``reached``: what it returned."""
    row = program.population[p]
    model = row[MODEL]
    first = row[FIRST] + start
    anyone, t_0 = reached
    is_tested = program.phase_us == 0 and model != LEAKY_INTEGRATOR
    if is_tested and anyone:
        _fire(program, state, p, first, first + n, t_us, out)
    if _is_whole(program, p, n):
        now_us = state.t_us[row[FIRST_GROUP] + start // row[GROUP]]
        anchor_us, shift = state.book[ANCHOR_US], row[SHIFT]
        if (now_us - anchor_us) >> shift != (t_0 - anchor_us) >> shift:
            flush(state.v, first, first + n)  # when ``neurons.front`` does it, so that both give the same bits
    if not is_tested:
        return
    if model == THRESHOLD:
        for j in range(first, first + n):
            state.v[j] = 0.0
    if row[CROSSES]:
        for j in range(first, first + n):
            _foresee(program, state, p, j, t_us)


class Alone(NamedTuple):
    """What is the same of all units of a population that have times of their own and do nothing but leak."""

    first: Any  # unit
    first_group: Any
    tau_us: Any  # inf: no leak
    theta: Any  # real
    anchor_us: Any
    shift: Any


@inline_kernel
def are_alone(program: Program, state: State, p: int) -> bool:
    """Tell whether a population's units are such: ``add_alone`` and ``fire_alone`` may do what comes one by one."""
    row = program.population[p]
    is_driven = row[MODEL] == INTEGRATE_FIRE and program.constant[DRIVE, row[FIRST]] != 0.0
    is_held = row[REFRACTORY_US] != 0 or state.progress[p, UNFOLDED] != 0
    return row[GROUP] == 1 and program.phase_us == 0 and _is_whole(program, p, ONE) and not is_driven and not is_held


@inline_kernel
def alone_of(program: Program, state: State, p: int) -> Alone:
    """Gather what ``add_alone`` and ``fire_alone`` need for every unit."""
    row = program.population[p]
    first = row[FIRST]
    tau_us = program.constant[TAU_MEM, first] if row[MODEL] == LIF else math.inf
    return Alone(first, row[FIRST_GROUP], tau_us, program.theta[first], state.book[ANCHOR_US], row[SHIFT])


@inline_kernel
def add_alone(units: Alone, state: State, decay: Any, unit: int, weight: Any, t_us: int) -> Any:
    """Do for one unit, to which ``weight`` is added, what ``add_row`` does; returns the time that it had."""
    j, g = units.first + unit, units.first_group + unit
    t_0: Any = state.t_us[g]
    factor = 1.0
    if t_0 != t_us and units.tau_us != math.inf:
        factor = decay_of(decay, units.tau_us, t_us - t_0)
    state.t_us[g] = t_us
    state.v[j] = state.v[j] * state.v.dtype.type(factor) + weight
    return t_0


@inline_kernel
def fire_alone(units: Alone, program: Program, state: State, p: int, unit: int, t_0: int, t_us: int, out: Any) -> None:
    """Do for one unit, whose time was ``t_0``, what ``fire_reached`` does."""
    j = units.first + unit
    if state.v[j] > units.theta:
        _fire(program, state, p, j, j + 1, t_us, out)
    if (t_us - units.anchor_us) >> units.shift != (t_0 - units.anchor_us) >> units.shift:
        flush(state.v, j, j + 1)


@inline_kernel
def fade_of(program: Program, state: State, q: int, t_us: int) -> Any:
    """Return what is left, at ``t_us``, of the weights of a projection that fades."""
    way = program.projection[q]
    share = 1.0
    if way[FADES]:
        since_us = t_us - state.book[ANCHOR_US]
        if program.phase_us > 0:
            since_us -= since_us % program.phase_us
        if since_us > way[ONSET_US]:
            share = math.exp(-np.float64(since_us - way[ONSET_US]) / program.tau_fade_us[q])
    return share


@inline_kernel
def _faded(program: Program, state: State, q: int, at: int, n: int, t_us: int) -> tuple[Any, int]:
    """Return an array of weights, and the place in it of what ``program.weight[at:at + n]`` are worth at ``t_us``."""
    if not program.projection[q, FADES]:
        return program.weight, at
    real = state.spare.dtype.type
    left, tiny, zero = real(fade_of(program, state, q, t_us)), real(1e-30), real(0)
    for i in range(n):
        value = program.weight[at + i] * left
        state.spare[i] = value if abs(value) > tiny else zero  # no denormals, ever
    return state.spare, ZERO


@inner_kernel
def _deliver(program: Program, state: State, q: int, pre: int, t_us: int, out: Any) -> None:
    """Deliver one spike through one projection.

    What it reaches are pieces of n units, each of whole time groups or inside of one: a single one, a list of synapses,
    or the windows that hold a unit of a map, ``n_y`` rows of ``n_x``.
    """
    way = program.projection[q]
    p = way[TARGET]
    row = program.population[p]
    rouse(program, state, q, pre, t_us)
    links, kind = program.links, way[TOPOLOGY]
    n, n_y, n_x = row[UNITS], ONE, ONE
    unit, unit_y, unit_x = ZERO, ZERO, ZERO  # where the first piece begins, and how far it is to the next row, and one
    at, at_y, at_x = way[WEIGHT], ZERO, ZERO  # the same of its weights
    if kind == DENSE:
        at += pre * n
    elif kind == INHIBITION:
        at += n - 1 - pre
    elif kind == ONE_TO_ONE:
        at += pre * way[WEIGHT_STEP]
        unit, n = pre, ONE
    elif kind == SPARSE:
        synapse = links[way[ROWS] + pre]
        n_x = links[way[ROWS] + pre + 1] - synapse
        at += synapse
        unit, at_x, n = way[SYNAPSES] + synapse, ONE, ONE
    else:
        channels, c_out = way[SOURCE_CHANNELS], row[CHANNELS]
        pixel, c = pre // channels, pre % channels
        y = way[WINDOWS_Y] + 3 * (pixel // way[SOURCE_WIDTH])
        x = way[WINDOWS_X] + 3 * (pixel % way[SOURCE_WIDTH])
        n_y, n_x = links[y + 1] - links[y] + 1, links[x + 1] - links[x] + 1
        unit, unit_y, unit_x = (links[y] * row[WIDTH] + links[x]) * c_out, row[WIDTH] * c_out, c_out
        if kind == POOLING:
            unit, n = unit + c, ONE
        else:
            in_group, n = channels // way[GROUPS], c_out // way[GROUPS]
            c_first = c // in_group * n
            unit += c_first
            at += links[y + 2] + links[x + 2] + c % in_group * c_out + c_first
            at_x = -way[STRIDE_X] * in_group * c_out
            at_y = -way[STRIDE_Y] * way[SIZE_X] * in_group * c_out
    size = min(n, row[GROUP])
    if kind == SPARSE and not way[FADES] and are_alone(program, state, p):
        units, decay = alone_of(program, state, p), program.decay[p]
        for i in range(n_x):
            target = links[unit + i]
            t_0 = add_alone(units, state, decay, target, program.weight[at + i], t_us)
            fire_alone(units, program, state, p, target, t_0, t_us, out)
        return
    for piece in range(n_y * n_x):
        i_y, i_x = piece // n_x, piece % n_x
        begin = links[unit + i_x] if kind == SPARSE else unit + i_y * unit_y + i_x * unit_x
        for start in range(begin, begin + n, size):
            weight, weights_at = _faded(program, state, q, at + i_y * at_y + i_x * at_x + start - begin, size, t_us)
            reached = add_row(program, state, p, start, size, weight, weights_at, t_us, out)
            fire_reached(program, state, p, start, size, reached, t_us, out)


# -- happenings --------------------------------------------------------------------------------------------------------


@inner_kernel
def _room(program: Program, state: State, p: int, n_spikes: int, out: Any) -> int:
    """Tell whether ``n_spikes`` of a population find room, and what they set off: DONE, or what is full."""
    row = program.population[p]
    if state.book[N_QUEUE] + n_spikes > len(state.queue):
        return QUEUE_FULL
    if state.book[N_OUT] + n_spikes > len(out):
        return OUT_FULL
    if row[LOGGED] and state.progress[p, N_LOG] + n_spikes > state.log_us.shape[1]:
        return LOG_FULL
    if len(state.tape) > 0 and state.book[N_TAPE] + n_spikes + 1 > len(state.tape):
        return TAPE_FULL
    if not heap_has_room(
        state.heap, state.book, state.next_sequence, n_spikes * (row[N_DELAYED] + 2 * min(row[CROSSES], 1)) + 2
    ):
        return HEAP_FULL
    return DONE


@inner_kernel
def _cascade(program: Program, state: State, out: Any) -> int:
    """Deliver what waits in the queue, and what that sets off, level by level.

    Stops where room runs out, or a plastic projection is to deliver, and goes on from there when called again. Returns
    DONE, what is full, or PLASTIC_SPIKE.
    """
    book, progress, queue = state.book, state.progress, state.queue
    t_us: Any = book[NOW_US]
    for k in range(book[AT_POPULATION], len(program.population)):
        p = program.population[k, NEXT]
        n = program.population[p, UNITS]
        is_new = book[AT_PROJECTION] == 0 and book[AT_SPIKE] == 0 and not book[IS_DELIVERED]
        if is_new and progress[p, SPAN_FIRST] == progress[p, SPAN_LAST]:
            progress[p, SPAN_FIRST] = progress[p, SPAN_LAST] = book[N_QUEUE]
        q: Any = book[ARRIVING]
        if q >= 0 and program.projection[q, TARGET] == p:
            code = _room(program, state, p, 2 * n, out)
            if code != DONE:
                book[AT_POPULATION] = k
                return code
            if not program.projection[q, PLASTIC]:
                _deliver(program, state, q, book[PRE], t_us, out)
            elif not book[IS_DELIVERED]:
                book[AT_POPULATION] = k
                book[AWAITED], book[AWAITED_PRE] = q, book[PRE]
                return PLASTIC_SPIKE
            book[IS_DELIVERED] = 0
            progress[p, SPAN_LAST] = book[N_QUEUE]
            book[ARRIVING] = -1
        first = program.population[p, INCOMING]
        for i in range(first + book[AT_PROJECTION], program.population[p, INCOMING_END]):
            q = program.links[i]
            source = program.projection[q, SOURCE]
            if source < 0:
                begin, end = 0, 1 if book[BUSY] == FROM_INPUT else 0  # its one spike is held in PRE
            else:
                begin, end = progress[source, SPAN_FIRST], progress[source, SPAN_LAST]
            for s in range(begin + book[AT_SPIKE], end):
                code = _room(program, state, p, 2 * n, out)
                if code != DONE:
                    book[AT_POPULATION], book[AT_PROJECTION], book[AT_SPIKE] = k, i - first, s - begin
                    return code
                pre = book[PRE] if source < 0 else queue[s]
                if not program.projection[q, PLASTIC]:
                    _deliver(program, state, q, pre, t_us, out)
                elif not book[IS_DELIVERED]:
                    book[AT_POPULATION], book[AT_PROJECTION], book[AT_SPIKE] = k, i - first, s - begin
                    book[AWAITED], book[AWAITED_PRE] = q, pre
                    return PLASTIC_SPIKE
                book[IS_DELIVERED] = 0
                if program.phase_us == 0:
                    progress[p, SPAN_LAST] = book[N_QUEUE]
            book[AT_SPIKE] = 0
        book[AT_PROJECTION] = 0
    book[BUSY] = IDLE
    return DONE


@inner_kernel
def begin(book: Any, progress: Any, t_us: int, busy: int) -> None:
    """Begin a happening: an empty queue, nobody has fired."""
    book[N_QUEUE] = 0
    book[NOW_US] = t_us
    book[BUSY] = busy
    book[AT_POPULATION] = book[AT_PROJECTION] = book[AT_SPIKE] = 0
    book[ARRIVING] = -1
    for p in range(len(progress)):
        progress[p, SPAN_FIRST] = progress[p, SPAN_LAST] = 0


@inner_kernel
def _end_phase(program: Program, state: State, t_us: int, out: Any) -> None:
    """Let every population fire whose potentials may be above threshold."""
    book, progress = state.book, state.progress
    book[TICKING] = 0
    begin_us = t_us - program.phase_us
    is_needed = False
    for p in range(len(progress)):
        row = program.population[p]
        progress[p, SPAN_FIRST] = book[N_QUEUE]
        model = row[MODEL]
        if progress[p, ACTIVE] and model != LEAKY_INTEGRATOR:
            first, last = row[FIRST], row[FIRST] + row[UNITS]
            for g in range(row[UNITS] // row[GROUP]):
                _advance(program, state, p, g, begin_us, out)
            put_on_tape(state, t_us, ENDED, p, ZERO, 0.0)
            _fire(program, state, p, first, last, t_us, out)
            # who is still above, or moves by itself, has to be asked again
            is_hot = False
            for j in range(first, last):
                if model == THRESHOLD:
                    state.v[j] = 0.0
                is_hot |= state.v[j] > program.theta[j]
                if row[CROSSES]:
                    is_hot |= state.v[j] != 0.0 or state.w[j] != 0.0
            is_driven = row[CROSSES] == DRIVEN
            progress[p, ACTIVE] = is_hot or is_driven
            is_needed |= is_hot or is_driven
        progress[p, SPAN_LAST] = book[N_QUEUE]
    if is_needed:
        book[TICKING] = 1
        push(state.heap, state.book, t_us + program.phase_us, PHASE, ZERO, ZERO)


@inner_kernel
def _happen(program: Program, state: State, out: Any) -> int:
    """Begin what is first in the heap. Returns DONE, what is full or PHASE_ENDS (and then nothing has changed)."""
    heap, book, progress = state.heap, state.book, state.progress
    t_us, kind, where, unit = heap[0, TIME], heap[0, KIND], heap[0, WHERE], heap[0, UNIT]
    if kind == PHASE:
        if book[N_LATE] > 0:
            return PHASE_ENDS
        book[N_QUEUE] = 0
        n_all = len(state.v)
        if n_all > len(state.queue):
            return QUEUE_FULL
        if book[N_OUT] + n_all > len(out):
            return OUT_FULL
        if len(state.tape) > 0 and book[N_TAPE] + n_all + len(progress) > len(state.tape):
            return TAPE_FULL
        wanted = 2
        for p in range(len(progress)):
            row = program.population[p]
            if row[LOGGED] and progress[p, N_LOG] + row[UNITS] > state.log_us.shape[1]:
                return LOG_FULL
            wanted += row[UNITS] * row[N_DELAYED]
        if not heap_has_room(state.heap, state.book, state.next_sequence, wanted):
            return HEAP_FULL
        pop(state.heap, book)
        begin(state.book, state.progress, t_us, INSIDE)
        _end_phase(program, state, t_us, out)
        return DONE
    if kind == ARRIVAL:
        pop(state.heap, book)
        begin(state.book, state.progress, t_us, INSIDE)
        book[ARRIVING], book[PRE] = where, unit
        return DONE
    row = program.population[where]
    book[N_QUEUE] = 0
    code = _room(program, state, where, 2 * row[GROUP], out)
    if code != DONE:
        return code
    pop(state.heap, book)
    begin(state.book, state.progress, t_us, INSIDE)
    g = (unit - row[FIRST]) // row[GROUP] if kind == CROSSING else 0
    _advance(program, state, where, g, t_us, out)
    if kind == STEP and progress[where, ACTIVE]:
        push(state.heap, state.book, t_us + row[STEP_US], STEP, where, ZERO)
    progress[where, SPAN_LAST] = book[N_QUEUE]
    return DONE


@inline_kernel
def _t_us_of(items: Any, k: int) -> Any:
    """Return the time of an item."""
    return np.int64(items[k]["t"])


@inline_kernel
def _unit_of(items: Any, k: int) -> Any:
    """Return the unit of an item."""
    return np.int64(items[k]["unit"])


@inner_kernel
def _front(program: Program, state: State, items: Any, first: int, out: Any) -> Any:
    """Run input events through the first population as long as nothing else happens. Most time is spent here.

    As ``run`` does one by one, for networks whose input goes through one dense or convolutional projection
    to units that only leak. Stops when a cascade has begun, and before anything that is not so simple. Returns the
    first item not yet handled.
    """
    way = program.projection[program.front]
    p = way[TARGET]
    row = program.population[p]
    book, progress, queue = state.book, state.progress, state.queue
    first_unit, first_group, channels = row[FIRST], row[FIRST_GROUP], row[CHANNELS]
    per_column = way[SOURCE_CHANNELS] * channels
    is_taped = len(state.tape) > 0  # then no event may cause spikes unseen
    is_last = row[N_DELAYED] == 0 and (row[N_DIRECT] == 0 or row[IS_READ] == 1) and not is_taped
    layer = Layer(
        first_unit,
        row[UNITS],
        first_group,
        channels,
        row[WIDTH],
        p,
        program.theta[first_unit],
        program.down[first_unit],
        row[HARD] != 0,
        row[REFRACTORY_US],
        program.constant[TAU_MEM, first_unit] if row[MODEL] == LIF else math.inf,
        way[WEIGHT],
        (way[SOURCE_CHANNELS], way[SOURCE_WIDTH]),
        (way[WINDOWS_Y], way[WINDOWS_X]),
        (way[STRIDE_X] * per_column, way[STRIDE_Y] * way[SIZE_X] * per_column),
        book[ANCHOR_US],
        row[SHIFT],
        is_last,
        is_last and row[REFRACTORY_US] == 0,
    )
    table = program.decay[p]
    k: Any = np.int64(first)
    while True:
        due_us = state.heap[0, TIME] if book[N_HEAP] > 0 else NEVER_US
        held_until_us = progress[p, HELD_UNTIL_US]
        before, n_before = k, book[N_OUT]
        end = len(items)
        if is_taped:
            end = min(end, k + book[TAPE_STOP] - book[N_TAPE])
        if way[WHOLE]:
            k, t_0, held_until_us, n_fired, n_out, is_pending = quantised_front(
                layer,
                state.v,
                state.held_us,
                state.t_us[first_group],
                held_until_us,
                program.whole,
                program.scale,
                state.pending,
                progress[p, UNFOLDED],
                table,
                items[:end],
                k,
                due_us,
                state.spare,
                state.runs,
                state.notes,
                queue,
                out,
                n_before,
            )
            state.t_us[first_group] = t_0
            progress[p, UNFOLDED] = is_pending
        elif way[TOPOLOGY] == DENSE:
            k, t_0, held_until_us, n_fired, n_out = dense_front(
                layer,
                state.v,
                state.held_us,
                state.t_us[first_group],
                held_until_us,
                program.weight,
                table,
                items[:end],
                k,
                due_us,
                book[LAST_FIRED],
                state.spare,
                state.hot,
                queue,
                out,
                n_before,
            )
            state.t_us[first_group] = t_0
        else:
            k, held_until_us, n_fired, n_out = convolution_front(
                layer,
                state.v,
                state.held_us,
                state.t_us,
                held_until_us,
                program.weight,
                program.links,
                table,
                items[:end],
                k,
                due_us,
                state.hot,
                queue,
                out,
                n_before,
            )
        progress[p, HELD_UNTIL_US] = held_until_us
        book[N_DELIVERIES] += k - before
        book[N_SPIKES] += n_out - n_before
        book[N_OUT] = n_out
        if is_taped:
            for i in range(before, k):
                put_on_tape(state, _t_us_of(items, i), DELIVERED, program.front, _unit_of(items, i), 0.0)
            for s in range(n_fired):
                u = state.v[first_unit + queue[s]] + program.down[first_unit + queue[s]]
                put_on_tape(state, _t_us_of(items, k - 1), FIRED, p, queue[s], np.float64(u))
        if row[IS_READ]:
            for d in range(row[DIRECT], row[DIRECT_END]):
                on = program.projection[program.links[d]]
                target = program.population[on[TARGET]]
                read_out(
                    state.v,
                    state.integral_us,
                    state.t_us,
                    target[FIRST_GROUP],
                    target[FIRST],
                    target[UNITS],
                    program.constant[TAU_MEM, target[FIRST]],
                    program.weight,
                    on[WEIGHT],
                    out,
                    n_before,
                    n_out,
                )
                book[N_DELIVERIES] += n_out - n_before
                if is_taped:
                    for s in range(n_fired):
                        q_read: Any = program.links[d]
                        put_on_tape(state, _t_us_of(items, k - 1), DELIVERED, q_read, queue[s], 0.0)
        if n_fired == 0:
            return k
        book[LAST_FIRED] = k
        t: Any = np.int64(items[k - 1]["t"])
        for s in range(n_fired):
            for d in range(row[DELAYED], row[DELAYED_END]):
                q = program.links[d]
                push(state.heap, book, t + program.projection[q, DELAY_US], ARRIVAL, q, queue[s])
        if row[N_DIRECT] > 0 and not row[IS_READ]:
            begin(book, progress, t, INSIDE)
            progress[p, SPAN_LAST] = book[N_QUEUE] = n_fired
            return k
        if is_taped and book[N_TAPE] >= book[TAPE_STOP]:
            return k
        n_room = row[UNITS] * (LONGEST_RUN if way[WHOLE] else 1)
        if n_out + n_room > len(out) or not heap_has_room(
            state.heap, book, state.next_sequence, row[UNITS] * row[N_DELAYED] + 2
        ):
            return k


@kernel
def run(program: Program, state: State, items: Any, first: int, until_us: int, out: Any) -> tuple[int, int, int]:
    """Run through ``items[first:]`` and what happens inside up to ``until_us``.

    Parameters
    ----------
    program, state
        ``state`` is written to.
    items
        SPIKE_DTYPE, shape (n,), read-only, sorted by time: spikes of the input's units.
    first
        Where to begin.
    until_us
        When all items are through, what is due inside up to here happens too, us.
    out
        FIRED_DTYPE, shape (room,). Output, from ``book[N_OUT]`` on.

    Returns
    -------
    k, n_out, code
        The first item not yet begun, the count of spikes in ``out``, and a code. DONE; what is full: empty ``out``, or
        give ``state`` a larger queue, heap, log or tape, and call again; WINDOW_FULL: the tape has reached
        ``book[TAPE_STOP]``, so take what stands on it, set ``book[N_TAPE]`` to 0 and call again; PLASTIC_SPIKE:
        ``book[AWAITED_PRE]`` is to be delivered through projection ``book[AWAITED]`` (``rouse``, ``add_row``,
        ``fire_reached``), then ``book[IS_DELIVERED]`` set to 1, and ``run`` called again; PHASE_ENDS: what
        ``book[N_LATE]`` counts is to be done now, and that set to 0.
    """
    book = state.book
    book[LAST_FIRED] = -len(items)
    k = first
    while True:
        if book[BUSY] != IDLE:
            code = _cascade(program, state, out)
            if code != DONE:
                return k, book[N_OUT], code
        limit_us: Any = np.int64(items[k]["t"]) if k < len(items) else until_us
        while book[N_HEAP] > 0 and is_stale(state.heap, state.next_sequence, ZERO):
            pop(state.heap, book)
        if book[N_HEAP] > 0 and state.heap[0, TIME] <= limit_us:
            code = _happen(program, state, out)
            if code != DONE:
                return k, book[N_OUT], code
            continue
        if k == len(items):
            return k, book[N_OUT], DONE
        if len(state.tape) > 0 and book[N_TAPE] >= book[TAPE_STOP]:
            return k, book[N_OUT], WINDOW_FULL
        if program.front >= 0:
            book[N_QUEUE] = 0
            p = program.projection[program.front, TARGET]
            n_room = program.population[p, UNITS] * (LONGEST_RUN if program.projection[program.front, WHOLE] else 1)
            code = _room(program, state, p, n_room, out)
            if code != DONE:
                return k, book[N_OUT], code
            before = k
            k = _front(program, state, items, k, out)
            if k > before:
                continue
        n_delayed = program.delayed_end - program.delayed
        if n_delayed > 0 and not heap_has_room(state.heap, state.book, state.next_sequence, n_delayed):
            return k, book[N_OUT], HEAP_FULL
        begin(state.book, state.progress, limit_us, FROM_INPUT)
        book[PRE] = np.int64(items[k]["unit"])
        for d in range(program.delayed, program.delayed_end):
            q = program.links[d]
            push(state.heap, state.book, limit_us + program.projection[q, DELAY_US], ARRIVAL, q, book[PRE])
        k += 1


@kernel
def start(program: Program, state: State, t_us: int) -> None:
    """Schedule what a network at rest does by itself from ``t_us`` on; the heap has room for all units."""
    state.book[ANCHOR_US] = t_us
    for p in range(len(state.progress)):
        row = program.population[p]
        state.progress[p, ACTIVE] = 0
        if row[MODEL] == IZHIKEVICH:
            # even without input it may not be at rest
            state.progress[p, ACTIVE] = 1
            push(state.heap, state.book, t_us + row[STEP_US], STEP, p, ZERO)
        elif row[CROSSES] == DRIVEN:
            if program.phase_us > 0:
                state.progress[p, ACTIVE] = 1
                if not state.book[TICKING]:
                    state.book[TICKING] = 1
                    push(state.heap, state.book, t_us + program.phase_us, PHASE, ZERO, ZERO)
            else:
                for j in range(row[FIRST], row[FIRST] + row[UNITS]):
                    _foresee(program, state, p, j, t_us)


@kernel
def settle(program: Program, state: State, p: int, t_us: int, out: Any) -> None:
    """Bring a population to ``t_us``; nothing is due up to then."""
    row = program.population[p]
    for g in range(row[UNITS] // row[GROUP]):
        _advance(program, state, p, g, t_us, out)
