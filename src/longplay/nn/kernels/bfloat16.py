"""Blocks of attention over bfloat16, as LLVM's intermediate representation: products of pairs with AVX-512's BF16.

A pair of neighbours is one 32-bit word; an instruction multiplies sixteen pairs with sixteen others and adds both products
to sixteen sums in float32. A block of queries stays in registers with its sums: `rows` of them, times vectors of keys or
values. `rows`, `lanes` and `columns` are tuples that count.
"""

# mypy: ignore-errors
# numba's decorators and LLVM's builders are untyped, and annotations would be taken for compiled types.

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from longplay.nn.kernels.vectors import (
    _FLOAT,
    _INT,
    _LONG,
    _SHORT,
    LANES,
    _add_product,
    _call,
    _load,
    _loop,
    _pointer,
    _splat,
    _total,
)

_BYTES = 4 * LANES  # of a register
_POLYNOMIAL = (0.0135424278, 0.0520548175, 0.2413697877, 0.6930329670, 1.0)  # 2 to [0, 1), within 4e-6


class _BFloat(ir.types.Type):
    def _to_string(self):
        return "bfloat"


_PAIRS = ir.VectorType(_BFloat(), 2 * LANES)
_WORDS = ir.VectorType(_INT, LANES)
_FLOATS = ir.VectorType(_FLOAT, LANES)


def _constant(value):
    return ir.Constant(_FLOATS, [value] * LANES)


def _whole(value):
    return ir.Constant(_WORDS, [value] * LANES)


def _vector(builder, address, offset, kind=_WORDS):
    place = builder.add(address, offset) if not isinstance(offset, int) else builder.add(address, _long(offset))
    return _load(builder, _pointer(builder, place), kind)


def _long(value):
    return ir.Constant(_LONG, value)


def _word(builder, address):
    """One word, for all lanes."""
    loaded = builder.load(_pointer(builder, address), typ=_INT)
    loaded.align = 4
    return _splat(builder, loaded, LANES)


