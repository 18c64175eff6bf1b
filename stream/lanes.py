"""Loops over neighbours, 4 to 256 at once, that run in full vectors, whatever the compiler thinks of them.

Numba turns a plain loop into vector instructions by guess: it takes sixteen channels for too few, and one row of many
arrays for too risky. Where a network spends its time, that guess cost a factor of three. So these few operations are
written as vectors of LLVM's own language. They are portable: a processor with shorter vectors takes several, one
without takes scalars. Every lane does what the loop in plain Python beside it does, in the same order, without
contraction; so the bits are the same on all of them.

Bits of a mask are lanes, the lowest first.
"""

import math
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "above_16",
    "above_64",
    "add_16",
    "add_64",
    "add_256",
    "aligned",
    "all_aligned",
    "dot",
    "fused",
    "integrate_4",
    "integrate_16",
    "integrate_64",
    "lowest_bit",
    "prefetch",
    "sum_16",
    "sum_64",
    "sum_256",
]

_config: Any = numba.config
Arrays = TypeVar("Arrays", bound=NamedTuple)
DOT_LANES = 32


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Copy an array to where a cache line begins: vectors that cross lines take up to twice as long."""
    room = np.empty(array.nbytes + 64, np.uint8)
    begin = -room.ctypes.data % 64
    copy: NDArray[Any] = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def all_aligned(arrays: Arrays) -> Arrays:
    """Copy the arrays of a tuple in the same way."""
    given: Any = arrays
    copies: Arrays = given._replace(**{name: aligned(array) for name, array in given._asdict().items()})
    return copies


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
    from llvmlite import ir  # type: ignore[import-untyped] # it has no types
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


def _plain_sum(n: int) -> Any:
    def sum_rows(
        v: Any, j: int, factor: Any, row: Any, places: Any, m: int, scale: Any, at: int, threshold: Any, masks: Any
    ) -> int:
        real = v.dtype.type
        masks[: max(n // 64, 1)] = 0
        anyone = 0
        for lane in range(n):
            total, most = 0, -(2**15)
            for e in range(m):
                total += int(row[places[e] + at + lane])
                most = max(most, total)
            u, step = v[j + lane] * factor, scale[at + lane]
            if u + step * real(most) > threshold:
                anyone = 1
                bit = 1 << lane % 64
                masks[lane // 64] |= bit - 2**64 if bit == 2**63 else bit
            else:
                v[j + lane] = u + step * real(total)
        return anyone

    return sum_rows


def _vector_sum(n: int) -> Any:
    """Make ``sum_rows`` for n lanes.

    ``sum_rows(v, j, factor, row, places, m, scale, at, threshold, masks)``: ``v[j:j + n]`` leaks by ``factor``, and
    whole numbers ``row[places[e] + at:][:n]`` are added up, for e from 0 to m - 1, and their sums times
    ``scale[at:at + n]`` are added. Lanes that are above the threshold with the highest of the m sums are left as they
    were instead, and their bits are set in ``masks``, 64 to a word; returns 0 if there are none.

    ``v`` and ``scale``: real, shape (any,), contiguous; ``factor`` and ``threshold`` of the same type; ``row``: int8,
    ``places`` and ``masks``: int64, contiguous. m is at most 256, so that 16 bits hold a sum; places are not checked.
    """
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils as untyped
    from numba.extending import intrinsic

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        real = context.get_value_type(signature.args[0].dtype)
        size = signature.args[0].dtype.bitwidth // 8
        cgutils: Any = untyped
        word, lane, step = ir.IntType(64), ir.IntType(32), min(n, 64)
        wide, part = ir.VectorType(ir.IntType(16), n), ir.VectorType(real, step)

        def data(array: int) -> Any:
            return context.make_array(signature.args[array])(context, builder, values[array]).data

        def place(array: int, first: Any, kind: Any) -> Any:
            return builder.bitcast(builder.gep(data(array), [first]), kind.as_pointer())

        def spread(number: Any) -> Any:
            undefined = ir.Constant(part, ir.Undefined)
            one = builder.insert_element(undefined, number, lane(0))
            return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(lane, step), [0] * step))

        # the compiler makes registers of them
        total, most = cgutils.alloca_once(builder, wide), cgutils.alloca_once(builder, wide)
        builder.store(ir.Constant(wide, [0] * n), total)
        builder.store(ir.Constant(wide, [-(2**15)] * n), most)
        with cgutils.for_range(builder, values[5], intp=word) as loop:
            begin = builder.load(builder.gep(data(4), [loop.index]))
            here = place(3, builder.add(begin, values[7]), ir.VectorType(ir.IntType(8), n))
            new = builder.add(builder.load(total), builder.sext(builder.load(here, align=1), wide))
            old = builder.load(most)
            builder.store(new, total)
            builder.store(builder.select(builder.icmp_signed(">", new, old), new, old), most)
        anyone = word(0)
        for first in range(0, n, step):
            some = ir.Constant(ir.VectorType(lane, step), list(range(first, first + step)))

            def as_real(whole: Any, some: Any = some) -> Any:
                numbers = builder.shuffle_vector(builder.load(whole), ir.Constant(wide, ir.Undefined), some)
                return builder.sitofp(numbers, part)

            here = place(0, builder.add(values[1], word(first)), part)
            old = builder.load(here, align=size)
            u = builder.fmul(old, spread(values[2]))
            scale = builder.load(place(6, builder.add(values[7], word(first)), part), align=size)
            highest = builder.fadd(u, builder.fmul(scale, as_real(most)))
            is_above = builder.fcmp_ordered(">", highest, spread(values[8]))
            new = builder.fadd(u, builder.fmul(scale, as_real(total)))
            builder.store(builder.select(is_above, old, new), here, align=size)
            mask = builder.bitcast(is_above, ir.IntType(step))
            mask = mask if step == 64 else builder.zext(mask, word)
            builder.store(mask, builder.gep(data(9), [word(first // 64)]))
            anyone = builder.or_(anyone, mask)
        return anyone

    def sum_rows(
        typing: Any,
        v: Any,
        j: Any,
        factor: Any,
        row: Any,
        places: Any,
        m: Any,
        scale: Any,
        at: Any,
        threshold: Any,
        masks: Any,
    ) -> Any:
        real, word = v.dtype, types.int64
        return types.int64(v, word, real, row, places, word, scale, word, real, masks), emit

    return intrinsic(sum_rows)


def _plain_above(n: int) -> Any:
    def above(v: Any, j: int, threshold: Any) -> int:
        mask = 0
        for lane in range(n):
            mask |= int(v[j + lane] > threshold) << lane
        return mask - 2**64 if mask >= 2**63 else mask

    return above


def _vector_above(n: int) -> Any:
    """Make ``above`` for n lanes.

    ``above(v, j, threshold)`` returns the int64 mask of those of ``v[j:j + n]`` that are above the threshold. ``v``:
    real, shape (any,), contiguous; ``threshold`` of the same type; places are not checked.
    """
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        real = context.get_value_type(signature.args[0].dtype)
        vector, lane = ir.VectorType(real, n), ir.IntType(32)
        undefined = ir.Constant(vector, ir.Undefined)
        one = builder.insert_element(undefined, values[2], lane(0))
        threshold = builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(lane, n), [0] * n))
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        place = builder.bitcast(builder.gep(data, [values[1]]), vector.as_pointer())
        here = builder.load(place, align=signature.args[0].dtype.bitwidth // 8)
        mask = builder.bitcast(builder.fcmp_ordered(">", here, threshold), ir.IntType(n))
        return mask if n == 64 else builder.zext(mask, ir.IntType(64))

    def above(typing: Any, v: Any, j: Any, threshold: Any) -> Any:
        return types.int64(v, types.int64, v.dtype), emit

    return intrinsic(above)


def _plain_add(n: int) -> Any:
    def add_rows(out: Any, begin: Any, row: Any, which: Any, first: int, last: int, stride: int, at: int) -> None:
        for lane in range(n):
            total = int(begin[at + lane])
            for e in range(first, last):
                total += int(row[int(which[e]) * stride + at + lane])
            out[at + lane] = total

    return add_rows


def _vector_add(n: int) -> Any:
    """Make ``add_rows`` for n lanes.

    ``add_rows(out, begin, row, which, first, last, stride, at)``: ``out[at:at + n]`` becomes ``begin[at:at + n]`` and
    the sum of ``row[which[e] * stride + at:][:n]`` for e from ``first`` to ``last - 1``.

    ``out`` and ``begin``: int32, ``row``: int8, ``which``: int32, all shape (any,), contiguous. ``last - first`` is at
    most 256, so that 16 bits hold a sum; it is for the caller to know that 32 hold the rest. Places are not checked.
    """
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils as untyped
    from numba.extending import intrinsic

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        cgutils: Any = untyped
        word = ir.IntType(64)
        narrow, wide, widest = (ir.VectorType(ir.IntType(bits), n) for bits in (8, 16, 32))

        def place(array: int, at: Any, kind: Any) -> Any:
            data = context.make_array(signature.args[array])(context, builder, values[array]).data
            return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())

        # the compiler makes registers of it
        total = cgutils.alloca_once(builder, wide)
        builder.store(ir.Constant(wide, [0] * n), total)
        with cgutils.for_range(builder, builder.sub(values[5], values[4]), intp=word) as loop:
            number = builder.load(place(3, builder.add(values[4], loop.index), ir.IntType(32)))
            begin = builder.mul(builder.zext(number, word), values[6])
            here = place(2, builder.add(begin, values[7]), narrow)
            numbers = builder.sext(builder.load(here, align=1), wide)
            builder.store(builder.add(builder.load(total), numbers), total)
        old = builder.load(place(1, values[7], widest), align=4)
        new = builder.add(old, builder.sext(builder.load(total), widest))
        builder.store(new, place(0, values[7], widest), align=4)
        return context.get_dummy_value()

    def add_rows(
        typing: Any, out: Any, begin: Any, row: Any, which: Any, first: Any, last: Any, stride: Any, at: Any
    ) -> Any:
        word = types.int64
        return types.none(out, begin, row, which, word, word, word, word), emit

    return intrinsic(add_rows)


def _plain_dot(left: Any, right: Any, n: int) -> Any:
    zero = left.dtype.type(0.0)
    lanes = [zero] * DOT_LANES
    whole = n - n % DOT_LANES
    for first in range(0, whole, DOT_LANES):
        for lane in range(DOT_LANES):
            lanes[lane] = lanes[lane] + left[first + lane] * right[first + lane]
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [a + b for a, b in zip(lanes[:half], lanes[half:], strict=True)]
    total = lanes[0]
    for k in range(whole, n):
        total = total + left[k] * right[k]
    return total


def _dot() -> Any:
    """Make ``dot(left, right, n)``: the sum of ``left[k] * right[k]`` for k from 0 to n - 1.

    In 32 lanes, of which the upper half is added to the lower until one is left; then what is left over, one after the
    other. ``left`` and ``right``: real, of one type, shape (n or more,), contiguous. Places are not checked.
    """
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils as untyped
    from numba.extending import intrinsic

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        real = context.get_value_type(signature.return_type)
        size = signature.return_type.bitwidth // 8
        cgutils: Any = untyped
        word, lane, n = ir.IntType(64), ir.IntType(32), values[2]
        wide = ir.VectorType(real, DOT_LANES)
        data = [
            context.make_array(kind)(context, builder, array).data
            for kind, array in zip(signature.args[:2], values[:2], strict=True)
        ]

        def product(at: Any, kind: Any) -> Any:
            left, right = (builder.bitcast(builder.gep(start, [at]), kind.as_pointer()) for start in data)
            return builder.fmul(builder.load(left, align=size), builder.load(right, align=size))

        # the compiler makes registers of them
        lanes, total = cgutils.alloca_once(builder, wide), cgutils.alloca_once(builder, real)
        builder.store(ir.Constant(wide, [0.0] * DOT_LANES), lanes)
        n_whole = builder.udiv(n, word(DOT_LANES))
        with cgutils.for_range(builder, n_whole, intp=word) as loop:
            here = product(builder.mul(loop.index, word(DOT_LANES)), wide)
            builder.store(builder.fadd(builder.load(lanes), here), lanes)
        sums, half = builder.load(lanes), DOT_LANES // 2
        while half:
            undefined = ir.Constant(sums.type, ir.Undefined)
            lower, upper = (
                builder.shuffle_vector(
                    sums, undefined, ir.Constant(ir.VectorType(lane, half), list(range(first, first + half)))
                )
                for first in (0, half)
            )
            sums, half = builder.fadd(lower, upper), half // 2
        builder.store(builder.extract_element(sums, lane(0)), total)
        begin = builder.mul(n_whole, word(DOT_LANES))
        with cgutils.for_range(builder, builder.sub(n, begin), intp=word) as loop:
            here = product(builder.add(begin, loop.index), real)
            builder.store(builder.fadd(builder.load(total), here), total)
        return builder.load(total)

    def dot(typing: Any, left: Any, right: Any, n: Any) -> Any:
        return left.dtype(left, right, types.int64), emit

    return intrinsic(dot)


def _plain_fused(a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c``, rounded once, not twice; float32. The sum may not overflow.

    In float64 the product is exact. The sum is made odd in its last place where that is not exact; so rounding it to
    float32 cannot meet a tie that is none (Boldo and Melquiond, IEEE Trans. Comput. 57:462, 2008).
    """
    product, addend = float(a) * float(b), float(c)
    total = product + addend
    back = total - product
    lost = (product - (total - back)) + (addend - back)
    if lost != 0 and not int(np.float64(total).view(np.int64)) & 1:
        total = float(np.nextafter(total, math.copysign(math.inf, lost)))
    return np.float32(total)


