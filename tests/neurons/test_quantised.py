"""Weights of 8 bits: the stated order in plain Python, the network of real weights, cuts, and what is refused."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.dense import Dense
from neurons.front import decay_table
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.graph_file import load_graph, save_graph
from neurons.integrate_fire import IntegrateFireUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import Network
from neurons.quantised_dense import QuantisedDense, dense, quantised
from neurons.sparse import sparse_of
from stream.errors import ConfigError
from stream.packet import SPIKE_DTYPE, Reset

_spec = importlib.util.spec_from_file_location("test_front", Path(__file__).with_name("test_front.py"))
assert _spec is not None
assert _spec.loader is not None
_front = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_front)
MODELS = _front.MODELS
call_decay = _front.call_decay

N_INPUTS = 50


def plain(graph: Graph, items: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Run the first population in float32, event by event, as ``neurons.quantised_front`` states it."""
    model, n = graph.populations[0].model, math.prod(graph.populations[0].shape)
    topology = graph.projections[0].topology
    scale = topology.scale.astype(np.float32)
    tau_us = getattr(model, "tau_mem_us", math.inf)
    table, theta = decay_table(tau_us), np.float32(model.v_threshold)
    is_hard = model.reset == "hard"
    down = np.float32(model.v_reset if is_hard else model.v_threshold - model.v_reset)
    v, pending = np.zeros(n, np.float32), np.zeros(n, np.int32)
    held = np.full(n, -1)
    fired = []
    t_0 = 0
    for t, i in items.tolist():
        if t != t_0:
            v, pending = v + scale * pending.astype(np.float32), np.zeros(n, np.int32)
            for j in range(n):
                free = t - max(t_0, min(int(held[j]), t))
                if held[j] <= t:
                    v[j] *= np.float32(call_decay(table, tau_us, free))
            v[np.abs(v) < 1e-29] = 0
            t_0 = t
        for j in range(n):
            if held[j] <= t:
                pending[j] += topology.weight[i, j]
        for j in range(n):
            if held[j] <= t and v[j] + scale[j] * np.float32(pending[j]) > theta:
                fired.append((t, j))
                if is_hard:
                    v[j], pending[j] = down, 0
                else:
                    v[j] -= down
                held[j] = t + model.refractory_us if model.refractory_us else held[j]
    return fired, v + scale * pending.astype(np.float32)


def items_of(rng: np.random.Generator, n: int, rate: float) -> np.ndarray:
    """Draw spikes, about ``rate`` in a microsecond, with pauses."""
    items = np.zeros(n, SPIKE_DTYPE)
    gap = (rng.random(n) < 1 / (1 + rate)) * rng.integers(1, 4, n)
    gap[rng.random(n) < 0.005] += 3000
    items["t"] = np.cumsum(gap)
    items["unit"] = rng.integers(0, N_INPUTS, n)
    return items


def graph_of(model: Any, n: int, behind: str, gain: float, rng: np.random.Generator) -> Graph:
    populations = [Population("a", model, (n,))]
    projections = [Projection(INPUT, "a", quantised(Dense(rng.normal(0, gain, (N_INPUTS, n)))))]
    if behind == "readout":
        populations.append(Population("r", LeakyIntegratorUnits(300.0), (4,)))
        projections.append(Projection("a", "r", Dense(rng.normal(0, 0.3, (n, 4)))))
    if behind == "feedback":
        populations.append(Population("b", LIFUnits(300.0), (4,)))
        populations.append(Population("c", LIFUnits(300.0), (4,)))
        projections.append(Projection("a", "b", quantised(Dense(rng.normal(0, 0.3, (n, 4))))))
        projections.append(Projection("a", "c", Dense(rng.normal(0, 0.3, (n, 4)))))
        projections.append(Projection("b", "c", Dense(rng.normal(0, 0.3, (4, 4)))))
        projections.append(Projection("b", "a", sparse_of(-np.abs(rng.normal(0, 0.2, (4, n)))), 3))
    return Graph((N_INPUTS,), populations, projections)


