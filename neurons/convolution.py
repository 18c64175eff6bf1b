"""Convolution in two dimensions, driven by events.

Equations
---------
Unit (oy, ox, o) of the target gets from unit (y, x, c) of the source, for every tap (ky, kx) with
``oy * stride_y + ky - padding_y == y`` and ``ox * stride_x + kx - padding_x == x``::

    weight[ky, kx, c mod (c_in / groups), o]           for the outputs o of c's group

that is the cross-correlation which frameworks call convolution. The output channels of a site stand together in memory,
both in the weights and in the potentials, so that a tap is one vector addition. Frameworks' weights
``(c_out, c_in / groups, k_h, k_w)`` become ours by ``transpose(2, 3, 1, 0)``.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError

__all__ = ["Convolution", "window_shape"]


def window_shape(
    source: tuple[int, ...], size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, int]:
    """Return height and width of what windows over a map make: ``(side + 2 padding - size) // stride + 1``."""
    height, width = (
        (side + 2 * pad - extent) // step + 1
        for side, extent, step, pad in zip(source[:2], size, stride, padding, strict=True)
    )
    return height, width


def check_windows(
    subject: str,
    source: tuple[int, ...],
    target: tuple[int, ...],
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> None:
    """Raise ConfigError unless windows over the source make the height and width of the target."""
    if len(source) != 3 or len(target) != 3:
        raise ConfigError(f"{subject}: shapes {source} and {target}, wanted two maps (height, width, channels)")
    for name, pair, lowest in (("size", size, 1), ("stride", stride, 1), ("padding", padding, 0)):
        if len(pair) != 2 or not all(isinstance(n, int | np.integer) and n >= lowest for n in pair):
            raise ConfigError(f"{subject} {name}: got {pair}, wanted two whole numbers (y, x), {lowest} or more")
    wanted = window_shape(source, size, stride, padding)
    if target[:2] != wanted:
        raise ConfigError(
            f"{subject}: the target is a map {target}, wanted height and width {wanted} from windows {tuple(size)}, "
            f"stride {tuple(stride)}, padding {tuple(padding)} over {source}"
        )


class Convolution(NamedTuple):
    """Cross-correlation of maps; pairs are (y, x)."""

    weight: NDArray[Any]  # real, shape (k_h, k_w, c_in // groups, c_out)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)  # on each side
    groups: int = 1

    def check(self, subject: str, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        """Raise ConfigError unless it fits between these shapes."""
        shape = np.shape(self.weight)
        if len(shape) != 4:
            raise ConfigError(f"{subject}: weight of shape {shape}, wanted (k_h, k_w, c_in // groups, c_out)")
        check_windows(subject, source, target, shape[:2], self.stride, self.padding)
        if self.groups < 1 or source[2] % self.groups or target[2] % self.groups:
            raise ConfigError(f"{subject} groups: got {self.groups}, wanted a divisor of {source[2]} and {target[2]}")
        wanted = (*shape[:2], source[2] // self.groups, target[2])
        if shape != wanted:
            raise ConfigError(f"{subject}: weight of shape {shape}, wanted {wanted}, (k_h, k_w, c_in // groups, c_out)")
        if not np.all(np.isfinite(self.weight)):
            raise ConfigError(f"{subject}: a weight is not finite")
