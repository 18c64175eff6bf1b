"""Weights that change event by event: one kernel beside ``neurons.engine`` for every rule on every topology.

The engine runs a network up to a spike that is to go through a *plastic* projection and hands it over. Here its row of
weights is brought up to date, added, and changed; then the engine goes on.

Rows wait
---------
What a *postsynaptic* spike does to its column of weights would touch one number in every row, as far apart in memory as
rows are. So it is only noted, in the population's log, and a row goes through the notes it has missed when it is next
needed: in the order in which they happened, each at its own time. Nobody can see the difference, and a row is in the
nearest cache when it happens. Rewards, learning signals and synaptic scaling, which concern all synapses, are notes
too. When a log has
grown long or old, all rows go through it and it begins anew.

Kernels of a convolution are shared by many inputs. There a note is worked off before the next spike goes through.

Order
-----
At a presynaptic spike at t: notes up to now; the row is added (as it is before this spike changes it); the row changes;
units that are above threshold fire; the presynaptic trace grows. Rows that reach several groups of units go group by
group. A unit that fires at t, by this spike or a later one, fires after it.

Everything waits for something in the stream, nothing for a packet's end: the result does not depend on the cut.

Phases
------
Where the network runs in phases, potentials are whole only at a phase's end. The Hebbian rule reads ``hebb`` as it
stood at the phase's begin, for all that arrives in the phase; what it changes waits for the end, in the order in which
the rows first came, and happens before anybody fires, with the sum of the row's amplitudes. All else is as between
phases: traces know the real times of spikes. So a layer computes, step by step, ``u <- decay u + a (w + mixing hebb)``,
then ``hebb <- clip(decay hebb + a local_rate post(u))``, then its spikes, as the authors of the paper coded it. Leaky
integrators know no phases, so nor does what leads to them.
"""

import math
from typing import Any

import numpy as np

from neurons.engine import (
    add_alone,
    add_row,
    alone_of,
    are_alone,
    begin,
    fade_of,
    fire_alone,
    fire_reached,
    put_on_tape,
    reached_us,
    rouse,
    run,
)
from neurons.program import (
    ANCHOR_US,
    AWAITED,
    AWAITED_PRE,
    BUSY,
    CHANNELS,
    CONVOLUTION,
    CROSSES,
    DELAY_US,
    DELIVERED,
    DENSE,
    DONE,
    DRIVE,
    FADES,
    FIRST,
    FIRST_GROUP,
    GROUP,
    HARD,
    IDLE,
    INSIDE,
    INTEGRATE_FIRE,
    IS_DELIVERED,
    IS_READ,
    LEAKY_INTEGRATOR,
    LIF,
    LOGGED,
    MODEL,
    N_DELAYED,
    N_DELIVERIES,
    N_DIRECT,
    N_HEAP,
    N_LATE,
    N_LOG,
    N_OUT,
    N_QUEUE,
    N_SPIKES,
    N_TAPE,
    NEVER_US,
    NOW_US,
    ONE,
    ONE_TO_ONE,
    PAD_X,
    PAD_Y,
    PHASE_ENDS,
    PLASTIC,
    PLASTIC_SPIKE,
    REFRACTORY_US,
    ROWS,
    SHIFT,
    SIZE_X,
    SIZE_Y,
    SOURCE,
    SOURCE_CHANNELS,
    SOURCE_WIDTH,
    SPAN_LAST,
    SPARSE,
    STRIDE_X,
    STRIDE_Y,
    SYNAPSES,
    TAPE_STOP,
    TARGET,
    TAU_MEM,
    TIME,
    TOPOLOGY,
    UNIFORM,
    UNITS,
    WEIGHT,
    WIDTH,
    WINDOWS_X,
    WINDOWS_Y,
    ZERO,
    Program,
    State,
)
from plasticity.bcm import bcm_pre
from plasticity.error_modulated import error_modulated_signal
from plasticity.hebbian import (
    ADD,
    SOFTMAX,
    TANH,
    Front,
    decay_row,
    freshen,
    hebbian_front,
    hebbian_read,
    hebbian_read_one,
    hebbian_write,
    hebbian_write_one,
)
from plasticity.hebbian_lanes import kind_of, most_square
from plasticity.oja import oja_post
from plasticity.pair_stdp import pair_stdp_front, pair_stdp_notes, pair_stdp_post, pair_stdp_pre
from plasticity.reward_stdp import reward_stdp_reward
from plasticity.short_term import short_term_amplitude
from plasticity.surround import surround_amplitude
from plasticity.synaptic_scaling import scale_weights
from plasticity.table import (
    A3_POST,
    A3_PRE,
    A_POST,
    A_PRE,
    BCM_RULE,
    ERROR_MODULATED,
    FAST_MAX,
    FIRST_FAST,
    FIRST_POST,
    FIRST_PRE,
    FIRST_ROW,
    FIRST_SIGNAL,
    FIRST_SITE,
    FORM,
    HAS_SCALING,
    HAS_SHORT_TERM,
    HAS_SURROUND,
    HEBBIAN,
    MIXING,
    N_PRE,
    NEAREST,
    NONE,
    OJA,
    PAIR_STDP,
    POST_TERM,
    RATE,
    REBASE_AFTER_TAUS,
    RENEW_AT,
    REWARD,
    REWARD_STDP,
    RULE,
    SCALED_MAX,
    SCALED_MIN,
    SHARE,
    SITE_CHANNELS,
    SITES_X,
    SITES_Y,
    STATIC,
    TAU_FAST,
    TAU_X,
    TAU_X2,
    TAU_Y,
    TAU_Y2,
    TRIPLET_STDP,
    W_MAX,
    W_MIN,
    Memory,
    Table,
    typed,
)
from plasticity.taped_front import may_run_taped, run_taped, tell_readouts
from stream.jit import inline_kernel, inner_kernel, kernel

# -- notes -------------------------------------------------------------------------------------------------------------


