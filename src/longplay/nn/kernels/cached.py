"""Attention of one position to a cache in int8, tile by tile, with products of bytes by VNNI.

A tile's keys and values are laid out so that a register holds numbers of sixteen neighbours; scores become weights in
unsigned bytes, relative to the largest that the tile could have; and what is mixed so far is kept relative to the largest
score so far (arXiv 1805.02867). Nothing of a tile leaves the nearest caches. Queries are in two digits of a byte each.
`group` and `lanes` are tuples that count: queries of a key, sixteens of numbers of a head.
"""

# mypy: ignore-errors
# numba's decorators and LLVM's builders are untyped, and annotations would be taken for compiled types.

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from longplay.nn.kernels import emit, vectors

TILE = 256
"""Positions."""
_BLOCK = 2  # sixteens of positions that are scored together
_LEAST = np.float32(-3.0e38)
_LOG2_E = np.float32(1.4426950408889634)


@njit
def attend(queries, numbers, scales, places, count, bytes_, floats, made, group, lanes):
    """A group's attention to the first `count` positions.

    Args:
        queries: float32 [G W], scaled.
        numbers, scales: those of the cache; `places`: where in them the keys, values, and the scales of both begin.
        bytes_, floats: room to compute in: 2 G P + TILE (P + 2 W + G), with P the bytes of a head in whole registers, and
            G (TILE + W + 6) + 2 TILE.
        made: out, float32 [G W].
    """
    size, width = len(group), emit.LANES * len(lanes)
    padded = (width + 63) // 64 * 64
    base = bytes_.ctypes.data
    laid_keys = base + 2 * size * padded
    laid_values = laid_keys + TILE * padded
    weights = laid_values + TILE * width
    rest = 2 * size * padded + TILE * (padded + width + size)
    scores, some_scales = floats, floats[size * TILE :]
    sums = floats[(size + 2) * TILE :]
    taken, factors, decays, gains, tops, totals = (
        sums[size * width :],
        sums[size * (width + 1) :],
        sums[size * (width + 2) :],
        sums[size * (width + 3) :],
        sums[size * (width + 4) :],
        sums[size * (width + 5) :],
    )
    for number in range(size):
        _round(queries[number * width :], width, bytes_[2 * number * padded :], padded, taken, factors, number)
        tops[number], totals[number] = _LEAST, np.float32(0.0)
    sums[: size * width] = np.float32(0.0)
    key, value, key_scale, value_scale = places
    for first in range(0, count, TILE):
        here = min(TILE, count - first)
        keys_at = numbers.ctypes.data + key + first * width
        values_at = numbers.ctypes.data + value + first * width
        if here == TILE:
            transpose(keys_at, laid_keys, lanes)
            interleave(values_at, laid_values, lanes)
        else:
            _copy(numbers, key + first * width, here * width, bytes_, rest, TILE * width)
            transpose(base + rest, laid_keys, lanes)
            _copy(numbers, value + first * width, here * width, bytes_, rest, TILE * width)
            interleave(base + rest, laid_values, lanes)
        keys_by = scales.ctypes.data + 4 * (key_scale + first)
        values_by = scales.ctypes.data + 4 * (value_scale + first)
        if here < TILE:
            for i in range(here):
                some_scales[i], some_scales[TILE + i] = scales[key_scale + first + i], scales[value_scale + first + i]
            for i in range(here, TILE):
                some_scales[i] = some_scales[TILE + i] = np.float32(0.0)
            keys_by = some_scales.ctypes.data + 0  # an address as an int64
            values_by = keys_by + 4 * TILE
        shrink = largest(values_by) / np.float32(255.0)
        score(
            base,
            laid_keys,
            keys_by,
            taken.ctypes.data,
            factors.ctypes.data,
            scores.ctypes.data,
            keys_at + TILE * width,
            group,
            lanes,
        )
        for number in range(size):
            for i in range(here, TILE):
                scores[number * TILE + i] = _LEAST
            line = scores.ctypes.data + 4 * TILE * number
            total, top = weigh(line, values_by, np.float32(1.0) / shrink, weights + TILE * number)
            rise = top - tops[number]
            smaller = vectors.exp(max(-abs(rise), np.float32(-126.0)) * np.float32(0.6931471805599453))
            decay, gain = (smaller, np.float32(1.0)) if rise > 0 else (np.float32(1.0), smaller)
            totals[number] = totals[number] * decay + total * gain
            tops[number], decays[number], gains[number] = max(top, tops[number]), decay, gain * shrink
        mix(
            weights,
            laid_values,
            decays.ctypes.data,
            gains.ctypes.data,
            sums.ctypes.data,
            values_at + TILE * width,
            group,
            lanes,
        )
    for number in range(size):
        inverse = np.float32(1.0) / totals[number]
        for i in range(number * width, (number + 1) * width):
            made[i] = sums[i] * inverse


