"""Transformer blocks of the flow's estimator in int8 (`nn/compiled_transformer.py`), several in a row as one function.

Rows are frames. A few of them at a time are normed, rounded to bytes with a scale each, and multiplied by all weights, so
that what lies between two products never leaves the nearest caches; only attention needs all frames at once. What is added
up from block to block stays in float32.
"""

# mypy: ignore-errors
# numba's decorators are untyped, and annotations would be taken for compiled types.

import numpy as np
from numba import njit

from longplay.nn import processor
from longplay.nn.kernels import arrays, emit, int8, vectors

if processor.has_pairs():
    from longplay.nn.kernels.attention import attend, blocks, lay_out
else:
    from longplay.nn.kernels.attention_float32 import attend, blocks, lay_out

OUTPUTS, INPUTS, WEIGHTS, SCALES, SUMS, BIAS = range(6)
"""Columns of the table of projections: sizes, then where its numbers start, -1 for none."""
ROWS, COLUMNS = (6, 4) if emit.BITS == 512 else (5, 1)
"""Of a block of products, the latter in sixteens: as many as there are registers for."""
TILE = 24
"""Rows that go from product to product together, at most."""
_WIDTH = 16 * COLUMNS


@njit
def _norm(x, gain, bias, eps, made):
    """Layer norm of a row."""
    count = len(gain)
    mean = vectors.total_of(x.ctypes.data, count) / np.float32(count)
    for i in range(count):
        made[i] = x[i] - mean
    factor = np.float32(1.0) / np.sqrt(
        vectors.product(made.ctypes.data, made.ctypes.data, count, (0, 0)) / np.float32(count) + eps
    )
    for i in range(count):
        made[i] = made[i] * factor * gain[i] + bias[i]


@njit
def _multiply(entry, piles, rounded, scales, count, group, rows, columns, made):
    """A group of outputs of a projection, of so many rows: the last block makes some rows of the one before again."""
    weights, sums, floats = piles
    inputs, first = entry[INPUTS], group * _WIDTH
    bias = floats.ctypes.data + 4 * (entry[BIAS] + first)
    place = weights.ctypes.data + entry[WEIGHTS] + first * inputs
    taken = sums.ctypes.data + 4 * (entry[SUMS] + first)
    factors = floats.ctypes.data + 4 * (entry[SCALES] + first)
    row = 0
    while row < count:
        row = min(row, count - ROWS)
        int8.block_of_products(
            rounded.ctypes.data + row * inputs, inputs, place, inputs // 4, taken, factors,
            scales.ctypes.data + 4 * row, bias, made.ctypes.data + 4 * row * _WIDTH, rows, columns,
        )  # fmt: skip
        row += ROWS


