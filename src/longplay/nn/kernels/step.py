"""Compiled kernels of one decoding step (`nn/compiled.py`): int8 products, attention, the step as a whole.

What torch has for two rows of int8 products reaches half of the memory's bandwidth, and a step of a small model costs
more in calls than in arithmetic. So the step is one function here, compiled by numba (`nn/native.py`). Every thread of a
step runs all of it, each its own share of the outputs; what the others need, they wait for. A number is computed in the
same way whoever computes it, and nothing is left for the compiler to reorder (no `fastmath`, but for the absence of NaN):
results depend neither on the number of threads, nor on other rows, nor on the width of registers or their instructions.
Needs x86 with AVX2.
"""

# mypy: ignore-errors
# numba's decorators are untyped, and annotations would be taken for compiled types.

import numpy as np
from numba import njit

from longplay.nn.kernels import arrays, cached, draw, emit, vectors
from longplay.nn.kernels.vectors import FOUR

KIND, OUTPUTS, INPUTS, WEIGHTS, SCALES, SUMS, BIAS, APART, CHANNELS, COLUMNS = range(10)
"""Columns of the table of projections: its kind and sizes, then where its numbers start, -1 for none."""

_ROWS = 32  # that go through all weights together: as many as the second cache holds


@njit(fastmath={"nnan", "nsz"})
def _largest(numbers):
    largest = numbers[0]
    for i in range(len(numbers)):
        largest = max(largest, numbers[i])
    return largest


@njit(fastmath={"nnan", "nsz"})
def _largest_size(numbers):
    largest = np.float32(0.0)
    for i in range(len(numbers)):
        largest = max(largest, abs(numbers[i]))
    return largest


@njit
def _norm(x, gain, eps, out):
    """RMS norm of each row."""
    whole = x.shape[1] // emit.LANES * emit.LANES
    for row in range(x.shape[0]):
        total = vectors.product(x[row].ctypes.data, x[row].ctypes.data, whole, (0, 0))
        for i in range(whole, x.shape[1]):
            total += x[row, i] * x[row, i]
        factor = np.float32(1.0) / np.sqrt(total / np.float32(x.shape[1]) + eps)
        for i in range(x.shape[1]):
            out[row, i] = x[row, i] * factor * gain[i]


@njit
def _round(x, entry, channels, rounded, scales, kept):
    """Inputs of a product as bytes, with a scale per row; `kept` gets the channels kept apart."""
    length, padded = x.shape[1], entry[INPUTS]
    zero = emit.ZERO if entry[KIND] == vectors.INT8 else vectors.NIBBLES_ZERO
    for row in range(x.shape[0]):
        for k in range(entry[APART]):
            channel = channels[entry[CHANNELS] + k]
            kept[row, k] = x[row, channel] if channel >= 0 else np.float32(0.0)
            if channel >= 0:
                x[row, channel] = np.float32(0.0)
        largest = _largest_size(x[row])
        scale = largest / np.float32(127.0) if largest > 0 else np.float32(1.0)
        inverse, start = np.float32(1.0) / scale, row * padded
        for i in range(length):
            up = np.int32(np.floor(x[row, i] * inverse + np.float32(128.5)))
            rounded[start + i] = np.uint8(up - (128 - zero))
        for i in range(length, padded):
            rounded[start + i] = np.uint8(zero)
        scales[row] = scale


@njit
def _project(entry, numbers, room, made, first, stop):
    """Outputs `first` to `stop` of a projection, of the inputs that `_ready` has put into `room`."""
    for begin in range(0, len(made), _ROWS):
        _project_rows(entry, numbers, room, made, first, stop, begin, min(begin + _ROWS, len(made)))


