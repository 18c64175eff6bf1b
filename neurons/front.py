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
    The threshold is compared with the highest of the four. If that is above it, the four are undone and run singly. Each
    potential goes through the same sequence of roundings, so nothing depends on which events stood together.

Which of these ways an event takes may depend on how the stream was cut; its result does not.

Roads not taken
---------------
Potentials in coordinates that do not leak (weights times a growing ``exp(t / tau)``) save no operation in vectors: the
weights have to be multiplied instead. Adding up equal rows of many events, as frames do, would hide where a potential
passed the threshold and came back. Tiles of 64 units through thousands of events, so that their weights stay in the
second cache: measured, no faster than four at once.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.jit import inner_kernel
from stream.lanes import leak_add_4, leak_add_16, leak_add_64

__all__ = ["convolution_front", "decay_of", "decay_table", "dense_front", "flush_shift", "leak_held"]

FINE_BITS = 10
FINE = 2**FINE_BITS


def decay_table(tau_us: float) -> NDArray[np.float64]:
    """Tabulate ``exp(-dt / tau)``: float64, shape (2, 1024), for dt = i us and for dt = 1024 i us."""
    dt_us = np.arange(FINE)
    return np.exp(-np.stack([dt_us, FINE * dt_us]) / tau_us)


def flush_shift(tau_us: float) -> int:
    """Return the largest n for which 2^n us are at most 16 time constants (0 at least, 62 at most)."""
    return int(np.clip(math.floor(math.log2(16.0 * tau_us)), 0, 62)) if math.isfinite(tau_us) else 62


@inner_kernel
def decay_of(table: Any, tau_us: float, dt_us: int) -> float:
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


@inner_kernel
def leak_add_hot(
    v: Any, first: int, n: int, factor: float, weight: Any, at: int, threshold: float, hot: Any, n_hot: int
) -> int:
    """Leak, add weights, and note who is above the threshold, in one pass over memory.

    Parameters
    ----------
    v
        real, shape (n_all,): ``v[first:first + n]`` is written to.
    factor, threshold
        Of the same type.
    weight, at
        real, shape (n_weights,): ``weight[at]`` belongs to unit ``first``.
    hot
        int64, shape (room, 2): first unit and mask. Output, from ``n_hot`` on.

    Returns
    -------
    int
        The new ``n_hot``.
    """
    j: Any = np.int64(0)
    while j + 64 <= n:
        mask = leak_add_64(v, first + j, factor, weight, at + j, threshold)
        if mask != 0:
            hot[n_hot, 0], hot[n_hot, 1] = first + j, mask
            n_hot += 1
        j += 64
    while j + 16 <= n:
        mask = leak_add_16(v, first + j, factor, weight, at + j, threshold)
        if mask != 0:
            hot[n_hot, 0], hot[n_hot, 1] = first + j, mask
            n_hot += 1
        j += 16
    while j + 4 <= n:
        mask = leak_add_4(v, first + j, factor, weight, at + j, threshold)
        if mask != 0:
            hot[n_hot, 0], hot[n_hot, 1] = first + j, mask
            n_hot += 1
        j += 4
    while j < n:
        u = v[first + j] * factor + weight[at + j]
        v[first + j] = u
        if u > threshold:
            hot[n_hot, 0], hot[n_hot, 1] = first + j, 1
            n_hot += 1
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
def add_held_hot(
    v: Any, held_us: Any, first: int, n: int, t_us: int, weight: Any, at: int, threshold: float, hot: Any, n_hot: int
) -> int:
    """Add weights to the units that are not held, and note who is above the threshold; as ``leak_add_hot``."""
    here, held, row = v[first : first + n], held_us[first : first + n], weight[at : at + n]
    anyone = False
    for j in range(n):
        u = here[j] + row[j]
        u = u if held[j] <= t_us else here[j]
        here[j] = u
        anyone |= (u > threshold) & (held[j] <= t_us)
    if anyone:
        for j in range(n):
            if held[j] <= t_us and here[j] > threshold:
                hot[n_hot, 0], hot[n_hot, 1] = first + j, 1
                n_hot += 1
    return n_hot