def _fused() -> Any:
    from numba import types
    from numba.extending import intrinsic

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fma(*values)

    def fused(typing: Any, a: Any, b: Any, c: Any) -> Any:
        return types.float32(types.float32, types.float32, types.float32), emit

    return intrinsic(fused)


def _lowest() -> Any:
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.IntType(1)(0))

    def lowest_bit(typing: Any, mask: Any) -> Any:
        return types.int64(types.int64), emit

    return intrinsic(lowest_bit)


def _prefetch() -> Any:
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        there = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        # to be written to (1), soon needed again (3), data (1)
        builder.call(there, [builder.bitcast(builder.gep(data, [values[1]]), byte), number(1), number(3), number(1)])
        return context.get_dummy_value()

    def prefetch(typing: Any, array: Any, at: Any) -> Any:
        return types.none(array, types.int64), emit

    return intrinsic(prefetch)


def _plain_prefetch(array: Any, at: int) -> None:
    """Begin to bring ``array[at]`` near, and do not wait; it need not exist."""


def _plain_lowest(mask: int) -> int:
    """Return the place of the lowest bit that is set; 64 if none is."""
    mask = int(mask)  # NumPy's own whole numbers know no bit_length everywhere
    return (mask & -mask).bit_length() - 1 if mask else 64


if _config.DISABLE_JIT:
    integrate_64, integrate_16, integrate_4 = _plain(64), _plain(16), _plain(4)
    lowest_bit, prefetch = _plain_lowest, _plain_prefetch
    sum_256, sum_64, sum_16 = _plain_sum(256), _plain_sum(64), _plain_sum(16)
    add_256, add_64, add_16 = _plain_add(256), _plain_add(64), _plain_add(16)
    above_64, above_16, fused, dot = _plain_above(64), _plain_above(16), _plain_fused, _plain_dot
else:
    integrate_64, integrate_16, integrate_4 = _vector(64), _vector(16), _vector(4)
    lowest_bit, prefetch = _lowest(), _prefetch()
    sum_256, sum_64, sum_16 = _vector_sum(256), _vector_sum(64), _vector_sum(16)
    add_256, add_64, add_16 = _vector_add(256), _vector_add(64), _vector_add(16)
    above_64, above_16, fused, dot = _vector_above(64), _vector_above(16), _fused(), _dot()
