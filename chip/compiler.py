"""From a trained network to cores: quantise, split, place, route.

Equations
---------
Per layer, with a scale S of its own, in integers::

    weight_int = clip(floor(weight * S + 1/2), -127, 127)       S = 127 / clip point
    theta_int  = round(v_threshold * S)
    alpha      = round(256 * exp(-phase_us / tau_mem_us))        proportional leak; 256 = no leak at all

The clip point is the one of a few fractions of max |weight| with the smallest squared error sum (weight_int / S -
weight)^2; ties go to the larger. Spikes carry no scale, so layers need not agree on one.

Splitting
---------
A layer with more inputs than a core has axons is cut in groups of inputs. Each group gets a core that sums its rows
and sends the sums as values (its soma has a window of length 0, so it remembers nothing); a vector-add core then adds
them up and holds the neurons. That costs one phase more, and changes no bit: nothing saturates on the way. More
neurons than a core has are cut in groups too, and each group gets a copy of every spike. Cores are placed in the order
in which they are made, nearest to the port first; a placement that looks at the traffic may come later, and cannot
change a result.

The road not taken for wide layers is to quantise each group by itself: the sums would no longer be those of the whole
layer.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.core import (
    AXON_SPIKES,
    AXON_VALUES,
    OFF_CHIP,
    ROUTE_DTYPE,
    SYNAPSE_MATRIX,
    SYNAPSE_VECTOR_ADD,
    TO_CORE,
    Core,
)
from chip.profile import Profile
from chip.program import INPUT_DTYPE, GridProgram, assemble, weigh_core, write_soma
from chip.soma import (
    FIRE_MEMBRANE_AFTER_LEAK,
    FIRE_MEMBRANE_BEFORE_RESET,
    FIRE_SPIKE,
    LEAK_CONSTANT,
    LEAK_PROPORTIONAL,
    RESET_NONE,
    RESET_SUBTRACT_THRESHOLD,
    Soma,
)
from stream.errors import CapacityError, ConfigError
from stream.jit import kernel

__all__ = [
    "FloatLayer",
    "Part",
    "Program",
    "QuantisedLayer",
    "compile_network",
    "float_layers",
    "quantise",
    "report",
    "reweigh",
]

CLIP_FRACTIONS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
SOMA_BYTES = 16  # a parameter block of four words


class FloatLayer(NamedTuple):
    """A trained dense layer."""

    weight: NDArray[np.float32]  # shape (n_pre, n_post)
    tau_mem_us: float
    v_threshold: float | None  # None: the readout, which does not spike


class QuantisedLayer(NamedTuple):
    """The same in integers: what the chip computes, before it is cut into cores."""

    weight: NDArray[np.int8]  # shape (n_pre, n_post)
    scale: float  # integers per unit of weight
    alpha: int  # of the leak, over 256; 256 = none
    v_threshold: int | None


class Part(NamedTuple):
    """What one core holds of a layer."""

    layer: int
    first_pre: int
    last_pre: int  # one past
    first_post: int
    last_post: int
    holds_neurons: bool  # else it only sums
    holds_weights: bool  # else it only adds up sums


class Program(NamedTuple):
    """A compiled network."""

    profile: Profile
    layers: list[QuantisedLayer]
    parts: list[Part]  # one for each core
    cores: list[Core]  # as first compiled; weights in force are those of ``grid``
    positions: list[tuple[int, int]]  # (x, y) of each core
    grid: GridProgram
    n_inputs: int
    n_outputs: int


def float_layers(arrays: Mapping[str, NDArray[Any]]) -> list[FloatLayer]:
    """Read the layers of a ``Deploy`` mark. Raises ConfigError unless they are a chain that ends in a readout."""
    layers: list[FloatLayer] = []
    while f"layer{len(layers)}.weight" in arrays:
        name = f"layer{len(layers)}"
        weight = np.asarray(arrays[f"{name}.weight"], np.float32)
        if weight.ndim != 2 or weight.size == 0 or not np.isfinite(weight).all():
            raise ConfigError(f"{name}.weight: shape {weight.shape}, wanted finite numbers of shape (n_pre, n_post)")
        if layers and layers[-1].weight.shape[1] != weight.shape[0]:
            raise ConfigError(
                f"{name}.weight: {weight.shape[0]} rows, wanted {layers[-1].weight.shape[1]}, one per unit before"
            )
        tau = float(arrays.get(f"{name}.tau_mem_us", np.float64(math.nan)))
        if not tau > 0:
            raise ConfigError(f"{name}.tau_mem_us: {tau}, wanted a time above 0 us")
        threshold = float(arrays[f"{name}.v_threshold"]) if f"{name}.v_threshold" in arrays else None
        if threshold is not None and not 0 < threshold < math.inf:
            raise ConfigError(f"{name}.v_threshold: {threshold}, wanted above 0: at rest a unit must be silent")
        layers.append(FloatLayer(weight, tau, threshold))
    if not layers or layers[-1].v_threshold is not None or any(layer.v_threshold is None for layer in layers[:-1]):
        raise ConfigError(
            f"got arrays {sorted(arrays)}, wanted layer0.weight, layer0.tau_mem_us, layer0.v_threshold and so on; "
            f"the last layer, and only it, has no v_threshold"
        )
    return layers


@kernel
def _squared_error(weight: Any, scale: Any, limit: Any, error: Any) -> Any:
    """Sum (quantised - weight)^2 in units of the integers; ``error`` is scratch, float32, shape (n_post,)."""
    half = np.float32(0.5)
    total: Any = 0.0
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            x = weight[i, j] * scale
            d = min(max(np.floor(x + half), -limit), limit) - x
            error[j] = d * d  # kept per column: one running sum would have to be added up in order, one by one
        row = np.float32(0)
        for j in range(weight.shape[1]):
            row += error[j]
        total += row
    return total


@kernel
def _to_integers(weight: Any, scale: Any, limit: Any, out: Any) -> None:
    """Write clip(floor(weight * scale + 1/2)) as int8."""
    half = np.float32(0.5)
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            out[i, j] = np.int8(min(max(np.floor(weight[i, j] * scale + half), -limit), limit))


def quantise(layer: FloatLayer, phase_us: int, profile: Profile, name: str) -> QuantisedLayer:
    """Bring a layer to the chip's integers.

    Parameters
    ----------
    layer
        As trained.
    phase_us
        Length of a phase, us: one leak.
    profile
        The chip.
    name
        Of the layer, for messages.

    Raises
    ------
    CapacityError
        If its threshold does not fit a membrane.
    """
    weight = np.ascontiguousarray(layer.weight, np.float32)
    weight = weight if weight.flags.writeable else weight.copy()  # one kind of array in, one compiled kernel
    limit = np.float32(127)
    largest = float(np.abs(weight).max())
    scale: Any = np.float32(1)
    if largest > 0:
        error = np.empty(weight.shape[1], np.float32)
        least = math.inf
        for fraction in CLIP_FRACTIONS:
            candidate = np.float32(127 / (largest * fraction))
            squared = _squared_error(weight, candidate, limit, error) / float(candidate) ** 2
            if squared < least:
                least, scale = squared, candidate
    integers = np.empty(weight.shape, np.int8)
    _to_integers(weight, scale, limit, integers)
    threshold = None if layer.v_threshold is None else round(layer.v_threshold * float(scale))
    top = (1 << (profile.membrane_bits.value - 1)) - 1
    if threshold is not None and threshold > top:
        raise CapacityError(
            f"{name}: threshold {layer.v_threshold} is {threshold} at {float(scale):.6g} integers per unit of weight, "
            f"and {profile.name} holds up to {top}; the weights are far too small for it"
        )
    alpha = round(256 * math.exp(-phase_us / layer.tau_mem_us))
    return QuantisedLayer(integers, float(scale), alpha, threshold)


def _groups(n: int, size: int) -> list[tuple[int, int]]:
    """Cut ``n`` in runs of at most ``size``."""
    return [(first, min(first + size, n)) for first in range(0, n, size)]


def _split(layers: Sequence[QuantisedLayer], profile: Profile) -> Iterator[Part]:
    """Cut layers into what one core can hold."""
    for number, layer in enumerate(layers):
        n_pre, n_post = layer.weight.shape
        pre_groups = _groups(n_pre, profile.axons_per_core.value)
        # a vector-add core has as many axons as neurons
        for first_post, last_post in _groups(n_post, min(profile.neurons_per_core.value, profile.axons_per_core.value)):
            alone = len(pre_groups) == 1
            for first_pre, last_pre in pre_groups:
                yield Part(number, first_pre, last_pre, first_post, last_post, alone, True)
            if not alone:
                yield Part(number, 0, n_pre, first_post, last_post, True, False)


def _soma(part: Part, layer: QuantisedLayer, profile: Profile) -> Soma:
    """Say what the soma of a part does."""
    half = 1 << (profile.membrane_bits.value - 1)
    # a potential never exceeds half - 1, and firing is strict: this threshold is never passed
    never = half - 1
    if not part.holds_neurons:
        return Soma(
            v_threshold=never,
            floor=-half,
            reset_mode=RESET_NONE,
            window_length=0,
            fire_type=FIRE_MEMBRANE_BEFORE_RESET,
        )
    leak_mode = LEAK_CONSTANT if layer.alpha == 256 else LEAK_PROPORTIONAL
    readout = layer.v_threshold is None
    return Soma(
        v_threshold=never if layer.v_threshold is None else layer.v_threshold,
        floor=-half,
        reset_mode=RESET_NONE if readout else RESET_SUBTRACT_THRESHOLD,
        leak_mode=leak_mode,
        alpha=layer.alpha % 256,
        fire_type=FIRE_MEMBRANE_AFTER_LEAK if readout else FIRE_SPIKE,
    )


def _routes_of(
    number: int, parts: Sequence[Part], positions: Sequence[tuple[int, int]], last_layer: int
) -> NDArray[np.void]:
    """Write the routing table of a core."""
    part = parts[number]

    def lines(first: int, last: int, first_axon: int, port: int, dx: int = 0, dy: int = 0) -> NDArray[np.void]:
        """Join neurons for units ``first`` to ``last`` to axons ``first_axon`` and on."""
        routes = np.zeros(max(last - first, 0), ROUTE_DTYPE)
        routes["neuron"] = np.arange(first, first + len(routes)) - part.first_post
        routes["axon"] = np.arange(first_axon, first_axon + len(routes))
        routes["dx"], routes["dy"], routes["port"] = dx, dy, port
        return routes

    if part.holds_neurons and part.layer == last_layer:
        return lines(part.first_post, part.last_post, part.first_post, OFF_CHIP)
    tables = [np.zeros(0, ROUTE_DTYPE)]
    for target, other in enumerate(parts):
        dx, dy = positions[target][0] - positions[number][0], positions[target][1] - positions[number][1]
        if part.holds_neurons:
            if other.layer != part.layer + 1 or not other.holds_weights:
                continue
            begin, end = other.first_pre, other.last_pre
        else:
            if other.layer != part.layer or other.holds_weights:
                continue
            begin, end = other.first_post, other.last_post
        first, last = max(begin, part.first_post), min(end, part.last_post)
        tables.append(lines(first, last, first - begin, TO_CORE, dx, dy))
    routes = np.concatenate(tables)
    return routes[np.argsort(routes["neuron"], kind="stable")]


def nearest_first(profile: Profile, n: int) -> list[tuple[int, int]]:
    """List ``n`` places, those nearest to the port first, ties along y."""
    width, height = profile.grid_width.value, profile.grid_height.value
    places = [(x, y) for y in range(height) for x in range(width)]
    return sorted(places, key=lambda place: (place[0] + place[1], place[1]))[:n]


def _check_fit(parts: Sequence[Part], layers: Sequence[QuantisedLayer], profile: Profile) -> None:
    """Raise CapacityError, naming the layer that goes over the edge, unless there are cores enough."""
    if len(parts) <= profile.n_cores:
        return
    over = parts[profile.n_cores].layer
    per_layer = ", ".join(
        f"layer{k} {layer.weight.shape[0]}-{layer.weight.shape[1]} {sum(part.layer == k for part in parts)}"
        for k, layer in enumerate(layers)
    )
    raise CapacityError(
        f"layer{over}: does not fit, the network takes {len(parts)} cores and {profile.name} has {profile.n_cores} "
        f"(cores: {per_layer}); make layers narrower, pool the input, or use a larger profile"
    )


def compile_network(
    layers: Sequence[QuantisedLayer], profile: Profile, positions: Sequence[tuple[int, int]] | None = None
) -> Program:
    """Cut a quantised network into cores, place them and lay the routes.

    Parameters
    ----------
    layers
        A chain; the last is the readout.
    profile
        The chip.
    positions
        (x, y) of each core, in the order of ``Program.parts``; default nearest to the port first.

    Raises
    ------
    CapacityError
        Naming layer or core and the limit.
    """
    parts = list(_split(layers, profile))
    _check_fit(parts, layers, profile)
    for number, layer in enumerate(layers):
        # beyond it an axon of the vector-add core could saturate, and the split layer would differ from the whole
        if layer.weight.shape[0] * 128 >= 2**31:
            raise CapacityError(f"layer{number}: {layer.weight.shape[0]} inputs overflow a 32-bit sum; split the layer")
    places = list(positions) if positions is not None else nearest_first(profile, len(parts))
    if len(places) != len(parts):
        raise CapacityError(f"{len(parts)} cores and {len(places)} places, wanted one place for each")
    cores = []
    for number, part in enumerate(parts):
        layer = layers[part.layer]
        n_neurons = part.last_post - part.first_post
        block = layer.weight[part.first_pre : part.last_pre, part.first_post : part.last_post]
        cores.append(
            Core(
                name=f"layer{part.layer} {part.first_pre}:{part.last_pre} to {part.first_post}:{part.last_post}",
                axon_mode=AXON_SPIKES if part.holds_weights else AXON_VALUES,
                synapse=SYNAPSE_MATRIX if part.holds_weights else SYNAPSE_VECTOR_ADD,
                n_axons=part.last_pre - part.first_pre if part.holds_weights else n_neurons,
                n_neurons=n_neurons,
                weight=np.ascontiguousarray(block) if part.holds_weights else np.zeros((0, 0), np.int8),
                bias=np.zeros(n_neurons, np.int32),
                soma=_soma(part, layer, profile),
                routes=_routes_of(number, parts, places, len(layers) - 1),
                value_bits=0 if part.holds_neurons else profile.partial_sum_bits.value,
                watch=np.arange(part.first_post, part.last_post, dtype=np.int32)
                if part.holds_neurons and part.layer == len(layers) - 2
                else np.zeros(0, np.int32),
            )
        )
    n_inputs, n_outputs = layers[0].weight.shape[0], layers[-1].weight.shape[1]
    inputs = [
        (unit, number, unit - part.first_pre)
        for number, part in enumerate(parts)
        if part.layer == 0 and part.holds_weights
        for unit in range(part.first_pre, part.last_pre)
    ]
    inputs.sort(key=lambda row: row[:2])
    grid = assemble(cores, places, np.array(inputs, INPUT_DTYPE), n_inputs, n_outputs, profile)
    return Program(profile, list(layers), parts, cores, places, grid, n_inputs, n_outputs)


def reweigh(program: Program, layers: Sequence[QuantisedLayer]) -> int:
    """Write new weights, thresholds and leaks into a program, in place; no route changes.

    Returns
    -------
    int
        Bytes that would go to the chip: one for each weight, a parameter block for each soma that holds neurons.

    Raises
    ------
    ConfigError
        If the layers have other shapes than those compiled.
    """
    got, wanted = [layer.weight.shape for layer in layers], [layer.weight.shape for layer in program.layers]
    spiking = [layer.v_threshold is not None for layer in layers]
    if got != wanted or spiking != [layer.v_threshold is not None for layer in program.layers]:
        raise ConfigError(f"new weights of shapes {got}, wanted {wanted}; compile the network anew")
    for number, part in enumerate(program.parts):
        layer = layers[part.layer]
        if part.holds_weights:
            block = layer.weight[part.first_pre : part.last_pre, part.first_post : part.last_post]
            weigh_core(program.grid, number, block)
        write_soma(program.grid, number, _soma(part, layer, program.profile))
    program.layers[:] = layers
    return program_bytes(program)


def program_bytes(program: Program) -> int:
    """Count the bytes of weights and soma parameters."""
    n_weights = sum(layer.weight.size for layer in program.layers)
    return n_weights + SOMA_BYTES * sum(part.holds_neurons for part in program.parts)


def report(program: Program) -> dict[str, float | str]:
    """Sum up a program before it runs: cores, memory, scales, estimates. Keyed by words for a table."""
    profile = program.profile
    n_cores = len(program.cores)
    words: dict[str, float | str] = {
        "profile": profile.name,
        "cores used": n_cores,
        "cores there": profile.n_cores,
        "partial-sum cores": sum(not part.holds_neurons for part in program.parts),
        "weight bytes used": sum(core.weight.size for core in program.cores),
        "weight bytes of these cores": n_cores * profile.axons_per_core.value * profile.neurons_per_core.value,
        "routes": sum(len(core.routes) for core in program.cores) + len(program.grid.input_lines),
    }
    if profile.core_power_high_mw.value:
        # busy cores times the public range per core; an estimate, nothing was measured
        words["estimated power low mW"] = n_cores * profile.core_power_low_mw.value
        words["estimated power high mW"] = n_cores * profile.core_power_high_mw.value
    for number, layer in enumerate(program.layers):
        words[f"layer{number} scale"] = layer.scale
        words[f"layer{number} alpha"] = layer.alpha
        if layer.v_threshold is not None:
            words[f"layer{number} threshold"] = layer.v_threshold
    return words
