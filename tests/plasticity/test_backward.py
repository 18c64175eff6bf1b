"""The walk back through any network against automatic differentiation of a plain forward, in float64.

The forward here goes along the same tape (what happened in which order), but computes every potential by itself, with
whole populations at a time and dense tables of synapses, and lets ``autograd`` differentiate it.
"""

import warnings
from types import MappingProxyType
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.extend import defvjp, primitive

from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection, n_units, shape_of
from neurons.inhibition import Inhibition
from neurons.integrate_fire import IntegrateFireUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.program import CROSSED, DELIVERED, ENDED, FIRED
from neurons.sparse import Sparse
from neurons.threshold import ThresholdUnits
from plasticity.hebbian import Hebbian
from plasticity.plastic_network import PlasticNetwork
from plasticity.short_term import ShortTerm
from plasticity.surround import Surround
from plasticity.window import TapedWindow
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE

START_US = 10**10
WIDTH = 0.4


# -- the forward -------------------------------------------------------------------------------------------------------


@primitive
def _step(x: Any, psi: Any) -> Any:
    return (x > 0) * 1.0


defvjp(_step, lambda ans, x, psi: lambda g: g * psi(x, ans), None)


def _psi_of(surrogate: str) -> Any:
    if surrogate == "spikes":
        return lambda x, s: s
    if surrogate == "rectangle":
        return lambda x, s: (np.abs(x) < WIDTH) * 1.0
    return lambda x, s: 1.0 / (1.0 + np.abs(x) / WIDTH) ** 2


def _synapses(graph: Graph, projection: Projection) -> Any:
    """Return, for each pair of units, which number of the projection's weights joins them; -1: none."""
    source, target = (shape_of(graph, name) for name in (projection.source, projection.target))
    index = np.full((n_units(source), n_units(target)), -1)
    it = projection.topology
    if isinstance(it, Dense):
        index[...] = np.arange(index.size).reshape(index.shape)
    elif isinstance(it, OneToOne):
        np.fill_diagonal(index, np.arange(len(index)))
    elif isinstance(it, Sparse):
        for pre in range(len(index)):
            for s in range(it.row_start[pre], it.row_start[pre + 1]):
                index[pre, it.unit[s]] = s
    elif isinstance(it, Inhibition):
        index[...] = 0
        np.fill_diagonal(index, -1)
    else:
        size = np.shape(it.weight)[:2] if isinstance(it, Convolution) else it.size
        for oy in range(target[0]):
            for ox in range(target[1]):
                for ky in range(size[0]):
                    for kx in range(size[1]):
                        y, x = oy * it.stride[0] + ky - it.padding[0], ox * it.stride[1] + kx - it.padding[1]
                        if not (0 <= y < source[0] and 0 <= x < source[1]):
                            continue
                        for c in range(source[2]):
                            for o in range(target[2]):
                                pre, post = (y * source[1] + x) * source[2] + c, (oy * target[1] + ox) * target[2] + o
                                if isinstance(it, Pooling):
                                    index[pre, post] = 0 if c == o else -1
                                    continue
                                per_group, out = source[2] // it.groups, target[2] // it.groups
                                if c // per_group == o // out:
                                    tap = (ky * size[1] + kx) * per_group + c % per_group
                                    index[pre, post] = tap * target[2] + o
    return index


def _weights(projection: Projection) -> Any:
    it = projection.topology
    if isinstance(it, Inhibition):
        return np.array([-it.strength])
    return np.atleast_1d(np.asarray(it.weight, float)).reshape(-1)


class Parameters(NamedTuple):
    """What is differentiated by."""

    weight: Any  # a list, for each projection
    tau: Any  # a list, for each population
    rule: Any  # for each projection: local_rate, sliding, mixing (number or array), tau_hebb
    terminal: Any  # for each projection: (n_pre, 5)


class Rules(NamedTuple):
    rules: Any
    terminals: Any
    graded: Any  # ends of projections whose amplitudes stand on the tape


