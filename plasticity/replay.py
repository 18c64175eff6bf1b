"""A window run again along its tape: what belongs to what, and what stood in every row that was touched.

The walk back (:mod:`plasticity.backward`) goes from the end of a tape to its begin. Where it needs potentials, or hebb
as it was read, the window is first run again from its start, entry by entry, and each row that is touched is written
down before it changes: 4 bytes a synaptic operation, 8 with local rules. Nothing is decided again: who fired, and when,
stands on the tape.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.crossing import drift
from neurons.program import (
    ADAPTIVE_LIF,
    CHANNELS,
    CONVOLUTION,
    CROSSED,
    CURRENT_LIF,
    DELIVERED,
    DENSE,
    DRIVE,
    ENDED,
    EXTRA,
    FIRED,
    FIRST,
    GROUPS,
    HARD,
    INHIBITION,
    INTEGRATE_FIRE,
    LEAKY_INTEGRATOR,
    LIF,
    MODEL,
    ONE_TO_ONE,
    PLACE,
    POOLING,
    REFRACTORY_US,
    ROWS,
    SIZE_X,
    SOURCE,
    SOURCE_CHANNELS,
    SOURCE_WIDTH,
    SPARSE,
    STRIDE_X,
    STRIDE_Y,
    SYNAPSES,
    TARGET,
    TAU_2,
    TAU_MEM,
    THRESHOLD,
    TOPOLOGY,
    UNIFORM,
    UNIT_OF,
    UNITS,
    WEIGHT,
    WEIGHT_STEP,
    WHAT,
    WHEN,
    WIDTH,
    WINDOWS_X,
    WINDOWS_Y,
    Program,
)
from plasticity.hebbian import ADD, BLEND, SOFTMAX, TANH, share_all, softmax_all, tanh_all
from plasticity.short_term import short_term_amplitude
from plasticity.table import (
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

__all__ = [
    "FAST_SIGMOID",
    "NONE",
    "ONE",
    "RECTANGLE",
    "SPIKES",
    "ZERO",
    "Links",
    "Options",
    "Rows",
    "Standing",
    "amplitude_of",
    "count_pieces",
    "count_rows",
    "has_phases",
    "hebb_factor",
    "held_and_free",
    "is_late",
    "link",
    "piece_of",
    "post_term",
    "replay",
    "row_of",
    "set_row_times",
    "takes",
    "touched_us",
    "typed",
    "weigh_row",
]

SPIKES, RECTANGLE, FAST_SIGMOID = range(3)

ZERO: Any = np.int64(0)
ONE: Any = np.int64(1)
NONE: Any = np.int64(-1)
typed: Any = np.int64


class Options(NamedTuple):
    """How to walk."""

    surrogate: int
    width: float  # of psi, in units of the potential
    has_rows: bool  # whether ``Rows`` is filled
    has_times: bool  # whether derivatives by time constants are wanted; needs ``Rows``
    block: NDArray[np.int64]  # int64, shape (n_populations, 2): units that share a time here, and the first block
    anchor_us: int  # when time began
    is_plain: NDArray[np.bool_]  # bool, shape (n_projections,): may go through ``_plain_back``


class Standing(NamedTuple):
    """Where network and rules stand; a copy of the window's start that ``replay`` moves along."""

    v: NDArray[Any]  # real, shape (n_all,)
    w: NDArray[Any]  # real, shape (n_all,)
    t_us: NDArray[np.int64]  # int64, shape (n_blocks,)
    held_us: NDArray[np.int64]  # int64, shape (n_all,)
    lag_us: NDArray[np.float64]  # float64, shape (n_all,)
    fast: NDArray[Any]  # real, shape (n_fast,): hebb
    fast_us: NDArray[np.int64]  # int64, shape (n_rows,)
    fatigue: NDArray[np.float64]  # float64, shape (n_all_pre, 2)
    x_us: NDArray[np.int64]  # int64, shape (n_all_pre,): last spikes
    owed: NDArray[np.float64]  # float64, shape (n_all_pre,): ``Memory.owed``
    is_late: NDArray[np.int64]  # int64, shape (n_all_pre,)