def begun(graph: Graph, **more: Any) -> Network:
    network = Network.of(graph, **more)
    network.on_mark("spikes", Reset(0), lambda port, message: None)
    return network


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(MODELS)),
    st.sampled_from([1, 7, 16, 83, 150, 340]),
    st.sampled_from(["nothing", "readout"]),
    st.sampled_from([0.02, 0.1, 0.6]),
    st.sampled_from([0.1, 3.0, 90.0]),
    st.integers(0, 2**32),
)
def test_whole_numbers_go_as_stated(name: str, n: int, behind: str, gain: float, rate: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = graph_of(MODELS[name], n, behind, gain, rng)
    items = items_of(rng, 200, rate)
    network = begun(graph)
    assert network._program.whole.dtype == np.int8
    assert len(network._program.whole)
    spikes = network.run(items)["a"]
    want, v = plain(graph, items)
    assert spikes.tolist() == want
    got = network.potentials("a")
    assert np.array_equal(np.where(np.abs(got) < 1e-29, 0, got), np.where(np.abs(v) < 1e-29, 0, v))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(MODELS)),
    st.sampled_from([3, 20, 83, 260]),
    st.sampled_from(["nothing", "readout", "feedback"]),
    st.sampled_from([0.1, 0.6]),
    st.sampled_from([0.1, 3.0, 90.0]),
    st.lists(st.integers(0, 400), max_size=8),
    st.integers(0, 2**32),
)
def test_cut_within_a_microsecond_the_bits_are_the_same(
    name: str, n: int, behind: str, gain: float, rate: float, cuts: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    graph = graph_of(MODELS[name], n, behind, gain, rng)
    items = items_of(rng, 400, rate)
    whole, parted = begun(graph), begun(graph)
    want = whole.run(items)
    parts: dict[str, list[np.ndarray]] = {population: [] for population in want}
    for k, part in enumerate(np.split(items, sorted(cuts))):
        if k == 1:  # stopped there, and gone on with in another
            kept, parted = parted.snapshot(), begun(graph)
            parted.restore(kept)
        parted.potentials("a")
        for population, spikes in parted.run(part).items():
            parts[population].append(spikes)
    for population, spikes in want.items():
        assert np.array_equal(np.concatenate(parts[population]), spikes)
    assert {key: a.tobytes() for key, a in parted.snapshot().items()} == {
        key: a.tobytes() for key, a in whole.snapshot().items()
    }


@pytest.mark.parametrize("rate", [0.3, 10.0])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_it_is_the_network_of_the_same_real_weights(name: str, rate: float) -> None:
    """In float64 two ways of rounding decide no spike here; potentials agree to rounding."""
    for behind in ("nothing", "readout", "feedback"):
        rng = np.random.default_rng(7)
        graph = graph_of(MODELS[name], 300, behind, 0.2, rng)
        real = [
            q._replace(topology=dense(q.topology)) if isinstance(q.topology, QuantisedDense) else q
            for q in graph.projections
        ]
        items = items_of(rng, 3000, rate)
        got, want = begun(graph, precision="float64"), begun(graph._replace(projections=real), precision="float64")
        fired, wanted = got.run(items), want.run(items)
        assert len(wanted["a"]) > 300
        for population, spikes in wanted.items():
            assert np.array_equal(fired[population], spikes)
        for population in graph.populations:
            v, u = got.potentials(population.name), want.potentials(population.name)
            assert v == pytest.approx(u, rel=1e-9, abs=1e-11)


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9))
def test_rounding_to_8_bits(seed: int, n_pre: int, n_post: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, rng.uniform(0.01, 5), (n_pre, n_post)) * (rng.random(n_post) < 0.9)
    topology = quantised(Dense(weight))
    topology.check("it", (n_pre,), (n_post,))
    assert np.all(np.abs(dense(topology).weight - weight) <= 0.50001 * topology.scale)
    again = quantised(dense(topology))
    assert np.array_equal(again.weight, topology.weight)


def test_files_keep_it_and_nonsense_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graph = graph_of(IntegrateFireUnits(), 5, "readout", 0.5, rng)
    save_graph(tmp_path / "net.safetensors", graph)
    found = load_graph(tmp_path / "net.safetensors").projections[0].topology
    assert isinstance(found, QuantisedDense)
    assert found.weight.dtype == np.int8
    assert np.array_equal(found.weight, graph.projections[0].topology.weight)
    for wrong, said in (
        (found._replace(scale=found.scale[:2]), "scale"),
        (found._replace(weight=found.weight.astype(np.int16)), "int8"),
        (found._replace(weight=np.full((N_INPUTS, 5), -128, np.int8)), "-127"),
        (found._replace(scale=-found.scale), "above 0"),
    ):
        first, *others = graph.projections
        with pytest.raises(ConfigError, match=said):
            Network.of(graph._replace(projections=[first._replace(topology=wrong), *others]))
