"""Transformer blocks of the flow's estimator with int8 weights, as one compiled function (`nn/kernels/transformer.py`).

Weights have a scale for each output, inputs one for each frame, found as they come. Needs an x86 processor with AVX2, better
with VNNI and AVX-512's BF16.
"""

import math
import threading
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from longplay.nn import processor
from longplay.nn.team import Block, Pile, Team, available

_LANES, _TILE, _ROWS, _WIDTH, _SUMS, _QUERIES = 16, 24, 6, 64, 24, 12  # as in the kernels
_ZERO = 128  # what stands for zero in the bytes that are multiplied with weights
_team, _alone = Team(), threading.Lock()


def _largest() -> int:
    """A weight: as a byte or, where products are added in 16 bits, as half of one."""
    return 64 if processor.level() == "avx2" else 127


class Int8Layer:
    """The weights of a block, rounded.

    Args:
        norms: gain and bias of the norm before attention, and of that before the feed-forward layer.
        projections: weight [out, in] and bias [out], if any: of queries, keys and values as one, of attention's output, up
            and down.
        num_heads: of the attention.
        eps: of the norms.
    """

    def __init__(
        self, norms: Sequence[Tensor], projections: Sequence[tuple[Tensor, Tensor | None]], num_heads: int, eps: float
    ) -> None:
        self.norms = torch.stack([norm.detach().float() for norm in norms])
        self.projections = [_Projection(weight.detach().float(), bias) for weight, bias in projections]
        self.num_heads, self.eps = num_heads, eps
        self.head_dim = self.projections[1].inputs // num_heads

    @property
    def fits(self) -> bool:
        """Whether the kernels' blocks divide its sizes."""
        sizes = [size for each in self.projections for size in (each.inputs, each.outputs)]
        return self.head_dim in (_LANES, 2 * _LANES, 4 * _LANES) and all(size % _WIDTH == 0 for size in sizes)


class _Projection:
    """Values [out, in], a scale of each output, what its inputs' zero adds to it, and a bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.outputs, self.inputs = weight.shape
        self.scales = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / _largest()
        self.values = (weight / self.scales[:, None]).round().to(torch.int8)
        self.taken = _ZERO * self.values.int().sum(dim=1, dtype=torch.int32)
        self.bias = torch.zeros(self.outputs) if bias is None else bias.detach().float()

    def packed(self) -> Tensor:
        """The values of sixteen outputs side by side, four inputs of each at a time."""
        return self.values.view(-1, _LANES, self.inputs // 4, 4).transpose(1, 2).flatten()


class CompiledTransformers:
    """Transformer blocks one after the other.

    Args:
        layers: of the same sizes, all of which `fits`.

    Raises:
        LongplayError: the kernel cannot be compiled.
    """

    def __init__(self, layers: Sequence[Int8Layer]) -> None:
        from longplay.nn.native import get_ready

        first = layers[0]
        self._num_heads, self._lanes = first.num_heads, first.head_dim // _LANES
        self._inner, self._widest = first.projections[1].inputs, max(each.inputs for each in first.projections)
        self._queries = _SUMS // self._lanes if processor.has_pairs() else _QUERIES
        bytes_, ints, floats = Pile(np.int8), Pile(np.int32), Pile(np.float32)
        table = [
            (
                each.outputs,
                each.inputs,
                bytes_.add(each.packed().numpy()),
                floats.add(each.scales.numpy()),
                ints.add(each.taken.numpy()),
                floats.add(each.bias.numpy()),
            )
            for layer in layers
            for each in layer.projections
        ]
        self._constants = (
            np.array(table),
            *(pile.whole() for pile in (bytes_, ints, floats)),
            torch.cat([layer.norms for layer in layers]).numpy(),
            np.array([first.eps], np.float32),
        )
        get_ready(("transformers", self._lanes))

    def takes(self, frames: int) -> bool:
        """Whether there are enough frames for the kernels' blocks."""
        return frames >= max(_ROWS, self._queries)

    def __call__(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """All blocks, in the type of `x`; from one to the next in float32."""
        from longplay.nn.native import kernel

        batch, frames, dim = x.shape
        made = x.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        count, heads = batch * frames, np.empty(batch * frames * 3 * self._inner, np.uint16)
        threads = available()
        with _alone:
            block = Block(
                _team.gate,
                np.array([batch, frames, self._num_heads]),
                *self._constants,
                made.view(count, dim).numpy(),
                heads,
                heads.view(np.int32),
                np.empty(count * self._inner, np.uint16),
                *self._room(threads, frames),
            )
            _team.run(kernel("transformers", self._lanes), threads, block)
        return made.to(x.dtype)

    def _room(self, threads: int, frames: int) -> tuple[np.ndarray, ...]:
        """Of each thread: keys, values, scores, shares and sums of attention; bytes, scales, lines and products of a tile."""
        queries, width, in_word = self._queries, _LANES * self._lanes, 2 if processor.has_pairs() else 1
        unit = math.lcm(_LANES * min(4, _SUMS // queries), 2 * _LANES)
        frames = -(-frames // unit) * unit
        sizes: tuple[tuple[type, tuple[int, ...]], ...] = (
            (np.int32, (frames * width // in_word,)),
            (np.int32, (frames * width // in_word,)),
            (np.float32, (queries, frames)),
            (np.int32, (queries, max(frames // 2, 2 * width))),
            (np.float32, (queries,)),
            (np.uint8, (_TILE * self._widest,)),
            (np.float32, (_TILE,)),
            (np.float32, (_TILE, self._widest)),
            (np.float32, (_TILE, _WIDTH)),
        )
        return tuple(np.empty((threads, *size), dtype) for dtype, size in sizes)
