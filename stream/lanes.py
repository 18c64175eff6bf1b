"""Loops over 64, 16 or 4 neighbours that run in full vectors, whatever the compiler thinks of them.

Numba turns a plain loop into vector instructions by guess: it takes sixteen channels for too few, and one row of many
arrays for too risky. Where a network spends its time, that guess cost a factor of three. So these few operations are
written as vectors of LLVM's own language. They are portable: a processor with shorter vectors takes several, one
without takes scalars. Every lane does what the loop in plain Python beside it does, in the same order, without
contraction; so the bits are the same on all of them.

Bits of a mask are lanes, the lowest first.
"""

from typing import Any

import numba

__all__ = ["integrate_4", "integrate_16", "integrate_64", "lowest_bit"]

_config: Any = numba.config


def _plain(n: int) -> Any:
    def integrate(v: Any, j: int, factor: Any, weight: Any, at: int, threshold: Any, down: Any, is_hard: bool) -> int:
        mask = 0
        for lane in range(n):
            u = v[j + lane] * factor + weight[at + lane]
            is_above = bool(u > threshold)
            v[j + lane] = (down if is_hard else u - down) if is_above else u
            mask |= int(is_above) << lane
        return mask

    return integrate


def _vector(n: int) -> Any:
    """Make ``integrate`` for n lanes.

    ``integrate(v, j, factor, weight, at, threshold, down, is_hard)``: ``v[j:j + n]`` leaks by ``factor``,
    ``weight[at:at + n]`` is added; what is then above the threshold is reset, to ``down`` if ``is_hard``, else by
    ``down``. Returns the int64 mask of the lanes that were. ``v`` and ``weight``: real, shape (any,), contiguous;
    ``factor``, ``threshold`` and ``down`` of the same type; places are not checked.
    """
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba import types
    from numba.extending import intrinsic

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        real = context.get_value_type(signature.args[0].dtype)
        vector, lane = ir.VectorType(real, n), ir.IntType(32)
        undefined = ir.Constant(vector, ir.Undefined)

        def spread(number: Any) -> Any:
            one = builder.insert_element(undefined, number, lane(0))
            return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(lane, n), [0] * n))

        def place(array: int, first: Any) -> Any:
            data = context.make_array(signature.args[array])(context, builder, values[array]).data
            return builder.bitcast(builder.gep(data, [first]), vector.as_pointer())

        size = signature.args[0].dtype.bitwidth // 8
        here = place(0, values[1])
        old = builder.load(here, align=size)
        row = builder.load(place(3, values[4]), align=size)
        new = builder.fadd(builder.fmul(old, spread(values[2])), row)
        is_above = builder.fcmp_ordered(">", new, spread(values[5]))
        down = spread(values[6])
        reset = builder.select(values[7], down, builder.fsub(new, down))
        builder.store(builder.select(is_above, reset, new), here, align=size)
        mask = builder.bitcast(is_above, ir.IntType(n))
        return mask if n == 64 else builder.zext(mask, ir.IntType(64))

    def integrate(
        typing: Any, v: Any, j: Any, factor: Any, weight: Any, at: Any, threshold: Any, down: Any, is_hard: Any
    ) -> Any:
        real = v.dtype
        return types.int64(v, types.int64, real, weight, types.int64, real, real, types.boolean), emit

    return intrinsic(integrate)


def _lowest() -> Any:
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.IntType(1)(0))

    def lowest_bit(typing: Any, mask: Any) -> Any:
        return types.int64(types.int64), emit

    return intrinsic(lowest_bit)


def _plain_lowest(mask: int) -> int:
    """Return the place of the lowest bit that is set; 64 if none is."""
    return (mask & -mask).bit_length() - 1 if mask else 64


if _config.DISABLE_JIT:
    integrate_64, integrate_16, integrate_4, lowest_bit = _plain(64), _plain(16), _plain(4), _plain_lowest
else:
    integrate_64, integrate_16, integrate_4, lowest_bit = _vector(64), _vector(16), _vector(4), _lowest()