@njit
def _prepare(x, entry, piles, norm, eps, first, count, room, heads, rows, columns):
    """Queries, keys and values of a tile, as bfloat16."""
    rounded, scales, lines, made = room
    for row in range(count):
        line = lines[row, : x.shape[1]]
        _norm(x[first + row], norm[0], norm[1], eps, line)
        scales[row] = int8.round_row(line.ctypes.data, x.shape[1], rounded.ctypes.data + row * x.shape[1])
    outputs = entry[OUTPUTS]
    for group in range(outputs // _WIDTH):
        _multiply(entry, piles, rounded, scales, count, group, rows, columns, made)
        for row in range(count):
            start = (first + row) * outputs + group * _WIDTH
            int8.to_shorts(made.ctypes.data + 4 * row * _WIDTH, heads.ctypes.data + 2 * start, columns)


@njit
def _finish(x, entries, piles, norm, eps, first, count, room, attended, rows, columns):
    """What follows attention in a tile: its output, and the feed-forward layer, each added to x."""
    rounded, scales, lines, made = room
    out, up, down = entries
    dim = x.shape[1]
    for row in range(count):
        line = lines[row, : out[INPUTS]]
        int8.from_shorts(attended.ctypes.data + 2 * (first + row) * out[INPUTS], line.ctypes.data, out[INPUTS])
        scales[row] = int8.round_row(line.ctypes.data, out[INPUTS], rounded.ctypes.data + row * out[INPUTS])
    _add(x, out, piles, first, count, room, rows, columns)
    for row in range(count):
        line = lines[row, :dim]
        _norm(x[first + row], norm[2], norm[3], eps, line)
        scales[row] = int8.round_row(line.ctypes.data, dim, rounded.ctypes.data + row * dim)
    for group in range(up[OUTPUTS] // _WIDTH):
        _multiply(up, piles, rounded, scales, count, group, rows, columns, made)
        for row in range(count):
            place = lines.ctypes.data + 4 * (row * lines.shape[1] + group * _WIDTH)
            int8.gelu(made.ctypes.data + 4 * row * _WIDTH, place, columns)
    for row in range(count):
        place = rounded.ctypes.data + row * down[INPUTS]
        scales[row] = int8.round_row(lines.ctypes.data + 4 * row * lines.shape[1], down[INPUTS], place)
    _add(x, down, piles, first, count, room, rows, columns)


@njit
def _add(x, entry, piles, first, count, room, rows, columns):
    rounded, scales, _, made = room
    for group in range(entry[OUTPUTS] // _WIDTH):
        _multiply(entry, piles, rounded, scales, count, group, rows, columns, made)
        for row in range(count):
            place = x.ctypes.data + 4 * ((first + row) * x.shape[1] + group * _WIDTH)
            int8.add(made.ctypes.data + 4 * row * _WIDTH, place, columns)


def transformers(lanes):
    """The function for heads of 16 `lanes` numbers; its block holds:

    gate [2, 8]: where the threads meet.
    sizes [3]: batch, frames, heads; table [4 N, 6]: projections qkv, out, up and down of each block.
    bytes, ints, floats: that the table points into; norms [4 N, D]: gains and biases of both norms; eps [1].
    x [M, D]: in and out. heads [M * 3 I] (also as pairs), attended [M * I], bfloat16: between.
    of each thread: keys, values, scores, shares and sums of attention (`kernels/attention.py`, or `attention_float32.py`),
    and for a tile bytes [T, 24 * in], scales [T, 24], lines [T, 24, in], products [T, 24, 64].
    """
    attention_rows, attention_columns = blocks(lanes)
    rows, columns, lanes = (0,) * ROWS, (0,) * COLUMNS, (0,) * lanes

    def run(thread, threads, block):
        gate, sizes, table = arrays.longs2(block, 0), arrays.longs(block, 1), arrays.longs2(block, 2)
        piles = arrays.bytes1(block, 3), arrays.ints(block, 4), arrays.floats1(block, 5)
        norms, eps, x = arrays.floats2(block, 6), arrays.floats1(block, 7)[0], arrays.floats2(block, 8)
        heads, pairs, attended = arrays.shorts(block, 9), arrays.ints(block, 10), arrays.shorts(block, 11)
        keys, values = arrays.ints2(block, 12)[thread], arrays.ints2(block, 13)[thread]
        scores, shares, sums = (
            arrays.floats3(block, 14)[thread], arrays.ints3(block, 15)[thread], arrays.floats2(block, 16)[thread],
        )  # fmt: skip
        room = (
            arrays.ubytes2(block, 17)[thread], arrays.floats2(block, 18)[thread],
            arrays.floats3(block, 19)[thread], arrays.floats3(block, 20)[thread],
        )  # fmt: skip
        batch, frames, num_heads = sizes[0], sizes[1], sizes[2]
        width = 16 * len(lanes)
        inner = num_heads * width
        tiles = -(-x.shape[0] // TILE)
        for number in range(len(table) // 4):
            qkv = table[4 * number]
            after = table[4 * number + 1], table[4 * number + 2], table[4 * number + 3]
            norm = norms[4 * number : 4 * number + 4]
            for tile in range(thread, tiles, threads):
                first, stop = arrays.share(x.shape[0], tile, tiles)
                _prepare(x, qkv, piles, norm, eps, first, stop - first, room, heads, rows, columns)
            arrays.meet(gate, threads)
            for task in range(thread, batch * num_heads, threads):
                start = task // num_heads * frames * 3 * inner + task % num_heads * width
                lay_out(pairs, start + inner, heads, start + 2 * inner, frames, 3 * inner, keys, values, width)
                place = attended.ctypes.data + 2 * (task // num_heads * frames * inner + task % num_heads * width)
                attend(
                    heads.ctypes.data + 2 * start, 6 * inner, keys, values, place, 2 * inner, frames, scores, shares, sums,
                    attention_rows, lanes, attention_columns,
                )  # fmt: skip
            arrays.meet(gate, threads)
            for tile in range(thread, tiles, threads):
                first, stop = arrays.share(x.shape[0], tile, tiles)
                _finish(x, after, piles, norm, eps, first, stop - first, room, attended, rows, columns)
        arrays.meet(gate, threads)
        return 0

    return run
