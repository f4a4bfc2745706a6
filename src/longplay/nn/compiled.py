"""A decoding step of int8 weights as one compiled function (`nn/kernels/step.py`): its weights packed, its threads, its call.

Needs numba and an x86 processor with AVX2, better with VNNI. Inputs are quantised row by row, so what a piece
becomes does not depend on its neighbours in a batch, nor on the number of threads.
"""

import functools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from longplay.errors import UserError
from longplay.nn import processor
from longplay.nn.cache import TILE, KVCache
from longplay.nn.int4 import LARGEST_SUM, LEVELS, Int4Weights
from longplay.nn.linear import Weights
from longplay.nn.quantized import Int8Weights, RoundedWeights
from longplay.nn.team import Block, Pile, Team, available

if TYPE_CHECKING:
    from longplay.nn.native import Kernel

CACHE_DTYPE = torch.bfloat16
"""Of keys and values, unless another is asked for: half of the bytes, and less is changed than by weights in int8."""
LANES = 16
"""Heads are a multiple of so many numbers wide."""
MOST_CODES = 64
"""That are drawn in one call: 0.1 s of a small model, in which nobody else can use its weights."""
_NO_SCALES = np.zeros(1, np.float32)
_BYTES_PER_THREAD = 32 << 20  # to read per step; below, waking a thread costs more than it saves
_MANY_ROWS = 16  # likewise, of one projection
PARTS = ("qkv", "o", "gate_up", "down")
_BFLOAT16, _FLOAT32, _INT8, _INT4 = 1, 2, 3, 4  # as in nn/kernels/vectors.py, which is imported to be compiled only
_BLOCK, _COLUMNS = 64, 4  # inputs of a projection, and channels kept apart, come in so many
_TOGETHER, _INT4_ZERO = 4, 128  # outputs of int4, and what stands for the zero of its inputs
_CACHES = {torch.bfloat16: _BFLOAT16, torch.float32: _FLOAT32, torch.int8: _INT8}


def fits(head_dim: int) -> bool:
    """Whether heads of this width can be computed."""
    return head_dim % LANES == 0


def require(precision: str, head_dim: int | None = None) -> None:
    """Refuse what this machine cannot compile, or not for heads of `head_dim` numbers.

    Raises:
        UserError: naming the precision and what is missing.
    """
    if not processor.can_compile():
        raise UserError(f"precision {precision}: needs numba and an x86 processor with AVX2; use int8")
    if head_dim is not None and not fits(head_dim):
        raise UserError(
            f"precision {precision}: needs heads of a multiple of {LANES} numbers, not {head_dim}; use int8"
        )


