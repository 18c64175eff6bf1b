"""Linear maps between the lines and maps of NIR, channels first: merged, multiplied out, as lists of synapses.

What stands between two populations of a NIR graph is a chain of them; a projection of ours is one.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurons.convolution import window_shape
from neurons.graph import Shape, n_units
from stream.errors import ConfigError

__all__ = [
    "LinearMap",
    "Matrix",
    "Scale",
    "Synapses",
    "Values",
    "Windows",
    "applied",
    "channel_values",
    "check_size",
    "joined",
    "reduced",
    "synapses_of",
    "width_of",
]

MOST_SYNAPSES = 2**26  # of a chain that is multiplied out, or a matrix that is filled up

Values: TypeAlias = NDArray[np.float64]


class Matrix(NamedTuple):
    """All to all."""

    weight: NDArray[Any]  # (n_post, n_pre)


class Windows(NamedTuple):
    """A convolution; a pool is one with a channel for each group."""

    weight: NDArray[Any]  # (c_out, c_in // groups, k_h, k_w)
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int
    source: Shape  # (c_in, height, width)
    pooled: float | None = None  # a pool: its one weight

    @property
    def target(self) -> Shape:
        """The map that it makes."""
        size = (self.weight.shape[2], self.weight.shape[3])
        return (self.weight.shape[0], *window_shape(self.source[1:], size, self.stride, self.padding))


class Scale(NamedTuple):
    """Unit by unit."""

    values: NDArray[Any]  # full shape


LinearMap: TypeAlias = Matrix | Windows | Scale


class Synapses(NamedTuple):
    """Any of them, one by one; arrays of shape (n,)."""

    pre: NDArray[np.int64]
    post: NDArray[np.int64]
    weight: NDArray[Any]


def check_size(count: int) -> None:
    """Raise ConfigError if so many synapses are too many to be listed."""
    if count > MOST_SYNAPSES:
        raise ConfigError(
            f"nodes of a NIR graph that stand in a row without a neuron between them: multiplied out they have {count} "
            f"synapses, wanted {MOST_SYNAPSES} at most; put neurons between them, or merge them before the export"
        )


def synapses_of(op: LinearMap) -> Synapses:
    """List the synapses of a linear map, in NIR's order of units."""
    match op:
        case Matrix(weight):
            check_size(weight.size)
            post, pre = np.divmod(np.arange(weight.size), weight.shape[1])
            return Synapses(pre, post, weight.reshape(-1))
        case Scale(values):
            units = np.arange(values.size)
            return Synapses(units, units, values.reshape(-1))
    weight, (stride_y, stride_x), (pad_y, pad_x), groups, (_, height, width), _ = op
    c_out, c_in_group, k_h, k_w = weight.shape
    _, out_h, out_w = op.target
    check_size(weight.size * out_h * out_w)
    outs: NDArray[Any] = np.arange(c_out)[:, None]
    ins = outs // (c_out // groups) * c_in_group + np.arange(c_in_group)
    parts: list[Synapses] = []
    for ky in range(k_h):
        oy = np.arange(out_h)
        y = oy * stride_y + ky - pad_y
        oy, y = oy[(y >= 0) & (y < height)], y[(y >= 0) & (y < height)]
        for kx in range(k_w):
            ox = np.arange(out_w)
            x = ox * stride_x + kx - pad_x
            ox, x = ox[(x >= 0) & (x < width)], x[(x >= 0) & (x < width)]
            pre = (ins[:, :, None, None] * height + y[:, None]) * width + x
            across = np.broadcast_to((outs[:, :, None, None] * out_h + oy[:, None]) * out_w + ox, pre.shape)
            values = np.broadcast_to(weight[:, :, ky, kx, None, None], pre.shape)
            parts.append(Synapses(pre.reshape(-1), across.reshape(-1), values.reshape(-1)))
    return Synapses(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def applied(op: LinearMap, vector: Values) -> Values:
    """Send a vector of a source's units, in one line, through a linear map."""
    if isinstance(op, Matrix):
        return np.asarray(op.weight, np.float64) @ vector
    found = synapses_of(op)
    n_post = op.values.size if isinstance(op, Scale) else n_units(op.target)
    return np.asarray(np.bincount(found.post, found.weight * vector[found.pre], minlength=n_post), np.float64)


def joined(first: Synapses, second: Synapses, n_middle: int) -> Synapses:
    """Multiply two linear maps out; several synapses may join the same two units."""
    order = np.argsort(second.pre, kind="stable")
    start = np.searchsorted(second.pre[order], np.arange(n_middle + 1))
    counts = np.diff(start)[first.post]
    check_size(int(counts.sum()))
    which = np.repeat(np.arange(len(first.pre)), counts)
    nth = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    follower = order[start[first.post[which]] + nth]
    return Synapses(first.pre[which], second.post[follower], first.weight[which] * second.weight[follower])


def channel_values(values: NDArray[Any]) -> NDArray[Any] | None:
    """Return one number for each channel of a map if that is all there is to it."""
    if values.ndim != 3 or np.any(values != values[:, :1, :1]):
        return None
    return values[:, 0, 0]


def _pool_and(pool: Windows, after: Windows) -> Windows | None:
    """Merge a pool and the windows over it into one kernel; None where the edges would differ."""
    (size_y, size_x), stride = pool.weight.shape[2:], pool.stride
    if pool.pooled is None or pool.padding != (0, 0):
        return None
    for side, size, step, pad, n in zip(
        pool.source[1:], (size_y, size_x), stride, after.padding, pool.target[1:], strict=True
    ):
        # what windows see beyond the edge of the pool is 0, but rows that the pool leaves out are not
        if pad and (size > step or n * step < side):
            return None
    c_out, c_in, k_h, k_w = after.weight.shape
    kernel = np.zeros((c_out, c_in, (k_h - 1) * stride[0] + size_y, (k_w - 1) * stride[1] + size_x), after.weight.dtype)
    values = after.weight if pool.pooled == 1.0 else after.weight * np.float64(pool.pooled)
    kernel = kernel.astype(values.dtype)
    for ky in range(k_h):
        for kx in range(k_w):
            y, x = ky * stride[0], kx * stride[1]
            kernel[:, :, y : y + size_y, x : x + size_x] += values[:, :, ky, kx, None, None]
    pooled = None
    if after.pooled is not None and np.all(kernel == kernel[:1, :1, :1, :1]):
        pooled = float(kernel[0, 0, 0, 0])
    return Windows(
        kernel,
        (after.stride[0] * stride[0], after.stride[1] * stride[1]),
        (after.padding[0] * stride[0], after.padding[1] * stride[1]),
        after.groups,
        pool.source,
        pooled,
    )


def _merged(first: LinearMap, second: LinearMap) -> LinearMap | None:
    """Make one linear map of two; None if it would not be one of the three kinds."""
    match first, second:
        case Matrix(a), Matrix(b):
            return Matrix(b @ a)
        case Matrix(a), Scale(s):
            return Matrix(a * s.reshape(-1, 1))
        case Scale(s), Matrix(b):
            return Matrix(b * s.reshape(1, -1))
        case Scale(s), Scale(r):
            return Scale(s * r)
        case Windows(), Scale(s):
            channels = channel_values(s)
            if channels is None:
                return None
            return first._replace(weight=first.weight * channels[:, None, None, None], pooled=None)
        case Scale(s), Windows(weight=b, groups=groups):
            channels = channel_values(s)
            if channels is None:
                return None
            ins = np.arange(b.shape[0])[:, None] // (b.shape[0] // groups) * b.shape[1] + np.arange(b.shape[1])
            return second._replace(weight=b * channels[ins][:, :, None, None], pooled=None)
        case Windows(), Windows():
            return _pool_and(first, second)
        case Windows(), Matrix(b):
            pre, post, weight = synapses_of(first)
            n_pre = n_units(first.source)
            check_size(n_pre * len(b))
            rows = np.zeros((n_pre, len(b)), np.result_type(b, weight))
            for k in range(0, len(pre), 4096):  # in pieces: each holds a row of the matrix for every synapse
                part = slice(k, k + 4096)
                np.add.at(rows, pre[part], b.T[post[part]] * weight[part, None])
            return Matrix(rows.T)
    return None


def reduced(ops: list[LinearMap]) -> tuple[list[LinearMap], float]:
    """Merge what can be merged. Returns what is left, and a factor that holds for all of it."""
    factor = 1.0
    left: list[LinearMap] = []
    for op in ops:
        if isinstance(op, Scale) and np.all(op.values == op.values.flat[0]):
            factor *= float(op.values.flat[0])
            continue
        left.append(op)
        while len(left) > 1 and (one := _merged(left[-2], left[-1])) is not None:
            left[-2:] = [one]
    return left, factor


def width_of(op: LinearMap) -> int:
    """Count the units before a linear map."""
    match op:
        case Matrix(weight):
            return int(weight.shape[1])
        case Scale(values):
            return values.size
        case Windows(source=shape):
            return n_units(shape)
