"""Networks of any depth, with recurrence, as one operator: events or spikes in, spikes of every population out.

What a network is stands in ``neurons.graph``; what happens in which order in ``neurons.engine``. In a pipeline file a
network is named by the file that :func:`neurons.graph_file.save_graph` wrote::

    [[operator]]
    name = "net"
    kind = "neurons.network.Network"
    params = { path = "digits.safetensors", readout = "scores" }

Each population of a spiking model is an output port of its own name; ``answers`` is one more if ``readout`` names a
population of leaky integrators.

Time inside begins with the first message, or anew at a ``Reset`` mark: grids (Izhikevich, phases) and drives count from
there, so a stream that starts at another time gives the same bits. What is due up to the end of a packet is done when
the packet is; what is due after the end of the stream never happens.

Marks
-----
``Reset``   what is due up to the mark happens, then all goes to rest and what was on its way is dropped.
``Label``   what is due up to the mark happens, then the answer goes out: the class with the largest time average of the
            readout's potential since the last ``Reset`` or ``Label`` (ties: the lowest). A new window begins.
Others pass.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from neurons.activation import ActivationUnits
from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.crossing import pulse_height
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.encode import check_events, read_only, unit_of
from neurons.engine import (
    ADAPTIVE_LIF,
    ANCHOR_US,
    ARRIVING,
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
    DONE,
    DRIVE,
    DRIVEN,
    FADES,
    FIRED_DTYPE,
    FIRST,
    FIRST_GROUP,
    GROUP,
    GROUPS,
    HARD,
    HEAP_FULL,
    HEIGHT,
    HELD_UNTIL_US,
    INCOMING,
    INCOMING_END,
    INTEGRATE_FIRE,
    IS_READ,
    IZHIKEVICH,
    LEAKY_INTEGRATOR,
    LIF,
    LOG_FULL,
    MODEL,
    N_BOOK,
    N_CONSTANTS,
    N_DELAYED,
    N_DELIVERIES,
    N_DIRECT,
    N_HEAP,
    N_OUT,
    N_POPULATION_COLUMNS,
    N_PROGRESS_COLUMNS,
    N_PROJECTION_COLUMNS,
    N_QUEUE,
    N_SPIKES,
    N_TAPE,
    NEVER_US,
    NEXT,
    NEXT_SEQUENCE,
    NOW_US,
    ONSET_US,
    OUT_FULL,
    PAD_X,
    PAD_Y,
    QUEUE_FULL,
    RECORDED,
    REFRACTORY_US,
    ROWS,
    SEQUENCE,
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
    TAPE_FULL,
    TAPE_STOP,
    TARGET,
    THRESHOLD,
    TICKING,
    TIME,
    TOPOLOGY,
    UNIFORM,
    UNITS,
    WEIGHT,
    WEIGHT_STEP,
    WHOLE,
    WIDTH,
    WINDOW_FULL,
    WINDOWS_X,
    WINDOWS_Y,
    Program,
    State,
    compact,
    run,
    settle,
    start,
)
from neurons.front import FINE, decay_table, flush_shift
from neurons.graph import (
    INPUT,
    LONGEST_US,
    Graph,
    Population,
    Projection,
    check_graph,
    firing_order,
    n_units,
    shape_of,
    unit_values,
)
from neurons.graph_file import load_graph
from neurons.inhibition import Inhibition
from neurons.integrate_fire import IntegrateFireUnits
from neurons.izhikevich import IzhikevichUnits, resting_point
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.quantised_dense import QuantisedDense, dense
from neurons.quantised_front import LONGEST_RUN
from neurons.sparse import Sparse
from neurons.threshold import ThresholdUnits
from stream.errors import ConfigError, RunError, StreamError
from stream.jit import kernel
from stream.lanes import aligned
from stream.operator import Emit, Operator, Port, Snapshot, check_shapes
from stream.packet import ANSWER_DTYPE, EVENT_DTYPE, SPIKE_DTYPE, Label, Mark, Packet, Reset, packet_of

__all__ = ["Network"]

BEFORE_ALL_US = -(2**61)
LATEST_US = 2**61
MOST_WAITING = 2**22  # spikes on their way; more is a network that fires more and more
ROOM = 16384  # spikes that go out before Python is entered
TOPOLOGIES = (Dense, Convolution, Pooling, Sparse, Inhibition, OneToOne)  # as neurons.engine numbers them

# what of State.book belongs to the state between two calls
BOOK_KEPT = [NEXT_SEQUENCE, ANCHOR_US, TICKING, N_SPIKES, N_DELIVERIES]

# places of Network._clock
DONE_US, BEGUN, WINDOW_US, N_ITEMS = range(4)
N_CLOCK = 4

Discipline = Literal["event", "phase"]
Precision = Literal["float32", "float64"]


@kernel
def _encode(events: Any, width: int, channels: int, items: Any) -> int:
    """Write events as spikes of input units; one channel: both polarities are the same unit."""
    for k in range(len(events)):
        items[k]["t"] = events[k]["t"]
        items[k]["unit"] = unit_of(events[k], width) >> (2 - channels)
    return len(events)


@kernel
def _pick(fired: Any, n_fired: int, population: int, spikes: Any) -> int:
    """Copy the spikes of one population; returns how many."""
    n = 0
    for k in range(n_fired):
        if fired[k]["population"] == population:
            spikes[n]["t"] = fired[k]["t"]
            spikes[n]["unit"] = fired[k]["unit"]
            n += 1
    return n


@kernel
def _first_unfit(items: Any, n: int, t_us: int, latest_us: int) -> int:
    """Find the first spike of a unit that is not there, or before its predecessor; ``len(items)`` if there is none."""
    for k in range(len(items)):
        t = items[k]["t"]
        if items[k]["unit"] >= n or t < t_us or t > latest_us:
            return k
        t_us = t
    return len(items)


# -- from a graph to tables --------------------------------------------------------------------------------------------


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


class _Build(NamedTuple):
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


def _compile(graph: Graph, real: Any, phase_us: int) -> _Build:
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
    return _Build(program, rest, v, w, n_groups)


# -- the operator ------------------------------------------------------------------------------------------------------


def _nothing() -> None:
    """Begin no window."""


def _copy(state: State) -> State:
    return State(**{name: array.copy() for name, array in state._asdict().items()})


class Network(Operator):
    """A network of spiking populations, run event by event.

    Parameters
    ----------
    path
        A network file, written by ``neurons.graph_file.save_graph``. From Python: :meth:`of`.
    discipline
        ``event``: thresholds are tested at every event. ``phase``: once at the end of every ``phase_us``.
    phase_us
        Length of a phase, us; only for ``phase``.
    readout
        A population of leaky integrators that answers at ``Label`` marks; none if empty.
    precision
        Of weights and states, ``float32`` or ``float64``. Times are int64 and their differences float64 anyway.

    Raises
    ------
    ConfigError
        If the file or the network is not in order, or ``readout`` or the discipline do not fit it.

    Notes
    -----
    Operators may be spread over processes in any way: same bits (``tests/neurons/test_split.py``). To cut *one network*
    in two operators is another thing: it makes another program of it, with the same bits if what lies before the cut
    fires at input events alone, and one population lies behind it. More cannot be had, for what crosses the cut is a
    time and a unit, and not

    - when it was scheduled: what fires by itself before the cut may meet, in its very microsecond, a delayed spike or a
      crossing behind it. One network goes by the order of scheduling; behind the cut an input event comes after what is
      due inside;
    - of which cascade it was: one event may make several units fire. In one network a population behind hears all of
      them before it hears what another one makes of the first; behind the cut each is an event of its own.

    The road not taken, an order by microsecond and population instead of by cause, could be cut anywhere, but all
    events of a microsecond would be one happening, in which the layers behind lose who caused what.

    Input: a network with inputs (height, width, 2) takes the events of such a sensor; with (height, width, 1) too, both
    polarities alike; any other takes spikes.
    """

    def __init__(
        self,
        *,
        path: str,
        discipline: Discipline = "event",
        phase_us: int = 1000,
        readout: str = "",
        precision: Precision = "float32",
    ) -> None:
        self._set_up(load_graph(Path(path)), discipline, phase_us, readout, precision)

    @classmethod
    def of(
        cls,
        graph: Graph,
        *,
        discipline: Discipline = "event",
        phase_us: int = 1000,
        readout: str = "",
        precision: Precision = "float32",
    ) -> "Network":
        """Make one from a graph; parameters and errors as for the class."""
        network = cls.__new__(cls)
        network._set_up(graph, discipline, phase_us, readout, precision)
        return network

    def _set_up(self, graph: Graph, discipline: Discipline, phase_us: int, readout: str, precision: Precision) -> None:
        check_graph(graph)
        for name, value, allowed in (
            ("discipline", discipline, get_args(Discipline)),
            ("precision", precision, get_args(Precision)),
        ):
            if value not in allowed:
                raise ConfigError(f"Network {name}: got {value!r}, wanted one of {', '.join(allowed)}")
        if discipline == "phase":
            if not 1 <= phase_us <= LONGEST_US:
                raise ConfigError(f"Network phase_us: got {phase_us}, wanted whole us, 1 to {LONGEST_US}")
            for population in graph.populations:
                if isinstance(population.model, IzhikevichUnits):
                    raise ConfigError(
                        f"population '{population.name}': Izhikevich's units have steps of their own; run the network "
                        f"with discipline 'event'"
                    )
        self.graph = graph
        self._names = [population.name for population in graph.populations]
        integrators = [p.name for p in graph.populations if isinstance(p.model, LeakyIntegratorUnits)]
        if readout and readout not in integrators:
            raise ConfigError(
                f"Network readout: got '{readout}', wanted a population of leaky integrators "
                f"({', '.join(integrators) or 'there is none'}), or none"
            )
        self._readout = self._names.index(readout) if readout else -1
        if readout and "answers" in self._names:
            raise ConfigError("population 'answers': with a readout, that is the name of an output; call it otherwise")
        self._n_inputs = n_units(graph.inputs)
        self._channels = 0  # spikes in
        if len(graph.inputs) == 3 and graph.inputs[2] <= 2 and max(graph.inputs[:2]) <= 2**16:
            height, width, self._channels = graph.inputs
            self._width, self._height = int(width), int(height)
            self.inputs = {"events": Port("events", self._width, self._height)}
        else:
            self.inputs = {"spikes": Port("spikes", n_units=self._n_inputs)}
        self.outputs = {
            p.name: Port("spikes", n_units=n_units(p.shape)) for p in graph.populations if p.name not in integrators
        }
        if readout:
            self.outputs["answers"] = Port("answers")
        real = np.dtype(precision)
        self._program, self._rest, self._v, self._w, n_groups = _compile(
            graph, real, int(phase_us) if discipline == "phase" else 0
        )
        n_all = len(self._v)
        most = 2 * max(n_units(p.shape) for p in graph.populations)
        n_whole = len(self._program.scale)
        self.state = State(
            v=aligned(np.zeros(n_all, real)),
            w=np.zeros(n_all, real),
            integral_us=np.zeros(n_all),
            held_us=np.zeros(n_all, np.int64),
            lag_us=np.zeros(n_all),
            next_us=np.zeros(n_all, np.int64),
            next_sequence=np.zeros(n_all, np.int64),
            t_us=np.zeros(n_groups, np.int64),
            pending=np.zeros(n_whole, np.int32),
            progress=np.zeros((len(self._names), N_PROGRESS_COLUMNS), np.int64),
            book=np.zeros(N_BOOK, np.int64),
            # room for what a network at rest schedules by itself
            heap=np.zeros((max(64, n_all + len(self._names) + 1), 5), np.int64),
            queue=np.zeros(max(most, n_all, LONGEST_RUN * n_whole), np.int64),
            spare=aligned(np.zeros(most // 2, real)),
            hot=np.zeros((most + 256, 3), np.int64),
            runs=np.zeros((3, LONGEST_RUN + 1), np.int64),
            notes=np.zeros((2, LONGEST_RUN * n_whole), np.int64),
            log_us=np.zeros((len(self._names), 0), np.int64),
            log_unit=np.zeros((len(self._names), 0), np.int64),
            tape=np.zeros((0, 4), np.int64),
            taped=np.zeros(0),
        )
        self._out = np.zeros(max(ROOM, most, n_all, 2 * LONGEST_RUN * n_whole), FIRED_DTYPE)
        self._picked = np.zeros(len(self._out), SPIKE_DTYPE)
        self._items = np.zeros(0, SPIKE_DTYPE)
        self._clock = np.zeros(N_CLOCK, np.int64)
        self._clock[DONE_US] = BEFORE_ALL_US
        self._origin_ns = 0  # of the last packet: an answer's latency counts from there
        self._begin_window: Callable[[], None] = _nothing
        self._rest_at(0)

    def _rest_at(self, t_us: int) -> None:
        """Put everything to rest; nothing is scheduled."""
        state = self.state
        state.v[...] = self._v
        state.w[...] = self._w
        for array in (state.integral_us, state.lag_us, state.pending):
            array.fill(0)
        state.held_us.fill(BEFORE_ALL_US)
        state.next_us.fill(NEVER_US)
        state.next_sequence.fill(-1)
        state.t_us.fill(t_us)
        state.progress.fill(0)
        state.progress[:, HELD_UNTIL_US] = BEFORE_ALL_US
        kept = [N_SPIKES, N_DELIVERIES, N_TAPE, TAPE_STOP]
        counts = state.book[kept]
        state.book.fill(0)
        state.book[kept] = counts
        state.book[ARRIVING] = -1

    def _start(self, t_us: int) -> None:
        self._rest_at(t_us)
        start(self._program, self.state, t_us)
        self._clock[[BEGUN, WINDOW_US]] = 1, t_us
        self._begin_window()

    def begin(self, t_us: int) -> None:
        """Begin another stream at ``t_us``: everything at rest, whatever was before."""
        self._clock[DONE_US] = BEFORE_ALL_US
        self._start(t_us)

    # -- running -------------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Compile every kernel, on a copy of the state."""
        nothing = read_only(np.empty(0, SPIKE_DTYPE))
        state = self.state
        self.state = _copy(state)
        clock = self._clock.copy()
        try:
            self._start(0)
            self._run(nothing, 0, BEFORE_ALL_US)  # of a plastic network: the kernel with its rules, not the plain one
            settle(self._program, self.state, 0, 0, self._out)
            _pick(self._out, 0, 0, self._picked)
            compact(self.state.heap, self.state.book, self.state.next_sequence)
            _first_unfit(nothing, self._n_inputs, BEFORE_ALL_US, LATEST_US)
            if self._channels:
                _encode(read_only(np.empty(0, EVENT_DTYPE)), self._width, self._channels, self._items)
        finally:
            self.state, self._clock = state, clock

    def run(self, items: NDArray[np.void], until_us: int | None = None) -> dict[str, NDArray[np.void]]:
        """Take in events or spikes and return what they and time cause.

        Parameters
        ----------
        items
            EVENT_DTYPE or SPIKE_DTYPE as the network's input is, shape (n,), sorted by ``t``, not earlier than what was
            run already.
        until_us
            What is due inside up to here happens too, us; default: the last item's time.

        Returns
        -------
        dict
            For each population of a spiking model its spikes, SPIKE_DTYPE, shape (n_spikes,), sorted by ``t``.

        Raises
        ------
        StreamError
            If an item is of no input unit or goes back in time; the state is then as before the call.
        """
        if until_us is None:
            if not len(items) and not self._clock[BEGUN]:
                return {name: np.empty(0, SPIKE_DTYPE) for name in self._names if name in self.outputs}
            until_us = int(items["t"][-1]) if len(items) else int(self._clock[DONE_US])
        spikes = self._check(items)
        if not self._clock[BEGUN]:
            self._start(int(items["t"][0]) if len(items) else until_us)
        return self._advance(spikes, until_us)

    def _check(self, items: NDArray[np.void]) -> NDArray[np.void]:
        """Return items as spikes of input units, read-only; StreamError if one does not fit."""
        items = read_only(items)
        done_us = int(self._clock[DONE_US])
        if self._channels:
            check_events("network", items, self._width, self._height, done_us)
            if len(items) > len(self._items):
                self._items = np.empty(len(items), SPIKE_DTYPE)
            n = _encode(items, self._width, self._channels, self._items)
            return read_only(self._items[:n])
        k = _first_unfit(items, self._n_inputs, done_us, LATEST_US)
        if k < len(items):
            t, unit = (int(number) for number in items[k].tolist())
            before = int(items["t"][k - 1]) if k else done_us
            raise StreamError(
                f"network: spike {k} of the packet is (t={t} us, unit={unit}), wanted unit < {self._n_inputs} and t "
                f"from {before} us to {LATEST_US} us; check the network's inputs, or send a new stream through a fresh "
                f"pipeline"
            )
        return items

    def _advance(self, spikes: NDArray[np.void], until_us: int) -> dict[str, NDArray[np.void]]:
        until_us = max(until_us, int(self._clock[DONE_US]))
        parts: dict[str, list[NDArray[np.void]]] = {name: [] for name in self.outputs if name in self._names}
        k, code = 0, OUT_FULL
        while code != DONE:
            self.state.book[N_OUT] = 0
            k, n_out, code = self._run(spikes, k, until_us)
            for name, mine in parts.items():
                n = _pick(self._out, n_out, self._names.index(name), self._picked)
                mine.append(self._picked[:n].copy())
            if code == QUEUE_FULL:
                self._enlarge("queue")
            elif code == HEAP_FULL:
                self._enlarge("heap")
            elif code == LOG_FULL:
                self._lengthen_log()
            elif code == TAPE_FULL:
                self._lengthen_tape(len(self.state.tape))
            elif code == WINDOW_FULL:
                self._begin_window()
            elif code == OUT_FULL and n_out == 0:
                self._out = np.zeros(2 * len(self._out), FIRED_DTYPE)
                self._picked = np.zeros(2 * len(self._picked), SPIKE_DTYPE)
        self._clock[DONE_US] = until_us
        self._clock[N_ITEMS] += len(spikes)
        return {name: mine[0] if len(mine) == 1 else np.concatenate(mine) for name, mine in parts.items()}

    def _run(self, spikes: NDArray[np.void], first: int, until_us: int) -> tuple[int, int, int]:
        """Run the kernel once; as ``neurons.engine.run``. A network whose weights change puts its own here."""
        return run(self._program, self.state, spikes, first, until_us, self._out)

    def _lengthen_log(self) -> None:
        state = self.state
        more = [(0, 0), (0, max(256, state.log_us.shape[1]))]
        self.state = state._replace(log_us=np.pad(state.log_us, more), log_unit=np.pad(state.log_unit, more))

    def _lengthen_tape(self, more: int) -> None:
        state = self.state
        self.state = state._replace(tape=np.pad(state.tape, [(0, more), (0, 0)]), taped=np.pad(state.taped, (0, more)))

    def on_window(self, begin: Callable[[], None], window_entries: int) -> None:
        """Switch the tape of ``neurons.engine`` on.

        Parameters
        ----------
        begin
            Called when a window begins: where time does (a ``Reset`` mark), and when the tape is full. It has to set
            ``book[N_TAPE]`` to 0.
        window_entries
            When it is full.
        """
        # the fast loop does not know potentials before hard resets, that of whole numbers none at all
        front = self._program.front
        way = self._program.projection[front]
        if front >= 0 and (way[WHOLE] or self._program.population[way[TARGET], HARD]):
            self._program = self._program._replace(front=-1)
        self._begin_window = begin
        self.state.book[[N_TAPE, TAPE_STOP]] = 0, window_entries
        most = int(np.max(self._program.population[:, UNITS] * (1 + self._program.population[:, N_DIRECT])))
        self._lengthen_tape(window_entries + most + 1024)

    def _enlarge(self, name: str) -> None:
        old = getattr(self.state, name)
        if len(old) >= MOST_WAITING:
            raise RunError(
                f"network: {len(old)} spikes are waiting to be delivered at {int(self.state.book[NOW_US])} us; each "
                f"sets off more than one other. Make the weights of its cycles smaller, or its units refractory"
            )
        new = np.zeros((2 * len(old), *old.shape[1:]), old.dtype)
        new[: len(old)] = old
        self.state = self.state._replace(**{name: new})

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Run a packet, and what is due up to its end; one packet to every output."""
        spikes = self._check(packet.items)
        self._pass_on(packet, emit)
        if not self._clock[BEGUN]:
            self._start(packet.start_us)
        for name, out in self._advance(spikes, packet.end_us - 1).items():
            # what was due between the packets may lie before this one
            first_us = min(packet.start_us, int(out["t"][0])) if len(out) else packet.start_us
            emit(name, Packet(out, first_us, packet.end_us, packet.origin_ns))
        self._origin_ns = packet.origin_ns

    def _until(self, mark: Mark, emit: Emit) -> None:
        """Run what is due up to a mark; StreamError if it goes back in time."""
        if mark.t_us < self._clock[DONE_US]:
            raise StreamError(
                f"network: {type(mark).__name__} mark at {mark.t_us} us, wanted {int(self._clock[DONE_US])} us or "
                f"later; marks stand where they happened in the stream"
            )
        if not self._clock[BEGUN]:
            self._start(mark.t_us)
        for name, out in self._advance(read_only(np.empty(0, SPIKE_DTYPE)), mark.t_us).items():
            if len(out):
                emit(name, packet_of(out))

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Run what is due up to a mark, obey it, pass it on; StreamError if it goes back in time."""
        self._until(mark, emit)
        if isinstance(mark, Reset):
            self._start(mark.t_us)
        elif isinstance(mark, Label):
            self._at_label(mark)
            if self._readout >= 0:
                scores = self.averages(self._names[self._readout])
                row = (mark.t_us, mark.start_us, mark.label, int(np.argmax(scores)), mark.teach)
                emit("answers", Packet(np.array([row], ANSWER_DTYPE), mark.t_us, mark.t_us + 1, self._origin_ns))
            for p, row in enumerate(self._program.population):
                if row[MODEL] == LEAKY_INTEGRATOR:
                    settle(self._program, self.state, p, mark.t_us, self._out)
            self.state.integral_us.fill(0)
            self._clock[WINDOW_US] = mark.t_us
        super().on_mark(port, mark, emit)

    def _pass_on(self, packet: Packet, emit: Emit) -> None:
        """Do what is to be done with a packet that fits before it is run; a network that forwards puts its own here."""

    def _at_label(self, mark: Label) -> None:
        """Do what is to be done while the window of a label still stands; a network that learns puts its own here."""

    # -- reading -------------------------------------------------------------------------------------------------------

    def _settled(self, name: str) -> tuple[State, slice, tuple[int, ...]]:
        """Return a copy of the state in which a population stands at the time run up to, and where it is."""
        shape = shape_of(self.graph, name)
        p = self._names.index(name)
        state = _copy(self.state._replace(tape=np.zeros((0, 4), np.int64), taped=np.zeros(0)))
        row = self._program.population[p]
        first = int(row[FIRST])
        if self._clock[BEGUN]:
            # what Izhikevich's units fire on the way from their last step is not real yet, but needs room
            state.book[[N_QUEUE, N_OUT]] = 0
            room = np.zeros((len(state.heap) + int(row[UNITS] * row[N_DELAYED]), 5), np.int64)
            room[: len(state.heap)] = state.heap
            settle(self._program, state._replace(heap=room), p, int(self._clock[DONE_US]), self._out)
        return state, slice(first, first + n_units(shape)), shape

    def potentials(self, name: str) -> NDArray[Any]:
        """Return the membrane potentials of a population at the time run up to; reading changes nothing.

        Returns
        -------
        real, shape of the population
        """
        state, units, shape = self._settled(name)
        values: NDArray[Any] = state.v[units] + self._rest[units].astype(state.v.dtype)
        return values.reshape(shape)

    def averages(self, name: str) -> NDArray[np.float64]:
        """Return the time averages of a leaky integrator's potentials over the window so far.

        The window begins with the stream, a ``Reset`` or a ``Label``. When no time has passed: the potentials.

        Returns
        -------
        float64, shape of the population
        """
        state, units, shape = self._settled(name)
        span_us = int(self._clock[DONE_US] - self._clock[WINDOW_US])
        if span_us <= 0:
            return self.potentials(name).astype(np.float64)
        return (state.integral_us[units] / span_us + self._rest[units]).reshape(shape)

    # -- the contract --------------------------------------------------------------------------------------------------

    def _kept(self) -> Snapshot:
        """Return the arrays of the state with a fixed shape."""
        state = self.state
        names = ("v", "w", "integral_us", "held_us", "lag_us", "next_us", "next_sequence", "t_us", "pending")
        kept: Snapshot = {name: getattr(state, name) for name in names}
        return kept | {
            "progress": state.progress[:, HELD_UNTIL_US:],
            "book": state.book[BOOK_KEPT],
            "clock": self._clock,
        }

    def snapshot(self) -> Snapshot:
        """Return a copy of the whole state; what is scheduled stands in the order in which it will happen."""
        compact(self.state.heap, self.state.book, self.state.next_sequence)
        heap = self.state.heap[: self.state.book[N_HEAP]]
        heap = heap[np.lexsort((heap[:, SEQUENCE], heap[:, TIME]))]
        return {name: array.copy() for name, array in self._kept().items()} | {"heap": heap}

    def restore(self, snapshot: Snapshot) -> None:
        """Take over a state; ConfigError, and no change, if it is that of another network."""
        heap = np.asarray(snapshot.get("heap", np.zeros(0)))
        n = len(heap) if heap.ndim else 0
        check_shapes("Network", self._kept() | {"heap": np.zeros((n, 5), np.int64)}, snapshot)
        state = self.state
        if n > len(state.heap):
            state = self.state = state._replace(heap=np.zeros((2 * n, 5), np.int64))
        for name, array in self._kept().items():
            if name not in ("progress", "book"):
                array[...] = snapshot[name]
        state.progress[:, HELD_UNTIL_US:] = snapshot["progress"]
        state.book[BOOK_KEPT] = snapshot["book"]
        state.heap[:n] = heap  # sorted: a heap as it is
        state.book[N_HEAP] = n

    def statistics(self) -> dict[str, float]:
        """Return counts: items in, spikes fired, spikes delivered (each through one projection), waiting inside."""
        book = self.state.book
        return {
            "items": float(self._clock[N_ITEMS]),
            "spikes": float(book[N_SPIKES]),
            "deliveries": float(book[N_DELIVERIES]),
            "waiting": float(book[N_HEAP]),
        }
