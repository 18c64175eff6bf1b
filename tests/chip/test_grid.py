"""The grid against a slow reference: every potential, spike, packet and counter of every phase."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chip.core import (
    AXON_SPIKES,
    AXON_VALUES,
    OFF_CHIP,
    ROUTE_DTYPE,
    SYNAPSE_MATRIX,
    SYNAPSE_VECTOR_ADD,
    Core,
)
from chip.grid import DONE, INPUT_DTYPE, OVERFLOW, assemble, clear, new_state, run_phases
from chip.profile import load_profile
from chip.soma import Soma, lfsr_step
from stream.errors import CapacityError
from stream.packet import PHASE_DTYPE, SPIKE_DTYPE

# importlib mode puts no test folder on sys.path
_spec = importlib.util.spec_from_file_location("chip_reference", Path(__file__).with_name("reference.py"))
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

PROFILE = load_profile("tianjic-2019")
WIDTH = PROFILE.membrane_bits.value
TOP = 2 ** (WIDTH - 1) - 1
N = PROFILE.neurons_per_core.value
COUNTS = (
    "spikes_in",
    "merged",
    "spikes_out",
    "packets",
    "hops",
    "busiest_link",
    "clocks",
    "synaptic_ops",
    "zeros",
    "overruns",
    "overflows",
)

small = st.integers(-40, 40)
wide = st.one_of(small, small, st.integers(-TOP - 1, TOP), st.sampled_from([-TOP - 1, TOP, TOP - 1]))
alphas = st.integers(0, 255)


@st.composite
def somas(draw, fire_types=(0, 1, 4)):
    floor = draw(st.one_of(st.just(-TOP - 1), st.integers(-300, 0)))
    return Soma(
        v_threshold=draw(st.one_of(st.integers(0, 60), wide)),
        mask=draw(st.sampled_from([0, 0, 1, 15, 0xFF, 2**WIDTH - 1, 2 ** (WIDTH - 1)])),
        floor=floor,
        reset_mode=draw(st.integers(0, 3)),
        v_reset=draw(wide),
        v_decrement=draw(wide),
        leak_mode=draw(st.integers(0, 1)),
        alpha=draw(alphas),
        beta=draw(st.one_of(st.just(0), wide)),
        theta_mode=draw(st.integers(0, 1)),
        theta_alpha=draw(alphas),
        theta_beta=draw(st.one_of(st.just(0), small)),
        theta_increment=draw(st.one_of(st.just(0), wide)),
        refractory_phases=draw(st.integers(0, 15) | st.just(0)),
        window_enabled=draw(st.integers(0, 1)),
        window_length=draw(st.integers(0, 4)),
        v_init=draw(st.integers(max(floor, -20), 20)),
        fire_type=draw(st.sampled_from(fire_types)),
        seed=draw(st.sampled_from([0, 0, 0x0000ACE1, 0x80000001, 0xFFFFFFFF])),
    )


@st.composite
def programs(draw):
    """Up to five random cores at random places, wired at random; also what the reference needs to know."""
    n_cores, n_inputs, n_outputs = draw(st.integers(1, 5)), 6, 3
    places = draw(
        st.lists(st.tuples(st.integers(0, 11), st.integers(0, 12)), min_size=n_cores, max_size=n_cores, unique=True)
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    extreme = draw(st.booleans())
    shapes = []
    for c in range(n_cores):
        adds = draw(st.booleans())
        n_neurons = draw(st.integers(1, 6))
        n_axons = n_neurons if adds else draw(st.integers(1, 7))
        # the first core takes spikes, so that input has somewhere to go
        shapes.append((adds, n_axons, n_neurons, c > 0 and draw(st.booleans()), draw(somas())))
    cores, described = [], []
    for c, (adds, n_axons, n_neurons, values, soma) in enumerate(shapes):
        spiking = soma.fire_type == 4
        targets = [k for k, shape in enumerate(shapes) if shape[3] != spiking]
        routes, known = [], []
        for neuron in range(n_neurons):
            for _ in range(int(rng.integers(0, 4))):
                if targets and (spiking or rng.random() < 0.7):
                    target = int(rng.choice(targets))
                    axon = int(rng.integers(shapes[target][1]))
                    dx, dy = places[target][0] - places[c][0], places[target][1] - places[c][1]
                    routes.append((neuron, dx, dy, axon, 0))
                    known.append((neuron, target, axon))
                elif not spiking:
                    line = int(rng.integers(n_outputs))
                    routes.append((neuron, 0, 0, line, OFF_CHIP))
                    known.append((neuron, None, line))
        weight = rng.integers(-128, 128, (n_axons, n_neurons)).astype(np.int8)
        weight[rng.random(weight.shape) < 0.3] = 0
        bias = np.zeros(n_neurons, np.int32)
        if extreme:
            bias = rng.choice(np.array([2**31 - 1, -(2**31), 2**31 - 100, 5, 0], np.int32), n_neurons)
        elif rng.random() < 0.3:
            bias = rng.integers(-50, 50, n_neurons).astype(np.int32)
        bits = int(rng.choice([0, 8, 24, 28]))
        cores.append(
            Core(
                name=f"random {c}",
                axon_mode=AXON_VALUES if values else AXON_SPIKES,
                synapse=SYNAPSE_VECTOR_ADD if adds else SYNAPSE_MATRIX,
                n_axons=n_axons,
                n_neurons=n_neurons,
                weight=np.zeros((0, 0), np.int8) if adds else weight,
                bias=bias,
                soma=soma,
                routes=np.array(routes, ROUTE_DTYPE),
                value_bits=bits,
            )
        )
        described.append(
            {
                "axon_values": values,
                "adds": adds,
                "n_axons": n_axons,
                "n_neurons": n_neurons,
                "weight": weight.tolist(),
                "bias": bias.tolist(),
                "soma": soma._asdict(),
                "routes": known,
                "value_bits": bits or WIDTH,
                "place": places[c],
            }
        )
    spike_cores = [c for c, shape in enumerate(shapes) if not shape[3]]
    inputs = []
    for unit in range(n_inputs):
        for _ in range(int(rng.integers(1, 3))):
            core = int(rng.choice(spike_cores))
            inputs.append((unit, core, int(rng.integers(shapes[core][1]))))
    return cores, described, places, inputs, n_inputs, n_outputs


def build(program):
    cores, described, places, inputs, n_inputs, n_outputs = program
    watched = np.arange(len(cores) * N, dtype=np.int32).reshape(len(cores), N)
    grid = assemble(cores, places, np.array(inputs, INPUT_DTYPE), n_inputs, n_outputs, watched, PROFILE)
    slow = reference.Chip(described, inputs, n_outputs, WIDTH, 8, 16, 954, 5050)
    return grid, slow, new_state(grid, PROFILE.n_links, n_outputs, 1000, 1000)


def step(grid, state, units, phase):
    """Run phase number ``phase`` on its units."""
    incoming = np.zeros(len(units), SPIKE_DTYPE)
    incoming["t"], incoming["unit"] = phase * 1000, units
    spikes, rows, progress = np.empty(8000, SPIKE_DTYPE), np.empty(4, PHASE_DTYPE), np.zeros(3, np.int64)
    assert run_phases(grid, state, incoming, (phase + 1) * 1000, False, spikes, rows, progress) == DONE
    return spikes[: progress[1]], rows[: progress[2]]


def assert_equal(grid, state, slow, count, fired, spikes, rows, before):
    for c, soma in enumerate(slow.somas):
        assert state.soma.v[c, : soma.n].tolist() == soma.v
        assert state.soma.v_theta[c, : soma.n].tolist() == soma.theta
        assert state.soma.refractory[c, : soma.n].tolist() == soma.rest
        assert state.soma.lfsr[c] == soma.r
        assert state.soma.window[c] == soma.window
        axons = state.axon[state.clock["buffer"][0], c]
        assert axons[: len(slow.axons[c])].tolist() == slow.axons[c]
        assert not state.axon[1 - state.clock["buffer"][0], c].any()
    assert [divmod(int(unit), N) for unit in spikes["unit"]] == fired
    assert state.output.tolist() == slow.output
    assert state.score.tolist() == slow.score
    for name in COUNTS:
        if name in ("busiest_link", "clocks"):
            assert state.phase[name][0] == count[name], name
        else:
            assert state.totals[name][0] - before[name][0] == count[name], name
    for row in rows:
        for name in COUNTS[:9]:
            assert row[name] == count[name], name


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(), st.lists(st.lists(st.integers(0, 5), max_size=9) | st.just([]), min_size=1, max_size=14))
def test_every_potential_spike_packet_and_counter_equals_the_slow_reference(program, phases):
    grid, slow, state = build(program)
    for k, units in enumerate(phases):
        before = state.totals.copy()
        spikes, rows = step(grid, state, units, k)
        count, fired = slow.phase(units)
        assert_equal(grid, state, slow, count, fired, spikes, rows, before)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(), st.lists(st.integers(0, 5), max_size=6), st.integers(20, 80))
def test_a_silence_in_one_call_equals_phase_by_phase(program, units, n):
    grid, slow, state = build(program)
    incoming = np.zeros(len(units), SPIKE_DTYPE)
    incoming["unit"] = units
    spikes, rows, progress = np.empty(8000, SPIKE_DTYPE), np.empty(200, PHASE_DTYPE), np.zeros(3, np.int64)
    status = 1
    while status == 1:
        status = run_phases(grid, state, incoming, n * 1000, False, spikes, rows, progress)
        progress[1:] = 0
    totals = dict.fromkeys(COUNTS, 0)
    for k in range(n):
        count, _ = slow.phase(units if k == 0 else [])
        for name in COUNTS:
            peak = name in ("busiest_link", "clocks")
            totals[name] = max(totals[name], count[name]) if peak else totals[name] + count[name]
    assert {name: int(state.totals[name][0]) for name in COUNTS} == totals
    assert state.score.tolist() == slow.score
    assert [state.soma.v[c, : soma.n].tolist() for c, soma in enumerate(slow.somas)] == [s.v for s in slow.somas]
    assert state.clock["phase"][0] == n
    assert state.link_total.sum() == totals["hops"]


def test_shift_register_order():
    r, seen = 0x0000ACE1, []
    for _ in range(4):
        r = int(lfsr_step(r))
        seen.append(r)
    assert seen == [0x80005670, 0xC0002B38, 0x6000159C, 0xB0000ACE]


def one_core(soma, weight, bias=0, axon_mode=AXON_SPIKES):
    weight = np.array(weight, np.int8)
    n_axons, n_neurons = weight.shape
    return Core(
        "the core", axon_mode, SYNAPSE_MATRIX, n_axons, n_neurons, weight, np.full(n_neurons, bias, np.int32), soma,
        np.array([], ROUTE_DTYPE),
    )  # fmt: skip


def run_one(core, phases):
    """Return potentials and spikes after each phase of a chip of one core."""
    grid = assemble(
        [core], [(0, 0)], np.array([(i, 0, i) for i in range(core.n_axons)], INPUT_DTYPE), core.n_axons, 0,
        np.arange(N, dtype=np.int32)[None], PROFILE,
    )  # fmt: skip
    state = new_state(grid, PROFILE.n_links, 0, 1000, 1000)
    seen = []
    for k, units in enumerate(phases):
        spikes, _ = step(grid, state, units, k)
        seen.append((state.soma.v[0, : core.n_neurons].tolist(), spikes["unit"].tolist()))
    return seen, state


def test_threshold_is_strict():
    seen, _ = run_one(one_core(Soma(v_threshold=10), [[10, 11]]), [[0]])
    assert seen == [([10, 1], [1])]


@pytest.mark.parametrize(("mode", "v"), [(0, 7), (1, 15), (2, 21), (3, 25)])
def test_resets(mode, v):
    seen, _ = run_one(one_core(Soma(v_threshold=10, reset_mode=mode, v_reset=7, v_decrement=4), [[25]]), [[0]])
    assert seen == [([v], [0])]


def test_leak_floors():
    seen, _ = run_one(one_core(Soma(v_threshold=100, leak_mode=1, alpha=128), [[-3, 3]]), [[0], []])
    assert seen == [([-2, 1], []), ([-1, 0], [])]


def test_refractory_neuron_ignores_input_but_may_fire():
    soma = Soma(v_threshold=10, reset_mode=3, refractory_phases=2, leak_mode=1, alpha=128)
    seen, state = run_one(one_core(soma, [[50]]), [[0], [0], [0], [0]])
    # 50 fires, leaks to 25, fires again though refractory and deaf, and so on until it is below
    assert seen == [([25], [0]), ([12], [0]), ([6], [0]), ([3], [])]
    assert state.soma.refractory[0, 0] == 1


def test_bias_saturates_the_sum_term_by_term():
    # 2^31 - 1 + 100 saturates, - 100 comes off the saturated value: order matters
    soma = Soma(v_threshold=TOP, beta=0)
    core = one_core(soma, [[100], [-100]], bias=2**31 - 1)
    seen, state = run_one(core, [[0, 1]])
    assert state.phase["overflows"][0] == 2  # the sum, and the potential that it makes
    assert seen == [([TOP], [])]


def test_strict_mode_names_the_core():
    core = one_core(Soma(v_threshold=TOP), [[1]], bias=TOP)
    grid = assemble([core], [(3, 4)], np.array([(0, 0, 0)], INPUT_DTYPE), 1, 0, np.full((1, N), -1, np.int32), PROFILE)
    state = new_state(grid, PROFILE.n_links, 0, 1000, 1000)
    spikes, rows, progress = np.empty(8000, SPIKE_DTYPE), np.empty(4, PHASE_DTYPE), np.zeros(3, np.int64)
    assert run_phases(grid, state, spikes[:0], 5000, True, spikes, rows, progress) == OVERFLOW
    assert state.phase["overflow_core"][0] == 0
    assert state.clock["phase"][0] == 2  # the first phase fits exactly


def test_a_silent_chip_costs_nothing():
    core = one_core(Soma(v_threshold=10, leak_mode=1, alpha=250), [[-100, 9]])
    _, state = run_one(core, [[0]])
    grid = assemble([core], [(0, 0)], np.array([(0, 0, 0)], INPUT_DTYPE), 1, 0, np.full((1, N), -1, np.int32), PROFILE)
    spikes, rows, progress = np.empty(8000, SPIKE_DTYPE), np.empty(500, PHASE_DTYPE), np.zeros(3, np.int64)
    assert run_phases(grid, state, spikes[:0], 10**15, True, spikes, rows, progress) == DONE  # 30 years
    assert state.clock["phase"][0] == 10**12
    assert progress[2] < 200
    assert state.soma.v[0, :2].tolist() == [-42, 0]  # floor(-42 * 250 / 256) = -42: where the leak sticks


def test_clear_is_a_fresh_chip():
    core = one_core(Soma(v_threshold=10, mask=15, seed=0xACE1, v_init=3), [[4, 5]])
    _, state = run_one(core, [[0], [0]])
    _, fresh = run_one(core, [])
    grid = assemble([core], [(0, 0)], np.array([(0, 0, 0)], INPUT_DTYPE), 1, 0, np.full((1, N), -1, np.int32), PROFILE)
    clear(grid, state, 1000)
    for name in ("axon", "n_terms", "idle", "clock", "phase", "score", "output"):
        assert np.array_equal(getattr(state, name), getattr(fresh, name)), name
    for name in state.soma._fields:
        assert np.array_equal(getattr(state.soma, name), getattr(fresh.soma, name)), name


def assemble_pair(**changes):
    """Two cores, the first sending to the second; ``changes`` break something."""
    routes = np.array([(0, *changes.pop("to", (1, 0)), changes.pop("axon", 0), 0)], ROUTE_DTYPE)
    mode = changes.pop("axon_mode", AXON_SPIKES)
    places = changes.pop("places", [(0, 0), (1, 0)])
    line = changes.pop("line", (0, 0, 0))
    first = one_core(Soma(v_threshold=1), [[1]])._replace(routes=routes, **changes)
    second = one_core(Soma(v_threshold=1), [[1]], axon_mode=mode)
    return assemble(
        [first, second], places, np.array([line], INPUT_DTYPE), 1, 0, np.full((2, N), -1, np.int32), PROFILE
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"to": (5, 5)}, r"core 0 \(the core\), neuron 0: packet to nowhere, there is no core at \(5, 5\)"),
        ({"axon": 1}, "packet for axon 1 of core 1"),
        ({"axon_mode": AXON_VALUES}, "set to the other mode"),
        ({"places": [(0, 0), (0, 0)]}, r"place \(0, 0\) is taken"),
        ({"places": [(0, 0), (12, 0)]}, "12 x 13 grid"),
        ({"n_neurons": 257}, "neurons 257, tianjic-2019 has 0 to 256"),
        ({"soma": Soma(refractory_phases=16)}, "refractory phases 16"),
        ({"soma": Soma(v_threshold=2**27)}, "v threshold"),
        ({"soma": Soma(alpha=256)}, "alpha of the leak 256"),
        ({"line": (0, 0, 1)}, "input line 0: packet for axon 1"),
        ({"line": (0, 2, 0)}, "input line 0 to core 2"),
    ],
)
def test_what_does_not_fit_is_loud(changes, message):
    assemble_pair()
    with pytest.raises(CapacityError, match=message):
        assemble_pair(**changes)
