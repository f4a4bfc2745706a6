"""Attention of all frames of a window to each other, in bfloat16 by AVX-512's BF16.

A head at a time: its keys and values are laid out in the order in which they are read, then a few queries at a time meet
all of them, with scores that never leave the nearest caches. Sums are in float32.
"""

# mypy: ignore-errors
# numba's decorators are untyped, and annotations would be taken for compiled types.

import numpy as np
from numba import njit

from longplay.nn.kernels import bfloat16

_LEAST = np.float32(-3.0e38)


def blocks(lanes):
    """Queries, and sixteens of keys, of a block of sums, as tuples that count, for heads of so many sixteens."""
    rows = 24 // lanes
    return (0,) * rows, (0,) * min(4, 24 // rows)


@njit
def lay_out(key_words, key, values, value, frames, apart, packed_keys, packed_values, width):
    """Sixteen keys side by side, pair after pair; two values in each other."""
    pairs, half = width // 2, apart // 2
    sixteens = frames // 16
    packed_keys[sixteens * 16 * pairs :] = 0
    for sixteen in range(sixteens):
        line, start = key // 2 + sixteen * 16 * half, sixteen * 16 * pairs
        for pair in range(pairs):
            for frame in range(16):
                packed_keys[start + 16 * pair + frame] = key_words[line + frame * half + pair]
    for frame in range(16 * sixteens, frames):
        for pair in range(pairs):
            packed_keys[sixteens * 16 * pairs + 16 * pair + frame % 16] = key_words[key // 2 + frame * half + pair]
    whole = frames // 2
    packed_values[frames // 2 * width :] = 0
    for pair in range(whole):
        one, other = value + 2 * pair * apart, value + (2 * pair + 1) * apart
        for i in range(width):
            packed_values[pair * width + i] = np.int32(values[one + i]) | (np.int32(values[other + i]) << np.int32(16))
    if frames % 2:
        last = value + (frames - 1) * apart
        for i in range(width):
            packed_values[whole * width + i] = np.int32(values[last + i])


@njit
def attend(query, query_apart, keys, values, made, made_apart, frames, scores, shares, sums, rows, lanes, columns):
    """One head: addresses of its first query and result, and how many bytes the next ones are away."""
    count, padded, width = len(rows), scores.shape[1], 16 * len(lanes)
    factor = np.float32(1.0) / np.sqrt(np.float32(width))
    score, share = scores.ctypes.data, shares.ctypes.data
    first = 0
    while first < frames:
        first = min(first, frames - count)  # the last block makes some of the one before again
        vectors_of = query + first * query_apart
        groups = padded // (16 * len(columns))
        bfloat16.block_of_scores(
            vectors_of, query_apart, keys.ctypes.data, groups, score, 4 * padded, rows, lanes, columns
        )
        for row in range(count):
            for i in range(frames, padded):
                scores[row, i] = _LEAST
            total = bfloat16.shares_of_row(score + 4 * padded * row, padded, factor, share + 2 * padded * row)
            sums[row] = np.float32(1.0) / total
        place = made + first * made_apart
        bfloat16.block_of_mixtures(
            share, 2 * padded, values.ctypes.data, padded // 2, sums.ctypes.data, place, made_apart, rows, lanes
        )
        first += count
