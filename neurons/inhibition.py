"""Lateral inhibition: every unit but the sender gets the same push down.

From a population to itself, with a delay of 1 us or more (it is a cycle), it lets the first that fires hold back the
rest: winner take all. Costs no memory for weights: one row of ``2 n - 1`` numbers with a 0 in its middle serves all
senders, each reads its own n of them.
"""

from typing import NamedTuple

import numpy as np

from stream.errors import ConfigError

__all__ = ["Inhibition"]


class Inhibition(NamedTuple):
    """All to all but oneself, with one weight."""

    strength: float  # above 0 inhibits: the weight is -strength

    def check(self, subject: str, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        """Raise ConfigError unless it fits between these shapes."""
        if np.prod(source) != np.prod(target):
            raise ConfigError(f"{subject}: {source} and {target}, wanted as many units on both sides")
        if not np.isfinite(self.strength):
            raise ConfigError(f"{subject} strength: got {self.strength}, wanted a finite number")
