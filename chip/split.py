"""Cut layers into what one core can hold.

Neurons
-------
A layer that windows lead to (convolution, pooling) is cut in boxes of a map, any other in runs of units. Of all sizes
that fit, the one is taken that needs the fewest cores, and of these the fewest axons: a box of a map wants neighbours,
because their windows overlap. Cores of a layer whose sums are made elsewhere count half as much again, for these sums
are the heaviest traffic.

Axons
-----
A group of neurons needs an axon for every unit that reaches it. If these are more than a core has, they are dealt to
several cores that only sum up (their soma has a window of length 0, so it remembers nothing), and a vector-add core
adds the sums and holds the neurons. That costs the layer one phase more, and changes no bit: nothing saturates on the
way. All groups of a layer take the same number of phases.

Which axon a unit gets is its own choice as far as it can be: a unit (y, x, c) of a map goes to the axon

    ((y mod height) * width + x mod width) * channels + c

of every box that it reaches, height and width being those of what a box can see: no two units that a box sees share an
axon, and the same number at every target is what a multicast needs. For the same reason, sums are dealt by axon number.

The road not taken for wide layers is to quantise each group by itself: the sums would no longer be those of the whole
layer.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.core import AXON_SPIKES, AXON_VALUES
from chip.network import (
    INPUT_LAYER,
    Link,
    QuantisedNetwork,
    incoming,
    is_spiking,
    sender_shape,
    sites_of,
    sources_of,
)
from chip.profile import Profile
from neurons.convolution import Convolution
from neurons.graph import Shape, n_units
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.sparse import Sparse
from stream.errors import CapacityError

__all__ = ["LayerPlan", "Part", "parts_of", "plan_layer"]

SPLIT_PRICE = 1.5  # sums are the heaviest traffic, and late by a phase: rather half as many cores more than that


class Part(NamedTuple):
    """What one core holds of a layer."""

    layer: int
    post: NDArray[np.int64]  # units of the layer, in the order of the core's neurons
    axon_link: NDArray[np.int64]  # shape (n_axons,): the link that leads there; of a vector-add core: none
    axon_unit: NDArray[np.int64]  # shape (n_axons,): the unit of that link's source, or -1, nobody
    axon_mode: int
    holds_neurons: bool  # else it only sums
    holds_weights: bool  # else it only adds up sums


class LayerPlan(NamedTuple):
    """How a layer is to be cut."""

    groups: list[NDArray[np.int64]]  # its units, cut
    fields: dict[int, tuple[int, int, int]]  # of links of windows: height, width, channels that a group can see
    most_axons: int  # of a core
    is_split: bool  # whether sums are made elsewhere

    @property
    def latency(self) -> int:
        """Count the phases from what arrives to what leaves, beyond one."""
        return int(self.is_split)


class _Box(NamedTuple):
    height: int
    width: int
    channels: int


def _mode(network: QuantisedNetwork, link: Link) -> int:
    """Tell what a link carries."""
    if link.source == INPUT_LAYER:
        return AXON_VALUES if network.input_values else AXON_SPIKES
    if is_spiking(network.layers[link.source]):
        return AXON_SPIKES
    return AXON_VALUES


def _most_axons(n_neurons: int, mode: int, profile: Profile) -> int:
    """Count the axons that a core can have beside so many neurons; see ``chip.program.core_memory``."""
    most = profile.axons_per_core.value
    if profile.core_memory_bytes.value:
        padded = -(-n_neurons // 32) * 32
        per_axon = padded + (8 if mode == AXON_VALUES else 2)
        most = min(most, (profile.core_memory_bytes.value - 8 * n_neurons) // per_axon)
    return most


def _sides(n: int) -> list[int]:
    """List the sizes that cut ``n`` in equal parts, as far as can be; largest first."""
    return sorted({-(-n // k) for k in range(1, n + 1)}, reverse=True)


def _field(link: Link, source: Shape, target: Shape, box: _Box) -> tuple[int, int, int]:
    """Tell how much of its source a box can see at most: height, width, channels."""
    topology = link.topology
    if isinstance(topology, Pooling):
        size, channels = topology.size, min(box.channels, source[2])
    elif isinstance(topology, Convolution):
        size = tuple(np.shape(topology.weight)[:2])
        per_group, out_per_group = source[2] // topology.groups, target[2] // topology.groups
        firsts = range(0, target[2], box.channels)
        spans = [
            min(first + box.channels - 1, target[2] - 1) // out_per_group - first // out_per_group for first in firsts
        ]
        channels = (max(spans) + 1) * per_group
    else:
        raise TypeError(type(topology).__name__)
    stride = topology.stride
    return (
        min(source[0], (box.height - 1) * stride[0] + size[0]),
        min(source[1], (box.width - 1) * stride[1] + size[1]),
        channels,
    )


def _boxes(shape: Shape, box: _Box) -> list[NDArray[np.int64]]:
    """Cut a map in boxes."""
    number = np.arange(n_units(shape)).reshape(shape)
    return [
        number[y : y + box.height, x : x + box.width, c : c + box.channels].reshape(-1)
        for y in range(0, shape[0], box.height)
        for x in range(0, shape[1], box.width)
        for c in range(0, shape[2], box.channels)
    ]


def _n_cores(n_groups: int, n_neurons: int, spikes: int, values: int, profile: Profile) -> tuple[int, bool] | None:
    """Count the cores for groups that need so many axons of either mode; None if a core cannot hold one."""
    if n_neurons > profile.neurons_per_core.value:
        return None
    mode = AXON_VALUES if values else AXON_SPIKES
    if not (spikes and values) and spikes + values <= _most_axons(n_neurons, mode, profile):
        return n_groups, False
    n_sums = 0
    for mode, n in ((AXON_SPIKES, spikes), (AXON_VALUES, values)):
        most = _most_axons(n_neurons, mode, profile)
        if n and most < 1:
            return None
        n_sums += -(-n // most) if n else 0
    if n_neurons > profile.axons_per_core.value:  # a vector-add core has as many axons as neurons
        return None
    return n_groups * (n_sums + 1), True


def plan_layer(network: QuantisedNetwork, number: int, profile: Profile) -> LayerPlan:
    """Decide how a layer is cut.

    Raises
    ------
    CapacityError
        If not even one of its neurons fits a core, naming the layer.
    """
    layer = network.layers[number]
    links = incoming(network, number)
    windowed = [k for k in links if isinstance(network.links[k].topology, Convolution | Pooling)]
    n = n_units(layer.shape)
    best: tuple[float, int, _Box, bool] | None = None
    if windowed:
        height, width, channels = layer.shape
        candidates = [_Box(h, w, c) for h in _sides(height) for w in _sides(width) for c in _sides(channels)]
    else:
        fewest = -(-n // profile.neurons_per_core.value)
        sizes = sorted({-(-n // m) for m in [*range(fewest, min(fewest + 8, n) + 1), n]}, reverse=True)
        candidates = [_Box(1, 1, size) for size in sizes]
    for box in candidates:
        n_neurons = box.height * box.width * box.channels
        if n_neurons > profile.neurons_per_core.value:
            continue
        if windowed:
            n_groups = -(-height // box.height) * -(-width // box.width) * -(-channels // box.channels)
        else:
            n_groups = -(-n // box.channels)
        needs = {AXON_SPIKES: 0, AXON_VALUES: 0}
        for k in links:
            link = network.links[k]
            source = sender_shape(network, link.source)
            if k in windowed:
                field = _field(link, source, layer.shape, box)
                wanted = field[0] * field[1] * field[2]
            elif isinstance(link.topology, OneToOne):
                wanted = n_neurons
            elif isinstance(link.topology, Sparse):
                groups = _boxes(layer.shape, box) if windowed else _runs(n, box.channels)
                wanted = max(len(sources_of(link.topology, source, layer.shape, group)) for group in groups)
            else:
                wanted = n_units(source)
            needs[_mode(network, link)] += wanted
        found = _n_cores(n_groups, n_neurons, needs[AXON_SPIKES], needs[AXON_VALUES], profile)
        if found is None:
            continue
        rank = (found[0] * (SPLIT_PRICE if found[1] else 1.0), n_groups * sum(needs.values()))
        if best is None or rank < best[:2]:
            best = (*rank, box, found[1])
    if best is None:
        raise CapacityError(
            f"{layer.name}: not even one of its {n} neurons fits a core of {profile.name} "
            f"({profile.axons_per_core.value} axons, {profile.core_memory_bytes.value or 'unknown'} bytes)"
        )
    _, _, box, is_split = best
    fields = {
        k: _field(network.links[k], sender_shape(network, network.links[k].source), layer.shape, box) for k in windowed
    }
    groups = _boxes(layer.shape, box) if windowed else _runs(n, box.channels)
    n_neurons = box.height * box.width * box.channels
    modes = {_mode(network, network.links[k]) for k in links}
    most = min((_most_axons(n_neurons, mode, profile) for mode in modes), default=1)
    return LayerPlan(groups, fields, most, is_split)


def _runs(n: int, size: int) -> list[NDArray[np.int64]]:
    """Cut ``n`` units in runs."""
    return [np.arange(first, min(first + size, n)) for first in range(0, n, size)]


def _axons(network: QuantisedNetwork, k: int, plan: LayerPlan, post: NDArray[np.int64]) -> NDArray[np.int64]:
    """List the units of a link's source in the order of the axons that a group gives them; -1 is nobody."""
    link = network.links[k]
    source = sender_shape(network, link.source)
    sources = sources_of(link.topology, source, network.layers[link.target].shape, post)
    if k not in plan.fields:
        return sources
    height, width, channels = plan.fields[k]
    y, x, c = sites_of(source, sources)
    first = int(c.min()) if len(c) else 0
    unit = np.full(height * width * channels, -1, np.int64)
    unit[((y % height) * width + x % width) * channels + c - first] = sources
    return unit


