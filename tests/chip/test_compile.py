"""A compiled network on the grid equals the same quantised network run whole: any topology, split, place and way."""

import importlib.util
from pathlib import Path

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.compiler import compile_network
from chip.grid import DONE, new_state, run_phases
from chip.network import INPUT_LAYER, Layer, Link, QuantisedNetwork
from chip.profile import load_profile
from chip.soma import (
    FIRE_MEMBRANE_AFTER_LEAK,
    FIRE_TABLE,
    LEAK_PROPORTIONAL,
    RESET_NONE,
    RESET_SUBTRACT_CONSTANT,
    RESET_SUBTRACT_THRESHOLD,
    RESET_TO_VALUE,
    Soma,
)
from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.inhibition import Inhibition
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.sparse import sparse_of
from stream.errors import CapacityError
from stream.packet import PHASE_DTYPE, SPIKE_DTYPE

_spec = importlib.util.spec_from_file_location("chip_whole", Path(__file__).with_name("whole.py"))
whole = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(whole)

PROFILE = load_profile("tianjic-2019")


def small_cores(axons, neurons, **changes):
    """Return a profile whose cores are small, so that small networks are split."""
    values = {"axons_per_core": axons, "neurons_per_core": neurons, **changes}
    quantities = {name: msgspec.structs.replace(getattr(PROFILE, name), value=value) for name, value in values.items()}
    return msgspec.structs.replace(PROFILE, **quantities)


def spiking(rng):
    kind = int(rng.integers(5))
    threshold = int(rng.integers(20, 200))
    common = {"leak_mode": LEAK_PROPORTIONAL, "alpha": int(rng.integers(150, 256)), "floor": -(2**27)}
    if kind == 0:
        return Soma(v_threshold=threshold, reset_mode=RESET_SUBTRACT_THRESHOLD, **common)
    if kind == 1:
        return Soma(v_threshold=threshold, reset_mode=RESET_TO_VALUE, v_reset=-5, refractory_phases=2, **common)
    if kind == 2:
        return Soma(
            v_threshold=threshold,
            reset_mode=RESET_SUBTRACT_CONSTANT,
            v_decrement=threshold,
            theta_mode=LEAK_PROPORTIONAL,
            theta_alpha=200,
            theta_increment=30,
            **common,
        )
    if kind == 3:
        return Soma(v_threshold=threshold, reset_mode=RESET_NONE, window_length=0)
    return Soma(v_threshold=threshold, floor=-(2**27))


READOUT = Soma(
    v_threshold=2**27 - 1,
    floor=-(2**27),
    reset_mode=RESET_NONE,
    leak_mode=LEAK_PROPORTIONAL,
    alpha=240,
    fire_type=FIRE_MEMBRANE_AFTER_LEAK,
)


def artificial(rng, shape, number):
    table = np.sort(rng.integers(-128, 128, 256)).astype(np.int32)
    soma = Soma(fire_type=FIRE_TABLE, cut_shift=int(rng.integers(0, 8)))
    n = int(np.prod(shape))
    bias = rng.integers(-200, 200, n).astype(np.int32)
    return Layer(f"ann{number}", shape, soma, bias, value_bits=8, table=table)


def int8(rng, *shape):
    return rng.integers(-60, 128, shape).astype(np.int8)


def topology_between(rng, source, target, kind):
    n_pre, n_post = int(np.prod(source)), int(np.prod(target))
    if kind == "dense":
        return Dense(int8(rng, n_pre, n_post))
    if kind == "sparse":
        return sparse_of(int8(rng, n_pre, n_post) * (rng.random((n_pre, n_post)) < 0.3).astype(np.int8))
    return OneToOne(int8(rng, n_pre)) if rng.random() < 0.5 else OneToOne(3)


