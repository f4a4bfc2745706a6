"""Vector instructions for the compiled kernels, as LLVM's intermediate representation.

Loops over int8 are not vectorised well, and sums are to be added in an order that no compiler changes. Addresses are
integers, as numba gives them; nothing is checked.
"""

# mypy: ignore-errors
# numba's decorators and LLVM's builders are untyped, and annotations would be taken for compiled types.

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from longplay.nn.kernels import emit

BFLOAT16, FLOAT32, INT8, INT4 = 1, 2, 3, 4
"""Kinds of numbers: of the weights of a projection, and, but for the last, of the cache."""
FOUR = 4
"""Outputs of a block of products, and rows at most."""
LEVELS, GROUP = 32, 32
"""Bytes of the table of levels, twice sixteen, before weights in int4, and how many weights have a scale of their own."""
NIBBLES_ZERO = 128
"""What stands for zero in the bytes that are multiplied with weights in int4, whatever the processor."""


def _floats(builder, pointer, index, count, kind):
    """`count` numbers of a kind as floats, starting at `index`."""
    wanted = ir.VectorType(emit.FLOAT, count)
    if kind == FLOAT32:
        return emit.load(builder, emit.at(builder, pointer, index, emit.FLOAT), wanted)
    halves = emit.load(builder, emit.at(builder, pointer, index, emit.SHORT), ir.VectorType(emit.SHORT, count))
    shift = ir.Constant(ir.VectorType(emit.INT, count), [16] * count)
    return builder.bitcast(builder.shl(builder.zext(halves, ir.VectorType(emit.INT, count)), shift), wanted)


def _dots(builder, weight, row, length, row_count, out_count):
    """Sums, in as many parts as a register has, of int8 weights of some outputs times the rounded inputs of some rows.

    Both are `length` bytes apart, a multiple of 64. The sums of a row come together.
    """
    width, vector = emit.BITS // 8, ir.VectorType(emit.INT, emit.BITS // 32)
    chains = max(1, 4 // (row_count * out_count))  # a product of VNNI takes four cycles, one more can start in each
    zero = ir.Constant(vector, None)
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(row_count * out_count)] for _ in range(chains)]

    def load(pointer, place, number):
        start = builder.add(place, builder.mul(length, emit.long(number)))
        return emit.load(builder, emit.at(builder, pointer, start, emit.BYTE), vector)

    def add(place, totals):
        values = [load(row, place, number) for number in range(row_count)]
        for out in range(out_count):
            loaded = load(weight, place, out)
            start = builder.add(place, builder.mul(length, emit.long(out)))
            emit.fetch(builder, emit.at(builder, weight, builder.add(start, emit.long(emit.AHEAD)), emit.BYTE), 3)
            for number in range(row_count):
                total = totals[number * out_count + out]
                builder.store(emit.add_bytes(builder, builder.load(total, typ=vector), values[number], loaded), total)

    whole = builder.and_(length, emit.long(-width * chains))
    with emit.loop(builder, whole, width * chains) as (place, _):
        for chain, totals in enumerate(sums):
            add(builder.add(place, emit.long(width * chain)), totals)
    if chains > 1:
        with cgutils.for_range_slice(builder, whole, length, emit.long(width), emit.LONG) as (place, _):
            add(place, sums[0])
    made = []
    for parts in zip(*sums, strict=True):
        total = builder.load(parts[0], typ=vector)
        for part in parts[1:]:
            total = builder.add(total, builder.load(part, typ=vector))
        made.append(total)
    return made


@intrinsic
def product_of_bytes(typingctx, weights, inputs, length):
    """The dot product of int8 weights and the rounded inputs of a row."""

    def generate(context, builder, signature, arguments):
        weight, row = emit.pointer(builder, arguments[0]), emit.pointer(builder, arguments[1])
        (total,) = _dots(builder, weight, row, arguments[2], 1, 1)
        return emit.call(builder, f"llvm.vector.reduce.add.v{emit.BITS // 32}i32", emit.INT, [total])

    return types.int32(weights, inputs, length), generate


