"""The event-driven adjoint against automatic differentiation of an independent forward, in float64."""

import math
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.extend import defvjp, primitive

from plasticity.adjoint import (
    RECTANGLE,
    SPIKES,
    Gradients,
    cross_entropy,
    network_adjoint,
    new_gradients,
    new_scratch,
    new_window,
    readout_adjoint,
)
from plasticity.network import NetworkParams, NetworkState, network_run, new_network, new_state, new_tape
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE

WIDTH, HEIGHT, N_HIDDEN, N_CLASSES = 3, 2, 7, 4
N_PRE = WIDTH * HEIGHT * 2
GAIN, LABEL = 3.0, 2
START_US = 10**10


class Case(NamedTuple):
    params: NetworkParams
    state: NetworkState
    events: Any
    end_us: int


def make_case(seed: int, n_events: int = 80) -> Case:
    """Draw a network in the middle of its life: v, o and hebb are not 0, and hebb is often at its bound."""
    rng = np.random.default_rng(seed)
    params = new_network(
        rng.normal(0.15, 0.5, (N_PRE, N_HIDDEN)),
        rng.normal(0, 0.7, (N_HIDDEN, N_CLASSES)),
        mixing=0.4,
        local_rate=0.0,
        sliding_threshold=0.0,
        tau_hebb_us=60_000.0,
        tau_mem_us=15_000.0,
        tau_readout_us=40_000.0,
        v_threshold=0.9,
        hebb_max=0.12,
    )
    params.hidden.local_rate[:] = rng.normal(0.05, 0.05, N_PRE)
    params.hidden.sliding_threshold[:] = rng.normal(0.2, 0.2, N_HIDDEN)
    state = new_state(params, is_plastic=True)
    state.hidden.v[:] = rng.normal(0, 0.3, N_HIDDEN)
    state.hidden.hebb[:] = rng.uniform(-0.12, 0.12, (N_PRE, N_HIDDEN))
    state.hidden.t_us[0] = START_US - 700
    state.hidden.t_hebb_us[:] = START_US - rng.integers(1000, 50_000, N_PRE)
    state.readout.o[:] = rng.normal(0, 0.5, N_CLASSES)
    state.readout.t_us[0] = START_US
    events = np.zeros(n_events, EVENT_DTYPE)
    events["t"] = START_US + np.cumsum(rng.integers(0, 2000, n_events))
    events["x"], events["y"] = rng.integers(0, WIDTH, n_events), rng.integers(0, HEIGHT, n_events)
    events["p"] = rng.integers(0, 2, n_events)
    return Case(params, state, events, int(events["t"][-1]) + 9000)


def psi(u: Any, theta: float, surrogate: int, width: float) -> Any:
    near = np.abs(u - theta) < width
    return (near & (u > theta) if surrogate == SPIKES else near).astype(float)


def spike_function(theta: float, surrogate: int, width: float) -> Any:
    @primitive
    def spike(u: Any) -> Any:
        return (u > theta).astype(float)

    defvjp(spike, lambda s, u: lambda g: g * psi(u, theta, surrogate, width))
    return spike


def score_of(learned: dict[str, Any], case: Case, spike: Any, is_plastic: bool, counts: dict[str, int]) -> Any:
    """Run the network as plainly as it can be said; the average is summed between events, not spike by spike."""
    theta, highest = float(case.params.hidden.v_threshold[0]), float(case.params.hidden.hebb_max[0])
    hidden, readout = case.state
    v, t_v = hidden.v.copy(), int(hidden.t_us[0])
    rows = [hidden.hebb[i].copy() for i in range(N_PRE)] if is_plastic else [np.zeros(N_HIDDEN)] * N_PRE
    t_rows = [int(t) for t in hidden.t_hebb_us]
    o, t_o = readout.o.copy(), int(readout.t_us[0])
    integral = np.zeros(N_CLASSES)
    tau_m, tau_h, tau_o = learned["tau_mem_us"][0], learned["tau_hebb_us"][0], learned["tau_readout_us"][0]
    for event in case.events:
        t, i = int(event["t"]), (int(event["y"]) * WIDTH + int(event["x"])) * 2 + int(event["p"])
        v = v * anp.exp(-(t - t_v) / tau_m)
        h = rows[i] * anp.exp(-(t - t_rows[i]) / tau_h)
        t_v = t_rows[i] = t
        u = v + learned["weight"][i] + learned["mixing"][0] * h
        z = anp.tanh(u / theta - learned["sliding_threshold"])
        raw = h + learned["local_rate"][i] * z
        inside = np.abs(getattr(raw, "_value", raw)) <= highest
        counts["clipped"] += int((~inside).sum())
        if is_plastic:
            rows[i] = anp.where(inside, raw, highest * anp.sign(raw))
        s = spike(u)
        fired = int(np.sum(getattr(s, "_value", s)))
        counts["spikes"] += fired
        counts["several"] += fired > 1
        v = u - theta * s
        integral = integral + o * tau_o * (1 - anp.exp(-(t - t_o) / tau_o))
        o = o * anp.exp(-(t - t_o) / tau_o) + anp.dot(s, learned["readout_weight"])
        t_o = t
    integral = integral + o * tau_o * (1 - anp.exp(-(case.end_us - t_o) / tau_o))
    return integral / (case.end_us - START_US)


def cross_entropy_of(score: Any) -> Any:
    scaled = GAIN * score
    return anp.log(anp.sum(anp.exp(scaled))) - scaled[LABEL]


def learned_of(params: NetworkParams) -> dict[str, Any]:
    return dict(zip(Gradients._fields, (*params.hidden[:6], *params.readout), strict=True))


