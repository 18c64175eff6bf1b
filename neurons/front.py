"""The fast loops: input events through one dense or convolutional projection to units that only leak.

Most events of most networks do nothing but this: potentials leak, a row of weights is added, nobody fires. So these
loops take plain arrays and numbers, no more, and leave as soon as something else happens. What they compute is what
``neurons.engine`` computes event by event, with these means:

decay
    ``exp(-dt / tau)`` for whole microseconds is the product of two entries of a table, up to 2^20 us (about a second);
    its error is that of one rounding of float64.
denormals
    Tiny potentials have to become 0 before they reach the denormal numbers, where arithmetic is a hundred times slower.
    That is done not at every event but when the time since the network's start passes a multiple of ``2^shift`` us,
    at most 16 time constants. In between, 1e-30 cannot shrink below 1e-37.
four at once
    Silent events go through a dense layer four at a time: a potential is read and written once instead of four times.
    The threshold is compared with the highest of the four. If that is above it, the four are undone and run singly.
    Each potential goes through the same sequence of roundings, so nothing depends on which events stood together.

Which of these ways an event takes may depend on how the stream was cut; its result does not.

Roads not taken
---------------
Potentials in coordinates that do not leak (weights times a growing ``exp(t / tau)``) save no operation in vectors: the
weights have to be multiplied instead. Adding up equal rows of many events, as frames do, would hide where a potential
passed the threshold and came back. Tiles of 64 units through thousands of events, so that their weights stay in the
second cache: measured, no faster than four at once.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.decay import left_and_gone
from stream.jit import inline_kernel, inner_kernel
from stream.lanes import integrate_4, integrate_16, integrate_64, lowest_bit

__all__ = [
    "Layer",
    "convolution_front",
    "decay_of",
    "decay_table",
    "dense_front",
    "flush_shift",
    "leak_held",
    "read_out",
]

FINE_BITS = 10
FINE = 2**FINE_BITS
CAREFUL = 16  # when two events nearer than this made units fire, so many are not tried four at once
ZERO: Any = np.int64(0)
UNSIGNED_ZERO: Any = np.uint64(0)
UNSIGNED_ONE: Any = np.uint64(1)
SIXTEEN: Any = np.uint64(16)


class Layer(NamedTuple):
    """What the fast loops need to know of a population and its projection, in numbers."""

    first: int  # unit
    n: int  # units
    first_group: int
    channels: int  # of a site, and how many sites there are in a row
    width: int
    population: int
    theta: Any  # real: threshold
    down: Any  # real: soft reset: what a spike takes away; hard: where it leads
    is_hard: bool
    refractory_us: int
    tau_us: float  # inf: no leak
    at_weight: int  # place of the first weight
    source: tuple[int, int]  # channels and width of the source
    windows: tuple[int, int]  # places in ``links``
    step: tuple[int, int]  # by how much ``at`` falls to the next window to the right, and to the next row of windows
    anchor_us: int  # when to flush
    shift: int
    is_last: bool  # its spikes go out, and to leaky integrators at most: nothing comes of them
    is_patient: bool  # nor do they hold its units; so telling can wait


def decay_table(tau_us: float) -> NDArray[np.float64]:
    """Tabulate ``exp(-dt / tau)``: float64, shape (2, 1024), for dt = i us and for dt = 1024 i us."""
    dt_us = np.arange(FINE)
    return np.exp(-np.stack([dt_us, FINE * dt_us]) / tau_us)


def flush_shift(tau_us: float) -> int:
    """Return the largest n for which 2^n us are at most 16 time constants (0 at least, 62 at most)."""
    return int(np.clip(math.floor(math.log2(16.0 * tau_us)), 0, 62)) if math.isfinite(tau_us) else 62


@inline_kernel
def decay_of(table: Any, tau_us: float, dt_us: int) -> Any:
    """Return ``exp(-dt / tau)``, float64."""
    if 0 <= dt_us < FINE * FINE:
        return table[1, dt_us >> FINE_BITS] * table[0, dt_us & (FINE - 1)]
    return math.exp(-np.float64(dt_us) / tau_us)


@inner_kernel
def flush(v: Any, first: int, last: int) -> None:
    """Set what is below 1e-30 to 0."""
    real = v.dtype.type
    tiny, zero = real(1e-30), real(0)
    here = v[first:last]
    for j in range(len(here)):
        here[j] = here[j] if abs(here[j]) > tiny else zero


@inline_kernel
def integrate(
    layer: Layer, v: Any, first: int, n: int, factor: float, weight: Any, at: int, t_us: int, hot: Any, n_hot: int
) -> int:
    """Leak, add weights, reset and note who was above the threshold, in one pass over memory.

    Parameters
    ----------
    v
        real, shape (n_all,): ``v[first:first + n]`` is written to.
    factor
        What is left of a potential; of the same type.
    weight, at
        real, shape (n_weights,): ``weight[at]`` belongs to unit ``first``.
    hot
        int64, shape (room, 3): first unit, mask, time. Output, from ``n_hot`` on, where there is room for n + 1.

    Returns
    -------
    int
        The new ``n_hot``.
    """
    theta, down, is_hard = layer.theta, layer.down, layer.is_hard
    j: Any = np.int64(0)
    while j + 64 <= n:
        mask = integrate_64(v, first + j, factor, weight, at + j, theta, down, is_hard)
        # always written, and kept if it is not 0: a branch would be guessed wrongly at every spike
        hot[n_hot, 0], hot[n_hot, 1], hot[n_hot, 2] = first + j, mask, t_us
        n_hot += mask != 0
        j += 64
    while j + 16 <= n:
        mask = integrate_16(v, first + j, factor, weight, at + j, theta, down, is_hard)
        if mask != 0:
            hot[n_hot, 0], hot[n_hot, 1], hot[n_hot, 2] = first + j, mask, t_us
            n_hot += 1
        j += 16
    while j + 4 <= n:
        mask = integrate_4(v, first + j, factor, weight, at + j, theta, down, is_hard)
        if mask != 0:
            hot[n_hot, 0], hot[n_hot, 1], hot[n_hot, 2] = first + j, mask, t_us
            n_hot += 1
        j += 4
    while j < n:
        u = v[first + j] * factor + weight[at + j]
        if u > theta:
            hot[n_hot, 0], hot[n_hot, 1], hot[n_hot, 2] = first + j, 1, t_us
            n_hot += 1
            u = down if is_hard else u - down
        v[first + j] = u
        j += 1
    return n_hot


@inner_kernel
def leak_held(v: Any, held_us: Any, first: int, last: int, t_0: int, t_us: int, table: Any, tau_us: float) -> None:
    """Let units leak from ``t_0`` to ``t_us`` that may be in their refractory times, or leave them on the way."""
    real = v.dtype.type
    factor, tiny, zero = real(decay_of(table, tau_us, t_us - t_0)), real(1e-30), real(0)
    here, held = v[first:last], held_us[first:last]
    is_leaving = False
    for j in range(len(here)):
        u = here[j] * factor
        u = u if abs(u) > tiny else zero
        here[j] = u if held[j] <= t_0 else here[j]
        is_leaving |= (held[j] > t_0) & (held[j] <= t_us)
    if is_leaving:
        for j in range(len(here)):
            if t_0 < held[j] <= t_us:
                u = here[j] * real(decay_of(table, tau_us, t_us - held[j]))
                here[j] = u if abs(u) > tiny else zero


@inner_kernel
def integrate_held(
    layer: Layer,
    v: Any,
    held_us: Any,
    first: int,
    n: int,
    t_0: int,
    t_us: int,
    table: Any,
    weight: Any,
    at: int,
    hot: Any,
    n_hot: int,
) -> int:
    """Do as ``integrate`` from ``t_0`` to ``t_us`` where some units are held, or were at ``t_0``."""
    leak_held(v, held_us, first, first + n, t_0, t_us, table, layer.tau_us)
    here, held, row, theta = v[first : first + n], held_us[first : first + n], weight[at : at + n], layer.theta
    anyone = False
    for j in range(n):
        u = here[j] + row[j]
        u = u if held[j] <= t_us else here[j]
        here[j] = u
        anyone |= (u > theta) & (held[j] <= t_us)
    if anyone:
        for j in range(n):
            if held[j] <= t_us and here[j] > theta:
                hot[n_hot, 0], hot[n_hot, 1], hot[n_hot, 2] = first + j, 1, t_us
                n_hot += 1
                here[j] = layer.down if layer.is_hard else here[j] - layer.down
    return n_hot


@inner_kernel
def integrate_any(
    layer: Layer,
    v: Any,
    held_us: Any,
    first: int,
    n: int,
    t_0: int,
    held_until_us: int,
    t_us: int,
    table: Any,
    weight: Any,
    at: int,
    hot: Any,
    n_hot: int,
) -> int:
    """Do as ``integrate`` from ``t_0`` to ``t_us``, whatever happens on the way."""
    if t_0 < held_until_us:
        n_hot = integrate_held(layer, v, held_us, first, n, t_0, t_us, table, weight, at, hot, n_hot)
    else:
        factor = v.dtype.type(decay_of(table, layer.tau_us, t_us - t_0))
        n_hot = integrate(layer, v, first, n, factor, weight, at, t_us, hot, n_hot)
    if (t_us - layer.anchor_us) >> layer.shift != (t_0 - layer.anchor_us) >> layer.shift:
        flush(v, first, first + n)
    return n_hot


@inner_kernel
def tell(layer: Layer, held_us: Any, hot: Any, n_hot: int, queue: Any, out: Any, n_out: int) -> Any:
    """Write the spikes noted in ``hot`` to ``out[n_out:]``, and their units to ``queue``; returns how many."""
    n: Any = np.int64(0)
    for h in range(n_hot):
        mask: Any = hot[h, 1]
        t: Any = hot[h, 2]
        while mask != 0:
            j = hot[h, 0] + lowest_bit(mask)
            mask &= mask - 1
            if layer.refractory_us > 0:
                held_us[j] = t + layer.refractory_us
            out[n_out + n]["t"] = t
            out[n_out + n]["unit"] = j - layer.first
            out[n_out + n]["population"] = layer.population
            if not layer.is_patient:
                queue[n] = j - layer.first
            n += 1
    return n


@inline_kernel
def leak_add_four(
    old: Any, a: int, new: Any, b: int, n: int, decay: tuple[Any, ...], weight: Any, at: tuple[int, ...], theta: Any
) -> bool:
    """Run four events at once, from ``old[a:a + n]`` to ``new[b:b + n]``; tell whether anyone passed the threshold.

    ``decay``: four factors; ``at``: where their rows begin.
    """
    before, after = old[a : a + n], new[b : b + n]
    row_0, row_1 = weight[at[0] : at[0] + n], weight[at[1] : at[1] + n]
    row_2, row_3 = weight[at[2] : at[2] + n], weight[at[3] : at[3] + n]
    anyone = False
    for j in range(n):
        u_0 = before[j] * decay[0] + row_0[j]
        u_1 = u_0 * decay[1] + row_1[j]
        u_2 = u_1 * decay[2] + row_2[j]
        u_3 = u_2 * decay[3] + row_3[j]
        one = u_0 if u_0 > u_1 else u_1
        other = u_2 if u_2 > u_3 else u_3
        anyone |= (one if one > other else other) > theta
        after[j] = u_3
    return anyone


@inner_kernel
def dense_front(
    layer: Layer,
    v: Any,
    held_us: Any,
    t_0: int,
    held_until_us: int,
    weight: Any,
    table: Any,
    items: Any,
    k: int,
    due_us: int,
    last_fired: int,
    spare: Any,
    hot: Any,
    queue: Any,
    out: Any,
    n_out: int,
) -> tuple[int, int, int, int, int]:
    """Run events through a dense layer; unless it is the last, until one makes units fire.

    Parameters
    ----------
    v
        real, shape (n_all,): potentials at ``t_0``. Written to.
    held_us
        int64, shape (n_all,): ends of refractory times, all at ``held_until_us`` or before. Written to.
    weight
        real, shape (n_weights,): row i begins at ``at_weight + i n``.
    table
        Of ``decay_table``.
    items, k
        SPIKE_DTYPE, shape (any,); where to begin.
    due_us
        Where to stop.
    last_fired
        The last event that made units fire.
    spare, hot
        real, shape (at least n,); int64, shape (more than 2 n, 3). Scratch.
    queue
        int64, shape (at least n,): the units that fired last. Output.
    out, n_out
        FIRED_DTYPE: all spikes. Output, from ``n_out`` on; there is room for n.

    Returns
    -------
    k, t_0, held_until_us, n_fired, n_out
        The first event not begun, the time of ``v``, the end of refractory times; how much of ``queue`` and ``out`` is
        filled.
    """
    real = v.dtype.type
    first, n, tau_us, theta = layer.first, layer.n, layer.tau_us, layer.theta
    anchor_us, shift = layer.anchor_us, layer.shift
    end = len(items)
    n_singly = ZERO
    n_hot = ZERO
    while k < end:
        while k >= n_singly and k + 8 <= end and t_0 >= held_until_us:
            t_8: Any = np.int64(items[k + 7]["t"])
            if t_8 >= due_us or (t_8 - anchor_us) >> shift != (t_0 - anchor_us) >> shift:
                break
            is_calm = True
            for half in range(2):
                t_1: Any = np.int64(items[k]["t"])
                t_2: Any = np.int64(items[k + 1]["t"])
                t_3: Any = np.int64(items[k + 2]["t"])
                t_4: Any = np.int64(items[k + 3]["t"])
                decay = (
                    real(decay_of(table, tau_us, t_1 - t_0)),
                    real(decay_of(table, tau_us, t_2 - t_1)),
                    real(decay_of(table, tau_us, t_3 - t_2)),
                    real(decay_of(table, tau_us, t_4 - t_3)),
                )
                at: Any = (
                    layer.at_weight + np.int64(items[k]["unit"]) * n,
                    layer.at_weight + np.int64(items[k + 1]["unit"]) * n,
                    layer.at_weight + np.int64(items[k + 2]["unit"]) * n,
                    layer.at_weight + np.int64(items[k + 3]["unit"]) * n,
                )
                if half == 0:
                    is_calm = not leak_add_four(v, first, spare, ZERO, n, decay, weight, at, theta)
                elif leak_add_four(spare, ZERO, v, first, n, decay, weight, at, theta):
                    is_calm = False
                    for j in range(n):
                        v[first + j] = spare[j]
                if not is_calm:
                    break
                t_0 = t_4
                k += 4
            if not is_calm:
                n_singly = k + 4
        if k == end:
            break
        t: Any = np.int64(items[k]["t"])
        if t >= due_us:
            break
        row: Any = layer.at_weight + np.int64(items[k]["unit"]) * n
        before = n_hot
        if t_0 < held_until_us:
            n_hot = integrate_held(layer, v, held_us, first, n, t_0, t, table, weight, row, hot, n_hot)
        else:
            factor = real(decay_of(table, tau_us, t - t_0))
            n_hot = integrate(layer, v, first, n, factor, weight, row, t, hot, n_hot)
        if (t - anchor_us) >> shift != (t_0 - anchor_us) >> shift:
            flush(v, first, first + n)
        t_0 = t
        k += 1
        if n_hot == before:
            continue
        if k - last_fired <= CAREFUL:
            n_singly = k + CAREFUL
        last_fired = k
        # an entry is of 64 spikes at most
        if not layer.is_patient or n_hot + n >= len(hot) or n_out + 64 * n_hot + n > len(out):
            n_fired = tell(layer, held_us, hot, n_hot, queue, out, n_out)
            n_out += n_fired
            n_hot = ZERO
            if layer.refractory_us > 0:
                held_until_us = t + layer.refractory_us
            if not layer.is_last:
                return k, t_0, held_until_us, n_fired, n_out
            if n_out + n > len(out):
                break
    n_out += tell(layer, held_us, hot, n_hot, queue, out, n_out)
    return k, t_0, held_until_us, 0, n_out


@inner_kernel
def convolution_front(
    layer: Layer,
    v: Any,
    held_us: Any,
    t_us: Any,
    held_until_us: int,
    weight: Any,
    links: Any,
    table: Any,
    items: Any,
    k: int,
    due_us: int,
    hot: Any,
    queue: Any,
    out: Any,
    n_out: int,
) -> tuple[int, int, int, int]:
    """Run events through a convolution; unless it is the last layer, until one makes units fire.

    What is not told is as for ``dense_front``.

    Parameters
    ----------
    t_us
        int64, shape (n_groups,): times of sites. Written to.
    links
        int64, shape (any,). From ``layer.windows`` on for each row (column) of the source: the first row (column) of
        windows that holds it, the last one, and what it adds to the place of the weight in that first one.

    Returns
    -------
    k, held_until_us, n_fired, n_out
    """
    real = v.dtype.type
    n, theta, anchor_us, shift = layer.channels, layer.theta, layer.anchor_us, layer.shift
    down, is_hard = layer.down, layer.is_hard
    n_hot = ZERO
    in_sixteens = n % 16 == 0
    # unsigned: dividing signed numbers takes longer, and so does an index that may be negative
    channels, source_width = np.uint64(layer.source[0]), np.uint64(layer.source[1])
    rows, columns = np.uint64(layer.windows[0]), np.uint64(layer.windows[1])
    while k < len(items):
        t: Any = np.int64(items[k]["t"])
        if t >= due_us:
            break
        pre: Any = np.uint64(items[k]["unit"])
        k += 1
        pixel = pre // channels
        y = pixel // source_width
        row, column = rows + np.uint64(3) * y, columns + np.uint64(3) * (pixel - y * source_width)
        oy_first, oy_last, at_y = links[row], links[row + np.uint64(1)], links[row + np.uint64(2)]
        ox_first, ox_last, at_x = links[column], links[column + np.uint64(1)], links[column + np.uint64(2)]
        at_row = layer.at_weight + at_y + at_x + np.int64(pre - pixel * channels) * n
        before = n_hot
        # touched after this, a site is not held, has no flush to come, and its decay stands in the table
        fresh_us = max(held_until_us, anchor_us + ((t - anchor_us) >> shift << shift), t - FINE * FINE + 1)
        fresh_us = fresh_us if in_sixteens else t + 1
        # one loop over all sites, and no branch on who fired: a processor cannot guess how many rows and columns of
        # windows hold an event, nor where the next spike is, and each wrong guess costs as much as a site
        n_x, n_channels = ox_last - ox_first + 1, np.uint64(n)
        at_wrap, site_wrap = layer.step[0] * (n_x - 1) - layer.step[1], layer.width - n_x + 1
        site: Any = oy_first * layer.width + ox_first
        # unsigned: Numba looks at the sign of every other index
        g: Any = np.uint64(layer.first_group + site)
        j: Any = np.uint64(layer.first + site * n)
        at: Any = at_row
        note: Any = np.uint64(n_hot)
        anyone, x = ZERO, n_x
        for _ in range((oy_last - oy_first + 1) * n_x):
            t_0: Any = t_us[g]
            t_us[g] = t
            if t_0 >= fresh_us:
                dt: Any = np.uint64(t - t_0)
                factor = real(table[1, dt >> np.uint64(FINE_BITS)] * table[0, dt & np.uint64(FINE - 1)])
                c = UNSIGNED_ZERO
                while True:
                    mask = integrate_16(v, j + c, factor, weight, np.uint64(at) + c, theta, down, is_hard)
                    hot[note, 0], hot[note, 1] = j + c, mask
                    note += UNSIGNED_ONE
                    anyone |= mask
                    c += SIXTEEN
                    if c == n_channels:
                        break
            else:
                n_before: Any = np.int64(note)
                j_0: Any = np.int64(j)
                n_noted: Any = integrate_any(
                    layer, v, held_us, j_0, n, t_0, held_until_us, t, table, weight, at, hot, n_before
                )
                anyone |= n_noted - n_before
                note = np.uint64(n_noted)
            x -= 1
            is_row_done = x == 0
            x = n_x if is_row_done else x
            g += np.uint64(site_wrap if is_row_done else 1)
            j += np.uint64((site_wrap if is_row_done else 1) * n)
            at += at_wrap if is_row_done else -layer.step[0]
        if anyone != 0:
            for i in range(before, np.int64(note)):
                hot[n_hot, 0], hot[n_hot, 1], hot[n_hot, 2] = hot[i, 0], hot[i, 1], t
                n_hot += hot[n_hot, 1] != 0
        if layer.is_patient:
            if n_hot + layer.n < len(hot) and n_out + 64 * n_hot + layer.n <= len(out):
                continue
        elif n_hot == before:
            continue
        n_fired = tell(layer, held_us, hot, n_hot, queue, out, n_out)
        n_out += n_fired
        n_hot = ZERO
        if layer.refractory_us > 0:
            held_until_us = t + layer.refractory_us
        if not layer.is_last:
            return k, held_until_us, n_fired, n_out
        if n_out + layer.n > len(out):
            break
    n_out += tell(layer, held_us, hot, n_hot, queue, out, n_out)
    return k, held_until_us, 0, n_out


@inner_kernel
def read_out(
    v: Any,
    integral_us: Any,
    t_us: Any,
    group: int,
    first: int,
    n: int,
    tau_us: float,
    weight: Any,
    at_weight: int,
    out: Any,
    begin: int,
    end: int,
) -> None:
    """Deliver the spikes ``out[begin:end]``, all of one population, to leaky integrators that they reach densely.

    As ``neurons.engine`` does it one by one. ``t_us[group]`` is the time of ``v[first:first + n]`` and its integral.
    """
    real = v.dtype.type
    tiny, zero = real(1e-30), real(0)
    here, integral = v[first : first + n], integral_us[first : first + n]
    for s in range(begin, end):
        t: Any = np.int64(out[s]["t"])
        t_0: Any = t_us[group]
        if t != t_0:
            t_us[group] = t
            rest, share = left_and_gone(-np.float64(t - t_0) / tau_us)
            for j in range(n):
                old = np.float64(here[j])
                integral[j] -= old * tau_us * share
                new = real(old * rest)
                here[j] = new if abs(new) > tiny else zero
        at = at_weight + np.int64(out[s]["unit"]) * n
        row = weight[at : at + n]
        for j in range(n):
            here[j] += row[j]