@inner_kernel
def _synapse(program: Program, q: int, pre: int, post: int) -> Any:
    """Find the weight from ``pre`` to ``post``; -1 if there is none. Not for convolutions."""
    way = program.projection[q]
    kind = way[TOPOLOGY]
    if kind == DENSE:
        return way[WEIGHT] + pre * program.population[way[TARGET], UNITS] + post
    if kind == ONE_TO_ONE:
        return way[WEIGHT] + pre if pre == post else NONE
    low: Any = program.links[way[ROWS] + pre]
    high: Any = program.links[way[ROWS] + pre + 1]
    end: Any = high
    while low < high:  # a row's units ascend
        middle = (low + high) // 2
        if program.links[way[SYNAPSES] + middle] < post:
            low = middle + 1
        else:
            high = middle
    if low < end and program.links[way[SYNAPSES] + low] == post:
        return way[WEIGHT] + low
    return NONE


@inline_kernel
def _span(program: Program, q: int, pre: int) -> Any:
    """Return where a row of weights begins, and how many there are. Not for convolutions."""
    way = program.projection[q]
    kind = way[TOPOLOGY]
    if kind == DENSE:
        n: Any = program.population[way[TARGET], UNITS]
        return way[WEIGHT] + pre * n, n
    if kind == ONE_TO_ONE:
        return way[WEIGHT] + pre, np.int64(1)
    first: Any = program.links[way[ROWS] + pre]
    return way[WEIGHT] + first, program.links[way[ROWS] + pre + 1] - first


@inner_kernel
def _windows(program: Program, q: int, pre: int) -> tuple[int, int, int, int, int, int, int]:
    """Find the windows of a convolution that hold a unit of its source.

    Returns
    -------
    oy_first, oy_last, ox_first, ox_last, y, x, c
        Sites of the target, inclusive; the unit's place, padding included, and its channel.
    """
    way, links = program.projection[q], program.links
    pixel, c = pre // way[SOURCE_CHANNELS], pre % way[SOURCE_CHANNELS]
    y, x = pixel // way[SOURCE_WIDTH], pixel % way[SOURCE_WIDTH]
    row, column = way[WINDOWS_Y] + 3 * y, way[WINDOWS_X] + 3 * x
    return links[row], links[row + 1], links[column], links[column + 1], y + way[PAD_Y], x + way[PAD_X], c


@inner_kernel
def _post_change(table: Table, program: Program, q: int, s: int, rule: int, x: float, y: float) -> None:
    """Let a postsynaptic spike change one weight; x: the presynaptic trace now; y: see ``Memory.note``."""
    real = program.weight.dtype.type
    number = table.number[q]
    w = program.weight
    if rule == PAIR_STDP:
        w[s] = pair_stdp_post(w[s], real(number[A_POST] * x), real(number[W_MAX]))
    elif rule == TRIPLET_STDP:
        w[s] = pair_stdp_post(w[s], real((number[A_POST] + number[A3_POST] * y) * x), real(number[W_MAX]))
    elif rule == OJA:
        w[s] = oja_post(w[s], real(number[RATE] * x), real(number[RATE] * y))


@inner_kernel
def _decay_row(memory: Memory, at: int, n: int, row: int, tau_us: float, t_us: int) -> None:
    """Bring a row of ``fast`` to ``t_us``."""
    dt_us = np.float64(t_us - memory.fast_us[row])
    if dt_us != 0.0:
        decay_row(memory.fast, memory.fast_us, at, n, row, math.exp(-dt_us / tau_us), t_us)


@inner_kernel
def _trace(memory: Memory, m: int, i: int, t_us: int, tau_us: float) -> Any:
    """Return a presynaptic trace at ``t_us``."""
    return memory.x[m, i] * math.exp(-np.float64(t_us - memory.x_us[i]) / tau_us)


@inner_kernel
def _post_kernel(program: Program, state: State, table: Table, memory: Memory, q: int, k: int) -> None:
    """Let a postsynaptic spike change the kernel of a convolution."""
    way = program.projection[q]
    p = way[TARGET]
    row = program.population[p]
    number = table.number[q]
    t_us: Any = state.log_us[p, k]
    post: Any = state.log_unit[p, k]
    y_value = memory.note[q, 1, k]
    c_out, c_in = row[CHANNELS], way[SOURCE_CHANNELS]
    site = post // c_out
    top, left = site // row[WIDTH] * way[STRIDE_Y] - way[PAD_Y], site % row[WIDTH] * way[STRIDE_X] - way[PAD_X]
    height = table.place[q, N_PRE] // (way[SOURCE_WIDTH] * c_in)
    for ky in range(max(0, -top), min(way[SIZE_Y], height - top)):
        for kx in range(max(0, -left), min(way[SIZE_X], way[SOURCE_WIDTH] - left)):
            for c in range(c_in):
                pre = ((top + ky) * way[SOURCE_WIDTH] + left + kx) * c_in + c
                i = table.place[q, FIRST_PRE] + pre
                x = _trace(memory, ZERO, i, t_us, number[TAU_X])
                kernel_row = (ky * way[SIZE_X] + kx) * c_in + c
                if table.place[q, RULE] == REWARD_STDP:
                    at_fast: Any = table.place[q, FIRST_FAST] + kernel_row * c_out
                    row_fast: Any = table.place[q, FIRST_ROW] + kernel_row
                    _decay_row(memory, at_fast, c_out, row_fast, number[TAU_FAST], t_us)
                    memory.fast[at_fast + post % c_out] += memory.fast.dtype.type(number[A_POST] * x)
                else:
                    s = way[WEIGHT] + kernel_row * c_out + post % c_out
                    _post_change(table, program, q, s, table.place[q, RULE], x, y_value)


