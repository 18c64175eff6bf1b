"""A semi-folded network says of every frame what the unfolded one says."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.compiler import compile_network, count_cores
from chip.fold import fold, in_rows
from chip.network import INPUT_LAYER, Layer, Link, QuantisedNetwork
from chip.profile import load_profile
from chip.soma import FIRE_TABLE, RESET_NONE, Soma
from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.pooling import Pooling
from stream.errors import CapacityError, ConfigError


def load(name):
    spec = importlib.util.spec_from_file_location(f"chip_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


whole, compiled = load("whole"), load("test_compile")
PROFILE = load_profile("tianjic-2019")


def random_maps(seed):
    """Draw up to two layers of windows, a dense one, and another; artificial units and thresholds mixed."""
    rng = np.random.default_rng(seed)
    inputs = shape = (int(rng.integers(4, 8)), int(rng.integers(3, 6)), int(rng.integers(1, 3)))
    layers, links = [], []

    def add(topology, shape, artificial):
        n = int(np.prod(shape))
        if artificial:
            table = np.sort(rng.integers(-128, 128, 256)).astype(np.int32)
            soma, bits = Soma(fire_type=FIRE_TABLE, cut_shift=int(rng.integers(2, 7))), 8
        else:
            table, bits = np.zeros(0, np.int32), 0
            soma = Soma(v_threshold=int(rng.integers(0, 90)), reset_mode=RESET_NONE, window_length=0)
        per_row = rng.integers(-30, 30, n // shape[0] if len(shape) == 3 else n)
        bias = np.tile(per_row, n // len(per_row)).astype(np.int32)
        layers.append(Layer(f"layer{len(layers)}", shape, soma, bias, value_bits=bits, table=table))
        links.append(Link(len(layers) - 2 if len(layers) > 1 else INPUT_LAYER, len(layers) - 1, topology))

    for k in range(int(rng.integers(1, 3))):
        size = tuple(int(rng.integers(1, min(3, side) + 1)) for side in shape[:2])
        stride = tuple(int(n) for n in rng.integers(1, 3, 2))
        padding = (min(int(rng.integers(0, 2)), size[0] - 1) if k == 0 else 0, int(rng.integers(0, 2)))
        sides = [(shape[i] + 2 * padding[i] - size[i]) // stride[i] + 1 for i in (0, 1)]
        if rng.random() < 0.3:
            topology, shape = Pooling(size, stride, padding, int(rng.integers(1, 40))), (*sides, shape[2])
        else:
            weight = compiled.int8(rng, *size, shape[2], int(rng.integers(1, 4)))
            topology, shape = Convolution(weight, stride, padding), (*sides, weight.shape[3])
        add(topology, shape, rng.random() < 0.5)
    add(Dense(compiled.int8(rng, int(np.prod(shape)), 5)), (5,), rng.random() < 0.5)
    add(Dense(compiled.int8(rng, 5, 3)), (3,), True)
    return QuantisedNetwork(inputs, layers, links)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(256, 256), (24, 20)]))
def test_every_frame_is_answered_as_unfolded(seed, size):
    network = random_maps(seed)
    folded = fold(network)
    rng = np.random.default_rng(seed)
    frames = rng.random((3, *network.inputs)) < rng.choice([0.1, 0.5])
    depth = len(network.layers)
    # unfolded: a frame a phase, answered depth - 1 phases later
    flat = np.zeros((3 + depth, int(np.prod(network.inputs))), bool)
    flat[:3] = frames.reshape(3, -1)
    wanted = whole.run_whole(network, [0] * depth, flat)[-1][depth - 1 : depth + 2]
    try:
        program = compile_network(folded.network, compiled.small_cores(*size), placement="rows")
    except CapacityError as error:
        assert "does not fit" in str(error)  # noqa: PT017 - an error is one of two good ends
        return
    last = folded.rows[-1].first + program.offsets[depth - 1]
    stream = in_rows(folded, frames)
    inputs = np.concatenate([stream, np.zeros((last + 1, stream.shape[1]), bool)])
    _, values, _ = compiled.run_grid(program, inputs)
    assert np.array_equal(values[last :: folded.period][:3], wanted)


def test_folding_trades_cores_for_phases():
    rng = np.random.default_rng(0)
    soma, table = Soma(fire_type=FIRE_TABLE, cut_shift=4), np.arange(256, dtype=np.int32) // 3
    first = Layer("first", (30, 30, 8), soma, np.zeros(7200, np.int32), value_bits=8, table=table)
    second = Layer("second", (14, 14, 8), soma, np.zeros(1568, np.int32), value_bits=8, table=table)
    links = [
        Link(INPUT_LAYER, 0, Convolution(compiled.int8(rng, 3, 3, 2, 8))),
        Link(0, 1, Convolution(compiled.int8(rng, 3, 3, 8, 8), (2, 2))),
    ]
    network = QuantisedNetwork((32, 32, 2), [first, second], links)
    folded = fold(network)
    assert folded.period == 32
    assert folded.rows == [(30, 2, 1), (14, 5, 2)]
    assert count_cores(folded.network, PROFILE) * 3 < count_cores(network, PROFILE)


def test_what_cannot_be_folded_is_named():
    network = random_maps(1)
    keeps = network.layers[0]._replace(soma=Soma())
    with pytest.raises(ConfigError, match="layer0: keeps potentials"):
        fold(network._replace(layers=[keeps, *network.layers[1:]]))
    with pytest.raises(ConfigError, match="wanted a map"):
        fold(network._replace(inputs=(9,)))
    wide = Layer("wide", (6, 6, 1), network.layers[-1].soma, np.zeros(36, np.int32), table=network.layers[-1].table)
    same = Convolution(np.ones((3, 3, 1, 1), np.int8), (1, 1), (1, 1))
    again = QuantisedNetwork(
        (6, 6, 1), [wide, wide._replace(name="deeper")], [Link(INPUT_LAYER, 0, same), Link(0, 1, same)]
    )
    with pytest.raises(ConfigError, match="deeper: padding of 1 along y"):
        fold(again)
    flat = Layer("flat", (8, 4, 1), wide.soma, np.zeros(32, np.int32), table=wide.table)
    low = Convolution(np.ones((1, 3, 1, 1), np.int8), (1, 1), (1, 1))
    with pytest.raises(ConfigError, match="flat: padding of 1 along y and windows 1 high"):
        fold(QuantisedNetwork((6, 4, 1), [flat], [Link(INPUT_LAYER, 0, low)]))
