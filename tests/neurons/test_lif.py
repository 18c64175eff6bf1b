"""The plain layer against plain Python and closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.lif import LIF, LIFParams, LIFState, lif_run
from stream.errors import ConfigError, StreamError
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE

WIDTH, HEIGHT, N_POST = 4, 3, 9
HOUR_US = 3600 * 10**6


def random_events(rng: np.random.Generator, n: int, gap_us: int = 3000, start_us: int = 0) -> np.ndarray:
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = start_us + np.cumsum(rng.integers(0, gap_us, n))
    events["x"], events["y"] = rng.integers(0, WIDTH, n), rng.integers(0, HEIGHT, n)
    events["p"] = rng.integers(0, 2, n)
    return events


def random_layer(seed: int) -> LIF:
    weight = np.random.default_rng(seed).normal(0.1, 0.4, (WIDTH * HEIGHT * 2, N_POST))
    return LIF(weight, width=WIDTH, height=HEIGHT, tau_mem_us=15_000.0)


def reference(layer: LIF, events: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Say it one number at a time, in float32."""
    weight, tau_us = layer.params.weight, float(layer.params.tau_mem_us[0])
    v = [np.float32(0)] * N_POST
    t_v = 0
    spikes = []
    for t, x, y, p in events.tolist():
        decay = np.float32(math.exp(-(t - t_v) / tau_us))
        t_v = t
        for j in range(N_POST):
            v[j] = v[j] * decay + weight[(y * WIDTH + x) * 2 + p, j]
            if abs(v[j]) <= 1e-30:
                v[j] = np.float32(0)
            if v[j] > 1:
                v[j] -= np.float32(1)
                spikes.append((t, j))
    return spikes, np.array(v)


@pytest.mark.parametrize("seed", range(3))
def test_equals_plain_python_bit_for_bit(seed: int) -> None:
    layer = random_layer(seed)
    events = random_events(np.random.default_rng(seed + 10), 400)
    want, v = reference(layer, events)
    assert layer.run(events).tolist() == want
    assert len(want) > 50
    assert np.array_equal(layer.state.v, v)


def test_membrane_decays_as_its_equation_says_for_any_gap() -> None:
    weight = np.zeros((2, 1))
    weight[0, 0] = 0.8
    for gap_us in (1, 75, 20_000, 300_000, HOUR_US, 30 * HOUR_US):
        layer = LIF(weight, width=1, height=1)
        layer.run(np.array([(7, 0, 0, 0), (7 + gap_us, 0, 0, 1)], EVENT_DTYPE))
        assert layer.state.v[0] == pytest.approx(0.8 * math.exp(-gap_us / 20_000), rel=3e-7, abs=1e-30)


def test_threshold_is_strict_and_reset_soft() -> None:
    weight = np.array([[1.0, 1.25, 3.5], [0, 0, 0]])
    layer = LIF(weight, width=1, height=1)
    assert layer.run(np.array([(0, 0, 0, 0)], EVENT_DTYPE)).tolist() == [(0, 1), (0, 2)]
    assert layer.state.v.tolist() == [1.0, 0.25, 2.5]


def test_start_of_the_clock_changes_no_bit() -> None:
    events = random_events(np.random.default_rng(5), 500)
    late = events.copy()
    late["t"] += 10**10
    layer, later = random_layer(5), random_layer(5)
    spikes, late_spikes = layer.run(events), later.run(late)
    assert len(spikes) > 50
    assert np.array_equal(spikes["unit"], late_spikes["unit"])
    assert np.array_equal(spikes["t"] + 10**10, late_spikes["t"])
    assert np.array_equal(layer.state.v, later.state.v)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=8))
def test_cut_anywhere(cuts: list[int]) -> None:
    events = random_events(np.random.default_rng(6), 300)
    whole, parted = random_layer(6), random_layer(6)
    want = whole.run(events)
    got = np.concatenate([parted.run(part) for part in np.split(events, sorted(cuts))])
    assert np.array_equal(got, want)
    assert np.array_equal(parted.state.v, whole.state.v)


def test_no_room_for_spikes_pauses_and_loses_nothing() -> None:
    layer, other = random_layer(7), random_layer(7)
    events = random_events(np.random.default_rng(7), 300)
    want = layer.run(events)
    events.flags.writeable = False
    fired, room = np.zeros(N_POST, np.int64), np.zeros(N_POST + 1, SPIKE_DTYPE)
    got, k = [], 0
    while k < len(events):
        k, n = lif_run(other.params, other.state, events, k, WIDTH, fired, room)
        got += room[:n].tolist()
    assert got == want.tolist()


def test_no_denormals_after_long_silence_of_a_unit() -> None:
    """A unit without a weight decays at every event and would end in the denormal numbers."""
    weight = np.array([[0.5, 0.0], [0.5, 0.0]])
    layer = LIF(weight, width=1, height=1)
    layer.state.v[:] = 0.9
    events = np.zeros(4000, EVENT_DTYPE)
    events["t"] = np.arange(4000) * 500
    layer.run(events)
    assert layer.state.v[1] == 0.0
    assert abs(layer.state.v[0]) > np.finfo(np.float32).tiny


def test_float64_runs_through_the_same_kernel() -> None:
    params = LIFParams(np.array([[0.1], [0.0]]), np.array([20_000.0]), np.array([1.0]))
    state = LIFState(np.zeros(1), np.zeros(1, np.int64))
    events = np.array([(0, 0, 0, 0), (1000, 0, 0, 1)], EVENT_DTYPE)
    events.flags.writeable = False
    lif_run(params, state, events, 0, 1, np.zeros(1, np.int64), np.zeros(4, SPIKE_DTYPE))
    assert state.v[0] == 0.1 * math.exp(-1000 / 20_000)


def test_faults_are_named_and_change_nothing() -> None:
    with pytest.raises(ConfigError, match=r"got shape \(5, 9\), wanted \(24, n_post\)"):
        LIF(np.zeros((5, 9)), width=WIDTH, height=HEIGHT)
    with pytest.raises(ConfigError, match="tau_mem_us: got 0"):
        LIF(np.zeros((24, 9)), width=WIDTH, height=HEIGHT, tau_mem_us=0)
    layer = random_layer(8)
    layer.run(random_events(np.random.default_rng(8), 50))
    before = layer.state.v.copy()
    with pytest.raises(StreamError, match="x=4"):
        layer.run(np.array([(10**7, 4, 0, 0)], EVENT_DTYPE))
    assert np.array_equal(layer.state.v, before)
