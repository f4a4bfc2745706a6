"""What kernels share: where their threads meet, which part of the work is whose, and the arrays that they are called with."""

# mypy: ignore-errors
# numba's decorators are untyped, and annotations would be taken for compiled types.

import sys

from numba import carray, njit, types

from longplay.nn.kernels import vectors

_SPINS = 4000

if sys.platform == "win32":
    _give_way = types.ExternalFunction("SwitchToThread", types.int32())
else:
    _give_way = types.ExternalFunction("sched_yield", types.int32())


@njit
def meet(gate, threads):
    """Wait until all threads are here; `gate` is int64 [2, 8], in cache lines apart."""
    if threads == 1:
        return
    turn = vectors.look(gate.ctypes.data + 64)
    if vectors.count_up(gate.ctypes.data) == threads - 1:
        gate[0, 0] = 0
        vectors.count_up(gate.ctypes.data + 64)
        return
    spins = 0
    while vectors.look(gate.ctypes.data + 64) == turn:
        vectors.pause()
        spins += 1
        if spins > _SPINS:
            _give_way()


@njit(inline="always")
def share(total, thread, threads):
    """Where a thread's part of so many things begins and ends."""
    return total * thread // threads, total * (thread + 1) // threads


@njit(inline="always")
def share_of_outputs(total, thread, threads):
    """The same of the outputs of a product, in blocks as it computes them."""
    begin, end = share(total, thread, threads)
    four = vectors.FOUR
    return begin // four * four, total if thread == threads - 1 else end // four * four


@njit(inline="always")
def _line(block, number):
    """Address and sizes of an array that a block describes."""
    line = carray(_longs_at(block), (number + 1, 4))[number]
    return line[0], line[1], line[2], line[3]


def _arrays(pointer):
    """What makes an array of one, two and three dimensions of a line of a block."""

    @njit(inline="always")
    def one(block, number):
        address, size, _, _ = _line(block, number)
        return carray(pointer(address), (size,))

    @njit(inline="always")
    def two(block, number):
        address, rows, columns, _ = _line(block, number)
        return carray(pointer(address), (rows, columns))

    @njit(inline="always")
    def three(block, number):
        address, parts, rows, columns = _line(block, number)
        return carray(pointer(address), (parts, rows, columns))

    return one, two, three


_longs_at = vectors.pointer_to(types.int64)
longs, longs2, _ = _arrays(_longs_at)
ints, ints2, ints3 = _arrays(vectors.pointer_to(types.int32))
shorts, _, _ = _arrays(vectors.pointer_to(types.uint16))
bytes1, _, _ = _arrays(vectors.pointer_to(types.int8))
ubytes, ubytes2, _ = _arrays(vectors.pointer_to(types.uint8))
_, doubles2, _ = _arrays(vectors.pointer_to(types.float64))
floats1, floats2, floats3 = _arrays(vectors.pointer_to(types.float32))
