"""Weights as the chip will have them, while they are learned: quantisation-aware correction.

The network runs, and is walked back, with weights on the chip's grid; steps change weights of full precision behind
them (straight-through: the derivative by a rounded weight counts as that by the weight)::

    scale  = levels / (fraction * largest |weight|)                  one for all that leads to a population
    weight = clip(floor(full * scale + 1/2), -levels, levels) / scale        levels = 2^(bits - 1) - 1

``fraction`` is the one of ``CLIP_FRACTIONS`` with the smallest squared error; ties go to the larger. That is the choice
of ``chip.quantise`` without recordings: weights that are on this grid are compiled as they are. (Stated twice because
neither folder may import the other; a test holds them together.)

Source of straight-through: Y. Bengio, N. Leonard and A. Courville, arXiv:1308.3432 (2013); its use for weights:
B. Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR
2018.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLIP_FRACTIONS", "on_grid", "scale_of"]

CLIP_FRACTIONS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


def _rounded(weight: NDArray[Any], scale: float, levels: int) -> NDArray[np.float64]:
    steps: NDArray[np.float64] = np.clip(np.floor(weight.astype(np.float64) * scale + 0.5), -levels, levels)
    return steps


def scale_of(weights: Sequence[NDArray[Any]], bits: int = 8) -> float:
    """Choose how many steps of the grid a weight of 1 is.

    Parameters
    ----------
    weights
        Of all projections that lead to one population, real, any shapes.
    bits
        Of a weight, 2 to 16.
    """
    levels = 2 ** (bits - 1) - 1
    largest = max((float(np.abs(weight).max(initial=0.0)) for weight in weights), default=0.0)
    best, scale = np.inf, 1.0
    if largest == 0.0:
        return scale
    for fraction in CLIP_FRACTIONS:
        candidate = levels / (largest * fraction)
        error = sum(float(((_rounded(it, candidate, levels) / candidate - it) ** 2).sum()) for it in weights)
        if error < best:
            best, scale = error, candidate
    return scale


def on_grid(weight: NDArray[Any], scale: float, bits: int = 8) -> NDArray[Any]:
    """Return weights rounded to the grid, in their own type and shape."""
    rounded: NDArray[Any] = (_rounded(weight, scale, 2 ** (bits - 1) - 1) / scale).astype(weight.dtype)
    return rounded