@inner_kernel
def _note_kernel(program: Program, state: State, table: Table, memory: Memory, q: int, k: int) -> None:
    """Let a reward or a learning signal change the kernel of a convolution."""
    way, number, place = program.projection[q], table.number[q], table.place[q]
    p = way[TARGET]
    row = program.population[p]
    real = program.weight.dtype.type
    t_us: Any = state.log_us[p, k]
    unit: Any = state.log_unit[p, k]
    bounds = real(number[W_MIN]), real(number[W_MAX])
    c_out: Any = row[CHANNELS]
    c_in = way[SOURCE_CHANNELS]
    if unit == REWARD and place[RULE] == REWARD_STDP:
        for r in range(way[SIZE_Y] * way[SIZE_X] * c_in):
            at_fast: Any = place[FIRST_FAST] + r * c_out
            _decay_row(memory, at_fast, c_out, place[FIRST_ROW] + r, number[TAU_FAST], t_us)
            gain = real(number[RATE] * memory.value[p, k])
            at: Any = way[WEIGHT] + r * c_out
            reward_stdp_reward(program.weight, at, c_out, memory.fast, at_fast, gain, bounds)
    if unit > FIRST_SIGNAL:
        return
    signal: Any = memory.signal[FIRST_SIGNAL - unit]
    if memory.value[p, k] != 0.0:
        if memory.value[p, k] == 1.0 + q:
            scaled = real(number[SCALED_MIN]), real(number[SCALED_MAX])
            for r in range(way[SIZE_Y] * way[SIZE_X] * c_in):
                at_scaled: Any = way[WEIGHT] + r * c_out
                scale_weights(program.weight, at_scaled, c_out, signal, row[FIRST], scaled)
        return
    if place[RULE] != ERROR_MODULATED:
        return
    for pre in range(place[N_PRE]):
        i: Any = place[FIRST_PRE] + pre
        if memory.x[0, i] == 0.0:
            continue
        x_now = real(number[RATE] * _trace(memory, ZERO, i, t_us, number[TAU_X]))
        oy_first, oy_last, ox_first, ox_last, y, x, c = _windows(program, q, typed(pre))
        for oy in range(oy_first, oy_last + 1):
            for ox in range(ox_first, ox_last + 1):
                tap = (y - oy * way[STRIDE_Y]) * way[SIZE_X] + x - ox * way[STRIDE_X]
                at_tap: Any = way[WEIGHT] + (tap * c_in + c) * c_out
                first: Any = row[FIRST] + (oy * row[WIDTH] + ox) * c_out
                error_modulated_signal(program.weight, at_tap, c_out, signal, first, x_now, bounds)


@inline_kernel
def _consume(program: Program, state: State, table: Table, memory: Memory, q: int) -> None:
    """Take the notes into the postsynaptic traces of a projection, if there are new ones."""
    if memory.consumed[q] != state.progress[program.projection[q, TARGET], N_LOG]:
        _consume_notes(program, state, table, memory, q)


@inner_kernel
def _consume_notes(program: Program, state: State, table: Table, memory: Memory, q: int) -> None:
    """Take the notes into the postsynaptic traces of a projection."""
    p = program.projection[q, TARGET]
    n_log: Any = state.progress[p, N_LOG]
    real = memory.y.dtype.type
    number, place = table.number[q], table.place[q]
    rule = place[RULE]
    first, n = place[FIRST_POST], program.population[p, UNITS]
    anchor_us = state.log_us[p, 0]
    shortest_us = min(number[TAU_Y], number[TAU_Y2])
    for k in range(memory.consumed[q], n_log):
        t_us: Any = state.log_us[p, k]
        unit: Any = state.log_unit[p, k]
        memory.note[q, 0, k] = math.exp(-np.float64(t_us - anchor_us) / number[TAU_X])
        memory.note[q, 1, k] = 0.0
        if unit < 0:
            if program.projection[q, TOPOLOGY] == CONVOLUTION:
                _note_kernel(program, state, table, memory, q, typed(k))
            continue
        since_us: Any = np.float64(t_us - memory.y_us[q])
        if since_us > REBASE_AFTER_TAUS * shortest_us:
            _rebase(memory, q, first, n, number[TAU_Y], number[TAU_Y2], t_us)
            since_us = 0.0
        growth, growth_2 = math.exp(since_us / number[TAU_Y]), math.exp(since_us / number[TAU_Y2])
        j = first + unit
        if rule == BCM_RULE:
            before = np.float64(memory.y[0, j]) / growth
            memory.y[0, j] += real(growth)
            after = np.float64(memory.y[0, j]) / growth
            memory.y[1, j] += real(number[SHARE] * (before * before - after * after) * growth_2)
            continue
        if rule == TRIPLET_STDP:
            memory.note[q, 1, k] = np.float64(memory.y[1, j]) / growth_2
            memory.y[1, j] += real(growth_2)
        memory.y[0, j] = real(growth) if number[NEAREST] != 0.0 else memory.y[0, j] + real(growth)
        if rule == OJA:
            memory.note[q, 1, k] = np.float64(memory.y[0, j]) / growth
        if program.projection[q, TOPOLOGY] == CONVOLUTION:
            _post_kernel(program, state, table, memory, q, typed(k))
    memory.consumed[q] = n_log


@inner_kernel
def _rebase(memory: Memory, q: int, first: int, n: int, tau_us: float, tau_2_us: float, t_us: int) -> None:
    """Let the postsynaptic traces be those of ``t_us``."""
    real = memory.y.dtype.type
    dt_us = np.float64(t_us - memory.y_us[q])
    factor, factor_2 = real(math.exp(-dt_us / tau_us)), real(math.exp(-dt_us / tau_2_us))
    tiny, zero = real(1e-30), real(0.0)
    for j in range(first, first + n):
        kept, kept_2 = memory.y[0, j] * factor, memory.y[1, j] * factor_2
        memory.y[0, j] = kept if abs(kept) > tiny else zero
        memory.y[1, j] = kept_2 if abs(kept_2) > tiny else zero
    memory.y_us[q] = t_us