def next_map(rng, source):
    """Draw a convolution or a pooling of a map, and the shape that it makes."""
    size = tuple(int(rng.integers(1, min(3, side) + 1)) for side in source[:2])
    stride = tuple(int(n) for n in rng.integers(1, 3, 2))
    padding = tuple(int(n) for n in rng.integers(0, 2, 2))
    sides = [(source[k] + 2 * padding[k] - size[k]) // stride[k] + 1 for k in (0, 1)]
    if rng.random() < 0.3:
        return Pooling(size, stride, padding, int(rng.integers(1, 40))), (*sides, source[2])
    groups = int(rng.choice([g for g in (1, 2, 3) if source[2] % g == 0]))
    c_out = groups * int(rng.integers(1, 4))
    return Convolution(int8(rng, *size, source[2] // groups, c_out), stride, padding, groups), (*sides, c_out)


def random_network(seed):
    """Draw a network: maps first, then lines, with recurrence, delays and shortcuts, spikes and values mixed."""
    rng = np.random.default_rng(seed)
    inputs = (int(rng.integers(3, 7)), int(rng.integers(3, 7)), int(rng.integers(1, 4)))
    layers, links, shape, source = [], [], inputs, INPUT_LAYER

    def add(topology, shape, soma=None, delay=0):
        number = len(layers)
        if soma is None and rng.random() < 0.25:
            layers.append(artificial(rng, shape, number))
        else:
            n = int(np.prod(shape))
            bias = np.zeros(n, np.int32) if rng.random() < 0.7 else rng.integers(-9, 30, n).astype(np.int32)
            layers.append(Layer(f"layer{number}", shape, soma or spiking(rng), bias))
        links.append(Link(source, number, topology, delay))
        return number

    for _ in range(int(rng.integers(0, 3))):
        topology, shape = next_map(rng, shape)
        source = add(topology, shape, delay=int(rng.integers(0, 3)) if rng.random() < 0.3 else 0)
    before = (source, shape)
    for _ in range(int(rng.integers(0, 3))):
        n = int(rng.integers(2, 15))
        kind = rng.choice(["dense", "sparse", "one"])
        target = (int(np.prod(shape)),) if kind == "one" else (n,)
        source = add(topology_between(rng, shape, target, kind), target)
        shape = target
        if rng.random() < 0.5 and layers[source].soma.fire_type == 4:
            kind = rng.choice(["dense", "sparse", "one", "inhibition"])
            own = Inhibition(20) if kind == "inhibition" else topology_between(rng, shape, shape, kind)
            links.append(Link(source, source, own, int(rng.integers(1, 3))))
    last = add(topology_between(rng, shape, (4,), "dense"), (4,), READOUT)
    if before[0] not in (source, INPUT_LAYER) or rng.random() < 0.3:  # a shortcut: it has to wait for the others
        links.append(Link(before[0], last, topology_between(rng, before[1], (4,), "dense"), int(rng.integers(0, 2))))
    return QuantisedNetwork(inputs, layers, links)


def run_grid(program, inputs):
    """Run, phase by phase. Returns spikes of watched layers (n_phases, n) and values (n_phases, n_outputs)."""
    phase, unit = np.nonzero(inputs)
    incoming = np.zeros(len(unit), SPIKE_DTYPE)
    incoming["t"], incoming["unit"] = phase * 1000 + 7, unit
    spikes, rows, progress = np.empty(200_000, SPIKE_DTYPE), np.empty(1000, PHASE_DTYPE), np.zeros(3, np.int64)
    state = new_state(program.grid, 1000, 1000)
    values = np.zeros((len(inputs), program.n_outputs), np.int64)
    fired = np.zeros((len(inputs), max((s.stop for s in program.watched.values()), default=0)), np.int64)
    for k in range(len(inputs)):
        now = incoming[phase == k]
        progress[:] = 0
        assert run_phases(program.grid, state, now, (k + 1) * 1000, True, spikes, rows, progress) == DONE
        values[k] = state.output
        for t, number in spikes[: progress[1]].tolist():
            assert t == (k + 1) * 1000
            fired[k, number] = 1
    return fired, values, state


def assert_same(network, program, inputs):
    sent = whole.run_whole(network, program.offsets, inputs)
    fired, values, state = run_grid(program, inputs)
    names = [layer.name for layer in network.layers]
    for name, lines in program.watched.items():
        assert np.array_equal(fired[:, lines], sent[names.index(name)]), name
    for name, lines in program.outputs.items():
        wanted = sent[names.index(name)]
        assert np.array_equal(values[:, lines], wanted), name
    return state


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([(256, 256), (24, 9), (16, 16), (11, 30)]),
    st.sampled_from(["annealed", "random", "rows"]),
    st.booleans(),
)
def test_split_placed_and_sent_anyhow_equals_the_whole(seed, size, placement, multicast):
    network = random_network(seed)
    profile = small_cores(*size)
    try:
        program = compile_network(network, profile, placement=placement, seed=seed % 1000, multicast=multicast)
    except CapacityError as error:
        # what may not fit: too many cores, or no time for a split in a cycle
        assert "does not fit" in str(error) or "leaves no time" in str(error)  # noqa: PT017 - an error is one of two good ends
        return
    rng = np.random.default_rng(seed)
    inputs = rng.random((14, program.n_inputs)) < rng.choice([0.05, 0.3])
    assert_same(network, program, inputs)