@intrinsic
def block_of_products(typingctx, weights, inputs, length, taken, made, apart, rows):
    """The same of four outputs and some rows, less what is to be `taken` from each output; rows of `made` lie `apart`.

    `rows` is a tuple that counts: 1, 2 or 4.
    """
    count = rows.count
    together = min(count, 4 if emit.BITS == 512 else 2)  # more do not fit into the registers

    def generate(context, builder, signature, arguments):
        weight, row, less, out = (emit.pointer(builder, arguments[number]) for number in (0, 1, 3, 4))
        four = ir.VectorType(emit.INT, FOUR)
        less = emit.load(builder, less, four)
        for first in range(0, count, together):
            begin = emit.at(builder, row, builder.mul(arguments[2], emit.long(first)), emit.BYTE)
            sums = _dots(builder, weight, begin, arguments[2], together, FOUR)
            for number in range(together):
                total = builder.sub(_totals(builder, sums[FOUR * number : FOUR * number + FOUR], builder.add), less)
                start = builder.mul(arguments[5], emit.long(first + number))
                stored = builder.store(
                    builder.sitofp(total, ir.VectorType(emit.FLOAT, FOUR)), emit.at(builder, out, start, emit.FLOAT)
                )
                stored.align = 4
        return context.get_dummy_value()

    return types.void(weights, inputs, length, taken, made, apart, rows), generate