class CompiledWeights:
    """The projections of a model, packed one after the other, and the threads that multiply with them.

    Args:
        weights: by name: `0.qkv 0.o 0.gate_up 0.down 1.qkv ... head`.
    """

    def __init__(self, weights: Mapping[str, RoundedWeights | Weights]) -> None:
        layers = (len(weights) - 1) // len(PARTS)
        names = [*(f"{layer}.{part}" for layer in range(layers) for part in PARTS), "head"]
        packed = _Packed()
        lines = {name: packed.add(weights[name]) for name in names}
        self.lines = list(lines.values())
        self.projections = {name: functools.partial(self._project, line) for name, line in lines.items()}
        self.piles = packed.piles()
        self._team, self._alone = Team(), threading.Lock()
        self.worthwhile = max(1, sum(pile.nbytes for pile in self.piles) // _BYTES_PER_THREAD)

    def run(self, kernel: "Kernel", threads: int, block: Block) -> None:
        """Call a kernel in each thread."""
        self._team.run(kernel, threads, block)

    @property
    def gate(self) -> np.ndarray:
        """Where the threads meet."""
        return self._team.gate

    @contextmanager
    def alone(self) -> Iterator[int]:
        """Keep others from running it at the same time; gives the number of threads for a step, by the size of the model."""
        with self._alone:
            yield min(available(), self.worthwhile)

    def _project(self, line: "_Line", x: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        from longplay.nn.native import kernel

        rows, inputs, made = (
            len(x),
            x.float().clone(memory_format=torch.contiguous_format),
            torch.empty(len(x), line.outputs),
        )
        start, size = (rows * line.inputs, 0) if line.kind in (_INT8, _INT4) else (0, rows * line.inputs)
        room = np.empty(start, np.uint8), np.empty(rows, np.float32), np.empty((rows, 0), np.float32)
        channels = torch.from_numpy(self.piles[-1][line.channels : line.channels + line.apart])
        channels = channels[channels >= 0]
        kept = inputs[:, channels]
        inputs[:, channels] = 0.0
        entry = np.array(line._replace(apart=0))
        with self.alone():
            block = Block(
                self.gate, entry, *self.piles, inputs.numpy(), made.numpy(), *room, np.empty(size, np.float32)
            )
            self.run(kernel("project"), available() if rows >= _MANY_ROWS else 1, block)
        if len(channels):
            columns = self.piles[2][line.columns : line.columns + line.outputs * line.apart]
            made.addmm_(kept, torch.from_numpy(columns).view(-1, line.outputs)[: len(channels)])
        return made


class CompiledStep:
    """Vectors of the next position to logits, as `nn.graphed.step` computes them.

    Args:
        weights: of all projections.
        gains: of the norms: attention and MLP of each layer, and the final one; [2 L + 1, D].
        frequencies: angle per position of the first half of a head, [head_dim / 2].
        num_kv_heads, head_dim: of the attention.
        eps: of the norms.

    Raises:
        LongplayError: the kernels cannot be compiled.
    """

    def __init__(
        self,
        weights: CompiledWeights,
        gains: Float[Tensor, "N D"],
        frequencies: Float[Tensor, " F"],
        num_kv_heads: int,
        head_dim: int,
        eps: float,
    ) -> None:
        from longplay.nn.native import get_ready

        self._weights = weights
        self._table = np.array(weights.lines)
        self._norms = gains.float().numpy(), frequencies.float().numpy(), np.array([eps], np.float32)
        qkv, _, gate_up, _, *_, head = weights.lines
        self._heads, self._inner, self._outputs = qkv.outputs, gate_up.outputs // 2, head.outputs
        self._attended = self._heads - 2 * num_kv_heads * head_dim
        self._group, self._lanes = self._attended // (num_kv_heads * head_dim), head_dim // LANES
        self._padded = max(line.inputs for line in weights.lines)
        self._apart = max(line.apart for line in weights.lines)
        get_ready(("project",), self._kernel(CACHE_DTYPE))

    def _kernel(self, cache: torch.dtype) -> tuple[str, int, int, int]:
        return "step", self._group, self._lanes, _CACHES[cache]

    def __call__(
        self, inputs: Float[Tensor, "B 1 D"], cache: KVCache, counts: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B V"]:
        """Logits after `inputs`, which are added to `cache`, as far as `counts` says.

        Raises:
            ValueError: the cache is full, or has another number of rows.
        """
        from longplay.nn.native import kernel

        weights, lengths = self._weights, cache.lengths.numpy()
        longest = int(lengths.max())
        if longest >= cache.capacity or len(lengths) != len(inputs):
            size = f"{len(lengths)} rows of {cache.capacity} positions"
            raise ValueError(f"{len(inputs)} inputs at position {longest} do not fit into a cache of {size}")
        with weights.alone() as threads:
            if (self, threads) not in cache.seats:
                cache.seats[self, threads] = self._seat(cache, threads, np.zeros(2, np.int64))
            x, logits, block = cache.seats[self, threads]
            x[:] = inputs[:, 0].numpy()
            weights.run(kernel(*self._kernel(cache.data.dtype)), threads, block)
            made = torch.from_numpy(logits.copy())
        cache.advance(1, counts)
        return made

    @property
    def longest_draw(self) -> int:
        """Codes that `draw` is best asked for at a time: threads come and go between two calls only."""
        return MOST_CODES if self._weights.worthwhile == 1 else 1

    def draw(self, drawing: "Drawing", logits: Float[Tensor, "P R V"], cache: KVCache, count: int) -> None:
        """Draw a code of each slot and hear it, `count` times: `drawing` and `cache` go on.

        Args:
            drawing: of a batch; `logits` and `cache` hold its first slots, as many as there are.
            logits: of the next codes; those after the last code when it returns.
            cache: of P * R rows.
            count: of codes, at most `MOST_CODES`.

        Raises:
            ValueError: more than there is room for.
        """
        from longplay.nn.native import kernel

        weights, (slots, width, _) = self._weights, logits.shape
        held = cache.lengths.view(slots, width).amax(dim=1) + count * drawing.going[:slots]
        if count > MOST_CODES or int(held.max()) > cache.capacity:
            raise ValueError(f"{count} codes do not fit into a cache of {cache.capacity} positions")
        with weights.alone() as threads:
            if (drawing, threads) not in cache.seats:
                asked, size = np.array([0, width]), logits.shape[2]
                room = np.zeros(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.int64)
                cache.seats[drawing, threads] = asked, *self._seat(cache, threads, asked, *drawing.arrays, *room)
            asked, _, made, block = cache.seats[drawing, threads]
            asked[0], made[:] = count, logits.flatten(0, 1).numpy()
            weights.run(kernel(*self._kernel(cache.data.dtype)), threads, block)
            logits[:] = torch.from_numpy(made).view(slots, width, -1)
        cache.longest += count

    def _seat(self, cache: KVCache, threads: int, *asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, Block]:
        """Inputs, logits, and all that so many threads get to compute the steps of a cache, and what they are asked to draw."""
        weights, rows, (numbers, strides) = self._weights, len(cache.lengths), _flat(cache.data)
        scales, scale_strides = (_NO_SCALES, (0, 0, 0)) if cache.scales is None else _flat(cache.scales)
        slots = 0 if cache.scales is not None else -(-cache.capacity // LANES) * LANES
        tile = 0 if cache.scales is None else TILE + self._lanes * LANES  # see nn/kernels/cached.py
        gains, frequencies, _ = self._norms
        dim, half, part = gains.shape[1], len(frequencies), (threads, rows)
        widths = (dim, self._outputs, self._heads, self._attended, 2 * self._inner)
        x, logits, *between = (np.zeros((rows, width), np.float32) for width in widths)
        block = Block(
            weights.gate, self._table, *weights.piles, *self._norms, cache.lengths.numpy(),
            np.array([strides, scale_strides]), numbers, scales, x, logits, *between,
            np.zeros((2 * threads, rows, half), np.float32),
            np.zeros((threads, self._group, slots), np.float32),
            np.zeros((*part, dim), np.float32),
            np.zeros((*part, max(self._inner, self._attended)), np.float32),
            np.zeros((threads, rows * self._padded), np.uint8),
            np.zeros(part, np.float32),
            np.zeros((*part, self._apart), np.float32),
            np.zeros((threads, rows * self._padded), np.float32),
            np.zeros((threads, self._group * 2 * tile), np.uint8),
            np.zeros((threads, self._group * (tile + 6)), np.float32),
            *asked,
        )  # fmt: skip
        return x, logits, block


class Drawing:
    """What a batch on the CPU draws its codes by; what is counted is counted in place.

    Args:
        counters: [5, P]: steps so far, frames in all, the first step that may end, 1 for slots that go on, codes heard.
        ended: [P] booleans.
        uniforms: [2, P, U], of draws and second draws, those of a step modulo U.
        said: [P, S, D], added to what is heard, likewise; None: nothing.
        embedding: [V - 1, D] of the codes, in float32.
        history: [P, N], of codes heard.

    Attributes:
        codes: [P, MOST_CODES]: the latest draws, -1 from slots that have ended.
        going: [P], 1 for slots that go on.
    """

    def __init__(
        self, counters: Tensor, ended: Tensor, uniforms: Tensor, said: Tensor | None, embedding: Tensor, history: Tensor
    ) -> None:
        slots, self.going = len(ended), counters[3]
        self._settings, self._top_k = np.zeros((slots, 4)), np.zeros(slots, np.int64)
        self.codes = torch.zeros(slots, MOST_CODES, dtype=torch.long)
        added = torch.zeros(1, 1, 1) if said is None else said
        self.arrays = (
            counters.numpy(), ended.view(torch.uint8).numpy(), self._settings, self._top_k, uniforms.numpy(), added.numpy(),
            embedding.detach().numpy(), history.numpy(), self.codes.numpy(),
        )  # fmt: skip

    def set(
        self, slot: int, guidance: float, temperature: float, top_k: int, top_p: float, max_repeat: float | None
    ) -> None:
        """How the codes of a slot are sampled (`engine/sampling.py`)."""
        self._settings[slot] = guidance, temperature, top_p, np.inf if max_repeat is None else max_repeat
        self._top_k[slot] = top_k


class _Line(NamedTuple):
    """A line of the kernels' table: kind and sizes of a projection, and where its numbers start, -1 for none."""

    kind: int
    outputs: int
    inputs: int
    weights: int
    scales: int
    sums: int
    bias: int
    apart: int
    channels: int
    columns: int


class _Packed:
    """Weights one after the other, as the kernels read them."""

    def __init__(self) -> None:
        self._bytes = Pile(np.int8)
        self._shorts = Pile(np.uint16)
        self._floats = Pile(np.float32)
        self._sums = Pile(np.int32)
        self._channels = Pile(np.int64)

    def add(self, weights: RoundedWeights | Weights) -> _Line:
        """Append a projection."""
        bias = -1 if weights.bias is None else self._floats.add(weights.bias.float().numpy())
        if isinstance(weights, Weights):
            values = _padded(weights.weight, _BLOCK)
            if values.dtype == torch.bfloat16:
                start, kind = self._shorts.add(values.view(torch.uint16).numpy()), _BFLOAT16
            else:
                start, kind = self._floats.add(values.float().numpy()), _FLOAT32
            return _Line(kind, len(values), values.shape[1], start, -1, -1, bias, 0, 0, 0)
        apart = len(weights.apart)
        columns = torch.nn.functional.pad(weights.columns.float(), (0, 0, 0, -apart % _COLUMNS))
        channels = np.full(len(columns), -1)
        channels[:apart] = weights.apart.numpy()
        kind, inputs, start, sums = (
            self._add_int4(weights) if isinstance(weights, Int4Weights) else self._add_int8(weights)
        )
        return _Line(
            kind,
            len(weights.scales),
            inputs,
            start,
            self._floats.add(weights.scales.numpy()),
            self._sums.add(sums.int().numpy()),
            bias,
            len(columns),
            self._channels.add(channels),
            self._floats.add(columns.numpy()),
        )

    def _add_int8(self, weights: RoundedWeights) -> tuple[int, int, int, Tensor]:
        """Kind, inputs, where they start, and what the zero of the inputs adds to each sum."""
        assert isinstance(weights, Int8Weights)
        values = _padded(weights.values, _BLOCK)
        sums = torch.from_numpy(values.numpy().sum(axis=1, dtype=np.int32))  # twenty times as fast as torch's
        return _INT8, values.shape[1], self._bytes.add(values.numpy()), processor.zero() * sums

    def _add_int4(self, weights: Int4Weights) -> tuple[int, int, int, Tensor]:
        """The same: levels, twice, then of four outputs at a time their blocks of nibbles, and then the scales of their groups.

        Raises:
            ValueError: outputs are not a multiple of four, or sums can be too large.
        """
        outputs, inputs = len(weights.scales), 2 * weights.nibbles.shape[1]
        sums, largest = weights.sums()
        if outputs % _TOGETHER or largest > LARGEST_SUM:
            raise ValueError(f"{outputs} outputs of {inputs} inputs cannot be computed in int4")
        start = self._bytes.add(np.array(LEVELS * 2, np.int8))
        for numbers in (weights.nibbles, weights.groups):
            blocks = numbers.view(outputs // _TOGETHER, _TOGETHER, inputs // _BLOCK, -1).transpose(1, 2)
            self._bytes.add(blocks.contiguous().view(torch.int8).numpy())
        return _INT4, inputs, start, _INT4_ZERO * sums

    def piles(self) -> tuple[np.ndarray, ...]:
        """Bytes, shorts, floats, sums and channels."""
        return tuple(pile.whole() for pile in (self._bytes, self._shorts, self._floats, self._sums, self._channels))


def _padded(values: Tensor, block: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, -values.shape[1] % block)).contiguous()


def _flat(data: Tensor) -> tuple[np.ndarray, tuple[int, ...]]:
    """The numbers of a cache from its first one on, and the distance of its layers, rows and heads."""
    count = data.untyped_storage().nbytes() // data.element_size() - data.storage_offset()
    flat = data.as_strided((count,), (1,))
    if data.dtype == torch.bfloat16:
        flat = flat.view(torch.uint16)
    return flat.numpy(), data.stride()[:3]
