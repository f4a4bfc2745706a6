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

from longplay.nn.kernels import emit


class _BFloat(ir.types.Type):
    def _to_string(self):
        return "bfloat"


_PAIRS = ir.VectorType(_BFloat(), 2 * emit.LANES)


def _add_pairs(builder, total, one, other):
    arguments = [builder.load(total, typ=emit.FLOATS), builder.bitcast(one, _PAIRS), builder.bitcast(other, _PAIRS)]
    builder.store(emit.call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", emit.FLOATS, arguments), total)


@intrinsic
def block_of_scores(typingctx, queries, query_apart, keys, groups, scores, apart, rows, lanes, columns):
    """Dot products of a block of queries with all keys.

    Queries lie `query_apart` bytes apart. Keys come in `groups` of 16 `columns`, and sixteen of them as
    [pairs of a head, 16] words. Scores of a query lie `apart` bytes from the next one's.
    """
    count, pairs, width = rows.count, lanes.count * emit.LANES // 2, columns.count

    def generate(context, builder, signature, arguments):
        query, query_step, key, group_count, score, score_step = arguments[:6]
        with emit.loop(builder, group_count, 1) as (group, _):
            sums = [cgutils.alloca_once_value(builder, emit.constant(0.0)) for _ in range(count * width)]
            first = builder.add(key, builder.mul(group, emit.long(width * pairs * emit.BYTES)))
            with emit.loop(builder, emit.long(pairs), 1) as (pair, _):
                start = builder.add(first, builder.mul(pair, emit.long(emit.BYTES)))
                known = [emit.vector(builder, start, column * pairs * emit.BYTES) for column in range(width)]
                place = builder.add(query, builder.mul(pair, emit.long(4)))
                for row in range(count):
                    asked = emit.word(builder, builder.add(place, builder.mul(query_step, emit.long(row))))
                    for column in range(width):
                        _add_pairs(builder, sums[row * width + column], asked, known[column])
            begin = builder.add(score, builder.mul(group, emit.long(width * emit.BYTES)))
            for row in range(count):
                line = builder.add(begin, builder.mul(score_step, emit.long(row)))
                for column in range(width):
                    total = builder.load(sums[row * width + column], typ=emit.FLOATS)
                    emit.store(builder, total, builder.add(line, emit.long(column * emit.BYTES)), 4)
        return context.get_dummy_value()

    return types.void(queries, query_apart, keys, groups, scores, apart, rows, lanes, columns), generate


@intrinsic
def shares_of_row(typingctx, scores, count, factor, shares):
    """e to the scores times `factor`, over that of the largest, as bfloat16; returns their sum. `count` is in 32s."""

    def generate(context, builder, signature, arguments):
        score, length, scale, share = arguments
        tops = [cgutils.alloca_once_value(builder, emit.constant(-3.0e38)) for _ in range(2)]
        with emit.loop(builder, length, 2 * emit.LANES) as (place, _):
            for half, top in enumerate(tops):
                offset = builder.mul(builder.add(place, emit.long(half * emit.LANES)), emit.long(4))
                loaded, so_far = emit.vector(builder, score, offset, emit.FLOATS), builder.load(top, typ=emit.FLOATS)
                builder.store(emit.larger(builder, loaded, so_far), top)
        one, other = (builder.load(top, typ=emit.FLOATS) for top in tops)
        largest = emit.largest(builder, emit.larger(builder, one, other))
        scale = builder.fmul(scale, ir.Constant(emit.FLOAT, 1.4426950408889634))
        taken = emit.splat(builder, builder.fneg(builder.fmul(largest, scale)), emit.LANES)
        scale = emit.splat(builder, scale, emit.LANES)
        sums = [cgutils.alloca_once_value(builder, emit.constant(0.0)) for _ in range(2)]
        with emit.loop(builder, length, 2 * emit.LANES) as (place, _):
            for half, total in enumerate(sums):
                index = builder.add(place, emit.long(half * emit.LANES))
                loaded = emit.vector(builder, score, builder.mul(index, emit.long(4)), emit.FLOATS)
                words = emit.exp2(builder, emit.add_product(builder, loaded, scale, taken))
                builder.store(
                    builder.fadd(builder.load(total, typ=emit.FLOATS), builder.bitcast(words, emit.FLOATS)), total
                )
                rounded = emit.to_shorts(builder, builder.add(words, emit.whole(0x8000)))
                emit.store(builder, rounded, builder.add(share, builder.mul(index, emit.long(2))), 2)
        total = builder.fadd(*(builder.load(part, typ=emit.FLOATS) for part in sums))
        return emit.total(builder, total)

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
        sums = [cgutils.alloca_once_value(builder, emit.constant(0.0)) for _ in range(count * width)]
        with emit.loop(builder, pair_count, 1) as (pair, _):
            start = builder.add(value, builder.mul(pair, emit.long(width * emit.BYTES)))
            known = [emit.vector(builder, start, lane * emit.BYTES) for lane in range(width)]
            place = builder.add(share, builder.mul(pair, emit.long(4)))
            for row in range(count):
                weight = emit.word(builder, builder.add(place, builder.mul(share_step, emit.long(row))))
                for lane in range(width):
                    _add_pairs(builder, sums[row * width + lane], weight, known[lane])
        for row in range(count):
            factor = emit.number(builder, builder.add(inverse, emit.long(4 * row)))
            line = builder.add(out, builder.mul(out_step, emit.long(row)))
            for lane in range(width):
                mixed = builder.fmul(builder.load(sums[row * width + lane], typ=emit.FLOATS), factor)
                rounded = emit.rounded(builder, builder.bitcast(mixed, emit.WORDS))
                emit.store(builder, rounded, builder.add(line, emit.long(2 * emit.LANES * lane)), 2)
        return context.get_dummy_value()

    return types.void(shares, apart, values, pairs, inverses, made, made_apart, rows, lanes), generate