class Links(NamedTuple):
    """What belongs to what on a tape; one row for each entry."""

    cause: NDArray[np.int64]  # int64, shape (room,): the spike that a delivery is of; -1: input, or before the window
    touch: NDArray[np.int64]  # int64, shape (room,): the delivery or end of phase that a spike belongs to; itself
    held_us: NDArray[np.int64]  # int64, shape (room,): ``State.held_us`` of the unit before it fired
    lag_us: NDArray[np.float64]  # float64, shape (room,)
    after: NDArray[np.int64]  # int64, shape (room,): scratch, the same population's next spike
    cursor: NDArray[np.int64]  # int64, shape (n_projections + 2 n_populations,): scratch


class Rows(NamedTuple):
    """What stood in each row that was touched, as it was read."""

    at: NDArray[np.int64]  # int64, shape (tape's room,): where an entry's rows begin
    u: NDArray[Any]  # real, shape (room or 0,): potentials before resets
    w: NDArray[Any]  # real, shape (room or 0,): second variable (adaptive units)
    hebb: NDArray[Any]  # real, shape (room or 0,)
    late: NDArray[Any]  # real, shape (room or 0,): hebb right before it changed at the phase's end
    terminal: NDArray[np.float64]  # float64, shape (tape's room, 3): resource and release before the spike; time since


# -- pieces: what a spike reaches --------------------------------------------------------------------------------------


