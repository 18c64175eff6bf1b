"""The fast loops against plain Python, and against the engine's own slow way."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.convolution import Convolution, window_shape
from neurons.dense import Dense
from neurons.front import decay_of, decay_table, flush_shift
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.integrate_fire import IntegrateFireUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits, next_above
from neurons.network import Network
from neurons.sparse import sparse_of
from stream.jit import kernel
from stream.lanes import (
    above_16,
    above_64,
    add_16,
    add_64,
    add_256,
    dot,
    integrate_4,
    integrate_16,
    integrate_64,
    lowest_bit,
    sum_16,
    sum_64,
    sum_256,
)
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE, Reset


@kernel
def call_4(v: Any, j: int, factor: Any, weight: Any, at: int, threshold: Any, down: Any, is_hard: bool) -> int:
    return integrate_4(v, j, factor, weight, at, threshold, down, is_hard)


@kernel
def call_16(v: Any, j: int, factor: Any, weight: Any, at: int, threshold: Any, down: Any, is_hard: bool) -> int:
    return integrate_16(v, j, factor, weight, at, threshold, down, is_hard)


@kernel
def call_64(v: Any, j: int, factor: Any, weight: Any, at: int, threshold: Any, down: Any, is_hard: bool) -> int:
    return integrate_64(v, j, factor, weight, at, threshold, down, is_hard)


@kernel
def call_sum_16(v: Any, f: Any, row: Any, places: Any, m: int, scale: Any, at: int, theta: Any, masks: Any) -> int:
    return sum_16(v, 2, f, row, places, m, scale, at, theta, masks)


@kernel
def call_sum_64(v: Any, f: Any, row: Any, places: Any, m: int, scale: Any, at: int, theta: Any, masks: Any) -> int:
    return sum_64(v, 2, f, row, places, m, scale, at, theta, masks)


@kernel
def call_sum_256(v: Any, f: Any, row: Any, places: Any, m: int, scale: Any, at: int, theta: Any, masks: Any) -> int:
    return sum_256(v, 2, f, row, places, m, scale, at, theta, masks)


@kernel
def call_add(n: int, out: Any, begin: Any, row: Any, which: Any, first: int, last: int, stride: int, at: int) -> None:
    if n == 256:
        add_256(out, begin, row, which, first, last, stride, at)
    elif n == 64:
        add_64(out, begin, row, which, first, last, stride, at)
    else:
        add_16(out, begin, row, which, first, last, stride, at)


@kernel
def call_above(n: int, v: Any, j: int, threshold: Any) -> int:
    return above_64(v, j, threshold) if n == 64 else above_16(v, j, threshold)


@kernel
def call_decay(table: Any, tau_us: float, dt_us: int) -> float:
    return decay_of(table, tau_us, dt_us)


@kernel
def call_dot(left: Any, right: Any, n: int) -> float:
    return dot(left, right, n)


@kernel
def call_lowest(mask: int) -> int:
    return lowest_bit(mask)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([4, 16, 64]),
    st.integers(0, 5),
    st.integers(0, 5),
    st.floats(0, 1),
    st.floats(0, 2),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_lanes_are_the_loop(
    real: Any, n: int, j: int, at: int, factor: float, threshold: float, is_hard: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    v, weight = rng.normal(0, 1, 80).astype(real), rng.normal(0, 1, 80).astype(real)
    f, theta, down = real(factor), real(threshold), real(0.7)
    want, mask = v.copy(), 0
    for lane in range(n):
        u = v[j + lane] * f + weight[at + lane]
        if u > theta:
            mask |= 1 << lane
            u = down if is_hard else u - down
        want[j + lane] = u
    got = {4: call_4, 16: call_16, 64: call_64}[n](v, j, f, weight, at, theta, down, is_hard)
    assert got % 2**64 == mask
    assert np.array_equal(v, want)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([16, 64, 256]),
    st.sampled_from([1, 2, 9, 64, 256]),
    st.integers(0, 5),
    st.floats(0, 1),
    st.sampled_from([0.5, 3.0, 40.0]),
    st.integers(0, 2**32),
)
def test_sums_are_the_loop(real: Any, n: int, m: int, at: int, factor: float, threshold: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    v, scale = rng.normal(0, 1, 300).astype(real), rng.uniform(0.01, 0.03, 300).astype(real)
    row, places = rng.integers(-127, 128, 2000).astype(np.int8), rng.integers(0, 1600, m)
    if rng.random() < 0.2:
        row[:] = -127 if rng.random() < 0.5 else 127  # as far as sums can go
    f, theta = real(factor), real(threshold)
    want, above = v.copy(), []
    for lane in range(n):
        sums = np.cumsum(row[places + at + lane].astype(np.int64))
        u = v[2 + lane] * f
        is_above = any(u + scale[at + lane] * real(total) > theta for total in sums)  # each of them, not the highest
        above.append(is_above)
        if not is_above:
            want[2 + lane] = u + scale[at + lane] * real(sums[-1])
    masks = np.zeros(4, np.int64)
    call = {16: call_sum_16, 64: call_sum_64, 256: call_sum_256}[n]
    assert (call(v, f, row, places, m, scale, at, theta, masks) != 0) == any(above)
    assert [bool(int(masks[lane // 64]) >> lane % 64 & 1) for lane in range(n)] == above
    assert np.array_equal(v, want)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([16, 64, 256]),
    st.sampled_from([0, 1, 25, 255, 256]),
    st.integers(0, 3),
    st.integers(0, 5),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_added_rows_are_the_loop(n: int, m: int, first: int, at: int, in_place: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stride, n_rows = n + 5, 40
    row = rng.integers(-128, 128, n_rows * stride).astype(np.int8)
    if rng.random() < 0.3:
        row[:] = -128 if rng.random() < 0.5 else 127  # as far as sums can go
    which = rng.integers(0, n_rows, first + m).astype(np.int32)
    begin = rng.integers(-(2**30), 2**30, n + 10).astype(np.int32)
    out = begin if in_place else np.full(n + 10, 7, np.int32)
    want = out.copy()
    want[at : at + n] = begin[at : at + n] + row.reshape(n_rows, stride)[which[first:], at : at + n].astype(int).sum(0)
    call_add(n, out, begin, row, which, first, first + m, stride, at)
    assert np.array_equal(out, want)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([np.float32, np.float64]), st.sampled_from([16, 64]), st.integers(0, 9), st.integers(0, 2**32))
def test_who_is_above_is_the_loop(real: Any, n: int, j: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    v = rng.choice([-1.0, 0.5, np.nextafter(real(0.5), real(1)), 2.0, np.nan], 80).astype(real)
    want = sum(1 << lane for lane in range(n) if v[j + lane] > 0.5)
    assert call_above(n, v, j, real(0.5)) % 2**64 == want


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 3), st.integers(0, 2**32))
def test_the_next_one_above_is_the_first(first: int, length: int, n_above: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    v = np.zeros(400, np.float32)
    v[rng.integers(0, 400, n_above)] = 1.0
    want = [j for j in range(first, first + length) if v[j] > 0.5]
    assert next_above(v, first, first + length, 0.5) == min(want, default=first + length)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([np.float32, np.float64]), st.integers(0, 200), st.integers(0, 2**32))
def test_dot_is_the_loop(real: Any, n: int, seed: int) -> None:
    """In the order that is told: 32 lanes, folded in halves, then the rest one after the other."""
    rng = np.random.default_rng(seed)
    left, right = rng.normal(0, 1, (2, 210)).astype(real)
    lanes = np.zeros(32, real)
    for first in range(0, n - 31, 32):
        lanes += left[first : first + 32] * right[first : first + 32]
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    want = lanes[0]
    for k in range(n - n % 32, n):
        want += left[k] * right[k]
    assert call_dot(left, right, n) == want
    assert want == pytest.approx(float(left[:n].astype(float) @ right[:n].astype(float)), abs=1e-4)


@given(st.integers(-(2**63), 2**63 - 1))
def test_lowest_bit(mask: int) -> None:
    bits = [k for k in range(64) if (mask % 2**64) >> k & 1]
    assert call_lowest(mask) == min(bits, default=64)


@settings(deadline=None)
@given(
    st.floats(1e-3, 1e9),
    st.one_of(st.integers(0, 3000), st.integers(2**20 - 5, 2**20 + 5), st.integers(0, 2**20), st.integers(0, 2**60)),
)
def test_decay_is_the_exponential(tau_us: float, dt_us: int) -> None:
    want = math.exp(-dt_us / tau_us)
    # the rounding of dt / tau counts as much in both
    assert call_decay(decay_table(tau_us), tau_us, dt_us) == pytest.approx(want, rel=1e-15 * max(dt_us / tau_us, 2))
    assert call_decay(decay_table(math.inf), math.inf, dt_us) == 1.0


@given(st.floats(1e-3, 1e12))
def test_what_is_flushed_in_time_never_gets_denormal(tau_us: float) -> None:
    shift = flush_shift(tau_us)
    assert shift == 0 or 1e-30 * math.exp(-(2.0**shift) / tau_us) > np.finfo(np.float32).tiny
    assert shift == 62 or 2.0 ** (shift + 1) > 16 * tau_us


def items_of(rng: np.random.Generator, n: int, n_units: int, gap_us: int) -> np.ndarray:
    """Draw spikes with gaps of all lengths, many at the same time."""
    items = np.zeros(n, SPIKE_DTYPE)
    gap = np.where(rng.random(n) < 0.3, 0, rng.integers(0, gap_us, n))
    gap[rng.random(n) < 0.01] *= 10_000
    items["t"] = np.cumsum(gap)
    items["unit"] = rng.integers(0, n_units, n)
    return items


def visible(network: Network) -> np.ndarray:
    """Return the potentials; what is below 1e-30 may be 0 or not yet."""
    v = network.state.v
    return np.where(np.abs(v) < 1e-29, 0, v)


MODELS = {
    "soft": LIFUnits(tau_mem_us=400.0),
    "hard": LIFUnits(tau_mem_us=400.0, reset="hard", v_reset=-0.3),
    "soft, held": LIFUnits(tau_mem_us=300.0, refractory_us=70),
    "hard, held": LIFUnits(tau_mem_us=300.0, refractory_us=1000, reset="hard"),
    "no leak": IntegrateFireUnits(v_reset=-0.1),
}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(MODELS)),
    st.one_of(st.integers(1, 24), st.sampled_from([63, 64, 83, 150])),
    st.booleans(),
    st.sampled_from(["nothing", "readout", "readouts", "feedback"]),
    st.sampled_from([0.02, 0.2, 0.6]),
    st.sampled_from([3, 40, 3000]),
    st.lists(st.integers(0, 600), max_size=6),
    st.integers(0, 2**32),
)
def test_the_fast_loops_change_no_bit(
    name: str, n: int, is_dense: bool, behind: str, gain: float, gap_us: int, cuts: list[int], seed: int
) -> None:
    """A second way in, without a synapse, keeps a network out of the fast loops."""
    rng = np.random.default_rng(seed)
    model = MODELS[name]
    topology: Any
    if is_dense:
        shape: tuple[int, ...] = (n,)
        topology = Dense(rng.normal(0, gain, (5 * 7 * 3, n)))
    else:
        stride, padding = (
            (int(rng.integers(1, 4)), int(rng.integers(1, 4))),
            (int(rng.integers(3)), int(rng.integers(3))),
        )
        shape = (*window_shape((5, 7, 3), (3, 2), stride, padding), n)
        topology = Convolution(rng.normal(0, gain, (3, 2, 3, n)), stride, padding)
    n_units = math.prod(shape)
    populations = [Population("a", model, shape)]
    projections = [Projection(INPUT, "a", topology)]
    if behind.startswith("readout"):
        for k in range(2 if behind == "readouts" else 1):
            populations.append(Population(f"r{k}", LeakyIntegratorUnits(300.0 + k), (4,)))
            projections.append(Projection("a", f"r{k}", Dense(rng.normal(0, 0.3, (n_units, 4)))))
    if behind == "feedback":
        populations.append(Population("b", LIFUnits(300.0), (4,)))
        projections.append(Projection("a", "b", Dense(rng.normal(0, 0.3, (n_units, 4)))))
        projections.append(Projection("b", "a", sparse_of(-np.abs(rng.normal(0, 0.2, (4, n_units)))), 30))
    nothing = Projection(INPUT, "a", sparse_of(np.zeros((105, n_units))))
    items = items_of(rng, 600, 105, gap_us)
    fast, parted = (Network.of(Graph((5, 7, 3), populations, projections)) for _ in range(2))
    slow = Network.of(Graph((5, 7, 3), populations, [*projections, nothing]))
    assert (fast._program.front, slow._program.front) == (0, -1)
    for network in (fast, parted, slow):
        network.on_mark("spikes", Reset(0), lambda port, message: None)
    want, got = slow.run(items), fast.run(items)
    parts: dict[str, list[np.ndarray]] = {population: [] for population in want}
    for part in np.split(items, sorted(cuts)):
        for population, spikes in parted.run(part).items():
            parts[population].append(spikes)
    for population, spikes in want.items():
        assert np.array_equal(got[population], spikes)
        assert np.array_equal(np.concatenate(parts[population]), spikes)
    assert np.array_equal(visible(fast), visible(slow))
    assert np.array_equal(fast.state.integral_us, slow.state.integral_us)
    for array in ("v", "integral_us", "held_us", "t_us"):
        assert np.array_equal(getattr(parted.state, array), getattr(fast.state, array))
    assert (
        parted.statistics()
        == fast.statistics()
        == slow.statistics() | {"deliveries": slow.statistics()["deliveries"] - 600}
    )


def test_the_fast_loops_are_entered_and_left() -> None:
    """The cases above are not all silent, nor all noise: what they draw lies on both sides of four at once."""
    rng = np.random.default_rng(0)
    rates = []
    for gain in (0.02, 0.2, 0.6):
        graph = Graph(
            (105,),
            [Population("a", MODELS["soft"], (83,))],
            [Projection(INPUT, "a", Dense(rng.normal(0, gain, (105, 83))))],
        )
        items = items_of(rng, 600, 105, 40)
        rates.append(len(np.unique(Network.of(graph).run(items)["a"]["t"])) / 600)
    assert rates[0] == 0
    assert 0.01 < rates[1] < 0.9
    assert rates[2] > 0.4


@pytest.mark.parametrize("is_dense", [False, True])
def test_a_small_room_pauses_and_loses_nothing(is_dense: bool) -> None:
    rng = np.random.default_rng(1)
    topology: Any = (
        Dense(rng.normal(0.1, 0.6, (50, 30))) if is_dense else Convolution(rng.normal(0.1, 0.6, (3, 3, 2, 10)))
    )
    shape = (30,) if is_dense else (3, 3, 10)
    graph = Graph(
        (5, 5, 2) if not is_dense else (50,),
        [Population("a", LIFUnits(400.0), shape)],
        [Projection(INPUT, "a", topology)],
    )
    wide, narrow = Network.of(graph), Network.of(graph)
    narrow._out = narrow._out[: math.prod(shape) + 3].copy()
    items: Any = items_of(rng, 500, 50, 40)
    if not is_dense:
        events = np.zeros(len(items), EVENT_DTYPE)
        unit = items["unit"].astype(np.int64)
        events["t"], events["x"], events["y"], events["p"] = items["t"], unit // 2 % 5, unit // 2 // 5, unit % 2
        items = events
    want, got = wide.run(items)["a"], narrow.run(items)["a"]
    assert len(want) > 500
    assert np.array_equal(got, want)
    assert np.array_equal(wide.state.v, narrow.state.v)


def test_silence_leaves_no_denormals_in_the_fast_loops() -> None:
    weight = np.zeros((2, 20))
    weight[0] = 0.5
    graph = Graph(
        (2,), [Population("one", LIFUnits(tau_mem_us=100.0), (20,))], [Projection(INPUT, "one", Dense(weight))]
    )
    network = Network.of(graph)
    assert network._program.front == 0
    network.run(np.array([(0, 0)], SPIKE_DTYPE))
    for t in range(10, 30_000, 10):
        network.run(np.array([(t, 1)], SPIKE_DTYPE))
        v = network.state.v
        assert np.all((v == 0) | (np.abs(v) > np.finfo(np.float32).tiny))
    assert np.all(v == 0)