@njit
def _project_rows(entry, numbers, room, made, first, stop, begin, end):
    bytes_, shorts, floats, sums, _ = numbers
    rounded, scales, kept, padded = room
    length = entry[INPUTS]
    if entry[KIND] == vectors.INT8 or entry[KIND] == vectors.INT4:
        weights, taken = bytes_.ctypes.data + entry[WEIGHTS], sums[entry[SUMS] :]
        if entry[KIND] == vectors.INT8:
            _multiply(weights, rounded.ctypes.data, length, taken, made, first, stop, begin, end)
        else:
            _multiply_nibbles(weights, rounded.ctypes.data, entry, taken, made, first, stop, begin, end)
        weight_scales = floats[entry[SCALES] + first : entry[SCALES] + stop]
        for row in range(begin, end):
            line, scale = made[row, first:stop], scales[row]
            for i in range(len(line)):
                line[i] *= weight_scales[i] * scale
        _add_kept(entry, floats, kept, made, first, stop, begin, end)
    else:
        for out in range(first, stop):
            for row in range(begin, end):
                start = padded.ctypes.data + 4 * row * length
                if entry[KIND] == vectors.BFLOAT16:
                    weights = shorts.ctypes.data + 2 * (entry[WEIGHTS] + out * length)
                    made[row, out] = vectors.product(weights, start, length, (0,))
                else:
                    weights = floats.ctypes.data + 4 * (entry[WEIGHTS] + out * length)
                    made[row, out] = vectors.product(weights, start, length, (0, 0))
    if entry[BIAS] >= 0:
        bias = floats[entry[BIAS] + first : entry[BIAS] + stop]
        for row in range(begin, end):
            line = made[row, first:stop]
            for i in range(len(line)):
                line[i] += bias[i]


@njit
def _add_kept(entry, floats, kept, made, first, stop, begin, end):
    """What the channels that are kept apart bring, one after the other: four at a time are in the nearest cache."""
    outputs = entry[OUTPUTS]
    for k in range(0, entry[APART], FOUR):
        start = entry[COLUMNS] + k * outputs
        one, two = floats[start + first : start + stop], floats[start + outputs + first : start + outputs + stop]
        start += 2 * outputs
        three, four = floats[start + first : start + stop], floats[start + outputs + first : start + outputs + stop]
        for row in range(begin, end):
            line, a, b, c, d = made[row, first:stop], kept[row, k], kept[row, k + 1], kept[row, k + 2], kept[row, k + 3]
            for i in range(len(line)):
                line[i] = (((line[i] + one[i] * a) + two[i] * b) + three[i] * c) + four[i] * d


@njit
def _multiply(weights, inputs, length, sums, made, first, stop, begin, end):
    """Products of bytes, less what the inputs' zero adds to them: of four outputs and up to four rows at a time."""
    blocks = first + (stop - first) // FOUR * FOUR
    apart, place, taken = made.shape[1], made.ctypes.data, sums.ctypes.data
    for out in range(first, blocks, FOUR):
        of, less, row = weights + out * length, taken + 4 * out, begin
        while row + 4 <= end:
            to = place + 4 * (row * apart + out)
            vectors.block_of_products(of, inputs + row * length, length, less, to, apart, (0, 0, 0, 0))
            row += 4
        if row + 2 <= end:
            to = place + 4 * (row * apart + out)
            vectors.block_of_products(of, inputs + row * length, length, less, to, apart, (0, 0))
            row += 2
        if row < end:
            to = place + 4 * (row * apart + out)
            vectors.block_of_products(of, inputs + row * length, length, less, to, apart, (0,))
    for out in range(blocks, stop):
        for row in range(begin, end):
            total = vectors.product_of_bytes(weights + out * length, inputs + row * length, length)
            made[row, out] = np.float32(total - sums[out])


