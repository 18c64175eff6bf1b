"""The fast loop of ``neurons.quantised_dense``: whole numbers within a microsecond, real numbers between them.

A unit's potential is ``v + scale * pending``: v stands where it stood when the microsecond began, ``pending`` is the
sum of the whole weights that have come since. Both belong to the state, so a packet may end anywhere in a microsecond.
When time goes on, v becomes the rounded sum, and leaks. So one potential goes through one rounding a microsecond,
however many events it holds, and in whatever pieces they come.

Who fires? Rounded, ``v + scale * pending`` rises with ``pending``. So a unit was above its threshold at one of the m
events of a microsecond exactly if it is with the highest of the m sums. One pass finds the units for which that holds,
most often none; these walk through the events one by one. What a soft reset takes away, v loses; a hard one sets v and
clears ``pending``.

That pass is taken where nothing else is to be looked at: no unit is in its refractory time, no potential is due to be
flushed, the microsecond is known to be over, and, if more than leaky integrators wait for its spikes or a spike holds
its unit, nobody fires. All other events go one by one, slower, to the same bits.
"""

from typing import Any

import numpy as np

from neurons.front import Layer, decay_of, flush, leak_held
from stream.jit import inline_kernel, inner_kernel
from stream.lanes import lowest_bit, sum_16, sum_64, sum_256

__all__ = ["LONGEST_RUN", "fold", "quantised_front"]

LONGEST_RUN = 64  # events of a microsecond that are taken at once; more go one by one
ZERO: Any = np.int64(0)
ONE: Any = np.int64(1)
UNSIGNED_ONE: Any = np.uint64(1)


@inner_kernel
def fold(v: Any, pending: Any, scale: Any, first: int, n: int) -> None:
    """Make ``v[first:first + n]`` the whole potential; nothing is pending then."""
    real = v.dtype.type
    here = v[first : first + n]
    for j in range(n):
        here[j] += scale[j] * real(pending[j])
        pending[j] = 0


@inline_kernel
def _note(
    layer: Layer,
    v: Any,
    unit: int,
    factor: float,
    row: Any,
    places: Any,
    m: int,
    step: Any,
    notes: Any,
    n_notes: int,
) -> int:
    """Walk one unit through m events; note which of them made it fire."""
    real = v.dtype.type
    total = np.int32(0)
    u = v[layer.first + unit] * factor
    # unsigned: Numba looks at the sign of every other index
    here, note = np.uint64(unit), np.uint64(n_notes)
    for e in range(np.uint64(m)):
        total = np.int32(total + np.int32(row[np.uint64(places[e]) + here]))
        if u + step * real(total) > layer.theta:
            if layer.is_hard:
                u = layer.down
                total = np.int32(0)
            else:
                u -= layer.down
            notes[0, note] = np.int64(e) * layer.n + unit
            note += UNSIGNED_ONE
    v[layer.first + unit] = u + step * real(total)
    return np.int64(note)  # type: ignore[return-value]  # compiled, an int is an int64


