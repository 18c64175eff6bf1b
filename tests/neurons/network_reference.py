"""A slow network in plain Python, float64, one unit and one microsecond at a time. Shares no code with the engine.

Time goes in whole microseconds. In each: first what units do by themselves (crossings since the last microsecond, grid
steps), then delayed spikes in the order in which they were scheduled, then input. A crossing is found by looking at
every microsecond and halving the one in which it lies, not by solving anything.
"""

import math
from typing import Any

import numpy as np

from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import Graph, Population, Projection
from neurons.inhibition import Inhibition
from neurons.integrate_fire import IntegrateFireUnits
from neurons.izhikevich import IzhikevichUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.sparse import Sparse
from neurons.threshold import ThresholdUnits


def naive_rows(projection: Projection, source: tuple[int, ...], target: tuple[int, ...]) -> list[list[Any]]:
    """For each unit of the source the units it reaches, ascending, with weights; by the definition of each topology."""
    n_pre, n_post = math.prod(source), math.prod(target)
    topology = projection.topology
    rows: list[list[Any]] = [[] for _ in range(n_pre)]
    if isinstance(topology, Dense):
        return [[(j, float(topology.weight[i, j])) for j in range(n_post)] for i in range(n_pre)]
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


class Unit:
    """One unit: potential, second variable, their time, and when it may move again."""

    def __init__(self, population: Population, j: int) -> None:
        self.model = population.model
        values = {
            name: value
            if isinstance(value, str)
            else float(np.broadcast_to(np.asarray(value, float), population.shape).reshape(-1)[j])
            for name, value in population.model._asdict().items()
        }
        self.p: dict[str, Any] = values
        self.w = 0.0
        self.v = values.get("v_leak", 0.0)
        if "v_threshold" in values and "v_reset" in values and self.v > values["v_threshold"]:
            self.v = values["v_reset"]
        if isinstance(self.model, IzhikevichUnits):
            inside = (5 - values["b"]) ** 2 - 0.16 * (140 + values["drive"])
            self.v = (values["b"] - 5 - math.sqrt(inside)) / 0.08 if inside >= 0 else values["c"]
            self.w = values["b"] * self.v
        self.t = 0.0
        self.held = -math.inf
        self.integral = 0.0

    def move(self, t: float) -> None:
        """Let time pass."""
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

    def above(self) -> bool:
        """Tell whether it fires."""
        if isinstance(self.model, LeakyIntegratorUnits):
            return False
        if isinstance(self.model, IzhikevichUnits):
            return self.v >= self.p["v_peak"]
        if self.held > self.t:
            return False
        return self.v > self.p["v_threshold"] + (self.w if isinstance(self.model, AdaptiveLIFUnits) else 0.0)

    def add(self, weight: float) -> None:
        """Take in an event."""
        if isinstance(self.model, CurrentLIFUnits):
            self.w += weight
        elif isinstance(self.model, ThresholdUnits):
            self.v = weight
        elif self.held <= self.t:
            self.v += weight

    def reset(self) -> None:
        """Come back from a spike."""
        p = self.p
        if isinstance(self.model, IzhikevichUnits):
            self.v, self.w = p["c"], self.w + p["d"]
        elif isinstance(self.model, ThresholdUnits):
            self.v = 0.0
        else:
            self.v = p["v_reset"] if p["reset"] == "hard" else self.v - (p["v_threshold"] - p["v_reset"])
            if isinstance(self.model, AdaptiveLIFUnits):
                self.w += p["adaptation"]
            self.held = self.t + p["refractory_us"]

    def crosses(self, t: int) -> bool:
        """Go to whole microsecond ``t``; tell whether the threshold was crossed on the way, and reset it then."""
        before = dict(self.__dict__)
        self.move(t)
        if not self.above():
            return False
        low, high = max(before["t"], min(before["held"], t)), float(t)
        for _ in range(60):
            middle = (low + high) / 2
            self.__dict__.update(before)
            self.move(middle)
            low, high = (low, middle) if self.above() else (middle, high)
        self.__dict__.update(before)
        self.move(high)
        self.reset()
        self.move(t)
        return True


