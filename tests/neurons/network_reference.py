"""A slow network in plain Python and float64, by the order that ``neurons.engine`` states. Shares no code with it.

One unit is one object, one happening one entry of ``heapq``. Crossings are not found by the engine's Newton method: the
extreme of the potential cuts time in pieces on which it only rises or falls, and Brent's method finds the zero there.

Every decision that hangs on a real number (is v above the threshold? does the crossing come before this microsecond
ends?) is also a number: by how much. The least of them is the run's ``margin``. Two correct programs in float64 differ
by rounding, so they have to agree wherever the margin is larger than what rounding can grow to; below, nobody knows who
is right. Some networks make differences grow (each reset of a driven unit can pass one on, a little larger): run with
thresholds shaken by 1e-13, the reference tells which ones.
"""

import heapq
import math
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq

from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.inhibition import Inhibition
from neurons.integrate_fire import IntegrateFireUnits
from neurons.izhikevich import IzhikevichUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.quantised_dense import QuantisedDense
from neurons.sparse import Sparse
from neurons.threshold import ThresholdUnits

NEVER = 10**30


class Runaway(Exception):
    """The network fires more and more."""


def naive_rows(projection: Projection, source: tuple[int, ...], target: tuple[int, ...]) -> list[list[Any]]:
    """For each unit of the source the units it reaches, ascending, with weights; by the definition of each topology."""
    n_pre, n_post = math.prod(source), math.prod(target)
    topology = projection.topology
    rows: list[list[Any]] = [[] for _ in range(n_pre)]
    if isinstance(topology, Dense):
        return [[(j, float(topology.weight[i, j])) for j in range(n_post)] for i in range(n_pre)]
    if isinstance(topology, QuantisedDense):
        return [
            [(j, int(topology.weight[i, j]) * float(topology.scale[j])) for j in range(n_post)] for i in range(n_pre)
        ]
    if isinstance(topology, Inhibition):
        return [[(j, 0.0 if i == j else -topology.strength) for j in range(n_post)] for i in range(n_pre)]
    if isinstance(topology, OneToOne):
        return [[(i, float(np.broadcast_to(topology.weight, n_pre)[i]))] for i in range(n_pre)]
    if isinstance(topology, Sparse):
        for i in range(n_pre):
            span = range(int(topology.row_start[i]), int(topology.row_start[i + 1]))
            rows[i] = [(int(topology.unit[s]), float(topology.weight[s])) for s in span]
        return rows
    # as a frame convolution sees it: every output looks at its window
    assert isinstance(topology, Convolution | Pooling)
    size = topology.weight.shape[:2] if isinstance(topology, Convolution) else topology.size
    for oy in range(target[0]):
        for ox in range(target[1]):
            for o in range(target[2]):
                for ky in range(size[0]):
                    for kx in range(size[1]):
                        y = oy * topology.stride[0] + ky - topology.padding[0]
                        x = ox * topology.stride[1] + kx - topology.padding[1]
                        if not (0 <= y < source[0] and 0 <= x < source[1]):
                            continue
                        for c in range(source[2]):
                            post = (oy * target[1] + ox) * target[2] + o
                            pre = (y * source[1] + x) * source[2] + c
                            if isinstance(topology, Pooling):
                                if c == o:
                                    rows[pre].append((post, topology.weight))
                                continue
                            in_group = source[2] // topology.groups
                            out_group = target[2] // topology.groups
                            if c // in_group == o // out_group:
                                rows[pre].append((post, float(topology.weight[ky, kx, c % in_group, o])))
    return [sorted(row) for row in rows]


def together(projection: Projection, target: tuple[int, ...]) -> int:
    """Count the units that one spike reaches as a block; 1: one by one."""
    topology = projection.topology
    if isinstance(topology, Dense | QuantisedDense | Inhibition):
        return math.prod(target)
    return target[2] // topology.groups if isinstance(topology, Convolution) else 1


def group_size(graph: Graph, population: Population) -> int:
    """Count the units that share one time."""
    if isinstance(population.model, IzhikevichUnits):
        return math.prod(population.shape)
    incoming = [q for q in graph.projections if q.target == population.name]
    blocks = [
        together(q, population.shape)
        for q in incoming
        if isinstance(q.topology, Dense | QuantisedDense | Inhibition | Convolution)
    ]
    return math.gcd(*blocks) if blocks else 1


