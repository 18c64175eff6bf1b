"""The plastic network and Adam against plain Python."""

import math

import numpy as np
import pytest

from plasticity.adam import adam_step, new_adam
from plasticity.layer import tanh_rational
from plasticity.network import NetworkParams, NetworkState, network_run, new_network, new_state, new_tape
from stream.jit import kernel
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE

WIDTH, HEIGHT, N_HIDDEN, N_CLASSES = 4, 3, 9, 3
N_PRE = WIDTH * HEIGHT * 2


@kernel
def tanh_all(x: np.ndarray, out: np.ndarray) -> None:
    for k in range(len(x)):
        out[k] = tanh_rational(x[k])


@pytest.mark.parametrize(("real", "error"), [(np.float64, 2e-10), (np.float32, 4e-7)])
def test_tanh(real: type, error: float) -> None:
    x = np.concatenate([np.linspace(-40, 40, 80_001), np.geomspace(1e-30, 1, 2001), [0.0, 1e30, -1e30]]).astype(real)
    got = np.empty_like(x)
    tanh_all(x, got)
    want = np.array([math.tanh(float(one)) for one in x])
    assert np.abs(got - want).max() < error
    small = (np.abs(x) < 1) & (x != 0)
    assert np.abs(got[small] / want[small] - 1).max() < error  # relative: exact slope at 0
    assert np.abs(got).max() <= 1 + np.finfo(real).eps
    assert np.array_equal(got[80_001:-3][::-1], -np.array([tanh_rational(-one) for one in x[80_001:-3]])[::-1])


def network(seed: int, real: type = np.float32) -> tuple[NetworkParams, NetworkState]:
    rng = np.random.default_rng(seed)
    params = new_network(
        rng.normal(0.1, 0.4, (N_PRE, N_HIDDEN)).astype(real),
        rng.normal(0, 0.5, (N_HIDDEN, N_CLASSES)).astype(real),
        mixing=0.5,
        local_rate=0.0,
        sliding_threshold=0.0,
        tau_hebb_us=80_000.0,
        tau_mem_us=15_000.0,
        tau_readout_us=40_000.0,
        v_threshold=1.0,
        hebb_max=0.2,
    )
    params.hidden.local_rate[:] = rng.normal(0.05, 0.05, N_PRE)
    params.hidden.sliding_threshold[:] = rng.normal(0.1, 0.2, N_HIDDEN)
    return params, new_state(params, is_plastic=True)


