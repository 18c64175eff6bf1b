"""The Hebbian rule: its tanh, and long silences. Its equations are tested with those of all rules (``test_rules``)."""

import math
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.integrate_fire import IntegrateFireUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import Network
from neurons.program import FIRED_DTYPE
from neurons.sparse import sparse_of
from plasticity.hebbian import (
    ADD,
    BLEND,
    LINEAR,
    MASK,
    TANH,
    Hebbian,
    hebbian_read,
    hebbian_read_one,
    hebbian_write,
    hebbian_write_one,
    tanh_all,
)
from plasticity.hebbian_lanes import (
    SMALL_SQUARE,
    _plain,
    kind_of,
    learn_16,
    learn_64,
    most_square,
)
from plasticity.plastic_network import PlasticNetwork
from stream.jit import kernel
from stream.lanes import _plain_fused, fused
from stream.packet import SPIKE_DTYPE


@kernel
def call_fused(a: Any, b: Any, c: Any) -> Any:
    return fused(a, b, c)


@kernel
def call_learn(
    is_long: bool, v: Any, f: Any, w: Any, hebb: Any, sliding: Any, alpha: Any, theta: Any, step: Any, high: Any
) -> bool:
    n, inverse = 64 if is_long else 16, f / f / theta
    most, kind = most_square(sliding, 4, n), kind_of(theta, sliding, 4, n)
    if is_long:
        return learn_64(v, 1, f, w, 2, hebb, 3, sliding, 4, alpha, theta, inverse, step, high, most, kind)
    return learn_16(v, 1, f, w, 2, hebb, 3, sliding, 4, alpha, theta, inverse, step, high, most, kind)


@kernel
def call_row(
    w: Any, hebb: Any, share: Any, u: Any, theta: Any, eta: Any, left: float, form: int, post: int, scratch: Any
) -> None:
    hebbian_read(w, 0, hebb, share, 0, len(w), left, form, 0.3, scratch[2])
    hebbian_write(hebb, 0, len(w), left, u, 0, theta, False, eta, 0, 0.05, 0.7, post, scratch)


@kernel
def call_each(
    w: Any, hebb: Any, share: Any, u: Any, theta: Any, eta: Any, left: float, form: int, post: int, out: Any
) -> None:
    for j in range(len(w)):
        out[j] = hebbian_read_one(w, j, hebb, share, j, left, form, 0.3)
        hebbian_write_one(hebb, j, left, u[j], theta[j], eta[j], 0.05, 0.7, post)


floats = st.floats(-1e6, 1e6, width=32)


@pytest.mark.parametrize("real", [np.float64, np.float32])
@pytest.mark.parametrize("post", [TANH, LINEAR])
@pytest.mark.parametrize("form", [ADD, BLEND, MASK])
def test_one_synapse_is_a_row_of_one(form: int, post: int, real: type) -> None:
    rng = np.random.default_rng(form)
    w, hebb, share, u, theta, eta = rng.normal(0.0, [[0.5], [0.8], [1.0], [2.0], [1.0], [0.2]], (6, 97)).astype(real)
    theta = abs(theta) + real(0.1)
    again, scratch, out = hebb.copy(), np.zeros((3, 97), real), np.zeros(97, real)
    for left in (1.0, 0.4, 2.0**-12):
        call_row(w, hebb, share, u, theta, eta, left, form, post, scratch)
        call_each(w, again, share, u, theta, eta, left, form, post, out)
        np.testing.assert_array_equal(out, scratch[2])
        np.testing.assert_array_equal(again, hebb)
    assert (abs(u / theta - eta) > 2).any()  # both forms of tanh


@settings(max_examples=300)
@given(floats, floats, st.one_of(floats, st.floats(-(2**-10), 2**-10, width=32)), st.booleans())
def test_a_fused_sum_is_rounded_once(a: float, b: float, c: float, cancels: bool) -> None:
    x, y = np.float32(a), np.float32(b)
    z = np.float32(-(x * y)) if cancels else np.float32(c)  # what is left is what the product lost
    exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    got = call_fused(x, y, z)
    below, above = np.nextafter(got, np.float32(-np.inf)), np.nextafter(got, np.float32(np.inf))
    assert all(abs(Fraction(float(got)) - exact) <= abs(Fraction(float(other)) - exact) for other in (below, above))
    assert _plain_fused(x, y, z) == got


