"""Semi-folded convolution: a map's rows come one a phase, and one set of cores serves them all.

Unfolded, every place of a map has neurons and weights of its own, and a frame takes one phase. Semi-folded, a layer has
the neurons of one row; a frame takes a phase for each row of the input, and the frames follow one another. That is how
SemiMap (Deng et al., IEEE TCAD 2018) brings large convolutional networks onto the chip of 2019; the road from its idea
to a network of ours is our own:

Equations
---------
Row oy of a layer needs rows ``oy * stride + ky - padding`` of its source. With R phases from a row of the source to the
next one, kernel row ky gets the source ``(kernel height - 1 - ky) * R`` phases late, so that all it needs is there when
its last row is. So a layer becomes one of a row, with a link and a delay for each row of the kernel; a dense layer on a
map is a kernel as high as the map. Relays, splits and places are :mod:`chip.compiler`'s, as for any other network.

    first(q) = first(p) + (kernel height - 1 - padding) R(p) + 1     its row 0 is out; from the input without the 1
    R(q)     = R(p) stride                                           phases from row to row; of the input: 1

In between come rows that mean nothing (of strides, and of windows over two frames): whoever reads looks at the right
phases, and a layer's taps see only those by construction.

What can be folded
------------------
Layers without memory (artificial units, ``ThresholdUnits``), for a potential belongs to one place of a map. Padding
along y in the first layer only, and less than its windows are high: rows of zeros between two frames; further on, what
is outside of a map is not zero.

A readout that nobody reads may remember: the cores send its sums, and the host leaks them once a frame
(:mod:`chip.frames`), with the integers of the soma.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.network import INPUT_LAYER, Layer, Link, QuantisedNetwork, incoming
from chip.profile import Profile
from chip.soma import FIRE_MEMBRANE_AFTER_LEAK, FIRE_MEMBRANE_BEFORE_RESET, FIRE_TABLE, RESET_NONE, Soma
from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.graph import Topology, n_units
from neurons.pooling import Pooling
from stream.errors import CapacityError, ConfigError

__all__ = ["Folded", "Rows", "check_rows", "fold", "in_rows", "rows_per_phase"]


class Rows(NamedTuple):
    """When rows of a layer are out, in phases, from the first row of a frame on; splits make all later by offsets."""

    n: int  # rows of the map; 1 for a line
    first: int
    every: int


class Folded(NamedTuple):
    """A semi-folded network."""

    network: QuantisedNetwork  # of rows; its phase is a row's
    period: int  # phases from a frame to the next one
    rows: list[Rows]  # of each layer
    whole: QuantisedNetwork  # as given; its phase is a frame

    @property
    def depth(self) -> int:
        """Layers from the input to the last one: unfolded, a frame shows so many phases later, less one."""
        deep = {INPUT_LAYER: 0}
        for link in self.whole.links:  # one to each layer, and from an earlier one
            deep[link.target] = deep[link.source] + 1
        return max(deep.values())


def fold(network: QuantisedNetwork) -> Folded:
    """Fold a feed-forward network of maps along y.

    Raises
    ------
    ConfigError
        Naming the layer that cannot be folded, and why.
    """
    if len(network.inputs) != 3:
        raise ConfigError(f"inputs {network.inputs}: wanted a map (height, width, channels) to fold along its rows")
    layers: list[Layer] = []
    links: list[Link] = []
    rows: list[Rows] = []
    period = network.inputs[0]
    for number, layer in enumerate(network.layers):
        is_readout = _is_readout(network, number)
        if layer.soma.fire_type != FIRE_TABLE and layer.soma.window_length != 0 and not is_readout:
            raise ConfigError(
                f"{layer.name}: keeps potentials, and semi-folded its neurons would serve one row after the other; "
                f"fold networks of artificial units or of ThresholdUnits, with a leaky readout if need be"
            )
        into = [network.links[k] for k in incoming(network, number)]
        if len(into) != 1 or into[0].delay or into[0].source >= number:
            raise ConfigError(f"{layer.name}: wanted one projection without delay from an earlier layer, to fold it")
        link = into[0]
        is_input = link.source == INPUT_LAYER
        shape = network.inputs if is_input else network.layers[link.source].shape
        before = Rows(shape[0], 0, 1) if is_input else rows[link.source]
        topology = link.topology
        step, pad = 1, 0
        taps: list[Topology] = []
        if isinstance(topology, Convolution | Pooling):
            step, pad = topology.stride[0], topology.padding[0]
            stride, padding = (1, topology.stride[1]), (0, topology.padding[1])
            if isinstance(topology, Pooling):
                taps += [Pooling((1, topology.size[1]), stride, padding, topology.weight)] * topology.size[0]
            else:
                weight = np.asarray(topology.weight)
                taps += [
                    Convolution(np.ascontiguousarray(weight[ky : ky + 1]), stride, padding, topology.groups)
                    for ky in range(len(weight))
                ]
            own = (1, *layer.shape[1:])
            n_rows = layer.shape[0]
        elif isinstance(topology, Dense):
            n_rows, own = 1, (n_units(layer.shape),)
            height = before.n if len(shape) == 3 else 1
            taps += [Dense(block) for block in np.split(np.asarray(topology.weight), height)]
        else:
            raise ConfigError(f"{layer.name}: a {type(topology).__name__} projection, wanted one that can be folded")
        if pad and not is_input:
            raise ConfigError(
                f"{layer.name}: padding of {pad} along y; semi-folded, only the first layer can have one, for further "
                f"on what is outside of a map is not zero"
            )
        if layer.bias.any() and np.any(layer.bias.reshape(n_rows, -1) != layer.bias.reshape(n_rows, -1)[0]):
            raise ConfigError(f"{layer.name}: its bias differs from row to row; semi-folded, all rows share one")
        if pad >= len(taps):
            raise ConfigError(
                f"{layer.name}: padding of {pad} along y and windows {len(taps)} high: semi-folded, its first row "
                f"would be out before the first frame; wanted less padding than the windows are high"
            )
        period = max(period, network.inputs[0] + (pad if is_input else 0))
        soma = _sum_of(layer.soma) if is_readout else layer.soma
        layers.append(layer._replace(shape=own, bias=layer.bias.reshape(n_rows, -1)[0].copy(), soma=soma))
        for ky, tap in enumerate(taps):
            links.append(Link(link.source, number, tap, (len(taps) - 1 - ky) * before.every))
        first = before.first + (len(taps) - 1 - pad) * before.every + (not is_input)
        rows.append(Rows(n_rows, first, before.every * step))
    if network.input_values:
        raise ConfigError("input: brings values; semi-folded, it may bring spikes alone")
    in_rows_of = QuantisedNetwork((1, *network.inputs[1:]), layers, links, network.phase_us // period)
    return Folded(in_rows_of, period, rows, network)


def _is_readout(network: QuantisedNetwork, number: int) -> bool:
    """Tell whether a layer leaks, sends its potentials, and to nobody on the chip."""
    soma = network.layers[number].soma
    leaks = soma.fire_type == FIRE_MEMBRANE_AFTER_LEAK and soma.reset_mode == RESET_NONE
    return leaks and all(link.source != number for link in network.links)


def _sum_of(soma: Soma) -> Soma:
    """Return the soma that sends what a readout would have taken in, and remembers nothing."""
    return Soma(
        v_threshold=soma.v_threshold,
        floor=soma.floor,
        reset_mode=RESET_NONE,
        window_length=0,
        fire_type=FIRE_MEMBRANE_BEFORE_RESET,
    )


def check_rows(folded: Folded, profile: Profile) -> None:
    """Raise CapacityError unless a row's phase is as long as the chip needs."""
    shortest = folded.period * profile.shortest_phase_us
    if folded.whole.phase_us < shortest:
        raise CapacityError(
            f"a frame of {folded.whole.phase_us} us: semi-folded it takes {folded.period} phases, {profile.name} needs "
            f"{profile.shortest_phase_us} us or more for each; wanted {shortest} us or more"
        )


def rows_per_phase(folded: Folded, of_units: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Bring what units send in a frame (by name of the layer, or ``input``) to what those of a row send in a phase."""
    n_rows = {"input": folded.whole.inputs[0]}
    n_rows |= {layer.name: rows.n for layer, rows in zip(folded.network.layers, folded.rows, strict=True)}
    return {name: it.reshape(n_rows[name], -1).sum(axis=0) / folded.period for name, it in of_units.items()}


def in_rows(folded: Folded, frames: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Lay frames out in phases, a row each, with the rows of zeros between them.

    Parameters
    ----------
    folded
        The network.
    frames
        shape (n_frames, height, width, channels).

    Returns
    -------
    bool, shape (n_frames * period, width * channels)
    """
    n, height = frames.shape[:2]
    out = np.zeros((n, folded.period, n_units(folded.network.inputs)), bool)
    out[:, :height] = frames.reshape(n, height, -1)
    return out.reshape(n * folded.period, -1)
