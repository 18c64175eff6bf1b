"""Learning beside the chip: every integer against the slow reference, and the float rule that it stands for."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from chip.advance import advance, buffers_for
from chip.compiler import compile_network
from chip.grid import new_state
from chip.learning import AMPLITUDE_BITS, learning_network, local_rule, new_host
from chip.node import ChipNode
from chip.profile import load_profile
from chip.quantise import QuantisedLayer
from neurons.graph_file import save_graph
from plasticity.deployment import rule_arrays
from plasticity.network_learner import NetworkLearner
from plasticity.plastic_network import PlasticNetwork
from plasticity.surround import Surround
from stream.errors import CapacityError, ConfigError
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE, Deploy, Label, Packet, Reset
from stream.train import dense_layers


def _load(name, file):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(file))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


grids = _load("chip_grid_tests", "test_grid.py")
reference = grids.reference
PHASE_US = 1000
KINDS = ("signed", "unsigned", "ternary")


def arrays_of(rng, n_pre, n_post, kind):
    """Draw what a mark says of the rule."""
    arrays = {"layer0.weight": np.zeros((n_pre, n_post))}
    if "terminals" in kind:
        columns = [
            rng.uniform(0, 1, n_pre), rng.uniform(2e3, 3e5, n_pre), rng.uniform(0, 1, n_pre), rng.uniform(0, 1, n_pre),
            rng.uniform(1e3, 5e4, n_pre),
        ]  # fmt: skip
        arrays["layer0.terminal"] = np.stack(columns, axis=1)
    if "hebb" in kind:
        arrays["layer0.local_rate"] = rng.uniform(-0.5, 1, n_pre)
        arrays["layer0.sliding_threshold"] = rng.uniform(-1, 1, n_post)
        arrays["layer0.hebb"] = np.array([rng.choice([-0.3, 0.12, 2.0]), rng.uniform(3e3, 1e5), rng.choice([0.2, 3])])
    return arrays


def described(program):
    """Describe cores as the reference wants them."""
    cores = []
    for core, place in zip(program.cores, program.positions, strict=True):
        bits = core.value_bits or (8 if core.soma.fire_type in (2, 3, 7, 8) else program.profile.membrane_bits.value)
        cores.append(
            {
                "axon_values": core.axon_mode == 1,
                "adds": core.synapse == 1,
                "n_axons": core.n_axons,
                "n_neurons": core.n_neurons,
                "weight": core.weight.tolist(),
                "bias": core.bias.tolist(),
                "soma": core.soma._asdict(),
                "table": core.table.tolist(),
                "routes": [(*line[:4], grids.PORTS[line[4]], line[5]) for line in core.routes.tolist()],
                "bits": bits,
                "kind": KINDS[core.value_kind],
                "place": place,
                "forward": None,
            }
        )
    start = program.grid.input_start
    inputs = [
        (unit, int(line["core"]), int(line["axon"]))
        for unit in range(len(start) - 1)
        for line in program.grid.input_lines[start[unit] : start[unit + 1]]
    ]
    profile = program.profile
    return reference.Chip(
        cores, inputs, program.n_outputs, width=profile.membrane_bits.value, payload=profile.payload_bits.value,
        macs=profile.macs_per_clock.value, overhead=profile.overhead_clocks.value,
        phase_clocks=profile.phase_clocks.value,
    )  # fmt: skip


def drawn(seed, kind, axons, neurons=256):
    """Return a program with its host, and the slow ones."""
    rng = np.random.default_rng(seed)
    n_pre, n_post, n_out = 9, int(rng.integers(2, 6)), 3
    profile = grids.changed(load_profile("tianjic-2019"), axons_per_core=axons, neurons_per_core=neurons)
    scale = float(rng.choice([20.0, 300.0]))
    layers = [
        QuantisedLayer(rng.integers(-127, 128, (n_pre, n_post)).astype(np.int8), scale, 240, int(rng.integers(1, 200))),
        QuantisedLayer(rng.integers(-127, 128, (n_post, n_out)).astype(np.int8), 1.0, 250, None),
    ]
    rule = local_rule(arrays_of(rng, n_pre, n_post, kind))
    program = compile_network(learning_network(layers, rule, profile), profile, placement="nearest")
    host = new_host(program, layers[0], rule, PHASE_US)
    slow = described(program)
    h_link = len(program.network.links) - 1
    rows = [[] for _ in range(n_pre)]
    membranes = [None] * n_post
    for c, part in enumerate(program.parts):
        if part.layer != 0:
            continue
        if part.holds_neurons:
            for k, j in enumerate(part.post.tolist()):
                membranes[j] = (c, k)
        if part.holds_weights and "hebb" in kind:
            for axon in np.flatnonzero(part.axon_link == h_link).tolist():
                rows[part.axon_unit[axon]].append((c, axon, part.post.tolist()))
    slow_rule = None
    if "hebb" in kind:
        mixing, tau_us, most = rule.hebb.tolist()
        slow_rule = {
            "local_rate": rule.local_rate.tolist(), "sliding": rule.sliding_threshold.tolist(), "mixing": mixing,
            "tau_us": tau_us, "most": most, "scale": scale,
        }  # fmt: skip
    terminals = rule.terminal.tolist() if "terminals" in kind else None
    late = program.offsets[0]
    beside = reference.Host(slow, n_pre, PHASE_US, terminals, slow_rule, rows, membranes, late, AMPLITUDE_BITS)
    return program, host, beside, (layers, rule, profile)


def spikes_of(phases):
    """Write lists of lines, one for each phase, as a stream."""
    found = [(k * PHASE_US + 10 * n, unit) for k, units in enumerate(phases) for n, unit in enumerate(units)]
    return np.array(found, SPIKE_DTYPE)


def assert_equal_hosts(program, host, slow):
    state = host.state
    if slow.terminals:
        assert state.terminal[:, 0].tolist() == slow.r
        assert state.terminal[:, 1].tolist() == slow.f
    if slow.rule:
        assert state.fast.tolist() == slow.h
        for pieces in slow.rows:
            for core, axon, units in pieces:
                row = program.grid.cores[core]
                start = row["weight"] + axon * row["padded"]
                written = slow.chip.cores[core]["weight"][axon]
                assert program.grid.weight[start : start + len(units)].tolist() == written
                assert program.grid.n_zero[program.grid.axons[core] + axon] == written.count(0)
    assert state.counts["now"][0] == slow.now
    for name, n in slow.count.items():
        assert state.counts[name][0] == n, name


kinds = st.sampled_from([("terminals",), ("hebb",), ("terminals", "hebb")])
quiet = st.lists(st.lists(st.integers(0, 8), max_size=12) | st.just([]), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), kinds, st.sampled_from([(256, 256), (7, 256), (9, 2), (18, 256)]), quiet)
def test_every_phase_equals_the_slow_reference(seed, kind, sizes, phases):
    program, host, slow, _ = drawn(seed, kind, *sizes)
    state, buffers = new_state(program.grid, PHASE_US, PHASE_US), buffers_for(program)
    incoming = spikes_of(phases)
    for k, units in enumerate(phases):
        mine = incoming[(incoming["t"] >= k * PHASE_US) & (incoming["t"] < (k + 1) * PHASE_US)]
        before = state.totals.copy()
        advance(program, state, mine, (k + 1) * PHASE_US, False, buffers, host)
        count, _, loads = slow.phase(units)
        grids.assert_equal_states(program.grid, state, slow.chip)
        assert_equal_hosts(program, host, slow)
        assert state.link_load.sum() == sum(loads.values())
        for name in grids.COUNTS:
            if name not in ("busiest_link", "clocks"):
                assert state.totals[name][0] - before[name][0] == count[name], name
    for name in ("rows_written", "updates", "weak"):
        if slow.count[name]:
            event(name)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), kinds, st.sampled_from([256, 7]), quiet, st.lists(st.integers(0, 300), max_size=4))
def test_one_call_and_any_cut_give_the_same(seed, kind, axons, phases, gaps):
    for gap in gaps:  # long silences, which the chip and its host pass in one step
        phases = [*phases, *([[]] * gap), [0, 1, 1, 8]]
    incoming, end_us = spikes_of(phases), len(phases) * PHASE_US
    found = []
    for cut in (None, 3):
        program, host, slow, _ = drawn(seed, kind, axons)
        state, buffers = new_state(program.grid, PHASE_US, PHASE_US), buffers_for(program)
        pieces = [incoming] if cut is None else [incoming[k : k + cut] for k in range(0, len(incoming), cut)]
        for piece in pieces:
            if len(piece):
                advance(program, state, piece, int(piece["t"][-1]), False, buffers, host)
        advance(program, state, incoming[:0], end_us, False, buffers, host)
        found.append((program, state, host))
    for units in phases:
        slow.phase(units)
    for program, state, host in found:
        grids.assert_equal_states(program.grid, state, slow.chip)
        assert_equal_hosts(program, host, slow)


def test_amplitudes_follow_the_float_terminals():
    rng = np.random.default_rng(1)
    program, host, _, (_, rule, _) = drawn(5, ("terminals",), 256)
    state, buffers = new_state(program.grid, PHASE_US, PHASE_US), buffers_for(program)
    r, f, last = 1.0, float(rule.terminal[0, 2]), 0
    depletion, tau_rec, f_rest, f_step, tau_fac = rule.terminal[0]
    for k in np.cumsum(rng.integers(1, 40, 60)).tolist():
        incoming = np.array([(k * PHASE_US, 0)], SPIKE_DTYPE)
        advance(program, state, incoming, k * PHASE_US, False, buffers, host)
        gap_us = (k - last) * PHASE_US
        r = 1 - (1 - r) * math.exp(-gap_us / tau_rec)
        f = f_rest + (f - f_rest) * math.exp(-gap_us / tau_fac)
        assert host.state.amount[0] / 65536 == pytest.approx(r * f, abs=2e-3)
        r, f, last = r * (1 - depletion), f + (1 - f) * f_step, k


def test_the_fast_change_follows_the_float_rule():
    # one line, one unit, far below threshold: h grows by the rule, leaks, and is read a phase later
    layers = [
        QuantisedLayer(np.full((1, 1), 40, np.int8), 100.0, 256, 1000),
        QuantisedLayer(np.ones((1, 1), np.int8), 1.0, 256, None),
    ]
    profile = load_profile("tianjic-2019")
    mixing, tau_us, rate, eta = 0.5, 40_000.0, 0.05, -0.4
    rule = local_rule(
        {
            "layer0.weight": np.zeros((1, 1)), "layer0.local_rate": np.array([rate]),
            "layer0.sliding_threshold": np.array([eta]), "layer0.hebb": np.array([mixing, tau_us, 2.0]),
        }
    )  # fmt: skip
    program = compile_network(learning_network(layers, rule, profile), profile)
    host, buffers = new_host(program, layers[0], rule, PHASE_US), buffers_for(program)
    state = new_state(program.grid, PHASE_US, PHASE_US)
    h = u = 0.0
    for k in range(12):
        incoming = np.array([(k * PHASE_US, 0)], SPIKE_DTYPE)
        advance(program, state, incoming, (k + 1) * PHASE_US, True, buffers, host)
        h *= math.exp(-PHASE_US / tau_us) if k else 1.0
        u += 0.4 + mixing * h
        h = min(h + rate * math.tanh(u / 10 - eta), 2.0)
        assert host.state.fast[0, 0] / (256 * mixing * 100) == pytest.approx(
            h, rel=0.05
        )  # potentials have 32 steps to the threshold
    assert host.state.counts["rows_written"][0] > 5


WIDTH = 2


def weights(seed, kind=("terminals", "hebb"), scale=0.5):
    rng = np.random.default_rng(seed)
    arrays = arrays_of(np.random.default_rng(7), 8, 5, kind)
    arrays |= {
        "layer0.weight": rng.normal(0, scale, (8, 5)).astype(np.float32),
        "layer0.tau_mem_us": np.array(2e4),
        "layer0.v_threshold": np.array(0.7),
        "layer1.weight": rng.normal(0, 0.5, (5, 3)).astype(np.float32),
        "layer1.tau_mem_us": np.array(6e4),
    }
    return arrays


def messages(seed):
    """A stream of recordings with deployments and resets, one of them in the middle of a phase."""
    rng = np.random.default_rng(seed)
    events = np.zeros(400, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, 120_000, 400))
    events["x"], events["y"], events["p"] = rng.integers(0, WIDTH, (3, 400))
    marks = [
        Deploy(0, 1, weights(1)), Reset(0), Label(30_500, 1, 0), Reset(30_700),
        Deploy(60_000, 2, weights(2, scale=0.8)), Label(90_000, 2, 30_000), Label(120_000, 0, 90_000),
    ]  # fmt: skip
    return events, marks


def play(node, events, marks, cut, collect):
    done = 0
    for mark in [*marks, None]:
        end_us = 130_000 if mark is None else mark.t_us
        stop = int(np.searchsorted(events["t"], end_us))
        while done < stop:
            some = events[done : min(done + cut, stop)]
            node.on_packet("events", Packet(some, int(some["t"][0]), int(some["t"][-1]) + 1), collect)
            done += len(some)
        if mark is not None:
            node.on_mark("events", mark, collect)


def answers_in(found):
    return [message.items.tolist() for port, message in found if port == "answers" and isinstance(message, Packet)]


@pytest.mark.parametrize("reset_local", [True, False])
def test_in_a_pipeline_no_cut_shows_and_a_snapshot_goes_on(reset_local):
    events, marks = messages(3)
    states, answers = [], []
    for cut in (1000, 7):
        node, found = ChipNode(width=WIDTH, height=WIDTH, local_rules=True, reset_local=reset_local), []
        play(node, events, marks, cut, lambda port, message, found=found: found.append((port, message)))
        states.append(node.snapshot())
        answers.append(
            [message.items.tolist() for port, message in found if port == "answers" and isinstance(message, Packet)]
        )
    half = ChipNode(width=WIDTH, height=WIDTH, local_rules=True, reset_local=reset_local)
    found = []

    def collect(port, message):
        found.append((port, message))

    early = events[events["t"] < 75_000]
    play(half, early, marks[:5], 50, collect)
    other = ChipNode(width=WIDTH, height=WIDTH, local_rules=True, reset_local=reset_local)
    other.restore(half.snapshot())
    play(other, events[events["t"] >= 75_000], marks[5:], 50, collect)
    states.append(other.snapshot())
    answers.append(
        [message.items.tolist() for port, message in found if port == "answers" and isinstance(message, Packet)]
    )
    for state, answer in zip(states[1:], answers[1:], strict=True):
        assert state.keys() == states[0].keys()
        for name in state:
            assert state[name].tobytes() == states[0][name].tobytes(), name
        assert answer == answers[0]
    assert len(answers[0]) == 3
    counts = other.statistics()
    assert counts["host bytes written"] > 0 < counts["host updates"]
    assert counts["deploy bytes"] == 2 * (8 * 5 + 5 * 3 + 16 * 2)  # h is not deployed


def test_new_weights_keep_the_fast_change():
    node = ChipNode(width=WIDTH, height=WIDTH, local_rules=True)
    events, _ = messages(4)
    play(node, events[events["t"] < 50_000], [Deploy(0, 1, weights(1, ("hebb",)))], 100, lambda *_: None)
    node.on_mark("events", Label(50_000, 0, 0), lambda *_: None)
    before, per_unit = node.host.state.fast.copy(), node.host.per_unit
    node.on_mark("events", Deploy(50_000, 2, weights(2, ("hebb",), 0.9)), lambda *_: None)
    assert before.any()
    assert node.host.per_unit != per_unit
    wanted = np.clip(before * node.host.per_unit / per_unit, -32512, 32512)
    assert np.abs(node.host.state.fast - wanted).max() <= 2


def test_a_reset_clears_what_is_local_only_if_it_should():
    events, _ = messages(4)
    for reset_local in (True, False):
        node = ChipNode(width=WIDTH, height=WIDTH, local_rules=True, reset_local=reset_local)
        play(node, events[events["t"] < 50_000], [Deploy(0, 1, weights(1)), Reset(50_000)], 100, lambda *_: None)
        assert node.host.state.fast.any() != reset_local
        assert (node.host.state.terminal[:, 0] == 65536).all() == reset_local


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer1.terminal": np.zeros((5, 5))}, "layer1.terminal: local plasticity of a layer"),
        ({"layer0.terminal": np.zeros((7, 5))}, r"layer0.terminal: shape \(7, 5\), wanted numbers of shape \(8, 5\)"),
        ({"layer0.terminal": np.full((8, 5), 0.0)}, "a time constant of 0.0 us"),
        ({"layer0.terminal": np.full((8, 5), 2.0)}, "go from 2 to 2, wanted 0 to 1"),
        ({"layer0.local_rate": np.full(8, np.nan)}, "layer0.local_rate: shape"),
        ({"layer0.hebb": np.array([0.1, 1e4, 0.0])}, "hebb_max 0.0"),
        ({"layer0.local_rate": np.full(8, 1e12)}, "far too fast a rule"),
    ],
)
def test_a_rule_that_is_not_one_is_loud(changes, message):
    node = ChipNode(width=WIDTH, height=WIDTH, local_rules=True)
    with pytest.raises(ConfigError, match=message):
        node.on_mark("events", Deploy(0, 1, weights(1) | changes), lambda *_: None)


def test_rules_that_nobody_obeys_are_loud():
    node = ChipNode(width=WIDTH, height=WIDTH)
    with pytest.raises(ConfigError, match="a deployment brings local rules; set local_rules"):
        node.on_mark("events", Deploy(0, 1, weights(1)), lambda *_: None)
    arrays = weights(1, ("hebb",))
    arrays |= {"layer1.v_threshold": np.array(1.0), "layer2.weight": np.ones((3, 2), np.float32)}
    arrays["layer2.tau_mem_us"] = np.array(1e4)
    node = ChipNode(width=WIDTH, height=WIDTH, local_rules=True)
    with pytest.raises(ConfigError, match="the last before the readout, got 3 layers"):
        node.on_mark("events", Deploy(0, 1, arrays), lambda *_: None)
    arrays = weights(1, ("terminals",)) | {"layer0.weight": np.full((8, 5), 1e-4, np.float32)}
    arrays["layer0.v_threshold"] = np.array(50.0)
    with pytest.raises(CapacityError, match="threshold .* with amplitudes of 6 bits"):
        node.on_mark("events", Deploy(0, 1, arrays), lambda *_: None)


def test_a_spike_for_a_line_that_is_not_there_is_loud():
    program, host, _, _ = drawn(3, ("terminals", "hebb"), 256)
    state, buffers = new_state(program.grid, PHASE_US, PHASE_US), buffers_for(program)
    incoming = np.array([(0, 1), (2100, 9)], SPIKE_DTYPE)
    with pytest.raises(CapacityError, match="phase 2 since the last reset: a spike for input line 9 at 2100 us"):
        advance(program, state, incoming, 9000, True, buffers, host)


def test_a_learner_deploys_its_rules_to_the_chip(tmp_path):
    path = tmp_path / "net.safetensors"
    save_graph(path, dense_layers("6", (WIDTH, WIDTH, 2), 3, 1))
    ends = {"source": "input", "target": "hidden1"}
    rules = [
        {**ends, "rule": "ShortTerm", "f_rest": 0.5},
        {**ends, "rule": "Hebbian", "local_rate": 0.3, "mixing": 0.5},
    ]
    learner = NetworkLearner(path=str(path), readout="scores", rules=rules, deploy_every=1, deploy_rules=True)
    node = ChipNode(width=WIDTH, height=WIDTH, local_rules=True)

    def to_chip(port, message):
        if port == "forward":
            if isinstance(message, Packet):
                node.on_packet("events", message, lambda *_: None)
            else:
                node.on_mark("events", message, lambda *_: None)

    events, _ = messages(6)
    learner.on_mark("events", Reset(0), to_chip)
    learner.on_packet("events", Packet(events, 0, 120_000), to_chip)
    learner.on_mark("events", Label(120_000, 1, 0), to_chip)
    learner.on_mark("events", Reset(120_000), to_chip)
    counts = node.statistics()
    assert counts["deploys"] == 2
    assert counts["host updates"] > 0 < counts["host rows written"]
    assert node.host.learner.terminal[0].tolist() == [13107, 32768, 0]


def test_a_surround_is_not_deployed_in_silence():
    graph = dense_layers("6", (WIDTH, WIDTH, 2), 3, 1)
    network = PlasticNetwork.of(graph, surrounds={("input", "hidden1"): Surround(rate_hz=1e4)}, readout="scores")
    with pytest.raises(ConfigError, match="layer0: a surround cannot be deployed"):
        rule_arrays(network, 0, "layer0")
