"""Every local rule on every topology against plain Python, and what holds for all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.graph import INPUT, Fade, Graph, Population, Projection
from neurons.graph_file import save_graph
from neurons.inhibition import Inhibition
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import Network
from neurons.one_to_one import OneToOne
from neurons.sparse import sparse_of
from plasticity.bcm import BCM
from plasticity.decolle import Decolle, local_readout
from plasticity.error_modulated import ErrorModulated
from plasticity.hebbian import Hebbian
from plasticity.homeostasis import Homeostasis
from plasticity.oja import Oja
from plasticity.pair_stdp import PairSTDP
from plasticity.plastic_network import PlasticNetwork
from plasticity.reward_stdp import RewardSTDP
from plasticity.short_term import ShortTerm
from plasticity.surround import Surround
from plasticity.synaptic_scaling import SynapticScaling
from plasticity.triplet_stdp import TripletSTDP
from stream.errors import ConfigError
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE

RULES = {
    "none": None,
    "hebbian": Hebbian(local_rate=0.05, sliding_threshold=0.1, mixing=0.3, tau_hebb_us=4000.0, hebb_max=0.3),
    "hebbian linear": Hebbian(local_rate=-0.05, tau_hebb_us=4000.0, mixing=0.3, hebb_max=np.inf, post="linear"),
    "pair": PairSTDP(a_plus=0.01, a_minus=0.02, tau_plus_us=2000.0, tau_minus_us=3000.0, w_min=-0.5, w_max=0.5),
    "pair nearest": PairSTDP(a_plus=0.01, a_minus=0.02, tau_plus_us=2000.0, w_min=-0.5, w_max=0.5, nearest=True),
    "triplet": TripletSTDP(0.005, 0.005, 0.01, 0.005, 2000.0, 9000.0, 3000.0, 7000.0, -0.5, 0.5),
    "oja": Oja(0.001, 2000.0, 5000.0),
    "bcm": BCM(0.01, 3000.0, 8000.0, -0.5, 0.5),
    "reward": RewardSTDP(2.0, 0.03, 0.02, 2000.0, 3000.0, 6000.0, -0.5, 0.5),
    "error": ErrorModulated(0.01, 3000.0, 0.7, -0.5, 0.5),
    "decolle": Decolle(3, 0.05, 3000.0, 4000.0, 900, 0.7, -0.5, 0.5, 8),
    "pair scaled": PairSTDP(a_plus=0.01, a_minus=0.02, tau_plus_us=2000.0, w_min=-0.5, w_max=0.5),
    "homeostatic": Hebbian(local_rate=0.05, mixing=0.3, tau_hebb_us=4000.0, hebb_max=0.3),
}
"""Fast rules, so that a short stream shows all of them."""

SCALING = SynapticScaling(30.0, 0.05, 20_000.0, 2100, -0.45, 0.45)
HOMEOSTASIS = Homeostasis(20.0, 0.0001, 20_000.0, 1700, 0.2, 2.0)
FADE = Fade(400_000.0, 4000)

SIDE, CHANNELS, OUT = 5, 2, 3
N_INPUTS = SIDE * SIDE * CHANNELS


def dense(rng):
    weight = np.clip(rng.normal(0.25, 0.2, (N_INPUTS, 12)), -0.4, 0.4)
    synapses = [(i, j, (i, j)) for i in range(N_INPUTS) for j in range(12)]
    return (12,), Dense(weight), synapses, dict(np.ndenumerate(weight)), None


def sparse(rng):
    weight = np.clip(rng.normal(0.35, 0.2, (N_INPUTS, 12)), -0.4, 0.4) * (rng.random((N_INPUTS, 12)) < 0.4)
    topology = sparse_of(weight)
    synapses, weights = [], {}
    for s, (i, j) in enumerate(zip(*np.nonzero(weight), strict=True)):
        synapses.append((int(i), int(j), s))
        weights[s] = weight[i, j]
    return (12,), topology, synapses, weights, lambda post: post


def convolution(rng):
    weight = np.clip(rng.normal(0.3, 0.25, (3, 3, CHANNELS, OUT)), -0.4, 0.4)
    high = (SIDE + 2 - 3) // 2 + 1
    synapses = []
    for y, x, c in np.ndindex(SIDE, SIDE, CHANNELS):
        for oy, ox, k in np.ndindex(high, high, OUT):
            ky, kx = y + 1 - 2 * oy, x + 1 - 2 * ox
            if 0 <= ky < 3 and 0 <= kx < 3:
                synapses.append(((y * SIDE + x) * CHANNELS + c, (oy * high + ox) * OUT + k, (ky, kx, c, k)))
    shape = (high, high, OUT)
    return shape, Convolution(weight, (2, 2), (1, 1)), synapses, dict(np.ndenumerate(weight)), lambda post: post // OUT


def one_to_one(rng):
    weight = np.clip(rng.normal(0.4, 0.2, N_INPUTS), -0.4, 0.4)
    synapses = [(i, i, (i,)) for i in range(N_INPUTS)]
    return (N_INPUTS,), OneToOne(weight), synapses, dict(np.ndenumerate(weight)), lambda post: post


TOPOLOGIES = {"dense": dense, "sparse": sparse, "convolution": convolution, "one to one": one_to_one}


def inputs(rng, n, span_us=90_000, busy=12):
    items = np.zeros(n, SPIKE_DTYPE)
    items["t"] = np.sort(rng.integers(0, span_us, n))
    items["unit"] = rng.choice(rng.choice(N_INPUTS, busy, replace=False), n)
    return items


def both(seed, topology, name, terminal=None, phase_us=0, surround=None):
    """Build a network with a plastic projection from the input and a recurrent one with a delay, twice."""
    rules_reference = pytest.importorskip("rules_reference")
    rule, fade = RULES[name], FADE if phase_us else None
    rng = np.random.default_rng(seed)
    shape, described, synapses, weights, chunk_of = TOPOLOGIES[topology](rng)
    n = int(np.prod(shape))
    threshold = {"dense": 1.0, "sparse": 0.5}.get(topology, 0.3)  # fewer synapses lead to a unit
    threshold *= 0.7 if phase_us and topology == "one to one" else 1.0
    back = rng.normal(-1.2 / n, 0.5 / n, (n, n))  # inhibition keeps it calm while weights grow
    rules = {(INPUT, "a"): rule, ("a", "a"): rule} if rule is not None else {}
    terminals = {(INPUT, "a"): terminal} if terminal is not None else {}
    graph = Graph(
        (N_INPUTS,) if topology != "convolution" and surround is None else (SIDE, SIDE, CHANNELS),
        [Population("a", LIFUnits(tau_mem_us=3000.0, v_threshold=threshold), shape)],
        [Projection(INPUT, "a", described, fade=fade), Projection("a", "a", Dense(back), 137)],
    )
    ours = PlasticNetwork.of(
        graph,
        rules=rules,
        terminals=terminals,
        surrounds={(INPUT, "a"): surround} if surround is not None else {},
        scaling={(INPUT, "a"): SCALING} if name == "pair scaled" else {},
        thresholds={"a": HOMEOSTASIS} if name == "homeostatic" else {},
        precision="float64",
        graded=phase_us > 0,
        discipline="phase" if phase_us else "event",
        phase_us=phase_us or 1000,
    )
    # a map's sites have times of their own; a dense row into it goes site by site
    whole = chunk_of if topology == "convolution" else lambda post: post if topology in ("sparse", "one to one") else 0
    ways = [
        rules_reference.Way(
            *(INPUT, "a", synapses, weights, rule, terminal, 0, chunk_of, fade),
            surround=(SIDE, CHANNELS, surround) if surround is not None else None,
        ),
        rules_reference.Way(
            "a",
            "a",
            [(i, j, (i, j)) for i in range(n) for j in range(n)],
            dict(np.ndenumerate(back)),
            rule,
            None,
            137,
            whole,
        ),
    ]
    slow = rules_reference.Net({"a": n}, {"a": 3000.0}, {"a": threshold}, ways, phase_us)
    if name == "decolle":
        ours.target("a", 1)
        slow.add_decolle("a", rule, local_readout(rule, n), 1)
    elif name == "pair scaled":
        slow.add_scaling(ways[0], SCALING, OUT if topology == "convolution" else 0)
    elif name == "homeostatic":
        slow.add_homeostasis("a", HOMEOSTASIS)
    return ours, slow, rng


def fed(items, topology):
    """Put spikes as the network takes them: a map of two channels is a sensor."""
    if topology != "convolution":
        return items
    events = np.zeros(len(items), EVENT_DTYPE)
    pixel = items["unit"] // CHANNELS
    events["t"], events["x"], events["y"], events["p"] = items["t"], pixel % SIDE, pixel // SIDE, items["unit"] % 2
    return events


def as_array(way, like):
    values = np.zeros(like.shape)
    for key, value in way.weights.items():
        values[key] = value
    return values


@pytest.fixture(autouse=True)
def _path(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.path.parent))


@pytest.mark.parametrize("phase_us", [0, 1500])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("rule", RULES)
def test_rules_do_what_plain_python_does(topology, rule, phase_us):
    terminal = ShortTerm(0.3, 8000.0, 0.5, 0.2, 5000.0) if rule in ("none", "hebbian", "pair") else None
    ours, slow, rng = both(3, topology, rule, terminal, phase_us)
    items = inputs(rng, 240)
    events, error = [], rng.normal(0.0, 1.0, (8, len(slow.v["a"])))
    for k, part in enumerate(np.array_split(items, 8)):
        amplitude = rng.uniform(0.5, 1.2, len(part)) if phase_us else None
        t = int(part["t"][-1])
        events.append(ours.run(fed(part, topology), t, amplitude)["a"])
        slow.run([(int(t), int(u)) for t, u in part.tolist()], t, [] if amplitude is None else amplitude)
        if rule == "reward":
            ours.reward(0.5 - k % 2)
            slow.reward(0.5 - k % 2, t)
        if rule == "error":
            ours.signal("a", error[k])
            slow.signal("a", error[k], t)
    found = np.concatenate(events)
    assert [(int(t), int(u)) for t, u in found.tolist()] == [(t, u) for t, _, u in slow.spikes]
    assert len(found) > 10
    if rule == "none":
        return
    for (source, target), way in zip([(INPUT, "a"), ("a", "a")], slow.ways, strict=True):
        got = ours.weights(source, target)
        np.testing.assert_allclose(got, as_array(way, got), atol=1e-9, rtol=0)
        if not rule.startswith("h"):
            start = np.asarray(ours._weights(ours._ways[source, target]))
            assert np.abs(got - start).max() > 1e-3
    if rule == "homeostatic":
        np.testing.assert_allclose(ours.thresholds("a").reshape(-1), slow.theta["a"], atol=1e-9, rtol=0)
        assert np.ptp(slow.theta["a"]) > 1e-3
        np.testing.assert_array_equal(ours.learned().populations[0].model.v_threshold, ours.thresholds("a"))


SURROUNDS = {
    "support": Surround(0.5, 0.3, 900.0, 1, 0.0),
    "all": Surround(0.5, 0.3, 700.0, 2, 6000.0, 9000.0),
    "alone": Surround(0.2, 0.0, 900.0, 1, 3000.0, 9000.0),
}
"""The base time of sums moves every 18 and 14 ms; streams last 90 ms, at 4400 spikes a second."""


@pytest.mark.parametrize("phase_us", [0, 1500])
@pytest.mark.parametrize("kind", SURROUNDS)
@pytest.mark.parametrize("topology", ["dense", "convolution", "sparse"])
@pytest.mark.parametrize("rule", ["none", "hebbian", "pair"])
def test_surrounds_do_what_plain_python_does(rule, topology, kind, phase_us):
    terminal = ShortTerm(0.3, 8000.0, 0.5, 0.2, 5000.0) if kind == "all" else None
    ours, slow, rng = both(5, topology, rule, terminal, phase_us, SURROUNDS[kind])
    items = inputs(rng, 400, busy=30)
    found = []
    for part in np.array_split(items, 5):
        t, strength = int(part["t"][-1]), np.full(len(part), 1.5)
        found.append(ours.run(fed(part, "convolution"), t, strength if phase_us else None)["a"])
        slow.run([(int(t), int(u)) for t, u in part.tolist()], t, strength if phase_us else [])
    found = np.concatenate(found)
    assert [(int(t), int(u)) for t, u in found.tolist()] == [(t, u) for t, _, u in slow.spikes]
    assert len(found) > 10
    if rule == "pair":
        got = ours.weights(INPUT, "a")
        np.testing.assert_allclose(got, as_array(slow.ways[0], got), atol=1e-9, rtol=0)


@settings(max_examples=10)
@given(data=st.data())
def test_where_the_stream_is_cut_changes_no_bit_of_surrounds(data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    whole, cut = (both(seed, "dense", "hebbian", None, 0, SURROUNDS["all"])[0] for _ in range(2))
    items = fed(inputs(np.random.default_rng(seed), 200, busy=30), "convolution")
    expected = whole.run(items)["a"]
    found = []
    for part in np.split(items, sorted(data.draw(st.lists(st.integers(0, 200), max_size=6)))):
        if len(part) and data.draw(st.booleans()):  # quiet until then
            cut.run(part[:0], int(part["t"][0]))
        found.append(cut.run(part)["a"])
        if data.draw(st.booleans()):
            cut.restore({name: array.copy() for name, array in cut.snapshot().items()})
    np.testing.assert_array_equal(np.concatenate(found), expected)
    for ours, theirs in zip(outcome(cut), outcome(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name in ("support", "surround_us", "pool"):
        np.testing.assert_array_equal(getattr(cut._memory, name), getattr(whole._memory, name))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"support_given": -1.0}, "support_given is -1"),
        ({"support_half": 0.0}, "support_half 0"),
        ({"tau_pool_us": 0.0}, "tau_pool_us"),
        ({"reach": 0}, "reach is 0"),
        ({"rate_hz": -5.0}, "rate_hz -5"),
    ],
)
def test_surrounds_that_are_not_in_order(wrong, words):
    with pytest.raises(ConfigError, match=words):
        both(1, "dense", "none", None, 0, Surround(**wrong))


def test_surrounds_want_a_sensor():
    graph = Graph((9,), [Population("a", LIFUnits(), (2,))], [Projection(INPUT, "a", Dense(np.ones((9, 2))))])
    with pytest.raises(ConfigError, match="wanted the input, and that with sites"):
        PlasticNetwork.of(graph, surrounds={(INPUT, "a"): Surround()})


def outcome(network):
    """Return everything that a network is at the time run up to."""
    weights = [network.weights(*ends) for ends in network._ways]
    memory = network._renewed()[1]
    return [
        *weights, network.potentials("a"), network.thresholds("a"), memory.x, memory.y, memory.fast, memory.fatigue
    ]  # fmt: skip


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "none"])
@settings(max_examples=3)
@given(data=st.data())
def test_where_the_stream_is_cut_changes_no_bit(topology, rule, data):
    terminal = ShortTerm(0.3, 8000.0, 0.5, 0.2, 5000.0)
    seed, phase_us = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.sampled_from([0, 1500]))
    whole, _, rng = both(seed, topology, rule, terminal, phase_us)
    cut, _, _ = both(seed, topology, rule, terminal, phase_us)
    items = fed(inputs(rng, 200), topology)
    end_us = int(items["t"][-1]) + 500
    half_us = int(items["t"][100])
    places = sorted(data.draw(st.lists(st.integers(0, 200), max_size=8)))
    spikes = []
    for network, parts in ((whole, [items]), (cut, np.split(items, places))):
        found = []
        early, late = [], []
        for part in parts:
            early.append(part[part["t"] <= half_us])
            late.append(part[part["t"] > half_us])
        for group, until_us in ((early, half_us), (late, end_us)):
            for part in group:
                found.append(network.run(part)["a"])
                if data.draw(st.booleans()):
                    network.weights("a", "a")  # reading changes nothing
                if network is cut and data.draw(st.booleans()):
                    other, _, _ = both(seed, topology, rule, terminal, phase_us)
                    other.restore({name: array.copy() for name, array in network.snapshot().items()})
                    network = other
            found.append(network.run(items[:0], until_us)["a"])
            if rule == "reward" and until_us == half_us:
                network.reward(0.7)
            if rule == "error" and until_us == half_us:
                network.signal("a", np.linspace(-1, 1, network.potentials("a").size))
        spikes.append(np.concatenate(found))
        if network is not whole:
            cut = network
    np.testing.assert_array_equal(*spikes)
    for one, other in zip(outcome(whole), outcome(cut), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_log_that_begins_anew_changes_next_to_nothing():
    """Only the last bits: traces are then counted from another time."""
    rng = np.random.default_rng(5)
    items = inputs(rng, 4000, span_us=1_500_000)
    found = []
    for is_short in (True, False):
        ours, _, _ = both(5, "dense", "pair")
        assert ours._table.renew_us[0] == 200_000
        if is_short:
            ours._table.renew_us[:] = 1000
        ours.run(items)
        found.append(ours.weights(INPUT, "a"))
    np.testing.assert_allclose(*found, atol=1e-9)


def test_rules_in_a_pipeline_file(tmp_path):
    ours, _, rng = both(3, "dense", "pair")
    save_graph(tmp_path / "net.safetensors", ours.graph)
    table = {"source": "input", "target": "a", "rule": "PairSTDP", **RULES["pair"]._asdict()}
    rules = [table, table | {"source": "a"}]
    read = PlasticNetwork(path=str(tmp_path / "net.safetensors"), rules=rules, precision="float64")
    items = inputs(rng, 100)
    for network in (ours, read):
        network.run(items)
    np.testing.assert_array_equal(read.weights("input", "a"), ours.weights("input", "a"))
    again = Network.of(read.learned(), precision="float64")
    np.testing.assert_array_equal(again.graph.projections[0].topology.weight, ours.weights("input", "a"))
    for wrong, words in (
        ([table, table], "got two of a kind"),
        ([table | {"rule": "STDP"}], "wanted source, target, and rule"),
        ([table | {"speed": 3}], "there is no speed"),
    ):
        with pytest.raises(ConfigError, match=words):
            PlasticNetwork(path=str(tmp_path / "net.safetensors"), rules=wrong)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({("input", "b"): PairSTDP()}, "got 0 such projections"),
        ({("input", "a"): PairSTDP(w_max=0.1)}, "weights begin at"),
        ({("input", "a"): PairSTDP(tau_plus_us=0.0)}, "tau_plus_us is 0.0, wanted a time above 0 us"),
        ({("input", "a"): BCM(tau_post_us=2.0, tau_theta_us=1.0)}, "for which there is no formula"),
        ({("input", "a"): Hebbian(mixed="mask")}, "a mask goes with"),
        ({("input", "a"): Hebbian(post="cube")}, "wanted one of tanh, linear, softmax"),
        ({("input", "a"): Hebbian(local_rate=np.zeros(3))}, "got shape"),
        ({("input", "a"): Decolle(n_classes=0)}, "n_classes is 0"),
        ({("input", "a"): Decolle(n_classes=2, period_us=0)}, "period_us is 0"),
        ({("a", "a"): PairSTDP()}, "a Inhibition has one number for all"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rule, words):
    graph = Graph(
        (4,),
        [Population("a", LIFUnits(tau_mem_us=3000.0), (3,))],
        [Projection(INPUT, "a", Dense(np.full((4, 3), 0.5))), Projection("a", "a", Inhibition(0.1), 10)],
    )
    with pytest.raises(ConfigError, match=words):
        PlasticNetwork.of(graph, rules=rule)


@pytest.mark.parametrize("delay_us", [0, 700])
def test_what_a_plastic_layer_fires_goes_on(delay_us):
    """A rule that changes nothing leaves the whole network as it is, bit for bit: deeper layers and readout too."""
    rng = np.random.default_rng(4)
    graph = Graph(
        (20,),
        [
            Population("first", LIFUnits(tau_mem_us=4000.0), (15,)),
            Population("second", LIFUnits(tau_mem_us=6000.0), (8,)),
            Population("scores", LeakyIntegratorUnits(tau_mem_us=20_000.0), (3,)),
        ],
        [
            Projection(INPUT, "first", Dense(rng.normal(0.2, 0.3, (20, 15)))),
            Projection("first", "second", Dense(rng.normal(0.2, 0.3, (15, 8))), delay_us=delay_us),
            Projection("second", "scores", Dense(rng.normal(0.0, 1.0, (8, 3)))),
            Projection("first", "scores", Dense(rng.normal(0.0, 1.0, (15, 3)))),
        ],
    )
    items = np.zeros(400, SPIKE_DTYPE)
    items["t"] = np.sort(rng.integers(0, 60_000, len(items)))
    items["unit"] = rng.integers(0, 20, len(items))
    idle = Hebbian(local_rate=0.0, mixing=0.0)
    plain = Network.of(graph)
    wanted = plain.run(items)
    assert len(wanted["first"]) > 50
    assert len(wanted["second"]) > 20
    for ends in (
        [(INPUT, "first")],
        [("first", "second")],
        [(INPUT, "first"), ("first", "second"), ("second", "scores")],
    ):
        network = PlasticNetwork.of(graph, rules=dict.fromkeys(ends, idle))
        spikes = network.run(items)
        for name in ("first", "second"):
            assert np.array_equal(spikes[name], wanted[name]), (ends, name)
        assert np.array_equal(network.averages("scores"), plain.averages("scores")), ends
        assert network.statistics()["deliveries"] == plain.statistics()["deliveries"]
