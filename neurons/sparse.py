"""Few synapses, in compressed rows: for each unit of the source the units it reaches, and with what weight."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError

__all__ = ["Sparse", "sparse_of"]


class Sparse(NamedTuple):
    """Synapses ``row_start[i]`` to ``row_start[i + 1] - 1`` are those of source unit i, ``unit`` ascending."""

    row_start: NDArray[Any]  # int64, shape (n_pre + 1,)
    unit: NDArray[Any]  # int64, shape (n_synapses,): of the target
    weight: NDArray[Any]  # real, shape (n_synapses,)

    def check(self, subject: str, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        """Raise ConfigError unless it fits between these shapes."""
        n_pre, n_post = int(np.prod(source)), int(np.prod(target))
        start, unit = np.asarray(self.row_start), np.asarray(self.unit)
        if start.shape != (n_pre + 1,) or unit.ndim != 1 or unit.shape != np.shape(self.weight):
            raise ConfigError(
                f"{subject}: row_start of shape {start.shape}, unit {unit.shape}, weight {np.shape(self.weight)}; "
                f"wanted ({n_pre + 1},), and two of the same length"
            )
        if start[0] != 0 or start[-1] != len(unit) or np.any(np.diff(start) < 0):
            raise ConfigError(f"{subject}: row_start has to rise from 0 to {len(unit)}, the number of synapses")
        if len(unit) and (unit.min() < 0 or unit.max() >= n_post):
            raise ConfigError(f"{subject}: unit from {unit.min()} to {unit.max()}, wanted 0 to {n_post - 1}")
        first = np.zeros(len(unit), bool)
        first[start[:-1][np.diff(start) > 0]] = True
        if np.any(np.diff(unit) <= 0, where=~first[1:]):
            raise ConfigError(
                f"{subject}: units of a row have to ascend, each once; neurons.sparse.sparse_of sorts them"
            )
        if not np.all(np.isfinite(self.weight)):
            raise ConfigError(f"{subject}: a weight is not finite")


def sparse_of(weight: NDArray[Any]) -> Sparse:
    """Keep what is not 0 of a full matrix, shape (n_pre, n_post)."""
    pre, post = np.nonzero(weight)
    start = np.zeros(len(weight) + 1, np.int64)
    np.cumsum(np.bincount(pre, minlength=len(weight)), out=start[1:])
    return Sparse(start, post.astype(np.int64), np.asarray(weight)[pre, post])
