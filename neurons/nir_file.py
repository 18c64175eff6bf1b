"""Networks in NIR, the exchange format of spiking frameworks: ``.nir`` files in and out.

::

    graph = from_nir("trained.nir", dt_us=1000.0, step="euler", reset="soft")      # what snnTorch, Norse, ... exported
    spikes = Network.of(graph, discipline="phase", phase_us=1000).run(events)

NIR (https://neuroir.org) says what a network is in continuous time and leaves open how a simulator steps through it. A
spiking network needs more than that to run, so what NIR leaves open is a parameter here, and nothing is guessed.

What a spike is
---------------
NIR's equation of a LIF neuron is ``tau dv/dt = v_leak - v + R I``. Its input I is a *current*, and a spike is no
current until one says how long it lasts. In the frameworks that export, a spike is a 1 during one time step: ``dt_us``
is that step. ``step`` says how the framework steps: how far a spike of weight 1 lifts v, and what is left of v a step
later:

============ ===================== ===================== ======================================================
step         lift                  left after dt         who
============ ===================== ===================== ======================================================
``impulse``  R dt / tau            exp(-dt / tau)        the equation, with all the charge at the spike's time
``pulse``    R (1 - exp(-dt/tau))  exp(-dt / tau)        the equation, the current held for dt: sinabs
``euler``    R dt / tau            1 - dt / tau          Norse, snnTorch, most that step
============ ===================== ===================== ======================================================

``euler`` makes the time constants ``-dt / ln(1 - dt / tau)``, so that dt leaves what the framework's step leaves; and
it lifts the current of a CubaLIF so that v, a difference of two exponentials, is the framework's at every step. In the
other two the current of a CubaLIF is lifted by ``w_in dt / tau_syn`` (pulse: likewise); an IF always by ``R dt``.

Exporters, as they were when this was written. In phases of dt these networks fire as in the framework, one phase later
for each layer (two for a CubaLIF):

========== ===== ===== ===== ============ ===========================================================================
framework  dt_us step  reset time_unit_us take care
========== ===== ===== ===== ============ ===========================================================================
snnTorch   100   euler soft  1e6          its dt is nominal: for steps of 1 ms give dt_us=1000 and time_unit_us=1e7.
                                          reset_mechanism="zero": reset hard. "subtract" is this neuron with
                                          reset_delay=False and weights that leave no unit above its threshold after
                                          a spike; the default, reset_delay=True, subtracts one step late: another one
Norse      1000  euler hard  1e6          export with dt=1: ``to_nir`` writes dt / tau_mem_inv. The w_in of its LIFCell
                                          is left at 1, but acts as tau_syn / dt
sinabs     1     pulse soft  1            times are steps: give their length as both. Several spikes in one step are one
                                          here (spike_fn=SingleSpike is the same). norm_input is not in the file
========== ===== ===== ===== ============ ===========================================================================

Bias
----
The bias of Affine and Conv2d is a constant current into the neurons behind it. It moves the resting potential of LIF,
LI and CubaLIF by R b (R w_in b), and is the drive of an IF. Units start *at* their resting potential, where frameworks
start at 0. A Threshold with a bias above its threshold would fire without input and is refused.

Maps and lines
--------------
NIR's maps are (channels, height, width), ours (height, width, channels). Weights are permuted once, exactly, behind a
Flatten too. Leading dimensions of an Input that what follows does not want (batches, time) are left out.

What stands between two populations becomes one projection. Pooling before a convolution is merged into its kernel if
that is exact, Scales into weights; other chains are multiplied out (``Sparse``; ``Dense`` with a Linear in them).

Cycles
------
Along a cycle of NIR a spike may come back in no time; here it takes 1 us at least (``neurons.graph``). Projections that
close a cycle without a Delay get ``feedback_delay_us``. Run in phases, a spike takes one phase anyway, as it takes one
step in a framework: 1 us is right then. Run event by event, give the framework's step.

What NIR cannot say
-------------------
``to_nir`` puts into metadata, under ``hebbstream``: a soft reset (NIR's is hard), refractory times, which matrix was
sparse, one-to-one or inhibition, the order of populations and projections, numbers that seconds would round, and the
dt. They are read again here, so that ``from_nir(to_nir(graph))`` is the same network to the bit; only stored zeros of a
sparse matrix are gone. Other readers ignore them. Refused: AdaptiveLIF, Izhikevich, maps that get spikes from lines.

Not read: Conv1d. CubaLI and I, which have no threshold, become neurons that cannot reach theirs (1e30).
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from neurons.convolution import Convolution
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import (
    INPUT,
    LONGEST_US,
    Graph,
    Model,
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
from neurons.inhibition import Inhibition
from neurons.integrate_fire import IntegrateFireUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.nir_maps import (
    LinearMap,
    Matrix,
    Scale,
    Synapses,
    Values,
    Windows,
    applied,
    channel_values,
    check_size,
    joined,
    reduced,
    synapses_of,
    width_of,
)
from neurons.nir_nodes import (
    LINKS,
    MOST_UNITS,
    NEURONS,
    OURS,
    PASSED,
    Link,
    Node,
    array_of,
    described,
    dimensions,
    int_of,
    lay_open,
    link_of,
    load_file,
    own_shape,
    parameters,
    text_of,
    without_batch,
)
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.sparse import Sparse, sparse_of
from neurons.threshold import ThresholdUnits
from stream.errors import ConfigError, FormatError

__all__ = ["Step", "from_nir", "to_nir", "write_nir"]

Step: TypeAlias = Literal["impulse", "pulse", "euler"]


SECOND_US = 1e6
UNREACHABLE = 1e30  # threshold of what has none; float32 holds it


MOST_PATHS = 10_000  # between populations


class _Layout(NamedTuple):
    """How the units of something are called there and here."""

    there: Shape  # NIR's shape
    here: Shape
    place: NDArray[np.int64]  # of NIR's unit k: our unit


def _layout(there: Shape, map_shape: Any = None) -> _Layout:
    """Return our shape, and order of units, for something of NIR's shape ``there``."""
    here = (there[1], there[2], there[0]) if len(there) == 3 else (n_units(there),)
    if map_shape is not None:  # a map of ours that had to be written as a line
        sides = tuple(int(side) for side in np.asarray(map_shape).reshape(-1))
        if len(sides) == 3 and n_units(sides) == n_units(there):
            here = sides
    return _Layout(there, here, _channels_first(here))


