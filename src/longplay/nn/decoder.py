"""The layers of a Qwen2.5 decoder for inference: cached, fused, flat, in any mix of precisions.

Computes what `models.lm.Layer` computes. A step of a small model costs more in calls than in arithmetic, so there is
no module per operation here: a layer is two norms and four projections, and one function runs them all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from longplay.nn.attention import Rotary, rotate
from longplay.nn.cache import KVCache
from longplay.nn.compiled import CompiledStep

Projection = Callable[[Tensor], Tensor]
"""[M, in] to [M, out], both in the dtype of the residual stream."""


@dataclass(frozen=True, eq=False)
class DecoderLayer:
    """One layer.

    Attributes:
        attention_norm, mlp_norm: gains [D].
        qkv: queries of all heads, then keys, then values of all kv heads.
        o: back from all heads.
        gate_up: gate, then up.
        down: back from the MLP.
    """

    attention_norm: Tensor
    qkv: Projection
    o: Projection
    mlp_norm: Tensor
    gate_up: Projection
    down: Projection


@dataclass(frozen=True, eq=False)
class Decoder:
    """All layers, the final norm and the head.

    Attributes:
        layers: in order.
        norm: gain [D] of the final norm.
        head: states to logits.
        frequencies: [H + 2 H_kv, head_dim], angle per position of queries, keys and values (`turning_frequencies`).
        num_kv_heads, head_dim: of the attention.
        norm_eps: of all norms.
        bucket: steps look at a multiple of so many slots, so that their shapes seldom change; 1: at filled ones only.
        compiled: what takes the next position of each row, head included, in place of all this (`nn.graphed.step`).
    """

    layers: Sequence[DecoderLayer]
    norm: Tensor
    head: Projection
    frequencies: Tensor
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    bucket: int = 1
    compiled: CompiledStep | None = None

    def __call__(
        self, inputs: Float[Tensor, "B N D"], cache: KVCache, counts: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B N D"]:
        """States after the final norm, for `head`; those of padding mean nothing.

        Args:
            inputs: vectors of the next positions, right-padded.
            cache: history; the inputs are added to it.
            counts: real inputs per row; default all.
        """
        batch, count, dim = inputs.shape
        context = self._context(batch, count, inputs.dtype, cache)
        x = inputs.reshape(-1, dim)
        norm = _rms_norm(self.norm_eps, x)
        for index, layer in enumerate(self.layers):
            heads = layer.qkv(norm(x, layer.attention_norm))
            x = x + layer.o(self._attend(heads, index, context))
            gate, up = layer.gate_up(norm(x, layer.mlp_norm)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate).mul_(up))
        cache.advance(count, counts)
        return norm(x, self.norm).view(batch, count, dim)

    def visible(self, cache: KVCache, count: int) -> int:
        """Slots that the next `count` positions look at."""
        return min(-(-(cache.longest + count) // self.bucket) * self.bucket, cache.capacity)

    def _context(self, batch: int, count: int, dtype: torch.dtype, cache: KVCache) -> "_Context":
        positions = cache.positions(count)
        visible = self.visible(cache, count)
        # A single row of filled slots hides nothing from a single query; an empty cache is plain causality.
        plain = cache.longest == 0 if count > 1 else batch == 1 and self.bucket == 1
        if plain:
            visible = cache.longest + count
        mask = None if plain else _mask(positions, visible, cache.read_dtype(dtype))
        angles = positions[:, None, :, None] * self.frequencies[:, None]
        cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)
        return _Context(batch, count, cosine, sine, cache, cache.places(positions), visible, mask)

    def _attend(self, heads: Tensor, index: int, context: "_Context") -> Tensor:
        batch, count, kv = context.batch, context.count, self.num_kv_heads
        if count == 1:
            heads = heads.view(batch, -1, 1, self.head_dim)
        else:
            heads = heads.view(batch, count, -1, self.head_dim).transpose(1, 2)
        turned = rotate(heads, context.cosine, context.sine)
        keys, values = context.cache.append(index, turned[:, -2 * kv :], context.places, context.visible)
        queries, mask = turned[:, : -2 * kv], context.mask
        if queries.dtype != keys.dtype:
            queries = queries.to(keys.dtype)
        if count > 1:
            causal = mask is None
            made = F.scaled_dot_product_attention(queries, keys, values, mask, is_causal=causal, enable_gqa=True)
            made = made.transpose(1, 2)
        else:
            # One query: the heads of a group stand in for positions, so that keys and values are not repeated.
            grouped = queries.reshape(batch, kv, -1, self.head_dim)
            made = F.scaled_dot_product_attention(grouped, keys, values, mask)
        made = made.reshape(batch * count, -1)
        return made if made.dtype == heads.dtype else made.to(heads.dtype)


def _rms_norm(eps: float, like: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The RMS norm of [M, D] with a gain [D], for tensors of the dtype and device of `like`."""
    if like.dtype != torch.float32 or like.device.type != "cpu":
        return lambda x, gain: F.rms_norm(x, gain.shape, gain, eps)
    # On the CPU torch makes it of ten operations, most over all of x; these are five.
    added = torch.tensor(eps)

    def norm(x: Tensor, gain: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return (x * torch.addcmul(added, length, length, value=1.0 / len(gain)).rsqrt_()).mul_(gain)

    return norm


def _mask(positions: Tensor, visible: int, dtype: torch.dtype) -> Tensor:
    """Added to the scores: 0 for the slots that a position sees, minus infinity for others; [B, 1, N, M]."""
    hidden = torch.arange(visible, device=positions.device) > positions[:, None, :, None]
    return torch.where(hidden, -torch.inf, 0.0).to(dtype)


def turning_frequencies(rotary: Rotary, num_heads: int, num_kv_heads: int) -> Float[Tensor, "H D"]:
    """What `Rotary` says of one position, for all heads: negative in the first half, whose sine it negates.

    Values have frequency 0: they turn by nothing, so that all heads go through one product.
    """
    turning = torch.cat([-rotary.frequencies, rotary.frequencies]).float().expand(num_heads + num_kv_heads, -1)
    return torch.cat([turning, turning.new_zeros(num_kv_heads, turning.shape[1])])


@dataclass(frozen=True, eq=False)
class _Context:
    """What all layers share in one pass; the mask is None where plain causality says the same."""

    batch: int
    count: int
    cosine: Tensor
    sine: Tensor
    cache: KVCache
    places: Tensor
    visible: int
    mask: Tensor | None
