"""Blocks of products of bytes, for many rows, and what turns their results into other numbers.

A block of sums stays in registers: `rows` inputs times `columns` vectors of sixteen outputs, both tuples that count.
"""

# mypy: ignore-errors
# numba's decorators and LLVM's builders are untyped, and annotations would be taken for compiled types.

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from longplay.nn.kernels import emit

_ERF = (0.0000430638, 0.0002765672, 0.0001520143, 0.0092705272, 0.0422820123, 0.0705230784, 1.0)


@intrinsic
def block_of_products(
    typingctx, inputs, apart, weights, quads, taken, factors, scales, bias, made, rows, columns
):  # fmt: skip
    """Rounded inputs of some rows times the weights of some outputs, as float32 [rows, 16 columns].

    Rows lie `apart` bytes from each other; of sixteen outputs, weights are [quads, 16, 4]. `taken` from each sum is what
    the zero of the inputs adds to it; it is then multiplied by a factor of its output and a scale of its row, and gets a bias.
    """
    count, width = rows.count, columns.count

    def generate(context, builder, signature, arguments):
        source, step, weight, length, less, factor, scale, added, out = arguments[:9]
        sums = [cgutils.alloca_once_value(builder, ir.Constant(emit.WORDS, None)) for _ in range(count * width)]
        stride = builder.mul(length, emit.long(emit.BYTES))
        with emit.loop(builder, length, 1) as (quad, _):
            start = builder.add(weight, builder.mul(quad, emit.long(emit.BYTES)))
            known = []
            for _ in range(width):
                known.append(emit.vector(builder, start, 0))
                start = builder.add(start, stride)
            place = builder.add(source, builder.mul(quad, emit.long(4)))
            for row in range(count):
                values = emit.word(builder, builder.add(place, builder.mul(step, emit.long(row))))
                for column in range(width):
                    total = sums[row * width + column]
                    so_far = builder.load(total, typ=emit.WORDS)
                    builder.store(emit.add_small_bytes(builder, so_far, values, known[column]), total)
        for column in range(width):
            corrections, factors_, biases = (
                emit.vector(builder, address, column * emit.BYTES, kind)
                for address, kind in ((less, emit.WORDS), (factor, emit.FLOATS), (added, emit.FLOATS))
            )
            for row in range(count):
                total = builder.sub(builder.load(sums[row * width + column], typ=emit.WORDS), corrections)
                both = builder.fmul(factors_, emit.number(builder, builder.add(scale, emit.long(4 * row))))
                value = emit.add_product(builder, builder.sitofp(total, emit.FLOATS), both, biases)
                emit.store(builder, value, builder.add(out, emit.long((row * width + column) * emit.BYTES)), 4)
        return context.get_dummy_value()

    kinds = (inputs, apart, weights, quads, taken, factors, scales, bias, made, rows, columns)
    return types.void(*kinds), generate


@intrinsic
def to_shorts(typingctx, numbers, made, columns):
    """As many vectors of sixteen floats as `columns` has entries, as bfloat16."""

    def generate(context, builder, signature, arguments):
        for column in range(columns.count):
            loaded = emit.vector(builder, arguments[0], column * emit.BYTES)
            emit.store(
                builder, emit.rounded(builder, loaded), builder.add(arguments[1], emit.long(2 * emit.LANES * column)), 2
            )
        return context.get_dummy_value()

    return types.void(numbers, made, columns), generate


@intrinsic
def from_shorts(typingctx, numbers, made, count):
    """So many bfloat16, in 16s, as floats."""

    def generate(context, builder, signature, arguments):
        halves = ir.VectorType(emit.SHORT, emit.LANES)
        with emit.loop(builder, arguments[2], emit.LANES) as (place, _):
            start = builder.add(arguments[0], builder.mul(place, emit.long(2)))
            words = builder.shl(
                builder.zext(emit.load(builder, emit.pointer(builder, start), halves), emit.WORDS), emit.whole(16)
            )
            emit.store(builder, words, builder.add(arguments[1], builder.mul(place, emit.long(4))), 4)
        return context.get_dummy_value()

    return types.void(numbers, made, count), generate


@intrinsic
def add(typingctx, numbers, made, columns):
    """To as many vectors of sixteen floats as `columns` has entries."""

    def generate(context, builder, signature, arguments):
        for column in range(columns.count):
            one, other = (emit.vector(builder, address, column * emit.BYTES, emit.FLOATS) for address in arguments[:2])
            emit.store(builder, builder.fadd(one, other), builder.add(arguments[1], emit.long(column * emit.BYTES)), 4)
        return context.get_dummy_value()

    return types.void(numbers, made, columns), generate


@intrinsic
def gelu(typingctx, numbers, made, columns):
    """Of as many vectors of sixteen floats as `columns` has entries: x times the share of a normal distribution below it.

    Within 3e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.28).
    """

    def generate(context, builder, signature, arguments):
        half, one, root = (emit.constant(value) for value in (0.5, 1.0, 0.7071067811865476))
        for column in range(columns.count):
            x = emit.vector(builder, arguments[0], column * emit.BYTES, emit.FLOATS)
            z = builder.fmul(emit.call(builder, f"llvm.fabs.v{emit.LANES}f32", emit.FLOATS, [x]), root)
            below = emit.constant(_ERF[0])
            for coefficient in _ERF[1:]:
                below = emit.add_product(builder, below, z, emit.constant(coefficient))
            for _ in range(4):
                below = builder.fmul(below, below)
            tail = builder.fdiv(half, below)
            share = builder.select(builder.fcmp_ordered(">", x, emit.constant(0.0)), builder.fsub(one, tail), tail)
            emit.store(builder, builder.fmul(x, share), builder.add(arguments[1], emit.long(column * emit.BYTES)), 4)
        return context.get_dummy_value()

    return types.void(numbers, made, columns), generate


@intrinsic
def round_row(typingctx, numbers, count, made):
    """So many floats, in 16s, as unsigned bytes, 128 for zero; returns their scale."""

    def generate(context, builder, signature, arguments):
        source, length, out = arguments
        top = cgutils.alloca_once_value(builder, emit.constant(0.0))
        with emit.loop(builder, length, emit.LANES) as (place, _):
            loaded = emit.vector(builder, source, builder.mul(place, emit.long(4)), emit.FLOATS)
            size, so_far = (
                emit.call(builder, f"llvm.fabs.v{emit.LANES}f32", emit.FLOATS, [loaded]),
                builder.load(top, typ=emit.FLOATS),
            )
            builder.store(emit.larger(builder, size, so_far), top)
        largest = emit.largest(builder, builder.load(top, typ=emit.FLOATS))
        limit = ir.Constant(emit.FLOAT, 1.1754943508222875e-38)
        largest = builder.select(builder.fcmp_ordered(">", largest, limit), largest, limit)
        scale = builder.fmul(largest, ir.Constant(emit.FLOAT, 1 / 127))
        inverse = emit.splat(builder, builder.fdiv(ir.Constant(emit.FLOAT, 127.0), largest), emit.LANES)
        with emit.loop(builder, length, emit.LANES) as (place, _):
            loaded = emit.vector(builder, source, builder.mul(place, emit.long(4)), emit.FLOATS)
            raised = emit.add_product(builder, loaded, inverse, emit.constant(128.5))
            words = builder.fptosi(raised, emit.WORDS)  # all are positive
            rounded = builder.trunc(words, ir.VectorType(emit.BYTE, emit.LANES))
            emit.store(builder, rounded, builder.add(out, place), 1)
        return scale

    return types.float32(numbers, count, made), generate