@inline_kernel
def _catch_up(program: Program, state: State, table: Table, memory: Memory, q: int, pre: int) -> None:
    """Let a row of weights go through the notes it has missed; they are consumed already. Not for convolutions."""
    way, number, place = program.projection[q], table.number[q], table.place[q]
    p = way[TARGET]
    i = place[FIRST_PRE] + pre
    k_0, k_1 = memory.seen[i], state.progress[p, N_LOG]
    rule = place[RULE]
    memory.seen[i] = k_1
    if k_0 == k_1 or (rule in (STATIC, HEBBIAN, BCM_RULE) and not place[HAS_SCALING]):
        return
    at: Any
    n: Any
    at, n = _span(program, q, pre)
    real = program.weight.dtype.type
    # notes hold what is left of x since the first of them
    x = memory.x[0, i] * math.exp(np.float64(memory.x_us[i] - state.log_us[p, 0]) / number[TAU_X])
    w = program.weight
    if rule == PAIR_STDP and way[TOPOLOGY] == DENSE and not place[HAS_SCALING]:
        gain = number[A_POST] * x
        pair_stdp_notes(w, at, n, state.log_unit[p], memory.note[q, 0], k_0, k_1, gain, real(number[W_MAX]))
        return
    bounds = real(number[W_MIN]), real(number[W_MAX])
    at_fast = place[FIRST_FAST] + at - way[WEIGHT]
    row = place[FIRST_ROW] + pre
    for k in range(k_0, k_1):
        unit: Any = state.log_unit[p, k]
        t_us: Any = state.log_us[p, k]
        x_now = x * memory.note[q, 0, k]
        if unit <= FIRST_SIGNAL and memory.value[p, k] != 0.0:
            if memory.value[p, k] == 1.0 + q:
                _scale_row(program, table, memory, q, at, n, pre, FIRST_SIGNAL - unit)
        elif rule == REWARD_STDP:
            # the row's own time is not moved for every note, but before numbers grow too large
            if np.float64(t_us - memory.fast_us[row]) > 10.0 * number[TAU_FAST]:
                _decay_row(memory, at_fast, n, row, number[TAU_FAST], t_us)
            since = np.float64(t_us - memory.fast_us[row]) / number[TAU_FAST]
            if unit == REWARD:
                gain_r = real(number[RATE] * memory.value[p, k] * math.exp(-since))
                reward_stdp_reward(w, at, n, memory.fast, at_fast, gain_r, bounds)
            elif unit >= 0:
                s = _synapse(program, q, pre, unit)
                if s >= 0:
                    memory.fast[at_fast + s - at] += real(number[A_POST] * x_now * math.exp(since))
        elif rule == ERROR_MODULATED:
            if unit <= FIRST_SIGNAL:
                _signal_row(program, table, memory, q, at, n, pre, FIRST_SIGNAL - unit, x_now, bounds)
        elif unit >= 0:
            s = _synapse(program, q, pre, unit)
            if s >= 0:
                _post_change(table, program, q, s, rule, x_now, memory.note[q, 1, k])


@inner_kernel
def _scale_row(program: Program, table: Table, memory: Memory, q: int, at: int, n: int, pre: int, index: int) -> None:
    """Let synaptic scaling change a row."""
    way = program.projection[q]
    first = program.population[way[TARGET], FIRST]
    real = program.weight.dtype.type
    bounds = real(table.number[q, SCALED_MIN]), real(table.number[q, SCALED_MAX])
    factor = memory.signal[index]
    if way[TOPOLOGY] == DENSE:
        scale_weights(program.weight, at, n, factor, first, bounds)
        return
    for s in range(at, at + n):
        unit: Any = typed(pre)
        if way[TOPOLOGY] == SPARSE:
            unit = program.links[way[SYNAPSES] + s - way[WEIGHT]]
        scale_weights(program.weight, typed(s), ONE, factor, first + unit, bounds)


@inner_kernel
def _signal_row(
    program: Program,
    table: Table,
    memory: Memory,
    q: int,
    at: int,
    n: int,
    pre: int,
    index: int,
    x: float,
    bounds: Any,
) -> None:
    """Let a learning signal change a row."""
    way = program.projection[q]
    first = program.population[way[TARGET], FIRST]
    gain = program.weight.dtype.type(table.number[q, RATE] * x)
    signal = memory.signal[index]
    if way[TOPOLOGY] == DENSE:
        error_modulated_signal(program.weight, at, n, signal, first, gain, bounds)
        return
    for s in range(at, at + n):
        unit: Any = typed(pre)
        if way[TOPOLOGY] == SPARSE:
            unit = program.links[way[SYNAPSES] + s - way[WEIGHT]]
        error_modulated_signal(program.weight, typed(s), ONE, signal, first + unit, gain, bounds)


@kernel
def renew(program: Program, state: State, table: Table, memory: Memory, p: int) -> None:
    """Let everything that leads to a population go through its log, and begin that anew."""
    for q in range(len(program.projection)):
        place = table.place[q]
        if program.projection[q, TARGET] != p or place[RULE] < 0:
            continue
        _consume(program, state, table, memory, typed(q))
        if program.projection[q, TOPOLOGY] != CONVOLUTION:
            for pre in range(place[N_PRE]):
                _catch_up(program, state, table, memory, typed(q), typed(pre))
        memory.consumed[q] = 0
        for i in range(place[FIRST_PRE], place[FIRST_PRE] + place[N_PRE]):
            memory.seen[i] = 0
    state.progress[p, N_LOG] = 0


@kernel
def note(state: State, memory: Memory, p: int, t_us: int, unit: int, value: float) -> None:
    """Add a reward, a learning signal or factors of scaling to a log, in which there is room."""
    n_log: Any = state.progress[p, N_LOG]
    state.log_us[p, n_log] = t_us
    state.log_unit[p, n_log] = unit
    memory.value[p, n_log] = value
    state.progress[p, N_LOG] += 1


# -- a presynaptic spike -----------------------------------------------------------------------------------------------


