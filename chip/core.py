"""One core: axons hold what arrived, synapses weigh it, dendrites add it up; the soma (:mod:`chip.soma`) does the rest.

Equations
---------
Once a phase, a holds what waits on the axons::

    U_j = bias_j + a_0 weight[0, j] + a_1 weight[1, j] + ...         matrix synapse
    U_j = bias_j + a_j                                               vector-add synapse

in ascending axon order, saturating to int32 after every term. An axon in mode S holds one bit (a second spike in the
same phase merges with the first), in mode A a signed int32 (values that arrive from several cores are added,
saturating per term, in the order in which :mod:`chip.grid` delivers them). Only axons that hold something cost
anything; what is zero is not added, and is counted.

Modes: the axon's is :data:`AXON_SPIKES` or :data:`AXON_VALUES`; the soma's follows from its fire type: spikes, or
values (a membrane, whole or cut to fewer bits, or what a lookup table says of U). All four combinations run: AA, SS,
AS, SA.

How saturating sums are fast
----------------------------
Every partial sum of a phase lies within ``largest |bias| + 128 * sum |a_i|``, whatever the weights and the order. Where
that is below 2^31, no term can saturate, so the sum does not depend on order or grouping and any plain addition gives
the same bits. Spikes are then added in 16-bit lanes that stay in registers: 256 rows of int8 stay within 16 bits.
Where the bound is not met, the terms are added one by one, as the equations say.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.soma import Soma
from stream.jit import inline_kernel, kernel
from stream.lanes import add_16, add_64, add_256

__all__ = [
    "ALONG_X",
    "ALONG_Y",
    "AXON_SPIKES",
    "AXON_VALUES",
    "FLAGGED",
    "FORWARD_COPY",
    "FORWARD_OFF",
    "FORWARD_RELAY",
    "LANES",
    "OFF_CHIP",
    "ROUTE_DTYPE",
    "SYNAPSE_MATRIX",
    "SYNAPSE_VECTOR_ADD",
    "TO_CORE",
    "VALUE_SIGNED",
    "VALUE_TERNARY",
    "VALUE_UNSIGNED",
    "Core",
    "Forward",
    "add_axons",
    "add_spikes",
    "add_values",
    "weigh",
]

AXON_SPIKES, AXON_VALUES = 0, 1
SYNAPSE_MATRIX, SYNAPSE_VECTOR_ADD = 0, 1
VALUE_SIGNED, VALUE_UNSIGNED, VALUE_TERNARY = 0, 1, 2
FORWARD_OFF, FORWARD_COPY, FORWARD_RELAY = 0, 1, 2
LANES = 16  # rows of weights are padded to a multiple of this, so that loops over them have no ragged end

TO_CORE, OFF_CHIP, FLAGGED, ALONG_X, ALONG_Y = 0, 1, 2, 3, 4
ROUTE_DTYPE = np.dtype(
    [
        ("neuron", "<i4"),
        ("dx", "<i4"),  # relative address of the target core, in cores
        ("dy", "<i4"),
        ("axon", "<i4"),  # of the target core, and of every core that gets a copy; if off chip, the output line
        ("port", "<i4"),
        ("steps", "<i4"),  # of ALONG_X and ALONG_Y, else 0
    ]
)
"""One line of a core's routing table: where a neuron's packet goes. Several lines of a neuron are several packets.

Ports: TO_CORE; OFF_CHIP, to the host through the output port; FLAGGED, to a core and on along its forward register;
ALONG_X and ALONG_Y, to a core and to ``steps`` more beyond it in a straight line (negative: towards smaller x or y).
"""


class Forward(NamedTuple):
    """What a core's router does with flagged packets: nothing more; keep and copy; or only pass on, to (dx, dy)."""

    mode: int = FORWARD_OFF
    dx: int = 0
    dy: int = 0


class Core(NamedTuple):
    """What one core is programmed with."""

    name: str  # for messages: which part of which layer this is
    axon_mode: int
    synapse: int
    n_axons: int
    n_neurons: int
    weight: NDArray[np.int8]  # shape (n_axons, n_neurons); (0, 0) for a vector-add synapse
    bias: NDArray[np.int32]  # shape (n_neurons,)
    soma: Soma
    routes: NDArray[np.void]  # ROUTE_DTYPE, ascending in neuron
    value_bits: int = 0  # width of the values it sends; 0 = 8 where they are cut or looked up, else a membrane's
    value_kind: int = VALUE_SIGNED  # ternary: -1, 0, 1 in 2 bits
    table: NDArray[np.int32] = np.zeros(0, np.int32)  # of FIRE_TABLE: f(0), f(1), ..., f(-2), f(-1)
    watch: NDArray[np.int32] = np.zeros(0, np.int32)  # numbers by which its neurons' spikes are reported; -1, () = not
    forward: Forward = Forward()


@kernel
def weigh(weight: Any, block: Any, n_zero: Any) -> None:
    """Write weights, int8 of shape (n_axons, n_neurons), to ``block`` (n_axons, padded); count the zeros of rows."""
    for i in range(weight.shape[0]):
        zeros = np.int32(0)
        for j in range(weight.shape[1]):
            block[i, j] = weight[i, j]
            zeros += np.int32(weight[i, j] == 0)
        n_zero[i] = zeros


