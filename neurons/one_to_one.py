"""Unit k of the source reaches unit k of the target, and no other."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError

__all__ = ["OneToOne"]


class OneToOne(NamedTuple):
    """One synapse for each unit."""

    weight: float | NDArray[Any] = 1.0  # a number, or real, shape (n,)

    def check(self, subject: str, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        """Raise ConfigError unless it fits between these shapes."""
        n = int(np.prod(source))
        if n != np.prod(target):
            raise ConfigError(f"{subject}: {source} and {target}, wanted as many units on both sides")
        if np.shape(self.weight) not in ((), (n,)):
            raise ConfigError(f"{subject}: weight of shape {np.shape(self.weight)}, wanted a number or shape ({n},)")
        if not np.all(np.isfinite(self.weight)):
            raise ConfigError(f"{subject}: a weight is not finite")
