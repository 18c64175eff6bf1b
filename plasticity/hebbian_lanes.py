"""One event of the Hebbian rule on 64 or 16 units in full vectors; why so: ``stream.lanes``.

The compiler does not keep both forms of tanh apart in a loop that it turns into vectors: it computes both, the division
included, for every unit. Here the division is behind a branch that is taken when a block holds a unit that needs it.

Every lane does what the loop in plain Python beside it does, in the same order, without contraction but where that is
asked for: the polynomial is evaluated with ``stream.lanes.fused``, in half the instructions.
"""

from typing import Any

import numba
import numpy as np

from stream.jit import kernel
from stream.lanes import fused

__all__ = [
    "SMALL_SQUARE",
    "grown",
    "kind_of",
    "learn_16",
    "learn_64",
    "most_square",
    "tanh_rational",
    "tanh_small",
    "tanh_wide",
]

_config: Any = numba.config

ALL, AT_ONE, PLAIN = range(3)  # what ``kind_of`` tells

SMALL_SQUARE = 1.05**2  # beyond the threshold by as much as most are that pass it
SMALL = (-0.33298365384258943, 0.13008252531208434, -0.044080508238922046, 0.00856668205427936)
WIDE = 6.4
WIDE_P = (0.9998387263518552, 0.11297849861582801, 0.0014140611983519944)
WIDE_Q = (1.0, 0.44602613845222755, 0.016966904455941602, 5.04175614010898e-05)
P_1, P_2, Q_1, Q_2 = 0.11047896964121169, 0.0010173103508888616, 0.44381229373180214, 0.015621540394684197


@kernel
def tanh_rational(x: Any) -> Any:
    """Approximate tanh without a branch, for float64; error 2e-10."""
    real = type(x)
    one, limit, two = real(1.0), real(12.0), real(2.0)
    y = min(max(x, -limit), limit) * real(0.25)
    s = y * y
    p = y * (one + s * (real(P_1) + s * real(P_2)))
    q = one + s * (real(Q_1) + s * real(Q_2))
    p, q = two * p * q, p * p + q * q
    return two * p * q / (p * p + q * q)


@kernel
def tanh_small(y: Any) -> Any:
    """Approximate tanh for y^2 <= ``SMALL_SQUARE``, float32; relative error 1.2e-5."""
    s = np.float32(y * y)
    p = np.float32(SMALL[3])
    p = fused(p, s, np.float32(SMALL[2]))
    p = fused(p, s, np.float32(SMALL[1]))
    p = fused(p, s, np.float32(SMALL[0]))
    return fused(y, np.float32(s * p), y)


@kernel
def tanh_wide(y: Any) -> Any:
    """Approximate tanh for y^2 > ``SMALL_SQUARE``, float32; relative error 1.4e-5."""
    x = min(max(np.float32(y), np.float32(-WIDE)), np.float32(WIDE))
    s = np.float32(x * x)
    p = fused(np.float32(WIDE_P[2]), s, np.float32(WIDE_P[1]))
    p = fused(p, s, np.float32(WIDE_P[0]))
    q = fused(np.float32(WIDE_Q[3]), s, np.float32(WIDE_Q[2]))
    q = fused(q, s, np.float32(WIDE_Q[1]))
    q = fused(q, s, np.float32(WIDE_Q[0]))
    return np.float32(np.float32(x * p) / q)


@kernel
def grown(old: Any, y: Any, step: Any) -> Any:
    """Approximate ``old + step tanh y`` for y^2 <= ``SMALL_SQUARE``, float32; the same polynomial times ``step``."""
    s = np.float32(y * y)
    p = np.float32(SMALL[3]) * step
    p = fused(p, s, np.float32(SMALL[2]) * step)
    p = fused(p, s, np.float32(SMALL[1]) * step)
    p = fused(p, s, np.float32(SMALL[0]) * step)
    return fused(y, fused(p, s, step), old)


@kernel
def most_square(sliding: Any, first: int, n: int) -> Any:
    """Return a number that no y^2 is above as long as nobody is above the threshold, nor beyond ``tanh_small``.

    A unit is above it when ``y + sliding`` is above 1, but for what is rounded, twice; which 2^-21 is more than.
    ``sliding``: float32 or float64, shape (any,); of the units ``first`` to ``first + n - 1``.
    """
    real = sliding.dtype.type
    highest = sliding[first]
    for j in range(first + 1, first + n):
        highest = max(highest, sliding[j])
    room = 1.0 - np.float64(highest) - 2.0**-21
    return real(min(room * room * (1.0 - 2.0**-20), SMALL_SQUARE)) if room > 0.0 else real(-1.0)


@kernel
def kind_of(threshold: Any, sliding: Any, first: int, n: int) -> Any:
    """Tell what is to be computed: ``ALL``; no inverse, as the threshold is 1; or no sliding threshold either.

    ``PLAIN`` is what defaults give: 4 to 8 % faster without the inverse, another 5 % if no sliding threshold is read.
    """
    kind: Any = np.int64(ALL)
    if threshold == 1.0:
        is_slid = False
        for j in range(first, first + n):
            is_slid |= sliding[j] != 0.0
        kind = np.int64(AT_ONE) if is_slid else np.int64(PLAIN)
    return kind