@inline_kernel
def count_pieces(program: Program, q: int, pre: int) -> Any:
    """Count the pieces that a spike reaches."""
    way = program.projection[q]
    kind = way[TOPOLOGY]
    if kind in (DENSE, INHIBITION, ONE_TO_ONE):
        return ONE
    if kind == SPARSE:
        return program.links[way[ROWS] + pre + 1] - program.links[way[ROWS] + pre]
    pixel = pre // way[SOURCE_CHANNELS]
    y = way[WINDOWS_Y] + 3 * (pixel // way[SOURCE_WIDTH])
    x = way[WINDOWS_X] + 3 * (pixel % way[SOURCE_WIDTH])
    links = program.links
    return max(links[y + 1] - links[y] + 1, 0) * max(links[x + 1] - links[x] + 1, 0)


@inline_kernel
def piece_of(program: Program, q: int, pre: int, i: int) -> Any:
    """Return the i-th piece: its first unit in the population, how many, and where their weights begin."""
    way, links = program.projection[q], program.links
    row = program.population[way[TARGET]]
    kind = way[TOPOLOGY]
    n: Any = row[UNITS]
    if kind == DENSE:
        return ZERO, n, way[WEIGHT] + pre * n
    if kind == INHIBITION:
        return ZERO, n, way[WEIGHT] + n - 1 - pre
    if kind == ONE_TO_ONE:
        return typed(pre), ONE, way[WEIGHT] + pre * way[WEIGHT_STEP]
    if kind == SPARSE:
        synapse = links[way[ROWS] + pre] + i
        return links[way[SYNAPSES] + synapse], ONE, way[WEIGHT] + synapse
    channels, c_out = way[SOURCE_CHANNELS], row[CHANNELS]
    pixel, c = pre // channels, pre % channels
    y = way[WINDOWS_Y] + 3 * (pixel // way[SOURCE_WIDTH])
    x = way[WINDOWS_X] + 3 * (pixel % way[SOURCE_WIDTH])
    n_x = links[x + 1] - links[x] + 1
    i_y, i_x = i // n_x, i % n_x
    site = ((links[y] + i_y) * row[WIDTH] + links[x] + i_x) * c_out
    if kind == POOLING:
        return site + c, ONE, typed(way[WEIGHT])
    in_group, n_group = channels // way[GROUPS], c_out // way[GROUPS]
    c_first = c // in_group * n_group
    at = way[WEIGHT] + links[y + 2] + links[x + 2] + c % in_group * c_out + c_first
    at -= i_x * way[STRIDE_X] * in_group * c_out + i_y * way[STRIDE_Y] * way[SIZE_X] * in_group * c_out
    return site + c_first, n_group, at


@inline_kernel
def row_of(program: Program, table: Table, q: int, pre: int, at: int) -> Any:
    """Return the row of hebb whose weights begin at ``at``."""
    way = program.projection[q]
    if way[TOPOLOGY] == CONVOLUTION:
        return table.place[q, FIRST_ROW] + (at - way[WEIGHT]) // program.population[way[TARGET], CHANNELS]
    return table.place[q, FIRST_ROW] + pre


@inner_kernel
def set_row_times(program: Program, table: Table, times_us: Any, q: int, pre: int, t_us: Any) -> None:
    """Set the time of the rows of hebb that an input reaches, when all pieces of them are through, not before.

    Synapses of a sparse row are pieces of one row.
    """
    for piece in range(count_pieces(program, q, pre)):
        _, _, at = piece_of(program, q, pre, typed(piece))
        times_us[row_of(program, table, q, pre, at)] = t_us


@inline_kernel
def touched_us(program: Program, options: Options, p: int, t_us: int) -> Any:
    """Return the time that units of a population have when something reaches them at ``t_us``."""
    if program.phase_us > 0 and program.population[p, MODEL] != LEAKY_INTEGRATOR:
        return t_us - (t_us - options.anchor_us) % program.phase_us
    return typed(t_us)


@inline_kernel
def has_phases(program: Program, p: int) -> bool:
    """Tell whether a population fires at the ends of phases."""
    return program.phase_us > 0 and program.population[p, MODEL] != LEAKY_INTEGRATOR


@inline_kernel
def is_late(program: Program, table: Table, tape: Any, e: int, p: int) -> bool:
    """Tell whether entry e is a delivery to p that changes hebb when the phase ends."""
    if tape[e, WHAT] != DELIVERED:
        return False
    q = tape[e, PLACE]
    return bool(table.place[q, RULE] == HEBBIAN and program.projection[q, TARGET] == p)


@inline_kernel
def amplitude_of(table: Table, rows: Rows, tape: Any, taped: Any, e: int) -> Any:
    """Return the amplitude of a delivery."""
    place = table.place[tape[e, PLACE]]
    if place[RULE] < 0:
        return 1.0
    if place[HAS_SHORT_TERM] > 0:
        return taped[e] * (rows.terminal[e, 0] * rows.terminal[e, 1])
    return taped[e]


# -- what belongs to what ----------------------------------------------------------------------------------------------


@kernel
def link(
    program: Program, tape: Any, taped: Any, n_tape: int, held_us: Any, lag_us: Any, skip: Any, links: Links
) -> None:
    """Find the spike that each delivery is of: the m-th delivery through a projection is its source's m-th spike.

    Parameters
    ----------
    held_us, lag_us
        int64 and float64, shape (n_all,): as at the window's start; left as at its end.
    skip
        int64, shape (n_projections,): deliveries of spikes from before the window. Left at 0 or above.
    """
    n_ways, n_populations = len(program.projection), len(program.population)
    newest, oldest = links.cursor[n_ways : n_ways + n_populations], links.cursor[n_ways + n_populations :]
    for i in range(len(links.cursor)):
        links.cursor[i] = -1
    last: Any = -ONE  # delivery or end of a phase that entries may belong to
    last_population: Any = -ONE
    for k in range(n_tape):
        place: Any = tape[k, PLACE]
        links.cause[k] = links.after[k] = -1
        links.touch[k] = k
        if tape[k, WHAT] == DELIVERED or tape[k, WHAT] == ENDED:
            last = typed(k)
            last_population = place if tape[k, WHAT] == ENDED else program.projection[place, TARGET]
        elif last >= 0 and place == last_population and tape[k, WHEN] == tape[last, WHEN]:
            links.touch[k] = last
        else:
            last = -ONE
        if tape[k, WHAT] == DELIVERED:
            p = program.projection[place, SOURCE]
            if p < 0:
                continue
            if skip[place] > 0:
                skip[place] -= 1
                continue
            now = links.cursor[place]
            links.cause[k] = links.cursor[place] = oldest[p] if now < 0 else links.after[now]
        elif tape[k, WHAT] != ENDED:
            row = program.population[place]
            j = row[FIRST] + tape[k, UNIT_OF]
            if newest[place] < 0:
                oldest[place] = k
            else:
                links.after[newest[place]] = k
            newest[place] = k
            links.held_us[k], links.lag_us[k] = held_us[j], lag_us[j]
            if row[REFRACTORY_US] > 0:
                held_us[j] = tape[k, WHEN] + row[REFRACTORY_US]
                lag_us[j] = taped[k] if tape[k, WHAT] == CROSSED else 0.0


@kernel
def count_rows(program: Program, tape: Any, n_tape: int) -> int:
    """Count the entries that ``Rows`` needs for a tape."""
    n: int = ZERO
    for k in range(n_tape):
        place: Any = tape[k, PLACE]
        if tape[k, WHAT] == DELIVERED:
            pre: Any = tape[k, UNIT_OF]
            for i in range(count_pieces(program, place, pre)):
                n += piece_of(program, place, pre, typed(i))[1]
        elif tape[k, WHAT] == ENDED:
            n += program.population[place, UNITS]
    return n


# -- forward again -----------------------------------------------------------------------------------------------------


@inner_kernel
def held_and_free(held_us: int, lag_us: float, t_0: int, early_us: float, t_1: int) -> tuple[float, float]:
    """Split the time from ``t_0`` to ``t_1`` less ``early_us`` into held and free time, in this order."""
    whole = np.float64(t_1 - t_0) - early_us
    if held_us <= t_0:
        return 0.0, whole
    free: float = np.float64(t_1 - held_us) + lag_us - early_us
    free = min(max(free, 0.0), whole)
    return whole - free, free


@inline_kernel
def _flow(program: Program, here: Standing, p: int, first: int, n: int, t_0: int, t_1: int, early_us: float) -> None:
    """Let units ``first`` to ``first + n - 1``, which share a time, go on from ``t_0`` to ``t_1 - early_us``."""
    row, constant = program.population[p], program.constant
    model = row[MODEL]
    v, w = here.v, here.w
    real = v.dtype.type
    dt_us = np.float64(t_1 - t_0) - early_us
    if dt_us == 0.0 or (model == INTEGRATE_FIRE and row[UNIFORM] and constant[DRIVE, first] == 0.0):
        return
    if model == THRESHOLD:
        for j in range(first, first + n):
            v[j] = real(0.0)
        return
    if row[UNIFORM] and row[REFRACTORY_US] == 0 and (model in (LIF, LEAKY_INTEGRATOR)):
        factor, tiny, zero = real(math.exp(-dt_us / constant[TAU_MEM, first])), real(1e-30), real(0.0)
        some = v[first : first + n]
        for j in range(n):
            u = some[j] * factor
            some[j] = u if abs(u) > tiny else zero
        return
    for j in range(first, first + n):
        held, free = 0.0, float(dt_us)
        if model != LEAKY_INTEGRATOR:
            held, free = held_and_free(here.held_us[j], here.lag_us[j], t_0, early_us, t_1)
        v_j: float = np.float64(v[j])
        w_j: float = np.float64(w[j])
        if model in (CURRENT_LIF, ADAPTIVE_LIF):
            w_j *= math.exp(-held / constant[TAU_2, j])
        if model == CURRENT_LIF:
            v_j = drift(v_j, w_j, free, constant[TAU_MEM, j], constant[TAU_2, j])
        elif model == INTEGRATE_FIRE:
            v_j += constant[DRIVE, j] * free
        else:
            v_j *= math.exp(-free / constant[TAU_MEM, j])
        if model in (CURRENT_LIF, ADAPTIVE_LIF):
            w_j *= math.exp(-free / constant[TAU_2, j])
        v[j] = real(v_j) if abs(v_j) > 1e-30 else real(0.0)
        w[j] = real(w_j) if abs(w_j) > 1e-30 else real(0.0)


@inner_kernel
def _reset(program: Program, here: Standing, p: int, j: int, t_us: int, lag_us: float) -> None:
    """Reset a unit that fired."""
    row = program.population[p]
    here.v[j] = program.down[j] if row[HARD] else here.v[j] - program.down[j]
    if row[MODEL] == ADAPTIVE_LIF:
        here.w[j] += here.w.dtype.type(program.constant[EXTRA, j])
    if row[MODEL] == THRESHOLD:
        here.v[j] = here.v.dtype.type(0.0)
    if row[REFRACTORY_US] > 0:
        here.held_us[j] = t_us + row[REFRACTORY_US]
        here.lag_us[j] = lag_us


@inner_kernel
def _cross(program: Program, here: Standing, options: Options, p: int, unit: int, t_us: int, lag_us: float) -> None:
    """Let a unit fire between events; it has a time of its own."""
    j = program.population[p, FIRST] + unit
    b = options.block[p, 1] + unit
    _flow(program, here, p, j, ONE, here.t_us[b], t_us, lag_us)
    _reset(program, here, p, j, t_us, lag_us)
    is_held = program.population[p, REFRACTORY_US] > 0
    if program.population[p, MODEL] in (CURRENT_LIF, ADAPTIVE_LIF, LIF, INTEGRATE_FIRE) and not is_held:
        _flow(program, here, p, j, ONE, typed(0), typed(0), -lag_us)
    elif is_held and program.population[p, MODEL] in (CURRENT_LIF, ADAPTIVE_LIF):
        here.w[j] *= here.w.dtype.type(math.exp(-lag_us / program.constant[TAU_2, j]))
    here.t_us[b] = t_us


@inline_kernel
def hebb_factor(fast_us: int, t_us: int, tau_us: float) -> Any:
    """Return what is left of a row of hebb."""
    return math.exp(-np.float64(t_us - fast_us) / tau_us)


@inline_kernel
def post_term(program: Program, table: Table, q: int, first: int, unit: int, n: int, u: Any, at: int, out: Any) -> None:
    """Write z into ``out[0, :n]`` and dz/dy into ``out[1, :n]`` (softmax: z as well); as ``plasticity.hebbian``."""
    real = out.dtype.type
    one, post = real(1.0), table.place[q, POST_TERM]
    is_uniform = program.population[program.projection[q, TARGET], UNIFORM] != 0
    first_post = table.place[q, FIRST_POST] + unit
    # slices: an index that might be negative keeps a loop out of the vector units
    z, slope = out[0, :n], out[1, :n]
    sliding = table.sliding[first_post : first_post + n]
    share_all(u[at : at + n], program.theta[first : first + n], is_uniform, sliding, z)
    if post == TANH:
        for j in range(n):
            slope[j] = z[j]
        tanh_all(slope, z)
        for j in range(n):
            slope[j] = one - z[j] * z[j]
    elif post == SOFTMAX:
        softmax_all(z)
        for j in range(n):
            slope[j] = z[j]
    else:
        for j in range(n):
            slope[j] = one


@inline_kernel
def weigh_row(table: Table, form: int, mixing: Any, weight: Any, hebb: Any, at_fast: int, n: int, out: Any) -> None:
    """Write what synapses weigh into ``out[:n]``."""
    if form == ADD:
        for j in range(n):
            out[j] = weight[j] + mixing * hebb[j]
        return
    part = table.share[at_fast : at_fast + n]
    one = part.dtype.type(1.0)
    if form == BLEND:
        for j in range(n):
            out[j] = part[j] * weight[j] + (one - part[j]) * hebb[j]
        return
    for j in range(n):
        out[j] = part[j] * weight[j] + mixing * ((one - part[j]) * hebb[j])


@inline_kernel
def takes(program: Program, here_held_us: Any, p: int, j: int, t_us: int) -> Any:
    """Tell whether a unit takes in what reaches it now."""
    model = program.population[p, MODEL]
    return model not in (LIF, INTEGRATE_FIRE, ADAPTIVE_LIF) or here_held_us[j] <= t_us


@inline_kernel
def _deliver_again(
    program: Program,
    table: Table,
    options: Options,
    here: Standing,
    k: int,
    q: int,
    pre: int,
    t_us: int,
    now_us: int,
    taped: Any,
    rows: Rows,
    scratch: Any,
    at_row: int,
) -> Any:
    """Deliver entry k of the tape, and write its rows down from ``at_row`` on; returns where they end."""
    way, place, number = program.projection[q], table.place[q], table.number[q]
    p = way[TARGET]
    row = program.population[p]
    is_hebbian = place[RULE] == HEBBIAN
    into = here.w if row[MODEL] == CURRENT_LIF else here.v
    real = here.v.dtype.type
    block, first_block = options.block[p, 0], options.block[p, 1]
    amplitude = taped[k] if place[RULE] >= 0 else 1.0
    i = place[FIRST_PRE] + pre
    if place[RULE] >= 0 and place[HAS_SHORT_TERM] > 0:
        dt_us = np.float64(t_us - here.x_us[i])
        resource = 1.0 - (1.0 - here.fatigue[i, 0]) * math.exp(-dt_us / table.terminal[i, 1])
        rest = table.terminal[i, 2]
        release = rest + (here.fatigue[i, 1] - rest) * math.exp(-dt_us / table.terminal[i, 4])
        rows.terminal[k, 0], rows.terminal[k, 1], rows.terminal[k, 2] = resource, release, dt_us
        amplitude *= short_term_amplitude(here.fatigue, table.terminal, i, dt_us)
        here.x_us[i] = t_us
    a, alpha = real(amplitude), real(number[MIXING])
    tiny, zero = real(1e-30), real(0.0)
    rows.at[k] = at_row
    for piece in range(count_pieces(program, q, pre)):
        unit: Any
        n: Any
        at: Any
        unit, n, at = piece_of(program, q, pre, typed(piece))
        first = row[FIRST] + unit
        for start in range(unit, unit + n, block):
            b = first_block + start // block
            _flow(program, here, p, row[FIRST] + start, block, here.t_us[b], now_us, 0.0)
            here.t_us[b] = now_us
        stood, added, weight = here.v[first : first + n], into[first : first + n], program.weight[at : at + n]
        effective = scratch[2, :n]
        for j in range(n):
            effective[j] = weight[j]
        at_fast = place[FIRST_FAST] + at - way[WEIGHT]
        if is_hebbian:
            which = row_of(program, table, q, pre, at)
            left = real(hebb_factor(here.fast_us[which], now_us, number[TAU_FAST]))
            fast, kept = here.fast[at_fast : at_fast + n], rows.hebb[at_row : at_row + n]
            for j in range(n):
                h = fast[j] * left
                fast[j] = h if abs(h) > tiny else zero
            for j in range(n):
                kept[j] = fast[j]
            weigh_row(table, place[FORM], alpha, weight, fast, at_fast, n, effective)
        if row[MODEL] == THRESHOLD and program.phase_us == 0:
            for j in range(n):
                stood[j] = zero
        if row[REFRACTORY_US] == 0:
            for j in range(n):
                added[j] += a * effective[j]
        else:
            for j in range(n):
                if takes(program, here.held_us, p, first + j, now_us):
                    added[j] += a * effective[j]
        written = rows.u[at_row : at_row + n]
        for j in range(n):
            written[j] = stood[j]
        if len(rows.w) > 0:
            for j in range(n):
                rows.w[at_row + j] = here.w[first + j]
        if is_hebbian and not has_phases(program, p):
            post_term(program, table, q, first, unit, n, here.v, first, scratch)
            rate, most = real(amplitude * np.float64(table.local_rate[i])), real(number[FAST_MAX])
            z = scratch[0, :n]
            for j in range(n):
                h = fast[j] + rate * z[j]
                fast[j] = min(max(h, -most), most)
        at_row += n
    if is_hebbian:
        set_row_times(program, table, here.fast_us, q, pre, now_us if has_phases(program, p) else t_us)
    return at_row


@inner_kernel
def _write_again(
    program: Program,
    table: Table,
    here: Standing,
    q: int,
    pre: int,
    t_us: int,
    rows: Rows,
    at_u: int,
    at_row: int,
    scratch: Any,
) -> None:
    """Let a row of hebb change at the end of a phase, at ``t_us``, by ``rows.u[at_u]`` and so on.

    What it was before is written down from ``at_row`` on; -1: nowhere.
    """
    way, place, number = program.projection[q], table.place[q], table.number[q]
    first_unit = program.population[way[TARGET], FIRST]
    real = here.fast.dtype.type
    i = place[FIRST_PRE] + pre
    rate, most = real(here.owed[i] * np.float64(table.local_rate[i])), real(number[FAST_MAX])
    tiny, zero = real(1e-30), real(0.0)
    for piece in range(count_pieces(program, q, pre)):
        unit: Any
        n: Any
        at: Any
        unit, n, at = piece_of(program, q, pre, typed(piece))
        at_fast = place[FIRST_FAST] + at - way[WEIGHT]
        which = row_of(program, table, q, pre, at)
        left = real(hebb_factor(here.fast_us[which], t_us, number[TAU_FAST]))
        fast = here.fast[at_fast : at_fast + n]
        for j in range(n):
            h = fast[j] * left
            fast[j] = h if abs(h) > tiny else zero
        if at_row >= 0:
            kept = rows.late[at_row : at_row + n]
            for j in range(n):
                kept[j] = fast[j]
            at_row += n
        post_term(program, table, q, first_unit + unit, unit, n, rows.u, at_u + unit, scratch)
        z = scratch[0, :n]
        for j in range(n):
            h = fast[j] + rate * z[j]
            fast[j] = min(max(h, -most), most)
    set_row_times(program, table, here.fast_us, q, pre, t_us)
    here.owed[i] = 0.0
    here.is_late[i] = 0


@inner_kernel
def _end_again(
    program: Program, table: Table, here: Standing, tape: Any, taped: Any, k: int, p: int, rows: Rows, scratch: Any
) -> None:
    """Do what has waited for the end of a phase, entry k, of population p; ``plasticity.rules`` did so."""
    t_us: Any = tape[k, WHEN]
    e_0: Any = typed(k)
    while e_0 > 0 and tape[e_0 - 1, WHEN] >= t_us - program.phase_us:
        e_0 -= 1
    for e in range(e_0, k):
        if is_late(program, table, tape, e, p):
            i = table.place[tape[e, PLACE], FIRST_PRE] + tape[e, UNIT_OF]
            here.is_late[i] = 1
            here.owed[i] += amplitude_of(table, rows, tape, taped, e)
    for e in range(e_0, k):
        if is_late(program, table, tape, e, p):
            q: Any = tape[e, PLACE]
            pre: Any = tape[e, UNIT_OF]
            if here.is_late[table.place[q, FIRST_PRE] + pre] != 0:
                _write_again(program, table, here, q, pre, t_us, rows, rows.at[k], rows.at[e], scratch)
    for q_any in range(len(table.place)):  # what is owed from before the window
        if table.place[q_any, RULE] == HEBBIAN and program.projection[q_any, TARGET] == p:
            for pre_any in range(table.place[q_any, N_PRE]):
                if here.is_late[table.place[q_any, FIRST_PRE] + pre_any] != 0:
                    _write_again(
                        program, table, here, typed(q_any), typed(pre_any), t_us, rows, rows.at[k], NONE, scratch
                    )


@kernel
def replay(
    program: Program,
    table: Table,
    options: Options,
    tape: Any,
    taped: Any,
    n_tape: int,
    links: Links,
    here: Standing,
    rows: Rows,
    scratch: Any,
) -> int:
    """Run a window again along its tape, and write down what stood in the rows that were touched.

    Parameters
    ----------
    links
        Of ``link``.
    here
        The window's start; moved to its end.
    rows
        Output; there is room.
    scratch
        real, shape (3, longest row).

    Returns
    -------
    int
        How much of ``rows`` is filled.
    """
    at_row: int = ZERO
    k: Any = ZERO
    while k < n_tape:
        what, place, unit, t_us = tape[k, WHAT], tape[k, PLACE], tape[k, UNIT_OF], tape[k, WHEN]
        if what == CROSSED:
            _cross(program, here, options, place, unit, t_us, taped[k])
            k += 1
            continue
        p: Any = place if what == ENDED else program.projection[place, TARGET]
        end: Any = k + 1
        while end < n_tape and links.touch[end] == k:
            end += 1
        for s in range(k + 1, end):
            if tape[s, WHAT] == CROSSED:
                _cross(program, here, options, p, tape[s, UNIT_OF], t_us, taped[s])
        if what == ENDED:
            row = program.population[p]
            now_us: Any = t_us - program.phase_us
            block = options.block[p, 0]
            rows.at[k] = at_row
            for b in range(row[UNITS] // block):
                g = options.block[p, 1] + b
                _flow(program, here, p, row[FIRST] + b * block, block, here.t_us[g], now_us, 0.0)
                here.t_us[g] = now_us
            for j in range(row[UNITS]):
                rows.u[at_row + j] = here.v[row[FIRST] + j]
            if len(rows.w) > 0:
                for j in range(row[UNITS]):
                    rows.w[at_row + j] = here.w[row[FIRST] + j]
            at_row += row[UNITS]
            if len(rows.late) > 0:
                _end_again(program, table, here, tape, taped, k, p, rows, scratch)
            if row[MODEL] == THRESHOLD:
                for j in range(row[FIRST], row[FIRST] + row[UNITS]):
                    here.v[j] = here.v.dtype.type(0.0)
        else:
            now_us = touched_us(program, options, p, t_us)
            at_row = _deliver_again(
                program, table, options, here, k, place, unit, t_us, now_us, taped, rows, scratch, at_row
            )
        for s in range(k + 1, end):
            if tape[s, WHAT] == FIRED:
                _reset(program, here, p, program.population[p, FIRST] + tape[s, UNIT_OF], t_us, 0.0)
        k = end
    return at_row
