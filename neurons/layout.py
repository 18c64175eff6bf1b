"""From a graph to the arrays that ``neurons.engine`` runs: who stands where, and what is known from the begin."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.activation import ActivationUnits
from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.crossing import pulse_height
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.front import FINE, decay_table, flush_shift
from neurons.graph import (
    INPUT,
    Graph,
    Population,
    Projection,
    firing_order,
    n_units,
    shape_of,
    unit_values,
)
from neurons.inhibition import Inhibition
from neurons.integrate_fire import IntegrateFireUnits
from neurons.izhikevich import IzhikevichUnits, resting_point
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.program import (
    ADAPTIVE_LIF,
    CHANNELS,
    CONVOLUTION,
    CROSSES,
    CURRENT_LIF,
    DELAY_US,
    DELAYED,
    DELAYED_END,
    DENSE,
    DIRECT,
    DIRECT_END,
    DRIVE,
    DRIVEN,
    FADES,
    FIRST,
    FIRST_GROUP,
    GROUP,
    GROUPS,
    HARD,
    HEIGHT,
    INCOMING,
    INCOMING_END,
    INTEGRATE_FIRE,
    IS_READ,
    IZHIKEVICH,
    LEAKY_INTEGRATOR,
    LIF,
    MODEL,
    N_CONSTANTS,
    N_DELAYED,
    N_DIRECT,
    N_POPULATION_COLUMNS,
    N_PROJECTION_COLUMNS,
    NEXT,
    ONSET_US,
    PAD_X,
    PAD_Y,
    RECORDED,
    REFRACTORY_US,
    ROWS,
    SHIFT,
    SIZE_X,
    SIZE_Y,
    SOURCE,
    SOURCE_CHANNELS,
    SOURCE_WIDTH,
    STEP_US,
    STRIDE_X,
    STRIDE_Y,
    SYNAPSES,
    TARGET,
    THRESHOLD,
    TOPOLOGY,
    UNIFORM,
    UNITS,
    WEIGHT,
    WEIGHT_STEP,
    WHOLE,
    WIDTH,
    WINDOWS_X,
    WINDOWS_Y,
    Program,
)
from neurons.quantised_dense import QuantisedDense, dense
from neurons.sparse import Sparse
from neurons.threshold import ThresholdUnits
from stream.errors import ConfigError
from stream.lanes import aligned

__all__ = ["Layout", "lay_out"]

TOPOLOGIES = (Dense, Convolution, Pooling, Sparse, Inhibition, OneToOne)  # as neurons.program numbers them


def _chunk(graph: Graph, projection: Projection) -> int:
    """Count the units that a projection always reaches together; 0 for one at a time."""
    shape = shape_of(graph, projection.target)
    match projection.topology:
        case Dense() | QuantisedDense() | Inhibition():
            return n_units(shape)
        case Convolution(groups=groups):
            return shape[2] // groups
        case _:
            return 0


class _Rows(NamedTuple):
    """A population in numbers; arrays are float64, shape (n,)."""

    model: int
    crosses: int
    theta: NDArray[np.float64]  # threshold above rest
    down: NDArray[np.float64]  # soft reset: what a spike takes away; hard: where it leads, above rest
    rest: NDArray[np.float64]
    v: NDArray[np.float64]  # at the start, above rest
    w: NDArray[np.float64]
    constant: NDArray[np.float64]  # shape (6, n)


def _rows_of(population: Population) -> _Rows:
    shape, model = population.shape, population.model
    n = n_units(shape)

    def spread(*values: Any) -> NDArray[np.float64]:
        constant = np.zeros((N_CONSTANTS, n))
        for k, value in enumerate(values):
            constant[k] = unit_values(value, shape)
        return constant

    nothing = np.zeros(n)
    if isinstance(model, LeakyIntegratorUnits):
        rest = unit_values(model.v_leak, shape)
        return _Rows(LEAKY_INTEGRATOR, 0, np.full(n, np.inf), nothing, rest, nothing, nothing, spread(model.tau_mem_us))
    if isinstance(model, ThresholdUnits):
        theta = unit_values(model.v_threshold, shape)
        return _Rows(THRESHOLD, 0, theta, nothing, nothing, nothing, nothing, spread())
    if isinstance(model, IzhikevichUnits):
        constant = spread(model.a, model.b, model.c, model.d, model.v_peak, model.drive)
        v, w = resting_point(constant[1], constant[5], constant[2])
        return _Rows(IZHIKEVICH, 0, constant[4], nothing, nothing, v, w, constant)
    if isinstance(model, ActivationUnits):
        raise ConfigError(
            f"population '{population.name}': artificial units send values once a phase, not spikes; they run on the "
            f"chip (hebbstream chip compile)"
        )
    threshold, reset = unit_values(model.v_threshold, shape), unit_values(model.v_reset, shape)
    down = threshold - reset if model.reset == "soft" else reset
    if isinstance(model, IntegrateFireUnits):
        constant = spread(model.drive_per_us)
        crosses = DRIVEN if np.any(constant[0] > 0) else 0
        v = np.where(threshold >= 0, 0.0, reset)
        return _Rows(INTEGRATE_FIRE, crosses, threshold, down, nothing, v, nothing, constant)
    rest = unit_values(model.v_leak, shape)
    if model.reset == "hard":
        down = down - rest
    number, crosses, constant = LIF, 0, spread(model.tau_mem_us)
    if isinstance(model, CurrentLIFUnits):
        number, crosses = CURRENT_LIF, 1
        constant = spread(model.tau_mem_us, model.tau_syn_us)
        constant[2] = [pulse_height(float(mem), float(syn)) for mem, syn in constant[:2].T]
    elif isinstance(model, AdaptiveLIFUnits):
        number, constant = ADAPTIVE_LIF, spread(model.tau_mem_us, model.tau_adapt_us, model.adaptation)
        # a threshold that sinks faster than the membrane does, or that spikes have lowered
        crosses = int(np.any(constant[1] < constant[0]) or np.any(constant[2] < 0))
        # or while a soft reset holds the membrane where it is
        crosses |= model.reset == "soft" and model.refractory_us > 0
    if np.any(rest > threshold):
        crosses = DRIVEN
    v = np.where(rest > threshold, reset - rest, 0.0)
    return _Rows(number, crosses, threshold - rest, down, rest, v, nothing, constant)


def _weights_of(projection: Projection, n_post: int) -> NDArray[Any]:
    """Lay the weights of a projection out in one line, as ``neurons.engine`` reads them."""
    match projection.topology:
        case Dense(weight) | Convolution(weight) | Sparse(weight=weight) | OneToOne(weight):
            return np.asarray(weight).reshape(-1)
        case QuantisedDense() as topology:
            return dense(topology).weight.reshape(-1)
        case Pooling(weight=weight):
            return np.array([weight])
        case Inhibition(strength):
            row = np.full(2 * n_post - 1, -strength)
            row[n_post - 1] = 0.0
            return row


class _Links:
    """Lists of whole numbers in one line."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.int64]] = []
        self._n = 0

    def add(self, values: Any) -> tuple[int, int]:
        """Append a list; returns where it begins and ends."""
        part = np.asarray(values, np.int64).reshape(-1)
        self._parts.append(part)
        first, self._n = self._n, self._n + len(part)
        return first, self._n

    def joined(self) -> NDArray[np.int64]:
        return np.concatenate([np.zeros(0, np.int64), *self._parts])