def random_events(seed: int, n: int, gap_us: int = 3000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.cumsum(rng.integers(0, gap_us, n))
    events["x"], events["y"] = rng.integers(0, WIDTH, n), rng.integers(0, HEIGHT, n)
    events["p"] = rng.integers(0, 2, n)
    events.flags.writeable = False
    return events


def run(
    params: NetworkParams, state: NetworkState, events: np.ndarray, *, is_plastic: bool = True, room: int = 10_000
) -> tuple[np.ndarray, int]:
    tape = new_tape(params, len(events), is_plastic=is_plastic)
    fired, spikes = np.zeros(N_HIDDEN, np.int64), np.zeros(room, SPIKE_DTYPE)
    got, k, n_taped, calls = [], 0, 0, 0
    while k < len(events):
        is_taping = calls % 2 == 0 or room >= 10_000
        k, n, n_taped = network_run(
            params, state, is_plastic, events, k, 2**62, WIDTH, tape, n_taped, is_taping, fired, spikes
        )
        got.append(spikes[:n].copy())
        calls += 1
    return np.concatenate(got), calls


def reference(
    params: NetworkParams, events: np.ndarray, real: type, is_plastic: bool
) -> tuple[list[tuple[int, int]], np.ndarray, np.ndarray, np.ndarray]:
    """Say it one number at a time, with the library's tanh."""
    p = params.hidden
    tau_m, tau_h, tau_o = float(p.tau_mem_us[0]), float(p.tau_hebb_us[0]), float(params.readout.tau_mem_us[0])
    v, t_v = np.zeros(N_HIDDEN, real), 0
    h, t_h = np.zeros((N_PRE, N_HIDDEN), real), [0] * N_PRE
    o, t_o = np.zeros(N_CLASSES, real), 0
    spikes = []
    for t, x, y, polarity in events.tolist():
        i = (y * WIDTH + x) * 2 + polarity
        decay_v, decay_h = real(math.exp(-(t - t_v) / tau_m)), real(math.exp(-(t - t_h[i]) / tau_h))
        t_v = t_h[i] = t
        for j in range(N_HIDDEN):
            before = h[i, j] * decay_h
            hebb = p.mixing[0] * before if is_plastic else real(0)
            u = v[j] * decay_v + (p.weight[i, j] + hebb)
            z = real(math.tanh(u / p.v_threshold[0] - p.sliding_threshold[j]))
            h[i, j] = min(max(before + p.local_rate[i] * z, -p.hebb_max[0]), p.hebb_max[0])
            fires = u > p.v_threshold[0]
            v[j] = u - p.v_threshold[0] if fires else u
            if fires:
                o = o * real(math.exp(-(t - t_o) / tau_o)) + params.readout.weight[j]
                t_o = t
                spikes.append((t, j))
    return spikes, v, h, o


@pytest.mark.parametrize("is_plastic", [True, False])
@pytest.mark.parametrize(("real", "error"), [(np.float32, 2e-5), (np.float64, 1e-8)])
def test_network_equals_plain_python(is_plastic: bool, real: type, error: float) -> None:
    params, _ = network(1, real)
    state = new_state(params, is_plastic=is_plastic)
    events = random_events(1, 400)
    want, v, h, o = reference(params, events, real, is_plastic)
    got, _ = run(params, state, events, is_plastic=is_plastic)
    assert got.tolist() == want
    assert len(want) > 100
    assert state.hidden.v == pytest.approx(v, abs=error)
    assert state.readout.o == pytest.approx(o, abs=error)
    if is_plastic:
        assert state.hidden.hebb == pytest.approx(h, abs=error)
        assert (np.abs(h) == params.hidden.hebb_max[0]).sum() > 5  # the bound was met
    else:
        assert np.array_equal(state.readout.o, o)  # no tanh: the same bits
        assert np.array_equal(state.hidden.v, v)


def test_tape_and_pauses_change_no_bit() -> None:
    events = random_events(2, 400)
    params, state = network(2)
    _, other = network(2)
    want, calls = run(params, state, events)
    got, other_calls = run(params, other, events, room=N_HIDDEN + 2)
    assert (calls, other_calls > 10) == (1, True)
    assert np.array_equal(got, want)
    for a, b in zip((*state.hidden, *state.readout), (*other.hidden, *other.readout), strict=True):
        assert np.array_equal(a, b)


def test_hebb_of_a_row_decays_alone_for_hours() -> None:
    params, state = network(3)
    params.hidden.local_rate[:] = 0
    state.hidden.hebb[:] = 0.1
    events = np.zeros(1, EVENT_DTYPE)
    events["t"] = 7 * 3600 * 10**6
    events.flags.writeable = False
    run(params, state, events)
    assert not state.hidden.hebb[0].any()
    assert (state.hidden.hebb[1:] == np.float32(0.1)).all()


def test_no_denormals_after_long_silence() -> None:
    params, state = network(4)
    params.hidden.weight[:] = 0
    params.hidden.local_rate[:] = 0
    state.hidden.v[:] = 0.9
    state.hidden.hebb[:] = 0.1
    params.hidden.mixing[:] = 0
    events = np.zeros(6000, EVENT_DTYPE)
    events["t"] = np.arange(6000) * 2000
    events.flags.writeable = False
    run(params, state, events)
    assert not state.hidden.v.any()
    assert not state.hidden.hebb[0].any()


def test_adam_equals_its_paper_and_holds_bounds() -> None:
    rng = np.random.default_rng(0)
    p, state = np.array([1.0, 20_000.0, -3.0]), new_adam(np.zeros(3))
    want, m, v = p.copy(), np.zeros(3), np.zeros(3)
    for step in range(1, 30):
        sums = rng.normal(size=3)
        g = sums / 4 * 2.0
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        want -= 0.01 * 2.0 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        gradient = sums.copy()
        adam_step(p, gradient, state, step, 0.01, 2.0, 0.25, -np.inf, np.inf)
        assert not gradient.any()
    assert p == pytest.approx(want, rel=1e-12)
    for _ in range(2000):
        adam_step(p, np.ones(3), state, 10**6, 1.0, 20.0, 1.0, 1000.0, 30_000.0)
    assert (p == 1000.0).all()


def test_adam_keeps_no_denormals() -> None:
    p = np.zeros(1, np.float32)
    state = new_adam(p)
    adam_step(p, np.ones(1, np.float32), state, 1, 1e-3, 1.0, 1.0, -1.0, 1.0)
    for step in range(2, 2000):
        adam_step(p, np.zeros(1, np.float32), state, step, 1e-3, 1.0, 1.0, -1.0, 1.0)
    assert state.mean[0] == 0.0