@intrinsic
def block_of_nibbles(typingctx, levels, weights, groups, inputs, length, taken, made, apart, rows):
    """`block_of_products` for weights in int4, of one or two rows.

    A weight is one of sixteen `levels` of at most 64, which lie twice one after the other, times the scale of its group. `weights`
    are [length / 64, 4, 32]: a byte holds inputs i and, in its upper half, i + 32 of 64. `groups` are [length / 64, 4, 2], scales
    from 0 to 63. Unsigned inputs times levels, in pairs, stay within 16 bits, and times scales, in fours, within 32.
    """
    count = rows.count
    bytes_, shorts, words = (ir.VectorType(kind, 256 // kind.width) for kind in (emit.BYTE, emit.SHORT, emit.INT))

    def generate(context, builder, signature, arguments):
        table = emit.load(builder, emit.pointer(builder, arguments[0]), bytes_)
        weight, group, row, less, out = (emit.pointer(builder, arguments[number]) for number in (1, 2, 3, 5, 6))
        length = arguments[4]
        sums = [
            cgutils.alloca_once_value(builder, ir.Constant(words, None)) for _ in range(count * FOUR)
        ]  # of a row, its outputs
        low, eight, lowest = (ir.Constant(shorts, [value] * shorts.count) for value in (255, 8, 0x0F0F))
        four_bits = ir.Constant(shorts, [4] * shorts.count)

        def at(pointer, index):
            return emit.at(builder, pointer, index, emit.BYTE)

        def level(halves):
            return emit.call(
                builder, "llvm.x86.avx2.pshuf.b", bytes_, [table, builder.bitcast(builder.and_(halves, lowest), bytes_)]
            )

        def add(place, values, known, scale):
            pairs = emit.call(builder, "llvm.x86.avx2.pmadd.ub.sw", shorts, [values, known])
            made = emit.call(builder, "llvm.x86.avx2.pmadd.wd", words, [pairs, scale])
            builder.store(builder.add(builder.load(place, typ=words), made), place)

        blocks = builder.lshr(length, emit.long(6))
        with emit.loop(builder, blocks, 1) as (block, _):
            begin = builder.mul(block, emit.long(64))
            values = []
            for number in range(count):
                start = builder.add(begin, builder.mul(length, emit.long(number)))
                values.append(
                    [emit.load(builder, at(row, builder.add(start, emit.long(half))), bytes_) for half in (0, 32)]
                )
            numbers, scales = builder.mul(block, emit.long(32 * FOUR)), builder.mul(block, emit.long(2 * FOUR))
            for line in (0, 64):
                emit.fetch(builder, at(weight, builder.add(numbers, emit.long(emit.AHEAD + line))), 3)
            emit.fetch(builder, at(group, builder.add(scales, emit.long(emit.AHEAD // 16))), 3)
            for output in range(FOUR):
                both = emit.load(builder, at(weight, builder.add(numbers, emit.long(32 * output))), shorts)
                pair = builder.load(at(group, builder.add(scales, emit.long(2 * output))), typ=emit.SHORT)
                pair.align = 1
                pair = emit.splat(builder, pair, shorts.count)
                halves = level(both), level(builder.lshr(both, four_bits))
                factors = builder.and_(pair, low), builder.lshr(pair, eight)
                for number in range(count):
                    for value, half, factor in zip(values[number], halves, factors, strict=True):
                        add(sums[number * FOUR + output], value, half, factor)
        less = emit.load(builder, less, ir.VectorType(emit.INT, FOUR))
        for number in range(count):
            known = [builder.load(each, typ=words) for each in sums[number * FOUR : number * FOUR + FOUR]]
            total = builder.sub(_totals(builder, known, builder.add), less)
            place = emit.at(builder, out, builder.mul(arguments[7], emit.long(number)), emit.FLOAT)
            builder.store(builder.sitofp(total, ir.VectorType(emit.FLOAT, FOUR)), place).align = 4
        return context.get_dummy_value()

    kinds = (levels, weights, groups, inputs, length, taken, made, apart, rows)
    return types.void(*kinds), generate


def _totals(builder, vectors, add):
    """The four sums of four vectors: added in pairs of vectors, then of pairs, then lane by lane."""

    def paired(one, other, run):
        count = one.type.count
        first = [i // run % 2 * count + i // (2 * run) * 2 * run + i % run for i in range(count)]
        return add(
            emit.shuffle(builder, one, other, first), emit.shuffle(builder, one, other, [i + run for i in first])
        )

    total = paired(paired(*vectors[:2], 1), paired(*vectors[2:], 1), 2)
    while total.type.count > FOUR:
        half = total.type.count // 2
        total = add(emit.pick(builder, total, 0, half), emit.pick(builder, total, half, half))
    return total


def _total_alone(builder, vector):
    """The sum of a vector, added in the order of `_totals`."""
    return builder.extract_element(_totals(builder, [vector] * FOUR, builder.fadd), ir.Constant(emit.INT, 0))


@intrinsic
def product(typingctx, weights, inputs, length, kind):
    """The dot product of float32 inputs with weights of a kind (as many as `kind` has entries)."""
    weight_kind = kind.count

    def generate(context, builder, signature, arguments):
        vector = ir.VectorType(emit.FLOAT, emit.LANES)
        weight, row = emit.pointer(builder, arguments[0]), emit.pointer(builder, arguments[1])
        total = cgutils.alloca_once_value(builder, ir.Constant(vector, None))
        with emit.loop(builder, arguments[2], emit.LANES) as (place, _):
            one = _floats(builder, weight, place, emit.LANES, weight_kind)
            other = _floats(builder, row, place, emit.LANES, FLOAT32)
            builder.store(emit.add_product(builder, one, other, builder.load(total, typ=vector)), total)
        return emit.total(builder, builder.load(total, typ=vector))

    return types.float32(weights, inputs, length, kind), generate


@intrinsic
def scores(typingctx, queries, keys, count, scores, apart, group, lanes, kind):
    """Dot products of a group's queries with `count` keys; scores of a query lie `apart` floats from the next one's.

    `group`, `lanes` and `kind` count: queries, numbers of a head, and the kind of the keys.
    """
    heads, width, key_kind = group.count, lanes.count * emit.LANES, kind.count

    def generate(context, builder, signature, arguments):
        query, key, score = (emit.pointer(builder, arguments[number]) for number in (0, 1, 3))
        vectors = [_floats(builder, query, emit.long(head * width), width, FLOAT32) for head in range(heads)]

        def parts(vector, known):
            """Products of a query with one key, in as many sums as a register has."""
            part = ir.Constant(ir.VectorType(emit.FLOAT, emit.LANES), None)
            for first in range(0, width, emit.LANES):
                one, other = (emit.pick(builder, each, first, emit.LANES) for each in (known, vector))
                part = emit.add_product(builder, one, other, part)
            return part

        def of_keys(place, number):
            keys = [
                _floats(
                    builder,
                    key,
                    builder.mul(builder.add(place, emit.long(i)), emit.long(width)),
                    width,
                    key_kind,
                )
                for i in range(number)
            ]
            for head, vector in enumerate(vectors):
                sums = [parts(vector, known) for known in keys]
                start = builder.add(place, builder.mul(arguments[4], emit.long(head)))
                total = _totals(builder, sums, builder.fadd) if number == FOUR else _total_alone(builder, sums[0])
                builder.store(total, emit.at(builder, score, start, emit.FLOAT)).align = 4

        whole = builder.and_(arguments[2], emit.long(-FOUR))
        with emit.loop(builder, whole, FOUR) as (place, _):  # four sums are added up in the time of one and a half
            of_keys(place, FOUR)
        with cgutils.for_range_slice(builder, whole, arguments[2], emit.long(1), emit.LONG) as (place, _):
            of_keys(place, 1)
        return context.get_dummy_value()

    return types.void(queries, keys, count, scores, apart, group, lanes, kind), generate


@intrinsic
def mixture(typingctx, scores, values, count, apart, made, group, lanes, kind):
    """Sums of `count` values, weighted by the scores of each query of a group; see `scores`."""
    heads, width, value_kind = group.count, lanes.count * emit.LANES, kind.count

    def generate(context, builder, signature, arguments):
        vector = ir.VectorType(emit.FLOAT, width)
        score, value, out = (emit.pointer(builder, arguments[number]) for number in (0, 1, 4))
        sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(heads)]
        with emit.loop(builder, arguments[2], 1) as (place, _):
            known = _floats(builder, value, builder.mul(place, emit.long(width)), width, value_kind)
            for head, total in enumerate(sums):
                start = builder.add(place, builder.mul(arguments[3], emit.long(head)))
                share = emit.splat(
                    builder, builder.load(emit.at(builder, score, start, emit.FLOAT), typ=emit.FLOAT), width
                )
                builder.store(emit.add_product(builder, known, share, builder.load(total, typ=vector)), total)
        for head, total in enumerate(sums):
            stored = builder.store(
                builder.load(total, typ=vector), emit.at(builder, out, emit.long(head * width), emit.FLOAT)
            )
            stored.align = 4
        return context.get_dummy_value()

    return types.void(scores, values, count, apart, made, group, lanes, kind), generate


@intrinsic
def total_of(typingctx, numbers, count):
    """Of `count` floats, a multiple of 16 (see `emit.LANES`)."""

    def generate(context, builder, signature, arguments):
        vector = ir.VectorType(emit.FLOAT, emit.LANES)
        total = cgutils.alloca_once_value(builder, ir.Constant(vector, None))
        with emit.loop(builder, arguments[1], emit.LANES) as (place, _):
            loaded = _floats(builder, emit.pointer(builder, arguments[0]), place, emit.LANES, FLOAT32)
            builder.store(builder.fadd(builder.load(total, typ=vector), loaded), total)
        return emit.total(builder, builder.load(total, typ=vector))

    return types.float32(numbers, count), generate


@intrinsic
def power_of_two(typingctx, exponent):
    """2 to an int32 between -126 and 127."""

    def generate(context, builder, signature, arguments):
        raised = builder.add(arguments[0], ir.Constant(emit.INT, 127))
        return builder.bitcast(builder.shl(raised, ir.Constant(emit.INT, 23)), emit.FLOAT)

    return types.float32(types.int32), generate


@njit(inline="always")
def exp(x):
    """e to x, within 2e-7 of it; x is at most 88."""
    power = max(x * np.float32(1.4426950408889634), np.float32(-126.0))
    whole = np.floor(power + np.float32(0.5))
    rest = (power - whole) * np.float32(0.6931471805599453)
    made = np.float32(1.0 / 5040)
    made = made * rest + np.float32(1.0 / 720)
    made = made * rest + np.float32(1.0 / 120)
    made = made * rest + np.float32(1.0 / 24)
    made = made * rest + np.float32(1.0 / 6)
    made = made * rest + np.float32(0.5)
    made = made * rest + np.float32(1.0)
    made = made * rest + np.float32(1.0)
    return made * power_of_two(np.int32(whole))


@intrinsic
def bits(typingctx, value):
    """Those of a float32, as an int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], emit.INT)

    return types.int32(types.float32), generate


@intrinsic
def count_up(typingctx, address):
    """Add 1 to the int64 there, for all threads at once; returns what was there."""

    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw("add", emit.pointer(builder, arguments[0]), emit.long(1), "acq_rel")

    return types.int64(address), generate


@intrinsic
def look(typingctx, address):
    """The int64 there, as other threads have left it."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(emit.pointer(builder, arguments[0]), "acquire", 8, typ=emit.LONG)

    return types.int64(address), generate


@intrinsic
def pause(typingctx):
    """Let the other thread of a core run for a few cycles."""

    def generate(context, builder, signature, arguments):
        emit.call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), generate


def pointer_to(kind):
    """What makes a pointer to numbers of a kind of an address."""

    @intrinsic
    def cast(typingctx, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(address), generate

    return cast