def _channels_first(here: Shape) -> NDArray[np.int64]:
    """Return our units in NIR's order."""
    units = np.arange(n_units(here))
    return units.reshape(here).transpose(2, 0, 1).reshape(-1) if len(here) == 3 else units


# -- from NIR ----------------------------------------------------------------------------------------------------------


def from_nir(
    source: Any,
    *,
    dt_us: float | None = None,
    step: Step = "impulse",
    reset: Literal["soft", "hard"] | None = None,
    feedback_delay_us: int = 1,
    time_unit_us: float = SECOND_US,
) -> Graph:
    """Make a network of a NIR graph.

    Parameters
    ----------
    source
        A ``nir.NIRGraph``, or the path of a ``.nir`` file (for which the package nir is not needed).
    dt_us
        How long a spike is a current of 1, us: the time step of the framework that exported. Needed unless
        :func:`to_nir` made the graph, or it holds nothing but Threshold neurons. A spike that is an impulse of charge 1
        in the file's unit of time: ``dt_us=time_unit_us``.
    step
        How the framework steps; see the module.
    reset
        What a spike does to the potential. NIR's equation says ``hard``: to v_reset; many frameworks mean ``soft``:
        down by v_threshold - v_reset. Default: what ``to_nir`` noted, else hard.
    feedback_delay_us
        Delay of projections that close a cycle which has none, us, 1 or more.
    time_unit_us
        The file's unit of time, us. NIR says seconds; some exporters count steps.

    Returns
    -------
    Graph
        Checked; populations named as the nodes, with '-', '_', letters and digits kept and '_' for the rest.

    Raises
    ------
    FormatError
        If the file is damaged, or a node lacks something or holds what it cannot.
    ConfigError
        If the network, or a parameter, is nothing that runs here; the message says what and what to do.
    """
    if step not in get_args(Step):
        raise ConfigError(f"NIR step: got {step!r}, wanted one of {', '.join(get_args(Step))}")
    if reset not in (None, "soft", "hard"):
        raise ConfigError(f"NIR reset: got {reset!r}, wanted 'soft' or 'hard'")
    if not isinstance(feedback_delay_us, int | np.integer) or not 1 <= feedback_delay_us <= LONGEST_US:
        raise ConfigError(f"NIR feedback_delay_us: got {feedback_delay_us}, wanted whole us, 1 or more")
    top = load_file(Path(source).expanduser()) if isinstance(source, str | Path) else described(source)
    if text_of(top.get("type", "NIRGraph")) != "NIRGraph":
        raise ConfigError(f"NIR: got a single {text_of(top.get('type'))}, wanted a NIRGraph; wrap it in one")
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    lay_open(top, "", nodes, edges)
    metadata = top.get("metadata")
    ours = metadata.get(OURS, {}) if isinstance(metadata, Mapping) else {}
    if dt_us is None and isinstance(ours, Mapping) and "dt_us" in ours:
        dt_us = float(array_of(Node("metadata", "NIRGraph", ours, {}), "dt_us").flat[0])
    for name, number in (("dt_us", dt_us), ("time_unit_us", time_unit_us)):
        if number is not None and not 0 < number < np.inf:
            raise ConfigError(f"NIR {name}: got {number}, wanted us above 0")
    clock = _Clock(time_unit_us, None if dt_us is None else dt_us / time_unit_us, step)
    net = _Net(nodes, edges)
    populations = {name: _population(net, name, clock, reset) for name in net.populations}
    names = _names(net.populations, nodes)
    layouts = {net.entry: _layout(net.shape[net.entry])} | {
        name: _layout(net.shape[name], nodes[name].ours.get("map_shape")) for name in net.populations
    }
    projections: list[tuple[int, Projection]] = []
    is_numbered = True
    for origin in (net.entry, *net.populations):
        for target, path in net.paths(origin):
            ops = [op for name in path for op in net.links[name].ops]
            gain = populations[target].gain
            if np.any(gain != 1.0):
                ops.append(Scale(gain.reshape(net.shape[target])))
            hints = [nodes[name].ours for name in path]
            number = next((n for hint in hints if (n := int_of(hint, "projection")) is not None), None)
            is_numbered &= number is not None
            delay_us = _delay_us(sum(net.links[name].delay for name in path) * time_unit_us, hints)
            topology = _topology(ops, layouts[origin], layouts[target], hints)
            projections.append(
                (
                    number or 0,
                    Projection(names.get(origin, INPUT), names[target], topology, delay_us),
                )
            )
    if is_numbered:
        projections.sort(key=lambda numbered: numbered[0])
    listed = list(net.populations)
    if all(int_of(nodes[name].ours, "population") is not None for name in listed):
        listed.sort(key=lambda name: int(nodes[name].ours["population"]))
    graph = Graph(
        layouts[net.entry].here,
        tuple(
            Population(names[name], _in_our_order(populations[name].model, layouts[name]), layouts[name].here)
            for name in listed
        ),
        tuple(
            _with_feedback([projection for _, projection in projections], list(names.values()), int(feedback_delay_us))
        ),
    )
    check_graph(graph)
    return graph


