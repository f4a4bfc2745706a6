"""Attention of one position to a cache in int8, tile by tile, with products of bytes.

A cache holds its numbers as they are multiplied (`nn/cache.py`): of sixteen neighbouring keys, four numbers of each side by
side; of four neighbouring values, every number of each. Scores become weights in unsigned bytes, relative to the largest
that the tile could have; what is mixed so far is kept relative to the largest score so far (arXiv 1805.02867), and no score
leaves the nearest cache. Queries are in two digits of a byte each. `group` and `lanes` are tuples that count: queries of a
key, sixteens of numbers of a head.
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
"""Positions; as in `nn/cache.py`."""
_QUERIES, _BLOCK = (16, 2) if emit.BITS == 512 else (4, 1)
"""That meet a block of keys or values together, at most, and its sixteens: as many as there are registers for."""
_LEAST = np.float32(-3.0e38)
_LOG2_E = np.float32(1.4426950408889634)


@njit
def attend(queries, numbers, scales, places, count, bytes_, floats, made, group, lanes):
    """A group's attention to the first `count` positions.

    Args:
        queries: float32 [G W], scaled.
        numbers, scales: those of the cache; `places`: where in them the keys, values, and the scales of both begin.
        bytes_, floats: room to compute in: 2 G W + TILE G, and TILE G + G W + 6 G.
        made: out, float32 [G W].
    """
    size, width = len(group), emit.LANES * len(lanes)
    asked = bytes_.ctypes.data
    weights = asked + 2 * size * width
    scores, sums, states = floats, floats[TILE * size :], floats[(TILE + width) * size :]
    taken, factors, decays, gains, tops, totals = (
        states,
        states[size:],
        states[2 * size :],
        states[3 * size :],
        states[4 * size :],
        states[5 * size :],
    )
    for number in range(size):
        _round(queries[number * width :], width, bytes_[2 * number * width :], taken, factors, number)
        tops[number], totals[number] = _LEAST, np.float32(0.0)
    sums[: size * width] = np.float32(0.0)
    key, value, key_scale, value_scale = places
    for first in range(0, count, TILE):
        keys_at = numbers.ctypes.data + key + first * width
        values_at = numbers.ctypes.data + value + first * width
        keys_by = scales.ctypes.data + 4 * (key_scale + first)
        values_by = scales.ctypes.data + 4 * (value_scale + first)
        shrink = _largest(scales, value_scale + first, count - first) / np.float32(255.0)
        line = scores.ctypes.data + 0  # so that the sum below has its type
        score(asked, keys_at, keys_by, taken.ctypes.data, factors.ctypes.data, line, values_at, group, lanes)
        for number in range(size):
            for i in range(count - first, TILE):
                scores[number * TILE + i] = _LEAST
            total, top = weigh(line, values_by, np.float32(1.0) / shrink, weights + TILE * number)
            rise = top - tops[number]
            smaller = vectors.exp(max(-abs(rise), np.float32(-126.0)) * np.float32(0.6931471805599453))
            decay, gain = (smaller, np.float32(1.0)) if rise > 0 else (np.float32(1.0), smaller)
            totals[number] = totals[number] * decay + total * gain
            tops[number], decays[number], gains[number] = max(top, tops[number]), decay, gain * shrink
            line += 4 * TILE
        after = keys_at + TILE * width
        mix(weights, values_at, decays.ctypes.data, gains.ctypes.data, sums.ctypes.data, after, group, lanes)
    for number in range(size):
        inverse = np.float32(1.0) / totals[number]
        for i in range(number * width, (number + 1) * width):
            made[i] = sums[i] * inverse


@njit
def _largest(scales, start, count):
    """Of a tile, as far as it is filled: what lies behind may be of another piece."""
    if count >= TILE:
        return largest(scales.ctypes.data + 4 * start)
    found = np.float32(0.0)
    for i in range(start, start + count):
        found = max(found, scales[i])
    return found


@njit(inline="always")
def key_place(position, number, width):
    """Where a number of a key is, from the first key on."""
    return (
        position // emit.LANES * emit.LANES * width
        + number // 4 * 4 * emit.LANES
        + position % emit.LANES * 4
        + number % 4
    )


@njit(inline="always")
def value_place(position, number, width):
    """Where a number of a value is, from the first value on."""
    return position // 4 * 4 * width + number * 4 + position % 4


@njit
def _round(query, width, made, taken, factors, number):
    """A query as two rows of signed bytes, 128s and ones, with what turns its products with keys into powers of two."""
    largest = np.float32(0.0)
    for i in range(width):
        largest = max(largest, abs(query[i]))
    scale = max(largest, np.float32(1e-12)) / np.float32(63 * 128)  # so that no digit is beyond 64
    inverse, total = np.float32(1.0) / scale, np.int32(0)
    for i in range(width):
        rounded = np.int32(np.floor(query[i] * inverse + np.float32(0.5)))
        high = (rounded + 64) >> 7
        made[i], made[width + i] = np.uint8(high & 255), np.uint8((rounded - (high << 7)) & 255)
        total += rounded
    taken[number], factors[number] = np.float32(128) * np.float32(total), scale * _LOG2_E


def _fetch(builder, address):
    """As many lines of the cache at an address as a block has sixteens; see `emit.fetch`."""
    for line in range(_BLOCK):
        emit.fetch(builder, emit.pointer(builder, builder.add(address, emit.long(line * emit.BYTES))), 2)


def _add(products, builder, total, one, other):
    """Products of the bytes of two registers, four by four, added to the sums at `total`."""
    builder.store(products(builder, builder.load(total, typ=emit.WORDS), one, other), total)


@intrinsic
def score(typingctx, queries, keys, scales, taken, factors, scores, after, group, lanes):
    """Scores [G, TILE] of a tile of keys in powers of two; `taken` is what the zero of a key's numbers adds.

    Meanwhile as much is fetched from `after`.
    """
    size, fours = group.count, lanes.count * emit.LANES // 4

    def generate(context, builder, signature, arguments):
        query, key, scale, less, factor, out, after = arguments[:7]
        with emit.loop(builder, emit.long(TILE // emit.LANES), _BLOCK) as (sixteen, _):
            begin = builder.mul(sixteen, emit.long(fours * emit.BYTES))
            offset = builder.mul(sixteen, emit.long(emit.BYTES))
            for first in range(0, size, _QUERIES):
                rows = range(first, min(first + _QUERIES, size))
                sums = [cgutils.alloca_once_value(builder, emit.whole(0)) for _ in range(len(rows) * _BLOCK)]
                for digit in range(2):
                    with emit.loop(builder, emit.long(fours), 1) as (four, _):
                        start = builder.add(builder.add(key, begin), builder.mul(four, emit.long(emit.BYTES)))
                        if digit and not first:
                            on = builder.add(begin, builder.mul(four, emit.long(_BLOCK * emit.BYTES)))
                            _fetch(builder, builder.add(after, on))
                        known = [emit.vector(builder, start, number * fours * emit.BYTES) for number in range(_BLOCK)]
                        known = [builder.xor(each, emit.whole(-0x7F7F7F80)) for each in known]  # 128 stands for zero
                        place = builder.add(query, builder.mul(four, emit.long(4)))
                        for number, row in enumerate(rows):
                            asked = emit.word(builder, builder.add(place, emit.long((2 * row + digit) * fours * 4)))
                            for column, each in enumerate(known):
                                _add(emit.add_small_bytes, builder, sums[number * _BLOCK + column], each, asked)
                    if not digit:
                        for total in sums:
                            builder.store(builder.shl(builder.load(total, typ=emit.WORDS), emit.whole(7)), total)
                for number, row in enumerate(rows):
                    corrections, both = (
                        emit.number(builder, builder.add(each, emit.long(4 * row))) for each in (less, factor)
                    )
                    for column in range(_BLOCK):
                        total = builder.load(sums[number * _BLOCK + column], typ=emit.WORDS)
                        of_keys = emit.vector(builder, builder.add(scale, offset), column * emit.BYTES, emit.FLOATS)
                        scored = builder.fmul(builder.fsub(builder.sitofp(total, emit.FLOATS), corrections), both)
                        place = builder.add(out, builder.add(offset, emit.long(row * TILE * 4 + column * emit.BYTES)))
                        emit.store(builder, builder.fmul(scored, of_keys), place, 4)
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
    """Sums [G, W] so far, times a decay of each query, and the tile's weighted values, times a gain of each.

    Meanwhile as much is fetched from `after`.
    """
    size, width = group.count, lanes.count

    def generate(context, builder, signature, arguments):
        weight, value, decay, gain, out, after = arguments[:6]
        step = _BLOCK if width % _BLOCK == 0 else 1
        for first in range(0, width, step):
            for begin in range(0, size, _QUERIES):
                rows = range(begin, min(begin + _QUERIES, size))
                totals = [cgutils.alloca_once_value(builder, emit.whole(0)) for _ in range(len(rows) * step)]
                with emit.loop(builder, emit.long(TILE // 4), 1) as (four, _):
                    start = builder.add(value, builder.mul(four, emit.long(width * emit.BYTES)))
                    if not begin:
                        done = builder.add(four, emit.long(first // step * (TILE // 4)))
                        _fetch(builder, builder.add(after, builder.mul(done, emit.long(_BLOCK * emit.BYTES))))
                    known = [emit.vector(builder, start, (first + lane) * emit.BYTES) for lane in range(step)]
                    place = builder.add(weight, builder.mul(four, emit.long(4)))
                    for number, row in enumerate(rows):
                        share = emit.word(builder, builder.add(place, emit.long(row * TILE)))
                        for lane, each in enumerate(known):
                            _add(emit.add_unsigned_bytes, builder, totals[number * step + lane], share, each)
                for number, row in enumerate(rows):
                    less, more = (emit.number(builder, builder.add(each, emit.long(4 * row))) for each in (decay, gain))
                    for lane in range(step):
                        place = builder.add(out, emit.long((row * width + first + lane) * emit.BYTES))
                        so_far = builder.fmul(emit.load(builder, emit.pointer(builder, place), emit.FLOATS), less)
                        added = builder.sitofp(builder.load(totals[number * step + lane], typ=emit.WORDS), emit.FLOATS)
                        emit.store(builder, emit.add_product(builder, added, more, so_far), place, 4)
        return context.get_dummy_value()

    return types.void(weights, values, decays, gains, sums, after, group, lanes), generate
