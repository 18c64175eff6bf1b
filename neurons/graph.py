"""A network's description: what populations there are, and who sends spikes to whom. Data only, nothing runs here.

::

    Graph(
        inputs=(34, 34, 2),                                             # a sensor of 34 x 34 pixels, two polarities
        populations=[
            Population("edges", LIFUnits(tau_mem_us=10_000.0), (16, 16, 8)),
            Population("hidden", LIFUnits(refractory_us=500), (200,)),
            Population("scores", LeakyIntegratorUnits(tau_mem_us=60_000.0), (10,)),
        ],
        projections=[
            Projection(INPUT, "edges", Convolution(kernel, stride=(2, 2))),   # kernel: (4, 4, 2, 8)
            Projection("edges", "hidden", Dense(weight)),                     # weight: (16 * 16 * 8, 200)
            Projection("hidden", "hidden", Inhibition(0.3), delay_us=1000),
            Projection("hidden", "scores", Dense(readout)),
        ],
    )

Shapes
------
A population is a line of units, ``(n,)``, or a map, ``(height, width, channels)``. Maps are flattened in C order: unit
``(y * width + x) * channels + channel``. That is the order of ``neurons.encode``, so a sensor of W x H pixels is the
map (H, W, 2), polarity being the channel; and the channels of a site stand together in memory, so that a convolution
adds whole vectors. Frameworks that put channels first transpose once, at import.

Between two populations that are joined unit by unit (``Dense``, ``QuantisedDense``, ``Sparse``, ``OneToOne``,
``Inhibition``) only the numbers of units count, not the shapes.

Delays
------
Whole microseconds, one for each projection; several projections may join the same two populations. Along every cycle at
least one projection has a delay of 1 us or more. Otherwise a spike could be its own cause, and an order of computing
would decide what happens.

Fading
------
Synapses that fade, ``Projection.fade``, are strong when something begins to be shown and weaken from there on. Wu et
al. have them in every layer (their k_t = exp(-t / tau_w), t from the onset of the stimulus): the first spikes of an
answer, which come of the strongest evidence, count most.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurons.activation import FUNCTIONS, ActivationUnits
from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.inhibition import Inhibition
from neurons.integrate_fire import IntegrateFireUnits
from neurons.izhikevich import IzhikevichUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.quantised_dense import QuantisedDense, dense
from neurons.sparse import Sparse
from neurons.threshold import ThresholdUnits
from stream.errors import ConfigError

__all__ = [
    "INPUT",
    "Fade",
    "Graph",
    "Model",
    "Population",
    "Projection",
    "Shape",
    "Topology",
    "check_graph",
    "dequantised",
    "firing_order",
    "n_units",
    "shape_of",
    "unit_values",
]

INPUT = "input"
"""The source of projections that carry what comes from outside."""

LONGEST_US = 2**60  # longest delay and refractory time; sums of times stay far from the end of int64

Shape: TypeAlias = tuple[int, ...]
Model: TypeAlias = (
    LIFUnits
    | CurrentLIFUnits
    | AdaptiveLIFUnits
    | LeakyIntegratorUnits
    | IntegrateFireUnits
    | IzhikevichUnits
    | ThresholdUnits
    | ActivationUnits
)
Topology: TypeAlias = Dense | QuantisedDense | Convolution | Pooling | Sparse | Inhibition | OneToOne


class Population(NamedTuple):
    """Units of one model."""

    name: str
    model: Model  # parameters are numbers, or arrays that broadcast to ``shape``
    shape: Shape  # (n,) or (height, width, channels)


class Fade(NamedTuple):
    """How synapses weaken: a spike that arrives at t counts ``exp(-max(t - onset_us, 0) / tau_us)`` of its weight.

    t counts from where the network's time begins: its first message, or the last ``Reset`` mark. In phases it is the
    begin of the phase. There a spike takes a phase for each layer, so in a network of layers, layer k (from 0) counts
    the steps of the first one if its ``onset_us`` is ``k * phase_us``.
    """

    tau_us: float
    onset_us: int = 0


class Projection(NamedTuple):
    """Synapses from one population, or from the input, to another."""

    source: str  # a population's name, or INPUT
    target: str
    topology: Topology
    delay_us: int = 0
    fade: Fade | None = None  # None: as strong at any time


class Graph(NamedTuple):
    """A network."""

    inputs: Shape  # (n,) for spikes, (height, width, 2) for the events of a sensor
    populations: Sequence[Population]
    projections: Sequence[Projection]


def dequantised(graph: Graph) -> Graph:
    """Return the same network with all weights as real numbers, for those that know no weights of 8 bits."""
    ways = [
        q._replace(topology=dense(q.topology)) if isinstance(q.topology, QuantisedDense) else q
        for q in graph.projections
    ]
    return graph._replace(projections=ways)


def n_units(shape: Shape) -> int:
    """Count the units of a shape."""
    product = 1
    for side in shape:
        product *= side
    return product


def shape_of(graph: Graph, name: str) -> Shape:
    """Return the shape of a population, or of the input. Raises ConfigError if there is no such population."""
    if name == INPUT:
        return graph.inputs
    for population in graph.populations:
        if population.name == name:
            return population.shape
    raise ConfigError(f"there is no population '{name}'; there are {', '.join(p.name for p in graph.populations)}")


def unit_values(value: Any, shape: Shape) -> NDArray[np.float64]:
    """Spread a parameter over the units of a population.

    Parameters
    ----------
    value
        A number, or an array that broadcasts to ``shape``.
    shape
        Of the population.

    Returns
    -------
    float64, shape (n,)
    """
    return np.ascontiguousarray(np.broadcast_to(np.asarray(value, np.float64), shape)).reshape(-1)


def firing_order(graph: Graph) -> list[int]:
    """Order the populations so that projections without delay lead forward; otherwise as they are listed.

    Raises
    ------
    ConfigError
        If a cycle has no delay.
    """
    names = [population.name for population in graph.populations]
    before: list[set[int]] = [set() for _ in names]
    for projection in graph.projections:
        if projection.delay_us == 0 and projection.source != INPUT:
            before[names.index(projection.target)].add(names.index(projection.source))
    order: list[int] = []
    while len(order) < len(names):
        ready = [k for k in range(len(names)) if k not in order and before[k] <= set(order)]
        if not ready:
            stuck = [names[k] for k in range(len(names)) if k not in order]
            raise ConfigError(
                f"populations {', '.join(stuck)}: a cycle without delay runs through them (or leads to them); give one "
                f"projection of each cycle a delay_us of 1 or more"
            )
        order.append(ready[0])
    return order


def check_graph(graph: Graph) -> None:
    """Check that a network is one: names, shapes, parameters, delays.

    Raises
    ------
    ConfigError
        Naming the population or projection, what it has and what was wanted.
    """
    _check_shape("the input", graph.inputs)
    seen = {INPUT}
    for population in graph.populations:
        subject = f"population '{population.name}'"
        if not population.name or not population.name.replace("_", "a").replace("-", "a").isalnum():
            raise ConfigError(f"{subject}: wanted a name of letters, digits, '-' and '_'")
        if population.name in seen:
            raise ConfigError(
                f"{subject}: the name is taken; 'input' is what comes from outside, others name themselves"
            )
        seen.add(population.name)
        _check_shape(subject, population.shape)
        _check_model(subject, population)
    if not graph.populations:
        raise ConfigError("the network has no population; wanted one at least")
    for projection in graph.projections:
        subject = f"projection {projection.source} -> {projection.target}"
        for name, allowed in ((projection.source, seen), (projection.target, seen - {INPUT})):
            if name not in allowed:
                raise ConfigError(f"{subject}: there is no '{name}'; there are {', '.join(sorted(allowed))}")
        if not isinstance(projection.delay_us, int | np.integer) or not 0 <= projection.delay_us <= LONGEST_US:
            raise ConfigError(f"{subject} delay_us: got {projection.delay_us}, wanted whole us, 0 to {LONGEST_US}")
        if projection.fade is not None:
            _check_fade(subject, projection.fade)
        for population in graph.populations:
            if population.name == projection.source and isinstance(population.model, LeakyIntegratorUnits):
                raise ConfigError(f"{subject}: leaky integrators have no spikes to send; project from a spiking model")
        if not isinstance(projection.topology, Topology):
            raise ConfigError(f"{subject}: got a topology {type(projection.topology).__name__}, wanted one of Topology")
        projection.topology.check(subject, shape_of(graph, projection.source), shape_of(graph, projection.target))
    firing_order(graph)


def _check_shape(subject: str, shape: Shape) -> None:
    if len(shape) not in (1, 3) or not all(isinstance(side, int | np.integer) and side >= 1 for side in shape):
        raise ConfigError(f"{subject}: shape {shape}, wanted (n,) or (height, width, channels), whole numbers above 0")


def _check_fade(subject: str, fade: Fade) -> None:
    if not fade.tau_us > 0 or not np.isfinite(fade.tau_us):
        raise ConfigError(f"{subject} fade: tau_us is {fade.tau_us}, wanted a time above 0 us; fade = None never fades")
    if not isinstance(fade.onset_us, int | np.integer) or not 0 <= fade.onset_us <= LONGEST_US:
        raise ConfigError(f"{subject} fade: onset_us is {fade.onset_us}, wanted whole us, 0 to {LONGEST_US}")


def _check_model(subject: str, population: Population) -> None:
    model = population.model
    if not isinstance(model, Model):
        raise ConfigError(f"{subject}: got a model {type(model).__name__}, wanted one of Model")
    for name, value in model._asdict().items():
        if name == "reset":
            if value not in ("soft", "hard"):
                raise ConfigError(f"{subject} reset: got {value!r}, wanted 'soft' or 'hard'")
            continue
        if name == "function":
            if value not in FUNCTIONS:
                raise ConfigError(f"{subject} function: got {value!r}, wanted one of {', '.join(FUNCTIONS)}")
            continue
        if name in ("refractory_us", "step_us"):
            lowest = 1 if name == "step_us" else 0
            if not isinstance(value, int | np.integer) or not lowest <= value <= LONGEST_US:
                raise ConfigError(f"{subject} {name}: got {value}, wanted whole us, {lowest} to {LONGEST_US}")
            continue
        try:
            values = unit_values(value, population.shape)
        except ValueError:
            raise ConfigError(
                f"{subject} {name}: got shape {np.shape(value)}, wanted what broadcasts to {population.shape}"
            ) from None
        if not np.all(np.isfinite(values)):
            raise ConfigError(f"{subject} {name}: wanted finite numbers")
        if name.startswith("tau_") and not np.all(values > 0):
            raise ConfigError(f"{subject} {name}: got {values.min()}, wanted numbers above 0")
    if isinstance(model, LIFUnits | CurrentLIFUnits | AdaptiveLIFUnits | IntegrateFireUnits):
        # a reset that leaves a unit above its threshold would fire without end
        reset, threshold = (unit_values(value, population.shape) for value in (model.v_reset, model.v_threshold))
        if not np.all(reset < threshold):
            raise ConfigError(f"{subject} v_reset: wanted every v_reset below its v_threshold")