class _Net:
    """Nodes and edges with what follows from them: shapes, and the ways between populations.

    Attributes
    ----------
    entry : str
        The Input.
    populations : list of str
        In the order in which a spike from the input may reach them first.
    shape : dict
        NIR's shape behind each node.
    links : dict
        Of each node that is no population.
    """

    def __init__(self, nodes: dict[str, Node], edges: list[tuple[str, str]]) -> None:
        self.nodes = nodes
        self.after: dict[str, list[str]] = {name: [] for name in nodes}
        before: dict[str, list[str]] = {name: [] for name in nodes}
        for a, b in edges:
            self.after[a].append(b)
            before[b].append(a)
        entries = [name for name, node in nodes.items() if node.kind == "Input" and not before[name]]
        if len(entries) != 1:
            raise ConfigError(
                f"NIR graph: {len(entries)} Input nodes that nothing leads to ({', '.join(entries) or 'none'}), "
                f"wanted 1"
            )
        self.entry = entries[0]
        self.populations: list[str] = []
        self.shape: dict[str, Shape] = {}
        self.links: dict[str, Link] = {}
        self._explore()

    def _explore(self) -> None:
        """Find every shape, from the input on; then from neurons that it does not reach."""
        first = dimensions(self.nodes[self.entry])
        for name in self.after[self.entry]:
            first = without_batch(first, self.nodes[name])
        self._know(self.entry, first)
        waiting = [self.entry]
        rest = [name for name, node in self.nodes.items() if node.kind in NEURONS]
        while waiting or rest:
            if not waiting:
                name = rest.pop(0)
                if name in self.shape:
                    continue
                self._know(name, own_shape(self.nodes[name]) or (1,))
                waiting.append(name)
            here = waiting.pop(0)
            for name in self.after[here]:
                if name not in self.shape:
                    self._know(name, self.shape[here])
                    waiting.append(name)
                elif (there := self._behind(self.nodes[name], self.shape[here])) != self.shape[name]:
                    raise FormatError(f"NIR node '{name}': is reached with shapes {there} and {self.shape[name]}")
        lost = [name for name, node in self.nodes.items() if name not in self.shape and node.kind in LINKS]
        if lost:
            raise ConfigError(f"NIR node '{lost[0]}' ({self.nodes[lost[0]].kind}): nothing leads to it; leave it out")

    def _behind(self, node: Node, shape: Shape) -> Shape:
        """Return the shape behind a node that stands behind ``shape``."""
        if node.kind not in NEURONS:
            return link_of(node, shape).shape
        own = own_shape(node)
        try:
            if own is None or np.broadcast_shapes(own, shape) == shape:
                return shape
        except ValueError:
            pass
        raise FormatError(f"NIR node '{node.name}' ({node.kind}): parameters of shape {own} behind shape {shape}")

    def _know(self, name: str, shape: Shape) -> None:
        node = self.nodes[name]
        behind = self._behind(node, shape)
        if n_units(behind) > MOST_UNITS:
            raise FormatError(f"NIR node '{name}' ({node.kind}): has shape {behind}, wanted {MOST_UNITS} units at most")
        self.shape[name] = behind
        if node.kind in NEURONS:
            self.populations.append(name)
        else:
            self.links[name] = link_of(node, shape)

    def paths(self, origin: str) -> Iterator[tuple[str, list[str]]]:
        """Yield each population that spikes from here come to, and the nodes on the way."""
        waiting: list[tuple[str, list[str]]] = [(name, []) for name in reversed(self.after[origin])]
        n_paths = 0
        while waiting:
            name, path = waiting.pop()
            n_paths += 1
            if n_paths > MOST_PATHS or name in path:
                raise ConfigError(
                    f"NIR node '{name}': a cycle without a neuron in it, or too many ways between neurons"
                )
            if self.nodes[name].kind in NEURONS:
                yield name, path
            elif self.after[name]:
                waiting += [(after, [*path, name]) for after in reversed(self.after[name])]
            elif self.nodes[name].kind != "Output" or any(self.nodes[p].kind not in PASSED for p in path):
                last = next((p for p in reversed([*path, name]) if self.nodes[p].kind not in PASSED), name)
                raise ConfigError(
                    f"NIR node '{last}' ({self.nodes[last].kind}): leads to no neuron, and what comes out of it would "
                    f"be read by nobody; put neurons behind it (LI sums up what reaches it)"
                )

    def bias(self, target: str) -> Values:
        """Sum up the constant currents into a population; float64, shape (n,), NIR's order."""
        total = np.zeros(n_units(self.shape[target]))
        for name, link in self.links.items():
            if link.bias is None:
                continue
            for reached, path in self.paths(name):
                if reached == target:
                    vector = link.bias
                    for op in (op for between in path for op in self.links[between].ops):
                        vector = applied(op, vector)
                    total += vector
        return total


