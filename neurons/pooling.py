"""Pooling by sums: each channel by itself, every tap of the window has the same weight.

With ``weight = 1 / (height * width of the window)`` the sum is an average.
"""

from typing import NamedTuple

import numpy as np

from neurons.convolution import check_windows
from stream.errors import ConfigError

__all__ = ["Pooling"]


class Pooling(NamedTuple):
    """Sum over windows of a map, channel by channel; pairs are (y, x)."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)  # on each side, of zeros
    weight: float = 1.0

    def check(self, subject: str, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        """Raise ConfigError unless it fits between these shapes."""
        check_windows(subject, source, target, self.size, self.stride, self.padding)
        if source[2] != target[2]:
            raise ConfigError(f"{subject}: {source[2]} channels become {target[2]}, wanted as many as before")
        if not np.isfinite(self.weight):
            raise ConfigError(f"{subject} weight: got {self.weight}, wanted a finite number")
