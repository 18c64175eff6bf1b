"""From trained numbers to integers.

Equations
---------
Per layer, with a scale S of its own, in integers::

    weight_int = clip(floor(weight * S + 1/2), -127, 127)       S = 127 / clip point
    theta_int  = round(v_threshold * S)
    alpha      = round(256 * exp(-phase_us / tau_mem_us))        proportional leak; 256 = no leak at all

The clip point is the one of a few fractions of max |weight| with the smallest squared error sum (weight_int / S -
weight)^2; ties go to the larger. Spikes carry no scale, so layers need not agree on one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.network import INPUT_LAYER, Layer, Link, QuantisedNetwork
from chip.profile import Profile
from chip.soma import (
    FIRE_MEMBRANE_AFTER_LEAK,
    FIRE_SPIKE,
    LEAK_CONSTANT,
    LEAK_PROPORTIONAL,
    RESET_NONE,
    RESET_SUBTRACT_THRESHOLD,
    Soma,
)
from neurons.dense import Dense
from neurons.graph import Shape
from stream.errors import CapacityError, ConfigError
from stream.jit import kernel

__all__ = ["FloatLayer", "QuantisedLayer", "chain", "float_layers", "quantise"]

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