@inline_kernel
def _reach(
    program: Program,
    state: State,
    table: Table,
    memory: Memory,
    q: int,
    pre: int,
    row: int,
    a: int,
    n: int,
    at: int,
    amplitude: float,
    t_us: int,
    out: Any,
) -> None:
    """Deliver to units a to a + n - 1, all or a part of one time group, through ``weight[at:at + n]``, and learn."""
    way, number, place = program.projection[q], table.number[q], table.place[q]
    p = way[TARGET]
    rule = place[RULE]
    real = program.weight.dtype.type
    w, scratch = program.weight, memory.row[0]
    i = place[FIRST_PRE] + pre
    at_fast = place[FIRST_FAST] + at - way[WEIGHT]
    scaled = real(amplitude)
    if rule == HEBBIAN:
        # the row is fresh
        left = math.exp(-np.float64(reached_us(program, state, p, t_us) - memory.fast_us[row]) / number[TAU_FAST])
        hebbian_read(w, at, memory.fast, table.share, at_fast, n, left, place[FORM], number[MIXING], scratch)
        if amplitude != 1.0:
            for j in range(n):
                scratch[j] *= scaled
        reached = add_row(program, state, p, a, n, scratch, ZERO, t_us, out)
        if _has_phases(program, p):
            return
        hebbian_write(
            memory.fast,
            at_fast,
            n,
            left,
            state.v,
            program.population[p, FIRST] + a,
            program.theta,
            program.population[p, UNIFORM] != 0,
            table.sliding,
            place[FIRST_POST] + a,
            amplitude * np.float64(table.local_rate[i]),
            number[FAST_MAX],
            place[POST_TERM],
            memory.row[1:],
        )
        fire_reached(program, state, p, a, n, reached, t_us, out)
        return
    if amplitude != 1.0:
        for j in range(n):
            scratch[j] = w[at + j] * scaled
        reached = add_row(program, state, p, a, n, scratch, ZERO, t_us, out)
    else:
        reached = add_row(program, state, p, a, n, w, at, t_us, out)
    since_us = np.float64(t_us - memory.y_us[q])
    left_y = math.exp(-since_us / number[TAU_Y])
    left_y2 = math.exp(-since_us / number[TAU_Y2]) if rule == BCM_RULE else 1.0
    first_y = place[FIRST_POST] + a
    low = real(number[W_MIN])
    if rule == PAIR_STDP:
        pair_stdp_pre(w, at, n, memory.y[0], first_y, real(number[A_PRE] * left_y), low)
    elif rule == TRIPLET_STDP:
        x_2 = _trace(memory, ONE, i, t_us, number[TAU_X2])
        pair_stdp_pre(w, at, n, memory.y[0], first_y, real((number[A_PRE] + number[A3_PRE] * x_2) * left_y), low)
    elif rule == BCM_RULE:
        bounds = low, real(number[W_MAX])
        bcm_pre(
            w,
            at,
            n,
            memory.y[0],
            memory.y[1],
            first_y,
            real(left_y),
            real(left_y2),
            real(number[SHARE]),
            real(number[RATE]),
            bounds,
        )
    elif rule == REWARD_STDP:
        change = real(number[A_PRE] * left_y)
        for j in range(n):
            memory.fast[at_fast + j] -= change * memory.y[0, first_y + j]
    fire_reached(program, state, p, a, n, reached, t_us, out)


@inline_kernel
def _reach_one(
    program: Program,
    state: State,
    table: Table,
    memory: Memory,
    q: int,
    pre: int,
    left: float,
    a: int,
    at: int,
    amplitude: float,
    t_us: int,
    units: Any,
    is_alone: bool,
    out: Any,
) -> None:
    """Do what ``_reach`` does through one Hebbian synapse, ``weight[at]``, to unit a.

    ``left``: of its hebb; ``units, is_alone``: what ``neurons.engine.alone_of`` and ``are_alone`` say of the target.
    """
    way, number, place = program.projection[q], table.number[q], table.place[q]
    p = way[TARGET]
    at_fast = place[FIRST_FAST] + at - way[WEIGHT]
    w, scratch = program.weight, memory.row[0]
    scratch[0] = hebbian_read_one(w, at, memory.fast, table.share, at_fast, left, place[FORM], number[MIXING])
    scratch[0] *= w.dtype.type(amplitude)
    t_0: Any = t_us
    reached = (False, t_0)
    if is_alone:
        t_0 = add_alone(units, state, program.decay[p], a, scratch[0], t_us)
    else:
        reached = add_row(program, state, p, a, ONE, scratch, ZERO, t_us, out)
    if _has_phases(program, p):
        return
    j = program.population[p, FIRST] + a
    rate = amplitude * np.float64(table.local_rate[place[FIRST_PRE] + pre])
    eta = table.sliding[place[FIRST_POST] + a]
    u, theta = state.v[j], program.theta[j]
    hebbian_write_one(memory.fast, at_fast, left, u, theta, eta, rate, number[FAST_MAX], place[POST_TERM])
    if is_alone:
        fire_alone(units, program, state, p, a, t_0, t_us, out)
    else:
        fire_reached(program, state, p, a, ONE, reached, t_us, out)


@inner_kernel
def _ready(memory: Memory, rule: int, at: int, n: int, row: int, tau_us: float, t_us: int) -> None:
    """Make a row of ``fast`` ready for a spike."""
    if rule == REWARD_STDP:
        _decay_row(memory, at, n, row, tau_us, t_us)
    elif rule == HEBBIAN:
        freshen(memory.fast, memory.fast_us, at, n, row, tau_us, t_us)


@inline_kernel
def _has_phases(program: Program, p: int) -> bool:
    """Tell whether a population fires at the ends of phases."""
    return program.phase_us > 0 and program.population[p, MODEL] != LEAKY_INTEGRATOR


@inner_kernel
def _write_row(
    program: Program,
    state: State,
    table: Table,
    memory: Memory,
    q: int,
    pre: int,
    left: float,
    a: int,
    n: int,
    at: int,
) -> None:
    """Let a row of hebb change by what a phase has brought to units a to a + n - 1; ``weight[at]`` is the first's."""
    place, p = table.place[q], program.projection[q, TARGET]
    i = place[FIRST_PRE] + pre
    hebbian_write(
        memory.fast,
        place[FIRST_FAST] + at - program.projection[q, WEIGHT],
        n,
        left,
        state.v,
        program.population[p, FIRST] + a,
        program.theta,
        program.population[p, UNIFORM] != 0,
        table.sliding,
        place[FIRST_POST] + a,
        memory.owed[i] * np.float64(table.local_rate[i]),
        table.number[q, FAST_MAX],
        place[POST_TERM],
        memory.row[1:],
    )


