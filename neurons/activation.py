"""Artificial units: no spikes, no memory; a value in every phase.

Equations
---------
::

    y_j = f(bias_j + sum over i of weight[i, j] x_i)         once a phase; x_i: spikes of the phase, or values

    relu      max(u, 0)
    sigmoid   1 / (1 + exp(-u))
    tanh      tanh(u)
    identity  u

They are the layers of an artificial network before, after or between spiking ones. Values exist in phases only, so
these units run on the chip (``chip.compiler``), and not event by event.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["FUNCTIONS", "ActivationUnits", "activation"]

FUNCTIONS = ("relu", "sigmoid", "tanh", "identity")


class ActivationUnits(NamedTuple):
    """What a population is; numbers, or one for each unit."""

    function: Literal["relu", "sigmoid", "tanh", "identity"] = "relu"
    bias: float | NDArray[Any] = 0.0


def activation(function: str, u: NDArray[Any]) -> NDArray[np.float64]:
    """Compute f(u)."""
    u = np.asarray(u, np.float64)
    y: NDArray[np.float64] = u
    match function:
        case "relu":
            y = np.maximum(u, 0.0)
        case "sigmoid":
            y = 0.5 + 0.5 * np.tanh(0.5 * u)  # overflows nowhere
        case "tanh":
            y = np.tanh(u)
    return y
