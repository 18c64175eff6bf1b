"""A quantised network on the grid equals the same network run whole; and quantisation itself."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chip.profile
from chip.compiler import compile_network, reweigh
from chip.grid import DONE, new_state, probe, run_phases
from chip.profile import load_profile, shipped_profiles
from chip.quantise import CLIP_FRACTIONS, FloatLayer, QuantisedLayer, chain, float_layers, quantise
from chip.report import report
from stream.errors import CapacityError, ConfigError
from stream.packet import PHASE_DTYPE, SPIKE_DTYPE

PROFILE = load_profile("tianjic-2019")


def random_network(rng, sizes):
    layers = []
    for k, (n_pre, n_post) in enumerate(pairwise(sizes)):
        weight = rng.integers(-127, 128, (n_pre, n_post)).astype(np.int8)
        last = k == len(sizes) - 2
        layers.append(
            QuantisedLayer(weight, 1.0, int(rng.integers(200, 257)), None if last else int(rng.integers(300)))
        )
    return layers


def run_whole(layers, inputs):
    """Run a network unsplit, in NumPy integers. ``inputs``: bool (n_phases, n_in). A layer too wide is a phase late."""
    spikes_in, delay, found = inputs.astype(np.int64), 0, None
    n_phases = len(inputs)
    for k, layer in enumerate(layers):
        delay += (k > 0) + (layer.weight.shape[0] > 256)
        v = np.zeros(layer.weight.shape[1], np.int64)
        out = np.zeros((n_phases, len(v)), np.int64)
        for phase in range(n_phases - delay):
            v = v + spikes_in[phase] @ layer.weight.astype(np.int64)
            if layer.v_threshold is not None:
                out[phase] = v > layer.v_threshold
                v = v - layer.v_threshold * out[phase]
            v = (v * layer.alpha) // 256
            if layer.v_threshold is None:
                out[phase] = v
        if k == len(layers) - 2:
            found = [(phase + delay, int(unit)) for phase, unit in np.argwhere(out)]
        spikes_in = out
    return found, spikes_in.sum(axis=0), v


def run_grid(program, inputs):
    phase, unit = np.nonzero(inputs)
    incoming = np.zeros(len(unit), SPIKE_DTYPE)
    incoming["t"], incoming["unit"] = phase * 1000 + 7, unit
    spikes, rows, progress = np.empty(500_000, SPIKE_DTYPE), np.empty(100, PHASE_DTYPE), np.zeros(3, np.int64)
    state = new_state(program.grid, 1000, 1000)
    assert run_phases(program.grid, state, incoming, len(inputs) * 1000, True, spikes, rows, progress) == DONE
    found = [(int(t) // 1000 - 1, int(unit)) for t, unit in spikes[: progress[1]].tolist()]
    return found, state.score, state


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(5, 4, 3), (300, 20, 4), (20, 300, 10), (600, 270, 300, 5), (257, 3), (10, 513, 260, 2)]),
    st.integers(0, 2**32),
)
def test_split_and_placed_anyhow_equals_the_whole(sizes, seed):
    rng = np.random.default_rng(seed)
    layers = random_network(rng, sizes)
    inputs = rng.random((12, sizes[0])) < rng.choice([0.02, 0.3, 1.0])
    found, score, v = run_whole(layers, inputs)
    program = compile_network(chain(layers, PROFILE), PROFILE)
    places = rng.permutation(156)[: len(program.cores)]
    elsewhere = compile_network(chain(layers, PROFILE), PROFILE, [(int(k) % 12, int(k) // 12) for k in places])
    for compiled in (program, elsewhere):
        got_spikes, got_score, state = run_grid(compiled, inputs)
        if len(sizes) > 2:
            assert got_spikes == found
        assert got_score.tolist() == score.tolist()
        last = [k for k, part in enumerate(compiled.parts) if part.layer == len(layers) - 1 and part.holds_neurons]
        assert np.concatenate([probe(compiled.grid, state, k).v for k in last]).tolist() == v.tolist()


def test_digit_network_takes_ten_axon_groups():
    program = compile_network(chain(random_network(np.random.default_rng(0), (2312, 200, 10)), PROFILE), PROFILE)
    assert len(program.cores) == 12
    assert sum(not part.holds_neurons for part in program.parts) == 10
    assert program.grid.cores["value_bits"].tolist() == [24] * 10 + [28, 28]
    words = report(program)
    assert words["cores used"] == 12
    assert words["weight bytes used"] == 2312 * 200 + 200 * 10


def test_more_neurons_than_a_core_get_copies_of_every_spike():
    program = compile_network(chain(random_network(np.random.default_rng(0), (10, 300, 2)), PROFILE), PROFILE)
    _, _, state = run_grid(program, np.ones((1, 10), bool))
    assert state.totals["spikes_in"][0] == 20  # ten lines, two neuron groups


def test_reweighing_equals_compiling_anew():
    rng = np.random.default_rng(3)
    first, second = (chain(random_network(rng, (300, 270, 4)), PROFILE) for _ in range(2))
    program = compile_network(first, PROFILE)
    n_bytes = reweigh(program, second)
    anew = compile_network(second, PROFILE)
    for one, other in zip(program.grid, anew.grid, strict=True):
        assert np.array_equal(one, other)
    assert n_bytes == 300 * 270 + 270 * 4 + 3 * 16  # two groups of hidden neurons and the readout: three somas
    with pytest.raises(ConfigError, match="compile the network anew"):
        reweigh(program, chain(random_network(rng, (300, 269, 4)), PROFILE))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["normal", "cauchy"]))
def test_quantisation_minimises_the_squared_error(seed, kind):
    rng = np.random.default_rng(seed)
    weight = getattr(rng, f"standard_{kind}")((40, 9)).astype(np.float32)
    layer = quantise(FloatLayer(weight, 20_000.0, 1.5), 1000, PROFILE, "layer0")
    errors = {}
    for fraction in CLIP_FRACTIONS:
        scale = np.float32(127 / (float(np.abs(weight).max()) * fraction))
        integers = np.clip(np.floor(weight * scale + np.float32(0.5)), -127, 127)
        errors[float(scale)] = float((((integers - weight * scale) ** 2).astype(np.float64)).sum()) / float(scale) ** 2
        if float(scale) == layer.scale:
            assert np.array_equal(layer.weight, integers.astype(np.int8))
    assert errors[layer.scale] <= min(errors.values()) * (1 + 1e-5)
    assert layer.v_threshold == round(1.5 * layer.scale)
    assert layer.alpha == round(256 * math.exp(-1 / 20))


def test_no_leak_and_no_weights():
    layer = quantise(FloatLayer(np.zeros((3, 2), np.float32), 1e12, None), 1000, PROFILE, "layer0")
    assert layer.alpha == 256
    assert not layer.weight.any()
    program = compile_network(chain([layer], PROFILE), PROFILE)
    assert program.cores[0].soma.leak_mode == 0


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((30_000, 300, 10), "layer0: does not fit, the network takes"), ((10, 20_000, 20_000, 4), "layer1: does not fit")],
)
def test_too_large_a_network_names_the_layer(sizes, message):
    layers = [
        QuantisedLayer(np.broadcast_to(np.int8(1), shape), 1.0, 200, 5 if k < len(sizes) - 2 else None)
        for k, shape in enumerate(pairwise(sizes))
    ]
    with pytest.raises(CapacityError, match=message):
        compile_network(chain(layers, PROFILE), PROFILE)


def test_threshold_that_no_membrane_holds():
    with pytest.raises(CapacityError, match="layer3: threshold"):
        quantise(FloatLayer(np.full((2, 2), 1e-9, np.float32), 1e4, 1.0), 1000, PROFILE, "layer3")


def test_deploy_arrays_are_checked():
    good = {
        "layer0.weight": np.ones((4, 3), np.float32),
        "layer0.tau_mem_us": np.array(1e4),
        "layer0.v_threshold": np.array(1.0),
        "layer1.weight": np.ones((3, 2), np.float32),
        "layer1.tau_mem_us": np.array(1e4),
    }
    assert [layer.v_threshold for layer in float_layers(good)] == [1.0, None]
    bad = [
        ({"layer1.weight": np.ones((4, 2), np.float32)}, "4 rows, wanted 3"),
        ({"layer1.v_threshold": np.array(1.0)}, "the last layer, and only it"),
        ({"layer0.v_threshold": np.array(0.0)}, "wanted above 0"),
        ({"layer0.tau_mem_us": np.array(-1.0)}, "wanted a time above 0"),
        ({"layer0.weight": np.full((4, 3), np.nan, np.float32)}, "finite"),
    ]
    for change, message in bad:
        with pytest.raises(ConfigError, match=message):
            float_layers(good | change)
    with pytest.raises(ConfigError, match="wanted layer0"):
        float_layers({})


@pytest.mark.parametrize("name", shipped_profiles())
def test_every_number_of_a_profile_says_where_it_comes_from(name):
    profile = load_profile(name)
    for field in set(profile.__struct_fields__) - {"name"}:
        quantity = getattr(profile, field)
        assert len(quantity.source) > 10, field
        assert (quantity.value == 0) >= (quantity.confidence == "unknown"), field
    assert profile.name == name
    assert profile.n_cores == {"tianjic-2019": 156, "tianjicx": 160}[name]
    assert profile.shortest_phase_us == {"tianjic-2019": 17, "tianjicx": 1}[name]


def test_the_larger_core_of_the_other_profile_holds_a_layer_whole():
    layers = random_network(np.random.default_rng(5), (600, 200, 10))
    profile = load_profile("tianjicx")
    program = compile_network(chain(layers, profile), profile)
    assert len(program.cores) == 2  # 600 x 200 bytes fit one core of 144 KiB
    inputs = np.random.default_rng(6).random((9, 600)) < 0.1
    found, score, _ = run_grid(program, inputs)
    # the same network over ten small cores is a phase later, and says the same
    later, _, _ = run_grid(
        compile_network(chain(layers, PROFILE), PROFILE), np.concatenate([inputs, np.zeros((1, 600), bool)])
    )
    assert [(phase + 1, unit) for phase, unit in found if phase < 9] == [pair for pair in later if pair[0] < 10]
    assert len(found) > 20
    assert score.any()
    assert "estimated power low mW" not in report(program)  # nothing public


def test_profiles_are_strict(tmp_path):
    mine = tmp_path / "mine.toml"
    shipped = (Path(chip.profile.__file__).parent / "profiles" / "tianjic-2019.toml").read_text()
    mine.write_text(shipped)
    assert load_profile(mine) == PROFILE
    for old, new, message in [
        ("[payload_bits]", "[payload_bites]", "unknown field"),
        ("value = 5050", 'value = "many"', "Expected `int`"),
        ('confidence = "chosen"', 'confidence = "sure"', "Invalid enum value"),
        ("value = [8]", "value = [20]", "table_address_bits"),
        ("value = 8\n", "value = 4\n", "weight_bits is 4, wanted 8"),
    ]:
        mine.write_text(shipped.replace(old, new, 1))
        with pytest.raises(ConfigError, match=message):
            load_profile(mine)
    with pytest.raises(ConfigError, match="wanted one of tianjic-2019, tianjicx, or the path"):
        load_profile("loihi")