def _forward(
    graph: Graph, rules: Rules, x: Parameters, tape: Any, taped: Any, psi: Any, end_us: int, phase_us: int
) -> Any:
    """Return the averages of each leaky integrator, the potentials of each population, and every spike's s."""
    names = [p.name for p in graph.populations]
    models = [p.model for p in graph.populations]
    sizes = [n_units(p.shape) for p in graph.populations]
    start = tape[0, 0] if len(tape) else end_us
    index = [_synapses(graph, it) for it in graph.projections]
    v = [anp.zeros(n) for n in sizes]
    w = [anp.zeros(n) for n in sizes]
    integral = [anp.zeros(n) for n in sizes]
    at = [np.full(n, float(start)) for n in sizes]
    held = [np.full(n, -np.inf) for n in sizes]
    hebb = {q: anp.zeros(len(_weights(it))) for q, it in enumerate(graph.projections)}
    read_at = {q: np.full(len(_weights(it)), float(start)) for q, it in enumerate(graph.projections)}
    resource, release, last = {}, {}, {}
    for q, it in enumerate(graph.projections):
        ends = (it.source, it.target)
        if ends in rules.terminals:
            resource[q] = [1.0] * len(index[q])
            # where release begins counts as given
            release[q] = list(np.broadcast_to(rules.terminals[ends].f_rest, (len(index[q]),)))
            last[q] = np.full(len(index[q]), float(start))
    owed: dict[tuple[int, int], Any] = {}
    fired: dict[int, Any] = {}
    waiting: dict[int, list[Any]] = {q: [] for q in range(len(graph.projections))}

    def flow(p: int, to_us: Any, unit: Any = None) -> None:
        model = models[p]
        when = np.full(sizes[p], float(to_us))
        if unit is not None:  # the others stay
            when = at[p].copy()
            when[unit] = to_us
        dt = when - at[p]
        free = np.clip(when - np.maximum(held[p], at[p]), 0.0, dt)
        stay = dt - free
        tau = x.tau[p][0]
        if isinstance(model, LeakyIntegratorUnits):
            integral[p] = integral[p] + v[p] * tau * (1.0 - anp.exp(-dt / tau))
            v[p] = v[p] * anp.exp(-dt / tau)
        elif isinstance(model, LIFUnits):
            v[p] = v[p] * anp.exp(-free / tau)
        elif isinstance(model, AdaptiveLIFUnits):
            v[p] = v[p] * anp.exp(-free / tau)
            w[p] = w[p] * anp.exp(-dt / x.tau[p][1])
        elif isinstance(model, CurrentLIFUnits):
            tau_2 = x.tau[p][1]
            w[p] = w[p] * anp.exp(-stay / tau_2)
            rate = 1.0 / tau_2 - 1.0 / tau
            v[p] = anp.exp(-free / tau) * (v[p] + w[p] / tau * (1.0 - anp.exp(-free * rate)) / rate)
            w[p] = w[p] * anp.exp(-free / tau_2)
        elif isinstance(model, ThresholdUnits):
            v[p] = v[p] * (dt == 0)
        at[p] = when

    def threshold(p: int) -> Any:
        theta = np.broadcast_to(models[p].v_threshold - getattr(models[p], "v_leak", 0.0), (sizes[p],))
        return theta + w[p] if isinstance(models[p], AdaptiveLIFUnits) else theta

    def spike(p: int, mask: Any, entries: Any, t_us: float, u: Any, theta: Any) -> Any:
        """Test the units in ``mask``; those in ``entries`` fired."""
        s = _step(u - theta, lambda d, ans: psi(d, ans) * mask)
        s = s * mask
        for k, unit in entries:
            fired[k] = s[unit]
        model = models[p]
        if isinstance(model, ThresholdUnits):
            v[p] = v[p] * (1.0 - mask)
        elif model.reset == "soft":
            v[p] = u - (model.v_threshold - model.v_reset) * s
        else:
            v[p] = u * (1.0 - s) + (model.v_reset - getattr(model, "v_leak", 0.0)) * s
        if isinstance(model, AdaptiveLIFUnits):
            w[p] = w[p] + model.adaptation * s
        for _, unit in entries:
            held[p] = held[p].copy()
            held[p][unit] = t_us + model.refractory_us if getattr(model, "refractory_us", 0) else -np.inf
        happened = np.zeros(sizes[p])
        for _, unit in entries:
            happened[unit] = 1.0
        assert np.array_equal(happened, np.asarray(getattr(s, "_value", s))), (
            "the tape's spikes are those of the reference"
        )
        return s * (1.0 - happened)

    def fade(q: int, row: Any, to_us: float) -> None:
        """Let the synapses of a row decay."""
        touched = np.zeros(len(hebb[q]))
        touched[row[row >= 0]] = 1.0
        left = anp.where(touched > 0, anp.exp(-(to_us - read_at[q]) / x.rule[q][3]), 1.0)
        hebb[q] = hebb[q] * left
        read_at[q] = np.where(touched > 0, float(to_us), read_at[q])

    def write(q: int, unit: int, u: Any, amplitude: Any) -> None:
        """Let the local rule change a row, each synapse once."""
        it, row = graph.projections[q], index[q][unit]
        p = names.index(it.target)
        rule, (rate, sliding, _, _) = rules.rules[it.source, it.target], x.rule[q]
        theta = np.broadcast_to(np.asarray(models[p].v_threshold) - models[p].v_leak, (sizes[p],))
        z = u / theta - sliding
        if rule.post == "tanh":
            z = anp.tanh(z)
        elif rule.post == "softmax":
            z = anp.exp(z - anp.max(z))
            z = z / anp.sum(z)
        where = np.full(len(hebb[q]), -1)
        where[row[row >= 0]] = np.flatnonzero(row >= 0)
        grown = hebb[q] + anp.where(where >= 0, amplitude * rate[unit] * z[where], 0.0)
        hebb[q] = anp.where(where >= 0, anp.clip(grown, -rule.hebb_max, rule.hebb_max), hebb[q])

    def ghosts(p: int, s: Any, t_us: float) -> None:
        """Deliver spikes that did not happen: nothing, but with a derivative."""
        for q, it in enumerate(graph.projections):
            if it.source == names[p] and it.delay_us == 0:
                target = names.index(it.target)
                flow(target, touched_at(target, t_us))
                table = anp.where(index[q] >= 0, x.weight[q][index[q]], 0.0)
                takes = np.ones(sizes[target])
                if isinstance(models[target], LIFUnits | IntegrateFireUnits | AdaptiveLIFUnits):
                    takes = (held[target] <= touched_at(target, t_us)) * 1.0
                if isinstance(models[target], CurrentLIFUnits):
                    w[target] = w[target] + s @ table * takes
                elif not (isinstance(models[target], ThresholdUnits) and not phase_us):
                    v[target] = v[target] + s @ table * takes

    def touched_at(p: int, t_us: float) -> float:
        if phase_us and not isinstance(models[p], LeakyIntegratorUnits):
            return float(t_us - (t_us - start) % phase_us)
        return float(t_us)

    def cross(k: int) -> None:
        t_us, _, p, unit = (int(number) for number in tape[k])
        flow(p, t_us - taped[k], unit)
        model = models[p]
        s = _step(anp.array(1.0), lambda d, ans: 1.0)
        # u itself is at the threshold: let the derivative through and the value be 1
        u = v[p][unit]
        s = 1.0 + _through(u - threshold(p)[unit])
        fired[k] = s
        one = np.zeros(sizes[p])
        one[unit] = 1.0
        if model.reset == "soft":
            v[p] = v[p] - (model.v_threshold - model.v_reset) * s * one
        else:
            v[p] = v[p] * (1.0 - s * one) + (model.v_reset - model.v_leak) * s * one
        if isinstance(model, AdaptiveLIFUnits):
            w[p] = w[p] + model.adaptation * s * one
        if model.refractory_us:
            held[p] = held[p].copy()
            held[p][unit] = t_us - taped[k] + model.refractory_us

    k = 0
    ended: list[Any] = []  # what did not happen at the end of a phase waits for the other populations
    while k < len(tape):
        t_us, what, place, unit = (int(number) for number in tape[k])
        if ended and (what != ENDED or t_us != ended[0][2]):
            for ghost in ended:
                ghosts(*ghost)
            ended = []
        if what == CROSSED:
            cross(k)
            waiting_for(graph, names, waiting, place, k)
            k += 1
            continue
        p = place if what == ENDED else names.index(graph.projections[place].target)
        end = k + 1
        while end < len(tape) and tape[end, 1] in (FIRED, CROSSED) and tape[end, 2] == p and tape[end, 0] == t_us:
            end += 1
        for c in range(k + 1, end):
            if tape[c, 1] == CROSSED:
                cross(c)
        entries = [(c, int(tape[c, 3])) for c in range(k + 1, end) if tape[c, 1] == FIRED]
        if what == ENDED:
            flow(p, t_us - phase_us)
            for (q, unit), amplitude in [entry for entry in owed.items() if names[p] == target_of(graph, entry[0][0])]:
                fade(q, index[q][unit], t_us)
                write(q, unit, v[p], amplitude)
                del owed[q, unit]
            mask = (held[p] <= t_us) * 1.0
            left = spike(p, mask, entries, t_us, v[p], threshold(p))
            if isinstance(models[p], ThresholdUnits):
                v[p] = v[p] * 0.0
            later = []
            if psi.all_units:
                ended.append((p, left, t_us))
        else:
            q, it = place, graph.projections[place]
            now = touched_at(p, t_us)
            flow(p, now)
            s = taped[k] if (it.source, it.target) in rules.graded else 1.0
            if it.source != INPUT:
                s = fired[waiting[q].pop(0)]
            amplitude = s
            if q in resource:
                dt = t_us - last[q][unit]
                depletion, tau_rec, f_rest, f_step, tau_fac = x.terminal[q][unit]
                r = 1.0 - (1.0 - resource[q][unit]) * anp.exp(-dt / tau_rec)
                f = f_rest + (release[q][unit] - f_rest) * anp.exp(-dt / tau_fac)
                amplitude = s * r * f
                resource[q][unit], release[q][unit] = r * (1.0 - depletion), f + (1.0 - f) * f_step
                last[q] = last[q].copy()
                last[q][unit] = t_us
            row = index[q][unit]
            mask = (row >= 0) * 1.0
            weight = x.weight[q][row]
            rule = rules.rules.get((it.source, it.target))
            if rule is not None:
                mixing = x.rule[q][2]
                fade(q, row, now)
                h = hebb[q][row]
                if rule.mixed == "add":
                    weight = weight + mixing * h
                elif rule.mixed == "blend":
                    part = anp.reshape(mixing, (-1,))[row]
                    weight = part * weight + (1.0 - part) * h
                else:
                    part = np.asarray(rule.mask).reshape(-1)[row]
                    weight = part * weight + mixing * (1.0 - part) * h
            takes = mask
            if isinstance(models[p], LIFUnits | IntegrateFireUnits | AdaptiveLIFUnits):
                takes = mask * (held[p] <= now)
            if isinstance(models[p], CurrentLIFUnits):
                w[p] = w[p] + amplitude * weight * takes
            else:
                if isinstance(models[p], ThresholdUnits) and not phase_us:
                    v[p] = v[p] * (1.0 - mask)
                v[p] = v[p] + amplitude * weight * takes
            u = v[p]
            if rule is not None and phase_us and not isinstance(models[p], LeakyIntegratorUnits):
                owed[q, unit] = owed.get((q, unit), 0.0) + amplitude
            elif rule is not None:
                write(q, unit, u, amplitude)
            later = []
            if not isinstance(models[p], LeakyIntegratorUnits) and not phase_us:
                mask = mask * (held[p] <= t_us)
                left = spike(p, mask, entries, t_us, u, threshold(p))
                later = [(p, left, t_us)]
        for c in range(k + 1, end):
            waiting_for(graph, names, waiting, p, c)
        for ghost in later:
            if psi.all_units:
                ghosts(*ghost)
        k = end
    for p in range(len(names)):
        if not phase_us or isinstance(models[p], LeakyIntegratorUnits):
            flow(p, float(end_us))
    averages = {
        name: integral[p] / (end_us - start)
        for p, name in enumerate(names)
        if isinstance(models[p], LeakyIntegratorUnits)
    }
    return averages, dict(zip(names, v, strict=True)), fired


