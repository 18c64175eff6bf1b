"""Networks against plain Python, closed forms, and the laws that every stream operator keeps."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution, window_shape
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import INPUT, Fade, Graph, Population, Projection
from neurons.graph_file import load_graph, save_graph
from neurons.inhibition import Inhibition
from neurons.integrate_fire import IntegrateFireUnits
from neurons.izhikevich import IzhikevichUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIF, LIFUnits
from neurons.network import Network
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.sparse import sparse_of
from neurons.threshold import ThresholdUnits
from stream.errors import ConfigError, FormatError, RunError, StreamError
from stream.operator import Snapshot
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE, Label, Message, Packet, Reset

_spec = importlib.util.spec_from_file_location("network_reference", Path(__file__).with_name("network_reference.py"))
assert _spec is not None
assert _spec.loader is not None
_reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_reference)
naive_rows = _reference.naive_rows

HOUR_US = 3600 * 10**6

MODELS: dict[str, Any] = {
    "lif": LIFUnits(tau_mem_us=300.0),
    "lif hard, held": LIFUnits(tau_mem_us=300.0, v_reset=-0.2, reset="hard", refractory_us=70),
    "lif, driven": LIFUnits(tau_mem_us=300.0, v_leak=1.3, reset="hard", refractory_us=13),
    "current": CurrentLIFUnits(tau_mem_us=300.0, tau_syn_us=90.0, v_threshold=0.3),
    "current, slow, held": CurrentLIFUnits(tau_mem_us=200.0, tau_syn_us=411.0, v_threshold=0.4, refractory_us=31),
    "current, equal, hard": CurrentLIFUnits(tau_mem_us=200.0, tau_syn_us=200.0, v_threshold=0.6, reset="hard"),
    "adaptive": AdaptiveLIFUnits(tau_mem_us=300.0, tau_adapt_us=900.0),
    "adaptive, quick": AdaptiveLIFUnits(tau_mem_us=900.0, tau_adapt_us=100.0, adaptation=0.8, refractory_us=5),
    "integrate": IntegrateFireUnits(),
    "integrate, driven": IntegrateFireUnits(drive_per_us=0.00371, v_reset=-0.3, reset="hard", refractory_us=9),
    "izhikevich": IzhikevichUnits(d=2.0, step_us=50),
    "threshold": ThresholdUnits(v_threshold=0.6),
}
NO_SYNAPSE = sparse_of(np.zeros((40, 24)))


def per_unit(model: Any, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Give every unit its own time constant and threshold."""
    changed = {
        name: value * rng.uniform(0.9, 1.1, shape)
        for name, value in model._asdict().items()
        if name in ("tau_mem_us", "tau_syn_us", "v_threshold", "drive_per_us")
    }
    return model._replace(**changed)


