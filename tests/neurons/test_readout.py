"""The readout against closed forms."""

import math

import numpy as np
import pytest

from neurons.readout import ReadoutParams, ReadoutState, readout_advance, readout_spike

HOUR_US = 3600 * 10**6


def new(weight: np.ndarray, tau_us: float, real: type = np.float64) -> tuple[ReadoutParams, ReadoutState]:
    n = weight.shape[1]
    return (
        ReadoutParams(weight.astype(real), np.array([tau_us], real)),
        ReadoutState(np.zeros(n, real), np.zeros(n), np.zeros(1, np.int64)),
    )


def test_average_equals_the_sum_over_small_steps() -> None:
    rng = np.random.default_rng(0)
    params, state = new(rng.normal(size=(3, 2)), 4000.0)
    spikes = [(100, 0), (100, 2), (900, 1), (5000, 0), (5001, 0)]
    for t, j in spikes:
        readout_spike(params, state, j, t)
    readout_advance(params, state, 20_000)
    # every microsecond is passed in ten steps, by their middles
    t = np.arange(0, 20_000, 0.1) + 0.05
    o = sum(np.outer((t > s) * np.exp(-np.maximum(t - s, 0) / 4000.0), params.weight[j]) for s, j in spikes)
    assert state.integral_us == pytest.approx(o.sum(0) * 0.1, rel=1e-8)


@pytest.mark.parametrize("gap_us", [1, 50, 60_000, HOUR_US, 100 * HOUR_US])
def test_closed_form_for_any_gap_in_float32(gap_us: int) -> None:
    params, state = new(np.array([[2.0, -1.0]]), 60_000.0, np.float32)
    readout_spike(params, state, 0, 10**10)
    readout_advance(params, state, 10**10 + gap_us)
    want = -60_000.0 * math.expm1(-gap_us / 60_000.0)
    assert state.integral_us == pytest.approx([2 * want, -want], rel=1e-12)
    assert state.o == pytest.approx(np.array([2.0, -1.0]) * math.exp(-gap_us / 60_000.0), rel=3e-7, abs=1e-30)


def test_pausing_on_the_way_changes_next_to_nothing() -> None:
    params, state = new(np.array([[2.0]]), 60_000.0)
    params_2, state_2 = new(np.array([[2.0]]), 60_000.0)
    readout_spike(params, state, 0, 0)
    readout_spike(params_2, state_2, 0, 0)
    for t in range(0, 100_000, 1000):
        readout_advance(params, state, t)
    readout_advance(params, state, 100_000)
    readout_advance(params_2, state_2, 100_000)
    assert state.integral_us == pytest.approx(state_2.integral_us, rel=1e-12)


def test_no_denormals_after_long_silence() -> None:
    params, state = new(np.array([[1.0]]), 1000.0, np.float32)
    readout_spike(params, state, 0, 0)
    for t in range(0, 200_000, 500):
        readout_advance(params, state, t)
    assert state.o[0] == 0.0
