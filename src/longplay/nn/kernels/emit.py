"""Instructions that kernels are built of, as LLVM's intermediate representation.

Addresses are integers, as numba gives them; nothing is checked. A register holds sixteen floats or words; LLVM halves it
where the processor's are shorter.
"""

# mypy: ignore-errors
# LLVM's builders are untyped.

from llvmlite import ir
from numba.core import cgutils

from longplay.nn import processor

LANES = 16
"""Floats are taken so many at a time."""
BYTES = 4 * LANES
BYTE, SHORT, INT, LONG, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
WORDS, FLOATS = ir.VectorType(INT, LANES), ir.VectorType(FLOAT, LANES)
HAS_VNNI = processor.level() != "avx2"
BITS = 512 if processor.level() == "avx512vnni" else 256
"""Of the registers that bytes are multiplied in."""
ZERO = processor.zero()
"""What stands for zero in the bytes that `add_bytes` multiplies with weights."""

_POLYNOMIAL = (0.0135424278, 0.0520548175, 0.2413697877, 0.6930329670, 1.0)  # 2 to [0, 1), within 4e-6


def pointer(builder, address):
    """To an address."""
    return builder.inttoptr(address, ir.PointerType())


def at(builder, pointer, index, element):
    """A pointer on by so many elements."""
    return builder.gep(pointer, [index], source_etype=element)


def load(builder, pointer, wanted):
    """From anywhere, aligned or not."""
    loaded = builder.load(pointer, typ=wanted)
    loaded.align = 1
    return loaded


