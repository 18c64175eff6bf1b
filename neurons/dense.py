"""All to all: every unit of the source reaches every unit of the target."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError

__all__ = ["Dense"]


class Dense(NamedTuple):
    """All to all."""

    weight: NDArray[Any]  # real, shape (n_pre, n_post)

    def check(self, subject: str, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        """Raise ConfigError unless it fits between these shapes."""
        wanted = (int(np.prod(source)), int(np.prod(target)))
        if np.shape(self.weight) != wanted:
            raise ConfigError(f"{subject}: weight of shape {np.shape(self.weight)}, wanted {wanted}, (n_pre, n_post)")
        if not np.all(np.isfinite(self.weight)):
            raise ConfigError(f"{subject}: a weight is not finite")