class _Clock(NamedTuple):
    """The file's time."""

    unit_us: float
    dt: float | None  # in units
    step: Step


class _Units(NamedTuple):
    """A population before its units are put into our order."""

    model: Any
    gain: Values  # (n,): by what weights have to be multiplied


def _is_rough(*arrays: NDArray[Any]) -> float:
    """Return how far a quotient of these may lie from 1 by rounding alone."""
    return 16.0 * max(float(np.finfo(array.dtype).eps) for array in arrays)


def _exact(node: Node, name: str, values: Values) -> Values:
    """Prefer the number that ``to_nir`` noted, if the node's own is the same but for rounding."""
    if name not in node.ours:
        return values
    noted = array_of(Node(node.name, node.kind, node.ours, {}), name).astype(np.float64).reshape(-1)
    if noted.size in (1, values.size) and np.allclose(noted, values, rtol=1e-12, atol=0.0):
        return np.broadcast_to(noted, values.shape).copy()
    return values


def _population(net: _Net, name: str, clock: _Clock, reset: Literal["soft", "hard"] | None) -> _Units:
    """Read a neuron node."""
    node, shape = net.nodes[name], net.shape[name]
    raw = parameters(node)
    value = {key: np.broadcast_to(array.astype(np.float64), shape).reshape(-1).copy() for key, array in raw.items()}
    bias = net.bias(name)
    if node.kind == "Threshold":
        threshold = value["threshold"] - bias
        if np.any(threshold < 0):
            raise ConfigError(
                f"NIR node '{name}' (Threshold): the bias before it is above its threshold, so that it would fire for "
                f"ever without input; that has no times here"
            )
        return _Units(ThresholdUnits(threshold), np.ones(n_units(shape)))
    if clock.dt is None:
        raise ConfigError(
            f"NIR node '{name}' ({node.kind}): takes a current, and the file does not say how long a spike lasts; give "
            f"dt_us, the time step of the framework that exported it (such as 1000)"
        )
    dt, r = clock.dt, value["r"]
    common: dict[str, Any] = {}
    if node.kind not in ("LI", "CubaLI", "I"):
        said = reset or text_of(node.ours.get("reset")) or "hard"
        common = {
            "v_threshold": value["v_threshold"],
            "v_reset": value["v_reset"],
            "reset": said,
            "refractory_us": int_of(node.ours, "refractory_us") or 0,
        }
    elif node.kind != "LI":
        common = {"v_threshold": np.full_like(r, UNREACHABLE)}
    if node.kind in ("IF", "I"):
        drive = _exact(node, "drive_per_us", r * bias / clock.unit_us)
        return _Units(IntegrateFireUnits(drive_per_us=drive, **common), _whole(r * dt, _is_rough(raw["r"])))
    taus = ("tau_syn", "tau_mem") if node.kind.startswith("Cuba") else ("tau",)
    lifts, times_us, kept = {}, {}, {}
    for key in taus:
        tau = value[key]
        if clock.step == "euler":
            if np.any(dt >= tau):
                raise ConfigError(
                    f"NIR node '{name}' ({node.kind}) {key}: {tau.min() * clock.unit_us:g} us is not above dt_us "
                    f"({dt * clock.unit_us:g}), and a step of Euler's would leave nothing; is dt_us, "
                    f"or time_unit_us, right?"
                )
            kept[key] = np.log1p(-dt / tau)  # of what is left after a step, the logarithm
            lifts[key] = dt / tau
            times_us[key] = -dt / kept[key] * clock.unit_us
        else:
            kept[key] = -dt / tau
            lifts[key] = -np.expm1(kept[key]) if clock.step == "pulse" else dt / tau
            times_us[key] = _exact(node, "tau_syn_us" if key == "tau_syn" else "tau_mem_us", tau * clock.unit_us)
    if len(taus) == 1:
        v_leak, tau_us = value["v_leak"] + r * bias, times_us["tau"]
        gain = _whole(r * lifts["tau"], _is_rough(raw["r"], raw["tau"]))
        if node.kind == "LI":
            return _Units(LeakyIntegratorUnits(tau_us, v_leak), gain)
        return _Units(LIFUnits(tau_mem_us=tau_us, v_leak=v_leak, **common), gain)
    gain = value["w_in"] * r * lifts["tau_syn"]
    if clock.step == "euler":
        # a step adds dt / tau_mem of the current; between steps we add the integral of one that decays
        syn, mem = kept["tau_syn"], kept["tau_mem"]
        apart = np.abs(mem - syn) > 1e-9
        slope = np.where(apart, (mem - syn) / np.where(apart, np.expm1(mem) - np.expm1(syn), 1.0), np.exp(-mem))
        gain = gain * slope * lifts["tau_mem"] / -mem
    gain = _whole(gain, _is_rough(raw["r"], raw["w_in"], raw["tau_syn"]))
    v_leak = value["v_leak"] + r * value["w_in"] * bias
    model = CurrentLIFUnits(tau_mem_us=times_us["tau_mem"], tau_syn_us=times_us["tau_syn"], v_leak=v_leak, **common)
    return _Units(model, gain)