@njit
def _multiply_nibbles(weights, inputs, entry, sums, made, first, stop, begin, end):
    """The same of weights in int4 (`nn/compiled.py` lays them out), of four outputs and up to two rows at a time."""
    outputs, length = entry[OUTPUTS], entry[INPUTS]
    numbers = weights + vectors.LEVELS
    groups = numbers + outputs * (length // 2)
    apart, place, taken = made.shape[1], made.ctypes.data, sums.ctypes.data
    for out in range(first, stop, FOUR):
        of, scales, less = numbers + out * (length // 2), groups + out * (length // vectors.GROUP), taken + 4 * out
        row = begin
        while row + 2 <= end:
            to = place + 4 * (row * apart + out)
            vectors.block_of_nibbles(weights, of, scales, inputs + row * length, length, less, to, apart, (0, 0))
            row += 2
        if row < end:
            to = place + 4 * (row * apart + out)
            vectors.block_of_nibbles(weights, of, scales, inputs + row * length, length, less, to, apart, (0,))


@njit
def _ready(x, entry, numbers, room):
    """Put the inputs of a projection into the form that its product takes; x is spoilt."""
    rounded, scales, kept, padded_inputs = room
    if entry[KIND] == vectors.INT8 or entry[KIND] == vectors.INT4:
        _round(x, entry, numbers[4], rounded, scales, kept)
        return
    length = entry[INPUTS]
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            padded_inputs[row * length + i] = x[row, i]
        for i in range(x.shape[1], length):
            padded_inputs[row * length + i] = np.float32(0.0)


@njit
def _enter(heads, row, kv, position, cosine, sine, cache, places, size, width):
    """Turn one group of queries and its key, and append key and value to the cache.

    Heads are queries of all groups, keys, values, [M, heads * width]; `places` tells where the cache has the first key
    and value of this row and group, and those of their scales, if it is in int8.
    """
    numbers, cache_scales = cache
    key, value, key_scales, value_scales = places
    half, num_kv = width // 2, (heads.shape[1] // width) // (size + 2)
    for number in range(size + 1):
        head = kv * size + number if number < size else num_kv * size + kv
        start = head * width
        for i in range(half):
            one, other = heads[row, start + i], heads[row, start + half + i]
            heads[row, start + i] = one * cosine[row, i] - other * sine[row, i]
            heads[row, start + half + i] = other * cosine[row, i] + one * sine[row, i]
    key_start = (num_kv * size + kv) * width
    value_start = (num_kv * (size + 1) + kv) * width
    _append(numbers, key, cache_scales, key_scales, position, heads[row, key_start:], width, cached.key_place)
    _append(numbers, value, cache_scales, value_scales, position, heads[row, value_start:], width, cached.value_place)
    queries = heads[row, kv * size * width : (kv + 1) * size * width]
    factor = np.float32(1.0) / np.sqrt(np.float32(width))
    for i in range(size * width):
        queries[i] *= factor
    return queries


@njit
def _attend_to_floats(queries, cache, places, count, room, out, group, lanes, kind):
    """Attention of one group of queries of one row to the first `count` positions, into its part of `out`."""
    numbers, scores = cache[0], room[0]
    key, value, _, _ = places
    size, item, apart = len(group), numbers.itemsize, scores.shape[1]
    base, begin = numbers.ctypes.data, scores.ctypes.data
    vectors.scores(queries.ctypes.data, base + item * key, count, begin, apart, group, lanes, kind)
    padded = -(-count // emit.LANES) * emit.LANES
    for number in range(size):
        line = scores[number]
        largest = _largest(line[:count])
        for i in range(count):
            line[i] = vectors.exp(line[i] - largest)
        for i in range(count, padded):
            line[i] = np.float32(0.0)
        inverse = np.float32(1.0) / vectors.total_of(line.ctypes.data, padded)
        for i in range(count):
            line[i] *= inverse
    vectors.mixture(begin, base + item * value, count, apart, out.ctypes.data, group, lanes, kind)


@njit
def _attend_to_bytes(queries, cache, places, count, room, out, group, lanes, kind):
    """The same with a cache in int8."""
    numbers, scales = cache
    cached.attend(queries, numbers, scales, places, count, room[1], room[2], out, group, lanes)


@njit
def _append(numbers, start, scales, scale_start, position, vector, width, place_of):
    """Store a vector in the cache, in the cache's kind of numbers; `place_of` tells how one in int8 lays them out."""
    place = start + position * width
    if numbers.itemsize == 1:
        scale = max(_largest_size(vector[:width]), np.float32(1e-12)) / np.float32(127.0)
        scales[scale_start + position] = scale
        for i in range(width):
            rounded = np.int32(np.floor(vector[i] / scale + np.float32(0.5)))
            numbers[start + place_of(position, i, width)] = rounded
    elif numbers.itemsize == 2:  # bfloat16: to the nearest, ties to even
        for i in range(width):
            bits = np.int64(vectors.bits(vector[i])) & 0xFFFFFFFF
            numbers[place + i] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF
    else:
        for i in range(width):
            numbers[place + i] = vector[i]


@njit
def _step(
    thread, threads, gate, table, numbers, gains, frequencies, eps, lengths, strides, cache, x, logits, heads,
    attended, gates, angles, seats, mine, inner, room, group, lanes, kind, attend,
):  # fmt: skip
    """One thread's share of a step; see `step`."""
    rows, dim, half = x.shape[0], x.shape[1], len(frequencies)
    size, width = len(group), emit.LANES * len(lanes)
    num_kv = (heads.shape[1] // width) // (size + 2)
    cosine, sine = angles
    for row in range(rows):
        for i in range(half):
            angle = np.float32(lengths[row]) * frequencies[i]
            cosine[row, i], sine[row, i] = np.cos(angle), np.sin(angle)
    layers = len(table) // 4
    for layer in range(layers):
        qkv, o, gate_up, down = table[4 * layer], table[4 * layer + 1], table[4 * layer + 2], table[4 * layer + 3]
        _norm(x, gains[2 * layer], eps, mine)
        _ready(mine, qkv, numbers, room)
        first, stop = arrays.share_of_outputs(qkv[OUTPUTS], thread, threads)
        _project(qkv, numbers, room, heads, first, stop)
        arrays.meet(gate, threads)
        for task in range(thread, rows * num_kv, threads):
            row, kv = task // num_kv, task % num_kv
            key = layer * strides[0, 0] + row * strides[0, 1] + kv * strides[0, 2]
            key_scales = layer * strides[1, 0] + row * strides[1, 1] + kv * strides[1, 2]
            places = (key, key + num_kv * strides[0, 2], key_scales, key_scales + num_kv * strides[1, 2])
            queries = _enter(heads, row, kv, lengths[row], cosine, sine, cache, places, size, width)
            out = attended[row, kv * size * width : (kv + 1) * size * width]
            attend(queries, cache, places, lengths[row] + 1, seats, out, group, lanes, kind)
        arrays.meet(gate, threads)
        for row in range(rows):
            for i in range(attended.shape[1]):
                inner[row, i] = attended[row, i]
        _ready(inner[:, : attended.shape[1]], o, numbers, room)
        first, stop = arrays.share_of_outputs(dim, thread, threads)
        _project(o, numbers, room, mine, first, stop)
        for row in range(rows):
            for i in range(first, stop):
                x[row, i] += mine[row, i]
        arrays.meet(gate, threads)
        _norm(x, gains[2 * layer + 1], eps, mine)
        _ready(mine, gate_up, numbers, room)
        middle = gate_up[OUTPUTS] // 2
        begin, end = arrays.share_of_outputs(middle, thread, threads)
        _project(gate_up, numbers, room, gates, begin, end)
        _project(gate_up, numbers, room, gates, middle + begin, middle + end)
        for row in range(rows):
            for i in range(begin, end):
                gates[row, i] *= gates[row, middle + i] / (np.float32(1.0) + vectors.exp(-gates[row, i]))
        arrays.meet(gate, threads)
        for row in range(rows):
            for i in range(middle):
                inner[row, i] = gates[row, i]
        _ready(inner[:, :middle], down, numbers, room)
        _project(down, numbers, room, mine, first, stop)
        for row in range(rows):
            for i in range(first, stop):
                x[row, i] += mine[row, i]
        arrays.meet(gate, threads)
    head = table[4 * layers]
    _norm(x, gains[2 * layers], eps, mine)
    _ready(mine, head, numbers, room)
    first, stop = arrays.share_of_outputs(head[OUTPUTS], thread, threads)
    _project(head, numbers, room, logits, first, stop)
    arrays.meet(gate, threads)


@njit
def _choose(block, number, apart, logits, x):
    """The next code of each slot."""
    room = arrays.floats1(block, 39), arrays.floats1(block, 40), arrays.longs(block, 41)
    for slot in range(len(x) // apart):
        draw.choose(
            slot, apart, number, logits, x, arrays.longs2(block, 30), arrays.ubytes(block, 31), arrays.doubles2(block, 32),
            arrays.longs(block, 33), arrays.floats3(block, 34), arrays.floats3(block, 35), arrays.floats2(block, 36),
            arrays.longs2(block, 37), arrays.longs2(block, 38), room,
        )  # fmt: skip


def step(group, lanes, kind):
    """The function of a step, for heads of 16 `lanes` numbers in groups of so many queries, and caches of a kind of numbers.

    Every thread calls it with its number, how many there are, and the address of a `nn.team.Block` of:

        gate [2, 8]: where the threads meet.
        table [4 L + 1, 10]: the projections qkv, o, gate_up and down of each layer, and the head.
        bytes, shorts, floats, sums, channels: that the table points into.
        gains [2 L + 1, D] of the norms, frequencies [W / 2] of positive angles per position, eps [1] of the norms.
        lengths [M]: positions that each row holds.
        strides [2, 3]: of a layer, a row and a head in the cache, and in its scales.
        keys and values, their scales: flat.
        x [M, D]: in, and spoilt. logits [M, V]: out. heads [M, Q], attended [M, A], gates [M, 2 I]: between.
        of each thread: angles [2 T, M, W / 2], scores [T, G, N], x [T, M, D], hidden [T, M, max(I, A)], and for inputs
        of a product, bytes [T, M * in], scales [T, M], those kept apart [T, M, K], floats [T, M * in]; for attention to
        a cache in int8, bytes and floats (`cached.room`).
        asked [2]: how many codes to draw, each followed by a step that hears it, and rows of a slot; 0 codes: a step that hears x.
        Only with codes, of P slots: counters [5, P], of steps, frames, the first step that may end, 1 for those that go on, and
        codes heard; ended [P]; settings [P, 4] and top_k [P] (`draw`); uniforms [2, P, U] and what is said [P, S, D], by the step modulo
        U and S; embedding [V - 1, D]; history [P, N]; codes [P, C], out; and to draw in, numbers [V], [V] and places [V].
    """
    group, lanes, cache_numbers = (
        (0,) * group,
        (0,) * lanes,
        {vectors.BFLOAT16: arrays.shorts, vectors.FLOAT32: arrays.floats1, vectors.INT8: arrays.bytes1}[kind],
    )
    attend = _attend_to_bytes if kind == vectors.INT8 else _attend_to_floats
    kind = (0,) * kind

    def run(thread, threads, block):
        gate, table = arrays.longs2(block, 0), arrays.longs2(block, 1)
        numbers = (
            arrays.bytes1(block, 2),
            arrays.shorts(block, 3),
            arrays.floats1(block, 4),
            arrays.ints(block, 5),
            arrays.longs(block, 6),
        )
        gains, frequencies, eps = arrays.floats2(block, 7), arrays.floats1(block, 8), arrays.floats1(block, 9)[0]
        lengths, strides = arrays.longs(block, 10), arrays.longs2(block, 11)
        cache = cache_numbers(block, 12), arrays.floats1(block, 13)
        x, logits, heads, attended, gates = (
            arrays.floats2(block, 14),
            arrays.floats2(block, 15),
            arrays.floats2(block, 16),
            arrays.floats2(block, 17),
            arrays.floats2(block, 18),
        )
        angles = arrays.floats3(block, 19)[2 * thread], arrays.floats3(block, 19)[2 * thread + 1]
        seats = arrays.floats3(block, 20)[thread], arrays.ubytes2(block, 27)[thread], arrays.floats2(block, 28)[thread]
        mine, inner = arrays.floats3(block, 21)[thread], arrays.floats3(block, 22)[thread]
        room = (
            arrays.ubytes2(block, 23)[thread],
            arrays.floats2(block, 24)[thread],
            arrays.floats3(block, 25)[thread],
            arrays.floats2(block, 26)[thread],
        )
        count, apart = arrays.longs(block, 29)[0], arrays.longs(block, 29)[1]
        for number in range(max(count, 1)):
            if count > 0:
                if thread == 0:
                    _choose(block, number, apart, logits, x)
                arrays.meet(gate, threads)
            _step(
                thread, threads, gate, table, numbers, gains, frequencies, eps, lengths, strides, cache, x, logits, heads,
                attended, gates, angles, seats, mine, inner, room, group, lanes, kind, attend,
            )  # fmt: skip
            if count > 0 and thread == 0:
                active = arrays.longs2(block, 30)[3]
                for row in range(len(lengths)):
                    lengths[row] += active[row // apart]
        return 0

    return run


def project():
    """The function of a projection of many rows, by the same products as `step`; called like that, with:

    gate [2, 8]; entry [10], line of the table; bytes, shorts, floats, sums, channels that it points into; x [M, in],
    spoilt; made [M, out], out; and for x as the product takes it, bytes [M * in], scales [M], floats [M * in].
    """

    def run(thread, threads, block):
        gate, entry = arrays.longs2(block, 0), arrays.longs(block, 1)
        numbers = (
            arrays.bytes1(block, 2),
            arrays.shorts(block, 3),
            arrays.floats1(block, 4),
            arrays.ints(block, 5),
            arrays.longs(block, 6),
        )
        x, made = arrays.floats2(block, 7), arrays.floats2(block, 8)
        room = arrays.ubytes(block, 9), arrays.floats1(block, 10), arrays.floats2(block, 11), arrays.floats1(block, 12)
        if thread == 0:
            _ready(x, entry, numbers, room)
        arrays.meet(gate, threads)
        first, stop = arrays.share_of_outputs(entry[OUTPUTS], thread, threads)
        _project(entry, numbers, room, made, first, stop)
        arrays.meet(gate, threads)
        return 0

    return run