def call(builder, name, result, arguments):
    """One of LLVM's own functions."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def add_product(builder, one, other, total):
    """In one rounding."""
    return call(builder, f"llvm.fma.v{total.type.count}f32", total.type, [one, other, total])


def add_bytes(builder, total, inputs, weights):
    """Products of four neighbouring bytes each, added to a register of words: of signed weights and inputs as `ZERO` says.

    VNNI multiplies unsigned bytes with signed ones. What AVX2 has for that adds two products in 16 bits, which hold them
    if none is beyond 127: so inputs get the weights' signs there, and the weights lose them (no -128, then).
    """
    if HAS_VNNI:
        return _by_registers(_add_by_vnni, builder, total, inputs, weights)
    return _by_registers(_add_signed, builder, total, inputs, weights)


def add_unsigned_bytes(builder, total, unsigned, signed):
    """The same of unsigned bytes, of all sizes, and signed ones."""
    return _by_registers(_add_by_vnni if HAS_VNNI else _add_halves, builder, total, unsigned, signed)


def add_small_bytes(builder, total, unsigned, signed):
    """The same, faster with AVX2, where the signed ones are at most 64: sums of two products fit into 16 bits."""
    return _by_registers(_add_by_vnni if HAS_VNNI else _add_pairs, builder, total, unsigned, signed)


def _by_registers(add, builder, total, one, other):
    count = BITS // 32
    if total.type.count == count:
        return add(builder, total, one, other)
    low, high = (
        add(builder, *(pick(builder, each, first, count) for each in (total, one, other))) for first in (0, count)
    )
    return shuffle(builder, low, high, list(range(2 * count)))


def _add_by_vnni(builder, total, unsigned, signed):
    return call(builder, f"llvm.x86.avx512.vpdpbusd.{BITS}", total.type, [total, unsigned, signed])


_BYTES, _SHORTS = ir.VectorType(BYTE, 32), ir.VectorType(SHORT, 16)


def _add_signed(builder, total, inputs, weights):
    inputs, weights = (builder.bitcast(each, _BYTES) for each in (inputs, weights))
    turned = call(builder, "llvm.x86.avx2.psign.b", _BYTES, [inputs, weights])
    sizes = call(builder, "llvm.x86.avx2.psign.b", _BYTES, [weights, weights])
    pairs = call(builder, "llvm.x86.avx2.pmadd.ub.sw", _SHORTS, [sizes, turned])
    return builder.add(total, _pairs(builder, pairs, ir.Constant(_SHORTS, [1] * 16)))


def _add_pairs(builder, total, unsigned, signed):
    unsigned, signed = (builder.bitcast(each, _BYTES) for each in (unsigned, signed))
    pairs = call(builder, "llvm.x86.avx2.pmadd.ub.sw", _SHORTS, [unsigned, signed])
    return builder.add(total, _pairs(builder, pairs, ir.Constant(_SHORTS, [1] * 16)))


def _add_halves(builder, total, unsigned, signed):
    """The bytes of even and those of odd places, as numbers of 16 bits."""
    eight = ir.Constant(_SHORTS, [8] * 16)
    unsigned, signed = (builder.bitcast(each, _SHORTS) for each in (unsigned, signed))
    odd = _pairs(builder, builder.lshr(unsigned, eight), builder.ashr(signed, eight))
    even = _pairs(
        builder,
        builder.and_(unsigned, ir.Constant(_SHORTS, [255] * 16)),
        builder.ashr(builder.shl(signed, eight), eight),
    )
    return builder.add(builder.add(total, odd), even)


def _pairs(builder, one, other):
    return call(builder, "llvm.x86.avx2.pmadd.wd", ir.VectorType(INT, 8), [one, other])


def splat(builder, value, count):
    """A value, so many times."""
    vector = ir.VectorType(value.type, count)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(INT, 0))
    mask = ir.Constant(ir.VectorType(INT, count), [0] * count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)


def shuffle(builder, one, other, pick):
    """Numbers of two vectors, the second one's counted on from the first one's."""
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(INT, len(pick)), pick))


def pick(builder, vector, first, count):
    """Some neighbours of a vector."""
    return shuffle(builder, vector, vector, list(range(first, first + count)))


def total(builder, vector):
    """The sum of a vector, always added half to half."""
    while vector.type.count > 1:
        half = vector.type.count // 2
        vector = builder.fadd(pick(builder, vector, 0, half), pick(builder, vector, half, half))
    return builder.extract_element(vector, ir.Constant(INT, 0))


def loop(builder, stop, step):
    """From 0."""
    return cgutils.for_range_slice(builder, ir.Constant(LONG, 0), stop, ir.Constant(LONG, step), LONG)


def constant(value):
    """A float, for all lanes."""
    return ir.Constant(FLOATS, [value] * LANES)


def whole(value):
    """A word, for all lanes."""
    return ir.Constant(WORDS, [value] * LANES)


def vector(builder, address, offset, kind=WORDS):
    """What lies so many bytes behind an address."""
    place = builder.add(address, offset) if not isinstance(offset, int) else builder.add(address, long(offset))
    return load(builder, pointer(builder, place), kind)


def long(value):
    """A constant."""
    return ir.Constant(LONG, value)


def word(builder, address):
    """One word, for all lanes."""
    loaded = builder.load(pointer(builder, address), typ=INT)
    loaded.align = 4
    return splat(builder, loaded, LANES)


def fetch(builder, pointer, level):
    """Have the line of the cache at a pointer brought near, without waiting; it may be of nothing.

    Processors do so by themselves, but not in time: each row of weights is short, and many begin at once.
    """
    hints = [
        ir.Constant(INT, hint) for hint in (0, level, 1)
    ]  # to read, 3 into the first cache and 2 into the second, data
    call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *hints])


AHEAD = 8192
"""Bytes between what is multiplied and what is fetched: some tenths of a microsecond, at the pace of memory."""


def store(builder, vector, address, align):
    """The other way."""
    builder.store(vector, pointer(builder, address)).align = align


def to_shorts(builder, words):
    """The upper halves."""
    return builder.trunc(builder.lshr(words, whole(16)), ir.VectorType(SHORT, LANES))


def rounded(builder, words):
    """The bits of floats as bfloat16: to the nearest, ties to even."""
    odd = builder.and_(builder.lshr(words, whole(16)), whole(1))
    return to_shorts(builder, builder.add(builder.add(words, whole(0x7FFF)), odd))


def number(builder, address):
    """One float, for all lanes."""
    return splat(builder, builder.load(pointer(builder, address), typ=FLOAT), LANES)


def larger(builder, one, other):
    """The larger of each two."""
    return builder.select(builder.fcmp_ordered(">", one, other), one, other)


def largest(builder, vector):
    """Of a register."""
    return call(builder, f"llvm.vector.reduce.fmax.v{LANES}f32", FLOAT, [vector])


def exp2(builder, power):
    """2 to a register of floats of at most 127, as the bits of floats, within 4e-6."""
    power = larger(builder, power, constant(-126.0))
    below = call(builder, f"llvm.floor.v{LANES}f32", FLOATS, [power])
    rest = builder.fsub(power, below)
    made = constant(_POLYNOMIAL[0])
    for coefficient in _POLYNOMIAL[1:]:
        made = add_product(builder, made, rest, constant(coefficient))
    raised = builder.shl(builder.fptosi(below, WORDS), whole(23))
    return builder.add(builder.bitcast(made, WORDS), raised)