@primitive
def _through(x: Any) -> Any:
    return 0.0 * x


defvjp(_through, lambda ans, x: lambda g: g)


def target_of(graph: Graph, q: int) -> str:
    return graph.projections[q].target


def waiting_for(graph: Graph, names: Any, waiting: Any, p: int, k: int) -> None:
    for q, it in enumerate(graph.projections):
        if it.source == names[p]:
            waiting[q].append(k)


# -- cases -------------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    graph: Graph
    rules: Any = MappingProxyType({})
    terminals: Any = MappingProxyType({})
    phase_us: int = 0
    surrogates: Any = ("spikes", "rectangle", "fast sigmoid")
    surrounds: Any = MappingProxyType({})


def _case(name: str, rng: Any) -> Case:
    def dense(n: int, m: int, mean: float = 0.25, spread: float = 0.25) -> Dense:
        return Dense(rng.normal(mean, spread, (n, m)))

    lif = LIFUnits(tau_mem_us=8_000.0)
    scores = Population("scores", LeakyIntegratorUnits(tau_mem_us=20_000.0), (3,))
    to_scores = Projection("hidden", "scores", dense(6, 3))
    if name == "deep":
        populations = [Population("first", lif, (7,)), Population("hidden", LIFUnits(tau_mem_us=5_000.0), (6,)), scores]
        ways = [Projection(INPUT, "first", dense(5, 7)), Projection("first", "hidden", dense(7, 6)), to_scores]
        return Case(Graph((5,), populations, ways))
    if name == "surround":
        ways = [Projection(INPUT, "hidden", dense(32, 6)), to_scores]
        surrounds = {(INPUT, "hidden"): Surround(0.5, 0.3, 3_000.0, rate_hz=3_000.0)}
        return Case(Graph((4, 4, 2), [Population("hidden", lif, (6,)), scores], ways), surrounds=surrounds)
    if name == "hard, refractory":
        model = LIFUnits(tau_mem_us=8_000.0, reset="hard", v_reset=-0.2, refractory_us=700)
        ways = [Projection(INPUT, "hidden", dense(5, 6)), to_scores]
        return Case(Graph((5,), [Population("hidden", model, (6,)), scores], ways))
    if name in ("recurrent", "recurrent phase"):
        ways = [
            Projection(INPUT, "hidden", dense(5, 6)),
            Projection("hidden", "hidden", dense(6, 6, -0.05, 0.3), delay_us=1500),
            Projection("hidden", "hidden", Inhibition(0.2), delay_us=300),
            to_scores,
        ]
        phase_us = 1000 if "phase" in name else 0
        return Case(Graph((5,), [Population("hidden", lif, (6,)), scores], ways), {}, {}, phase_us, ("spikes",))
    if name == "deep phase":
        populations = [Population("first", lif, (7,)), Population("hidden", LIFUnits(tau_mem_us=5_000.0), (6,)), scores]
        ways = [Projection(INPUT, "first", dense(5, 7)), Projection("first", "hidden", dense(7, 6)), to_scores]
        return Case(Graph((5,), populations, ways), phase_us=2000)
    if name in ("convolution", "convolution, sparse, pooled"):
        kernel = rng.normal(0.3, 0.4, (3, 3, 2, 4))
        maps = Population("maps", lif, (3, 3, 4))
        pooled = Population("pooled", IntegrateFireUnits(v_threshold=2.0), (2, 2, 4))
        n = 6 if name == "convolution" else 16
        ends = Population("hidden", LIFUnits(tau_mem_us=5_000.0), (6,))
        row_start = np.arange(0, 3 * n + 1, 3)
        unit = np.concatenate([np.sort(rng.choice(6, 3, replace=False)) for _ in range(n)])
        ways = [Projection(INPUT, "maps", Convolution(kernel, stride=(2, 2), padding=(1, 1)))]
        if name == "convolution":
            ways += [Projection("maps", "hidden", dense(36, 6, 0.1, 0.2)), to_scores]
            return Case(Graph((5, 5, 2), [maps, ends, scores], ways))
        ways += [
            Projection("maps", "pooled", Pooling(size=(2, 2), stride=(1, 1), padding=(0, 0), weight=0.7)),
            Projection("pooled", "hidden", Sparse(row_start, unit, rng.normal(0.4, 0.3, 3 * n))),
            Projection("hidden", "hidden", OneToOne(rng.normal(0.1, 0.2, 6)), delay_us=400),
            to_scores,
        ]
        return Case(Graph((5, 5, 2), [maps, pooled, ends, scores], ways), {}, {}, 0, ("spikes",))
    if name == "adaptive":
        model = AdaptiveLIFUnits(tau_mem_us=8_000.0, tau_adapt_us=30_000.0, adaptation=0.3)
        ways = [Projection(INPUT, "hidden", dense(5, 6)), to_scores]
        return Case(Graph((5,), [Population("hidden", model, (6,)), scores], ways))
    if name == "current":
        model = CurrentLIFUnits(tau_mem_us=8_000.0, tau_syn_us=2_500.0, refractory_us=400)
        first = CurrentLIFUnits(tau_mem_us=6_000.0, tau_syn_us=3_000.0)
        populations = [Population("first", first, (7,)), Population("hidden", model, (6,)), scores]
        ways = [
            Projection(INPUT, "first", dense(5, 7, 1.0, 0.8)),
            Projection("first", "hidden", dense(7, 6, 1.0, 0.8)),
            to_scores,
        ]
        return Case(Graph((5,), populations, ways), {}, {}, 0, ("spikes",))
    phase_us = 2500 if name.endswith(" phase") else 0
    form, _, post = name.removeprefix("hebbian ").removesuffix(" phase").partition(" ")
    topology: Any = dense(5, 6, 0.25 if form == "add" else 0.7)
    inputs: Any = (5,)
    shape: Any = (6,)
    if form == "convolution":
        topology, inputs, shape, form = Convolution(rng.normal(0.3, 0.3, (2, 2, 1, 2))), (3, 3, 1), (2, 2, 2), "add"
        to_scores = Projection("hidden", "scores", dense(8, 3))
    if form == "sparse":  # several synapses share a row of hebb, and its time
        unit = np.concatenate([np.sort(rng.choice(6, 4, replace=False)) for _ in range(5)])
        topology, form = Sparse(np.arange(0, 21, 4), unit, rng.normal(0.5, 0.5, 20)), "add"
    numbers = {
        "local_rate": rng.normal(0.0, 0.3, n_units(inputs)),
        "sliding_threshold": rng.normal(0, 0.3, n_units(shape)),
    }
    numbers |= {"tau_hebb_us": 30_000.0, "hebb_max": 0.4, "mixed": form, "post": post or "tanh", "mixing": 0.6}
    if form == "blend":
        numbers["mixing"] = rng.uniform(0.2, 0.9, topology.weight.shape)
    if form == "mask":
        numbers["mask"] = rng.integers(0, 2, topology.weight.shape)
    terminal = ShortTerm(
        depletion=rng.uniform(0.1, 0.4, n_units(inputs)),
        tau_rec_us=20_000.0,
        f_rest=0.6,
        f_step=0.3,
        tau_fac_us=9_000.0,
    )
    ways = [Projection(INPUT, "hidden", topology), to_scores]
    second: Any = {}
    if form == "add" and not post:
        ways.append(Projection("hidden", "hidden", dense(6, 6, 0.0, 0.2), delay_us=900)) if shape == (6,) else None
        second = {("hidden", "scores"): ShortTerm(depletion=0.3, tau_rec_us=15_000.0)}
    graph = Graph(inputs, [Population("hidden", lif, shape), scores], ways)
    rules = {(INPUT, "hidden"): Hebbian(**numbers)}
    surrounds = {(INPUT, "hidden"): Surround(0.3, 1.0, 3_000.0)} if "convolution" in name else {}
    return Case(graph, rules, {(INPUT, "hidden"): terminal, **second}, phase_us, ("spikes",), surrounds)


