"""Random networks and inputs for the tests: any model, any topology, any delays, cycles."""

import math
from typing import Any

import numpy as np

from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution, window_shape
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import INPUT, Fade, Graph, Population, Projection
from neurons.inhibition import Inhibition
from neurons.integrate_fire import IntegrateFireUnits
from neurons.izhikevich import IzhikevichUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import Network
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.quantised_dense import quantised
from neurons.sparse import sparse_of
from neurons.threshold import ThresholdUnits
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE, Reset

# what the tests go through. "driven": LIF at rest above the threshold; "quick": adaptive, crosses between events;
# "charged": integrate-and-fire with a drive; "front": LIF or integrate-and-fire, all alike and alone behind the input,
# which the engine runs in a loop of its own
MODELS = ("lif", "driven", "current", "adaptive", "quick", "integrate", "charged", "izhikevich", "threshold", "front")


def random_model(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Draw parameters of a model; some of them one for each unit."""

    def among(low: float, high: float) -> Any:
        return rng.uniform(low, high, shape if rng.random() < 0.25 and kind != "front" else None)

    common: dict[str, Any] = {"v_threshold": among(0.4, 1.2), "v_reset": among(-0.4, 0.2)}
    common |= {"reset": str(rng.choice(["soft", "hard"])), "refractory_us": int(rng.choice([0, 0, 1, 7, 60, 200]))}
    tau, rest = among(60.0, 1500.0), among(-0.3, 0.3) if rng.random() < 0.5 else 0.0
    match kind:
        case "front" if rng.random() < 0.2:
            return IntegrateFireUnits(**common)
        case "lif" | "front":
            return LIFUnits(tau, v_leak=rest, **common)
        case "driven":
            return LIFUnits(tau, v_leak=among(1.0, 2.0), **common)
        case "current":
            syn = tau if rng.random() < 0.2 else tau * rng.choice([0.1, 0.4, 0.9, 1.2, 3.0])
            return CurrentLIFUnits(tau, syn, v_leak=rest if rng.random() < 0.8 else 1.3, **common)
        case "adaptive":
            return AdaptiveLIFUnits(tau, tau * rng.uniform(1.1, 9.0), v_leak=rest, adaptation=among(0.0, 0.5), **common)
        case "quick":
            adaptation = among(-0.1, 0.0) if rng.random() < 0.2 else among(0.1, 0.9)
            return AdaptiveLIFUnits(tau, tau * rng.uniform(0.1, 1.5), v_leak=rest, adaptation=adaptation, **common)
        case "integrate":
            return IntegrateFireUnits(drive_per_us=-among(0.0, 0.001) if rng.random() < 0.5 else 0.0, **common)
        case "charged":
            return IntegrateFireUnits(drive_per_us=among(0.0005, 0.004), **common)
        case "izhikevich":
            drive = among(4.0, 20.0) if rng.random() < 0.5 else 0.0
            return IzhikevichUnits(
                among(0.02, 0.1), among(0.2, 0.25), d=2.0, drive=drive, step_us=int(rng.choice([20, 50, 100]))
            )
        case "threshold":
            return ThresholdUnits(among(0.3, 0.9))
    return LeakyIntegratorUnits(tau, v_leak=rest)


def random_network(rng: np.random.Generator, main: str, *, can_phase: bool = False) -> Graph:
    """Draw a network with one population of the model ``main`` at least: any topology, any delay, cycles."""
    kinds = [kind for kind in MODELS if kind != "front" and not (can_phase and kind == "izhikevich")]
    inputs: tuple[int, ...] = (int(rng.integers(1, 6)),)
    if rng.random() < 0.5:
        inputs = (int(rng.integers(2, 5)), int(rng.integers(2, 5)), 2)
    shapes = {INPUT: inputs}
    drawn = {INPUT: ""}
    populations: list[Population] = []
    projections: list[Projection] = []
    delays = [1, 2, 10, 20, 50, 100, int(rng.integers(1, 400))]  # few of them, so that spikes meet
    n = int(rng.integers(1, 5))
    has_front = main == "front"
    place = 0 if has_front else int(rng.integers(n))
    for k in range(n):
        name, kind = f"p{k}", main if k == place else str(rng.choice(kinds))
        maps = [
            source for source, shape in shapes.items() if len(shape) == 3 and not (has_front and k and source == INPUT)
        ]
        first = None
        if maps and rng.random() < 0.6:
            source = str(rng.choice(maps))
            size, stride = (tuple(int(side) for side in rng.integers(1, 3, 2)) for _ in range(2))
            padding = tuple(int(side) for side in rng.integers(0, 2, 2))
            height, width = window_shape(shapes[source], size, stride, padding)
            c_in = shapes[source][2]
            if height >= 1 and width >= 1 and rng.random() < 0.3 and not (has_front and k == 0):
                shape: tuple[int, ...] = (height, width, c_in)
                first = source, Pooling(size, stride, padding, float(rng.uniform(0.3, 0.9)))
            elif height >= 1 and width >= 1:
                groups = int(rng.choice([g for g in (1, 2) if c_in % g == 0])) if not has_front else 1
                shape = (height, width, groups * int(rng.integers(1, 4)))
                weight = rng.normal(0.35, 0.45, (*size, c_in // groups, shape[2]))
                first = source, Convolution(weight, stride, padding, groups)
        if first is None:
            shape = (int(rng.integers(1, 24 if has_front and k == 0 else 7)),)
        populations.append(Population(name, random_model(kind, rng, shape), shape))
        shapes[name], drawn[name] = shape, kind
        if first is not None:
            delay_us = 0 if first[0] == INPUT and has_front else int(rng.choice([0, 0, *delays]))
            projections.append(Projection(first[0], name, first[1], delay_us))
        elif has_front and k == 0:
            projections.append(Projection(INPUT, name, Dense(rng.normal(0.3, 0.5, (math.prod(inputs), shape[0])))))
    if rng.random() < 0.5:
        populations.append(Population("out", random_model("", rng, (3,)), (3,)))
        shapes["out"] = (3,)
    names = list(shapes)
    for target in names[1:]:
        n_more = int(rng.integers(0 if any(q.target == target for q in projections) else 1, 4))
        for _ in range(n_more):
            sources = [name for name in names if name != "out" and not (has_front and name == INPUT)]
            source = str(rng.choice(sources))
            if not any(q.target == target for q in projections) and rng.random() < 0.8:
                source = str(rng.choice([name for name in names[: names.index(target)] if name in sources]))
            forward = names.index(source) < names.index(target)
            delay_us = int(rng.choice([0, 0, *delays] if forward else delays))
            n_pre, n_post = math.prod(shapes[source]), math.prod(shapes[target])
            weight = rng.normal(0.3, 0.5, (n_pre, n_post))
            if not forward:  # or it would fire more and more
                weight = rng.normal(0.0, 0.4, (n_pre, n_post))
                weight /= np.maximum(1.5 * np.maximum(weight, 0).sum(1, keepdims=True), 1)
            if rng.random() < 0.25:  # units that are alike stay so, and cross together
                weight[...] = weight.mean(0).mean() if forward else -0.1
            thin = weight * (rng.random(weight.shape) < 0.5)
            kinds_of = [Dense(weight), sparse_of(thin)]
            if n_pre == n_post:
                kinds_of += [
                    Inhibition(float(rng.uniform(0.1, 0.5))),
                    OneToOne(float(weight[0, 0])),
                    OneToOne(weight[0]),
                ]
            projections.append(Projection(source, target, kinds_of[int(rng.integers(len(kinds_of)))], delay_us))
    rng.shuffle(projections)
    scaled = [q._replace(topology=_scaled(q.topology, _gain(drawn.get(q.target, "")))) for q in projections]
    later = rng.spawn(1)[0]  # so that the draws above and below stay what they are
    if later.random() < 0.3:  # what the front may run does not fade
        fade = Fade(float(later.uniform(100.0, 4000.0)), int(later.choice([0, 60, 150])))
        scaled = [
            q._replace(fade=fade) if later.random() < 0.5 and not (has_front and q.source == INPUT) else q
            for q in scaled
        ]
    if later.random() < 0.4:
        scaled = [
            q._replace(topology=quantised(q.topology)) if isinstance(q.topology, Dense) and later.random() < 0.7 else q
            for q in scaled
        ]
    return Graph(inputs, populations, scaled)


def _gain(kind: str) -> float:
    return {"izhikevich": 25.0, "current": 2.5, "driven": 0.4, "charged": 0.6}.get(kind, 1.0)


def _scaled(topology: Any, gain: float) -> Any:
    if isinstance(topology, Inhibition):
        return Inhibition(topology.strength * gain)
    return topology._replace(weight=topology.weight * gain)


def random_input(rng: np.random.Generator, n_units: int) -> np.ndarray:
    """Draw spikes: alone, several in a microsecond, on a grid, silence in between."""
    n = int(rng.integers(20, 90))
    grid = int(rng.choice([1, 1, 10, 50]))
    gaps = rng.choice([0, 1, 2, 10, 30, 70], n) + rng.integers(0, 20, n) * (rng.random(n) < 0.4)
    gaps[n // 2] += int(rng.choice([0, 900, 3000]))
    items = np.zeros(n, SPIKE_DTYPE)
    items["t"] = np.cumsum(gaps) // grid * grid
    items["unit"] = rng.integers(0, n_units, n)
    return items


def as_input(items: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Give spikes the form that a network with inputs of this shape takes."""
    if len(shape) == 1:
        return items
    events = np.zeros(len(items), EVENT_DTYPE)
    unit = items["unit"].astype(np.int64)
    events["t"], events["p"] = items["t"], unit % 2
    events["x"], events["y"] = unit // 2 % shape[1], unit // 2 // shape[1]
    return events


def begun(graph: Graph, t_us: int = 0, **more: Any) -> Network:
    """Make a network whose time has begun."""
    network = Network.of(graph, **more)
    network.on_mark(next(iter(network.inputs)), Reset(t_us), lambda port, message: None)
    return network


def is_calm(graph: Graph, items: np.ndarray, until_us: int, **more: Any) -> bool:
    """Tell whether a network does not fire more and more; items are in the form that the network takes."""
    network = begun(graph, **more)
    for t in range(0, until_us + 10, 10):
        network.run(items[(items["t"] > t - 10) & (items["t"] <= t)], t)
        if network.statistics()["spikes"] > 5000:
            return False
    return True