def recurrent(model: Any, seed: int, gain: float = 1.0) -> Graph:
    """Make a network of every topology: a map, its pool, a recurrent layer that sends back, a readout."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        model = per_unit(model, rng, ())
    if isinstance(model, IzhikevichUnits):
        gain *= 30.0
    small = 0.25 * gain

    def normal(*shape: int) -> Any:
        return rng.normal(0.3 * gain, 0.5 * gain, shape)

    hidden = per_unit(model, rng, (6,)) if seed % 3 == 0 else model
    # driven alike, units of a pool would all cross at the same time, and rounding would tell who is first
    pool = per_unit(model, rng, (1, 2, 4)) if isinstance(model, IntegrateFireUnits) else model
    return Graph(
        (4, 5, 2),
        [
            Population("map", model, (2, 3, 4)),
            Population("pool", pool, (1, 2, 4)),
            Population("hidden", hidden, (6,)),
            Population("scores", LeakyIntegratorUnits(tau_mem_us=700.0, v_leak=0.1), (3,)),
        ],
        [
            Projection(INPUT, "map", Convolution(normal(3, 3, 1, 4), (2, 2), (1, 1), 2)),
            Projection("map", "pool", Pooling((2, 2), (1, 1), (0, 0), 0.5 * gain)),
            Projection("pool", "hidden", Dense(normal(8, 6) - 0.25 * gain)),
            Projection(INPUT, "hidden", sparse_of(normal(40, 6) * (rng.random((40, 6)) < 0.2)), 137),
            Projection("hidden", "hidden", Inhibition(small), 41),
            Projection("hidden", "map", sparse_of((normal(6, 24) - 0.5 * gain) * (rng.random((6, 24)) < 0.2)), 90),
            Projection("pool", "pool", OneToOne(-small * rng.random(8)), 20),
            Projection("hidden", "scores", Dense(normal(6, 3)), 33),
            Projection("pool", "scores", Dense(normal(8, 3))),
        ],
    )


def spikes_in(seed: int, n: int, n_units: int = 40, gap_us: int = 25) -> np.ndarray:
    rng = np.random.default_rng(seed)
    items = np.zeros(n, SPIKE_DTYPE)
    items["t"] = np.cumsum(rng.integers(0, gap_us, n))
    items["unit"] = rng.integers(0, n_units, n)
    return items


def as_events(items: np.ndarray, width: int = 5) -> np.ndarray:
    events = np.zeros(len(items), EVENT_DTYPE)
    unit = items["unit"].astype(np.int64)
    events["t"], events["p"] = items["t"], unit % 2
    events["x"], events["y"] = unit // 2 % width, unit // 2 // width
    return events


def begun(network: Network, t_us: int = 0) -> Network:
    """Let time begin."""
    network.on_mark("events", Reset(t_us), lambda port, message: None)
    return network


def state_of(network: Network) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in network.snapshot().items()}


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 3),
    st.booleans(),
)
def test_windows_equal_the_naive_loop(
    sides: Any, size: Any, stride: Any, padding: Any, groups: int, in_group: int, out_group: int, pools: bool
) -> None:
    source = (*sides, groups * in_group)
    height, width = window_shape(source, size, stride, padding)
    if height < 1 or width < 1:
        return
    rng = np.random.default_rng(0)
    topology: Any
    if pools:
        topology, channels = Pooling(size, stride, padding, 0.5), source[2]
    else:
        weight = rng.integers(1, 100, (*size, in_group, groups * out_group)).astype(float)
        topology, channels = Convolution(weight, stride, padding, groups), groups * out_group
    check_row_by_row(Projection(INPUT, "out", topology), source, (height, width, channels))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.floats(0, 1), st.integers(0, 2**32))
def test_joined_units_equal_the_naive_loop(n_pre: int, n_post: int, density: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(1, 100, (n_pre, n_post)) * (rng.random((n_pre, n_post)) < density)
    for topology in (Dense(weight), sparse_of(weight)):
        check_row_by_row(Projection(INPUT, "out", topology), (n_pre,), (n_post,))
    for topology in (Inhibition(3.0), OneToOne(2.0), OneToOne(weight[0] + np.zeros(n_post))):
        check_row_by_row(Projection(INPUT, "out", topology), (n_post,), (n_post,))


def check_row_by_row(projection: Projection, source: tuple[int, ...], target: tuple[int, ...]) -> None:
    """Send one spike from each unit, and compare what it added."""
    populations = [
        Population("in", ThresholdUnits(0.5), source),
        Population("out", LeakyIntegratorUnits(tau_mem_us=1e18), target),
    ]
    graph = Graph(
        (math.prod(source),),
        populations,
        [Projection(INPUT, "in", OneToOne(1.0)), projection._replace(source="in")],
    )
    for i, row in enumerate(naive_rows(projection, source, target)):
        network = Network.of(graph)
        network.run(np.array([(5, i)], SPIKE_DTYPE))
        want = np.zeros(math.prod(target))
        for j, weight in row:
            want[j] += weight
        assert network.potentials("out").reshape(-1).tolist() == want.tolist()


def test_a_dense_layer_is_the_plain_layer_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(0.1, 0.4, (40, 30))
    events = as_events(spikes_in(1, 2000, gap_us=3000))
    network = Network.of(
        Graph((4, 5, 2), [Population("a", LIFUnits(), (30,))], [Projection(INPUT, "a", Dense(weight))])
    )
    layer = LIF(weight, width=5, height=4)
    assert np.array_equal(network.run(events)["a"], layer.run(events))
    assert np.array_equal(network.state.v, layer.state.v)


@pytest.mark.parametrize("refractory_us", [0, 70])
@pytest.mark.parametrize("is_dense", [False, True])
def test_the_fast_loop_changes_no_bit(is_dense: bool, refractory_us: int) -> None:
    """A second way in, without a synapse, keeps a network out of the engine's fast loop."""
    rng = np.random.default_rng(2)
    model = LIFUnits(tau_mem_us=400.0, refractory_us=refractory_us)
    topology: Any = Convolution(rng.normal(0.2, 0.5, (3, 3, 2, 4)), (2, 2), (1, 1))
    if is_dense:
        topology = Dense(rng.normal(0.2, 0.5, (40, 24)))
    populations = [Population("map", model, (2, 3, 4)), Population("out", model, (5,))]
    projections = [
        Projection(INPUT, "map", topology),
        Projection("map", "out", Dense(rng.normal(0.1, 0.4, (24, 5)))),
        Projection("out", "map", sparse_of(rng.normal(-0.2, 0.3, (5, 24))), 55),
    ]
    fast = begun(Network.of(Graph((4, 5, 2), populations, projections)))
    slow = begun(
        Network.of(Graph((4, 5, 2), populations, [*projections, projections[0]._replace(topology=NO_SYNAPSE)]))
    )
    assert (fast._program.front, slow._program.front) == (0, -1)
    events = as_events(spikes_in(2, 3000))
    got, want = fast.run(events), slow.run(events)
    for name in want:
        assert len(want[name]) > 100
        assert np.array_equal(got[name], want[name])
    assert np.array_equal(fast.state.v, slow.state.v)


