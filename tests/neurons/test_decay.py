"""What is left of a leak, against exact arithmetic."""

import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.decay import LOWEST, left_and_gone
from stream.jit import kernel


@kernel
def both(x: Any, out: Any) -> None:
    out[0], out[1] = left_and_gone(x)


@settings(max_examples=500)
@given(st.one_of(st.floats(-40.0, 0.0), st.floats(-1.0, 0.0), st.floats(-1e-9, 0.0)))
def test_left_and_gone(x: float) -> None:
    out = np.zeros(2)
    both(np.float64(x), out)
    with localcontext() as context:
        context.prec = 60
        left = Decimal(x).exp()
        gone = left - 1 if x < -1e-9 else Decimal(x) + Decimal(x) ** 2 / 2 + Decimal(x) ** 3 / 6
        assert abs(Decimal(out[0]) / left - 1) < Decimal("5e-16")
        assert abs(Decimal(out[1]) - gone) <= abs(gone) * Decimal("5e-16")


@pytest.mark.parametrize(
    "x", [0.0, -0.0, LOWEST, np.nextafter(LOWEST, -11), -0.5 * math.log(2), -800.0, -math.inf, 2.5]
)
def test_where_ways_part(x: float) -> None:
    out = np.zeros(2)
    both(np.float64(x), out)
    assert out[0] == pytest.approx(math.exp(x), rel=5e-16, abs=0)
    assert out[1] == pytest.approx(math.expm1(x), rel=5e-16, abs=0)
    both(np.float64(np.nan), out)
    assert np.isnan(out).all()