def can_cross(model: Any) -> bool:
    """Tell whether units can rise above the threshold by themselves; a soft reset may leave others there."""
    if isinstance(model, CurrentLIFUnits):
        return True
    if isinstance(model, IntegrateFireUnits):
        return bool(np.any(np.asarray(model.drive_per_us) > 0))
    if isinstance(model, AdaptiveLIFUnits) and np.min(model.tau_adapt_us) < np.max(model.tau_mem_us):
        return True
    return isinstance(model, LIFUnits | AdaptiveLIFUnits) and bool(np.any(model.v_leak > np.asarray(model.v_threshold)))


def simulate(graph: Graph, items: list[tuple[int, int]], until_us: int) -> tuple[list[tuple[int, str, int]], Any]:
    """Run a network from time 0.

    Parameters
    ----------
    items
        (t, input unit), sorted.

    Returns
    -------
    spikes, units
        (t, population, unit) in the order in which they happen; the units of each population, at ``until_us``.
    """
    shapes = {"input": graph.inputs} | {p.name: p.shape for p in graph.populations}
    rows = [naive_rows(q, shapes[q.source], shapes[q.target]) for q in graph.projections]
    units = {p.name: [Unit(p, j) for j in range(math.prod(p.shape))] for p in graph.populations}
    order: list[str] = []
    while len(order) < len(graph.populations):
        for p in graph.populations:
            needs = {q.source for q in graph.projections if q.target == p.name and not q.delay_us} - {"input", *order}
            if p.name not in order and not needs:
                order.append(p.name)
                break
    arrivals: list[tuple[int, int, int, int]] = []  # t, number, projection, unit
    spikes: list[tuple[int, str, int]] = []
    n_scheduled = 0

    def fire(t: int, name: str, j: int, fired: dict[str, list[int]]) -> None:
        nonlocal n_scheduled
        spikes.append((t, name, j))
        fired[name].append(j)
        send(t, name, j)

    def send(t: int, name: str, j: int) -> None:
        nonlocal n_scheduled
        for number, q in enumerate(graph.projections):
            if q.source == name and q.delay_us:
                arrivals.append((t + q.delay_us, n_scheduled, number, j))
                n_scheduled += 1

    def look(t: int, name: str, j: int, fired: dict[str, list[int]]) -> None:
        if units[name][j].t < t and units[name][j].crosses(t):
            fire(t, name, j, fired)

    def deliver(t: int, number: int, pre: int, fired: dict[str, list[int]]) -> None:
        name = graph.projections[number].target
        if rows[number][pre] and isinstance(units[name][0].model, IzhikevichUnits):
            for j, unit in enumerate(units[name]):
                unit.move(t)
                if unit.above():
                    unit.reset()
                    fire(t, name, j, fired)
        for j, weight in rows[number][pre]:
            if can_cross(units[name][j].model):
                look(t, name, j, fired)
            units[name][j].move(t)
            units[name][j].add(weight)
        for j, _ in rows[number][pre]:
            unit = units[name][j]
            if unit.above() and not isinstance(unit.model, CurrentLIFUnits):
                unit.reset()
                fire(t, name, j, fired)
            elif isinstance(unit.model, ThresholdUnits):
                unit.v = 0.0

    def cascade(t: int, fired: dict[str, list[int]], first: tuple[int, int] | None = None) -> None:
        for name in order:
            if first is not None and graph.projections[first[0]].target == name:
                deliver(t, *first, fired)
            for number, q in enumerate(graph.projections):
                if q.target == name and not q.delay_us:
                    for pre in fired[q.source]:
                        deliver(t, number, pre, fired)

    def empty() -> dict[str, list[int]]:
        return {name: [] for name in shapes}

    k = 0
    for t in range(until_us + 1):
        for p in graph.populations:
            if can_cross(p.model):
                fired = empty()
                for j in range(len(units[p.name])):
                    look(t, p.name, j, fired)
                cascade(t, fired)
            elif isinstance(p.model, IzhikevichUnits) and t and t % p.model.step_us == 0:
                fired = empty()
                for j, unit in enumerate(units[p.name]):
                    unit.move(t)
                    if unit.above():
                        unit.reset()
                        fire(t, p.name, j, fired)
                cascade(t, fired)
        while any(arrival[0] == t for arrival in arrivals):
            arrival = min(arrivals)
            arrivals.remove(arrival)
            cascade(t, empty(), arrival[2:])
        while k < len(items) and items[k][0] == t:
            send(t, "input", items[k][1])
            cascade(t, empty() | {"input": [items[k][1]]})
            k += 1
    for population in units.values():
        for unit in population:
            if not isinstance(unit.model, IzhikevichUnits):
                unit.move(until_us)
    return spikes, units