@settings(max_examples=80)
@given(
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
    st.sampled_from([0.2, 1.0, 3.0]),  # how many are above the threshold, or where the other form is taken
    st.sampled_from([0.7, 1.0]),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from([1e-3, 0.3, -0.3]),
    st.sampled_from([0.8, 0.2, math.inf]),  # of 0.2 a step of 0.3 leaves nothing
    st.integers(0, 2**32),
)
def test_lanes_are_the_loop(
    real: Any, is_long: bool, wide: float, threshold: float, slid: float, step: float, bound: float, seed: int
) -> None:
    rng, n = np.random.default_rng(seed), 64 if is_long else 16
    v, w = rng.normal(0, wide * 0.4, 80).astype(real), rng.normal(0, 0.2, 80).astype(real)
    hebb, sliding = rng.normal(0, 0.3, 80).astype(real), rng.normal(0, slid, 80).astype(real)
    f, alpha, theta, high = real(0.9), real(0.12), real(threshold), real(bound)
    want_v, want_hebb = v.copy(), hebb.copy()
    inverse, most = real(1) / theta, real(0)  # which is for vectors alone, as is the kind
    want = _plain(n)(want_v, 1, f, w, 2, want_hebb, 3, sliding, 4, alpha, theta, inverse, real(step), high, most, 0)
    assert kind_of(theta, sliding, 4, n) == (0 if threshold != 1 else 1 if slid else 2)
    assert call_learn(is_long, v, f, w, hebb, sliding, alpha, theta, real(step), high) == want
    assert np.array_equal(v, want_v)
    assert np.array_equal(hebb, want_hebb)


@settings(max_examples=200)
@given(
    st.lists(st.floats(-3, 1.5, width=32), min_size=1, max_size=4),
    st.floats(-1e3, 1e3, width=32).filter(lambda theta: theta > 1e-3),
    st.integers(-40, 40),
)
def test_who_is_above_has_a_square_above_the_most(sliding: list[float], threshold: float, ulps: int) -> None:
    """Of a unit close to the threshold, on both sides."""
    eta, theta = np.array(sliding, np.float32), np.float32(threshold)
    most = most_square(eta, 0, len(eta))
    assert most <= np.float32(SMALL_SQUARE)
    u = theta
    for _ in range(abs(ulps)):
        u = np.nextafter(u, np.float32(math.copysign(math.inf, ulps)))
    y = u * (np.float32(1) / theta) - eta
    if u > theta:
        assert (y * y > most).all() if max(sliding) < 1 else most == -1
    if max(sliding) <= 0:
        assert most > 0.999  # or the loop would always be the slow one


@pytest.mark.parametrize(("real", "error"), [(np.float64, 2e-10), (np.float32, 1.4e-5)])
def test_tanh(real: type, error: float) -> None:
    x = np.concatenate([np.linspace(-40, 40, 80_001), np.geomspace(1e-30, 1, 2001), [0.0, 1e30, -1e30]]).astype(real)
    got = np.empty_like(x)
    tanh_all(x, got)
    want = np.array([math.tanh(float(one)) for one in x])
    assert np.abs(got - want).max() < error
    small = (np.abs(x) < 1) & (x != 0)
    assert np.abs(got[small] / want[small] - 1).max() < error  # relative: exact slope at 0
    assert np.abs(got).max() <= 1 + np.finfo(real).eps
    mirrored = np.empty_like(x)
    tanh_all(-x, mirrored)
    assert np.array_equal(mirrored, -got)


def network(weight: float, rule: Hebbian) -> PlasticNetwork:
    graph = Graph(
        (3,), [Population("out", LIFUnits(), (5,))], [Projection(INPUT, "out", Dense(np.full((3, 5), weight)))]
    )
    return PlasticNetwork.of(graph, rules={(INPUT, "out"): rule})


def spikes_of(t_us: np.ndarray) -> np.ndarray:
    spikes = np.zeros(len(t_us), SPIKE_DTYPE)
    spikes["t"] = t_us
    return spikes


def test_hebb_of_a_row_decays_alone_for_hours() -> None:
    made = network(0.1, Hebbian(local_rate=0.0))
    made.begin(0)
    hebb = made._memory.fast.reshape(3, 5)
    hebb[:] = 0.1
    made.run(spikes_of(np.array([7 * 3600 * 10**6])))
    assert not hebb[0].any()
    assert (hebb[1:] == np.float32(0.1)).all()


def test_no_denormals_after_long_silence() -> None:
    made = network(0.0, Hebbian(local_rate=0.0, mixing=0.0))
    made.begin(0)
    made._memory.fast[:] = 0.1
    made.state.v[:] = 0.9
    made.run(spikes_of(np.arange(6000) * 2000))
    assert not made.potentials("out").any()
    assert not made._memory.fast.reshape(3, 5)[0].any()


@pytest.mark.parametrize(("threshold", "reset"), [(-0.5, -1.0), (0.0, -1.0), (0.5, 0.0)])
def test_who_fires_does_not_depend_on_the_sign_of_the_threshold(threshold: float, reset: float) -> None:
    rng = np.random.default_rng(1)
    weight = np.full((3, 80), 0.2, np.float32)  # all cross at once: nobody is left whose potential would show it
    units = IntegrateFireUnits(v_threshold=threshold, reset="hard", v_reset=reset)  # a leak would lift it over -0.5
    graph = Graph((3,), [Population("out", units, (80,))], [Projection(INPUT, "out", Dense(weight))])
    spikes = spikes_of(np.sort(rng.integers(0, 5000, 400)))
    spikes["unit"] = rng.integers(0, 3, 400)
    still = PlasticNetwork.of(graph, rules={(INPUT, "out"): Hebbian(local_rate=0.0, mixing=0.0)})
    want = Network.of(graph).run(spikes)["out"]
    assert len(want) > 100
    np.testing.assert_array_equal(still.run(spikes)["out"], want)


