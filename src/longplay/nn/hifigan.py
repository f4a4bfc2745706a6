"""HiFi-GAN encoder and generator of the published codec (CHECKPOINTS.md 3.5).

Encoder: wav [B, 1, S] in [-1, 1] -> latents [B, D, floor(S / hop)]. Generator: latents [B, D, T] -> wav [B, 1, T * hop].
Strided convolutions, each followed by parallel residual blocks of different kernel sizes. Source: HiFi-GAN
(arXiv 2010.05646), HiFi-Codec (arXiv 2305.02765).
"""

import math
from collections.abc import Iterable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from longplay.config import Config
from longplay.errors import AudioError
from longplay.nn.compiled_convolution import fits
from longplay.nn.compiled_hifigan import CompiledGenerator
from longplay.nn.conv import WeightNormConv1d, WeightNormConvTranspose1d


class _HifiganConfig(Config):
    kind: Literal["hifigan"] = "hifigan"
    strides: tuple[int, ...] = Field(min_length=1)
    kernel_sizes: tuple[int, ...] = Field(min_length=1)
    resblock: Literal["1", "2"] = "1"
    resblock_kernel_sizes: tuple[int, ...] = Field(min_length=1)
    resblock_dilations: tuple[tuple[int, ...], ...] = Field(min_length=1)
    slope: float = 0.1
    end_kernel_size: int = Field(default=7, gt=0)

    @property
    def hop_length(self) -> int:
        """Samples per latent frame."""
        return math.prod(self.strides)

    @model_validator(mode="after")
    def _check(self) -> "_HifiganConfig":
        if len(self.kernel_sizes) != len(self.strides):
            raise ValueError(
                f"{len(self.kernel_sizes)} kernel_sizes for {len(self.strides)} strides; give one for each"
            )
        for kernel_size, stride in zip(self.kernel_sizes, self.strides, strict=True):
            if kernel_size < stride or (kernel_size - stride) % 2:
                # symmetric padding gives exactly `stride` samples per frame only then
                raise ValueError(f"kernel size {kernel_size} must exceed its stride {stride} by an even number")
        for kernel_size in self.resblock_kernel_sizes:
            if kernel_size % 2 == 0:
                raise ValueError(f"residual block kernel size {kernel_size} must be odd to keep the length")
        if len(self.resblock_dilations) != len(self.resblock_kernel_sizes):
            raise ValueError("resblock_dilations needs one tuple for each of resblock_kernel_sizes")
        return self


class HifiganEncoderConfig(_HifiganConfig):
    """Size of the encoder. Every list is in the order of use: the reverse of the published generator's.

    Attributes:
        strides: of the downsampling convolutions.
        kernel_sizes: of the downsampling convolutions.
        resblock: "1" follows each dilated convolution by a plain one, "2" does not.
        resblock_kernel_sizes: of the residual blocks after each downsampling.
        resblock_dilations: for each of them, the dilations of its convolutions.
        slope: of the leaky ReLUs.
        end_kernel_size: of the convolution next to the waveform, and of the generator's first.
        base_channels: after the first convolution; every stage doubles them.
        group_size: channels in one group of the group norms.
        eps: of the group norms.
        final_slope: of the last leaky ReLU.
        latent_kernel_size: of the last convolution.
    """

    base_channels: int = Field(gt=0)
    group_size: int = Field(default=16, gt=0)
    eps: float = Field(default=1e-6, gt=0)
    final_slope: float = 0.01
    latent_kernel_size: int = Field(default=3, gt=0)


class HifiganGeneratorConfig(_HifiganConfig):
    """Size of the generator; its lists too are in the order of use.

    Attributes:
        channels: after the first convolution; every stage halves them.
        (the others): as in `HifiganEncoderConfig`, for upsampling.
    """

    channels: int = Field(gt=0)


class PairedResBlock(nn.Module):
    """Residual block "1": each dilated convolution is followed by a plain one."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...], slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.convs1 = nn.ModuleList(_same(channels, channels, kernel_size, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same(channels, channels, kernel_size) for _ in dilations)

    def forward(self, x: Float[Tensor, "B D T"]) -> Float[Tensor, "B D T"]:
        """[B, D, T] to the same shape."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            h = dilated(F.leaky_relu(x, self.slope))
            x = x + plain(F.leaky_relu(h, self.slope))
        return x

    def layers(self) -> list[list[nn.Conv1d]]:
        """Convolutions from sum to sum, weight norms folded."""
        return [[cast(nn.Conv1d, conv) for conv in pair] for pair in zip(self.convs1, self.convs2, strict=True)]


