"""From trained numbers to integers.

Equations
---------
Per layer, with a scale S of its own, in integers::

    weight_int = clip(floor(weight * S + 1/2), -127, 127)       S = 127 / clip point
    theta_int  = round(v_threshold * S)
    alpha      = round(256 * exp(-phase_us / tau_mem_us))        proportional leak; 256 = no leak at all

The clip point is the one of a few fractions of max |weight| with the smallest squared error sum (weight_int / S -
weight)^2; ties go to the larger. Spikes carry no scale, so layers need not agree on one. All projections to one layer
share its scale, for they add up in one membrane.

Calibration
-----------
Where recorded streams have been observed (:mod:`chip.observe`), the clip point is the one with the smallest squared
error of the *currents* that they caused; and threshold and leak are those of a few neighbours (the threshold moved by
up to 6 %, alpha by up to 1 / 256) whose integer somas, given the currents of the float network's own spikes, fire most
as it did: the smallest sum of the squared difference of both spike trains, each filtered with the membrane's leak. That
takes out what rounding does on average: the leak's floor alone pulls every potential down by half an integer a phase.
Weights of dense layers and convolutions are rounded together, by what the recordings make of them
(:mod:`chip.rounding`).

Artificial units
----------------
A value y goes as round(y * S'), S' = 127 / largest |y| (seen in the recordings; 1 for sigmoid and tanh), and the
weights of who receives it are quantised as weight / S'. The lookup table is addressed by the sum, shifted until the
largest one seen fits; its entries are f at the middle of each step.

What cannot be exact
--------------------
A refractory neuron's potential leaks here, and stands still in the float network; a fading projection, and a soma for
each unit, no core has. Currents of ``CurrentLIFUnits`` are a layer of their own without threshold, whose potentials go
to the membranes as values.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.network import INPUT_LAYER, Layer, Link, QuantisedNetwork, weight_of, with_weight
from chip.observe import Observed, apply
from chip.profile import Profile
from chip.rounding import round_together, traces
from chip.soma import (
    FIRE_MEMBRANE_AFTER_LEAK,
    FIRE_MEMBRANE_BEFORE_RESET,
    FIRE_SPIKE,
    FIRE_TABLE,
    LEAK_CONSTANT,
    LEAK_PROPORTIONAL,
    RESET_NONE,
    RESET_SUBTRACT_CONSTANT,
    RESET_SUBTRACT_THRESHOLD,
    RESET_TO_VALUE,
    Soma,
)
from neurons.activation import ActivationUnits, activation
from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.crossing import drift
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import (
    INPUT,
    Graph,
    Population,
    Projection,
    Shape,
    Topology,
    check_graph,
    dequantised,
    n_units,
    shape_of,
    unit_values,
)
from neurons.integrate_fire import IntegrateFireUnits
from neurons.izhikevich import IzhikevichUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.one_to_one import OneToOne
from neurons.threshold import ThresholdUnits
from stream.errors import CapacityError, ConfigError
from stream.jit import kernel

__all__ = ["FloatLayer", "QuantisedLayer", "chain", "float_layers", "quantise", "quantise_graph"]

INT8 = 127
MOST_ROWS = 2000  # of currents looked at, for each candidate of a scale
MOST_TRACES = 20_000  # of a layer's inputs, to round its weights by
MOST_PATCHES = 40_000  # of windows, likewise
MOST_UNITS = 256  # whose somas are tried
THRESHOLD_STEPS = (0.0, -0.01, 0.01, -0.02, 0.02, -0.03, 0.03, -0.045, 0.045, -0.06, 0.06)  # ties: the first
CLIP_FRACTIONS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


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


def chain(layers: Sequence[QuantisedLayer], profile: Profile, inputs: Shape | None = None) -> QuantisedNetwork:
    """Make a network of dense layers, one after the other; the last is the readout."""
    half = 1 << (profile.membrane_bits.value - 1)
    made, links = [], []
    for number, layer in enumerate(layers):
        readout = layer.v_threshold is None
        soma = Soma(
            # a potential never exceeds half - 1, and firing is strict: this threshold is never passed
            v_threshold=half - 1 if layer.v_threshold is None else layer.v_threshold,
            floor=-half,
            reset_mode=RESET_NONE if readout else RESET_SUBTRACT_THRESHOLD,
            leak_mode=LEAK_CONSTANT if layer.alpha == 256 else LEAK_PROPORTIONAL,
            alpha=layer.alpha % 256,
            fire_type=FIRE_MEMBRANE_AFTER_LEAK if readout else FIRE_SPIKE,
        )
        n_post = layer.weight.shape[1]
        made.append(Layer(f"layer{number}", (n_post,), soma, np.zeros(n_post, np.int32), layer.scale, layer.scale))
        links.append(Link(INPUT_LAYER if number == 0 else number - 1, number, Dense(layer.weight)))
    return QuantisedNetwork(inputs or (layers[0].weight.shape[0],), made, links)


# -- any network -------------------------------------------------------------------------------------------------------


def _one(population: Population, name: str) -> float:
    """Return a parameter that all units share; ConfigError if they do not."""
    values = unit_values(getattr(population.model, name), population.shape)
    if np.any(values != values[0]):
        raise ConfigError(
            f"population '{population.name}' {name}: from {values.min():.6g} to {values.max():.6g}, but a core has one "
            f"soma for all its neurons; give all units one {name}, or make populations of those that share it"
        )
    return float(values[0])


def _delay(projection: Projection, phase_us: int) -> int:
    """Return the whole phases of a delay; ConfigError where phases cannot express it."""
    if projection.source == INPUT and projection.delay_us % phase_us:
        raise ConfigError(
            f"projection {projection.source} -> {projection.target}: a delay of {projection.delay_us} us, the chip can "
            f"let input wait for whole phases of {phase_us} us only; round it, or choose phases that divide it"
        )
    # a spike leaves at the end of a phase: what is left of a phase does not bring it into another one
    return projection.delay_us // phase_us


def _integers(weight: Any, scale: float) -> Any:
    """Return int8 weights; a number stays a number."""
    rounded = np.clip(np.floor(np.asarray(weight, np.float64) * scale + 0.5), -INT8, INT8)
    return rounded.astype(np.int8) if np.ndim(weight) else int(rounded)


def _rows_seen(x: NDArray[Any], is_there: NDArray[np.bool_], n: int) -> NDArray[np.int64]:
    """Choose phases of recordings in which something came, evenly, at most ``n``."""
    found = np.flatnonzero(x.any(axis=2).reshape(-1) & is_there.reshape(-1))
    return found[np.linspace(0, len(found) - 1, min(n, len(found))).astype(np.int64)] if len(found) else found


class _Way(NamedTuple):
    """A projection on its way into integers."""

    projection: Projection
    source: Shape
    target: Shape
    weight: Any  # per integer that arrives
    sent: NDArray[np.float32] | None  # integers that were sent, shape (n_recordings, n_phases, n_pre)
    delay: int  # phases between sending and adding up


def _scale_of(ways: Sequence[_Way], observed: Observed | None, name: str) -> float:
    """Choose the scale of a layer: integers per unit of potential."""
    largest = max((float(np.abs(way.weight).max(initial=0)) for way in ways), default=0.0)
    if largest == 0:
        return 1.0
    seen = []
    if observed is not None and name in observed.current:
        for way in ways:
            if way.sent is not None:
                x = way.sent.reshape(-1, way.sent.shape[2])[_rows_seen(way.sent, observed.is_there, MOST_ROWS)]
                topology = way.projection.topology
                seen.append((way, x, apply(with_weight(topology, way.weight), way.source, way.target, x)))
    best, scale = math.inf, 1.0
    for fraction in CLIP_FRACTIONS:
        candidate = INT8 / (largest * fraction)
        error = 0.0
        if any(len(x) for _, x, _ in seen):
            for way, x, current in seen:
                rounded = with_weight(way.projection.topology, _integers(way.weight, candidate))
                error += float(((apply(rounded, way.source, way.target, x) / candidate - current) ** 2).sum())
        else:
            for way in ways:
                error += float((((_integers(way.weight, candidate) / candidate) - way.weight) ** 2).sum())
        if error < best:
            best, scale = error, candidate
    return scale


def _rounded(way: _Way, scale: float, population: Population, observed: Observed | None, phase_us: int) -> Topology:
    """Round the weights of a projection, those of dense layers and convolutions together; see ``chip.rounding``."""
    topology = way.projection.topology
    if observed is None or way.sent is None or not isinstance(topology, Dense | Convolution):
        return with_weight(topology, _integers(way.weight, scale))
    tau_us = getattr(population.model, "tau_mem_us", None)
    memoryless = isinstance(population.model, ActivationUnits | ThresholdUnits | IntegrateFireUnits)
    x = (
        way.sent
        if memoryless or tau_us is None
        else traces(way.sent, math.exp(-phase_us / _one(population, "tau_mem_us")))
    )
    x = x.reshape(-1, x.shape[2])[_rows_seen(way.sent, observed.is_there, MOST_TRACES)]
    weight = np.asarray(way.weight, np.float64) * scale
    if isinstance(topology, Dense):
        return with_weight(topology, round_together(weight, x, INT8))
    rounded = np.zeros(weight.shape, np.int8)
    height, width, n_in, n_out = weight.shape
    out_per_group = n_out // topology.groups
    for g in range(topology.groups):
        made = slice(g * out_per_group, (g + 1) * out_per_group)
        seen = _patches(topology, way.source, way.target, x, g)
        flat = round_together(weight[..., made].reshape(height * width * n_in, out_per_group), seen, INT8)
        rounded[..., made] = flat.reshape(height, width, n_in, out_per_group)
    return with_weight(topology, rounded)


def _patches(
    topology: Convolution, source: Shape, target: Shape, x: NDArray[np.float32], group: int
) -> NDArray[np.float32]:
    """Cut what the windows of a convolution saw, shape (n, height * width * channels of a group)."""
    height, width, n_in, _ = np.shape(topology.weight)
    (pad_y, pad_x), (step_y, step_x) = topology.padding, topology.stride
    x = x[:: max(1, len(x) * target[0] * target[1] // MOST_PATCHES)]
    maps = np.pad(x.reshape(-1, *source), [(0, 0), (pad_y, pad_y), (pad_x, pad_x), (0, 0)])
    channels = slice(group * n_in, (group + 1) * n_in)
    seen = [
        maps[
            :,
            ky : ky + (target[0] - 1) * step_y + 1 : step_y,
            kx : kx + (target[1] - 1) * step_x + 1 : step_x,
            channels,
        ]
        for ky in range(height)
        for kx in range(width)
    ]
    return np.stack(seen, axis=3).reshape(-1, height * width * n_in)


def _fits(name: str, what: str, value: float, profile: Profile) -> int:
    """Round a number that a membrane has to hold."""
    half = 1 << (profile.membrane_bits.value - 1)
    if not -half <= value < half - 1:
        raise CapacityError(
            f"{name}: {what} is {value:.6g} in the integers of its weights, and {profile.name} holds {-half} to "
            f"{half - 2}; the weights are far too small for it"
        )
    return round(value)


def _leak(tau_us: float, phase_us: int) -> int:
    return round(256 * math.exp(-phase_us / tau_us))


def _with_alpha(soma: Soma, alpha: int) -> Soma:
    return soma._replace(leak_mode=LEAK_CONSTANT if alpha == 256 else LEAK_PROPORTIONAL, alpha=alpha % 256)


def _soma_of(population: Population, scale: float, phase_us: int, profile: Profile) -> Soma:
    """Write down the soma of a spiking population or a readout."""
    model, name = population.model, population.name
    half = 1 << (profile.membrane_bits.value - 1)
    if isinstance(model, IzhikevichUnits):
        raise ConfigError(f"population '{name}': the chip has no Izhikevich neurons; use one of the other models")
    if isinstance(model, LeakyIntegratorUnits):
        soma = Soma(v_threshold=half - 1, floor=-half, reset_mode=RESET_NONE, fire_type=FIRE_MEMBRANE_AFTER_LEAK)
        return _with_alpha(soma, _leak(_one(population, "tau_mem_us"), phase_us))
    if isinstance(model, ThresholdUnits):
        level = _fits(name, "v_threshold", _one(population, "v_threshold") * scale, profile)
        return Soma(v_threshold=level, floor=-half, reset_mode=RESET_NONE, window_length=0)
    if isinstance(model, ActivationUnits):
        raise TypeError(name)
    rest = 0.0 if isinstance(model, IntegrateFireUnits) else _one(population, "v_leak")
    threshold, reset = _one(population, "v_threshold"), _one(population, "v_reset")
    phases = -(-int(model.refractory_us) // phase_us)
    most = (1 << profile.refractory_bits.value) - 1
    if phases > most:
        raise CapacityError(
            f"{name}: refractory for {model.refractory_us} us, {phases} phases of {phase_us} us, {profile.name} has 0 "
            f"to {most}; choose longer phases"
        )
    is_soft = model.reset == "soft"
    soma = Soma(
        v_threshold=_fits(name, "v_threshold", (threshold - rest) * scale, profile),
        floor=-half,
        reset_mode=RESET_TO_VALUE if not is_soft else RESET_SUBTRACT_THRESHOLD,
        v_reset=0 if is_soft else _fits(name, "v_reset", (reset - rest) * scale, profile),
        refractory_phases=phases,
    )
    if is_soft and (reset != rest or isinstance(model, AdaptiveLIFUnits)):
        down = _fits(name, "v_threshold - v_reset", (threshold - reset) * scale, profile)
        soma = soma._replace(reset_mode=RESET_SUBTRACT_CONSTANT, v_decrement=down)
    if isinstance(model, IntegrateFireUnits):
        return _with_alpha(soma, 256)
    if isinstance(model, AdaptiveLIFUnits):
        decay = math.exp(-phase_us / _one(population, "tau_adapt_us"))
        step = _fits(name, "adaptation", _one(population, "adaptation") * scale * decay, profile)
        soma = soma._replace(
            theta_mode=LEAK_PROPORTIONAL, theta_alpha=min(round(256 * decay), 255), theta_increment=step
        )
    return _with_alpha(soma, _leak(_one(population, "tau_mem_us"), phase_us))


def _try_soma(soma: Soma, current: NDArray[np.int64], bias: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Run leaky somas without adaptation through currents, shape (n_phases, n)."""
    v = np.zeros(current.shape[1], np.int64)
    rest = np.zeros_like(v)
    fired = np.zeros(current.shape, bool)
    alpha = soma.alpha if soma.leak_mode == LEAK_PROPORTIONAL else 256
    for k, u in enumerate(current):
        v = np.where(rest == 0, v + u + bias, v)
        fires = v > soma.v_threshold
        if soma.reset_mode == RESET_TO_VALUE:
            v = np.where(fires, soma.v_reset, v)
        else:
            v = v - fires * (soma.v_threshold if soma.reset_mode == RESET_SUBTRACT_THRESHOLD else soma.v_decrement)
        v = ((v * alpha) >> 8) + soma.beta
        rest = np.where(fires, soma.refractory_phases, np.maximum(rest - 1, 0))
        fired[k] = fires
    return fired


