"""Homeostatic threshold: each unit moves its own threshold until it fires as often as it should.

Equations
---------
At every multiple of ``period_us`` since time began, with the n[j] spikes that unit j fired since the last one::

    rate  <- rate * exp(-period / tau_rate) + n / period * (1 - exp(-period / tau_rate))
    theta <- clip(theta + gain * (rate - target_hz), least, most)

So a unit that fires too often gets harder to excite, and a silent one easier, until all fire at the target. That is
integral control: unlike the adaptation of ``AdaptiveLIFUnits``, whose threshold falls back when a unit is silent, what
is learned here stays. A period ends before anything happens that is later than its end, wherever the stream is cut;
thresholds in between stand still, and units are tested against them at the next event that reaches them.

Source: A. Lazar, G. Pipa and J. Triesch, "SORN: a self-organizing recurrent neural network", Front. Comput. Neurosci.
3:23 (2009), eq. 5, in periods of time; for spiking networks that learn, P. U. Diehl and M. Cook, Front. Comput.
Neurosci. 9:99 (2015), with a decay in place of a target.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Homeostasis", "follow_rate", "move_thresholds"]


class Homeostasis(NamedTuple):
    """What homeostasis is; thresholds in units of the potential."""

    target_hz: float = 10.0
    gain: float = 0.001  # of threshold for each Hz and period
    tau_rate_us: float = 1_000_000.0
    period_us: int = 10_000
    least: float = 0.1
    most: float = 10.0


def follow_rate(rate_hz: NDArray[np.float64], count: NDArray[np.int64], tau_rate_us: float, period_us: int) -> None:
    """Take the spikes of a period into running rates; float64 and int64, shape (n,)."""
    kept = math.exp(-period_us / tau_rate_us)
    rate_hz *= kept
    rate_hz += count * ((1.0 - kept) * 1e6 / period_us)


def move_thresholds(theta: NDArray[Any], rate_hz: NDArray[np.float64], rule: Homeostasis) -> None:
    """Move thresholds, real, shape (n,), in place."""
    theta[:] = np.clip(theta + rule.gain * (rate_hz - rule.target_hz), rule.least, rule.most)