@given(st.sampled_from(["soft", "hard"]), st.booleans(), st.integers(1, 90), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_units_may_fire_within_the_loop_or_outside_of_it(reset: str, is_read: bool, n: int, seed: int) -> None:
    """A delay that leads nowhere keeps them out of the loop; where they may fire in it, there is little room."""
    rng = np.random.default_rng(seed)
    units = LIFUnits(3000.0, reset=reset, v_reset=0.3 if reset == "hard" else 0.0)
    populations = [Population("out", units, (n,))]
    weight = rng.normal(0.2, 0.3, (6, n))
    weight[0, 0] = 3.0  # somebody fires, always
    projections = [Projection(INPUT, "out", Dense(weight))]
    if is_read:
        populations.append(Population("scores", LeakyIntegratorUnits(20_000.0), (2,)))
        projections.append(Projection("out", "scores", Dense(rng.normal(0.0, 1.0, (n, 2)))))
    rules = {(INPUT, "out"): Hebbian(local_rate=0.02, mixing=0.3, tau_hebb_us=9000.0, hebb_max=0.5)}
    inside = PlasticNetwork.of(Graph((6,), populations, projections), rules=rules)
    nowhere = [Projection("out", "far", Dense(np.zeros((n, 1))), delay_us=50)]
    populations.append(Population("far", LIFUnits(3000.0, 1.0), (1,)))
    outside = PlasticNetwork.of(Graph((6,), populations, projections + nowhere), rules=rules)
    inside._out, inside._picked = np.zeros(2 * n + 1, FIRED_DTYPE), np.zeros(2 * n + 1, SPIKE_DTYPE)
    spikes = spikes_of(np.sort(rng.integers(0, 200_000, 500)))  # past times when what is tiny becomes 0
    spikes["unit"] = rng.integers(0, 6, len(spikes))
    for part in np.array_split(spikes, 3):
        np.testing.assert_array_equal(inside.run(part)["out"], outside.run(part)["out"])
        np.testing.assert_array_equal(inside.potentials("out"), outside.potentials("out"))
        np.testing.assert_array_equal(inside._memory.fast, outside._memory.fast)
        if is_read:
            np.testing.assert_array_equal(inside.averages("scores"), outside.averages("scores"))
    assert inside.statistics()["spikes"] == outside.statistics()["spikes"] > 0
    if not is_read:
        assert inside.statistics()["deliveries"] == len(spikes)


@pytest.mark.parametrize("rule", [None, Hebbian(local_rate=0.02, mixing=0.3, tau_hebb_us=9000.0, hebb_max=0.5)])
@given(st.booleans(), st.sampled_from(["soft", "hard"]), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_a_sparse_unit_is_a_layer_of_its_own(
    rule: Hebbian | None, leaks: bool, reset: Literal["soft", "hard"], seed: int
) -> None:
    """Where synapses lead to units one by one, each does what it does alone in a dense layer, bit for bit."""
    rng = np.random.default_rng(seed)
    n_pre, n_post = 8, 6
    weight = rng.normal(0.3, 0.4, (n_pre, n_post)).astype(np.float32) * (rng.random((n_pre, n_post)) < 0.6)
    weight[0, 0] = 3.0  # somebody fires, always
    lif, integrator = LIFUnits(3000.0, reset=reset), IntegrateFireUnits(reset=reset)

    def made(topology: Any, n: int) -> PlasticNetwork:
        units = lif if leaks else integrator
        graph = Graph((n_pre,), [Population("out", units, (n,))], [Projection(INPUT, "out", topology)])
        return PlasticNetwork.of(graph, rules={(INPUT, "out"): rule} if rule is not None else {})

    spikes = spikes_of(np.sort(rng.integers(0, 200_000, 400)))  # past times when what is tiny becomes 0
    spikes["unit"] = rng.integers(0, n_pre, len(spikes))
    sparse = made(sparse_of(weight), n_post)
    sparse.begin(0)
    fired = sparse.run(spikes, 300_000)["out"]
    for j in range(n_post):
        alone = made(Dense(weight[:, j : j + 1]), 1)
        alone.begin(0)
        mine = alone.run(spikes[weight[spikes["unit"], j] != 0], 300_000)["out"]
        np.testing.assert_array_equal(mine["t"], fired["t"][fired["unit"] == j])
        np.testing.assert_array_equal(alone.potentials("out")[0], sparse.potentials("out")[j])
    assert len(fired) > 0