def _calibrated(
    soma: Soma, population: Population, ways: Sequence[_Way], links: Sequence[Any], bias: Any, observed: Observed
) -> Soma:
    """Choose threshold and leak among neighbours; see above."""
    model = population.model
    if isinstance(model, AdaptiveLIFUnits | CurrentLIFUnits | ThresholdUnits) or any(way.sent is None for way in ways):
        return soma
    wanted = observed.sent[population.name]
    n_recordings, n_phases = wanted.shape[:2]
    busy = np.argsort(-wanted.sum((0, 1)), kind="stable")[: 4 * MOST_UNITS]
    units = np.sort(busy[np.linspace(0, len(busy) - 1, min(MOST_UNITS, len(busy))).astype(np.int64)])
    current = np.zeros((n_phases, n_recordings, len(units)), np.int64)
    for way, topology in zip(ways, links, strict=True):
        for r in range(n_recordings):
            if way.sent is None:
                continue
            came = apply(topology, way.source, way.target, way.sent[r].astype(np.float64))[:, units]
            current[way.delay :, r] += came[: n_phases - way.delay].astype(np.int64)
    flat = current.reshape(n_phases, -1)
    there = observed.is_there.T[:, :, None]
    target = wanted[:, :, units].transpose(1, 0, 2)
    biases = np.tile(np.asarray(bias, np.int64)[units], n_recordings)
    best, chosen = math.inf, soma
    alpha = soma.alpha if soma.leak_mode == LEAK_PROPORTIONAL else 256
    decay = alpha / 256
    for step in (0, -1, 1) if soma.leak_mode == LEAK_PROPORTIONAL else (0,):
        if not 0 <= alpha + step <= 256:
            continue
        for part in THRESHOLD_STEPS:
            candidate = _with_alpha(soma, alpha + step)
            candidate = candidate._replace(v_threshold=soma.v_threshold + round(part * abs(soma.v_threshold)))
            if soma.reset_mode == RESET_SUBTRACT_THRESHOLD and part:
                # the threshold moves, what a spike takes away does not
                candidate = candidate._replace(reset_mode=RESET_SUBTRACT_CONSTANT, v_decrement=soma.v_threshold)
            fired = _try_soma(candidate, flat, biases).reshape(target.shape)
            difference = (fired - target) * there
            trace, error = np.zeros(target.shape[1:]), 0.0
            for k in range(n_phases):
                trace = trace * decay + difference[k]
                error += float((trace * trace).sum())
            if error < best:
                best, chosen = error, candidate
    return chosen