@inline_kernel
def _add_rows(block: Any, rows: Any, n_rows: int, bias: Any, current: Any) -> None:
    """Add rows of int8 to biases of int32 where nothing can saturate."""
    n = np.int64(len(current))
    k, begin = np.int64(0), bias
    while k < n_rows:
        stop = min(k + 256, np.int64(n_rows))  # 256 * -128 is the smallest that 16 bits hold
        j = np.int64(0)
        while j + 256 <= n:
            add_256(current, begin, block, rows, k, stop, n, j)
            j += 256
        while j + 64 <= n:
            add_64(current, begin, block, rows, k, stop, n, j)
            j += 64
        while j < n:
            add_16(current, begin, block, rows, k, stop, n, j)
            j += 16
        k, begin = stop, current


@kernel
def _add_terms(block: Any, axon: Any, current: Any) -> Any:
    """Add term by term, saturating, in ascending axon order. Returns how many sums did not fit."""
    n_saturated: Any = 0
    for i in range(len(axon)):
        a = np.int64(axon[i])
        if a == 0:
            continue
        row = block[i * len(current) : (i + 1) * len(current)]
        for j in range(len(current)):
            total = np.int64(current[j]) + a * np.int64(row[j])
            bounded = min(max(total, np.int64(-(2**31))), np.int64(2**31 - 1))
            n_saturated += np.int64(total != bounded)
            current[j] = np.int32(bounded)
    return n_saturated


@inline_kernel
def add_spikes(
    block: Any,
    n_zero: Any,
    axon: Any,
    active: Any,
    n_active: int,
    bias: Any,
    bias_reach: int,
    current: Any,
) -> tuple[Any, Any, Any]:
    """Collect the spikes that wait on a core's axons, and clear them.

    Parameters
    ----------
    block
        int8, shape (n_axons * padded neurons,): one row of weights for each axon.
    n_zero
        int32, shape (n_axons,): weights that are zero in each row.
    axon
        int32, shape (n_axons,): 1 where a spike waits; zero afterwards.
    active, n_active
        int32: those axons, in any order; at least one.
    bias
        int32, shape (padded neurons,).
    bias_reach
        Largest magnitude of a bias.
    current
        int32, out, shape (padded neurons,): U. Padding is what padded weights and biases make it.

    Returns
    -------
    n_zeros, n_saturated, reach
        Weights met that were zero; sums that did not fit int32; a bound of the magnitude of every U.
    """
    n_zeros = np.int64(0)
    reach = bias_reach + np.int64(n_active) * 128
    n_saturated: Any = 0
    if reach < 2**31:
        _add_rows(block, active, n_active, bias, current)
    else:
        for j in range(len(current)):
            current[j] = bias[j]
        n_saturated = _add_terms(block, axon, current)
    for k in range(n_active):
        i = np.uint32(active[k])  # unsigned: Numba looks at the sign of every other index
        n_zeros += np.int64(n_zero[i])
        axon[i] = 0
    return n_zeros, n_saturated, reach


@kernel
def add_values(
    block: Any, n_zero: Any, axon: Any, active: Any, bias_reach: int, current: Any
) -> tuple[Any, Any, Any, Any]:
    """Collect the values that wait on a core's axons, and clear them.

    Parameters and results as :func:`add_spikes`, but ``active`` is scratch, ``current`` holds the biases on entry, and
    the number of axons that held something comes first.
    """
    n_active, n_zeros, largest, summed = 0, np.int64(0), np.int64(0), np.int64(0)
    for i in range(len(axon)):
        a = np.int64(axon[i])
        if a != 0:
            active[n_active] = i
            n_active += 1
            n_zeros += n_zero[i]
            largest = max(largest, abs(a))
            summed += abs(a)
    reach = bias_reach + summed * 128
    n = len(current)
    n_saturated: Any = 0
    if reach >= 2**31:
        n_saturated = _add_terms(block, axon, current)
    elif largest <= 127:
        # two products of 127 * -128 fit 16 bits: half the lanes' width for the multiplications
        k = 0
        while k + 4 <= n_active:
            p, q, r, s = active[k], active[k + 1], active[k + 2], active[k + 3]
            a0, a1, a2, a3 = np.int16(axon[p]), np.int16(axon[q]), np.int16(axon[r]), np.int16(axon[s])
            w0, w1 = block[n * p : n * p + n], block[n * q : n * q + n]
            w2, w3 = block[n * r : n * r + n], block[n * s : n * s + n]
            for j in range(n):
                first = np.int16(a0 * np.int16(w0[j]) + a1 * np.int16(w1[j]))
                second = np.int16(a2 * np.int16(w2[j]) + a3 * np.int16(w3[j]))
                current[j] += np.int32(np.int32(first) + np.int32(second))
            k += 4
        while k < n_active:
            p = active[k]
            a0, w0 = np.int16(axon[p]), block[n * p : n * p + n]
            for j in range(n):
                current[j] += np.int32(np.int16(a0 * np.int16(w0[j])))
            k += 1
    else:
        for k in range(n_active):
            p = active[k]
            a32, w0 = np.int32(axon[p]), block[n * p : n * p + n]
            for j in range(n):
                current[j] += np.int32(a32 * np.int32(w0[j]))
    for k in range(n_active):
        axon[active[k]] = 0
    return n_active, n_zeros, n_saturated, reach


@inline_kernel
def add_axons(axon: Any, bias_reach: int, current: Any) -> tuple[Any, Any]:
    """Vector-add synapse: add each axon to the neuron of its number, and clear it. Returns n_saturated, reach."""
    n_saturated: Any = 0
    largest = np.int64(0)
    for j in range(len(axon)):
        a = np.int64(axon[j])
        largest = max(largest, abs(a))
        total = np.int64(current[j]) + a
        bounded = min(max(total, np.int64(-(2**31))), np.int64(2**31 - 1))
        n_saturated += np.int64(total != bounded)
        current[j] = np.int32(bounded)
        axon[j] = 0
    return n_saturated, bias_reach + largest