def _whole(gain: Values, rough: float) -> Values:
    """Take a gain that differs from 1 by rounding only as 1, so that weights stay what they are."""
    return np.where(np.abs(gain - 1.0) <= rough, 1.0, gain)


def _names(populations: list[str], nodes: Mapping[str, Node]) -> dict[str, str]:
    """Give populations names that a network may have."""
    names: dict[str, str] = {}
    for name in populations:
        plain = re.sub(r"[^0-9A-Za-z_-]", "_", name) or "population"
        unique, n = plain, 1
        while unique == INPUT or unique in names.values():
            n += 1
            unique = f"{plain}_{n}"
        names[name] = unique
    return names


def _delay_us(delay_us: float, hints: list[Mapping[str, Any]]) -> int:
    """Round a delay to whole us, or take the noted one."""
    for hint in hints:
        noted = int_of(hint, "delay_us")
        if noted is not None and np.isclose(noted, delay_us, rtol=1e-12, atol=0.0):
            return noted
    if delay_us > LONGEST_US:
        raise ConfigError(f"NIR Delay: {delay_us} us, wanted {LONGEST_US} at most")
    return round(delay_us)


def _in_our_order(model: Any, layout: _Layout) -> Model:
    """Put the parameters of a population into our order of units; those that are all the same become numbers."""
    changed: dict[str, Any] = {}
    for name, values in model._asdict().items():
        if not isinstance(values, np.ndarray):
            continue
        if np.all(values == values[0]):
            changed[name] = float(values[0])
        else:
            ordered = np.empty_like(values)
            ordered[layout.place] = values
            changed[name] = ordered.reshape(layout.here)
    new: Model = model._replace(**changed)
    return new


def _times(weight: NDArray[Any], factor: float) -> NDArray[Any]:
    return weight if factor == 1.0 else weight * np.float64(factor)


def _topology(ops: list[LinearMap], source: _Layout, target: _Layout, hints: list[Mapping[str, Any]]) -> Topology:
    """Make one projection of what stands between two populations."""
    left, factor = reduced(ops)
    is_same_order = np.array_equal(source.place, target.place)
    match left:
        case [] if is_same_order:
            return OneToOne(factor)
        case [Scale(values)] if is_same_order:
            weight = np.empty(values.size, values.dtype)
            weight[source.place] = values.reshape(-1)
            return OneToOne(_times(weight, factor))
        case [Matrix(matrix)]:
            weight = np.empty((matrix.shape[1], matrix.shape[0]), matrix.dtype)
            weight[np.ix_(source.place, target.place)] = matrix.T
            return _as_noted(_times(weight, factor), hints)
        case [Windows(weight, stride, padding, groups, from_shape, pooled) as windows] if (
            source.there,
            target.there,
        ) == (from_shape, windows.target) and len(source.here) == len(target.here) == 3:
            if pooled is not None:
                return Pooling((weight.shape[2], weight.shape[3]), stride, padding, pooled * factor)
            kernel = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
            return Convolution(_times(kernel, factor), stride, padding, groups)
    n_pre, n_post = len(source.place), len(target.place)
    found = Synapses(np.arange(n_pre), np.arange(n_pre), np.ones(n_pre))
    if left:
        found = synapses_of(left[0])
        for op in left[1:]:
            found = joined(found, synapses_of(op), width_of(op))
    return _sparse(source.place[found.pre], target.place[found.post], _times(found.weight, factor), n_pre, n_post)