@inner_kernel
def _write_late(program: Program, state: State, table: Table, memory: Memory, t_us: int) -> None:
    """Do what has waited for the end of a phase, at ``t_us``."""
    for k in range(state.book[N_LATE]):
        q: Any = memory.late[k, 0]
        pre: Any = memory.late[k, 1]
        way, place = program.projection[q], table.place[q]
        target = program.population[way[TARGET]]
        tau_us = table.number[q, TAU_FAST]
        i = place[FIRST_PRE] + pre
        row: Any = place[FIRST_ROW] + pre
        if way[TOPOLOGY] == CONVOLUTION:
            n: Any = target[CHANNELS]
            oy_first, oy_last, ox_first, ox_last, y, x, c = _windows(program, q, pre)
            for oy in range(oy_first, oy_last + 1):
                for ox in range(ox_first, ox_last + 1):
                    tap = (y - oy * way[STRIDE_Y]) * way[SIZE_X] + x - ox * way[STRIDE_X]
                    kernel_row = tap * way[SOURCE_CHANNELS] + c
                    row = place[FIRST_ROW] + kernel_row
                    left = freshen(
                        memory.fast, memory.fast_us, place[FIRST_FAST] + kernel_row * n, n, row, tau_us, t_us
                    )
                    site = (oy * target[WIDTH] + ox) * n
                    at: Any = way[WEIGHT] + kernel_row * n
                    _write_row(program, state, table, memory, q, pre, left, site, n, at)
        else:
            first: Any
            first, n = _span(program, q, pre)
            at_fast = place[FIRST_FAST] + first - way[WEIGHT]
            left = freshen(memory.fast, memory.fast_us, at_fast, n, row, tau_us, t_us)
            if way[TOPOLOGY] == DENSE:
                _write_row(program, state, table, memory, q, pre, left, ZERO, n, first)
            else:
                for s in range(first, first + n):
                    unit: Any = pre
                    if way[TOPOLOGY] == SPARSE:
                        unit = program.links[way[SYNAPSES] + s - way[WEIGHT]]
                    _write_row(program, state, table, memory, q, pre, left, unit, ONE, typed(s))
        memory.owed[i] = 0.0
        memory.is_late[i] = 0
    state.book[N_LATE] = 0


@inline_kernel
def _deliver(
    program: Program,
    state: State,
    table: Table,
    memory: Memory,
    q: int,
    pre: int,
    strength: float,
    t_us: int,
    out: Any,
) -> None:
    """Deliver a spike through a plastic projection; ``strength``: what its amplitude is before its terminal tires."""
    way, number, place = program.projection[q], table.number[q], table.place[q]
    p = way[TARGET]
    target = program.population[p]
    rouse(program, state, q, pre, t_us)
    strength *= fade_of(program, state, q, t_us)
    if place[HAS_SURROUND]:
        strength *= surround_amplitude(
            memory.support,
            memory.surround_us,
            memory.pool,
            q,
            place[FIRST_SITE],
            place[SITES_Y],
            place[SITES_X],
            pre // place[SITE_CHANNELS],
            table.surround[q],
            t_us,
        )
    if len(state.tape) > 0:
        state.taped[state.book[N_TAPE] - 1] = strength
    n_log = state.progress[p, N_LOG]
    if n_log > 0 and (n_log >= RENEW_AT or t_us - state.log_us[p, 0] > table.renew_us[p]):
        renew(program, state, table, memory, p)
    _consume(program, state, table, memory, q)
    i = place[FIRST_PRE] + pre
    kind = way[TOPOLOGY]
    dt_us = np.float64(t_us - memory.x_us[i])
    amplitude = strength
    if place[HAS_SHORT_TERM]:
        amplitude *= short_term_amplitude(memory.fatigue, table.terminal, i, dt_us)
    now_us = reached_us(program, state, p, t_us) if place[RULE] == HEBBIAN else t_us
    if place[RULE] == HEBBIAN and _has_phases(program, p):
        if memory.is_late[i] == 0:
            n_late: Any = state.book[N_LATE]
            memory.is_late[i] = 1
            memory.late[n_late, 0], memory.late[n_late, 1] = q, pre
            state.book[N_LATE] += 1
        memory.owed[i] += amplitude
    first: Any = way[WEIGHT]
    n: Any = target[CHANNELS]
    n_y: Any = ONE
    n_x: Any = ONE
    oy_first, ox_first, y, x, c = ZERO, ZERO, ZERO, ZERO, ZERO
    row: Any = place[FIRST_ROW] + pre
    if kind == CONVOLUTION:
        oy_first, oy_last, ox_first, ox_last, y, x, c = _windows(program, q, pre)
        n_y, n_x = max(oy_last - oy_first + 1, 0), max(ox_last - ox_first + 1, 0)
    else:
        _catch_up(program, state, table, memory, q, pre)
        first, n = _span(program, q, pre)
        _ready(memory, place[RULE], place[FIRST_FAST] + first - way[WEIGHT], n, row, number[TAU_FAST], now_us)
        if kind != DENSE:
            n_x, n = n, ONE
    size: Any = min(n, target[GROUP])
    unit: Any = ZERO
    at: Any = first
    is_single = place[RULE] == HEBBIAN and n == 1 and place[POST_TERM] != SOFTMAX
    is_alone, units = is_single and are_alone(program, state, p), alone_of(program, state, p)
    left = 1.0
    # pieces: windows, synapses, or the whole row; each of whole time groups or inside of one
    for piece in range(n_y * n_x):
        if kind == CONVOLUTION:
            oy, ox = oy_first + piece // n_x, ox_first + piece % n_x
            unit = (oy * target[WIDTH] + ox) * n
            tap = (y - oy * way[STRIDE_Y]) * way[SIZE_X] + x - ox * way[STRIDE_X]
            kernel_row = tap * way[SOURCE_CHANNELS] + c
            row = place[FIRST_ROW] + kernel_row
            at = way[WEIGHT] + kernel_row * n
            _ready(memory, place[RULE], place[FIRST_FAST] + at - way[WEIGHT], n, row, number[TAU_FAST], now_us)
        elif kind != DENSE:
            at = first + piece
            unit = program.links[way[SYNAPSES] + at - way[WEIGHT]] if kind == SPARSE else pre
        if is_single:
            if piece == 0 or kind == CONVOLUTION:
                left = math.exp(-np.float64(now_us - memory.fast_us[row]) / number[TAU_FAST])
            _reach_one(program, state, table, memory, q, pre, left, unit, at, amplitude, t_us, units, is_alone, out)
            continue
        for a in range(0, n, size):
            _reach(program, state, table, memory, q, pre, row, unit + a, size, at + a, amplitude, t_us, out)
    if place[RULE] in (STATIC, HEBBIAN):
        if place[HAS_SHORT_TERM]:
            memory.x_us[i] = t_us
        return
    is_nearest = number[NEAREST] != 0.0
    memory.x[0, i] = 1.0 if is_nearest else memory.x[0, i] * math.exp(-dt_us / number[TAU_X]) + 1.0
    if place[RULE] == TRIPLET_STDP:
        memory.x[1, i] = memory.x[1, i] * math.exp(-dt_us / number[TAU_X2]) + 1.0
    memory.x_us[i] = t_us


