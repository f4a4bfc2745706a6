"""The encoders and the decoder of our own tokenizer and codec, which see and make spectra.

Encoder: wav -> log-magnitude (and phase cosine) -> ConvNeXt -> latent, or log-magnitude -> principal components. Decoder:
latent -> ConvNeXt -> magnitude, and a phase that follows from it -> inverse STFT. Source: Vocos (arXiv 2306.00814); the
encoders are ours, and so is the shortcut around the blocks.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.convnext import ConvNeXtBlock, ConvNeXtStack
from longplay.nn.istft import PhaseLockedHead, Synthesis, stft


class SpectralEncoderConfig(Config):
    """Size of the spectral encoder, and what it sees.

    Attributes:
        phase: also see the cosine of the phase. Codes of an encoder that does not are steadier over time, hence far
            easier for a language model (docs/experiments.md, 2026-11-22), but tie no waveform down.
        floor: magnitudes below it look alike.
        shortcut: add a linear map of the log-magnitudes to what the blocks say. It stays as it is in training, where
            steps that suit the blocks would shake a sum of a thousand levels (`longplay.train.components` sets it).
    """

    kind: Literal["spectral"] = "spectral"
    n_fft: int = Field(gt=0)
    dim: int = Field(gt=0)
    intermediate_dim: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    kernel_size: int = Field(default=7, gt=0)
    phase: bool = True
    floor: float = Field(default=1e-5, gt=0)
    shortcut: bool = False


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
        self.shortcut = nn.Linear(config.n_fft // 2 + 1, latent_dim).requires_grad_(False) if config.shortcut else None

    def forward(self, wav: Float[Tensor, "B 1 S"]) -> Float[Tensor, "B D T"]:
        """Encode; the last, partial hop is padded with zeros."""
        logarithm, cosine = self.features(wav)
        h = self.norm(self.embed(torch.cat((logarithm, cosine), dim=1).mT)).mT
        for block in self.blocks:
            h = block(h)
        latents = self.out(self.final_norm(h.mT)).mT
        if self.shortcut is None:
            return latents
        with torch.autocast(wav.device.type, enabled=False):  # bfloat16 is too coarse for a sum of a thousand levels
            return latents + self.shortcut(logarithm.mT).mT

    def features(self, wav: Float[Tensor, "B 1 S"]) -> tuple[Float[Tensor, "B F T"], Float[Tensor, "B P T"]]:
        """Log-magnitudes, and the cosine of the phase (P = F, or 0 if it is not seen)."""
        with torch.autocast(wav.device.type, enabled=False):
            spectrum = stft(wav[:, 0].float(), self.window, self.hop_length)
            magnitude = spectrum.abs()
            cosine = spectrum.real / magnitude.clamp_min(1e-5)
            return magnitude.clamp_min(self.config.floor).log(), cosine if self.config.phase else cosine[:, :0]

    @property
    def receptive_field(self) -> int:
        """Frames on each side of a frame that its latent depends on."""
        window = -(-self.config.n_fft // (2 * self.hop_length))
        return window + self.config.num_layers * (self.config.kernel_size // 2)


class ComponentsEncoderConfig(Config):
    """Size of the encoder without layers.

    Attributes:
        floor: magnitudes below it look alike. It falls with the frequency, as music does: to half at 1 kHz, a tenth at 9.
    """

    kind: Literal["components"] = "components"
    n_fft: int = Field(gt=0)
    floor: float = Field(default=0.3, gt=0)


class ComponentsEncoder(nn.Module):
    """wav [B, 1, S] -> latent [B, latent_dim, ceil(S / hop_length)]: a fixed linear map of the log-magnitudes.

    Its weights are principal components (`longplay.train.components`), so the distance of two latents is that of two
    spectra, and what follows it (codebooks, decoder, flow) can be trained side by side.
    """

    window: Tensor
    floor: Tensor

    def __init__(self, config: ComponentsEncoderConfig, sample_rate: int, hop_length: int, latent_dim: int) -> None:
        super().__init__()
        self.config = config
        self.hop_length = hop_length
        frequencies = torch.arange(config.n_fft // 2 + 1) * sample_rate / config.n_fft
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.register_buffer("floor", (config.floor / (1 + frequencies / 1000)).unsqueeze(1), persistent=False)
        self.out = nn.Linear(config.n_fft // 2 + 1, latent_dim).requires_grad_(False)

    def forward(self, wav: Float[Tensor, "B 1 S"]) -> Float[Tensor, "B D T"]:
        """Encode; the last, partial hop is padded with zeros."""
        with torch.autocast(wav.device.type, enabled=False):  # bfloat16 is too coarse for a sum of a thousand levels
            return self.out(self.logarithm(wav).mT).mT

    def logarithm(self, wav: Float[Tensor, "B 1 S"]) -> Float[Tensor, "B F T"]:
        """Log-magnitudes, not below the floor's."""
        return stft(wav[:, 0].float(), self.window, self.hop_length).abs().maximum(self.floor).log()

    @property
    def receptive_field(self) -> int:
        """Frames on each side of a frame that its latent depends on."""
        return -(-self.config.n_fft // (2 * self.hop_length))


class SpectralDecoderConfig(Config):
    """Size of the spectral decoder.

    Attributes:
        shortcut: the last layer also sees the latents themselves, past the blocks and their norms.
    """

    kind: Literal["spectral"] = "spectral"
    n_fft: int = Field(gt=0)
    dim: int = Field(gt=0)
    intermediate_dim: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    kernel_size: int = Field(default=7, gt=0)
    shortcut: bool = False


class SpectralDecoder(ConvNeXtStack):
    """latent [B, latent_dim, T] -> wav [B, 1, T * hop_length]."""

    def __init__(self, config: SpectralDecoderConfig, hop_length: int, latent_dim: int) -> None:
        super().__init__(latent_dim, config.dim, config.intermediate_dim, config.num_layers, config.kernel_size)
        self.config = config
        self.hop_length = hop_length
        self.head = PhaseLockedHead(config.dim + config.shortcut * latent_dim, config.n_fft, hop_length)

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
        h = self.features(latents)
        # the latents as they came, not rounded to the precision of the blocks
        return torch.cat((h.float(), latents.mT.float()), dim=-1) if self.config.shortcut else h

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
