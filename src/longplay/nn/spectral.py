"""Spectra in and out: framing, STFT, inverse-STFT head, and the encoder and decoder of our own models.

Encoder: wav -> log-magnitude and phase cosine -> ConvNeXt -> latent. Decoder: latent -> ConvNeXt -> magnitude and
phase -> inverse STFT. Frame t covers the `n_fft` samples around the t-th hop ("same" framing: as many frames as
hops, nothing before or after). Source: Vocos (arXiv 2306.00814), CHECKPOINTS.md 3.6; the encoder is ours.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from pydantic import Field
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.convnext import ConvNeXtBlock


def stft(wav: Float[Tensor, "B S"], window: Tensor, hop_length: int) -> Complex[Tensor, "B F T"]:
    """STFT with "same" framing: T = ceil(S / hop_length), F = n_fft / 2 + 1. Zero padded at both ends."""
    n_fft = len(window)
    frames = -(-wav.shape[-1] // hop_length)
    left = (n_fft - hop_length) // 2
    right = (frames - 1) * hop_length + n_fft - left - wav.shape[-1]
    wav = F.pad(wav, (left, right))
    return torch.stft(wav, n_fft, hop_length, window=window, center=False, return_complex=True)


def istft(spectrum: Complex[Tensor, "B F T"], window: Tensor, hop_length: int) -> Float[Tensor, "B S"]:
    """Inverse of `stft`: S = T * hop_length samples, divided by the overlapped squared window."""
    n_fft = len(window)
    frames = torch.fft.irfft(spectrum, n_fft, dim=1) * window.unsqueeze(1)  # [B, n_fft, T]
    squares = window.square().view(1, -1, 1).expand(1, n_fft, spectrum.shape[-1])
    cut = (n_fft - hop_length) // 2
    length = spectrum.shape[-1] * hop_length
    wav, envelope = (_overlap_add(x, hop_length)[:, cut : cut + length] for x in (frames, squares))
    return wav / envelope.clamp_min(1e-11)


def _overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    length = (frames.shape[-1] - 1) * hop_length + frames.shape[1]
    return F.fold(frames, (1, length), (1, frames.shape[1]), stride=(1, hop_length))[:, 0, 0]


class ISTFTHead(nn.Module):
    """Linear to magnitude and phase, then the inverse STFT."""

    window: Tensor

    def __init__(self, dim: int, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.out = nn.Linear(dim, n_fft + 2)
        self.register_buffer("window", torch.hann_window(n_fft))

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B S"]:
        """Features [B, T, D] to samples [B, T * hop_length]."""
        with torch.autocast(x.device.type, enabled=False):
            log_magnitude, phase = F.linear(x.float(), self.out.weight.float(), self.out.bias.float()).mT.chunk(2, 1)
            return istft(torch.polar(_magnitude(log_magnitude), phase), self.window.float(), self.hop_length)

    def magnitude(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B F T"]:
        """The magnitudes alone, F = n_fft / 2 + 1."""
        rows = self.out.out_features // 2
        with torch.autocast(x.device.type, enabled=False):
            return _magnitude(F.linear(x.float(), self.out.weight[:rows].float(), self.out.bias[:rows].float()).mT)


def _magnitude(logarithm: Tensor) -> Tensor:
    return logarithm.exp().clamp(max=100.0)


class SpectralEncoderConfig(Config):
    """Size of the spectral encoder, and what it sees.

    Attributes:
        phase: also see the cosine of the phase. Codes of an encoder that does not are steadier over time, hence far
            easier for a language model (docs/experiments.md, 2026-11-22), but tie no waveform down.
        floor: magnitudes below it look alike.
    """

    kind: Literal["spectral"] = "spectral"
    n_fft: int = Field(gt=0)
    dim: int = Field(gt=0)
    intermediate_dim: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    kernel_size: int = Field(default=7, gt=0)
    phase: bool = True
    floor: float = Field(default=1e-5, gt=0)


class SpectralEncoder(nn.Module):
    """wav [B, 1, S] -> latent [B, latent_dim, ceil(S / hop_length)]."""

    window: Tensor

    def __init__(self, config: SpectralEncoderConfig, hop_length: int, latent_dim: int) -> None:
        super().__init__()
        self.config = config
        self.hop_length = hop_length
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.embed = nn.Linear((config.n_fft // 2 + 1) * (1 + config.phase), config.dim)
        self.norm = nn.LayerNorm(config.dim, 1e-6)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.dim, config.intermediate_dim, config.kernel_size, scale=1 / config.num_layers)
            for _ in range(config.num_layers)
        )
        self.final_norm = nn.LayerNorm(config.dim, 1e-6)
        self.out = nn.Linear(config.dim, latent_dim)

    def forward(self, wav: Float[Tensor, "B 1 S"]) -> Float[Tensor, "B D T"]:
        """Encode; the last, partial hop is padded with zeros."""
        with torch.autocast(wav.device.type, enabled=False):
            spectrum = stft(wav[:, 0].float(), self.window, self.hop_length)
            magnitude = spectrum.abs()
            features = magnitude.clamp_min(self.config.floor).log()
            if self.config.phase:
                features = torch.cat([features, spectrum.real / magnitude.clamp_min(1e-5)], dim=1)
            features = features.mT  # [B, T, F]
        h = self.norm(self.embed(features)).mT
        for block in self.blocks:
            h = block(h)
        return self.out(self.final_norm(h.mT)).mT

    @property
    def receptive_field(self) -> int:
        """Frames on each side of a frame that its latent depends on."""
        window = -(-self.config.n_fft // (2 * self.hop_length))
        return window + self.config.num_layers * (self.config.kernel_size // 2)


class SpectralDecoderConfig(Config):
    """Size of the spectral decoder."""

    kind: Literal["spectral"] = "spectral"
    n_fft: int = Field(gt=0)
    dim: int = Field(gt=0)
    intermediate_dim: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    kernel_size: int = Field(default=7, gt=0)


class SpectralDecoder(nn.Module):
    """latent [B, latent_dim, T] -> wav [B, 1, T * hop_length]."""

    def __init__(self, config: SpectralDecoderConfig, hop_length: int, latent_dim: int) -> None:
        super().__init__()
        self.config = config
        self.hop_length = hop_length
        self.embed = nn.Conv1d(latent_dim, config.dim, config.kernel_size, padding=config.kernel_size // 2)
        self.norm = nn.LayerNorm(config.dim, 1e-6)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.dim, config.intermediate_dim, config.kernel_size, scale=1 / config.num_layers)
            for _ in range(config.num_layers)
        )
        self.final_norm = nn.LayerNorm(config.dim, 1e-6)
        self.head = ISTFTHead(config.dim, config.n_fft, hop_length)

    def forward(self, latents: Float[Tensor, "B D T"]) -> Float[Tensor, "B 1 S"]:
        """Decode."""
        return self.head(self._features(latents)).unsqueeze(1)

    def magnitude(self, latents: Float[Tensor, "B D T"]) -> Float[Tensor, "B F T"]:
        """The STFT magnitudes ("same" framing, `n_fft`) that `forward` gives a phase to."""
        return self.head.magnitude(self._features(latents))

    def _features(self, latents: Tensor) -> Tensor:
        h = self.norm(self.embed(latents).mT).mT
        for block in self.blocks:
            h = block(h)
        return self.final_norm(h.mT)

    @property
    def receptive_field(self) -> int:
        """Frames on each side of a frame that its samples depend on."""
        overlap = -(-self.config.n_fft // (2 * self.hop_length))
        return overlap + (1 + self.config.num_layers) * (self.config.kernel_size // 2)
