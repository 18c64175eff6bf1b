"""Adam against its paper."""

import numpy as np
import pytest

from plasticity.adam import adam_step, new_adam


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
