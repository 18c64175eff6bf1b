"""What a network is taught by: losses of scores, and what scores of spikes are.

=================  ===========================================  =====================================================
loss               of                                           derivative by
=================  ===========================================  =====================================================
cross_entropy      scores                                       each score
mse                scores, clipped above                        each score
rate               rates of any population, added to the others each spike
=================  ===========================================  =====================================================

Scores are time averages of leaky integrators, or of the spikes of an output population, one unit for each class:
``spike_count`` says how many, ``first_spike`` how early the first one was.

*When* a spike happens counts as given on the walk back (``plasticity.backward``), so ``first_spike`` asks what a first
spike is worth by its presence: without it, its unit would be last.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cross_entropy", "first_spike", "mse", "rate", "spike_count"]


def cross_entropy(score: NDArray[Any], label: int, gain: float = 1.0) -> tuple[float, NDArray[np.float64]]:
    """Compute the cross-entropy of softmax(gain * score).

    Parameters
    ----------
    score
        Real, shape (n_classes,).
    label
        The right class.
    gain
        Slope of the softmax, 1 / units of the score.

    Returns
    -------
    loss, d_score
        A number; float64, shape (n_classes,).
    """
    scaled = gain * (np.asarray(score, np.float64) - np.max(score))
    share = np.exp(scaled)
    total = share.sum()
    share /= total
    loss = float(math.log(total) - scaled[label])
    share[label] -= 1.0
    return loss, gain * share


def mse(score: NDArray[Any], label: int, highest: float = 1.1) -> tuple[float, NDArray[np.float64]]:
    """Compute the mean squared distance of scores, clipped above, to 1 for the label and 0 for the others.

    The paper's loss: scores are membranes over threshold, ``highest`` is 1.1 there. Parameters as above.
    """
    score = np.asarray(score, np.float64)
    distance = np.minimum(score, highest)
    distance[label] -= 1.0
    passed = score <= highest
    return float(np.mean(distance**2)), 2.0 * distance * passed / len(score)


def spike_count(units: NDArray[np.int64], n_units: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count the spikes of a population as scores.

    Parameters
    ----------
    units
        int64, shape (n_spikes,): who fired.
    n_units
        Units of the population; each is a class.

    Returns
    -------
    score, worth
        float64, shape (n_units,); float64, shape (n_spikes,): derivative of its unit's score by each spike.
    """
    return np.bincount(units, minlength=n_units).astype(np.float64), np.ones(len(units))


def first_spike(
    units: NDArray[np.int64], t_us: NDArray[np.int64], n_units: int, end_us: int, tau_us: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Take as scores how long before the end each unit fired first, in units of ``tau_us``; 0 for the silent.

    Parameters
    ----------
    units, t_us
        int64, shape (n_spikes,): who fired when, in order.
    n_units
        As above.
    end_us
        End of the window.
    tau_us
        What difference in time matters.

    Returns
    -------
    score, worth
        As above; second and later spikes are worth 0.
    """
    first = np.full(n_units, len(units))
    np.minimum.at(first, units, np.arange(len(units)))
    early = np.zeros(n_units)
    has_fired = first < len(units)
    early[has_fired] = (end_us - t_us[first[has_fired]]) / tau_us
    worth = np.zeros(len(units))
    worth[first[has_fired]] = early[has_fired]
    return early, worth


def rate(
    units: NDArray[np.int64], n_units: int, span_us: int, wanted_hz: float, strength: float
) -> tuple[float, NDArray[np.float64]]:
    """Compute ``strength / 2`` times the mean squared distance of each unit's rate to a wanted one, in units of that.

    Parameters
    ----------
    units, n_units
        As above.
    span_us
        Length of the window.
    wanted_hz, strength
        As said.

    Returns
    -------
    loss, d_spike
        A number; float64, shape (n_spikes,).
    """
    distance = np.bincount(units, minlength=n_units) / (span_us * 1e-6 * wanted_hz) - 1.0
    d_spike = strength * distance / (n_units * span_us * 1e-6 * wanted_hz)
    return float(0.5 * strength * np.mean(distance**2)), d_spike[units]