@inline_kernel
def _fast_kind(program: Program, table: Table, q: int, strength: Any) -> Any:
    """Return the rule if the fast loops may run projection q, the input's only one; else -1."""
    way, place = program.projection[q], table.place[q]
    row = program.population[way[TARGET]]
    rule = place[RULE]
    is_passive = row[MODEL] == LIF or (row[MODEL] == INTEGRATE_FIRE and program.constant[DRIVE, row[FIRST]] == 0.0)
    is_passive = is_passive and row[UNIFORM] != 0 and row[CROSSES] == 0 and row[REFRACTORY_US] == 0
    is_dense = way[TOPOLOGY] == DENSE and row[GROUP] == row[UNITS] and not way[FADES] and program.phase_us == 0
    is_plain = rule == PAIR_STDP
    if rule == HEBBIAN:  # the loop finds who is above a threshold by its share of it
        is_plain = place[FORM] == ADD and place[POST_TERM] == TANH and program.theta[row[FIRST]] > 0
    if (
        is_passive
        and is_dense
        and is_plain
        and not place[HAS_SHORT_TERM]
        and not place[HAS_SURROUND]
        and not place[HAS_SCALING]
        and len(strength) == 0
    ):
        return rule
    return NONE


@inline_kernel
def _has_room(program: Program, state: State, p: int, most: int, out: Any) -> bool:
    """Tell whether ``most`` spikes of a population find room, and an event's entry on the tape."""
    row, book = program.population[p], state.book
    if book[N_OUT] + most > len(out) or most > len(state.queue):
        return False
    if row[LOGGED] and state.progress[p, N_LOG] + most > state.log_us.shape[1]:
        return False
    if len(state.tape) > 0 and (book[N_TAPE] >= book[TAPE_STOP] or book[N_TAPE] + most + 1 > len(state.tape)):
        return False
    return bool(book[N_HEAP] + most * (row[N_DELAYED] + 2 * min(row[CROSSES], 1)) + 2 <= len(state.heap))


@inner_kernel
def _fast_front(
    program: Program, state: State, table: Table, memory: Memory, q: int, items: Any, first: int, out: Any
) -> Any:
    """Run input events through the rule's own fast loop as long as nothing else happens; ``_fast_kind`` allows it.

    Returns the first item not yet begun, and leaves a cascade to be gone through if the last one caused spikes that
    go anywhere.
    """
    book, progress = state.book, state.progress
    way, number, place = program.projection[q], table.number[q], table.place[q]
    p: Any = way[TARGET]
    row = program.population[p]
    n, group, unit = row[UNITS], row[FIRST_GROUP], row[FIRST]
    most = n * (1 + row[N_DIRECT])  # entries that one event may add to the tape, besides its own
    is_last = row[N_DELAYED] == 0 and (row[N_DIRECT] == 0 or row[IS_READ] != 0)
    layer = Front(
        n,
        unit,
        way[WEIGHT],
        place[FIRST_FAST],
        place[FIRST_ROW],
        place[FIRST_PRE],
        place[FIRST_POST],
        program.theta[unit],
        # read by the Hebbian loop alone
        most_square(table.sliding, place[FIRST_POST], n) if place[RULE] == HEBBIAN else program.theta[unit],
        kind_of(program.theta[unit], table.sliding, place[FIRST_POST], n) if place[RULE] == HEBBIAN else ZERO,
        program.constant[TAU_MEM, unit] if row[MODEL] == LIF else math.inf,
        number[MIXING],
        number[TAU_FAST],
        number[FAST_MAX],
        book[ANCHOR_US],
        row[SHIFT],
        p,
        program.down[unit],
        row[HARD] != 0,
        is_last and not row[LOGGED] and len(state.tape) == 0,
    )
    k: Any = typed(first)
    while k < len(items):
        book[N_QUEUE] = 0
        if not _has_room(program, state, p, 2 * n, out):
            return k
        if len(state.tape) > 0 and book[N_TAPE] + most + 1 > len(state.tape):
            return k
        n_before = book[N_OUT]
        due_us = state.heap[0, TIME] if book[N_HEAP] > 0 else NEVER_US
        end = len(items)
        if len(state.tape) > 0:
            end = min(end, k + min(book[TAPE_STOP] - book[N_TAPE], len(state.tape) - book[N_TAPE] - most))
        before: Any = k
        t_0: Any = state.t_us[group]
        if place[RULE] == HEBBIAN:
            k, t_0, is_above, n_told = hebbian_front(
                layer,
                state.v,
                t_0,
                program.decay[p],
                program.weight,
                memory.fast,
                memory.fast_us,
                table.local_rate,
                table.sliding,
                items,
                k,
                end,
                due_us,
                out,
                n_before,
            )
            book[N_OUT] = n_told
            book[N_SPIKES] += n_told - n_before
        else:
            n_log = progress[p, N_LOG]
            renew_after_us: Any = typed(NEVER_US)
            if n_log >= RENEW_AT:
                return k
            if n_log > 0:
                renew_after_us = state.log_us[p, 0] + table.renew_us[p]
            _consume(program, state, table, memory, q)
            k, t_0, is_above = pair_stdp_front(
                layer,
                state.v,
                t_0,
                program.decay[p],
                program.weight,
                memory.x[0],
                memory.x_us,
                memory.seen,
                memory.y[0],
                memory.y_us[q],
                state.log_us[p],
                state.log_unit[p],
                memory.note[q, 0],
                n_log,
                renew_after_us,
                number[A_PRE],
                number[A_POST],
                number[TAU_X],
                number[TAU_Y],
                number[W_MIN],
                number[W_MAX],
                number[NEAREST],
                items,
                k,
                end,
                due_us,
            )
        if k == before:
            return k
        book[N_DELIVERIES] += k - before
        if len(state.tape) > 0:
            for i in range(before, k):
                put_on_tape(state, typed(items[i]["t"]), DELIVERED, q, typed(items[i]["unit"]), 1.0)
        t: Any = typed(items[k - 1]["t"])
        state.t_us[group] = t
        if is_above:
            fire_reached(program, state, p, ZERO, n, (is_above, t_0), t, out)
            n_fired = book[N_QUEUE]
            if n_fired > 0 and not is_last:
                begin(state.book, state.progress, t, INSIDE)
                book[N_QUEUE] = progress[p, SPAN_LAST] = n_fired
                return k
        if book[N_OUT] > n_before:
            tell_readouts(program, state, p, t, n_before, out)
    return k