def _add_pairs(builder, total, one, other):
    arguments = [builder.load(total, typ=_FLOATS), builder.bitcast(one, _PAIRS), builder.bitcast(other, _PAIRS)]
    builder.store(_call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", _FLOATS, arguments), total)


def _store(builder, vector, address, align):
    builder.store(vector, _pointer(builder, address)).align = align


def _to_shorts(builder, words):
    return builder.trunc(builder.lshr(words, _whole(16)), ir.VectorType(_SHORT, LANES))


def _rounded(builder, words):
    """The bits of floats as bfloat16: to the nearest, ties to even."""
    odd = builder.and_(builder.lshr(words, _whole(16)), _whole(1))
    return _to_shorts(builder, builder.add(builder.add(words, _whole(0x7FFF)), odd))


@intrinsic
def block_of_scores(typingctx, queries, query_apart, keys, groups, scores, apart, rows, lanes, columns):
    """Dot products of a block of queries with all keys.

    Queries lie `query_apart` bytes apart. Keys come in `groups` of 16 `columns`, and sixteen of them as
    [pairs of a head, 16] words. Scores of a query lie `apart` bytes from the next one's.
    """
    count, pairs, width = rows.count, lanes.count * LANES // 2, columns.count

    def generate(context, builder, signature, arguments):
        query, query_step, key, group_count, score, score_step = arguments[:6]
        with _loop(builder, group_count, 1) as (group, _):
            sums = [cgutils.alloca_once_value(builder, _constant(0.0)) for _ in range(count * width)]
            first = builder.add(key, builder.mul(group, _long(width * pairs * _BYTES)))
            with _loop(builder, _long(pairs), 1) as (pair, _):
                start = builder.add(first, builder.mul(pair, _long(_BYTES)))
                known = [_vector(builder, start, column * pairs * _BYTES) for column in range(width)]
                place = builder.add(query, builder.mul(pair, _long(4)))
                for row in range(count):
                    asked = _word(builder, builder.add(place, builder.mul(query_step, _long(row))))
                    for column in range(width):
                        _add_pairs(builder, sums[row * width + column], asked, known[column])
            begin = builder.add(score, builder.mul(group, _long(width * _BYTES)))
            for row in range(count):
                line = builder.add(begin, builder.mul(score_step, _long(row)))
                for column in range(width):
                    total = builder.load(sums[row * width + column], typ=_FLOATS)
                    _store(builder, total, builder.add(line, _long(column * _BYTES)), 4)
        return context.get_dummy_value()

    return types.void(queries, query_apart, keys, groups, scores, apart, rows, lanes, columns), generate


@intrinsic
def shares_of_row(typingctx, scores, count, factor, shares):
    """e to the scores times `factor`, over that of the largest, as bfloat16; returns their sum. `count` is in 32s."""

    def generate(context, builder, signature, arguments):
        score, length, scale, share = arguments
        tops = [cgutils.alloca_once_value(builder, _constant(-3.0e38)) for _ in range(2)]
        with _loop(builder, length, 2 * LANES) as (place, _):
            for half, top in enumerate(tops):
                offset = builder.mul(builder.add(place, _long(half * LANES)), _long(4))
                loaded, so_far = _vector(builder, score, offset, _FLOATS), builder.load(top, typ=_FLOATS)
                builder.store(builder.select(builder.fcmp_ordered(">", loaded, so_far), loaded, so_far), top)
        one, other = (builder.load(top, typ=_FLOATS) for top in tops)
        both = builder.select(builder.fcmp_ordered(">", one, other), one, other)
        largest = _call(builder, f"llvm.vector.reduce.fmax.v{LANES}f32", _FLOAT, [both])
        scale = builder.fmul(scale, ir.Constant(_FLOAT, 1.4426950408889634))
        taken = _splat(builder, builder.fneg(builder.fmul(largest, scale)), LANES)
        scale = _splat(builder, scale, LANES)
        sums = [cgutils.alloca_once_value(builder, _constant(0.0)) for _ in range(2)]
        with _loop(builder, length, 2 * LANES) as (place, _):
            for half, total in enumerate(sums):
                index = builder.add(place, _long(half * LANES))
                power = _add_product(
                    builder, _vector(builder, score, builder.mul(index, _long(4)), _FLOATS), scale, taken
                )
                small = _constant(-126.0)
                power = builder.select(builder.fcmp_ordered(">", power, small), power, small)
                whole = _call(builder, f"llvm.floor.v{LANES}f32", _FLOATS, [power])
                rest = builder.fsub(power, whole)
                made = _constant(_POLYNOMIAL[0])
                for coefficient in _POLYNOMIAL[1:]:
                    made = _add_product(builder, made, rest, _constant(coefficient))
                raised = builder.shl(builder.fptosi(whole, _WORDS), _whole(23))
                words = builder.add(builder.bitcast(made, _WORDS), raised)
                builder.store(builder.fadd(builder.load(total, typ=_FLOATS), builder.bitcast(words, _FLOATS)), total)
                rounded = _to_shorts(builder, builder.add(words, _whole(0x8000)))
                _store(builder, rounded, builder.add(share, builder.mul(index, _long(2))), 2)
        total = builder.fadd(*(builder.load(part, typ=_FLOATS) for part in sums))
        return _total(builder, total)

    return types.float32(scores, count, factor, shares), generate


@intrinsic
def block_of_mixtures(typingctx, shares, apart, values, pairs, inverses, made, made_apart, rows, lanes):
    """Sums of all values, weighted by the shares of a block of queries and by a factor of each, as bfloat16.

    Shares of a query lie `apart` bytes from the next one's, results `made_apart`. Of two neighbouring values, words
    [head] hold a number of either.
    """
    count, width = rows.count, lanes.count

    def generate(context, builder, signature, arguments):
        share, share_step, value, pair_count, inverse, out, out_step = arguments[:7]
        sums = [cgutils.alloca_once_value(builder, _constant(0.0)) for _ in range(count * width)]
        with _loop(builder, pair_count, 1) as (pair, _):
            start = builder.add(value, builder.mul(pair, _long(width * _BYTES)))
            known = [_vector(builder, start, lane * _BYTES) for lane in range(width)]
            place = builder.add(share, builder.mul(pair, _long(4)))
            for row in range(count):
                weight = _word(builder, builder.add(place, builder.mul(share_step, _long(row))))
                for lane in range(width):
                    _add_pairs(builder, sums[row * width + lane], weight, known[lane])
        for row in range(count):
            factor = builder.load(_pointer(builder, builder.add(inverse, _long(4 * row))), typ=_FLOAT)
            factor = _splat(builder, factor, LANES)
            line = builder.add(out, builder.mul(out_step, _long(row)))
            for lane in range(width):
                mixed = builder.fmul(builder.load(sums[row * width + lane], typ=_FLOATS), factor)
                rounded = _rounded(builder, builder.bitcast(mixed, _WORDS))
                _store(builder, rounded, builder.add(line, _long(2 * LANES * lane)), 2)
        return context.get_dummy_value()

    return types.void(shares, apart, values, pairs, inverses, made, made_apart, rows, lanes), generate
