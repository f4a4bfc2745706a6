"""The velocity estimator of the flow model: a one-dimensional U-Net with transformer blocks.

The design of Matcha-TTS (arXiv 2309.03199), as in CHECKPOINTS.md 3.4: noisy latents and condition [B, D, T] each,
and a time -> velocity [B, D, T]. Every level but the last halves the frame rate on the way down and doubles it
on the way up; each has a residual block that sees the time, and transformer blocks that do not.
"""

import math
from collections.abc import Iterable, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.compiled_transformer import CompiledTransformers, Int8Layer
from longplay.nn.masking import MaskedGroupNorm, Padding, hide

TIME_SCALE = 1000.0
MAX_WAVELENGTH = 10_000.0


class UNetConfig(Config):
    """Sizes of the estimator.

    Attributes:
        channels: width of each level, from the full frame rate down.
        num_blocks: transformers of each level; none at the full rate saves most of the time on long windows.
        num_mid_blocks: levels in the middle, as wide and with as many transformers as the last of `channels`.
        num_heads, head_dim: of the attention in every level.
        hidden_multiple: width inside the feed-forward layers, in widths of the level.
        time_multiple: width of the time embedding, in widths of the first level.
        num_groups: groups of the group norms.
    """

    channels: tuple[PositiveInt, ...] = Field(min_length=1)
    num_blocks: tuple[NonNegativeInt, ...]
    num_mid_blocks: NonNegativeInt
    num_heads: PositiveInt
    head_dim: PositiveInt
    hidden_multiple: PositiveInt = 4
    time_multiple: PositiveInt = 4
    num_groups: PositiveInt = 8

    @model_validator(mode="after")
    def _levels_fit(self) -> "UNetConfig":
        if len(self.num_blocks) != len(self.channels):
            raise ValueError(f"num_blocks {self.num_blocks} must have one entry per level of channels {self.channels}")
        if any(width % self.num_groups for width in self.channels):
            raise ValueError(f"channels {self.channels} must be multiples of num_groups {self.num_groups}")
        return self


class TimeEmbedding(nn.Module):
    """A time in [0, 1] as sinusoids and two linear layers."""

    def __init__(self, dim: int, time_dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.linear_1 = nn.Linear(dim, time_dim)
        self.linear_2 = nn.Linear(time_dim, time_dim)

    def sinusoids(self, t: Float[Tensor, " B"]) -> Float[Tensor, "B D"]:
        """Sines, then cosines, of 1000 t at falling rates."""
        half = self.dim // 2
        steps = torch.arange(half, device=t.device, dtype=torch.float32)
        angles = TIME_SCALE * t.float()[:, None] * torch.exp(steps * -(math.log(MAX_WAVELENGTH) / (half - 1)))
        return torch.cat((angles.sin(), angles.cos()), dim=-1)

    def forward(self, t: Float[Tensor, " B"]) -> Float[Tensor, "B E"]:
        """One vector per time."""
        return self.linear_2(F.silu(self.linear_1(self.sinusoids(t).to(self.linear_1.weight.dtype))))


def mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + e^x)) (arXiv 1908.08681).

    On the CPU torch takes a logarithm and a tanh of every number; one exponential says as much: with n = e^x (e^x + 2),
    it is x n / (n + 2).
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled():
        return F.mish(x)
    n = x.clamp(max=20.0).exp_()  # beyond, it is x
    n.mul_(n + 2.0)
    return n.div_(n + 2.0).mul_(x)


class ConvBlock(nn.Module):
    """Convolution, group norm, Mish."""

    def __init__(self, dim_in: int, dim_out: int, num_groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim_in, dim_out, 3, padding=1)
        self.norm = MaskedGroupNorm(num_groups, dim_out)

    def forward(self, x: Float[Tensor, "B C T"], padding: Padding | None) -> Float[Tensor, "B C2 T"]:
        """The same number of frames."""
        return hide(mish(self.norm(self.conv(hide(x, padding)), padding)), padding)