class Layout(NamedTuple):
    """A network before anything has happened."""

    program: Program
    rest: NDArray[np.float64]  # float64, shape (n_all,)
    v: NDArray[np.float64]  # at the start
    w: NDArray[np.float64]
    n_groups: int


def _front_of(populations: NDArray[np.int64], projections: NDArray[np.int64], drive: NDArray[np.float64]) -> int:
    """Find the projection that the engine's fast loop may run: the input's only one, to units that only leak."""
    ways = np.flatnonzero(projections[:, SOURCE] == -1)
    if len(ways) != 1:
        return -1
    way = projections[ways[0]]
    row = populations[way[TARGET]]
    whole = {DENSE: row[UNITS], CONVOLUTION: row[CHANNELS]}.get(int(way[TOPOLOGY]))
    # an integrator's drive moves it between events, downward too
    is_passive = row[MODEL] == LIF or (row[MODEL] == INTEGRATE_FIRE and not drive[row[FIRST]])
    is_simple = is_passive and row[UNIFORM] and row[CROSSES] == 0 and way[DELAY_US] == 0 and not way[FADES]
    return int(ways[0]) if is_simple and row[GROUP] == whole and way[GROUPS] <= 1 else -1


def _is_read(ways: NDArray[np.int64], populations: NDArray[np.int64]) -> bool:
    """Tell whether projections lead densely to leaky integrators that are all alike, one to each population."""
    targets = populations[ways[:, TARGET]]
    return bool(
        np.all(ways[:, TOPOLOGY] == DENSE)
        and not np.any(ways[:, FADES])
        and np.all(targets[:, MODEL] == LEAKY_INTEGRATOR)
        and np.all(targets[:, UNIFORM] == 1)
        and np.all(targets[:, GROUP] == targets[:, UNITS])
        and len(set(ways[:, TARGET])) == len(ways)
    )


