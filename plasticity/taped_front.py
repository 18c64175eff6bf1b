"""The fast loop of learning: input events through one dense layer to leaky integrators, everything written to the tape.

``neurons.front`` leaves its loop at every event that makes units fire, because what comes of it has to be told. When a
network learns, units fire at every second event or so, and leaving costs more than the events. Here the loop tells it
by itself: the tape's entries and the readout's steps, in the order, and with the bits, of ``neurons.engine``.
"""

import math
from typing import Any

import numpy as np

from neurons.engine import put_on_tape
from neurons.front import CAREFUL, Layer, decay_of, flush, integrate, leak_add_four, read_out
from neurons.program import (
    ANCHOR_US,
    CHANNELS,
    DELIVERED,
    DENSE,
    DIRECT,
    DIRECT_END,
    FIRED,
    FIRST,
    FIRST_GROUP,
    HARD,
    IS_READ,
    LIF,
    LOGGED,
    MODEL,
    N_DELAYED,
    N_DELIVERIES,
    N_DIRECT,
    N_HEAP,
    N_OUT,
    N_SPIKES,
    N_TAPE,
    NEVER_US,
    REFRACTORY_US,
    SHIFT,
    TAPE_STOP,
    TARGET,
    TAU_MEM,
    TIME,
    TOPOLOGY,
    UNITS,
    WEIGHT,
    WHOLE,
    WIDTH,
    Program,
    State,
)
from stream.jit import inline_kernel, inner_kernel
from stream.lanes import lowest_bit

__all__ = ["may_run_taped", "run_taped", "tell_readouts"]

ZERO: Any = np.int64(0)
typed: Any = np.int64


@inline_kernel
def may_run_taped(program: Program, state: State) -> bool:
    """Tell whether ``run_taped`` may run this network's input."""
    if program.front < 0 or len(state.tape) == 0 or program.projection[program.front, TOPOLOGY] != DENSE:
        return False
    if program.projection[program.front, WHOLE]:
        return False
    row = program.population[program.projection[program.front, TARGET]]
    is_told = row[IS_READ] != 0 or row[N_DIRECT] == 0
    return bool(is_told and not row[HARD] and not row[LOGGED] and row[REFRACTORY_US] == 0 and row[N_DELAYED] == 0)


@inline_kernel
def _four(
    layer: Layer, old: Any, a: int, new: Any, b: int, t_0: int, weight: Any, decay: Any, items: Any, k: int
) -> bool:
    """Run four events at once; tell whether anyone passed the threshold."""
    real = old.dtype.type
    t_1, t_2 = typed(items[k]["t"]), typed(items[k + 1]["t"])
    t_3, t_4 = typed(items[k + 2]["t"]), typed(items[k + 3]["t"])
    n, first = layer.n, layer.at_weight
    factors = (
        real(decay_of(decay, layer.tau_us, t_1 - t_0)),
        real(decay_of(decay, layer.tau_us, t_2 - t_1)),
        real(decay_of(decay, layer.tau_us, t_3 - t_2)),
        real(decay_of(decay, layer.tau_us, t_4 - t_3)),
    )
    at = (
        first + typed(items[k]["unit"]) * n,
        first + typed(items[k + 1]["unit"]) * n,
        first + typed(items[k + 2]["unit"]) * n,
        first + typed(items[k + 3]["unit"]) * n,
    )
    return leak_add_four(old, a, new, b, n, factors, weight, at, layer.theta)


@inner_kernel
def _tell(program: Program, state: State, p: int, n_hot: int, t_us: int, out: Any) -> None:
    """Write down the spikes noted in ``state.hot``, and deliver them to the readouts."""
    book, row = state.book, program.population[p]
    before = book[N_OUT]
    n_out: Any = typed(before)
    for h in range(n_hot):
        mask: Any = state.hot[h, 1]
        while mask != 0:
            j = state.hot[h, 0] + lowest_bit(mask)
            mask &= mask - 1
            put_on_tape(state, t_us, FIRED, p, j - row[FIRST], np.float64(state.v[j] + program.down[j]))
            out[n_out]["t"] = t_us
            out[n_out]["unit"] = j - row[FIRST]
            out[n_out]["population"] = p
            n_out += 1
    book[N_OUT] = n_out
    book[N_SPIKES] += n_out - before
    tell_readouts(program, state, p, t_us, before, out)