class ResBlock(nn.Module):
    """Residual block "2": dilated convolutions only."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...], slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.convs = nn.ModuleList(_same(channels, channels, kernel_size, dilation) for dilation in dilations)

    def forward(self, x: Float[Tensor, "B D T"]) -> Float[Tensor, "B D T"]:
        """[B, D, T] to the same shape."""
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, self.slope))
        return x

    def layers(self) -> list[list[nn.Conv1d]]:
        """Convolutions from sum to sum, weight norms folded."""
        return [[cast(nn.Conv1d, conv)] for conv in self.convs]


def _same(in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> WeightNormConv1d:
    padding = _padding(kernel_size, dilation)
    return WeightNormConv1d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation)


def _padding(kernel_size: int, dilation: int = 1) -> int:
    return (kernel_size - 1) * dilation // 2


def _resblocks(config: _HifiganConfig, channels: int) -> list[nn.Module]:
    block = PairedResBlock if config.resblock == "1" else ResBlock
    return [
        block(channels, kernel_size, dilations, config.slope)
        for kernel_size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilations, strict=True)
    ]


class HifiganEncoder(nn.Module):
    """wav [B, 1, S] -> latents [B, latent_dim, floor(S / config.hop_length)].

    Group norms run over the whole length, so there is no finite receptive field.
    """

    def __init__(self, config: HifiganEncoderConfig, latent_dim: int) -> None:
        super().__init__()
        self.config = config
        channels = config.base_channels
        self.conv_pre = _same(1, channels, config.end_kernel_size)
        # flat lists, one entry for each stage and residual block: the layout of the published tensor names
        self.downs, self.resblocks, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stride, kernel_size in zip(config.strides, config.kernel_sizes, strict=True):
            padding = (kernel_size - stride) // 2
            self.downs.append(WeightNormConv1d(channels, 2 * channels, kernel_size, stride, padding))
            channels *= 2
            self.resblocks.extend(_resblocks(config, channels))
            groups = channels // config.group_size
            self.norms.extend(nn.GroupNorm(groups, channels, config.eps) for _ in config.resblock_kernel_sizes)
        kernel_size = config.latent_kernel_size
        self.conv_post = nn.Conv1d(channels, latent_dim, kernel_size, padding=_padding(kernel_size))

    def forward(self, wav: Float[Tensor, "B 1 S"]) -> Float[Tensor, "B D T"]:
        """Encode; samples after the last full hop are dropped.

        Raises:
            AudioError: fewer samples than one hop.
        """
        hop_length = self.config.hop_length
        if wav.shape[-1] < hop_length:
            raise AudioError(
                f"{wav.shape[-1]} samples are less than one codec frame; give at least {hop_length} samples"
            )
        per_stage = len(self.config.resblock_kernel_sizes)
        x = self.conv_pre(wav)
        for stage, down in enumerate(self.downs):
            x = down(F.leaky_relu(x, self.config.slope))
            total = torch.zeros_like(x)
            for index in range(stage * per_stage, (stage + 1) * per_stage):
                total = self.norms[index](total + self.resblocks[index](x))
            x = total / per_stage
        return self.conv_post(F.leaky_relu(x, self.config.final_slope))


class HifiganGenerator(nn.Module):
    """latents [B, latent_dim, T] -> wav [B, 1, T * config.hop_length] in (-1, 1)."""

    def __init__(self, config: HifiganGeneratorConfig, latent_dim: int) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.conv_pre = _same(latent_dim, channels, config.end_kernel_size)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()  # flat, as in the encoder
        for stride, kernel_size in zip(config.strides, config.kernel_sizes, strict=True):
            padding = (kernel_size - stride) // 2
            self.ups.append(WeightNormConvTranspose1d(channels, channels // 2, kernel_size, stride, padding))
            channels //= 2
            self.resblocks.extend(_resblocks(config, channels))
        self.conv_post = _same(channels, 1, config.end_kernel_size)
        self.compiled: CompiledGenerator | None = None

    def use_kernels(self) -> None:
        """Let compiled kernels decode, in float32, if they can (`nn/compiled_hifigan.py`); weight norms are folded before.

        Raises:
            LongplayError: the kernels cannot be compiled.
        """
        count, blocks = len(self.config.resblock_kernel_sizes), list(cast("Iterable[ResBlock]", self.resblocks))
        stages = [
            (up, [block.layers() for block in blocks[count * stage : count * (stage + 1)]])
            for stage, up in enumerate(cast("Iterable[nn.ConvTranspose1d]", self.ups))
        ]
        if all(fits(conv) for conv in self.modules() if isinstance(conv, nn.Conv1d | nn.ConvTranspose1d)):
            pre, post = cast(nn.Conv1d, self.conv_pre), cast(nn.Conv1d, self.conv_post)
            self.compiled = CompiledGenerator(pre, stages, post, self.config.slope)

    def forward(self, latents: Float[Tensor, "B D T"]) -> Float[Tensor, "B 1 S"]:
        """Decode, in the precision of the weights."""
        if self.compiled is not None and self.compiled.takes(latents.shape[-1]):
            return self.compiled(latents)
        per_stage = len(self.config.resblock_kernel_sizes)
        x = self.conv_pre(latents.to(next(self.parameters()).dtype))
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, self.config.slope))
            total = torch.zeros_like(x)
            for index in range(stage * per_stage, (stage + 1) * per_stage):
                total = total + self.resblocks[index](x)
            x = total / per_stage
        return torch.tanh(self.conv_post(F.leaky_relu(x, self.config.slope)))

    @property
    def receptive_field(self) -> int:
        """Frames on each side of a frame that its samples depend on."""
        config = self.config
        paired = config.resblock == "1"
        reach = max(
            sum(_padding(kernel_size, dilation) + paired * _padding(kernel_size) for dilation in dilations)
            for kernel_size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilations, strict=True)
        )
        # by symmetry one side is enough: how far before sample 0, then before its frame, the input still counts
        end = _padding(config.end_kernel_size)
        before = end
        for stride, kernel_size in reversed(list(zip(config.strides, config.kernel_sizes, strict=True))):
            padding = (kernel_size - stride) // 2
            before = (before + reach + kernel_size - 1 - padding) // stride
        return before + end