NAMES = [
    "deep",
    "hard, refractory",
    "recurrent",
    "deep phase",
    "recurrent phase",
    "convolution",
    "convolution, sparse, pooled",
    "adaptive",
    "current",
    "hebbian add",
    "hebbian add linear",
    "hebbian add softmax",
    "hebbian blend",
    "hebbian mask",
    "hebbian convolution",
    "hebbian add phase",
    "hebbian add softmax phase",
    "hebbian blend phase",
    "hebbian convolution phase",
    "hebbian sparse",
    "hebbian sparse phase",
    "surround",
]


def _events(rng: Any, n_inputs: int, n: int) -> Any:
    events = np.zeros(n, SPIKE_DTYPE)
    events["t"] = START_US + np.sort(rng.integers(0, 40_000, n))
    events["unit"] = rng.integers(0, n_inputs, n)
    return events


def _parameters(case: Case) -> Parameters:
    tau = []
    for population in case.graph.populations:
        model = population.model
        second = getattr(model, "tau_adapt_us", getattr(model, "tau_syn_us", 1.0))
        n = n_units(population.shape)
        tau.append((np.full(n, getattr(model, "tau_mem_us", 1.0)), np.full(n, second)))
    rule, terminal = [], []
    for it in case.graph.projections:
        n_pre, n_post = (n_units(shape_of(case.graph, name)) for name in (it.source, it.target))
        found = case.rules.get((it.source, it.target))
        if found is None:
            rule.append((np.zeros(1), np.zeros(1), 0.0, 1.0))
        else:
            rule.append(
                (
                    np.broadcast_to(found.local_rate, (n_pre,)) * 1.0,
                    np.broadcast_to(found.sliding_threshold, (n_post,)) * 1.0,
                    found.mixing,
                    found.tau_hebb_us,
                )
            )
        tired = case.terminals.get((it.source, it.target)) or ShortTerm()
        terminal.append(np.stack([np.broadcast_to(value, (n_pre,)) * 1.0 for value in tired], axis=1))
    return Parameters([_weights(it) for it in case.graph.projections], tau, rule, terminal)


