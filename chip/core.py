"""One core: axons hold what arrived, synapses weigh it, dendrites add it up; the soma (:mod:`chip.soma`) does the rest.

Equations
---------
Once a phase, a holds what waits on the axons::

    U_j = bias_j + a_0 weight[0, j] + a_1 weight[1, j] + ...         matrix synapse
    U_j = bias_j + a_j                                               vector-add synapse

in ascending axon order, saturating to int32 after every term. An axon in mode S holds one bit (a second spike in the
same phase merges with the first), in mode A a signed int32 (values that arrive from several cores are added,
saturating per term, in ascending order of the sending core). Only axons that hold something cost anything; what is
zero is not added, and is counted.

Modes: the axon's is :data:`AXON_SPIKES` or :data:`AXON_VALUES`, the soma's follows from its fire type (spikes, or the
membrane as a value). All four combinations run; the lookup-table soma of artificial neurons is not built yet.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.soma import Soma
from stream.jit import kernel

__all__ = [
    "AXON_SPIKES",
    "AXON_VALUES",
    "OFF_CHIP",
    "ROUTE_DTYPE",
    "SYNAPSE_MATRIX",
    "SYNAPSE_VECTOR_ADD",
    "Core",
    "Synapses",
    "add_saturating",
    "dendrite_phase",
    "weigh_core",
]

AXON_SPIKES, AXON_VALUES = 0, 1
SYNAPSE_MATRIX, SYNAPSE_VECTOR_ADD = 0, 1

OFF_CHIP = 1
ROUTE_DTYPE = np.dtype(
    [
        ("neuron", "<i4"),
        ("dx", "<i4"),  # relative address of the target core, in cores
        ("dy", "<i4"),
        ("axon", "<i4"),  # of the target core; if off chip, the output line
        ("port", "<i4"),  # 0 to a core, OFF_CHIP to the host, through the output port
    ]
)
"""One line of a core's routing table: where a neuron's packet goes. Several lines of a neuron are several packets."""


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
    value_bits: int = 0  # width of the values it sends; 0 = as wide as a membrane


class Synapses(NamedTuple):
    """Axons, weights and biases of all cores."""

    axon_mode: NDArray[np.int64]  # shape (n_cores,)
    kind: NDArray[np.int64]  # shape (n_cores,)
    n_axons: NDArray[np.int64]  # shape (n_cores,)
    n_neurons: NDArray[np.int64]  # shape (n_cores,)
    weight: NDArray[np.int8]  # shape (n_cores, axons_per_core, neurons_per_core)
    n_zero: NDArray[np.int32]  # shape (n_cores, axons_per_core): weights that are zero in the row of an axon
    bias: NDArray[np.int32]  # shape (n_cores, neurons_per_core)
    bias_reach: NDArray[np.int64]  # shape (n_cores,): largest magnitude of a bias


@kernel
def add_saturating(total: Any, term: Any) -> Any:
    """Add, and stay within int32."""
    return min(max(total + term, np.int64(-(2**31))), np.int64(2**31 - 1))


@kernel
def weigh_core(synapses: Synapses, core: int, weight: Any) -> None:
    """Write the weights of a core, int8 of shape (n_axons, n_neurons), and count the zeros of its rows."""
    rows, zeros = synapses.weight[core], synapses.n_zero[core]
    for i in range(weight.shape[0]):
        n_zero = np.int32(0)
        for j in range(weight.shape[1]):
            rows[i, j] = weight[i, j]
            n_zero += np.int32(weight[i, j] == 0)
        zeros[i] = n_zero


@kernel
def dendrite_phase(synapses: Synapses, core: int, axon: Any, n_terms: int, current: Any) -> tuple[Any, Any, Any]:
    """Collect what waits on the axons of a core, and clear them.

    Parameters
    ----------
    synapses
        Of all cores.
    core
        Which one.
    axon
        int32, shape (axons_per_core,): what waits; zero afterwards.
    n_terms
        How many spikes or values arrived there; 0 leaves nothing but the bias.
    current
        int32, shape (neurons_per_core,), out: U.

    Returns
    -------
    n_added, n_zero, n_saturated
        Weights (or arriving values) added; weights met that were zero; sums that did not fit int32.
    """
    n_axons, n_neurons = synapses.n_axons[core], synapses.n_neurons[core]
    bias, weight = synapses.bias[core], synapses.weight[core]
    for j in range(n_neurons):
        current[j] = bias[j]
    if n_terms == 0:
        return 0, 0, 0
    n_saturated: Any = 0
    if synapses.kind[core] == 1:
        for j in range(n_axons):
            total = np.int64(current[j]) + np.int64(axon[j])
            current[j] = add_saturating(total, 0)
            n_saturated += np.int64(total != np.int64(current[j]))
            axon[j] = 0
        return n_terms, 0, n_saturated
    # Every partial sum lies within bias_reach + sum |a_i| * 128, whatever the weights and the order: if that is below
    # 2^31, no term can saturate and plain int32 additions, which use vector lanes, give the same bits.
    reach = np.int64(0)
    for i in range(n_axons):
        reach += abs(np.int64(axon[i]))
    fits = synapses.bias_reach[core] + reach * 128 < 2**31
    n_added, n_zero = 0, 0
    for i in range(n_axons):
        a = axon[i]
        if a == 0:
            continue
        axon[i] = 0
        n_zero += synapses.n_zero[core, i]
        n_added += n_neurons - synapses.n_zero[core, i]
        row = weight[i]
        if not fits:
            for j in range(n_neurons):
                total = np.int64(current[j]) + np.int64(a) * np.int64(row[j])
                current[j] = add_saturating(total, 0)
                n_saturated += np.int64(total != np.int64(current[j]))
        elif a == 1:
            for j in range(n_neurons):
                current[j] += np.int32(row[j])
        else:
            for j in range(n_neurons):
                current[j] += np.int32(a) * np.int32(row[j])
    return n_added, n_zero, n_saturated
