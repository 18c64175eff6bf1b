"""A network in integers: what the chip computes, before it is cut into cores.

The same shapes, topologies and words as ``neurons.graph``; but weights are int8, a layer has the soma of a core, and
time is counted in phases.

Equations
---------
In phase k, layer q collects, over its links from layers p (or the input)::

    U_q(k) = bias_q + sum over links  weight^T  x_p(k - 1 - delay)        x_p: spikes, 0 or 1, or values
    U_q(k) = bias_q + sum over links  weight^T  s(k - delay)              from the input: what came in that phase

and its soma (:mod:`chip.soma`) makes spikes or values of it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.core import VALUE_SIGNED
from chip.soma import FIRE_SPIKE, Soma
from neurons.convolution import Convolution, window_shape
from neurons.dense import Dense
from neurons.graph import Shape, Topology, n_units
from neurons.inhibition import Inhibition
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.quantised_dense import QuantisedDense
from neurons.quantised_dense import dense as as_real
from neurons.sparse import Sparse

__all__ = [
    "INPUT_LAYER",
    "Layer",
    "Link",
    "QuantisedNetwork",
    "incoming",
    "is_spiking",
    "sender_shape",
    "sites_of",
    "sources_of",
    "weight_of",
    "weights_between",
    "with_weight",
]

INPUT_LAYER = -1
"""The source of links that carry what comes from outside."""


class Layer(NamedTuple):
    """A population."""

    name: str
    shape: Shape  # (n,) or (height, width, channels)
    soma: Soma  # of all its units
    bias: NDArray[np.int32]  # shape (n,)
    scale: float = 1.0  # integers per unit of the float network's potential
    sent_scale: float = 1.0  # integers per unit of what it sends; spikes carry no scale
    value_bits: int = 0  # of what it sends, as in ``chip.core.Core``
    value_kind: int = VALUE_SIGNED
    table: NDArray[np.int32] = np.zeros(0, np.int32)  # of FIRE_TABLE


class Link(NamedTuple):
    """Synapses from one layer, or from the input, to another."""

    source: int  # number of a layer, or INPUT_LAYER
    target: int
    topology: Topology  # weights are int8 (a number where the topology has one weight)
    delay: int = 0  # phases, beyond the one that every layer takes


class QuantisedNetwork(NamedTuple):
    """Layers and links."""

    inputs: Shape
    layers: list[Layer]
    links: list[Link]
    phase_us: int = 1000
    input_values: bool = False  # the input brings values, else spikes


def is_spiking(layer: Layer) -> bool:
    """Tell whether it sends spikes, else values."""
    return layer.soma.fire_type == FIRE_SPIKE


def sender_shape(network: QuantisedNetwork, number: int) -> Shape:
    """Return the shape of a layer or of the input."""
    return network.inputs if number == INPUT_LAYER else network.layers[number].shape


def incoming(network: QuantisedNetwork, number: int) -> list[int]:
    """List the numbers of the links that lead to a layer."""
    return [k for k, link in enumerate(network.links) if link.target == number]


def sites_of(shape: Shape, unit: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return y, x and channel of units of a map."""
    _, width, channels = shape
    site = unit // channels
    return site // width, site % width, unit % channels


def weight_of(topology: Topology) -> Any:
    """Return the weights of a topology: an array, or a number."""
    return -topology.strength if isinstance(topology, Inhibition) else topology.weight


def with_weight(topology: Topology, weight: Any) -> Topology:
    """Return the same topology with other weights."""
    if isinstance(topology, Inhibition):
        return topology._replace(strength=-weight)
    return topology._replace(weight=weight)


def _window(topology: Convolution | Pooling) -> tuple[int, int]:
    if isinstance(topology, Pooling):
        return topology.size
    height, width = np.shape(topology.weight)[:2]
    return int(height), int(width)