@inner_kernel
def _plastic_front(
    program: Program,
    state: State,
    table: Table,
    memory: Memory,
    q: int,
    items: Any,
    strength: Any,
    first: int,
    is_awaited: bool,
    out: Any,
) -> Any:
    """Run input events through the input's one projection, q, as long as nothing else happens.

    As the engine and ``_deliver`` do it in turns, but without asking, between silent events, whether there is anything
    else to do. Stops when a cascade has begun, and before anything that is not so simple. Returns the first item not
    yet handled. If ``is_awaited``, there is one spike to deliver, the one that the engine has handed over.
    """
    book, progress = state.book, state.progress
    p = program.projection[q, TARGET]
    # a spike now and one after a soft reset, for each unit that a row reaches
    most = 2 * program.population[p, UNITS]
    k: Any = np.int64(first)
    t: Any = book[NOW_US]
    pre: Any = book[AWAITED_PRE]
    amplitude = 1.0
    if is_awaited:
        if len(strength) > 0 and program.projection[q, SOURCE] < 0:
            amplitude = strength[k - 1]  # an item is begun when its cascade is
    else:
        book[N_QUEUE] = 0
    while is_awaited or k < len(items):
        if not is_awaited:
            t = np.int64(items[k]["t"])
            if (book[N_HEAP] > 0 and state.heap[0, TIME] <= t) or not _has_room(program, state, p, most, out):
                return k
            pre = np.int64(items[k]["unit"])
            amplitude = strength[k] if len(strength) > 0 else 1.0
        _deliver(program, state, table, memory, q, pre, amplitude, t, out)
        if is_awaited:
            return k
        k += 1
        n_fired: Any = book[N_QUEUE]
        if n_fired > 0:
            begin(state.book, state.progress, t, INSIDE)
            book[N_QUEUE] = progress[p, SPAN_LAST] = n_fired
            return k
    return k


@kernel
def plastic_run(
    program: Program,
    state: State,
    table: Table,
    memory: Memory,
    items: Any,
    strength: Any,
    first: int,
    until_us: int,
    out: Any,
) -> tuple[int, int, int]:
    """Run through ``items[first:]``; as ``neurons.engine.run``, for a network whose weights change.

    ``program.weight`` of plastic projections is written to, as ``state`` and ``memory`` are. ``strength``: float64,
    shape (n,) or (0,): the items' amplitudes, if they are not all 1.
    """
    k: Any = np.int64(first)
    only: Any = NONE  # the input's one projection, if it is plastic and has no delay
    n_from_input = 0
    for q in range(len(program.projection)):
        if program.projection[q, SOURCE] < 0:
            n_from_input += 1
            if program.projection[q, PLASTIC] and program.projection[q, DELAY_US] == 0:
                only = typed(q)
    if n_from_input != 1:
        only = NONE
    code: Any = typed(DONE)
    is_taped = may_run_taped(program, state)
    is_fast = only >= 0 and _fast_kind(program, table, only, strength) >= 0
    book = state.book
    while True:
        n_out: Any
        end: Any = len(items)
        is_awaited = code == PLASTIC_SPIKE  # a variable: for True and for False, Numba would compile it twice
        if is_awaited:
            q_awaited: Any = book[AWAITED]
            k = _plastic_front(program, state, table, memory, q_awaited, items, strength, k, is_awaited, out)
            book[IS_DELIVERED] = 1
            if only >= 0:
                end = k
        elif is_taped and book[BUSY] == IDLE:
            k = run_taped(program, state, items, k, out)
        elif only >= 0 and book[BUSY] == IDLE:
            before: Any = k
            if is_fast:
                k = _fast_front(program, state, table, memory, only, items, k, out)
            if k == before:  # one at least as everywhere else, then fast again
                some = items[: k + 1] if is_fast else items
                k = _plastic_front(program, state, table, memory, only, some, strength, k, is_awaited, out)
            if k > before:
                end = k
        until: Any = typed(until_us)
        if end < len(items):  # the engine goes through the cascade, and leaves the items alone
            until = typed(book[NOW_US])
            if book[BUSY] == IDLE:
                until = typed(items[end - 1]["t"])
        k, n_out, code = run(program, state, items[:end], k, until, out)
        if code == PHASE_ENDS:
            _write_late(program, state, table, memory, state.heap[0, TIME])
        elif code == DONE and k < len(items):
            continue
        elif code != PLASTIC_SPIKE:
            return k, n_out, code
