"""All to all with weights of 8 bits: a quarter of the memory, which is what a layer that many events reach waits for.

Unit j of the target gets ``scale[j] * weight[i, j]`` from unit i of the source, weight being whole numbers from -127 to
127. It is the network that one gets from quantisation, here and on a chip; :func:`dense` tells its weights.

Right behind the input (see ``neurons.engine``, "Whole numbers") the sums of a microsecond are kept as whole numbers:
``v + scale * sum``, rounded when time goes on. Sums of whole numbers do not depend on their order, and a rounded sum
rises with what it rounds. So the highest of all sums of a microsecond tells exactly whether a unit was ever above its
threshold, and only units that were are looked at event by event. Elsewhere these weights are real numbers as all
others are.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.dense import Dense
from stream.errors import ConfigError

__all__ = ["QuantisedDense", "dense", "quantised"]

MOST = 127  # not -128: a negative weight is as exact as a positive one


class QuantisedDense(NamedTuple):
    """All to all, in 8 bits."""

    weight: NDArray[Any]  # int8, shape (n_pre, n_post)
    scale: NDArray[Any]  # real, shape (n_post,): what a weight of 1 adds to each unit

    def check(self, subject: str, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        """Raise ConfigError unless it fits between these shapes."""
        wanted = (int(np.prod(source)), int(np.prod(target)))
        if np.shape(self.weight) != wanted or np.shape(self.scale) != wanted[1:]:
            raise ConfigError(
                f"{subject}: weight of shape {np.shape(self.weight)} and scale {np.shape(self.scale)}, wanted "
                f"{wanted}, (n_pre, n_post), and {wanted[1:]}"
            )
        if np.asarray(self.weight).dtype != np.int8 or np.any(np.asarray(self.weight) == -128):
            raise ConfigError(
                f"{subject}: wanted weights of type int8 from -127 to 127; neurons.quantised_dense makes them"
            )
        if not np.all(np.isfinite(self.scale)) or not np.all(np.asarray(self.scale) > 0):
            raise ConfigError(f"{subject}: a scale is not a finite number above 0")


def quantised(topology: Dense) -> QuantisedDense:
    """Round weights to 8 bits; the largest of each unit of the target becomes 127, or -127.

    Scales are float32: the bits of a network do not depend on the precision in which it is run.
    """
    weight = np.asarray(topology.weight, np.float64)
    scale = (np.max(np.abs(weight), axis=0, initial=0.0) / MOST).astype(np.float32)
    scale[scale == 0.0] = 1.0
    whole = np.clip(np.rint(weight / scale), -MOST, MOST)
    return QuantisedDense(whole.astype(np.int8), scale)


def dense(topology: QuantisedDense) -> Dense:
    """Return the same synapses as real numbers: float64, exact."""
    return Dense(topology.weight.astype(np.float64) * np.asarray(topology.scale, np.float64))