def _plain(n: int) -> Any:
    def learn(
        v: Any, j: int, factor: Any, weight: Any, at: int, hebb: Any, at_hebb: int, sliding: Any, at_sliding: int,
        alpha: Any, threshold: Any, inverse: Any, step: Any, high: Any, most: Any, kind: int,
    ) -> bool:  # fmt: skip
        anyone = False
        for lane in range(n):
            old = hebb[at_hebb + lane]
            u = v[j + lane] * factor + (weight[at + lane] + alpha * old)
            v[j + lane] = u
            anyone |= bool(u > threshold)
            y = u * inverse - sliding[at_sliding + lane]
            if v.itemsize == 8:
                new = old + step * tanh_rational(y)
            elif y * y <= type(y)(SMALL_SQUARE):
                new = grown(old, y, step)
            else:
                new = old + step * tanh_wide(y)
            hebb[at_hebb + lane] = min(max(new, -high), high)
        return anyone

    return learn


def _vector(n: int) -> Any:
    """Make ``learn`` for n lanes.

    ``learn(v, j, factor, weight, at, hebb, at_hebb, sliding, at_sliding, alpha, threshold, inverse, step, high, most,
    kind)``

    ``v[j:j + n]`` leaks by ``factor``; ``weight[at:at + n] + alpha hebb[at_hebb:at_hebb + n]`` is added, which gives u;
    hebb grows by ``step tanh(u inverse - sliding[at_sliding:at_sliding + n])`` and is kept within ``high``. Returns
    whether one is above ``threshold``, which is above 0; nobody is reset. ``most``: of ``most_square``; ``kind``:
    int64, of ``kind_of``. All other numbers and arrays (shape (any,), contiguous) of one type; places are not checked.
    """
    from llvmlite import ir  # type: ignore[import-untyped] # it has no types
    from numba import types
    from numba.extending import intrinsic

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        is_single = signature.args[0].dtype.bitwidth == 32
        size = signature.args[0].dtype.bitwidth // 8
        real = context.get_value_type(signature.args[0].dtype)
        vector, lane, bits = ir.VectorType(real, n), ir.IntType(32), ir.IntType(n)

        def spread(number: Any) -> Any:
            if isinstance(number, float):
                return ir.Constant(vector, [float(number)] * n)
            undefined = ir.Constant(vector, ir.Undefined)
            one = builder.insert_element(undefined, number, lane(0))
            return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(lane, n), [0] * n))

        def place(array: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, values[array]).data
            return builder.bitcast(builder.gep(data, [values[array + 1]]), vector.as_pointer())

        def rounded(number: float) -> float:
            return float(np.float32(number)) if is_single else number

        def add(a: Any, b: Any) -> Any:
            return builder.fadd(a, b)

        def mul(a: Any, b: Any) -> Any:
            return builder.fmul(a, b)

        def fused_all(a: Any, b: Any, c: Any) -> Any:
            name = f"llvm.fma.v{n}f32"
            kind = ir.FunctionType(vector, [vector] * 3)
            known = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            return builder.call(known, [a, b, c])

        def greater(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        def less(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered("<", a, b), a, b)

        def is_any(mask: Any) -> Any:
            return builder.icmp_unsigned("!=", builder.bitcast(mask, bits), bits(0))

        def largest(number: Any) -> Any:
            """Return 16 lanes, each the largest of n/16, as whole numbers of the same bits."""
            whole = builder.bitcast(number, ir.VectorType(lane, n))
            places = ir.VectorType(lane, 16)
            parts = [
                builder.shuffle_vector(whole, whole, ir.Constant(places, list(range(first, first + 16))))
                for first in range(0, n, 16)
            ]
            found = parts[0]
            for part in parts[1:]:
                found = builder.select(builder.icmp_signed(">", part, found), part, found)
            return found

        def magnitude(x: Any) -> Any:
            whole = builder.bitcast(x, ir.VectorType(lane, n))
            return builder.and_(whole, ir.Constant(ir.VectorType(lane, n), [2**31 - 1] * n))

        def spread_16(number: Any) -> Any:
            undefined = ir.Constant(ir.VectorType(lane, 16), ir.Undefined)
            one = builder.insert_element(undefined, number, lane(0))
            return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(lane, 16), [0] * 16))

        def wide(y: Any) -> Any:
            x = less(greater(y, spread(rounded(-WIDE))), spread(rounded(WIDE)))
            s = mul(x, x)
            p, q = spread(rounded(WIDE_P[-1])), spread(rounded(WIDE_Q[-1]))
            for number in WIDE_P[-2::-1]:
                p = fused_all(p, s, spread(rounded(number)))
            for number in WIDE_Q[-2::-1]:
                q = fused_all(q, s, spread(rounded(number)))
            return builder.fdiv(mul(x, p), q)

        def rational(x: Any) -> Any:
            one, two, limit = spread(1.0), spread(2.0), spread(12.0)
            y = mul(less(greater(x, spread(-12.0)), limit), spread(0.25))
            s = mul(y, y)
            p = mul(y, add(one, mul(s, add(spread(rounded(P_1)), mul(s, spread(rounded(P_2)))))))
            q = add(one, mul(s, add(spread(rounded(Q_1)), mul(s, spread(rounded(Q_2))))))
            p, q = mul(mul(two, p), q), add(mul(p, p), mul(q, q))
            return builder.fdiv(mul(mul(two, p), q), add(mul(p, p), mul(q, q)))

        at_v, at_hebb = place(0), place(5)
        old = builder.load(at_hebb, align=size)
        row = builder.load(place(3), align=size)
        alpha, threshold, inverse, step, high = (spread(values[k]) for k in range(9, 14))
        u = add(mul(builder.load(at_v, align=size), spread(values[2])), add(row, mul(alpha, old)))
        builder.store(u, at_v, align=size)
        word = ir.IntType(64)
        start = builder.block
        with builder.if_then(builder.icmp_unsigned("!=", values[15], word(PLAIN))):
            begin = builder.block
            with builder.if_then(builder.icmp_unsigned("==", values[15], word(ALL))):
                product = mul(u, inverse)
                inner = builder.block
            share = builder.phi(vector)
            share.add_incoming(u, begin)
            share.add_incoming(product, inner)
            below = builder.fsub(share, builder.load(place(7), align=size))
            end = builder.block
        y = builder.phi(vector)
        y.add_incoming(u, start)
        y.add_incoming(below, end)

        def bounded(new: Any) -> Any:
            return less(greater(new, builder.fsub(spread(-0.0), high)), high)

        if not is_single:
            builder.store(bounded(add(old, mul(step, rational(y)))), at_hebb, align=size)
            return is_any(builder.fcmp_ordered(">", u, threshold))
        s = mul(y, y)
        scaled = [spread(builder.fmul(real(rounded(number)), values[12])) for number in SMALL]  # once a row
        p = scaled[-1]
        for number in scaled[-2::-1]:
            p = fused_all(p, s, number)
        new = fused_all(y, fused_all(p, s, step), old)
        # Mostly nobody is above the threshold, nobody needs the other form, and nothing is cut. Positive numbers
        # compare as their bits do, which takes the fewest of the instructions that products need too.
        is_high = builder.icmp_signed(">", largest(s), spread_16(builder.bitcast(values[14], lane)))
        # what is so far from its bounds stays within them, since |z| < 1; 2^-22 is more than all that is rounded
        size_of_step = builder.select(
            builder.fcmp_ordered("<", values[12], real(0.0)), builder.fsub(real(-0.0), values[12]), values[12]
        )
        far = builder.fmul(builder.fsub(values[13], size_of_step), real(1.0 - 2.0**-22))
        is_long = builder.icmp_signed(">", largest(magnitude(old)), spread_16(builder.bitcast(far, lane)))
        both = builder.bitcast(builder.or_(is_high, is_long), ir.IntType(16))
        is_rare = builder.icmp_unsigned("!=", both, ir.IntType(16)(0))
        before = builder.block
        with builder.if_then(is_rare, likely=False):
            is_wide = builder.fcmp_ordered(">", s, spread(SMALL_SQUARE))
            begin = builder.block
            with builder.if_then(is_any(is_wide), likely=False):
                both = builder.select(is_wide, add(old, mul(step, wide(y))), new)
                end = builder.block
            whole = builder.phi(vector)
            whole.add_incoming(new, begin)
            whole.add_incoming(both, end)
            cut = bounded(whole)
            is_above_there = is_any(builder.fcmp_ordered(">", u, threshold))
            inside = builder.block
        is_above, kept = builder.phi(ir.IntType(1)), builder.phi(vector)
        is_above.add_incoming(ir.IntType(1)(0), before)
        is_above.add_incoming(is_above_there, inside)
        kept.add_incoming(new, before)
        kept.add_incoming(cut, inside)
        builder.store(kept, at_hebb, align=size)
        return is_above

    def learn(
        typing: Any, v: Any, j: Any, factor: Any, weight: Any, at: Any, hebb: Any, at_hebb: Any, sliding: Any,
        at_sliding: Any, alpha: Any, threshold: Any, inverse: Any, step: Any, high: Any, most: Any, kind: Any,
    ) -> Any:  # fmt: skip
        real, place = v.dtype, types.int64
        numbers = (real,) * 6
        return types.boolean(v, place, real, weight, place, hebb, place, sliding, place, *numbers, place), emit

    return intrinsic(learn)


if _config.DISABLE_JIT:
    learn_64, learn_16 = _plain(64), _plain(16)
else:
    learn_64, learn_16 = _vector(64), _vector(16)
