"""Units without memory: an event fires them if its weight is above the threshold.

Equations
---------
::

    s_j = 1 if weight[i, j] > v_threshold else 0       at each event of input i, strictly

In phases: if the weights of one phase add up to more than the threshold.
"""

from typing import Any, NamedTuple

from numpy.typing import NDArray

__all__ = ["ThresholdUnits"]


class ThresholdUnits(NamedTuple):
    """What a population is; a number, or one for each unit."""

    v_threshold: float | NDArray[Any] = 1.0