@inner_kernel
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
    v: Any,
    spare: Any,
    held_us: Any,
    first: int,
    n: int,
    weight: Any,
    at_weight: int,
    threshold: float,
    table: Any,
    tau_us: float,
    t_0: int,
    anchor_us: int,
    shift: int,
    held_until_us: int,
    due_us: int,
    items: Any,
    k: int,
    n_singly: int,
    hot: Any,
) -> tuple[int, int, int]:
    """Run events through a dense layer until one takes units above threshold.

    Parameters
    ----------
    v
        real, shape (n_all,): potentials at ``t_0``; ``v[first:first + n]`` is written to.
    spare
        real, shape (at least n,). Scratch.
    held_us
        int64, shape (n_all,): ends of refractory times, all at ``held_until_us`` or before.
    weight, at_weight
        real, shape (n_weights,): row i begins at ``at_weight + i n``.
    table, tau_us
        Of ``decay_table``.
    anchor_us, shift
        When to flush.
    due_us
        Where to stop.
    items, k
        SPIKE_DTYPE, shape (any,); where to begin.
    n_singly
        So many events are not tried four at once.
    hot
        int64, shape (at least n, 2): first unit and mask of those above threshold. Output.

    Returns
    -------
    k, t_0, n_hot
        The first event not begun, the time of ``v``, and how much of ``hot`` holds.
    """
    real = v.dtype.type
    theta = real(threshold)
    end = len(items)
    n_singly += k
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
                at = (
                    at_weight + np.int64(items[k]["unit"]) * n,
                    at_weight + np.int64(items[k + 1]["unit"]) * n,
                    at_weight + np.int64(items[k + 2]["unit"]) * n,
                    at_weight + np.int64(items[k + 3]["unit"]) * n,
                )
                if half == 0:
                    is_calm = not leak_add_four(v, first, spare, 0, n, decay, weight, at, theta)
                elif leak_add_four(spare, 0, v, first, n, decay, weight, at, theta):
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
            return k, t_0, 0
        row = at_weight + np.int64(items[k]["unit"]) * n
        is_flushed = (t - anchor_us) >> shift != (t_0 - anchor_us) >> shift
        n_hot: Any = np.int64(0)
        if t_0 < held_until_us:
            leak_held(v, held_us, first, first + n, t_0, t, table, tau_us)
            n_hot = add_held_hot(v, held_us, first, n, t, weight, row, theta, hot, n_hot)
        else:
            factor = real(decay_of(table, tau_us, t - t_0))
            n_hot = leak_add_hot(v, first, n, factor, weight, row, theta, hot, n_hot)
        if is_flushed:
            flush(v, first, first + n)
        t_0 = t
        k += 1
        if n_hot > 0:
            return k, t_0, n_hot
    return k, t_0, 0


@inner_kernel
def convolution_front(
    v: Any,
    held_us: Any,
    t_us: Any,
    first: int,
    first_group: int,
    n: int,
    width: int,
    weight: Any,
    at_weight: int,
    source: tuple[int, int],
    step: tuple[int, int],
    windows: Any,
    threshold: float,
    table: Any,
    tau_us: float,
    anchor_us: int,
    shift: int,
    held_until_us: int,
    due_us: int,
    items: Any,
    k: int,
    hot: Any,
) -> tuple[int, int]:
    """Run events through a convolution until one takes units above threshold. What is not told is as for ``dense_front``.

    Parameters
    ----------
    t_us, first_group
        int64, shape (n_groups,): times of sites, from ``first_group`` on.
    n, width
        Channels of a site; sites in a row.
    source
        Channels and width of the source.
    step
        By how much ``at`` falls from a window to the next one to the right, and from a row of windows to the next.
    windows
        int64, shape (2, longer side, 3): of each row, and of each column: the first window that holds it, the last one,
        and what it adds to the place of the weight in that first one.

    Returns
    -------
    k, n_hot
    """
    real = v.dtype.type
    theta = real(threshold)
    # unsigned: dividing signed numbers takes longer, and so does an index that may be negative
    channels, source_width = np.uint64(source[0]), np.uint64(source[1])
    in_sixteens = n % 16 == 0
    for i in range(k, len(items)):
        t: Any = np.int64(items[i]["t"])
        if t >= due_us:
            return i, 0
        pre: Any = np.uint64(items[i]["unit"])
        pixel = pre // channels
        y = pixel // source_width
        x = pixel - y * source_width
        at_row = at_weight + windows[0, y, 2] + windows[1, x, 2] + np.int64(pre - pixel * channels) * n
        ox_first, ox_last = windows[1, x, 0], windows[1, x, 1]
        n_hot: Any = np.int64(0)
        for oy in range(windows[0, y, 0], windows[0, y, 1] + 1):
            at = at_row
            for site in range(oy * width + ox_first, oy * width + ox_last + 1):
                g: Any = np.uint64(first_group + site)
                t_0: Any = t_us[g]
                t_us[g] = t
                j = first + site * n
                if t_0 < held_until_us:
                    leak_held(v, held_us, j, j + n, t_0, t, table, tau_us)
                    n_hot = add_held_hot(v, held_us, j, n, t, weight, at, theta, hot, n_hot)
                elif in_sixteens:
                    factor = real(decay_of(table, tau_us, t - t_0))
                    for c in range(0, n, 16):
                        mask = leak_add_16(v, j + c, factor, weight, at + c, theta)
                        if mask != 0:
                            hot[n_hot, 0], hot[n_hot, 1] = j + c, mask
                            n_hot += 1
                else:
                    factor = real(decay_of(table, tau_us, t - t_0))
                    n_hot = leak_add_hot(v, j, n, factor, weight, at, theta, hot, n_hot)
                if (t - anchor_us) >> shift != (t_0 - anchor_us) >> shift:
                    flush(v, j, j + n)
                at -= step[0]
            at_row -= step[1]
        if n_hot > 0:
            return i + 1, n_hot
    return len(items), 0