def _windows_of(n_source: int, n_target: int, size: int, stride: int, pad: int, per_tap: int) -> NDArray[np.int64]:
    """List the windows that hold each row (or column) of a map; as ``neurons.front`` reads them.

    Returns
    -------
    int64, shape (n_source, 3)
    """
    place = np.arange(n_source) + pad
    # windows begin at most size - 1 before what they hold
    first = np.maximum(0, (place - size + stride) // stride)
    last = np.minimum(n_target - 1, place // stride)
    return np.stack([first, last, (place - first * stride) * per_tap], axis=1)


def lay_out(graph: Graph, real: Any, phase_us: int) -> Layout:
    """Turn a checked graph into tables."""
    names = [population.name for population in graph.populations]
    rows = [_rows_of(population) for population in graph.populations]
    population_table = np.zeros((len(names), N_POPULATION_COLUMNS), np.int64)
    n_all = n_groups = 0
    for p, (population, row) in enumerate(zip(graph.populations, rows, strict=True)):
        n = n_units(population.shape)
        chunks = [_chunk(graph, projection) for projection in graph.projections if projection.target == names[p]]
        # one by one: own times, unless something else reaches them in larger pieces anyway
        group = int(np.gcd.reduce([chunk for chunk in chunks if chunk] or [1]))
        if row.model == IZHIKEVICH:
            group = n  # its grid moves all of them
        height, width, channels = population.shape if len(population.shape) == 3 else (1, 1, n)
        table = population_table[p]
        table[[MODEL, UNITS, FIRST, GROUP, FIRST_GROUP]] = row.model, n, n_all, group, n_groups
        is_uniform = all(np.all(values == values[..., :1]) for values in (row.theta, row.down, row.constant))
        table[[UNIFORM, CROSSES, HEIGHT, WIDTH, CHANNELS]] = is_uniform, row.crosses, height, width, channels
        table[HARD] = getattr(population.model, "reset", "soft") == "hard"
        table[REFRACTORY_US] = getattr(population.model, "refractory_us", 0)
        table[STEP_US] = getattr(population.model, "step_us", 0)
        table[RECORDED] = row.model != LEAKY_INTEGRATOR
        n_all += n
        n_groups += n // group
    projection_table = np.zeros((len(graph.projections), N_PROJECTION_COLUMNS), np.int64)
    weights: list[NDArray[Any]] = []
    n_weights = 0
    links = _Links()
    for q, projection in enumerate(graph.projections):
        source_shape, target_shape = (shape_of(graph, name) for name in (projection.source, projection.target))
        table = projection_table[q]
        table[SOURCE] = names.index(projection.source) if projection.source != INPUT else -1
        table[[TARGET, DELAY_US]] = names.index(projection.target), projection.delay_us
        table[WEIGHT] = n_weights
        kind = type(projection.topology)
        table[TOPOLOGY] = TOPOLOGIES.index(Dense if kind is QuantisedDense else kind)
        match projection.topology:
            case Convolution(weight, stride, padding, groups):
                table[[SIZE_Y, SIZE_X]] = np.shape(weight)[:2]
                table[[STRIDE_Y, STRIDE_X, PAD_Y, PAD_X, GROUPS]] = *stride, *padding, groups
            case Pooling(size, stride, padding):
                table[[SIZE_Y, SIZE_X, STRIDE_Y, STRIDE_X, PAD_Y, PAD_X, GROUPS]] = *size, *stride, *padding, 1
            case Sparse(row_start, unit):
                table[ROWS], table[SYNAPSES] = links.add(row_start)
                links.add(unit)
            case OneToOne(weight):
                table[WEIGHT_STEP] = np.ndim(weight)
        if len(source_shape) == 3:
            table[[SOURCE_WIDTH, SOURCE_CHANNELS]] = source_shape[1:]
        if isinstance(projection.topology, Convolution | Pooling):
            per_column = table[SOURCE_CHANNELS] // table[GROUPS] * target_shape[2]
            y = source_shape[0], target_shape[0], *table[[SIZE_Y, STRIDE_Y, PAD_Y]], table[SIZE_X] * per_column
            x = source_shape[1], target_shape[1], *table[[SIZE_X, STRIDE_X, PAD_X]], per_column
            table[WINDOWS_Y], table[WINDOWS_X] = (links.add(_windows_of(*numbers))[0] for numbers in (y, x))
        if projection.fade is not None:
            table[[FADES, ONSET_US]] = 1, projection.fade.onset_us
        weights.append(_weights_of(projection, n_units(target_shape)))
        n_weights += len(weights[-1])
    sources, targets = projection_table[:, SOURCE], projection_table[:, TARGET]
    is_delayed = projection_table[:, DELAY_US] > 0
    for p, table in enumerate(population_table):
        table[N_DELAYED] = np.sum((sources == p) & is_delayed)
        table[N_DIRECT] = np.sum((sources == p) & ~is_delayed)
        table[[INCOMING, INCOMING_END]] = links.add(np.flatnonzero((targets == p) & ~is_delayed))
        table[[DELAYED, DELAYED_END]] = links.add(np.flatnonzero((sources == p) & is_delayed))
        direct = np.flatnonzero((sources == p) & ~is_delayed)
        table[[DIRECT, DIRECT_END]] = links.add(direct)
        table[IS_READ] = len(direct) and _is_read(projection_table[direct], population_table)
    population_table[:, NEXT] = firing_order(graph)
    from_input = links.add(np.flatnonzero((sources == -1) & is_delayed))
    decay = np.ones((len(names), 2, FINE))
    for p, row in enumerate(rows):
        tau_us = float(row.constant[0, 0]) if row.model == LIF and population_table[p, UNIFORM] else np.inf
        decay[p] = decay_table(tau_us)
        population_table[p, SHIFT] = flush_shift(tau_us)
    constant = np.concatenate([row.constant for row in rows], axis=1)
    front = _front_of(population_table, projection_table, constant[DRIVE]) if phase_us == 0 else -1
    whole, scale = np.zeros(0, np.int8), np.zeros(0, real)
    if front >= 0 and isinstance(topology := graph.projections[front].topology, QuantisedDense):
        projection_table[front, WHOLE] = 1
        whole, scale = aligned(topology.weight.reshape(-1)), aligned(np.asarray(topology.scale, real))
    program = Program(
        population_table,
        projection_table,
        links.joined(),
        np.concatenate([row.theta for row in rows]).astype(real),
        np.concatenate([row.down for row in rows]).astype(real),
        constant,
        decay,
        aligned(np.concatenate([np.zeros(0), *weights]).astype(real)),
        whole,
        scale,
        np.array([np.inf if q.fade is None else q.fade.tau_us for q in graph.projections]),
        phase_us,
        front,
        *from_input,
    )
    rest, v, w = (np.concatenate([getattr(row, name) for row in rows]) for name in ("rest", "v", "w"))
    return Layout(program, rest, v, w, n_groups)