def single(model: Any, weight: float, precision: Any = "float64") -> Network:
    graph = Graph((1,), [Population("one", model, (1,))], [Projection(INPUT, "one", Dense(np.array([[weight]])))])
    return begun(Network.of(graph, precision=precision))


def test_a_current_crosses_between_events() -> None:
    tau, syn, theta, weight = 20_000.0, 5_000.0, 0.2, 2.0
    network = single(CurrentLIFUnits(tau, syn, theta), weight)

    def x(t: float) -> float:
        return weight * syn / (tau - syn) * (math.exp(-t / tau) - math.exp(-t / syn))

    (spike,) = network.run(np.array([(1000, 0)], SPIKE_DTYPE), 1000 + 5000)["one"].tolist()[:1]
    assert x(spike[0] - 1000 - 1) <= theta < x(spike[0] - 1000)


def test_a_pulse_that_just_misses_is_not_a_spike() -> None:
    tau, syn = 20_000.0, 5_000.0
    peak = (syn / tau) ** (tau / (tau - syn))  # of a unit pulse
    for share, n in ((1 - 1e-6, 0), (1 + 1e-6, 1)):
        network = single(CurrentLIFUnits(tau, syn, peak), share)
        assert len(network.run(np.array([(0, 0)], SPIKE_DTYPE), HOUR_US)["one"]) == n


def test_refractory_time_drops_input_and_ends_on_the_dot() -> None:
    network = single(LIFUnits(reset="hard", refractory_us=100), 1.5)
    items = np.array([(t, 0) for t in (0, 1, 99, 100, 150, 201)], SPIKE_DTYPE)
    assert network.run(items)["one"]["t"].tolist() == [0, 100, 201]


def test_a_small_room_pauses_and_loses_nothing() -> None:
    graph = recurrent(MODELS["current"], 4, 0.8)
    events = as_events(spikes_in(4, 300))
    wide, narrow = begun(Network.of(graph)), begun(Network.of(graph))
    narrow._out = narrow._out[:2].copy()
    narrow.state = narrow.state._replace(heap=narrow.state.heap[:2].copy(), queue=narrow.state.queue[:1].copy())
    want, got = wide.run(events), narrow.run(events)
    assert sum(len(spikes) for spikes in want.values()) > 100
    for name in want:
        assert np.array_equal(want[name], got[name])


def test_winner_takes_all() -> None:
    graph = Graph(
        (5,),
        [Population("out", LIFUnits(), (5,))],
        [Projection(INPUT, "out", OneToOne(0.6)), Projection("out", "out", Inhibition(10.0), 1)],
    )
    items = np.array([(0, 2), (0, 3), (5, 3), (10, 2), (15, 2), (20, 4), (25, 4)], SPIKE_DTYPE)
    assert Network.of(graph).run(items)["out"].tolist() == [(5, 3)]


