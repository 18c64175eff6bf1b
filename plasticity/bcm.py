"""The rule of Bienenstock, Cooper and Munro (BCM) for spikes: a sliding threshold between weakening and strengthening.

Equations
---------
The trace ``y`` of a unit's own spikes decays with ``tau_post_us``; the threshold follows its square::

    d theta / dt = (y^2 - theta) / tau_theta_us
    presynaptic spike of i:    w[i,:] <- clip(w[i,:] + rate * y * (y - theta), w_min, w_max)
    postsynaptic spike of j:   y[j] <- y[j] + 1

Between two spikes of a unit y^2 decays with tau_post / 2, so theta is the sum of two exponentials::

    theta(t) = k * y(t)^2 + a * exp(-t / tau_theta),    k = tau_post / (tau_post - 2 * tau_theta)

theta does not jump at a spike, hence a does. ``2 * tau_theta_us`` and ``tau_post_us`` have to differ.

Source: E. L. Bienenstock, L. N. Cooper and P. W. Munro, "Theory for the development of neuron selectivity", J.
Neurosci. 2:32 (1982); put into spikes here.
"""

from typing import Any, NamedTuple

from stream.jit import inner_kernel

__all__ = ["BCM", "bcm_pre", "bcm_share"]


class BCM(NamedTuple):
    """What a BCM rule is."""

    rate: float = 0.001
    tau_post_us: float = 100_000.0
    tau_theta_us: float = 5_000_000.0
    w_min: float = 0.0
    w_max: float = 1.0


def bcm_share(tau_post_us: float, tau_theta_us: float) -> float:
    """Return k."""
    return tau_post_us / (tau_post_us - 2.0 * tau_theta_us)


@inner_kernel
def bcm_pre(
    w: Any, at: int, n: int, y: Any, a: Any, first: int, left_y: Any, left_a: Any, share: Any, rate: Any, bounds: Any
) -> None:
    """Change a row; ``left_y``, ``left_a``: what is left of ``y`` and ``a``; ``bounds``: the least and the most."""
    row, trace, slow = w[at : at + n], y[first : first + n], a[first : first + n]
    low, high = bounds
    for j in range(n):
        now = trace[j] * left_y
        theta = share * now * now + slow[j] * left_a
        changed = row[j] + rate * now * (now - theta)
        changed = changed if changed > low else low
        row[j] = changed if changed < high else high
