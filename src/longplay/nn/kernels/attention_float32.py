"""Attention of all frames of a window to each other, in float32: for processors without AVX-512's BF16.

As `kernels/attention.py`, but keys and values are laid out as float32, and a dozen queries go through them together, some
keys at a time: what is read stays in the nearest cache until all of them have met it.
"""

# mypy: ignore-errors
# numba's decorators and LLVM's builders are untyped, and annotations would be taken for compiled types.

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from longplay.nn.kernels import emit, int8

QUERIES = 12
"""That go through keys and values together."""
_ROWS, _COLUMNS = 6, 1  # of a block of sums, the latter in sixteens: twelve registers of AVX2, and three are left
_KEYS = 16 * _COLUMNS
_VALUES = 64  # at a time
_LEAST = np.float32(-3.0e38)


def blocks(lanes):
    """Queries, and sixteens of keys, of a block of sums, as tuples that count; the same for all heads."""
    return (0,) * _ROWS, (0,) * _COLUMNS


@njit
def lay_out(key_words, key, values, value, frames, apart, packed_keys, packed_values, width):
    """Sixteen keys side by side, number after number; values as they are."""
    packed_keys[frames // 16 * 16 * width :] = 0
    packed_values[frames * width :] = 0
    for first in range(0, frames, 16):
        line, count = key + first * apart, min(16, frames - first)
        for i in range(width):
            place = packed_keys[first * width + 16 * i :]
            for frame in range(count):
                place[frame] = np.int32(values[line + frame * apart + i]) << np.int32(16)
    for frame in range(frames):
        start = values.ctypes.data + 2 * (value + frame * apart)
        int8.from_shorts(start, packed_values.ctypes.data + 4 * frame * width, width)


@njit
def attend(query, query_apart, keys, values, made, made_apart, frames, scores, shares, sums, rows, lanes, columns):
    """One head: addresses of its first query and result, and how many bytes the next ones are away.

    `shares` is room for the queries and for what is mixed.
    """
    padded, width = scores.shape[1], 16 * len(lanes)
    factor = np.float32(1.0) / np.sqrt(np.float32(width))
    score, asked, line = scores.ctypes.data, shares.ctypes.data, 4 * width
    mixed, apart = asked + QUERIES * line, 4 * padded
    first = 0
    while first < frames:
        first = min(first, frames - QUERIES)  # the last block makes some of the one before again
        for row in range(QUERIES):
            int8.from_shorts(query + (first + row) * query_apart, asked + row * line, width)
        for group in range(padded // _KEYS):
            for row in range(0, QUERIES, _ROWS):
                place = score + row * apart + 4 * group * _KEYS
                _scores(asked + row * line, keys.ctypes.data + group * _KEYS * line, place, apart, rows, lanes, columns)
        for row in range(QUERIES):
            for i in range(frames, padded):
                scores[row, i] = _LEAST
            sums[row] = np.float32(1.0) / _weigh(score + row * apart, padded, factor)
            _clear(mixed + row * line, lanes)
        for start in range(0, padded, _VALUES):
            count = min(_VALUES, padded - start)
            for row in range(0, QUERIES, _ROWS):
                place = score + row * apart + 4 * start
                _mix(place, apart, values.ctypes.data + start * line, count, mixed + row * line, rows, lanes)
        for row in range(QUERIES):
            _finish(mixed + row * line, sums[row], lanes)
            int8.to_shorts(mixed + row * line, made + (first + row) * made_apart, lanes)
        first += QUERIES


@intrinsic
def _scores(typingctx, queries, keys, scores, apart, rows, lanes, columns):
    """Dot products of a block of queries with a block of keys; scores of a query lie `apart` bytes from the next one's."""
    count, width, sixteens = rows.count, lanes.count * emit.LANES, columns.count

    def generate(context, builder, signature, arguments):
        query, key, score, score_step = arguments[:4]
        sums = [cgutils.alloca_once_value(builder, emit.constant(0.0)) for _ in range(count * sixteens)]
        with emit.loop(builder, emit.long(width), 1) as (number, _):
            start = builder.add(key, builder.mul(number, emit.long(emit.BYTES)))
            known = [emit.vector(builder, start, each * width * emit.BYTES, emit.FLOATS) for each in range(sixteens)]
            place = builder.add(query, builder.mul(number, emit.long(4)))
            for row in range(count):
                asked = emit.number(builder, builder.add(place, emit.long(4 * width * row)))
                for column in range(sixteens):
                    _add(builder, sums[row * sixteens + column], asked, known[column])
        for row in range(count):
            line = builder.add(score, builder.mul(score_step, emit.long(row)))
            for column in range(sixteens):
                total = builder.load(sums[row * sixteens + column], typ=emit.FLOATS)
                emit.store(builder, total, builder.add(line, emit.long(column * emit.BYTES)), 4)
        return context.get_dummy_value()

    return types.void(queries, keys, scores, apart, rows, lanes, columns), generate


def _add(builder, total, one, other):
    builder.store(emit.add_product(builder, one, other, builder.load(total, typ=emit.FLOATS)), total)


@intrinsic
def _weigh(typingctx, scores, count, factor):
    """Put e to the scores times `factor`, over that of the largest, in their place; returns their sum."""

    def generate(context, builder, signature, arguments):
        score, length, scale = arguments
        top = cgutils.alloca_once_value(builder, emit.constant(-3.0e38))
        with emit.loop(builder, length, emit.LANES) as (place, _):
            loaded = emit.vector(builder, score, builder.mul(place, emit.long(4)), emit.FLOATS)
            builder.store(emit.larger(builder, loaded, builder.load(top, typ=emit.FLOATS)), top)
        largest = emit.largest(builder, builder.load(top, typ=emit.FLOATS))
        scale = builder.fmul(scale, ir.Constant(emit.FLOAT, 1.4426950408889634))
        taken = emit.splat(builder, builder.fneg(builder.fmul(largest, scale)), emit.LANES)
        scale = emit.splat(builder, scale, emit.LANES)
        total = cgutils.alloca_once_value(builder, emit.constant(0.0))
        with emit.loop(builder, length, emit.LANES) as (place, _):
            offset = builder.mul(place, emit.long(4))
            loaded = emit.vector(builder, score, offset, emit.FLOATS)
            words = emit.exp2(builder, emit.add_product(builder, loaded, scale, taken))
            share = builder.bitcast(words, emit.FLOATS)
            builder.store(builder.fadd(builder.load(total, typ=emit.FLOATS), share), total)
            emit.store(builder, share, builder.add(score, offset), 4)
        return emit.total(builder, builder.load(total, typ=emit.FLOATS))

    return types.float32(scores, count, factor), generate


@intrinsic
def _clear(typingctx, numbers, lanes):
    def generate(context, builder, signature, arguments):
        for lane in range(lanes.count):
            emit.store(builder, emit.constant(0.0), builder.add(arguments[0], emit.long(lane * emit.BYTES)), 4)
        return context.get_dummy_value()

    return types.void(numbers, lanes), generate


@intrinsic
def _mix(typingctx, shares, apart, values, values_count, mixed, rows, lanes):
    """Add some values, weighted by the shares of a block of queries, to what is mixed so far."""
    count, width = rows.count, lanes.count
    step = min(width, _COLUMNS)

    def generate(context, builder, signature, arguments):
        share, share_step, value, length, out = arguments[:5]
        for first in range(0, width, step):
            places = [
                builder.add(out, emit.long((row * width + first + lane) * emit.BYTES))
                for row in range(count)
                for lane in range(step)
            ]
            sums = [
                cgutils.alloca_once_value(builder, emit.load(builder, emit.pointer(builder, place), emit.FLOATS))
                for place in places
            ]
            with emit.loop(builder, length, 1) as (number, _):
                start = builder.add(value, builder.mul(number, emit.long(width * emit.BYTES)))
                known = [emit.vector(builder, start, (first + lane) * emit.BYTES, emit.FLOATS) for lane in range(step)]
                place = builder.add(share, builder.mul(number, emit.long(4)))
                for row in range(count):
                    weight = emit.number(builder, builder.add(place, builder.mul(share_step, emit.long(row))))
                    for lane in range(step):
                        _add(builder, sums[row * step + lane], weight, known[lane])
            for total, place in zip(sums, places, strict=True):
                emit.store(builder, builder.load(total, typ=emit.FLOATS), place, 4)
        return context.get_dummy_value()

    return types.void(shares, apart, values, values_count, mixed, rows, lanes), generate


@intrinsic
def _finish(typingctx, mixed, inverse, lanes):
    """Times a factor."""

    def generate(context, builder, signature, arguments):
        factor = emit.splat(builder, arguments[1], emit.LANES)
        for lane in range(lanes.count):
            place = builder.add(arguments[0], emit.long(lane * emit.BYTES))
            loaded = emit.load(builder, emit.pointer(builder, place), emit.FLOATS)
            emit.store(builder, builder.fmul(loaded, factor), place, 4)
        return context.get_dummy_value()

    return types.void(mixed, inverse, lanes), generate
