"""The encoder and decoder of our own tokenizer and codec, which see and make spectra.

Encoder: wav -> log-magnitude (and phase cosine) -> ConvNeXt -> latent. Decoder: latent -> ConvNeXt -> magnitude and
phase -> inverse STFT. Source: Vocos (arXiv 2306.00814); the encoder is ours.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.convnext import ConvNeXtBlock
from longplay.nn.istft import PhaseLockedHead, Synthesis, stft


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
        self.head = PhaseLockedHead(config.dim, config.n_fft, hop_length)

    def forward(self, latents: Float[Tensor, "B D T"]) -> Float[Tensor, "B 1 S"]:
        """Decode."""
        return self.head(self._features(latents)).unsqueeze(1)

    def magnitude(self, latents: Float[Tensor, "B D T"]) -> Float[Tensor, "B F T"]:
        """The STFT magnitudes ("same" framing, `n_fft`) that `forward` gives a phase to."""
        return self.head.magnitude(self._features(latents))

    def frames(self, latents: Float[Tensor, "B D T"]) -> Float[Tensor, "B P T"]:
        """The part of decoding that sees `receptive_field` frames around each one; `synthesis` does the rest."""
        return self.head.frames(self._features(latents))

    def synthesis(self) -> Synthesis:
        """What turns `frames` to samples, in order."""
        return Synthesis(self.head)

    def _features(self, latents: Tensor) -> Tensor:
        h = self.norm(self.embed(latents).mT).mT
        for block in self.blocks:
            h = block(h)
        return self.final_norm(h.mT)

    @property
    def receptive_field(self) -> int:
        """Frames on each side that a frame of `frames` depends on."""
        return (1 + self.config.num_layers) * (self.config.kernel_size // 2) + 1


def spectral(decoder: nn.Module) -> SpectralDecoder:
    """`decoder`, known to be spectral.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(decoder, SpectralDecoder):
        raise TypeError(f"{type(decoder).__name__}: has no magnitudes and no frames, only a spectral decoder has")
    return decoder