@pytest.mark.parametrize("name", MODELS)
def test_a_network_comes_back_from_its_file(name: str, tmp_path: Path) -> None:
    graph = recurrent(MODELS[name], 3)
    first, *others = graph.projections
    graph = graph._replace(projections=[first._replace(fade=Fade(4e4, 300)), *others])
    path = tmp_path / "net.safetensors"
    save_graph(path, graph)
    events = as_events(spikes_in(3, 100))
    want, got = Network.of(graph).run(events), Network(path=str(path)).run(events)
    for population in want:
        assert np.array_equal(got[population], want[population])
    assert load_graph(path).projections[0].fade == Fade(4e4, 300)
    save_graph(tmp_path / "again", load_graph(path))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(FormatError, match="not there"):
        load_graph(path)
    save_graph(path, recurrent(MODELS["lif"], 1))
    whole = path.read_bytes()
    for n in range(0, len(whole), 97):
        path.write_bytes(whole[:n])
        with pytest.raises(FormatError, match="damaged"):
            load_graph(path)
    path.write_bytes(whole.replace(b"hebbstream-graph", b"hebbstream-craph"))
    with pytest.raises(FormatError, match="no 'hebbstream-graph'"):
        load_graph(path)
    path.write_bytes(whole.replace(b"LIFUnits", b"LIFUnitz"))
    with pytest.raises(FormatError, match="is a LIFUnitz, wanted one of"):
        load_graph(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: g._replace(inputs=(4, 5)), r"the input: shape \(4, 5\), wanted"),
        (lambda g: g._replace(populations=[*g.populations, g.populations[0]]), "'map': the name is taken"),
        (
            lambda g: g._replace(projections=[*g.projections, Projection("hidden", "pool", Dense(np.zeros((6, 8))))]),
            "cycle",
        ),
        (lambda g: g._replace(projections=[Projection("pool", "nowhere", Dense(np.zeros((8, 6))))]), "no 'nowhere'"),
        (lambda g: g._replace(projections=[Projection("pool", "hidden", Dense(np.zeros((6, 8))))]), r"wanted \(8, 6\)"),
        (lambda g: g._replace(projections=[Projection("pool", "pool", Inhibition(1.0), -1)]), "delay_us: got -1"),
        (lambda g: g._replace(projections=[Projection("pool", "pool", OneToOne(), 5, Fade(0.0))]), "fade: tau_us is 0"),
        (
            lambda g: g._replace(projections=[Projection("pool", "pool", OneToOne(), 5, Fade(1.0, -1))]),
            "onset_us is -1",
        ),
        (lambda g: g._replace(projections=[Projection("scores", "hidden", Dense(np.zeros((3, 6))), 5)]), "no spikes"),
        (lambda g: g._replace(projections=[Projection("pool", "pool", OneToOne(math.nan), 5)]), "not finite"),
        (lambda g: g._replace(populations=[Population("a", LIFUnits(tau_mem_us=0.0), (2,))]), "tau_mem_us: got 0"),
        (lambda g: g._replace(populations=[Population("a", LIFUnits(v_reset=2.0), (2,))]), "v_reset"),
        (lambda g: g._replace(populations=[Population("a", LIFUnits(reset="x"), (2,))]), "'soft' or 'hard'"),
        (lambda g: g._replace(populations=[Population("a", LIFUnits(np.ones(3)), (2,))]), "broadcasts"),
    ],
)
def test_what_is_no_network_is_refused(change: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Network.of(change(recurrent(MODELS["lif"], 1)))


def test_faults_of_the_stream_change_nothing() -> None:
    network = begun(Network.of(recurrent(MODELS["current"], 1)))
    network.run(as_events(spikes_in(1, 50)))
    before = state_of(network)
    with pytest.raises(StreamError, match="x=9"):
        network.run(np.array([(10**6, 9, 0, 0)], EVENT_DTYPE))
    with pytest.raises(StreamError, match="wanted"):
        network.run(np.array([(0, 0, 0, 0)], EVENT_DTYPE))
    snapshot: Snapshot = network.snapshot() | {"v": np.zeros(3, np.float32)}
    with pytest.raises(ConfigError, match="wanted"):
        network.restore(snapshot)
    assert state_of(network) == before
    line = Network.of(
        Graph((3,), [Population("a", LIFUnits(), (1,))], [Projection(INPUT, "a", Dense(np.ones((3, 1))))])
    )
    with pytest.raises(StreamError, match="unit=3"):
        line.run(np.array([(0, 3)], SPIKE_DTYPE))


def test_a_network_that_fires_more_and_more_is_stopped() -> None:
    graph = Graph(
        (1,),
        [Population("a", LIFUnits(), (10,))],
        [Projection(INPUT, "a", Dense(np.full((1, 10), 3.0))), Projection("a", "a", Dense(np.full((10, 10), 3.0)), 1)],
    )
    with pytest.raises(RunError, match="waiting"):
        Network.of(graph).run(np.array([(0, 0)], SPIKE_DTYPE), 1000)


def test_answers_are_the_largest_average() -> None:
    graph = Graph(
        (2,),
        [Population("scores", LeakyIntegratorUnits(), (2,))],
        [Projection(INPUT, "scores", Dense(np.array([[1.0, 0.0], [0.0, 1.0]])))],
    )
    network = Network.of(graph, readout="scores")
    answers = []

    def note(port: str, message: Message) -> None:
        if isinstance(message, Packet) and port == "answers":
            answers.extend(message.items["answer"].tolist())

    network.on_mark("spikes", Reset(0), note)
    network.on_packet("spikes", Packet(np.array([(0, 1), (10, 0), (10, 1)], SPIKE_DTYPE), 0, 20), note)
    network.on_mark("spikes", Label(1000, 1, 0), note)
    network.on_packet("spikes", Packet(np.array([(1000, 0), (1010, 0)], SPIKE_DTYPE), 1000, 1020), note)
    network.on_mark("spikes", Label(10**6, 0, 1000), note)
    assert answers == [1, 0]
    with pytest.raises(ConfigError, match="readout"):
        Network.of(graph, readout="nobody")
