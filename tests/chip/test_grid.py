"""The grid against a slow reference: every potential, spike, packet, link load and counter of every phase."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from chip.core import (
    ALONG_X,
    ALONG_Y,
    AXON_SPIKES,
    AXON_VALUES,
    FLAGGED,
    OFF_CHIP,
    ROUTE_DTYPE,
    SYNAPSE_MATRIX,
    SYNAPSE_VECTOR_ADD,
    TO_CORE,
    Core,
    Forward,
)
from chip.grid import DONE, NOWHERE, OVERFLOW, clear, fault, give_input, new_state, probe, run_phases, spike_room
from chip.mesh import Plane, link_ends, plane_of
from chip.profile import load_profile
from chip.program import INPUT_DTYPE, GridProgram, assemble, neurons_of
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
CHIPS = (2, 2)
COUNTS = (
    "spikes_in",
    "merged",
    "spikes_out",
    "packets",
    "copies",
    "hops",
    "crossings",
    "busiest_link",
    "clocks",
    "synaptic_ops",
    "zeros",
    "overruns",
    "overflows",
)
IN_ROWS = set(COUNTS) - {"copies", "crossings", "overruns", "overflows"}
PORTS = {TO_CORE: "core", OFF_CHIP: "out", FLAGGED: "flagged", ALONG_X: "x", ALONG_Y: "y"}
KINDS = ("signed", "unsigned", "ternary")


def changed(profile, **values):
    """Return a profile with other numbers."""
    quantities = {name: msgspec.structs.replace(getattr(profile, name), value=value) for name, value in values.items()}
    return msgspec.structs.replace(profile, **quantities)


small = st.integers(-40, 40)
alphas = st.integers(0, 255)


@st.composite
def somas(draw, width, cut_step, fire_types=(4, 4, 4, 0, 1, 2, 3, 6, 7, 8)):
    top = 2 ** (width - 1) - 1
    wide = st.one_of(small, small, st.integers(-top - 1, top), st.sampled_from([-top - 1, top, top - 1]))
    floor = draw(st.one_of(st.just(-top - 1), st.integers(-100, 0)))
    adaptive = draw(st.booleans())  # else every fast path is open
    return Soma(
        v_threshold=draw(st.one_of(st.integers(0, 60), wide)),
        mask=draw(st.sampled_from([0, 0, 1, 15, 0xFF, 2**width - 1, 2 ** (width - 1)])),
        floor=floor,
        reset_mode=draw(st.integers(0, 3)),
        v_reset=draw(wide),
        v_decrement=draw(wide),
        leak_mode=draw(st.integers(0, 1)),
        alpha=draw(alphas),
        beta=draw(st.one_of(st.just(0), wide)),
        theta_mode=draw(st.integers(0, 1)) if adaptive else 0,
        theta_alpha=draw(alphas),
        theta_beta=draw(st.one_of(st.just(0), small)) if adaptive else 0,
        theta_increment=draw(st.one_of(st.just(0), wide)) if adaptive else 0,
        refractory_phases=draw(st.integers(0, 15) | st.just(0)) if adaptive else 0,
        window_enabled=draw(st.integers(0, 1)),
        window_length=draw(st.integers(0, 4)),
        v_init=draw(st.integers(max(floor, -20), 20)),
        fire_type=draw(st.sampled_from(fire_types)),
        seed=draw(st.sampled_from([0, 0x0000ACE1, 0x80000001, 0xFFFFFFFF])) if adaptive else 0,
        cut_shift=draw(st.integers(0, 30 // cut_step)) * cut_step if draw(st.booleans()) else 0,
    )


class Drawn(NamedTuple):
    """A random program, its reference, and where it stands."""

    cores: list
    grid: GridProgram
    slow: reference.Chip
    plane: Plane

    def __repr__(self):
        """Show what the reference knows, not the arrays made of it."""
        return f"cores {self.slow.cores}, inputs {self.slow.inputs}, {vars(self.slow)}"


@st.composite
def programs(draw):
    """Up to seven random cores around the corner where four chips meet, wired at random, and the reference of them."""
    n_cores, n_inputs, n_outputs = draw(st.sampled_from([1, 2, 3, 5, 6, 7])), 6, 3
    base = load_profile(draw(st.sampled_from(["tianjic-2019", "tianjic-2019", "tianjicx"])))
    profile = changed(
        base,
        membrane_bits=draw(st.sampled_from([28, 28, 24, 32])),
        payload_bits=draw(st.sampled_from([base.payload_bits.value, 2, 5, 8, 64])),
        routing=draw(st.sampled_from(["x_first", "y_first"])),
        phase_clocks=draw(st.sampled_from([base.phase_clocks.value, 5])),
        multicast_steps=7,
    )
    width, wide, high = profile.membrane_bits.value, profile.grid_width.value, profile.grid_height.value
    reach = profile.forward_reach.value
    some = st.tuples(st.integers(wide - 2, wide), st.integers(high - 1, high + 1))
    places = draw(st.lists(some, min_size=n_cores, max_size=n_cores, unique=True))
    at = {place: number for number, place in enumerate(places)}
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bias_kind = draw(st.sampled_from(["none", "none", "small", "large", "extreme"]))
    shapes, forwards = [], []
    for c in range(n_cores):
        adds = draw(st.booleans())
        n_neurons = int(rng.choice([1, 2, 3, 5, 17]))
        n_axons = n_neurons if adds else int(rng.choice([1, 4, 7, 30]))
        # the first core takes spikes, so that input has somewhere to go
        shapes.append(
            (adds, n_axons, n_neurons, c > 0 and draw(st.booleans()), draw(somas(width, profile.cut_step.value)))
        )
        later = [
            place
            for place in places[c + 1 :]
            if reach > 1 or abs(place[0] - places[c][0]) + abs(place[1] - places[c][1]) == 1
        ]
        forward = Forward()
        if later and rng.random() < 0.8:
            x, y = later[rng.integers(len(later))]
            forward = Forward(int(rng.integers(1, 3)), x - places[c][0], y - places[c][1])
        forwards.append(forward)

    def kept(place, port, steps):
        """Return the cores that keep a packet, None if it would get lost."""
        if place not in at:
            return None
        if port in (ALONG_X, ALONG_Y):
            k = np.sign(steps)
            line = [
                (place[0] + k * n, place[1]) if port == ALONG_X else (place[0], place[1] + k * n)
                for n in range(abs(steps) + 1)
            ]
            return [at[there] for there in line] if all(there in at for there in line) else None
        found = []
        while port == FLAGGED and forwards[at[place]].mode:
            if forwards[at[place]].mode == 1:
                found.append(at[place])
            place = (place[0] + forwards[at[place]].dx, place[1] + forwards[at[place]].dy)
        return [*found, at[place]]

    cores, described = [], []
    for c, (adds, n_axons, n_neurons, values, soma) in enumerate(shapes):
        spiking = soma.fire_type == 4
        lines = []
        for _ in range(int(rng.integers(0, 5))):
            port = int(rng.choice([TO_CORE, TO_CORE, FLAGGED, FLAGGED, FLAGGED, ALONG_X, ALONG_Y, OFF_CHIP]))
            steps = int(rng.integers(-2, 3)) if port in (ALONG_X, ALONG_Y) else 0
            if port == OFF_CHIP:
                if not spiking:
                    lines += [(int(rng.integers(n_neurons)), 0, 0, int(rng.integers(n_outputs)), port, 0)]
                continue
            target = int(rng.integers(n_cores))
            targets = kept(places[target], port, steps)
            if targets is None or any(shapes[k][3] == spiking for k in targets):
                continue
            room = min(shapes[k][1] for k in targets)
            dx, dy = places[target][0] - places[c][0], places[target][1] - places[c][1]
            if rng.random() < 0.6:  # a stretch of neurons to a stretch of axons
                first, first_axon = int(rng.integers(n_neurons)), int(rng.integers(room))
                n = int(rng.integers(1, min(n_neurons - first, room - first_axon) + 1))
                lines += [(first + k, dx, dy, first_axon + k, port, steps) for k in range(n)]
            else:
                for _ in range(int(rng.integers(1, 4))):
                    lines += [(int(rng.integers(n_neurons)), dx, dy, int(rng.integers(room)), port, steps)]
        lines.sort(key=lambda line: line[0])
        weight = rng.integers(-128, 128, (n_axons, n_neurons)).astype(np.int8)
        weight[rng.random(weight.shape) < 0.3] = 0
        if rng.random() < 0.2:
            weight[:] = rng.choice([-128, 127])
        bias = {
            "none": np.zeros(n_neurons, np.int32),
            "small": rng.integers(-50, 50, n_neurons).astype(np.int32),
            # around 2^30, where the lanes of 32 bits end, and near to the ends of int32
            "large": rng.choice(np.array([2**30 - 200, -(2**30) + 300, 2**30 + 7, 9], np.int32), n_neurons),
            "extreme": rng.choice(np.array([2**31 - 1, -(2**31), 2**31 - 100, 5, 0], np.int32), n_neurons),
        }[bias_kind]
        kind = int(rng.integers(3)) if not spiking else 0
        bits = int(rng.choice([0, 2, 5, 8, 16, 24, 28, 31]))
        table = np.zeros(0, np.int32)
        if soma.fire_type == 8:
            lowest, highest = reference.values_range(bits or 8, KINDS[kind])
            size = 1 << int(rng.choice(profile.table_address_bits.value[:2]))
            table = rng.integers(lowest, highest + 1, size).astype(np.int32)
            if rng.random() < 0.5:
                table[0] = 0  # else the core speaks in every phase
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
                routes=np.array(lines, ROUTE_DTYPE),
                value_bits=bits,
                value_kind=kind,
                table=table,
                watch=np.arange(n_neurons, dtype=np.int32) + 100 * c,
                forward=forwards[c],
            )
        )
        whole = 8 if soma.fire_type in (2, 3, 7, 8) else width
        described.append(
            {
                "axon_values": values,
                "adds": adds,
                "n_axons": n_axons,
                "n_neurons": n_neurons,
                "weight": weight.tolist(),
                "bias": bias.tolist(),
                "soma": soma._asdict(),
                "table": table.tolist(),
                "routes": [(*line[:4], PORTS[line[4]], line[5]) for line in lines],
                "bits": {"signed": bits or whole, "unsigned": bits or min(whole, 31), "ternary": 2}[KINDS[kind]],
                "kind": KINDS[kind],
                "place": places[c],
                "forward": (forwards[c].mode == 1, *forwards[c][1:]) if forwards[c].mode else None,
            }
        )
    inputs = []
    for unit in range(n_inputs):
        for _ in range(int(rng.integers(1, 9))):
            core = int(rng.integers(n_cores))
            inputs.append((unit, core, int(rng.integers(shapes[core][1]))))
    grid = assemble(cores, places, np.array(inputs, INPUT_DTYPE), n_inputs, n_outputs, profile, chips=CHIPS)
    slow = reference.Chip(
        described, inputs, n_outputs, width=width, payload=profile.payload_bits.value,
        macs=profile.macs_per_clock.value, overhead=profile.overhead_clocks.value,
        phase_clocks=profile.phase_clocks.value,
        x_first=profile.routing.value == "x_first", chip=(wide, high),
    )  # fmt: skip
    return Drawn(cores, grid, slow, plane_of(profile, CHIPS))


lines = st.integers(0, 5)
gifts = st.lists(
    st.tuples(lines, st.integers(-300, 300) | st.sampled_from([0, 127, 128, -129, 2**30, -(2**30), 65536])), max_size=4
)


def step(grid, state, units, phase, given=()):
    """Run phase number ``phase`` on its units, and on values given to input lines before."""
    if given:
        give_input(state, *np.array(given, np.int32).T.copy())
    incoming = np.zeros(len(units), SPIKE_DTYPE)
    incoming["t"], incoming["unit"] = phase * 1000, units
    spikes, rows, progress = np.empty(8000, SPIKE_DTYPE), np.empty(4, PHASE_DTYPE), np.zeros(3, np.int64)
    assert run_phases(grid, state, incoming, (phase + 1) * 1000, False, spikes, rows, progress) == DONE
    return spikes[: progress[1]], rows[: progress[2]]


def assert_equal_states(grid, state, slow):
    now = state.clock["buffer"][0]
    for c, soma in enumerate(slow.somas):
        neurons, axons = neurons_of(grid, c), slice(grid.axons[c], grid.axons[c + 1])
        assert state.soma.v[neurons].tolist() == soma.v
        assert state.soma.v_theta[neurons].tolist() == soma.theta
        assert state.soma.refractory[neurons].tolist() == soma.rest
        assert state.soma.lfsr[c] == soma.r
        assert state.soma.window[c] == soma.window
        assert state.axon[now, axons].tolist() == slow.axons[c]
        assert state.n_terms[now, c] == slow.arrived[c]
        if not slow.cores[c]["axon_values"]:
            listed = state.active[now, axons][: slow.arrived[c]]
            assert sorted(listed.tolist()) == [i for i, a in enumerate(slow.axons[c]) if a]
    assert not state.axon[1 - now].any()
    assert not state.link_change.any()
    assert state.output.tolist() == slow.output
    assert state.score.tolist() == slow.score


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(), st.lists(st.lists(lines, max_size=9) | st.just([]), min_size=1, max_size=14), st.data())
def test_every_potential_spike_packet_and_counter_equals_the_slow_reference(program, phases, data):
    _, grid, slow, plane = program
    state = new_state(grid, 1000, 1000)
    for k, units in enumerate(phases):
        before = state.totals.copy()
        given = data.draw(gifts | st.just([])) if k % 3 == 0 else []
        spikes, rows = step(grid, state, units, k, given)
        count, fired, loads = slow.phase(units, given)
        assert_equal_states(grid, state, slow)
        assert [divmod(int(unit), 100) for unit in spikes["unit"]] == fired
        assert {
            link_ends(plane, int(link)): int(n) for link, n in zip(grid.links, state.link_load, strict=True) if n
        } == loads
        for name in COUNTS:
            if name in ("busiest_link", "clocks"):
                assert state.phase[name][0] == count[name], name
            else:
                assert state.totals[name][0] - before[name][0] == count[name], name
            for row in rows:
                assert name not in IN_ROWS or row[name] == count[name], name
        for name in ("copies", "crossings", "overflows"):
            if count[name]:
                event(name)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(), st.lists(st.integers(0, 5), max_size=6), st.integers(20, 80))
def test_a_silence_in_one_call_equals_phase_by_phase(program, units, n):
    _, grid, slow, _ = program
    state = new_state(grid, 1000, 1000)
    incoming = np.zeros(len(units), SPIKE_DTYPE)
    incoming["unit"] = units
    spikes, rows, progress = np.empty(8000, SPIKE_DTYPE), np.empty(200, PHASE_DTYPE), np.zeros(3, np.int64)
    status = 1
    while status == 1:
        status = run_phases(grid, state, incoming, n * 1000, False, spikes, rows, progress)
        progress[1:] = 0
    totals = dict.fromkeys(COUNTS, 0)
    for k in range(n):
        count, _, _ = slow.phase(units if k == 0 else [])
        for name in COUNTS:
            peak = name in ("busiest_link", "clocks")
            totals[name] = max(totals[name], count[name]) if peak else totals[name] + count[name]
    assert {name: int(state.totals[name][0]) for name in COUNTS} == totals
    assert_equal_states(grid, state, slow)
    assert state.clock["phase"][0] == n
    assert state.link_total.sum() == totals["hops"]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(), st.lists(st.lists(st.integers(0, 5), max_size=9), min_size=1, max_size=9))
def test_probes_and_watching_change_no_bit(program, phases):
    cores, grid, _, _ = program
    state, looked_at = new_state(grid, 1000, 1000), new_state(grid, 1000, 1000)
    unwatched = grid._replace(
        spike_unit=np.full_like(grid.spike_unit, -1), cores=grid.cores.copy(), limits=grid.limits.copy()
    )
    unwatched.cores["watched"], unwatched.limits["n_watched"] = 0, 0
    for k, units in enumerate(phases):
        step(grid, looked_at, units, k)
        for c in range(len(cores)):
            seen = probe(grid, looked_at, c)
            assert np.array_equal(seen.v, looked_at.soma.v[neurons_of(grid, c)])
            for array in seen:
                array[...] = 1  # a copy: what is done to it stays there
        spikes, _ = step(unwatched, state, units, k)
        assert len(spikes) == 0
    for name in set(state._fields) - {"soma", "current", "total", "fired", "firing"}:
        assert np.array_equal(getattr(state, name), getattr(looked_at, name)), name
    for one, other in zip(state.soma, looked_at.soma, strict=True):
        assert np.array_equal(one, other)


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
        np.array([], ROUTE_DTYPE), watch=np.arange(n_neurons, dtype=np.int32),
    )  # fmt: skip


def alone(core, place=(0, 0)):
    """Put one core on a chip, with an input line for each axon."""
    inputs = np.array([(i, 0, i) for i in range(core.n_axons)], INPUT_DTYPE)
    return assemble([core], [place], inputs, core.n_axons, 0, PROFILE)


def run_one(core, phases):
    """Return potentials and spikes after each phase of a chip of one core."""
    grid = alone(core)
    state = new_state(grid, 1000, 1000)
    seen = []
    for k, units in enumerate(phases):
        spikes, _ = step(grid, state, units, k)
        seen.append((probe(grid, state, 0).v.tolist(), spikes["unit"].tolist()))
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
    assert state.soma.refractory[0] == 1


def test_bias_saturates_the_sum_term_by_term():
    # 2^31 - 1 + 100 saturates, - 100 comes off the saturated value: order matters
    soma = Soma(v_threshold=TOP, beta=0)
    core = one_core(soma, [[100], [-100]], bias=2**31 - 1)
    seen, state = run_one(core, [[0, 1]])
    assert state.phase["overflows"][0] == 2  # the sum, and the potential that it makes
    assert seen == [([TOP], [])]


def test_strict_mode_names_core_and_phase():
    core = one_core(Soma(v_threshold=TOP), [[1]], bias=TOP)
    grid = alone(core, (3, 4))
    state = new_state(grid, 1000, 1000)
    spikes, rows, progress = np.empty(8000, SPIKE_DTYPE), np.empty(4, PHASE_DTYPE), np.zeros(3, np.int64)
    status = run_phases(grid, state, spikes[:0], 5000, True, spikes, rows, progress)
    assert status == OVERFLOW
    message = str(fault(status, state, ["the core"], [(3, 4)], spikes[:0], 0))
    assert "core 0 at (3, 4), the core, phase 1 since the last reset: 1 sums" in message  # phase 0 fits exactly


@pytest.mark.parametrize("strict", [True, False])
def test_a_spike_for_an_input_line_that_is_not_there_is_loud(strict):
    grid = alone(one_core(Soma(v_threshold=9), [[1], [1]]))
    state = new_state(grid, 1000, 1000)
    incoming = np.array([(0, 1), (2100, 1), (2200, 2), (2300, 0)], SPIKE_DTYPE)
    spikes, rows, progress = np.empty(8000, SPIKE_DTYPE), np.empty(9, PHASE_DTYPE), np.zeros(3, np.int64)
    status = run_phases(grid, state, incoming, 9000, strict, spikes, rows, progress)
    assert status == NOWHERE
    assert progress[0] == 2
    message = str(fault(status, state, ["the core"], [(0, 0)], incoming, int(progress[0])))
    assert "phase 2 since the last reset: a spike for input line 2 at 2200 us, there are 2 lines" in message


def test_a_silent_chip_costs_nothing():
    core = one_core(Soma(v_threshold=10, leak_mode=1, alpha=250), [[-100, 9]])
    grid = alone(core)
    _, state = run_one(core, [[0]])
    spikes, rows, progress = np.empty(8000, SPIKE_DTYPE), np.empty(500, PHASE_DTYPE), np.zeros(3, np.int64)
    assert run_phases(grid, state, spikes[:0], 10**15, True, spikes, rows, progress) == DONE  # 30 years
    assert state.clock["phase"][0] == 10**12
    assert progress[2] < 200
    assert state.soma.v[:2].tolist() == [-42, 0]  # floor(-42 * 250 / 256) = -42: where the leak sticks


def test_an_activation_table_runs_from_zero_up_and_then_from_the_most_negative():
    table = np.concatenate([np.arange(128), np.zeros(128)]).astype(np.int32)  # relu
    table[255] = -5  # f(-1)
    soma = Soma(fire_type=8, cut_shift=2)
    out = np.array([(j, 0, 0, j, OFF_CHIP, 0) for j in range(5)], ROUTE_DTYPE)
    core = one_core(soma, [[103, -1, -5, 0, 127]], axon_mode=AXON_SPIKES)._replace(table=table, routes=out)
    core = core._replace(bias=np.array([0, 0, 0, 30, 2000], np.int32))
    grid = assemble([core], [(0, 0)], np.array([(0, 0, 0)], INPUT_DTYPE), 1, 5, PROFILE)
    state = new_state(grid, 1000, 1000)
    step(grid, state, [0], 0)
    # 103 >> 2 = 25; -1 >> 2 = -1: f(-1); -5 >> 2 = -2; 30 >> 2 = 7; 2127 >> 2 = 531, clamped to 127
    assert state.output.tolist() == [25, -5, 0, 7, 127]


@pytest.mark.parametrize(
    ("bits", "payload", "values", "packets"),
    [
        (24, 8, [5, -128, 127], 3),  # one digit each
        (24, 8, [128, -129, 0], 4),  # 128 = 1 * 256 - 128; zero is not sent
        (24, 8, [256, 65536, 257], 4),  # digits of zero are not sent: 256 is one packet, 257 two
        (24, 8, [2**23 - 1], 3),  # 1 * 2^24 - 128 * 2^16 + 0 * 2^8 - 1
        (32, 64, [1, 0, 0, 0, 0, 3], 2),  # two a packet: (1 0) (0 0) (0 3)
        (8, 64, [1, 0, 0, 0, 0, 0, 0, 0, 9], 2),
    ],
)
def test_packets_of_values(bits, payload, values, packets):
    profile = changed(PROFILE, payload_bits=payload)
    n = len(values)
    out = np.array([(j, 1, 0, j, TO_CORE, 0) for j in range(n)], ROUTE_DTYPE)
    sums = Soma(v_threshold=TOP, fire_type=0, window_length=0, reset_mode=3)
    sender = one_core(sums, np.zeros((1, n)))._replace(bias=np.array(values, np.int32), routes=out, value_bits=bits)
    adder = Core(
        "adder", AXON_VALUES, SYNAPSE_VECTOR_ADD, n, n, np.zeros((0, 0), np.int8), np.zeros(n, np.int32),
        sums, np.zeros(0, ROUTE_DTYPE),
    )  # fmt: skip
    grid = assemble([sender, adder], [(0, 0), (1, 0)], np.zeros(0, INPUT_DTYPE), 0, 0, profile)
    state = new_state(grid, 1000, 1000)
    step(grid, state, [], 0)
    assert probe(grid, state, 1).waiting.tolist() == values
    assert state.phase["packets"][0] == packets


def test_five_by_five_chips_in_bounded_memory():
    side = 16
    weight = np.full((side, side), 1, np.int8)
    places = [(x, y) for y in range(65) for x in range(60)]
    cores = []
    for x, y in places:
        routes = np.zeros(side, ROUTE_DTYPE)
        routes["neuron"] = routes["axon"] = np.arange(side)
        routes["dx"], routes["dy"] = (1, 0) if x < 59 else (-59, 1 if y < 64 else -64)
        soma = Soma(v_threshold=0, reset_mode=0)
        cores.append(Core("c", 0, 0, side, side, weight, np.zeros(side, np.int32), soma, routes))
    grid = assemble(cores, places, np.array([(0, 0, 3)], INPUT_DTYPE), 1, 0, PROFILE, chips=(5, 5))
    state = new_state(grid, 1000, 1000)
    arrays = [*grid, *state[:3], *state.soma, *state[4:]]
    assert sum(array.nbytes for array in arrays) < 3900 * side * (side + 64) + 4_000_000
    spikes, rows, progress = np.empty(1, SPIKE_DTYPE), np.empty(5000, PHASE_DTYPE), np.zeros(3, np.int64)
    incoming = np.zeros(1, SPIKE_DTYPE)
    assert run_phases(grid, state, incoming, 3_900_000, True, spikes, rows, progress) == DONE
    # a wave through every core once, row by row over four chip borders a row, and back
    assert state.totals["spikes_out"][0] == 3900 * side
    assert state.totals["crossings"][0] == side * (65 * 4 + 64 * 4 + 4 + 4 + 4)
    assert state.core_ops.tolist() == [side, *[side * side] * 3899]
    assert spike_room(grid) == 1


def test_clear_is_a_fresh_chip():
    core = one_core(Soma(v_threshold=10, mask=15, seed=0xACE1, v_init=3), [[4, 5]])
    _, state = run_one(core, [[0], [0]])
    _, fresh = run_one(core, [])
    grid = alone(core)
    clear(grid, state, 1000)
    for name in ("axon", "n_terms", "idle", "clock", "phase", "score", "output"):
        assert np.array_equal(getattr(state, name), getattr(fresh, name)), name
    for name in state.soma._fields:
        assert np.array_equal(getattr(state.soma, name), getattr(fresh.soma, name)), name


def assemble_pair(**changes):
    """Two cores, the first sending to the second; ``changes`` break something."""
    port, steps = changes.pop("port", TO_CORE), changes.pop("steps", 0)
    routes = np.array([(0, *changes.pop("to", (1, 0)), changes.pop("axon", 0), port, steps)], ROUTE_DTYPE)
    mode, forward = changes.pop("axon_mode", AXON_SPIKES), changes.pop("onward", Forward())
    places = changes.pop("places", [(0, 0), (1, 0)])
    line, profile = changes.pop("line", (0, 0, 0)), changes.pop("profile", PROFILE)
    chips = changes.pop("chips", (1, 1))
    first = one_core(Soma(v_threshold=1), [[1]])._replace(routes=routes, **changes)
    second = one_core(Soma(v_threshold=1), [[1]], axon_mode=mode)._replace(forward=forward)
    return assemble([first, second], places, np.array([line], INPUT_DTYPE), 1, 0, profile, chips=chips)


LARGE = load_profile("tianjicx")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"to": (5, 5)}, r"core 0 \(the core\) at \(0, 0\), neuron 0: packet to nowhere, there is no core at \(5, 5\)"),
        ({"axon": 1}, r"neuron 0: packet for axon 1 of core 1 \(the core\) at \(1, 0\), which has 1"),
        ({"axon_mode": AXON_VALUES}, "spike for core 1 .* set to the other mode"),
        ({"places": [(0, 0), (0, 0)]}, r"place \(0, 0\) is taken"),
        ({"places": [(0, 0), (12, 0)]}, "12 x 13 grid"),
        ({"places": [(0, 0), (36, 0)], "chips": (3, 1)}, "36 x 13 grid"),
        ({"n_neurons": 257}, "neurons 257, tianjic-2019 has 0 to 256"),
        ({"soma": Soma(refractory_phases=16)}, "refractory phases 16"),
        ({"soma": Soma(v_threshold=2**27)}, "v threshold"),
        ({"soma": Soma(alpha=256)}, "alpha of the leak 256"),
        ({"soma": Soma(fire_type=5)}, "fire type 5"),
        ({"soma": Soma(fire_type=8)}, "a lookup table of 0 entries"),
        ({"table": np.zeros(256, np.int32)}, "a lookup table of 256 entries with fire type 4"),
        ({"soma": Soma(fire_type=8), "table": np.full(256, 128, np.int32)}, "lookup table from 128 to 128"),
        ({"soma": Soma(cut_shift=3), "profile": LARGE}, "cuts 3 bits, tianjicx has 2 k"),
        ({"line": (0, 0, 1)}, "input line 0: packet for axon 1"),
        ({"line": (0, 2, 0)}, "input line 0 to core 2"),
        ({"line": (1, 0, 0)}, "input line 1 to core 0: there are 1 lines"),
        ({"port": OFF_CHIP}, "output line 0, wanted a value"),
        ({"port": 5}, "port 5"),
        ({"port": ALONG_X, "steps": 8}, "8 cores beyond its target, tianjic-2019 has 7"),
        ({"port": ALONG_X, "steps": 1}, r"copy to nowhere, there is no core at \(2, 0\)"),
        ({"port": FLAGGED, "onward": Forward(1, 0, 1)}, r"forwards flagged packets to nowhere, .* \(1, 1\)"),
        ({"port": FLAGGED, "onward": Forward(1, -1, 0), "forward": Forward(2, 1, 0)}, "goes in a ring"),
        ({"onward": Forward(1, -2, 0)}, "dx of the forward register 2"),
        ({"onward": Forward(1, 1, 1)}, "a neighbour"),
        (
            {"to": (130, 0), "places": [(0, 0), (130, 0)], "chips": (11, 1)},
            r"relative address \(130, 0\), tianjic-2019 has -128 to 127",
        ),
        (
            {
                "profile": LARGE, "n_axons": 4000, "n_neurons": 64, "weight": np.zeros((4000, 64), np.int8),
                "bias": np.zeros(64, np.int32),
            },
            "bytes of memory 264512, tianjicx has 0 to 147456",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_loud(changes, message):
    assemble_pair()
    with pytest.raises(CapacityError, match=message):
        assemble_pair(**changes)


def answer(core, given):
    """Run one core for a phase on what is given to its axons; what left, and who fired."""
    n = core.n_neurons
    if core.soma.fire_type != 4:
        core = core._replace(routes=np.array([(j, 0, 0, j, OFF_CHIP, 0) for j in range(n)], ROUTE_DTYPE))
    lines = np.array([(i, 0, i) for i in range(core.n_axons)], INPUT_DTYPE)
    grid = assemble([core], [(0, 0)], lines, core.n_axons, n, PROFILE)
    state = new_state(grid, 1000, 1000)
    spikes, _ = step(grid, state, [], 0, given)
    return state.output.tolist(), spikes["unit"].tolist()


@pytest.mark.parametrize(
    ("mode", "axon_mode", "soma", "given", "left", "fired"),
    [
        # by hand: spikes give U = (2, -3), a value of 5 gives U = (10, -15)
        ("AA", AXON_VALUES, Soma(fire_type=8, cut_shift=1), [(0, 5)], [5, 0], []),
        ("AS", AXON_VALUES, Soma(v_threshold=9), [(0, 5)], [0, 0], [0]),
        ("AS, a tie", AXON_VALUES, Soma(v_threshold=10), [(0, 5)], [0, 0], []),
        ("SS", AXON_SPIKES, Soma(v_threshold=1), [(0, 5)], [0, 0], [0]),
        ("SS, a tie", AXON_SPIKES, Soma(v_threshold=2), [(0, 1)], [0, 0], []),
        ("SA", AXON_SPIKES, Soma(v_threshold=TOP, fire_type=2), [(0, 1)], [2, -3], []),
        ("SA, cut", AXON_SPIKES, Soma(v_threshold=TOP, fire_type=2, cut_shift=1), [(0, 1)], [1, -2], []),
    ],
)
def test_the_four_modes_of_a_core(mode, axon_mode, soma, given, left, fired):
    core = one_core(soma, [[2, -3]], axon_mode=axon_mode)
    if soma.fire_type == 8:
        core = core._replace(table=np.concatenate([np.arange(128), np.zeros(128)]).astype(np.int32))  # relu
    assert answer(core, given) == (left, fired), mode


def test_adaptive_threshold_by_hand():
    # threshold 10 + theta; theta halves, then grows by 6 on a spike
    soma = Soma(v_threshold=10, reset_mode=0, theta_mode=1, theta_alpha=128, theta_increment=6)
    seen, state = run_one(one_core(soma, [[12]]), [[0], [0], [0]])
    # 12 > 10 fires, theta 6; 12 > 16 does not, theta 3; 24 > 13 fires, theta 1 + 6
    assert seen == [([0], [0]), ([12], []), ([0], [0])]
    assert state.soma.v_theta[0] == 7


def test_random_threshold_by_hand():
    # the register's first two states are 0x80005670 (negative: -(NOT r AND 15) = -15) and 0xC0002B38 (-7)
    soma = Soma(v_threshold=20, mask=15, seed=0xACE1, reset_mode=0)
    seen, _ = run_one(one_core(soma, [[5, 13]]), [[0]])
    assert seen == [([5, 13], [])]  # both tie
    seen, _ = run_one(one_core(soma, [[6, 14]]), [[0]])
    assert seen == [([0, 0], [0, 1])]


def test_a_window_that_ends_resets_the_potential_but_not_the_spike():
    soma = Soma(v_threshold=10, reset_mode=3, window_enabled=1, window_length=2, v_init=1)
    seen, _ = run_one(one_core(soma, [[4]]), [[0], [0], [0], [0]])
    # 1 + 4, 9, 13 fires and the window ends, 1 + 4
    assert seen == [([5], []), ([9], []), ([1], [0]), ([5], [])]


def test_a_full_core_takes_just_the_phase_that_the_chip_has():
    core = one_core(Soma(v_threshold=TOP), np.ones((256, 256)))
    grid = alone(core)
    state = new_state(grid, 1000, 1000)
    step(grid, state, range(256), 0)
    assert state.phase["clocks"][0] == PROFILE.phase_clocks.value == 5050
    assert state.totals["overruns"][0] == 0


def test_a_phase_that_takes_too_long_is_told():
    lines = np.array([(i, 0, i % 256) for i in range(5051)], INPUT_DTYPE)
    grid = assemble([one_core(Soma(v_threshold=TOP), np.zeros((256, 1)))], [(0, 0)], lines, 5051, 0, PROFILE)
    state = new_state(grid, 1000, 1000)
    _, rows = step(grid, state, range(5051), 0)
    assert rows["clocks"][0] == rows["busiest_link"][0] == 5051
    assert state.totals["overruns"][0] == 1


@pytest.mark.parametrize("on", [[0, 1], [0, 0]], ids=["two lines", "the same line"])
def test_values_from_outside_that_overflow_an_axon_name_its_core(on):
    core = one_core(Soma(v_threshold=TOP), np.zeros((1, 1)), axon_mode=AXON_VALUES)
    lines = np.array([(0, 0, 0), (1, 0, 0)], INPUT_DTYPE)
    grid = assemble([core], [(2, 3)], lines, 2, 0, PROFILE)
    state = new_state(grid, 1000, 1000)
    give_input(state, np.array(on, np.int32), np.array([2**31 - 1, 1], np.int32))
    spikes, rows, progress = np.empty(9, SPIKE_DTYPE), np.empty(4, PHASE_DTYPE), np.zeros(3, np.int64)
    status = run_phases(grid, state, spikes[:0], 1000, True, spikes, rows, progress)
    assert status == OVERFLOW
    assert "core 0 at (2, 3), the core, phase 0" in str(fault(status, state, ["the core"], [(2, 3)], spikes[:0], 0))
