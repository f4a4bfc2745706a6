"""Causal self-attention with grouped keys, rotary positions and a preallocated cache (arXiv 2305.13245, 2104.09864).

Every row of a batch starts at slot 0 of its cache row, and slot n holds position n. So one rule masks everything, in
training, in chunked prefill of rows of different lengths and in single steps: a query at position n sees slots 0 to n.
Whatever a row holds beyond its length (padding of a prefill) is overwritten before any query can see it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from longplay.nn.linear import stack_linears


@dataclass
class KVCache:
    """Keys and values of all positions so far; travels as an argument and is changed in place.

    Attributes:
        data: [L, 2, B, H_kv, N, head_dim]; N slots per row.
        lengths: [B], positions that each row holds.
        longest: the largest of `lengths`, known to the host so that no step has to ask the device.
    """

    data: Float[Tensor, "L 2 B H N D"]
    lengths: Int[Tensor, " B"]
    longest: int = 0

    @property
    def capacity(self) -> int:
        """Positions that a row can hold."""
        return self.data.shape[4]

    def positions(self, count: int) -> Int[Tensor, "B N"]:
        """Positions of the next `count` inputs of each row."""
        return self.lengths[:, None] + torch.arange(count, device=self.lengths.device)

    def rows(self, start: int, stop: int) -> "KVCache":
        """An empty cache that shares the memory of some rows; `adopt` ends its use."""
        lengths = self.lengths[start:stop]
        lengths.zero_()
        return KVCache(self.data[:, :, start:stop], lengths)

    def adopt(self) -> None:
        """Notice that `rows` were refilled; waits for the device."""
        self.longest = int(self.lengths.max())

    def append(
        self,
        layer: int,
        keys: Float[Tensor, "B H N D"],
        values: Float[Tensor, "B H N D"],
        positions: Int[Tensor, "B N"],
    ) -> tuple[Float[Tensor, "B H M D"], Float[Tensor, "B H M D"]]:
        """Store the new keys and values of a layer at `positions`.

        Returns:
            views of all filled slots of the layer.
        """
        visible = self.longest + keys.shape[2]
        row = torch.arange(keys.shape[0], device=keys.device)[:, None]
        stored_keys, stored_values = self.data[layer, 0], self.data[layer, 1]
        stored_keys.transpose(1, 2)[row, positions] = keys.transpose(1, 2).to(stored_keys.dtype)
        stored_values.transpose(1, 2)[row, positions] = values.transpose(1, 2).to(stored_values.dtype)
        return stored_keys[:, :, :visible], stored_values[:, :, :visible]

    def advance(self, count: int, counts: Int[Tensor, " B"] | None = None) -> None:
        """Make the last `count` appended positions part of the history.

        Args:
            count: appended positions, padding included.
            counts: real ones per row; default all.
        """
        self.lengths += count if counts is None else counts
        self.longest += count


class Rotary(nn.Module):
    """Rotation angles of positions; halves of the head are rotated against each other, as in Qwen2."""

    frequencies: Tensor

    def __init__(self, head_dim: int, theta: float) -> None:
        super().__init__()
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        self.register_buffer("frequencies", 1.0 / theta**exponents, persistent=False)

    def forward(self, positions: Int[Tensor, "B N"]) -> tuple[Float[Tensor, "B 1 N D"], Float[Tensor, "B 1 N D"]]:
        """Cosine and sine of each position's angles, in float32, the sine negated for the first half of the head."""
        angles = positions[:, None, :, None] * self.frequencies.float()
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)


def rotate(
    x: Float[Tensor, "B H N D"], cosine: Float[Tensor, "#B 1 N D"], sine: Float[Tensor, "#B 1 N D"]
) -> Float[Tensor, "B H N D"]:
    """Turn each pair (x[i], x[i + D/2]) by its angle; cosine and sine as `Rotary` gives them."""
    return x * cosine + x.roll(x.shape[-1] // 2, dims=-1) * sine


@dataclass(frozen=True)
class Context:
    """What all layers share in one forward pass.

    Attributes:
        positions: of the inputs.
        cosine, sine: what `Rotary` says of the positions, in the dtype of the inputs.
        mask: added to the scores: 0 for the filled slots that an input sees, minus infinity for others; None where
            plain causality says the same.
        cache: None in training.
    """

    positions: Int[Tensor, "#B N"]
    cosine: Float[Tensor, "#B 1 N D"]
    sine: Float[Tensor, "#B 1 N D"]
    mask: Float[Tensor, "B 1 N M"] | None = None
    cache: KVCache | None = None


class Attention(nn.Module):
    """Grouped-query attention; q, k and v have biases, the output has none (Qwen2)."""

    def __init__(self, dim: int, num_heads: int, num_kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_kv_heads, self.head_dim = num_kv_heads, head_dim
        self.qkv_proj: nn.Linear | None = None
        self.q_proj = nn.Linear(dim, num_heads * head_dim)
        self.k_proj = nn.Linear(dim, num_kv_heads * head_dim)
        self.v_proj = nn.Linear(dim, num_kv_heads * head_dim)
        self.o_proj = nn.Linear(num_heads * head_dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "B N D"], layer: int, context: Context) -> Float[Tensor, "B N D"]:
        """Attend to the inputs and, with a cache, to all that came before them."""
        heads = self._project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [B, H + 2 H_kv, N, D]
        values = heads[:, -self.num_kv_heads :]
        turned = rotate(heads[:, : -self.num_kv_heads], context.cosine, context.sine)
        queries, keys = turned[:, : -self.num_kv_heads], turned[:, -self.num_kv_heads :]
        if context.cache is not None:
            keys, values = context.cache.append(layer, keys, values, context.positions)
            keys, values = keys.to(queries.dtype), values.to(queries.dtype)
        return self.o_proj(self._attend(queries, keys, values, context.mask).transpose(1, 2).flatten(2))

    def fuse(self) -> None:
        """Turn the three projections into one, for inference; the names of the state dict change."""
        if self.qkv_proj is None:
            self.qkv_proj = stack_linears(self.q_proj, self.k_proj, self.v_proj)
            del self.q_proj, self.k_proj, self.v_proj

    def _project(self, x: Tensor) -> Tensor:
        if self.qkv_proj is not None:
            return self.qkv_proj(x)
        return torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        if queries.shape[2] > 1:
            causal = mask is None
            return scaled_dot_product_attention(queries, keys, values, mask, is_causal=causal, enable_gqa=True)
        # One query: the heads of a group stand in for positions, so that keys and values are not repeated.
        grouped = queries.reshape(queries.shape[0], self.num_kv_heads, -1, self.head_dim)
        return scaled_dot_product_attention(grouped, keys, values, mask).reshape(queries.shape)