def by_adjoint(case: Case, surrogate: int, width: float, is_plastic: bool = True) -> tuple[Any, float, int]:
    params = case.params
    state = new_state(params, is_plastic=is_plastic)
    for mine, given in zip((*state.hidden, *state.readout), (*case.state.hidden, *case.state.readout), strict=True):
        mine[...] = given[: len(mine)]
    window = new_window(state)
    window.v[:], window.o[:], window.start_us[:] = state.hidden.v, state.readout.o, START_US
    n = len(case.events)
    tape = new_tape(params, n + 3, is_plastic=is_plastic)
    fired, spikes = np.zeros(N_HIDDEN, np.int64), np.zeros(n * N_HIDDEN + N_HIDDEN, SPIKE_DTYPE)
    k, n_spikes, n_taped = network_run(
        params, state, is_plastic, case.events, 0, 2**62, WIDTH, tape, 0, True, fired, spikes
    )
    assert (k, n_taped) == (n, n)
    # the score from the spikes alone, each by its closed form, which is how the adjoint sees it
    tau_us, span_us = float(params.readout.tau_mem_us[0]), case.end_us - START_US
    score = window.o * tau_us / span_us * -math.expm1(-span_us / tau_us)
    for spike in spikes[:n_spikes]:
        share = -tau_us / span_us * math.expm1(-(case.end_us - int(spike["t"])) / tau_us)
        score = score + params.readout.weight[spike["unit"]] * share
    loss, d_score = cross_entropy(score, LABEL, GAIN)
    gradients, scratch = new_gradients(params), new_scratch(params, is_plastic=is_plastic)
    scratch.mu.fill(7.0)  # left over from an earlier window: must not be seen
    counted = network_adjoint(
        params, is_plastic, tape, n_taped, window, case.end_us, d_score, surrogate, width, gradients, scratch
    )
    assert counted == n_spikes
    assert not scratch.is_live.any()
    # the readout's part alone is the same
    alone = new_gradients(params)
    assert readout_adjoint(params, tape, n_taped, window, case.end_us, d_score, alone) == n_spikes
    assert np.array_equal(alone.readout_weight, gradients.readout_weight)
    assert np.array_equal(alone.tau_readout_us, gradients.tau_readout_us)
    return gradients, loss, n_spikes


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("surrogate", "width"), [(SPIKES, 0.5), (SPIKES, 0.2), (RECTANGLE, 0.5)])
@pytest.mark.parametrize("is_plastic", [True, False])
def test_every_gradient_equals_automatic_differentiation(
    seed: int, surrogate: int, width: float, is_plastic: bool
) -> None:
    case = make_case(seed)
    got, loss, n_spikes = by_adjoint(case, surrogate, width, is_plastic)
    counts = dict.fromkeys(("clipped", "spikes", "several"), 0)
    spike = spike_function(float(case.params.hidden.v_threshold[0]), surrogate, width)
    learned = learned_of(case.params)

    def loss_of(learned: dict[str, Any]) -> Any:
        return cross_entropy_of(score_of(learned, case, spike, is_plastic, counts))

    assert loss == pytest.approx(float(loss_of(learned)), rel=1e-9)
    assert counts["spikes"] == n_spikes > 20
    assert counts["several"] > 5
    if is_plastic:
        assert counts["clipped"] > 20
    want = grad(loss_of)(learned)
    for name, array in zip(Gradients._fields, got, strict=True):
        if not is_plastic and name in ("mixing", "local_rate", "sliding_threshold", "tau_hebb_us"):
            assert not array.any()
            continue
        size = np.abs(want[name]).max()
        assert size > 0, name
        assert np.abs(array - want[name]).max() / size < 1e-6, name


def test_finite_differences_where_nothing_but_the_readout_moves() -> None:
    """Readout weight and time constant move no spike, so the loss is smooth in them."""
    case = make_case(4)
    got, _, _ = by_adjoint(case, SPIKES, 0.5)

    def shifted(name: str, index: Any, by: float) -> float:
        array = getattr(case.params.readout, name)
        array[index] += by
        _, loss, _ = by_adjoint(case, SPIKES, 0.5)
        array[index] -= by
        return loss

    for index in ((0, 0), (3, 2), (6, 3)):
        slope = (shifted("weight", index, 1e-5) - shifted("weight", index, -1e-5)) / 2e-5
        assert got.readout_weight[index] == pytest.approx(slope, rel=1e-6, abs=1e-10)
    slope = (shifted("tau_mem_us", 0, 1.0) - shifted("tau_mem_us", 0, -1.0)) / 2.0
    assert got.tau_readout_us[0] == pytest.approx(slope, rel=1e-6)


def test_cross_entropy_by_hand() -> None:
    loss, d_score = cross_entropy(np.array([0.0, math.log(3.0)]), 0, 1.0)
    assert loss == pytest.approx(math.log(4.0))
    assert d_score == pytest.approx([-0.75, 0.75])
    # large scores neither overflow nor lose the loss
    assert cross_entropy(np.array([0.0, 5000.0]), 0, 2.0)[0] == pytest.approx(10_000.0)


def test_gradient_of_a_gap_of_hours_is_finite() -> None:
    case = make_case(5, 20)
    case.events["t"][10:] += 5 * 3600 * 10**6
    late = case._replace(end_us=case.end_us + 5 * 3600 * 10**6)
    got, loss, _ = by_adjoint(late, SPIKES, 0.5)
    assert math.isfinite(loss)
    assert all(np.isfinite(array).all() for array in got)