def looks_between(model: Any) -> bool:
    """Tell whether units of a population can rise above their thresholds between events, by their equations."""
    if isinstance(model, CurrentLIFUnits):
        return True
    if isinstance(model, IntegrateFireUnits):
        return bool(np.any(np.asarray(model.drive_per_us) > 0))
    if not hasattr(model, "v_leak") or isinstance(model, LeakyIntegratorUnits):
        return False
    if isinstance(model, AdaptiveLIFUnits):
        if np.any(np.asarray(model.tau_adapt_us) < model.tau_mem_us) or np.any(np.asarray(model.adaptation) < 0):
            return True
        if model.reset == "soft" and model.refractory_us:  # v stands still above a threshold that sinks
            return True
    return bool(np.any(np.asarray(model.v_leak) > model.v_threshold))


class Unit:
    """One unit: potential, second variable, their time, and when it may move again."""

    def __init__(self, population: Population, j: int, shake: float) -> None:
        self.model = population.model
        self.p: dict[str, Any] = {
            name: value
            if isinstance(value, str)
            else float(np.broadcast_to(np.asarray(value, float), population.shape).reshape(-1)[j])
            for name, value in population.model._asdict().items()
        }
        values = self.p
        for name in ("v_threshold", "v_peak"):
            if name in values:
                values[name] *= 1 - shake if j % 2 else 1 + shake
        self.w = 0.0
        self.v = values.get("v_leak", 0.0)
        if "v_reset" in values and self.v > values["v_threshold"]:
            self.v = values["v_reset"]
        if isinstance(self.model, IzhikevichUnits):
            inside = (5 - values["b"]) ** 2 - 0.16 * (140 + values["drive"])
            self.v = (values["b"] - 5 - math.sqrt(inside)) / 0.08 if inside >= 0 else values["c"]
            self.w = values["b"] * self.v
        self.t = 0.0
        self.held = -math.inf
        self.integral = 0.0
        # the crossing that is foreseen: when it really is, the spike's microsecond, its place in the order
        self.crossing, self.next_us, self.number = math.inf, NEVER, -1

    def move(self, t: float) -> None:
        """Let time pass."""
        t = float(t)
        if self.held > self.t:
            stop = min(self.held, t)
            self._flow(stop - self.t, True)
            self.t = stop
        if t > self.t:
            self._flow(t - self.t, False)
            self.t = t

    def _flow(self, dt: float, held: bool) -> None:
        p = self.p
        model = self.model
        if isinstance(model, ThresholdUnits):
            self.v = 0.0  # no memory
            return
        if isinstance(model, IntegrateFireUnits):
            self.v += 0 if held else p["drive_per_us"] * dt
            return
        if isinstance(model, IzhikevichUnits):
            h = dt / 1000

            def slope(v: float, u: float) -> tuple[float, float]:
                return 0.04 * v**2 + 5 * v + 140 - u + p["drive"], p["a"] * (p["b"] * v - u)

            dv, du = slope(self.v, self.w)
            dv, du = slope(self.v + h / 2 * dv, self.w + h / 2 * du)
            self.v, self.w = self.v + h * dv, self.w + h * du
            return
        x = self.v - p["v_leak"]
        tau = p["tau_mem_us"]
        if isinstance(model, LeakyIntegratorUnits):
            self.integral += x * tau * (1 - math.exp(-dt / tau)) + p["v_leak"] * dt
        x_new = x * math.exp(-dt / tau)
        if isinstance(model, CurrentLIFUnits):
            syn = p["tau_syn_us"]
            if syn == tau:
                x_new += self.w * dt / tau * math.exp(-dt / tau)
            else:
                x_new += self.w * syn / (tau - syn) * (math.exp(-dt / tau) - math.exp(-dt / syn))
            self.w *= math.exp(-dt / syn)
        if isinstance(model, AdaptiveLIFUnits):
            self.w *= math.exp(-dt / p["tau_adapt_us"])
        if not held:
            self.v = x_new + p["v_leak"]

    def gap(self) -> float:
        """Return by how much it is above its threshold."""
        if isinstance(self.model, IzhikevichUnits):
            return self.v - self.p["v_peak"]
        return self.v - self.p["v_threshold"] - (self.w if isinstance(self.model, AdaptiveLIFUnits) else 0.0)

    def turning(self) -> float:
        """Return after how long the gap of a unit that is not held has its extreme; inf if it has none."""
        p, model = self.p, self.model
        if isinstance(model, IntegrateFireUnits) or self.w == 0.0:
            return math.inf
        tau, x = p["tau_mem_us"], self.v - p["v_leak"]
        # the gap is a exp(-s/tau) + b exp(-s/other) + a number
        if isinstance(model, AdaptiveLIFUnits):
            other = p["tau_adapt_us"]
            a, b = x, -self.w
            if other == tau:
                return math.inf
        else:
            other = p["tau_syn_us"]
            if other == tau:
                return tau - x / self.w * tau
            b = -self.w * other / (tau - other)
            a = x - b
        if a * b >= 0.0:
            return math.inf
        return math.log(-a / b * other / tau) / (1 / tau - 1 / other)

    def later(self, t: float) -> "Unit":
        """Return what it will be if nothing happens."""
        other = Unit.__new__(Unit)  # many times as fast as copy.copy
        other.__dict__.update(self.__dict__)
        other.move(t)
        return other

    def after(self, s: float) -> float:
        """Return the gap after some time."""
        return self.later(self.t + s).gap()

    def foresee(self, t: int, margin: list[float]) -> None:
        """Find out when it fires by itself, from its state at ``t``."""
        late = self.later(max(self.held, t))
        self.crossing, self.next_us = math.inf, NEVER
        s = _first_above(late, margin)
        if s == math.inf:
            return
        self.crossing = late.t + s
        self.next_us = max(math.ceil(self.crossing), t + 1)
        if s > 0.0:  # in which microsecond? In terms of potentials, which is what rounding touches
            for whole in (math.floor(self.crossing), math.floor(self.crossing) + 1):
                if whole > late.t:
                    margin.append(abs(late.after(whole - late.t)))
        elif not late.t.is_integer():  # at the end of a refractory time that began between microseconds
            margin.append(abs(late.t - round(late.t)))


