"""What is left of a leak, and what is gone: exp(x) and exp(x) - 1 together, without a call.

A readout needs both for every spike that reaches it, and ``libm`` takes each alone, one number at a time: at 1.2 spikes
a microsecond that was a tenth of all time. Here both come from one series, inline, in the arithmetic of float64 that is
the same everywhere: so readouts no longer depend on whose ``libm`` it is.

Equations
---------
``x = k ln 2 + r`` with |r| <= ln 2 / 2, k a whole number, and g = exp(r) - 1 by Taylor's series up to r^13::

    exp(x) = 2^k + 2^k g            exp(x) - 1 = 2^k g + (2^k - 1)

For k = 0 the second has no digit to lose; for k < 0 it is at least 0.29. Relative errors of both: 5e-16
(``tests/neurons/test_decay.py``). Below ``LOWEST`` it is ``libm`` after all: nothing that fires often waits so long.
"""

import math
from typing import Any

import numpy as np

from stream.jit import inline_kernel

__all__ = ["left_and_gone"]

LOWEST = -10.0
PER_LN_2 = 1.4426950408889634
WHOLE = 6755399441055744.0  # 1.5 * 2^52: a sum with it has no fraction
LN_2_HIGH, LN_2_LOW = 0.6931471803691238, 1.9082149292705877e-10  # the first times k is exact
HALVES = 0.5 ** np.arange(16)


@inline_kernel
def left_and_gone(x: float) -> tuple[Any, Any]:
    """Return ``exp(x)`` and ``exp(x) - 1``, float64; meant for x <= 0, anything else is given to ``libm``."""
    if not LOWEST <= x <= 0.0:  # so that what is no number, or above 0, finds no place beside HALVES
        return math.exp(x), math.expm1(x)
    k = (x * PER_LN_2 + WHOLE) - WHOLE
    r = x - k * LN_2_HIGH - k * LN_2_LOW
    s = r * r
    q = s * s
    low = (1.0 / 2 + r * (1.0 / 6)) + s * (1.0 / 24 + r * (1.0 / 120))
    middle = (1.0 / 720 + r * (1.0 / 5040)) + s * (1.0 / 40320 + r * (1.0 / 362880))
    high = (1.0 / 3628800 + r * (1.0 / 39916800)) + s * (1.0 / 479001600 + r * (1.0 / 6227020800))
    g = r + s * (low + q * (middle + q * high))
    scale = HALVES[np.uint64(-np.int64(k))]
    gone = scale * g
    return scale + gone, gone + (scale - 1.0)
