"""Instructions that kernels are built of, as LLVM's intermediate representation.

Addresses are integers, as numba gives them; nothing is checked. A register holds sixteen floats or words; LLVM halves it
where the processor's are shorter.
"""

# mypy: ignore-errors
# LLVM's builders are untyped.

import os

from llvmlite import binding as llvm
from llvmlite import ir
from numba.core import cgutils

LANES = 16
"""Floats are taken so many at a time."""
BYTES = 4 * LANES
BYTE, SHORT, INT, LONG, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
WORDS, FLOATS = ir.VectorType(INT, LANES), ir.VectorType(FLOAT, LANES)
BITS = int(os.environ.get("LONGPLAY_VNNI") or (512 if llvm.get_host_cpu_features().get("avx512vnni") else 256))
"""Of the registers that bytes are multiplied in; the variable is for tests."""

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
