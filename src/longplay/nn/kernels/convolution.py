"""Convolutions over time in float32 (`nn/compiled_convolution.py`), frames times channels.

A thread takes some frames, passes them through the activation into a buffer of the second cache, and goes with them through all
outputs: a block of frames by sixteen outputs stays in registers while all taps and inputs are added up.
"""

# mypy: ignore-errors
# numba's decorators and LLVM's builders are untyped, and annotations would be taken for compiled types.

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from longplay.nn.kernels import arrays, emit

ROWS = 12 if emit.BITS == 512 else 6
"""Frames of a block: as many as there are registers for."""
CHANNELS, OUTPUTS, TAPS, DILATION, TILE = range(5)
"""Sizes: channels that go in, outputs, taps and how far apart, and frames of a tile."""


@intrinsic
def _block(
    typingctx,
    inputs,
    row_apart,
    numbers,
    tap_apart,
    weights,
    taps,
    bias,
    one,
    one_apart,
    other,
    other_apart,
    made,
    made_apart,
    rows,
):
    """A block of frames, sixteen outputs of each: bias, products with so many `numbers` of each tap, and what lies at `one` and `other`.

    Distances are in bytes.
    """
    count = rows.count

    def generate(context, builder, signature, arguments):
        place, row_step, width, tap_step, weight, length = arguments[:6]
        first = emit.vector(builder, arguments[6], 0, emit.FLOATS)
        sums = [cgutils.alloca_once_value(builder, first) for _ in range(count)]
        with emit.loop(builder, length, 1) as (tap, _):
            start = builder.add(place, builder.mul(tap, tap_step))
            lines = [builder.add(start, builder.mul(row_step, emit.long(row))) for row in range(count)]
            known = builder.add(weight, builder.mul(tap, builder.mul(width, emit.long(emit.BYTES))))
            with emit.loop(builder, width, 1) as (channel, _):
                factors = emit.vector(builder, known, builder.mul(channel, emit.long(emit.BYTES)), emit.FLOATS)
                offset = builder.mul(channel, emit.long(4))
                for line, total in zip(lines, sums, strict=True):
                    value = emit.number(builder, builder.add(line, offset))
                    so_far = builder.load(total, typ=emit.FLOATS)
                    builder.store(emit.add_product(builder, value, factors, so_far), total)
        for row, total in enumerate(sums):
            value = builder.load(total, typ=emit.FLOATS)
            for address, step in (arguments[7:9], arguments[9:11]):
                added = emit.vector(builder, address, builder.mul(step, emit.long(row)), emit.FLOATS)
                value = builder.fadd(value, added)
            emit.store(builder, value, builder.add(arguments[11], builder.mul(arguments[12], emit.long(row))), 4)
        return context.get_dummy_value()

    kinds = (
        inputs, row_apart, numbers, tap_apart, weights, taps, bias, one, one_apart, other, other_apart, made, made_apart, rows,
    )  # fmt: skip
    return types.void(*kinds), generate


@intrinsic
def _activate(typingctx, source, slope, count, made):
    """Leaky ReLU of `count` floats, a multiple of 16."""

    def generate(context, builder, signature, arguments):
        factor = emit.splat(builder, arguments[1], emit.LANES)
        with emit.loop(builder, arguments[2], emit.LANES) as (place, _):
            offset = builder.mul(place, emit.long(4))
            value = emit.vector(builder, arguments[0], offset, emit.FLOATS)
            kept = emit.larger(builder, value, builder.fmul(value, factor))
            emit.store(builder, kept, builder.add(arguments[3], offset), 4)
        return context.get_dummy_value()

    return types.void(source, slope, count, made), generate


@njit
def _fill(x, slope, first, count, room):
    """Frames `first` to `first + count` of x, activated; there are zeros before and behind it."""
    channels = x.shape[1]
    for number in range(count):
        frame, place = first + number, number * channels
        if frame < 0 or frame >= x.shape[0]:
            room[place : place + channels] = np.float32(0.0)
        else:
            _activate(x[frame].ctypes.data, slope, channels, room.ctypes.data + 4 * place)


def convolution():
    """The function of a convolution of `nn/compiled_convolution.py`; its block holds:

    sizes [5]: as above; slope [1] of the activation, 1 for none.
    x [T, I], weights [O / 16, K, I, 16], starts [O / 16]: frames between an output and its first tap; bias [O].
    one, other [U, O], or [1, O] of zeros: added to the result. made [U, O]: out. room of each thread.
    """
    rows = (0,) * ROWS

    def run(thread, threads, block):
        sizes, slope, x = arrays.longs(block, 0), arrays.floats1(block, 1)[0], arrays.floats2(block, 2)
        weights, starts, bias = arrays.floats1(block, 3), arrays.longs(block, 4), arrays.floats1(block, 5)
        one, other, made = arrays.floats2(block, 6), arrays.floats2(block, 7), arrays.floats2(block, 8)
        room = arrays.floats2(block, 9)[thread]
        channels, outputs, taps, dilation, tile = (
            sizes[CHANNELS],
            sizes[OUTPUTS],
            sizes[TAPS],
            sizes[DILATION],
            sizes[TILE],
        )
        frames, groups, line = made.shape[0], outputs // emit.LANES, 4 * outputs
        one_apart, other_apart = line if one.shape[0] > 1 else 0, line if other.shape[0] > 1 else 0
        numbers, steps = (taps * channels, 1) if dilation == 1 else (channels, taps)  # neighbouring taps lie in a row
        earliest, latest = starts[0], starts[0]
        for group in range(groups):
            earliest, latest = min(earliest, starts[group]), max(latest, starts[group])
        tiles = -(-frames // tile)
        for number in range(thread, tiles, threads):
            first = min(number * tile, max(frames - tile, 0))  # the last tile makes some of the one before again
            count = min(tile, frames)
            _fill(x, slope, first + earliest, count + latest - earliest + (taps - 1) * dilation, room)
            for group in range(groups):
                inputs = room.ctypes.data + 4 * (starts[group] - earliest) * channels
                known = weights.ctypes.data + emit.BYTES * group * taps * channels
                row = 0
                while row < count:
                    row = min(row, count - ROWS)
                    place, column = first + row, emit.BYTES * group
                    _block(
                        inputs + 4 * row * channels, 4 * channels, numbers, 4 * dilation * channels, known, steps,
                        bias.ctypes.data + column,
                        one.ctypes.data + place * one_apart + column, one_apart,
                        other.ctypes.data + place * other_apart + column, other_apart,
                        made.ctypes.data + place * line + column, line, rows,
                    )  # fmt: skip
                    row += ROWS
        return 0

    return run
