"""Blocks of products of bytes by AVX-512's VNNI, for many rows, and what turns their results into other numbers.

A block of sums stays in registers: `rows` inputs times `columns` vectors of sixteen outputs, both tuples that count.
"""

# mypy: ignore-errors
# numba's decorators and LLVM's builders are untyped, and annotations would be taken for compiled types.

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from longplay.nn.kernels.bfloat16 import (
    _BYTES,
    _FLOATS,
    _WORDS,
    _constant,
    _long,
    _rounded,
    _store,
    _vector,
    _whole,
    _word,
)
from longplay.nn.kernels.vectors import (
    _BYTE,
    _FLOAT,
    _SHORT,
    LANES,
    _add_product,
    _call,
    _load,
    _loop,
    _pointer,
    _splat,
)

_ERF = (0.0000430638, 0.0002765672, 0.0001520143, 0.0092705272, 0.0422820123, 0.0705230784, 1.0)


@intrinsic
def block_of_products(
    typingctx, inputs, apart, weights, quads, taken, factors, scales, bias, made, rows, columns
):  # fmt: skip
    """Unsigned bytes of some rows times the weights of some outputs, as float32 [rows, 16 columns].

    Rows lie `apart` bytes from each other; of sixteen outputs, weights are [quads, 16, 4]. `taken` from each sum is what
    the zero of 128 adds to it; it is then multiplied by a factor of its output and a scale of its row, and gets a bias.
    """
    count, width = rows.count, columns.count

    def generate(context, builder, signature, arguments):
        source, step, weight, length, less, factor, scale, added, out = arguments[:9]
        sums = [cgutils.alloca_once_value(builder, ir.Constant(_WORDS, None)) for _ in range(count * width)]
        stride = builder.mul(length, _long(_BYTES))
        with _loop(builder, length, 1) as (quad, _):
            start = builder.add(weight, builder.mul(quad, _long(_BYTES)))
            known = []
            for _ in range(width):
                known.append(_vector(builder, start, 0))
                start = builder.add(start, stride)
            place = builder.add(source, builder.mul(quad, _long(4)))
            for row in range(count):
                values = _word(builder, builder.add(place, builder.mul(step, _long(row))))
                for column in range(width):
                    total = sums[row * width + column]
                    operands = [builder.load(total, typ=_WORDS), values, known[column]]
                    builder.store(_call(builder, "llvm.x86.avx512.vpdpbusd.512", _WORDS, operands), total)
        for column in range(width):
            corrections, factors_, biases = (
                _vector(builder, address, column * _BYTES, kind)
                for address, kind in ((less, _WORDS), (factor, _FLOATS), (added, _FLOATS))
            )
            for row in range(count):
                total = builder.sub(builder.load(sums[row * width + column], typ=_WORDS), corrections)
                of_row = builder.load(_pointer(builder, builder.add(scale, _long(4 * row))), typ=_FLOAT)
                both = builder.fmul(factors_, _splat(builder, of_row, LANES))
                value = _add_product(builder, builder.sitofp(total, _FLOATS), both, biases)
                _store(builder, value, builder.add(out, _long((row * width + column) * _BYTES)), 4)
        return context.get_dummy_value()

    kinds = (inputs, apart, weights, quads, taken, factors, scales, bias, made, rows, columns)
    return types.void(*kinds), generate


@intrinsic
def to_shorts(typingctx, numbers, made, columns):
    """As many vectors of sixteen floats as `columns` has entries, as bfloat16."""

    def generate(context, builder, signature, arguments):
        for column in range(columns.count):
            loaded = _vector(builder, arguments[0], column * _BYTES)
            _store(builder, _rounded(builder, loaded), builder.add(arguments[1], _long(2 * LANES * column)), 2)
        return context.get_dummy_value()

    return types.void(numbers, made, columns), generate


