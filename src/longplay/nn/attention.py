"""Causal self-attention with grouped keys and rotary positions (arXiv 2305.13245, 2104.09864) over whole rows.

For inference with a cache see `nn/decoder.py`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from longplay.nn.packing import Packing, attend_causally


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
    x: Float[Tensor, "B H N D"], cosine: Float[Tensor, "#B #H N D"], sine: Float[Tensor, "#B #H N D"]
) -> Float[Tensor, "B H N D"]:
    """Turn each pair (x[i], x[i + D/2]) by its angle; cosine and sine as `Rotary` gives them."""
    return torch.addcmul(x * cosine, x.roll(x.shape[-1] // 2, dims=-1), sine)


class Attention(nn.Module):
    """Grouped-query attention; q, k and v have biases, the output has none (Qwen2)."""

    def __init__(self, dim: int, num_heads: int, num_kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = nn.Linear(dim, num_heads * head_dim)
        self.k_proj = nn.Linear(dim, num_kv_heads * head_dim)
        self.v_proj = nn.Linear(dim, num_kv_heads * head_dim)
        self.o_proj = nn.Linear(num_heads * head_dim, dim, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        cosine: Float[Tensor, "#B 1 N H"],
        sine: Float[Tensor, "#B 1 N H"],
        packing: Packing | None = None,
    ) -> Float[Tensor, "B N D"]:
        """Attend to the inputs up to each; cosine and sine are what `Rotary` says of their positions.

        With a `packing`, to those of the same sequence alone.
        """
        queries, keys, values = (
            projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [B, H, N, head_dim]
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries, keys = rotate(queries, cosine, sine), rotate(keys, cosine, sine)
        if packing is None:
            made = scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)
        else:
            made = attend_causally(queries, keys, values, packing)
        return self.o_proj(made.transpose(1, 2).flatten(2))