def weights_between(
    topology: Topology, source: Shape, target: Shape, pre: NDArray[np.int64], post: NDArray[np.int64]
) -> NDArray[Any]:
    """Write out the weights between some units.

    Parameters
    ----------
    topology
        Of a network in integers, or of a float one.
    source, target
        Shapes on both sides.
    pre, post
        Units; -1 in ``pre`` is nobody: a row of zeros.

    Returns
    -------
    array, shape (len(pre), len(post)), of the type of the weights (int8 or float32 where they are one number)
    """
    there = (pre >= 0)[:, None]
    if isinstance(topology, QuantisedDense):
        topology = as_real(topology)
    if isinstance(topology, Dense):
        weight = np.asarray(topology.weight)
        if there.all():
            rows = _run(pre)
            dense: NDArray[Any] = weight[rows][:, _run(post)]
            return dense
        return np.where(there, weight[pre][:, post], weight.dtype.type(0))
    if isinstance(topology, Convolution | Pooling):
        (y, x, c), (oy, ox, o) = sites_of(source, pre), sites_of(target, post)
        ky = y[:, None] - oy * topology.stride[0] + topology.padding[0]
        kx = x[:, None] - ox * topology.stride[1] + topology.padding[1]
        height, width = _window(topology)
        there = there & (ky >= 0) & (ky < height) & (kx >= 0) & (kx < width)
        if isinstance(topology, Pooling):
            there &= c[:, None] == o
            return np.where(there, _number(topology.weight), 0).astype(_kind(topology.weight))
        weight = np.asarray(topology.weight)
        per_group, out_per_group = weight.shape[2], weight.shape[3] // topology.groups
        there &= c[:, None] // per_group == o // out_per_group
        taps = weight[np.where(there, ky, 0), np.where(there, kx, 0), (c % per_group)[:, None], o]
        unfolded: NDArray[Any] = np.where(there, taps, weight.dtype.type(0))
        return unfolded
    if isinstance(topology, Sparse):
        weight = np.asarray(topology.weight)
        block = np.zeros((len(pre), len(post)), weight.dtype)
        start, unit = np.asarray(topology.row_start), np.asarray(topology.unit)
        column = np.full(n_units(target), -1, np.int64)
        column[post] = np.arange(len(post))
        for row, i in enumerate(pre.tolist()):
            if i >= 0:
                at = column[unit[start[i] : start[i + 1]]]
                block[row, at[at >= 0]] = weight[start[i] : start[i + 1]][at >= 0]
        return block
    same = there & (pre[:, None] == post)
    if isinstance(topology, OneToOne):
        weight = np.asarray(topology.weight)
        if weight.ndim == 0:
            return np.where(same, weight, 0).astype(_kind(weight))
        return np.where(same, weight[post], weight.dtype.type(0))
    return np.where(there & ~same, -_number(topology.strength), 0).astype(_kind(topology.strength))


def _number(value: Any) -> Any:
    return np.asarray(value)[()]


def _kind(value: Any) -> Any:
    """Tell the type of a matrix made of one number."""
    return np.int8 if np.asarray(value).dtype.kind in "iu" else np.float32


def _run(unit: NDArray[np.int64]) -> Any:
    """Return a slice where units follow one another: indexing by it copies nothing."""
    if len(unit) and int(unit[-1]) - int(unit[0]) == len(unit) - 1 and np.all(np.diff(unit) == 1):
        return slice(int(unit[0]), int(unit[-1]) + 1)
    return unit


def sources_of(topology: Topology, source: Shape, target: Shape, post: NDArray[np.int64]) -> NDArray[np.int64]:
    """List the units that reach some units of the target, ascending; by topology, whatever their weights."""
    if isinstance(topology, Dense | QuantisedDense | Inhibition):
        return np.arange(n_units(source))
    if isinstance(topology, OneToOne):
        return np.unique(post)
    if isinstance(topology, Sparse):
        wanted = np.zeros(n_units(target), bool)
        wanted[post] = True
        pre = np.repeat(np.arange(n_units(source)), np.diff(topology.row_start))
        return np.unique(pre[wanted[np.asarray(topology.unit)]])
    found = np.zeros(source, bool)
    oy, ox, o = sites_of(target, post)
    height, width = _window(topology)
    if isinstance(topology, Pooling):
        low, high = o, o + 1
    else:
        per_group, out_per_group = np.shape(topology.weight)[2], np.shape(topology.weight)[3] // topology.groups
        low = o // out_per_group * per_group
        high = low + per_group
    boxes = np.unique(np.stack([oy, ox, low, high], axis=1), axis=0)
    for y, x, first, last in boxes.tolist():
        top, left = y * topology.stride[0] - topology.padding[0], x * topology.stride[1] - topology.padding[1]
        found[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0), first:last] = True
    return np.flatnonzero(found.reshape(-1))


def check_links(network: QuantisedNetwork) -> None:
    """Raise ConfigError unless every topology fits between its shapes."""
    for link in network.links:
        name = "input" if link.source == INPUT_LAYER else network.layers[link.source].name
        subject = f"link {name} -> {network.layers[link.target].name}"
        link.topology.check(subject, sender_shape(network, link.source), network.layers[link.target].shape)


def n_windows(topology: Convolution | Pooling, source: Sequence[int]) -> tuple[int, int]:
    """Count the windows over a map, along y and x."""
    return window_shape(tuple(source), _window(topology), topology.stride, topology.padding)