@inner_kernel
def tell_readouts(program: Program, state: State, p: int, t_us: int, before: int, out: Any) -> None:
    """Deliver the spikes ``out[before:]`` of population p, which is read by leaky integrators alone (``IS_READ``)."""
    book, row = state.book, program.population[p]
    n_out: Any = book[N_OUT]
    for d in range(row[DIRECT], row[DIRECT_END]):
        q: Any = program.links[d]
        target = program.population[program.projection[q, TARGET]]
        read_out(
            state.v,
            state.integral_us,
            state.t_us,
            target[FIRST_GROUP],
            target[FIRST],
            target[UNITS],
            program.constant[TAU_MEM, target[FIRST]],
            program.weight,
            program.projection[q, WEIGHT],
            out,
            before,
            n_out,
        )
        book[N_DELIVERIES] += n_out - before
        for s in range(before, n_out):
            put_on_tape(state, t_us, DELIVERED, q, typed(out[s]["unit"]), 0.0)


@inner_kernel
def run_taped(program: Program, state: State, items: Any, first_item: int, out: Any) -> Any:
    """Run input events as long as nothing else is due and there is room; returns the first one not begun."""
    book = state.book
    way = program.projection[program.front]
    p: Any = way[TARGET]
    row = program.population[p]
    first, n, group = row[FIRST], row[UNITS], row[FIRST_GROUP]
    anchor_us, shift = book[ANCHOR_US], row[SHIFT]
    layer = Layer(
        first,
        n,
        group,
        row[CHANNELS],
        row[WIDTH],
        p,
        program.theta[first],
        program.down[first],
        False,
        ZERO,
        program.constant[TAU_MEM, first] if row[MODEL] == LIF else math.inf,
        way[WEIGHT],
        (ZERO, ZERO),
        (ZERO, ZERO),
        (ZERO, ZERO),
        anchor_us,
        shift,
        False,
        False,
    )
    due_us = state.heap[0, TIME] if book[N_HEAP] > 0 else NEVER_US
    decay, v, spare = program.decay[p], state.v, state.spare
    real = v.dtype.type
    most = n * (1 + row[N_DIRECT])  # entries that one event may add to the tape, besides its own
    k: Any = typed(first_item)
    n_singly: Any = k
    last_fired: Any = k - CAREFUL
    t_0: Any = state.t_us[group]
    while k < len(items):
        if book[N_TAPE] >= book[TAPE_STOP] or book[N_TAPE] + most + 8 > len(state.tape) or book[N_OUT] + n > len(out):
            break
        if k >= n_singly and k + 8 <= len(items) and book[N_TAPE] + 8 <= book[TAPE_STOP]:
            t_8: Any = typed(items[k + 7]["t"])
            if t_8 < due_us and (t_8 - anchor_us) >> shift == (t_0 - anchor_us) >> shift:
                n_silent = ZERO
                if not _four(layer, v, first, spare, ZERO, t_0, program.weight, decay, items, k):
                    t_4: Any = typed(items[k + 3]["t"])
                    n_silent = ZERO + 8
                    if _four(layer, spare, ZERO, v, first, t_4, program.weight, decay, items, k + 4):
                        n_silent = ZERO + 4
                        for j in range(n):
                            v[first + j] = spare[j]
                for i in range(k, k + n_silent):
                    put_on_tape(state, typed(items[i]["t"]), DELIVERED, program.front, typed(items[i]["unit"]), 0.0)
                book[N_DELIVERIES] += n_silent
                k += n_silent
                if n_silent > 0:
                    t_0 = typed(items[k - 1]["t"])
                if n_silent < 8:
                    n_singly = k + 4
                continue
        t: Any = typed(items[k]["t"])
        if t >= due_us:
            break
        pre: Any = typed(items[k]["unit"])
        factor = real(decay_of(decay, layer.tau_us, t - t_0))
        n_hot = integrate(layer, v, first, n, factor, program.weight, way[WEIGHT] + pre * n, t, state.hot, ZERO)
        if (t - anchor_us) >> shift != (t_0 - anchor_us) >> shift:
            flush(v, first, first + n)
        t_0 = t
        k += 1
        book[N_DELIVERIES] += 1
        put_on_tape(state, t, DELIVERED, program.front, pre, 0.0)
        if n_hot > 0:
            if k - last_fired <= CAREFUL:
                n_singly = k + CAREFUL
            last_fired = k
            _tell(program, state, p, n_hot, t, out)
    state.t_us[group] = t_0
    return k