class ResnetBlock(nn.Module):
    """Two convolution blocks with the time added between them, around a 1x1 shortcut."""

    def __init__(self, dim_in: int, dim_out: int, time_dim: int, num_groups: int) -> None:
        super().__init__()
        self.block1 = ConvBlock(dim_in, dim_out, num_groups)
        self.time_proj = nn.Linear(time_dim, dim_out)
        self.block2 = ConvBlock(dim_out, dim_out, num_groups)
        self.res_conv = nn.Conv1d(dim_in, dim_out, 1)

    def forward(
        self, x: Float[Tensor, "B C T"], time: Float[Tensor, "B2 E"], padding: Padding | None
    ) -> Float[Tensor, "B C2 T"]:
        """`time` has one row, or one per row of `x`."""
        h = self.block1(x, padding) + self.time_proj(F.mish(time))[:, :, None]
        return self.block2(h, padding) + self.res_conv(hide(x, padding))


class Attention(nn.Module):
    """Self-attention over all frames, without positions: the convolutions around it know them."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_k = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_v = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_out = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Float[Tensor, "B T C"], padding: Padding | None) -> Float[Tensor, "B T C"]:
        """No mask is materialised where nothing is padded."""
        query, key, value = (
            proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for proj in (self.to_q, self.to_k, self.to_v)
        )
        mask = None if padding is None else padding.attention_mask(query.dtype)
        return self.to_out(F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward (exact GELU), each added to its input."""

    def __init__(self, dim: int, config: UNetConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, config.num_heads, config.head_dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        hidden = dim * config.hidden_multiple
        self.feed_forward = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Float[Tensor, "B T C"], padding: Padding | None) -> Float[Tensor, "B T C"]:
        """One block over the whole window."""
        x = x + self.attention(self.attention_norm(x), padding)
        return x + self.feed_forward(self.feed_forward_norm(x))

    def int8(self) -> Int8Layer:
        """Its weights for `nn/compiled_transformer.py`."""
        attention, (up, _, down) = self.attention, cast("Iterable[nn.Linear]", self.feed_forward)
        query_key_value = torch.cat([each.weight for each in (attention.to_q, attention.to_k, attention.to_v)])
        norms = (self.attention_norm, self.feed_forward_norm)
        return Int8Layer(
            [tensor for norm in norms for tensor in (norm.weight, norm.bias)],
            [(query_key_value, None), *((each.weight, each.bias) for each in (attention.to_out, up, down))],
            attention.num_heads,
            self.attention_norm.eps,
        )


