"""Nothing depends on how a stream is cut, when it starts, where a run was stopped, or how a network is spread."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.inhibition import Inhibition
from neurons.network import Network
from neurons.one_to_one import OneToOne
from neurons.sparse import sparse_of
from stream.packet import Message, Packet, Reset


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_random = _load("random_network")
MODELS, begun = _random.MODELS, _random.begun
CASES = [(main, 0) for main in MODELS] + [(main, 60) for main in MODELS if main != "izhikevich"]
PASSIVE = ("lif", "adaptive", "threshold")  # fire at events alone, as drawn below


def state_of(network: Network) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in network.snapshot().items()}


class Sink:
    """Takes what an operator emits, joined."""

    def __init__(self, network: Network) -> None:
        self.items = {port: b"" for port in network.outputs}

    def __call__(self, port: str, message: Message) -> None:
        if isinstance(message, Packet):
            t = message.items["t"]
            assert np.all((t >= message.start_us) & (t < message.end_us))
            self.items[port] += message.items.tobytes()


def feed(network: Network, items: np.ndarray, cuts: list[int], sink: Sink, end_us: int) -> None:
    port = next(iter(network.inputs))
    start_us = 0
    for part in np.split(items, sorted(cuts)):
        stop_us = int(part["t"][-1]) + 1 if len(part) else start_us
        network.on_packet(port, Packet(part, start_us, stop_us), sink)
        start_us = max(start_us, stop_us - 1)
    network.on_packet(port, Packet(items[:0], end_us, end_us), sink)


def drawn(seed: int, main: str, phase_us: int) -> tuple[Graph, np.ndarray, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    graph = _random.random_network(rng, main, can_phase=phase_us > 0)
    items = _random.as_input(_random.random_input(rng, math.prod(graph.inputs)), graph.inputs)
    return graph, items, {"discipline": "phase", "phase_us": phase_us} if phase_us else {}


@pytest.mark.parametrize(("main", "phase_us"), CASES)
def test_cut_anywhere_stop_anywhere_start_anywhere(main: str, phase_us: int) -> None:
    @settings(max_examples=15, deadline=None, database=None)
    @given(st.integers(0, 2**63), st.lists(st.integers(0, 90), max_size=6), st.integers(0, 90), st.integers(1, 10**11))
    def check(seed: int, cuts: list[int], at: int, late_us: int) -> None:
        graph, items, more = drawn(seed, main, phase_us)
        end_us = int(items["t"][-1]) + 250
        assume(_random.is_calm(graph, items, end_us, **more))
        whole, parted = Network.of(graph, **more), Network.of(graph, **more)
        want, got = Sink(whole), Sink(parted)
        feed(whole, items, [], want, end_us)
        feed(parted, items, cuts, got, end_us)
        assert got.items == want.items
        assert state_of(parted) == state_of(whole)
        # stopped in the middle, and gone on with in another
        one, other = Network.of(graph, **more), Network.of(graph, **more)
        sink = Sink(one)
        at = min(at, len(items))
        until_us = int(items["t"][at - 1]) + 1 if at else 0
        feed(one, items[:at], cuts, sink, until_us)
        other.restore({name: array.copy() for name, array in one.snapshot().items()})
        feed(other, items[at:], [], sink, end_us)
        assert sink.items == want.items
        assert state_of(other) == state_of(whole)
        # later, all the same: 10^10 us and more
        shift_us = 10**10 + late_us
        shifted = items.copy()
        shifted["t"] += shift_us
        early, later = begun(graph, **more), begun(graph, shift_us, **more)
        first, second = early.run(items, end_us), later.run(shifted, end_us + shift_us)
        for name, spikes in first.items():
            assert np.array_equal(spikes["t"] + shift_us, second[name]["t"])
            assert np.array_equal(spikes["unit"], second[name]["unit"])
        for population in graph.populations:
            assert early.potentials(population.name).tobytes() == later.potentials(population.name).tobytes()

    check()


def forward_graph(rng: np.random.Generator, kinds: list[str]) -> Graph:
    """Draw a chain of populations without delay; the last one sends back to itself."""
    populations: list[Population] = []
    projections: list[Projection] = []
    shape: tuple[int, ...] = (4,)
    source = INPUT
    for k, kind in enumerate(kinds):
        name, after = f"p{k}", (int(rng.integers(2, 8)),)
        model = _random.random_model(kind, rng, after)
        if kind == "adaptive":
            model = model._replace(reset="hard")  # else it may cross at the end of a refractory time
        gain = _random._gain(kind)
        weight = rng.normal(0.4, 0.5, (shape[0], after[0])) * gain
        topology: Any = [Dense(weight), sparse_of(weight * (rng.random(weight.shape) < 0.6))][int(rng.integers(2))]
        populations.append(Population(name, model, after))
        projections.append(Projection(source, name, topology))
        source, shape = name, after
    back = [Inhibition(0.2 * gain), OneToOne(0.3 * gain)][int(rng.integers(2))]
    projections.append(Projection(source, source, back, int(rng.choice([1, 20, 137]))))
    return Graph((4,), populations, projections)


@pytest.mark.parametrize("last", MODELS)
def test_spread_over_a_chain_of_networks_the_bits_are_the_same(last: str) -> None:
    """One network, or one for each population: the spikes of one are the input of the next.

    So it is where the earlier populations fire at their input's events alone. A population that also fires by itself
    may do so in the very microsecond in which something happens by itself behind it; then one network goes by the order
    of scheduling, which two of them do not share.
    """

    @settings(max_examples=20, deadline=None, database=None)
    @given(st.integers(0, 2**63), st.sampled_from([0, 1, 2]))
    def check(seed: int, n_before: int) -> None:
        rng = np.random.default_rng(seed)
        kinds = [str(rng.choice(PASSIVE)) for _ in range(n_before + 1)] + [last]
        graph = forward_graph(rng, kinds)
        items = _random.random_input(rng, 4)
        end_us = int(items["t"][-1]) + 250
        assume(_random.is_calm(graph, items, end_us))
        whole = begun(graph)
        want = whole.run(items, end_us)
        spikes = items
        for k, population in enumerate(graph.populations):
            inputs = graph.populations[k - 1].shape if k else graph.inputs
            mine = [q for q in graph.projections if q.target == population.name]
            mine = [q._replace(source=INPUT) if q.source != population.name else q for q in mine]
            part = begun(Graph(inputs, [population], mine))
            spikes = part.run(spikes, end_us)[population.name]
            assert np.array_equal(spikes, want[population.name])
            assert part.potentials(population.name).tobytes() == whole.potentials(population.name).tobytes()

    check()


@pytest.mark.parametrize(("main", "phase_us"), CASES)
def test_a_reset_forgets_all(main: str, phase_us: int) -> None:
    for seed in range(4):
        graph, items, more = drawn(seed, main, phase_us)
        middle_us = int(items["t"][-1]) + 10
        if not _random.is_calm(graph, items, middle_us, **more):
            continue
        used, fresh = begun(graph, **more), begun(graph, middle_us, **more)
        used.run(items)
        used.on_mark("events", Reset(middle_us), lambda port, message: None)
        late = items.copy()
        late["t"] += middle_us
        got, want = used.run(late), fresh.run(late)
        for name, spikes in want.items():
            assert np.array_equal(got[name], spikes)
        for name in ("v", "w", "held_us"):
            assert np.array_equal(used.snapshot()[name], fresh.snapshot()[name])


@pytest.mark.parametrize(("main", "phase_us"), CASES)
def test_reading_changes_nothing(main: str, phase_us: int) -> None:
    for seed in range(10, 14):
        graph, items, more = drawn(seed, main, phase_us)
        end_us = int(items["t"][-1]) + 100
        if not _random.is_calm(graph, items, end_us, **more):
            continue
        read, unread = begun(graph, **more), begun(graph, **more)
        # in pieces of 7 us, which fall between the steps and phases
        for t in range(0, end_us, 7):
            part = items[(items["t"] > t - 7) & (items["t"] <= t)]
            got, want = read.run(part, t), unread.run(part, t)
            for population in graph.populations:
                assert np.all(np.isfinite(read.potentials(population.name)))
            for name, spikes in want.items():
                assert np.array_equal(got[name], spikes)
        assert state_of(read) == state_of(unread)