def _sparse(pre: Any, post: Any, weight: NDArray[Any], n_pre: int, n_post: int) -> Sparse:
    """Order synapses; those between the same two units are added."""
    keys, where = np.unique(pre * n_post + post, return_inverse=True)
    # unchanged to the bit where there is nothing to add
    weight = np.bincount(where, weight, minlength=len(keys)) if len(keys) < len(pre) else weight[np.argsort(where)]
    start = np.zeros(n_pre + 1, np.int64)
    np.cumsum(np.bincount(keys // n_post, minlength=n_pre), out=start[1:])
    return Sparse(start, keys % n_post, weight)


def _as_noted(weight: NDArray[Any], hints: list[Mapping[str, Any]]) -> Topology:
    """Return a matrix, shape (n_pre, n_post), as what ``to_nir`` noted it to be, if it still is."""
    noted = next((text_of(hint["topology"]) for hint in hints if "topology" in hint), None)
    if noted == "Sparse":
        return sparse_of(weight)
    if noted in ("Inhibition", "OneToOne") and weight.shape[0] == weight.shape[1]:
        diagonal = np.eye(len(weight), dtype=bool)
        if noted == "OneToOne" and not np.any(weight[~diagonal]):
            values = np.ascontiguousarray(weight[diagonal])
            return OneToOne(float(values[0]) if np.all(values == values[0]) else values)
        off = weight[~diagonal]
        strength = next((hint["strength"] for hint in hints if isinstance(hint.get("strength"), float)), 0.0)
        if noted == "Inhibition" and not np.any(weight[diagonal]) and np.all(off == -strength):
            return Inhibition(strength)
    return Dense(weight)


def _with_feedback(projections: list[Projection], order: list[str], delay_us: int) -> list[Projection]:
    """Give a delay to the projections that close a cycle which has none."""
    leads: dict[str, set[str]] = {name: set() for name in order}
    for projection in projections:
        if projection.delay_us == 0 and projection.source != INPUT:
            leads[projection.source].add(projection.target)

    def reaches(begin: str, end: str) -> bool:
        seen, waiting = {begin}, [begin]
        while waiting:
            name = waiting.pop()
            if name == end:
                return True
            waiting += leads[name] - seen
            seen |= leads[name]
        return False

    rank = {name: k for k, name in enumerate(order)}
    return [
        projection._replace(delay_us=delay_us)
        if projection.delay_us == 0
        and projection.source != INPUT
        and rank[projection.target] <= rank[projection.source]
        and reaches(projection.target, projection.source)
        else projection
        for projection in projections
    ]


# -- to NIR ------------------------------------------------------------------------------------------------------------


def _nir() -> Any:
    try:
        import nir
    except ImportError:
        raise ConfigError("writing NIR needs the package nir; pip install 'hebbstream[nir]'") from None
    return nir


def to_nir(graph: Graph, *, dt_us: float = 1000.0) -> Any:
    """Describe a network as a ``nir.NIRGraph``.

    Parameters
    ----------
    graph
        A network; see the module for what NIR can say of it.
    dt_us
        How long a spike is a current of 1, us: the time step of the simulator that shall read it. The resistances are
        chosen so that a spike of weight w lifts v (CubaLIF: the current) by w in such a simulator.

    Raises
    ------
    ConfigError
        If the network is not in order, or NIR has no words for it.
    """
    nir = _nir()
    check_graph(graph)
    if not 0 < dt_us < np.inf:
        raise ConfigError(f"NIR dt_us: got {dt_us}, wanted us above 0")
    graph = dequantised(graph)
    is_line = _lines(graph)
    layouts = {}
    for name, here in ((INPUT, graph.inputs), *((p.name, p.shape) for p in graph.populations)):
        there = tuple(int(side) for side in here)
        if len(there) == 3:
            there = (n_units(here),) if name in is_line else (there[2], there[0], there[1])
        layouts[name] = _Layout(there, tuple(int(side) for side in here), _channels_first(here))
    nodes: dict[str, Any] = {INPUT: nir.Input({"input": np.array(layouts[INPUT].there)})}
    edges: list[tuple[str, str]] = []
    hosts: dict[str, Values] = {}  # drives that still look for a bias
    for k, population in enumerate(graph.populations):
        layout = layouts[population.name]
        nodes[population.name], drive = _neuron(nir, population, layout, k, dt_us / SECOND_US)
        if drive is not None:
            hosts[population.name] = drive
    for k, projection in enumerate(graph.projections):
        if projection.fade is not None:
            raise ConfigError(
                f"projection {projection.source} -> {projection.target}: it fades, which NIR cannot say. Keep "
                f"the network with neurons.graph_file.save_graph"
            )
        source, target = layouts[projection.source], layouts[projection.target]
        chain = _chain(nir, projection, source, target, hosts, projection.source in is_line)
        before = projection.source
        for j, node in enumerate(chain):
            if j == 0:
                node.metadata.setdefault(OURS, {})["projection"] = k
            name = f"{projection.source}_to_{projection.target}_{k}" + (f"_{j}" if j else "")
            while name in nodes:
                name += "_"
            nodes[name] = node
            edges.append((before, name))
            before = name
        edges.append((before, projection.target))
    if hosts:
        raise ConfigError(
            f"population '{next(iter(hosts))}': NIR has no drive of an IF but the bias of a Linear or Conv2d before "
            f"it, and there is none that could take it"
        )
    silent = {p.name for p in graph.populations} - {p.source for p in graph.projections}
    for name in [p.name for p in graph.populations if p.name in silent] or [graph.populations[-1].name]:
        out = "output" if len(silent) < 2 else f"output_{name}"
        while out in nodes:
            out += "_"
        nodes[out] = nir.Output({"output": np.array(layouts[name].there)})
        edges.append((name, out))
    return nir.NIRGraph(nodes=nodes, edges=edges, metadata={OURS: {"dt_us": float(dt_us)}}, type_check=False)


def write_nir(path: str | Path, graph: Graph, *, dt_us: float = 1000.0) -> None:
    """Write a network to a ``.nir`` file, whole or not at all; parameters and errors as for :func:`to_nir`."""
    nir_graph = to_nir(graph, dt_us=dt_us)
    path = Path(path).expanduser()
    side = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        _nir().write(side, nir_graph)
        side.replace(path)
    finally:
        side.unlink(missing_ok=True)


def _lines(graph: Graph) -> set[str]:
    """Find the maps that have to be written as lines, because NIR cannot make a map of a line."""
    maps, lines = set(), set()
    for projection in graph.projections:
        match projection.topology:
            case Convolution() | Pooling():
                maps |= {projection.source, projection.target}
            case Dense() | Sparse() | Inhibition():
                lines.add(projection.target)
    changed = True
    while changed:
        changed = False
        for projection in graph.projections:
            source, target = projection.source, projection.target
            is_odd = source in lines or shape_of(graph, source) != shape_of(graph, target)
            if isinstance(projection.topology, OneToOne) and target not in lines and is_odd:
                lines.add(target)
                changed = True
    for name in sorted(lines & maps):
        raise ConfigError(
            f"population '{name}': it is a map (Convolution or Pooling need that) and gets spikes unit by unit as well "
            f"(Dense, Sparse, Inhibition, OneToOne); NIR has no node that makes a map of a line. Keep the network with "
            f"neurons.graph_file.save_graph"
        )
    return {name for name in lines if len(shape_of(graph, name)) == 3}


def _neuron(nir: Any, population: Population, layout: _Layout, k: int, dt: float) -> tuple[Any, Values | None]:
    """Write a population; returns its node, and its drive (as a bias, NIR's order) if it has one."""
    model = population.model
    ours: dict[str, Any] = {"population": k}
    if len(layout.here) == 3 and len(layout.there) == 1:
        ours["map_shape"] = np.array(layout.here)

    def spread(value: Any) -> Values:
        return unit_values(value, population.shape)[layout.place].reshape(layout.there)

    def seconds(name: str) -> Values:
        values_us = spread(getattr(model, name))
        values = values_us / SECOND_US
        if np.any(values * SECOND_US != values_us):
            ours[name] = values_us
        return values

    if not isinstance(model, LeakyIntegratorUnits | ThresholdUnits | IntegrateFireUnits | LIFUnits | CurrentLIFUnits):
        raise ConfigError(
            f"population '{population.name}': NIR has no {type(model).__name__}; keep the network with "
            f"neurons.graph_file.save_graph"
        )
    metadata = {OURS: ours}
    if isinstance(model, ThresholdUnits):
        return nir.Threshold(threshold=spread(model.v_threshold), metadata=metadata), None
    if isinstance(model, LeakyIntegratorUnits):
        tau = seconds("tau_mem_us")
        return nir.LI(tau=tau, r=tau / dt, v_leak=spread(model.v_leak), metadata=metadata), None
    ours["reset"] = model.reset
    if model.refractory_us:
        ours["refractory_us"] = int(model.refractory_us)
    threshold, reset = spread(model.v_threshold), spread(model.v_reset)
    if isinstance(model, IntegrateFireUnits):
        r = np.full(layout.there, 1.0 / dt)
        drive_per_us = spread(model.drive_per_us)
        drive = drive_per_us * SECOND_US / r
        if np.any(r * drive / SECOND_US != drive_per_us):
            ours["drive_per_us"] = drive_per_us
        node = nir.IF(r=r, v_threshold=threshold, v_reset=reset, metadata=metadata)
        return node, drive.reshape(-1) if drive.any() else None
    tau, leak = seconds("tau_mem_us"), spread(model.v_leak)
    if isinstance(model, LIFUnits):
        return (
            nir.LIF(tau=tau, r=tau / dt, v_leak=leak, v_threshold=threshold, v_reset=reset, metadata=metadata),
            None,
        )
    syn = seconds("tau_syn_us")
    node = nir.CubaLIF(
        tau_syn=syn,
        tau_mem=tau,
        r=np.ones(layout.there),
        v_leak=leak,
        v_threshold=threshold,
        v_reset=reset,
        w_in=syn / dt,
        metadata=metadata,
    )
    return node, None


def _chain(
    nir: Any, projection: Projection, source: _Layout, target: _Layout, hosts: dict[str, Values], is_line: bool
) -> list[Any]:
    """Write a projection as nodes in a row; takes a drive of its target over as a bias where it can."""
    chain: list[Any] = []
    n_pre, n_post = len(source.place), len(target.place)
    topology = projection.topology
    ours: dict[str, Any] = {}
    matrix: NDArray[Any] | None = None

    def real(weight: Any) -> NDArray[Any]:
        array = np.asarray(weight)
        return array if array.dtype.kind == "f" else array.astype(np.float64)

    match topology:
        case Convolution(weight, stride, padding, groups):
            weight = np.ascontiguousarray(real(weight).transpose(3, 2, 0, 1))
            bias = np.zeros(len(weight), weight.dtype)
            drive = hosts.get(projection.target)
            if drive is not None:
                channels = channel_values(drive.reshape(target.there))
                if channels is not None:
                    bias = channels
                    del hosts[projection.target]
            node = nir.Conv2d(
                source.there[1:], weight, tuple(map(int, stride)), tuple(map(int, padding)), (1, 1), int(groups), bias
            )
            # the package's own rule for shapes knows neither groups nor kernels that are not square
            node.input_type, node.output_type = {"input": np.array(source.there)}, {"output": np.array(target.there)}
            chain.append(node)
        case Pooling(size, stride, padding, factor):
            pairs = {"kernel_size": np.array(size), "stride": np.array(stride), "padding": np.array(padding)}
            is_average = factor == 1.0 / (size[0] * size[1]) and factor != 1.0
            node = nir.AvgPool2d(**pairs) if is_average else nir.SumPool2d(**pairs)
            node.input_type, node.output_type = {"input": np.array(source.there)}, {"output": np.array(target.there)}
            chain.append(node)
            if not is_average and factor != 1.0:
                chain.append(nir.Scale(np.full(target.there, float(factor))))
        case OneToOne(weight) if np.array_equal(source.place, target.place):
            if source.there != target.there:
                chain.append(nir.Flatten({"input": np.array(source.there)}, 0, -1))
            values = np.broadcast_to(real(weight), n_pre)
            chain.append(nir.Scale(values[source.place].reshape(target.there)))
        case OneToOne(weight):
            check_size(n_pre * n_post)
            matrix, ours = np.diag(np.broadcast_to(real(weight), n_pre)), {"topology": "OneToOne"}
        case Dense(weight):
            matrix = real(weight)
        case Sparse(row_start, unit, weight):
            check_size(n_pre * n_post)
            matrix, ours = np.zeros((n_pre, n_post), real(weight).dtype), {"topology": "Sparse"}
            matrix[np.repeat(np.arange(n_pre), np.diff(row_start)), unit] = weight
        case Inhibition(strength):
            check_size(n_pre * n_post)
            matrix = np.full((n_pre, n_post), -float(strength))
            np.fill_diagonal(matrix, 0.0)
            ours = {"topology": "Inhibition", "strength": float(strength)}
    if matrix is not None:
        if len(source.there) == 3:
            chain.append(nir.Flatten({"input": np.array(source.there)}, 0, -1))
        weight = np.ascontiguousarray(matrix[np.ix_(source.place, target.place)].T)
        drive = hosts.pop(projection.target, None)
        metadata = {OURS: ours} if ours else {}
        chain.append(
            nir.Linear(weight, metadata=metadata) if drive is None else nir.Affine(weight, drive, metadata=metadata)
        )
    if projection.delay_us:
        delay = projection.delay_us / SECOND_US
        chain.append(nir.Delay(np.full(target.there, delay), metadata={OURS: {"delay_us": int(projection.delay_us)}}))
    return chain
