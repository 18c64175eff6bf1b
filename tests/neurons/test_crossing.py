"""When a sum of two exponentials crosses a level, against a search in steps and 40 digits."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from neurons.crossing import drift, first_crossing, pulse_height

ROUND = st.sampled_from([-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0])  # so that equal ones meet
TAUS = st.sampled_from([50.0, 100.0, 100.1, 1000.0, 20_000.0]) | st.floats(20, 1e5)


def exact(x: float, i: float, t: float, tau_mem: float, tau_syn: float) -> Decimal:
    """Return the potential after t, in 40 digits."""
    v, w, at, mem, syn = (Decimal(value) for value in (x, i, t, tau_mem, tau_syn))
    if mem == syn:
        return (v + w * at / mem) * (-at / mem).exp()
    return v * (-at / mem).exp() + w * syn / (mem - syn) * ((-at / mem).exp() - (-at / syn).exp())


@settings(max_examples=300, deadline=None)
@given(ROUND | st.floats(-3, 3), ROUND | st.floats(-5, 5), ROUND | st.floats(-2, 2), TAUS, TAUS)
@example(-1.5, -1.5, -0.5, 100.0, 50.0)
@example(-1.5, -1.5, -0.5, 50.0, 100.0)
@example(0.0, 2.0, 0.5, 100.0, 100.0)
@example(1.0, 1.0, 1.0, 100.0, 50.0)
def test_the_first_crossing_is_found(x: float, i: float, level: float, tau_mem: float, tau_syn: float) -> None:
    # nearer ones are too much alike for the plain formula below (40 digits: test_drift_keeps_its_digits)
    assume(tau_mem == tau_syn or abs(tau_mem - tau_syn) > 1e-4 * tau_mem)
    got = first_crossing(x, i, level, tau_mem, tau_syn)
    if x > level:
        assert got == 0.0
        return
    # at the end it is as good as 0
    t = np.concatenate([[0.0], np.geomspace(1e-3, 100 * max(tau_mem, tau_syn), 20_001)])
    fades, syn = np.exp(-t / tau_mem), np.exp(-t / tau_syn)
    apart = t / tau_mem * fades if tau_mem == tau_syn else tau_syn / (tau_mem - tau_syn) * (fades - syn)
    height = x * fades + i * apart - level
    # seen in steps: clearly above somewhere, clearly below everywhere, or too near to tell this way
    clear = 1e-5
    assume(height.max() > clear or height.max() < -clear)
    with localcontext() as context:
        context.prec = 40
        if height.max() < 0:
            assert got == math.inf
            return
        after = int(np.argmax(height > 1e-11))  # surely above: not by rounding
        before = np.flatnonzero(height[:after] < -1e-11)
        assert (t[before[-1]] if len(before) else 0.0) <= got <= t[after]
        # in potentials it is right to the last digits; exp(-t / tau) has lost t / tau of them, like taus 1000
        digits = 1e-14 + 5e-16 * got / min(tau_mem, tau_syn)
        scale = digits * (abs(x) + abs(i) * (1 if abs(tau_mem - tau_syn) > 0.01 * tau_mem else 1000) + abs(level))
        assert abs(exact(x, i, got, tau_mem, tau_syn) - Decimal(level)) < Decimal(scale)


@pytest.mark.parametrize(("tau_mem", "tau_syn"), [(100.0, 30.0), (30.0, 100.0), (100.0, 100.0), (100.0, 100.001)])
def test_drift_keeps_its_digits(tau_mem: float, tau_syn: float) -> None:
    with localcontext() as context:
        context.prec = 40
        for t in (0.001, 1.0, 77.0, 1000.0, 20_000.0):
            want = float(exact(0.3, 0.8, t, tau_mem, tau_syn))
            assert drift(0.3, 0.8, t, tau_mem, tau_syn) == pytest.approx(want, rel=1e-12, abs=1e-30)


def test_the_height_of_a_pulse_is_its_maximum() -> None:
    for tau_mem, tau_syn in [(100.0, 30.0), (30.0, 100.0), (100.0, 100.0), (20_000.0, 5_000.0)]:
        t = np.linspace(0, 10 * max(tau_mem, tau_syn), 100_001)
        heights = [drift(0.0, 1.0, float(at), tau_mem, tau_syn) for at in t]
        height = pulse_height(tau_mem, tau_syn)
        assert max(heights) <= height * (1 + 1e-15)
        assert max(heights) == pytest.approx(height, rel=1e-6)