class Level(nn.Module):
    """A residual block and its transformers, and what leads from them to the next level.

    `resample` (a strided convolution) leads to another frame rate, `conv` keeps it; middle levels have neither.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        num_blocks: int,
        config: UNetConfig,
        resample: nn.Module | None = None,
        conv: nn.Module | None = None,
    ) -> None:
        super().__init__()
        time_dim = config.channels[0] * config.time_multiple
        self.resnet = ResnetBlock(dim_in, dim_out, time_dim, config.num_groups)
        self.transformers = nn.ModuleList(TransformerBlock(dim_out, config) for _ in range(num_blocks))
        self.resample = resample
        self.conv = conv
        self.compiled: CompiledTransformers | None = None

    def use_int8(self, use: bool) -> None:
        """See `UNet.use_int8`."""
        layers = [block.int8() for block in cast("Iterable[TransformerBlock]", self.transformers)] if use else []
        self.compiled = CompiledTransformers(layers) if layers and all(layer.fits for layer in layers) else None

    def forward(
        self, x: Float[Tensor, "B C T"], time: Float[Tensor, "B2 E"], padding: Padding | None
    ) -> Float[Tensor, "B C2 T"]:
        """The same number of frames."""
        x = self.resnet(x, time, padding).transpose(1, 2)
        if self.compiled is not None and padding is None and self.compiled.takes(x.shape[1]):
            return self.compiled(x).transpose(1, 2)
        for transformer in self.transformers:
            x = transformer(x, padding)
        return x.transpose(1, 2)

    def leave(self, x: Float[Tensor, "B C T"], padding: Padding | None) -> Float[Tensor, "B C T2"]:
        """On to the next level, at its frame rate."""
        layer = self.resample or self.conv
        return x if layer is None else layer(hide(x, padding))


def _down_levels(dim_in: int, config: UNetConfig) -> Iterator[Level]:
    for index, (dim_out, num_blocks) in enumerate(zip(config.channels, config.num_blocks, strict=True)):
        if index == len(config.channels) - 1:
            yield Level(dim_in, dim_out, num_blocks, config, conv=nn.Conv1d(dim_out, dim_out, 3, padding=1))
        else:
            halve = nn.Conv1d(dim_out, dim_out, 3, stride=2, padding=1)
            yield Level(dim_in, dim_out, num_blocks, config, resample=halve)
        dim_in = dim_out


def _up_levels(config: UNetConfig) -> Iterator[Level]:
    for index in reversed(range(len(config.channels))):
        dim_in, dim_out, num_blocks = (
            2 * config.channels[index],
            config.channels[max(index - 1, 0)],
            config.num_blocks[index],
        )
        if index == 0:
            yield Level(dim_in, dim_out, num_blocks, config, conv=nn.Conv1d(dim_out, dim_out, 3, padding=1))
        else:
            double = nn.ConvTranspose1d(dim_out, dim_out, 4, stride=2, padding=1)
            yield Level(dim_in, dim_out, num_blocks, config, resample=double)


class UNet(nn.Module):
    """Velocity of the latents, given where they are, their condition and the time."""

    def __init__(self, latent_dim: int, config: UNetConfig) -> None:
        super().__init__()
        first, last = config.channels[0], config.channels[-1]
        self.time_mlp = TimeEmbedding(2 * latent_dim, first * config.time_multiple)
        self.down_blocks = nn.ModuleList(_down_levels(2 * latent_dim, config))
        self.mid_blocks = nn.ModuleList(
            Level(last, last, config.num_blocks[-1], config) for _ in range(config.num_mid_blocks)
        )
        self.up_blocks = nn.ModuleList(_up_levels(config))
        self.final_block = ConvBlock(first, first, config.num_groups)
        self.final_proj = nn.Conv1d(first, latent_dim, 1)

    def say_nothing(self) -> None:
        """Begin again with velocities of zero, whatever the layers before have learnt."""
        for parameter in self.final_proj.parameters():
            nn.init.zeros_(parameter)

    def use_int8(self, use: bool = True) -> None:
        """Let compiled kernels compute the transformers that fit them, or no longer; padded batches never go there.

        Raises:
            LongplayError: the kernels cannot be compiled.
        """
        for level in cast("Iterable[Level]", (*self.down_blocks, *self.mid_blocks, *self.up_blocks)):
            level.use_int8(use)

    def forward(
        self,
        x_t: Float[Tensor, "B D T"],
        mu: Float[Tensor, "B D T"],
        t: Float[Tensor, " B2"],
        padding: Padding | None = None,
    ) -> Float[Tensor, "B D T"]:
        """Estimate the velocity.

        Args:
            x_t: latents on their way from noise to data.
            mu: the condition, zero where there is none.
            t: times in [0, 1], one for all rows or one per row.
            padding: padded frames of the batch.

        Returns:
            velocities, zero on padded frames.
        """
        time = self.time_mlp(t)
        x = torch.cat((x_t, mu), dim=1)
        skips = []
        for level in cast("Iterable[Level]", self.down_blocks):
            x = level(x, time, padding)
            skips.append((x, padding))
            x = level.leave(x, padding)
            if padding is not None and level.resample is not None:
                padding = padding.halved()
        for middle in self.mid_blocks:
            x = middle(x, time, padding)
        for level in cast("Iterable[Level]", self.up_blocks):
            skip, padding = skips.pop()
            x = level(torch.cat((x[:, :, : skip.shape[2]], skip), dim=1), time, padding)
            x = level.leave(x, padding)
        x = self.final_block(x, padding)
        return hide(self.final_proj(hide(x, padding)), padding)
