"""Adam: steps of a size that does not depend on the gradient's, only on its steadiness.

Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015::

    mean     <- 0.9 mean + 0.1 g                  variance <- 0.999 variance + 0.001 g^2
    p        <- p - rate * unit * mean_hat / (sqrt(variance_hat) + 1e-8)

where a hat divides by 1 - 0.9^step, 1 - 0.999^step. Here g is the derivative by ``p / unit``: with ``unit`` = 20,000 us
for a time constant and 1 for a weight, one ``rate`` means the same relative speed for both, and 1e-8 is small against
both gradients.

Moments below 1e-30 become 0. Pixels that never fire again would otherwise fill the tables with denormal numbers after
700 steps, and each step would take about a hundred times longer.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.jit import kernel

__all__ = ["AdamState", "adam_step", "new_adam"]


class AdamState(NamedTuple):
    """Running moments of a gradient, flat."""

    mean: NDArray[Any]  # real, shape (n,)
    variance: NDArray[Any]  # real, shape (n,)


def new_adam(parameter: NDArray[Any]) -> AdamState:
    """Return moments of 0 for a parameter of any shape."""
    return AdamState(np.zeros(parameter.size, parameter.dtype), np.zeros(parameter.size, parameter.dtype))


@kernel
def adam_step(
    parameter: Any,
    gradient: Any,
    state: AdamState,
    step: int,
    rate: float,
    unit: float,
    scale: float,
    lowest: float,
    highest: float,
) -> None:
    """Move a parameter one step, and set its gradient to 0 for the next sum.

    Parameters
    ----------
    parameter, gradient
        Real, shape (n,). Both are written to.
    state
        Written to.
    step
        Number of this step, from 1 on.
    rate
        Size of a step, in ``unit``.
    unit
        What 1 means for this parameter, in its own unit.
    scale
        What to multiply the gradient with (1 / n for the mean of n).
    lowest, highest
        Where the parameter is held.
    """
    real = parameter.dtype.type
    keep_1, keep_2 = real(0.9), real(0.999)
    new_1, new_2 = real(0.1), real(0.001)
    tiny, zero, epsilon = real(1e-30), real(0.0), real(1e-8)
    hat_1, hat_2 = real(1.0 / (1.0 - 0.9**step)), real(1.0 / (1.0 - 0.999**step))
    to_g, length = real(scale * unit), real(rate * unit)
    low, high = real(lowest), real(highest)
    mean, variance = state
    for n in range(len(parameter)):
        g = gradient[n] * to_g
        gradient[n] = zero
        m = keep_1 * mean[n] + new_1 * g
        v = keep_2 * variance[n] + new_2 * (g * g)
        m = m if abs(m) > tiny else zero
        v = v if v > tiny else zero
        mean[n] = m
        variance[n] = v
        p = parameter[n] - length * (m * hat_1) / (np.sqrt(v * hat_2) + epsilon)
        parameter[n] = min(max(p, low), high)