@njit
def _round(query, width, made, padded, taken, factors, number):
    """A query as two rows of signed bytes, 128s and ones, with what turns its products with unsigned keys into powers of two."""
    largest = np.float32(0.0)
    for i in range(width):
        largest = max(largest, abs(query[i]))
    scale = max(largest, np.float32(1e-12)) / np.float32(127 * 128)
    inverse, total = np.float32(1.0) / scale, np.int32(0)
    for i in range(width):
        rounded = np.int32(np.floor(query[i] * inverse + np.float32(0.5)))
        high = (rounded + 64) >> 7
        made[i], made[padded + i] = np.uint8(high & 255), np.uint8((rounded - (high << 7)) & 255)
        total += rounded
    for i in range(width, padded):
        made[i] = made[padded + i] = np.uint8(0)
    taken[number], factors[number] = np.float32(128) * np.float32(total), scale * _LOG2_E


@njit
def _copy(numbers, start, count, made, place, room):
    for i in range(count):
        made[place + i] = np.uint8(np.int32(numbers[start + i]) & 255)
    for i in range(count, room):
        made[place + i] = np.uint8(0)


def _mingled(builder, one, other):
    """Numbers of two vectors in turns, as one of twice the length."""
    count = one.type.count
    return emit.shuffle(builder, one, other, [i // 2 + i % 2 * count for i in range(2 * count)])


def _row(builder, address, count):
    """So many bytes, in words, as a register with zeros behind."""
    words = emit.load(builder, emit.pointer(builder, address), ir.VectorType(emit.INT, count // 4))
    if count == emit.BYTES:
        return words
    zeros = ir.Constant(words.type, None)
    return emit.shuffle(builder, words, zeros, [min(i, count // 4) for i in range(emit.LANES)])


def _fetch(builder, address):
    """Have the two lines of the cache at an address brought near, without waiting; it may be of nothing."""
    hints = [ir.Constant(emit.INT, hint) for hint in (0, 2, 1)]  # to read, into the second cache, data
    for line in range(2):
        pointer = emit.pointer(builder, builder.add(address, emit.long(line * emit.BYTES)))
        emit.call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *hints])


@intrinsic
def transpose(typingctx, keys, made, lanes):
    """A tile of keys [TILE, W] in signed bytes as unsigned ones, 128 being 0: [TILE / 16, fours of a head, 16, 4]."""
    width = lanes.count * emit.LANES

    def generate(context, builder, signature, arguments):
        source, out = arguments[:2]
        chunks = [(start, min(emit.BYTES, width - start)) for start in range(0, width, emit.BYTES)]
        with emit.loop(builder, emit.long(TILE // emit.LANES), 1) as (sixteen, _):
            begin = builder.add(source, builder.mul(sixteen, emit.long(emit.LANES * width)))
            place = builder.add(out, builder.mul(sixteen, emit.long(emit.LANES * emit.BYTES * len(chunks))))
            for number, (start, count) in enumerate(chunks):
                rows = [
                    _row(builder, builder.add(begin, emit.long(row * width + start)), count)
                    for row in range(emit.LANES)
                ]
                for _ in range(4):  # a perfect shuffle of all rows, four times
                    pairs = [_mingled(builder, rows[i], rows[i + emit.LANES // 2]) for i in range(emit.LANES // 2)]
                    rows = [
                        emit.shuffle(builder, pair, pair, list(range(half, half + emit.LANES)))
                        for pair in pairs
                        for half in (0, emit.LANES)
                    ]
                for four, row in enumerate(rows):
                    raised = builder.xor(row, emit.whole(-0x7F7F7F80))
                    emit.store(
                        builder, raised, builder.add(place, emit.long((number * emit.LANES + four) * emit.BYTES)), 1
                    )
        return context.get_dummy_value()

    return types.void(keys, made, lanes), generate


@intrinsic
def interleave(typingctx, values, made, lanes):
    """A tile of values [TILE, W] in bytes as [TILE / 4, W, 4]."""
    width = lanes.count * emit.LANES

    def generate(context, builder, signature, arguments):
        source, out = arguments[:2]
        with emit.loop(builder, emit.long(TILE // 4), 1) as (four, _):
            begin = builder.mul(four, emit.long(4 * width))
            for start in range(0, width, emit.BYTES):
                count = min(emit.BYTES, width - start)
                rows = [
                    emit.load(
                        builder,
                        emit.pointer(builder, builder.add(source, builder.add(begin, emit.long(row * width + start)))),
                        ir.VectorType(emit.BYTE, count),
                    )
                    for row in range(4)
                ]
                pairs = [
                    builder.bitcast(_mingled(builder, rows[row], rows[row + 1]), ir.VectorType(emit.SHORT, count))
                    for row in (0, 2)
                ]
                emit.store(
                    builder, _mingled(builder, *pairs), builder.add(out, builder.add(begin, emit.long(4 * start))), 1
                )
        return context.get_dummy_value()

    return types.void(values, made, lanes), generate


def _add_bytes(builder, total, unsigned, signed):
    """Products of the bytes of two registers, four by four, added to the sums at `total`."""
    name = f"llvm.x86.avx512.vpdpbusd.{emit.BITS}"
    so_far = builder.load(total, typ=emit.WORDS)
    if emit.BITS == 512:
        builder.store(emit.call(builder, name, emit.WORDS, [so_far, unsigned, signed]), total)
        return
    half = ir.VectorType(emit.INT, emit.LANES // 2)
    parts = [
        emit.call(
            builder,
            name,
            half,
            [emit.shuffle(builder, each, each, list(range(first, first + 8))) for each in (so_far, unsigned, signed)],
        )
        for first in (0, emit.LANES // 2)
    ]
    builder.store(emit.shuffle(builder, *parts, list(range(emit.LANES))), total)


@intrinsic
def score(typingctx, queries, keys, scales, taken, factors, scores, after, group, lanes):
    """Scores [G, TILE] of a tile of keys in powers of two; `taken` is what the keys' zero of 128 adds."""
    size, fours = group.count, -(-lanes.count // 4) * emit.LANES

    def generate(context, builder, signature, arguments):
        query, key, scale, less, factor, out, after = arguments[:7]
        with emit.loop(builder, emit.long(TILE // emit.LANES), _BLOCK) as (sixteen, _):
            sums = [cgutils.alloca_once_value(builder, emit.whole(0)) for _ in range(size * _BLOCK)]
            for total in sums:
                builder.store(emit.whole(0), total)
            begin = builder.add(key, builder.mul(sixteen, emit.long(fours * emit.BYTES)))
            done = builder.mul(sixteen, emit.long(fours // _BLOCK))
            for digit in range(2):
                with emit.loop(builder, emit.long(fours), 1) as (four, _):
                    start = builder.add(begin, builder.mul(four, emit.long(emit.BYTES)))
                    if digit:
                        _fetch(
                            builder, builder.add(after, builder.mul(builder.add(done, four), emit.long(2 * emit.BYTES)))
                        )
                    known = [emit.vector(builder, start, number * fours * emit.BYTES) for number in range(_BLOCK)]
                    place = builder.add(query, builder.mul(four, emit.long(4)))
                    for row in range(size):
                        asked = emit.word(builder, builder.add(place, emit.long((2 * row + digit) * fours * 4)))
                        for number in range(_BLOCK):
                            _add_bytes(builder, sums[row * _BLOCK + number], known[number], asked)
                if not digit:
                    for total in sums:
                        builder.store(builder.shl(builder.load(total, typ=emit.WORDS), emit.whole(7)), total)
            offset = builder.mul(sixteen, emit.long(emit.BYTES))
            for row in range(size):
                corrections, both = (
                    emit.number(builder, builder.add(each, emit.long(4 * row))) for each in (less, factor)
                )
                for number in range(_BLOCK):
                    total = builder.sitofp(builder.load(sums[row * _BLOCK + number], typ=emit.WORDS), emit.FLOATS)
                    of_keys = emit.vector(builder, builder.add(scale, offset), number * emit.BYTES, emit.FLOATS)
                    value = builder.fmul(builder.fmul(builder.fsub(total, corrections), both), of_keys)
                    place = builder.add(out, builder.add(offset, emit.long(row * TILE * 4 + number * emit.BYTES)))
                    emit.store(builder, value, place, 4)
        return context.get_dummy_value()

    return types.void(queries, keys, scales, taken, factors, scores, after, group, lanes), generate


def _top(builder, registers):
    """The largest number of a tile."""
    while len(registers) > 1:
        registers = [emit.larger(builder, *pair) for pair in zip(registers[::2], registers[1::2], strict=True)]
    return emit.largest(builder, registers[0])


def _tile(builder, address):
    return [emit.vector(builder, address, number * emit.BYTES, emit.FLOATS) for number in range(TILE // emit.LANES)]


@intrinsic
def largest(typingctx, numbers):
    """Of the floats of a tile."""

    def generate(context, builder, signature, arguments):
        return _top(builder, _tile(builder, arguments[0]))

    return types.float32(numbers), generate


@intrinsic
def weigh(typingctx, scores, scales, spread, weights):
    """2 to the scores of a query over that of the largest: their sum, and the largest score.

    Times `scales` and `spread`, at most 255, they are stored as unsigned bytes.
    """

    def generate(context, builder, signature, arguments):
        scored, scale, factor, out = arguments
        loaded = _tile(builder, scored)
        top, factor = _top(builder, loaded), emit.splat(builder, factor, emit.LANES)
        taken, total = emit.splat(builder, top, emit.LANES), emit.constant(0.0)
        for number, value in enumerate(loaded):
            made = builder.bitcast(emit.exp2(builder, builder.fsub(value, taken)), emit.FLOATS)
            total = builder.fadd(total, made)
            of_value = builder.fmul(emit.vector(builder, scale, number * emit.BYTES, emit.FLOATS), factor)
            scaled = emit.add_product(builder, made, of_value, emit.constant(0.5))
            rounded = builder.trunc(builder.fptosi(scaled, emit.WORDS), ir.VectorType(emit.BYTE, emit.LANES))
            emit.store(builder, rounded, builder.add(out, emit.long(emit.LANES * number)), 1)
        return context.make_tuple(builder, signature.return_type, [emit.total(builder, total), top])

    return types.UniTuple(types.float32, 2)(scores, scales, spread, weights), generate


@intrinsic
def mix(typingctx, weights, values, decays, gains, sums, after, group, lanes):
    """Sums [G, W] so far, times a decay of each query, and the tile's weighted values, times a gain of each."""
    size, width = group.count, lanes.count

    def generate(context, builder, signature, arguments):
        weight, value, decay, gain, out, after = arguments[:6]
        step = 2 if width % 2 == 0 else 1
        for first in range(0, width, step):
            totals = [cgutils.alloca_once_value(builder, emit.whole(0)) for _ in range(size * step)]
            for total in totals:
                builder.store(emit.whole(0), total)
            with emit.loop(builder, emit.long(TILE // 4), 1) as (four, _):
                start = builder.add(value, builder.mul(four, emit.long(width * emit.BYTES)))
                done = builder.add(four, emit.long(first // step * (TILE // 4)))
                _fetch(builder, builder.add(after, builder.mul(done, emit.long(2 * emit.BYTES))))
                known = [emit.vector(builder, start, (first + lane) * emit.BYTES) for lane in range(step)]
                place = builder.add(weight, builder.mul(four, emit.long(4)))
                for row in range(size):
                    share = emit.word(builder, builder.add(place, emit.long(row * TILE)))
                    for lane in range(step):
                        _add_bytes(builder, totals[row * step + lane], share, known[lane])
            for row in range(size):
                less, more = (emit.number(builder, builder.add(each, emit.long(4 * row))) for each in (decay, gain))
                for lane in range(step):
                    place = builder.add(out, emit.long((row * width + first + lane) * emit.BYTES))
                    so_far = builder.fmul(emit.load(builder, emit.pointer(builder, place), emit.FLOATS), less)
                    added = builder.sitofp(builder.load(totals[row * step + lane], typ=emit.WORDS), emit.FLOATS)
                    emit.store(builder, emit.add_product(builder, added, more, so_far), place, 4)
        return context.get_dummy_value()

    return types.void(weights, values, decays, gains, sums, after, group, lanes), generate