def _first_above(unit: Unit, margin: list[float]) -> float:
    """Return after how long a unit that is not held first has a gap above 0; inf if never."""
    start = unit.gap()
    margin.append(abs(start))
    if start > 0.0:
        return 0.0
    turn = unit.turning()
    pieces = [(0.0, turn)] if 0.0 < turn < math.inf else []
    begin = pieces[-1][1] if pieces else 0.0
    # long after all, but for the drive of an integrator
    taus = [value for name, value in unit.p.items() if name.startswith("tau_")]
    end = begin + 100.0 * max(taus) if taus else begin + 1e9
    for low, high in [*pieces, (begin, end)]:
        there = unit.after(high)
        margin.append(abs(there))
        if there > 0.0:
            return float(brentq(unit.after, low, high, xtol=1e-13, rtol=1e-15, maxiter=500))
    return math.inf


class Run(NamedTuple):
    """What a run gave."""

    spikes: list[tuple[int, str, int]]  # (t, population, unit) in the order in which they happened
    units: dict[str, list[Unit]]  # at ``until_us``
    margin: float  # by how little any decision was made
    deliveries: int


class _Simulation:
    def __init__(self, graph: Graph, phase_us: int, shake: float, most_spikes: int) -> None:
        self.graph, self.phase_us, self.most_spikes = graph, phase_us, most_spikes
        self.shapes = {INPUT: graph.inputs} | {p.name: p.shape for p in graph.populations}
        self.models = {p.name: p.model for p in graph.populations}
        self.rows = [naive_rows(q, self.shapes[q.source], self.shapes[q.target]) for q in graph.projections]
        self.units = {p.name: [Unit(p, j, shake) for j in range(math.prod(p.shape))] for p in graph.populations}
        self.groups = {p.name: group_size(graph, p) for p in graph.populations}
        self.between = {p.name: looks_between(p.model) and not phase_us for p in graph.populations}
        self.order: list[str] = []
        while len(self.order) < len(graph.populations):
            for p in graph.populations:
                needs = {q.source for q in graph.projections if q.target == p.name and not q.delay_us}
                if p.name not in self.order and not needs - {INPUT, *self.order}:
                    self.order.append(p.name)
                    break
        self.heap: list[Any] = []  # (t, number, what, where, unit)
        self.n_scheduled = 0
        self.moves = {name: False for name in self.units}  # Izhikevich: whether its grid runs
        self.spikes: list[tuple[int, str, int]] = []
        self.fired: dict[str, list[int]] = {}  # in this cascade
        self.margin = [math.inf]
        self.deliveries = 0
        self.n_reached = 0

    def schedule(self, t: int, what: str, where: Any, unit: int) -> int:
        self.n_scheduled += 1
        heapq.heappush(self.heap, (t, self.n_scheduled, what, where, unit))
        return self.n_scheduled

    def is_above(self, unit: Unit, t: int) -> bool:
        if not isinstance(unit.model, IzhikevichUnits) and self.is_held(unit, t):
            return False
        gap = unit.gap()
        self.margin.append(abs(gap))
        return gap >= 0.0 if isinstance(unit.model, IzhikevichUnits) else gap > 0.0

    def is_held(self, unit: Unit, t: int) -> bool:
        if math.isfinite(unit.held) and not unit.held.is_integer():
            self.margin.append(abs(unit.held - t))
        return unit.held > t

    def tell(self, t: int, name: str, j: int) -> None:
        self.spikes.append((t, name, j))
        if len(self.spikes) > self.most_spikes:
            raise Runaway
        self.fired[name].append(j)
        self.send(t, name, j)

    def send(self, t: int, name: str, j: int) -> None:
        for number, q in enumerate(self.graph.projections):
            if q.source == name and q.delay_us:
                self.schedule(t + q.delay_us, "arrival", number, j)

    def reset(self, unit: Unit) -> None:
        """Come back from a spike, at the unit's time."""
        p = unit.p
        if isinstance(unit.model, IzhikevichUnits):
            unit.v, unit.w = p["c"], unit.w + p["d"]
        elif not isinstance(unit.model, ThresholdUnits):
            unit.v = p["v_reset"] if p["reset"] == "hard" else unit.v - (p["v_threshold"] - p["v_reset"])
            if isinstance(unit.model, AdaptiveLIFUnits):
                unit.w += p["adaptation"]
            if p["refractory_us"]:
                unit.held = unit.t + p["refractory_us"]

    def foresee(self, name: str, j: int, t: int) -> None:
        unit = self.units[name][j]
        before = unit.next_us
        unit.foresee(t, self.margin)
        if unit.next_us != before:  # else it keeps its place in the order
            unit.number = -1
            if unit.next_us != NEVER:
                unit.number = self.schedule(unit.next_us, "crossing", name, j)

    def bring(self, name: str, some: range, t: int) -> None:
        """Bring units that share one time to ``t``; who crosses on the way fires."""
        if isinstance(self.models[name], IzhikevichUnits):
            self.bring_izhikevich(name, t)
            return
        for j in some:
            unit = self.units[name][j]
            if unit.next_us <= t:
                assert unit.next_us == t
                unit.move(max(unit.crossing, unit.t))
                self.reset(unit)
                unit.move(t)
                self.tell(t, name, j)
                unit.next_us, unit.number = NEVER, -1
                self.foresee(name, j, t)
            unit.move(t)

    def bring_izhikevich(self, name: str, t: int) -> None:
        units = self.units[name]
        dt = t - units[0].t
        has_moved = False
        for j, unit in enumerate(units):
            if not self.moves[name]:
                unit.t = float(t)
                continue
            v, u = unit.v, unit.w
            unit.move(t)
            for change, small in ((unit.v - v, 1e-12 * abs(v)), (unit.w - u, 1e-12 * (abs(u) + 1.0))):
                has_moved |= abs(change) > small
                if dt > 0 and small > 0.0:
                    self.margin.append(1e-6 * abs(abs(change) / small - 1.0))
            if dt > 0 and self.is_above(unit, t):
                has_moved = True
                self.reset(unit)
                self.tell(t, name, j)
        if dt == self.models[name].step_us and not has_moved:
            self.moves[name] = False

    def deliver(self, t: int, number: int, pre: int) -> None:
        projection = self.graph.projections[number]
        name = projection.target
        model, units = self.models[name], self.units[name]
        self.deliveries += 1
        row = self.rows[number][pre]
        if projection.fade is not None:
            shown = t - t % self.phase_us if self.phase_us else t
            share = math.exp(-max(shown - projection.fade.onset_us, 0) / projection.fade.tau_us)
            row = [(j, weight * share) for j, weight in row]
        self.n_reached += len(row)
        if self.n_reached > 10 * self.most_spikes:
            raise Runaway
        if self.phase_us:
            begin = t if isinstance(model, LeakyIntegratorUnits) else t - t % self.phase_us
            for j, weight in row:
                units[j].move(begin)
                self.add(units[j], weight, begin)
            return
        if isinstance(model, IzhikevichUnits) and not self.moves[name]:
            self.bring_izhikevich(name, t)
            self.moves[name] = True
            self.schedule(t - t % model.step_us + model.step_us, "step", name, 0)
        group = self.groups[name]
        size = min(together(projection, self.shapes[name]), group)
        pieces: dict[int, list[Any]] = {}
        for j, weight in row:
            pieces.setdefault(j // size, []).append((j, weight))
        for piece in pieces.values():
            first = piece[0][0] // group * group
            self.bring(name, range(first, first + group), t)
            if isinstance(model, IzhikevichUnits):
                self.moves[name] = True
            for j, weight in piece:
                self.add(units[j], weight, t)
            for j, _ in piece:
                unit = units[j]
                if isinstance(model, LeakyIntegratorUnits):
                    continue
                # a current moves the potential only as time goes on
                if not isinstance(model, CurrentLIFUnits) and self.is_above(unit, t):
                    self.reset(unit)
                    self.tell(t, name, j)
                if isinstance(model, ThresholdUnits):
                    unit.v = 0.0
            if self.between[name]:
                for j, _ in piece:
                    self.foresee(name, j, t)

    def add(self, unit: Unit, weight: float, t: int) -> None:
        if isinstance(unit.model, CurrentLIFUnits):
            unit.w += weight
        elif not (hasattr(unit.model, "refractory_us") and self.is_held(unit, t)):
            unit.v += weight

    def begin(self) -> None:
        self.fired = {name: [] for name in self.shapes}

    def cascade(self, t: int, arriving: tuple[int, int] | None = None) -> None:
        for name in self.order:
            if arriving is not None and self.graph.projections[arriving[0]].target == name:
                self.deliver(t, *arriving)
            for number, q in enumerate(self.graph.projections):
                if q.target == name and not q.delay_us:
                    for pre in self.fired[q.source]:
                        self.deliver(t, number, pre)

    def end_phase(self, t: int) -> None:
        self.begin()
        for p in self.graph.populations:
            if isinstance(p.model, LeakyIntegratorUnits):
                continue
            for j, unit in enumerate(self.units[p.name]):
                unit.move(t - self.phase_us)
                if self.is_above(unit, t):
                    self.reset(unit)
                    if unit.p.get("refractory_us"):
                        unit.held = float(t + int(unit.p["refractory_us"]))
                    self.tell(t, p.name, j)
                if isinstance(p.model, ThresholdUnits):
                    unit.v = 0.0
        self.cascade(t)

    def start(self) -> None:
        if self.phase_us:
            return
        for p in self.graph.populations:
            if isinstance(p.model, IzhikevichUnits):
                self.moves[p.name] = True
                self.schedule(p.model.step_us, "step", p.name, 0)
            elif self.between[p.name]:
                for j in range(len(self.units[p.name])):
                    self.foresee(p.name, j, 0)

    def until(self, t: int) -> None:
        """Let happen what is due up to ``t``."""
        while self.heap and self.heap[0][0] <= t:
            now, number, what, where, j = heapq.heappop(self.heap)
            self.begin()
            if what == "arrival":
                self.cascade(now, (where, j))
            elif what == "phase":
                self.end_phase(now)
                self.heap_phase(now)
            elif what == "step":
                self.bring(where, range(0), now)
                if self.moves[where]:
                    self.schedule(now + self.models[where].step_us, "step", where, 0)
                self.cascade(now)
            elif self.units[where][j].number == number:
                group = self.groups[where]
                self.bring(where, range(j // group * group, j // group * group + group), now)
                self.cascade(now)

    def heap_phase(self, t: int) -> None:
        # the end of a phase comes first at its time
        heapq.heappush(self.heap, (t + self.phase_us, 0, "phase", "", 0))


def simulate(
    graph: Graph,
    items: list[tuple[int, int]],
    until_us: int,
    phase_us: int = 0,
    *,
    shake: float = 0.0,
    most_spikes: int = 10**6,
) -> Run:
    """Run a network from time 0.

    Parameters
    ----------
    items
        (t, input unit), sorted.
    phase_us
        0: discipline ``event``.
    shake
        Thresholds are changed by this share, up and down by turns. What a tiny one changes tells what rounding can.
    most_spikes
        More, or ten times as many units reached, raise Runaway.
    """
    simulation = _Simulation(graph, phase_us, shake, most_spikes)
    simulation.start()
    if phase_us:
        simulation.heap_phase(0)
    for t, i in items:
        simulation.until(t)
        simulation.begin()
        simulation.fired[INPUT].append(i)
        simulation.send(t, INPUT, i)
        simulation.cascade(t)
    simulation.until(until_us)
    for name, units in simulation.units.items():
        if isinstance(simulation.models[name], IzhikevichUnits):
            if until_us > units[0].t:
                simulation.begin()
                n_spikes = len(simulation.spikes)
                simulation.bring_izhikevich(name, until_us)
                del simulation.spikes[n_spikes:]  # reading, not running
        else:
            for unit in units:
                unit.move(until_us)
    return Run(simulation.spikes, simulation.units, min(simulation.margin), simulation.deliveries)