@inner_kernel
def _sort(notes: Any, n_notes: int, counts: Any, m: int, n: int) -> Any:
    """Bring notes, event by event n and a unit each, from the order of units into that of events, then units.

    Returns the row of ``notes`` in which they stand.
    """
    if n_notes <= 8:
        for i in range(1, n_notes):
            one = notes[0, i]
            j = i
            while j > 0 and notes[0, j - 1] > one:
                notes[0, j] = notes[0, j - 1]
                j -= 1
            notes[0, j] = one
        return ZERO
    for e in range(m):
        counts[e] = 0
    for i in range(n_notes):
        counts[notes[0, i] // n] += 1
    total = ZERO
    for e in range(m):
        total, counts[e] = total + counts[e], total
    for i in range(n_notes):
        e = notes[0, i] // n
        notes[1, counts[e]] = notes[0, i]
        counts[e] += 1
    return ONE


@inner_kernel
def _take_one(
    layer: Layer,
    v: Any,
    held_us: Any,
    held_until_us: int,
    row: Any,
    at: int,
    scale: Any,
    pending: Any,
    t: int,
    notes: Any,
) -> Any:
    """Add one event's row at t, the time of ``v``; note who fires, and return how many do."""
    real, theta = v.dtype.type, layer.theta
    here, held, whole = (
        v[layer.first : layer.first + layer.n],
        held_us[layer.first : layer.first + layer.n],
        row[at : at + layer.n],
    )
    anyone = False
    if t < held_until_us:
        for j in range(layer.n):
            if held[j] <= t:
                pending[j] += np.int32(whole[j])
                anyone |= here[j] + scale[j] * real(pending[j]) > theta
    else:
        for j in range(layer.n):
            pending[j] += np.int32(whole[j])
            anyone |= here[j] + scale[j] * real(pending[j]) > theta
    n_fired = ZERO
    if anyone:
        for j in range(layer.n):
            if held[j] <= t and here[j] + scale[j] * real(pending[j]) > theta:
                if layer.is_hard:
                    here[j] = layer.down
                    pending[j] = 0
                else:
                    here[j] -= layer.down
                if layer.refractory_us > 0:
                    held[j] = t + layer.refractory_us
                notes[0, n_fired] = j
                n_fired += 1
    return n_fired


@inner_kernel
def quantised_front(
    layer: Layer,
    v: Any,
    held_us: Any,
    t_0: int,
    held_until_us: int,
    row: Any,
    scale: Any,
    pending: Any,
    is_pending: int,
    table: Any,
    items: Any,
    k: int,
    due_us: int,
    spare: Any,
    runs: Any,
    notes: Any,
    queue: Any,
    out: Any,
    n_out: int,
) -> tuple[int, int, int, int, int, int]:
    """Run events through a layer of 8 bits; unless it is the last, until one makes units fire.

    What is not told is as for ``neurons.front.dense_front``.

    Parameters
    ----------
    row
        int8, shape (n_weights,): that of input i begins at ``i n``.
    scale, pending
        real and int32, shape (n,): see above. ``pending`` is written to.
    is_pending
        0: all of ``pending`` is 0.
    runs, notes
        int64, shape (3, LONGEST_RUN + 1); int64, shape (2, LONGEST_RUN n). Scratch.
    out, n_out
        There is room for LONGEST_RUN n, if the layer is the last; else for n.

    Returns
    -------
    k, t_0, held_until_us, n_fired, n_out, is_pending
    """
    real = v.dtype.type
    first, n, tau_us, theta = layer.first, layer.n, layer.tau_us, layer.theta
    anchor_us, shift = layer.anchor_us, layer.shift
    end = len(items)
    places, counts, masks = runs[0], runs[1], runs[2]
    while k < end:
        t: Any = np.int64(items[k]["t"])
        if t >= due_us:
            break
        if t != t_0 and is_pending != 0:
            fold(v, pending, scale, first, n)
            is_pending = ZERO
        if t != t_0 and t_0 >= held_until_us and (t - anchor_us) >> shift == (t_0 - anchor_us) >> shift:
            m, most = ZERO, min(LONGEST_RUN, end - k)
            while m < most and np.int64(items[k + m]["t"]) == t:
                places[m] = np.int64(items[k + m]["unit"]) * n
                m += 1
            n_notes = ZERO
            is_calm = k + m < end and np.int64(items[k + m]["t"]) != t
            if is_calm:
                factor = real(decay_of(table, tau_us, t - t_0))
                if not layer.is_patient:
                    for i in range(n):
                        spare[i] = v[first + i]
                j = ZERO
                while j < n:
                    width: Any = ONE
                    if j + 256 <= n:
                        width = np.int64(256)
                        anyone: Any = sum_256(v, first + j, factor, row, places, m, scale, j, theta, masks)
                    elif j + 64 <= n:
                        width = np.int64(64)
                        anyone = sum_64(v, first + j, factor, row, places, m, scale, j, theta, masks)
                    elif j + 16 <= n:
                        width = np.int64(16)
                        anyone = sum_16(v, first + j, factor, row, places, m, scale, j, theta, masks)
                    else:
                        anyone, masks[0] = ONE, ONE
                    if anyone != 0 and not layer.is_patient:
                        is_calm = False
                        for i in range(n):
                            v[first + i] = spare[i]
                        break
                    if anyone != 0:
                        for word in range((width + 63) >> 6):
                            mask: Any = masks[word]
                            while mask != 0:
                                unit = j + 64 * word + lowest_bit(mask)
                                mask &= mask - 1
                                n_notes = _note(layer, v, unit, factor, row, places, m, scale[unit], notes, n_notes)
                    j += width
            if is_calm:
                t_0 = t
                k += m
                if n_notes == 0:
                    continue
                which = ZERO
                if n_notes > 1:
                    which = _sort(notes, n_notes, counts, m, n)
                for i in range(n_notes):
                    out[n_out + i]["t"] = t
                    out[n_out + i]["unit"] = notes[which, i] % n
                    out[n_out + i]["population"] = layer.population
                n_out += n_notes
                if n_out + LONGEST_RUN * n > len(out):
                    break
                continue
        if t != t_0:
            if t_0 < held_until_us:
                leak_held(v, held_us, first, first + n, t_0, t, table, tau_us)
            else:
                factor = real(decay_of(table, tau_us, t - t_0))
                for j in range(first, first + n):
                    v[j] *= factor
            if (t - anchor_us) >> shift != (t_0 - anchor_us) >> shift:
                flush(v, first, first + n)
            t_0 = t
        place: Any = np.int64(items[k]["unit"]) * n
        n_fired = _take_one(layer, v, held_us, held_until_us, row, place, scale, pending, t, notes)
        is_pending = ONE
        k += 1
        if n_fired == 0:
            continue
        if layer.refractory_us > 0:
            held_until_us = t + layer.refractory_us
        for i in range(n_fired):
            out[n_out + i]["t"] = t
            out[n_out + i]["unit"] = notes[0, i]
            out[n_out + i]["population"] = layer.population
            queue[i] = notes[0, i]
        n_out += n_fired
        if not layer.is_last:
            return k, t_0, held_until_us, n_fired, n_out, is_pending
        if n_out + LONGEST_RUN * n > len(out):
            break
    return k, t_0, held_until_us, ZERO, n_out, is_pending