@intrinsic
def from_shorts(typingctx, numbers, made, count):
    """So many bfloat16, in 16s, as floats."""

    def generate(context, builder, signature, arguments):
        halves = ir.VectorType(_SHORT, LANES)
        with _loop(builder, arguments[2], LANES) as (place, _):
            start = builder.add(arguments[0], builder.mul(place, _long(2)))
            words = builder.shl(builder.zext(_load(builder, _pointer(builder, start), halves), _WORDS), _whole(16))
            _store(builder, words, builder.add(arguments[1], builder.mul(place, _long(4))), 4)
        return context.get_dummy_value()

    return types.void(numbers, made, count), generate


@intrinsic
def add(typingctx, numbers, made, columns):
    """To as many vectors of sixteen floats as `columns` has entries."""

    def generate(context, builder, signature, arguments):
        for column in range(columns.count):
            one, other = (_vector(builder, address, column * _BYTES, _FLOATS) for address in arguments[:2])
            _store(builder, builder.fadd(one, other), builder.add(arguments[1], _long(column * _BYTES)), 4)
        return context.get_dummy_value()

    return types.void(numbers, made, columns), generate


@intrinsic
def gelu(typingctx, numbers, made, columns):
    """Of as many vectors of sixteen floats as `columns` has entries: x times the share of a normal distribution below it.

    Within 3e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.28).
    """

    def generate(context, builder, signature, arguments):
        half, one, root = (_constant(value) for value in (0.5, 1.0, 0.7071067811865476))
        for column in range(columns.count):
            x = _vector(builder, arguments[0], column * _BYTES, _FLOATS)
            z = builder.fmul(_call(builder, f"llvm.fabs.v{LANES}f32", _FLOATS, [x]), root)
            below = _constant(_ERF[0])
            for coefficient in _ERF[1:]:
                below = _add_product(builder, below, z, _constant(coefficient))
            for _ in range(4):
                below = builder.fmul(below, below)
            tail = builder.fdiv(half, below)
            share = builder.select(builder.fcmp_ordered(">", x, _constant(0.0)), builder.fsub(one, tail), tail)
            _store(builder, builder.fmul(x, share), builder.add(arguments[1], _long(column * _BYTES)), 4)
        return context.get_dummy_value()

    return types.void(numbers, made, columns), generate


@intrinsic
def round_row(typingctx, numbers, count, made):
    """So many floats, in 16s, as unsigned bytes, 128 being 0; returns their scale."""

    def generate(context, builder, signature, arguments):
        source, length, out = arguments
        top = cgutils.alloca_once_value(builder, _constant(0.0))
        with _loop(builder, length, LANES) as (place, _):
            loaded = _vector(builder, source, builder.mul(place, _long(4)), _FLOATS)
            size, so_far = _call(builder, f"llvm.fabs.v{LANES}f32", _FLOATS, [loaded]), builder.load(top, typ=_FLOATS)
            builder.store(builder.select(builder.fcmp_ordered(">", size, so_far), size, so_far), top)
        largest = _call(builder, f"llvm.vector.reduce.fmax.v{LANES}f32", _FLOAT, [builder.load(top, typ=_FLOATS)])
        limit = ir.Constant(_FLOAT, 1.1754943508222875e-38)
        largest = builder.select(builder.fcmp_ordered(">", largest, limit), largest, limit)
        scale = builder.fmul(largest, ir.Constant(_FLOAT, 1 / 127))
        inverse = _splat(builder, builder.fdiv(ir.Constant(_FLOAT, 127.0), largest), LANES)
        with _loop(builder, length, LANES) as (place, _):
            loaded = _vector(builder, source, builder.mul(place, _long(4)), _FLOATS)
            raised = _add_product(builder, loaded, inverse, _constant(128.5))
            rounded = builder.trunc(builder.fptosi(raised, _WORDS), ir.VectorType(_BYTE, LANES))  # all are positive
            _store(builder, rounded, builder.add(out, place), 1)
        return scale

    return types.float32(numbers, count, made), generate