def _activation_layer(
    population: Population, scale: float, sent_scale: float, largest: float, profile: Profile
) -> Layer:
    """Make a layer of artificial units: a lookup table, addressed by the shifted sum."""
    model = population.model
    if not isinstance(model, ActivationUnits):
        raise TypeError(population.name)
    bits = max((size for size in profile.table_address_bits.value if size <= 12), default=0)
    if not bits:
        raise CapacityError(f"{population.name}: {profile.name} has no lookup tables of 12 address bits or less")
    half, shift, step = 1 << (bits - 1), 0, profile.cut_step.value
    while (largest * scale) / (1 << shift) > half - 1 and shift + step <= 30:
        shift += step
    index = np.arange(1 << bits)
    signed = np.where(index < half, index, index - 2 * half)
    u = ((signed << shift) + ((1 << shift) - 1) / 2) / scale
    table = np.clip(np.floor(activation(model.function, u) * sent_scale + 0.5), -128, INT8).astype(np.int32)
    bias = np.round(unit_values(model.bias, population.shape) * scale).astype(np.int32)
    soma = Soma(fire_type=FIRE_TABLE, cut_shift=shift)
    return Layer(population.name, population.shape, soma, bias, scale, sent_scale, 8, table=table)


def quantise_graph(
    graph: Graph, profile: Profile, *, phase_us: int = 1000, observed: Observed | None = None
) -> QuantisedNetwork:
    """Bring a network to the chip's integers.

    Parameters
    ----------
    graph
        As trained, of ours or from NIR.
    profile
        The chip.
    phase_us
        Length of a phase, us.
    observed
        What recorded streams did to it, for calibration; default: none.

    Raises
    ------
    ConfigError
        If the chip cannot express something, naming population or projection.
    CapacityError
        If a number does not fit its width.
    """
    check_graph(graph)
    graph = dequantised(graph)
    for projection in graph.projections:
        if projection.fade is not None:
            raise ConfigError(
                f"projection {projection.source} -> {projection.target}: fades, and a core's weights do not change "
                f"with time; train a network without, or leave it out (fade = None)"
            )
    numbers: dict[str, int] = {INPUT: INPUT_LAYER}  # layer that sends what a population sends
    entries: dict[str, int] = {}  # layer that takes what comes to it
    n_layers = 0
    for population in graph.populations:
        entries[population.name] = n_layers
        n_layers += isinstance(population.model, CurrentLIFUnits)
        numbers[population.name] = n_layers
        n_layers += 1
    sent_scales = {INPUT: 1.0}
    for population in graph.populations:
        sent_scales[population.name] = 1.0
        model = population.model
        if isinstance(model, ActivationUnits):
            if observed is not None:
                largest = float(np.abs(observed.sent[population.name] * observed.is_there[..., None]).max(initial=0))
            elif model.function in ("sigmoid", "tanh"):
                largest = 1.0
            else:
                raise ConfigError(
                    f"population '{population.name}': {model.function} has no largest value; give recordings to "
                    f"calibrate with, so that the range of its values is known"
                )
            sent_scales[population.name] = INT8 / largest if largest > 0 else 1.0
    values = {p.name for p in graph.populations if isinstance(p.model, ActivationUnits)}

    layers: list[Layer] = []
    links: list[Link] = []
    half = 1 << (profile.membrane_bits.value - 1)
    for population in graph.populations:
        name, model, n = population.name, population.model, n_units(population.shape)
        ways = []
        for projection in graph.projections:
            if projection.target != name:
                continue
            sent = None if observed is None else observed.sent[projection.source]
            if sent is not None and projection.source in values:
                sent = np.clip(np.floor(sent * sent_scales[projection.source] + 0.5), -128, INT8)
            delay = _delay(projection, phase_us)
            weight = np.asarray(weight_of(projection.topology), np.float64) / sent_scales[projection.source]
            source = shape_of(graph, projection.source)
            ways.append(_Way(projection, source, population.shape, weight, sent, delay + (projection.source != INPUT)))
        scale = _scale_of(ways, observed, name)
        topologies = [_rounded(way, scale, population, observed, phase_us) for way in ways]
        for way, topology in zip(ways, topologies, strict=True):
            delay = _delay(way.projection, phase_us)
            links.append(Link(numbers[way.projection.source], entries[name], topology, delay))
        if isinstance(model, ActivationUnits):
            largest = 127.0 / scale
            if observed is not None:
                u = observed.current[name] * observed.is_there[..., None]
                largest = float(np.abs(u + np.asarray(model.bias, np.float32).reshape(-1)).max(initial=0))
            elif model.function in ("sigmoid", "tanh"):
                largest = 6.0  # beyond it both are flat within a step of their values
            layers.append(_activation_layer(population, scale, sent_scales[name], largest, profile))
            continue
        if isinstance(model, CurrentLIFUnits):
            tau_mem_us, tau_syn_us = _one(population, "tau_mem_us"), _one(population, "tau_syn_us")
            soma = Soma(v_threshold=half - 1, floor=-half, reset_mode=RESET_NONE, fire_type=FIRE_MEMBRANE_BEFORE_RESET)
            soma = _with_alpha(soma, _leak(tau_syn_us, phase_us))
            layers.append(Layer(f"{name} current", population.shape, soma, np.zeros(n, np.int32), scale, scale))
            links.append(Link(entries[name], numbers[name], OneToOne(1)))
            scale /= drift(0.0, 1.0, phase_us, tau_mem_us, tau_syn_us)
        soma = _soma_of(population, scale, phase_us, profile)
        bias = np.zeros(n, np.int32)
        if isinstance(model, IntegrateFireUnits):
            drive = unit_values(model.drive_per_us, population.shape) * phase_us * scale
            if np.all(drive == drive[0]):  # after the threshold was tested, as a leak
                soma = soma._replace(beta=_fits(name, "drive of a phase", float(drive[0]), profile))
            else:  # a core has one soma: a drive for each unit comes with its inputs, so a phase earlier
                bias = np.array([_fits(name, "drive of a phase", value, profile) for value in drive], np.int32)
        if observed is not None and not isinstance(model, LeakyIntegratorUnits):
            soma = _calibrated(soma, population, ways, topologies, bias, observed)
        layers.append(Layer(name, population.shape, soma, bias, scale, scale))
    return QuantisedNetwork(graph.inputs, layers, links, phase_us)