class _Psi:
    def __init__(self, surrogate: str) -> None:
        self._psi = _psi_of(surrogate)
        self.all_units = surrogate != "spikes"

    def __call__(self, x: Any, s: Any) -> Any:
        return self._psi(x, s)


@pytest.mark.parametrize(
    ("name", "surrogate"),
    [(name, surrogate) for name in NAMES for surrogate in _case(name, np.random.default_rng(0)).surrogates],
)
def test_all_gradients(name: str, surrogate: Any) -> None:
    rng = np.random.default_rng(NAMES.index(name) + 3)
    case = _case(name, rng)
    n_inputs = n_units(case.graph.inputs)
    network = PlasticNetwork.of(
        case.graph,
        rules=case.rules,
        terminals=case.terminals,
        surrounds=case.surrounds,
        precision="float64",
        discipline="phase" if case.phase_us else "event",
        phase_us=case.phase_us or 1000,
        graded=bool(case.phase_us and case.rules),
    )
    width = WIDTH if surrogate != "spikes" else np.inf
    window = TapedWindow(network, surrogate=surrogate, width=width, times=True)
    items = _events(rng, n_inputs, 130)
    if len(case.graph.inputs) == 3 and case.graph.inputs[2] == 2:
        events = np.zeros(len(items), EVENT_DTYPE)
        events["t"] = items["t"]
        events["p"], rest = items["unit"] % 2, items["unit"] // 2
        events["x"], events["y"] = rest % case.graph.inputs[1], rest // case.graph.inputs[1]
        items = events
    elif len(case.graph.inputs) == 3:
        events = np.zeros(len(items), EVENT_DTYPE)
        events["t"] = items["t"]
        events["x"], events["y"] = items["unit"] % case.graph.inputs[1], items["unit"] // case.graph.inputs[1]
        items = events
    end_us = int(items["t"][-1]) + 5_000
    amplitude = rng.uniform(0.6, 1.4, len(items)) if case.phase_us and case.rules else None
    network.run(items, end_us, amplitude)
    tape, taped = network.state.tape[: window.n_entries].copy(), network.state.taped[: window.n_entries].copy()
    n_spikes = int(np.sum((tape[:, 1] == FIRED) | (tape[:, 1] == CROSSED)))
    assert n_spikes > 20, "a test of gradients wants spikes"
    assert np.sum(tape[:, 1] == DELIVERED) >= 130
    wanted = rng.normal(size=3)
    by_spike = rng.normal(size=n_units(shape_of(case.graph, "hidden")))
    by_potential = rng.normal(size=len(by_spike)) * (0 if case.phase_us else 1)
    psi = _Psi(surrogate)

    def loss(weight: Any, tau: Any, rule: Any, terminal: Any) -> Any:
        x = Parameters(weight, tau, rule, terminal)
        averages, potentials, fired = _forward(
            case.graph,
            Rules(case.rules, case.terminals, {*case.rules, *case.surrounds}),
            x,
            tape,
            taped,
            psi,
            end_us,
            case.phase_us,
        )
        total = anp.sum(anp.exp(averages["scores"]) * wanted) + anp.sum(potentials["hidden"] * by_potential)
        p = [it.name for it in case.graph.populations].index("hidden")
        for k in fired:
            if tape[k, 2] == p:
                total = total + fired[k] * by_spike[tape[k, 3]]
        return total

    x = _parameters(case)
    averages, potentials, _ = _forward(
        case.graph,
        Rules(case.rules, case.terminals, {*case.rules, *case.surrounds}),
        x,
        tape,
        taped,
        psi,
        end_us,
        case.phase_us,
    )
    np.testing.assert_allclose(network.averages("scores"), averages["scores"], rtol=1e-7, atol=1e-12)
    if not case.phase_us:
        np.testing.assert_allclose(network.potentials("hidden").reshape(-1), potentials["hidden"], rtol=1e-6, atol=1e-8)
    window.walk_back(
        {"scores": np.exp(averages["scores"]) * wanted},
        d_potential={"hidden": by_potential},
        d_spike={"hidden": lambda units, t_us: by_spike[units]},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # autograd's, where a network has no local rule
        by = [grad(loss, argnum)(*x) for argnum in range(4)]
    program, table, got = network._program, network._table, window.gradients

    def same(subject: str, ours: Any, theirs: Any) -> None:
        scale = np.max(np.abs(theirs))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8 * scale + 1e-12, err_msg=subject)

    for q, it in enumerate(case.graph.projections):
        first = int(program.projection[q, 4])
        theirs = by[0][q]
        n = len(theirs)
        if isinstance(it.topology, Inhibition):
            m = n_units(shape_of(case.graph, it.target))
            ours = got.weight[first : first + 2 * m - 1]
            same("inhibition", np.delete(ours, m - 1).sum(), theirs[0])
        else:
            same(f"weights of {it.source} > {it.target}", got.weight[first : first + n], theirs)
        ends = (it.source, it.target)
        place = table.place[q]
        if ends in case.rules:
            by_rate, by_sliding, by_mixing, by_tau = by[2][q]
            same("local_rate", got.local_rate[place[1] : place[1] + len(by_rate)], by_rate)
            same("sliding", got.sliding[place[2] : place[2] + len(by_sliding)], by_sliding)
            if case.rules[ends].mixed == "blend":
                same("mixing", got.share[place[3] : place[3] + n], np.reshape(by_mixing, -1))
            else:
                same("mixing", got.mixing[q], by_mixing)
            same("tau_hebb", got.tau_fast[q], by_tau)
        if ends in case.terminals:
            theirs = by[3][q]
            ours = got.terminal[place[1] : place[1] + len(theirs)]
            for column, name_of in enumerate(ShortTerm._fields):
                same(name_of, ours[:, column], theirs[:, column])
    for p, population in enumerate(case.graph.populations):
        first = int(program.population[p, 2])
        units = slice(first, first + n_units(population.shape))
        if isinstance(population.model, LIFUnits | LeakyIntegratorUnits | AdaptiveLIFUnits):
            same(f"tau_mem of {population.name}", got.tau[units], by[1][p][0])
        if isinstance(population.model, AdaptiveLIFUnits):
            same(f"tau_adapt of {population.name}", got.tau_2[units], by[1][p][1])


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("model", [LIFUnits, IntegrateFireUnits])
def test_the_fast_way_back_is_the_same(model: Any, reset: Any, precision: Any) -> None:
    """Without rows, silent events go back four at a time, and plain rows without the general machinery."""
    rng = np.random.default_rng(8)
    leak = {"tau_mem_us": 30_000.0} if model is LIFUnits else {}
    graph = Graph(
        (40,),
        [
            Population("first", model(reset=reset, **leak), (23,)),
            Population("hidden", LIFUnits(tau_mem_us=9_000.0), (6,)),
            Population("scores", LeakyIntegratorUnits(tau_mem_us=20_000.0), (3,)),
        ],
        [
            Projection(INPUT, "first", Dense(rng.normal(0.012, 0.07, (40, 23)))),
            Projection("first", "hidden", Dense(rng.normal(0.2, 0.4, (23, 6)))),
            Projection("hidden", "scores", Dense(rng.normal(0.0, 1.0, (6, 3)))),
        ],
    )
    items = _events(rng, 40, 1500)
    items["t"] += (items["t"] - START_US) * 9  # gaps, so that what is tiny is flushed on the way
    gradients = []
    for times in (True, False):
        network = PlasticNetwork.of(graph, precision=precision)
        window = TapedWindow(network, times=times)
        network.run(items)
        fired = network.state.tape[: window.n_entries, 1] == FIRED
        assert 30 < np.sum(fired) < 900, "both spikes and silence"
        window.walk_back({"scores": np.array([1.0, -2.0, 0.5])})
        assert bool(window._is_plain.any()) != times
        gradients.append(window.gradients.weight)
    tolerance = 1e-4 if precision == "float32" else 1e-10
    np.testing.assert_allclose(
        gradients[1], gradients[0], rtol=tolerance, atol=tolerance * np.max(np.abs(gradients[0]))
    )
    assert np.count_nonzero(gradients[1]) > 600
