"""The encoder of the flow model: a transformer with relative positions (Transformer-XL, arXiv 1901.02860).

The published configuration switches off the convolution and macaron parts of the Conformer (arXiv 2005.08100),
which leaves pre-norm blocks of relative attention and a feed-forward layer; CHECKPOINTS.md 3.4. Embedded codes
[B, T, D_in] -> features [B, T, D], at the same rate. Attention costs T * T: run it in windows.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.masking import Padding

MAX_WAVELENGTH = 10_000.0


class ConformerConfig(Config):
    """Sizes of the encoder: `hidden_dim` is the width inside the feed-forward layers."""

    dim: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    hidden_dim: PositiveInt
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _heads_share_dim(self) -> "ConformerConfig":
        if self.dim % self.num_heads or self.dim % 2:
            raise ValueError(f"dim {self.dim} must be even and a multiple of num_heads {self.num_heads}")
        return self


def relative_positions(length: int, dim: int, device: torch.device | None = None) -> Float[Tensor, "R D"]:
    """Sinusoids of the offsets length-1 .. -(length-1), sines in even and cosines in odd columns."""
    offsets = torch.arange(length - 1, -length, -1, device=device, dtype=torch.float32)
    rates = torch.exp(torch.arange(0, dim, 2, device=device, dtype=torch.float32) * -(math.log(MAX_WAVELENGTH) / dim))
    angles = offsets[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def align_offsets(scores: Float[Tensor, "B H T R"]) -> Float[Tensor, "B H T T"]:
    """Pick for query i and key j the score of the offset i - j; R = 2T - 1 offsets from T-1 downwards."""
    batch, heads, length, offsets = scores.shape
    shifted = F.pad(scores, (1, 0)).view(batch, heads, offsets + 1, length)
    return shifted[:, :, 1:].reshape(batch, heads, length, offsets)[..., :length]


class RelativeAttention(nn.Module):
    """Self-attention whose score adds a term of the distance: ((q + u) k_j + (q + v) p_(i-j)) / sqrt(head_dim)."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.linear_q = nn.Linear(config.dim, config.dim)
        self.linear_k = nn.Linear(config.dim, config.dim)
        self.linear_v = nn.Linear(config.dim, config.dim)
        self.linear_out = nn.Linear(config.dim, config.dim)
        self.linear_pos = nn.Linear(config.dim, config.dim, bias=False)
        head_dim = config.dim // config.num_heads
        self.pos_bias_u = nn.Parameter(torch.empty(config.num_heads, head_dim))
        self.pos_bias_v = nn.Parameter(torch.empty(config.num_heads, head_dim))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def forward(
        self, x: Float[Tensor, "B T D"], positions: Float[Tensor, "R D"], padding: Padding | None = None
    ) -> Float[Tensor, "B T D"]:
        """Attend over all real frames; `positions` as of `relative_positions`."""
        query = self.linear_q(x).unflatten(-1, (self.num_heads, -1))  # [B, T, H, D/H]
        key = self.linear_k(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        value = self.linear_v(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        position = self.linear_pos(positions).unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0)  # [H, D/H, R]
        by_content = (query + self.pos_bias_u).transpose(1, 2)  # [B, H, T, D/H]
        by_distance = align_offsets((query + self.pos_bias_v).transpose(1, 2) @ position)
        bias = by_distance / math.sqrt(key.shape[-1])
        if padding is not None:
            bias = bias.masked_fill(padding.frames[:, None] == 0, -torch.inf)
        attended = F.scaled_dot_product_attention(
            by_content.to(value.dtype), key, value, bias.to(value.dtype), self.dropout if self.training else 0.0
        )
        return self.linear_out(attended.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.w_1 = nn.Linear(config.dim, config.hidden_dim)
        self.w_2 = nn.Linear(config.hidden_dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Each frame by itself."""
        return self.w_2(self.dropout(F.silu(self.w_1(x))))


class ConformerLayer(nn.Module):
    """Pre-norm attention and feed-forward, each added to its input."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.norm_mha = nn.LayerNorm(config.dim)
        self.self_attn = RelativeAttention(config)
        self.norm_ff = nn.LayerNorm(config.dim)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "B T D"], positions: Float[Tensor, "R D"], padding: Padding | None = None
    ) -> Float[Tensor, "B T D"]:
        """One layer over the whole window."""
        x = x + self.dropout(self.self_attn(self.norm_mha(x), positions, padding))
        return x + self.dropout(self.feed_forward(self.norm_ff(x)))


class Conformer(nn.Module):
    """Embedded codes to features that know their surroundings."""

    def __init__(self, input_dim: int, config: ConformerConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.embed = nn.Sequential(
            nn.Linear(input_dim, config.dim), nn.LayerNorm(config.dim), nn.Dropout(config.dropout)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_layers))
        self.after_norm = nn.LayerNorm(config.dim)

    def forward(self, x: Float[Tensor, "B T D_in"], padding: Padding | None = None) -> Float[Tensor, "B T D"]:
        """Encode a batch of windows.

        Args:
            x: embedded codes.
            padding: padded frames, hidden from every query.

        Returns:
            features; what stands on padded frames means nothing.
        """
        x = self.dropout(self.embed(x) * math.sqrt(self.dim))
        positions = self.dropout(relative_positions(x.shape[1], self.dim, x.device).to(x.dtype))
        for layer in self.layers:
            x = layer(x, positions, padding)
        return self.after_norm(x)