def parts_of(network: QuantisedNetwork, number: int, plan: LayerPlan) -> Iterator[Part]:
    """Cut a layer as planned; the cores that sum come before the one that adds their sums."""
    links = incoming(network, number)
    for post in plan.groups:
        by_mode: dict[int, tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]] = {}
        for k in links:
            unit = _axons(network, k, plan, post)
            which, units = by_mode.setdefault(_mode(network, network.links[k]), ([], []))
            which.append(np.full(len(unit), k, np.int64))
            units.append(unit)
        joined = [(mode, np.concatenate(which), np.concatenate(units)) for mode, (which, units) in by_mode.items()]
        if not plan.is_split:
            mode, which_one, units_one = joined[0] if joined else (AXON_SPIKES, *_nothing())
            yield Part(number, post, which_one, units_one, mode, True, True)
            continue
        for mode, which_one, units_one in joined:
            for first in range(0, len(units_one), plan.most_axons):
                some = slice(first, first + plan.most_axons)
                if np.any(units_one[some] >= 0):  # at the edge of a map a core may have nothing to do
                    yield Part(number, post, which_one[some], units_one[some], mode, False, True)
        yield Part(number, post, *_nothing(), AXON_VALUES, True, False)


def _nothing() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.zeros(0, np.int64), np.zeros(0, np.int64)
