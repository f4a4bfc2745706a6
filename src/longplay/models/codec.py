"""`codec`: HiFi-Codec, 48 kHz audio <-> latents at 150 Hz, K codes a frame (arXiv 2305.02765).

wav [B, 1, S] -> codes [B, K, T] -> latents [B, D, T] -> wav [B, 1, T * hop_length]. The decoder is the vocoder of the
whole system: it turns the flow's latents into sound. Published parts: CHECKPOINTS.md 3.5; spectral parts: our own models.
"""

from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.hifigan import HifiganEncoder, HifiganEncoderConfig, HifiganGenerator, HifiganGeneratorConfig
from longplay.nn.quantizers import CodebookConfig, GroupResidualConfig, GroupResidualQuantizer, Quantized
from longplay.nn.spectral import (
    ComponentsEncoder,
    ComponentsEncoderConfig,
    SpectralDecoder,
    SpectralDecoderConfig,
    SpectralEncoder,
    SpectralEncoderConfig,
    spectral,
)

EncoderConfig = Annotated[
    HifiganEncoderConfig | SpectralEncoderConfig | ComponentsEncoderConfig, Field(discriminator="kind")
]
DecoderConfig = Annotated[HifiganGeneratorConfig | SpectralDecoderConfig, Field(discriminator="kind")]


class CodecConfig(Config):
    """Rates and sizes of the codec; the latent width is the quantizer's."""

    sample_rate: int = Field(gt=0)
    hop_length: int = Field(gt=0)
    quantizer: GroupResidualConfig
    encoder: EncoderConfig
    decoder: DecoderConfig

    @property
    def frame_rate(self) -> float:
        """Latent frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def num_codebooks(self) -> int:
        """K."""
        return self.quantizer.num_codebooks

    @property
    def codebook_size(self) -> int:
        """Number of different codes in each codebook."""
        return self.quantizer.codebook.size

    @property
    def latent_dim(self) -> int:
        """D."""
        return self.quantizer.dim

    @classmethod
    def published(cls, sample_rate: int) -> "CodecConfig":
        """The codec of the published models: 24000 Hz (75 Hz frames) or 48000 Hz (150 Hz) (CHECKPOINTS.md 2.2)."""
        return cls(
            sample_rate=sample_rate,
            hop_length=320,
            quantizer=GroupResidualConfig(codebook=CodebookConfig(size=1024, dim=256, ema=False)),
            encoder=HifiganEncoderConfig(
                base_channels=32,
                strides=(2, 4, 5, 8),
                kernel_sizes=(4, 8, 11, 16),
                resblock_kernel_sizes=(11, 7, 3),
                resblock_dilations=((1, 3, 5),) * 3,
            ),
            decoder=HifiganGeneratorConfig(
                channels=512,
                strides=(8, 5, 4, 2),
                kernel_sizes=(16, 11, 8, 4),
                resblock_kernel_sizes=(3, 7, 11),
                resblock_dilations=((1, 3, 5),) * 3,
            ),
        )

    @model_validator(mode="after")
    def _check_hop(self) -> "CodecConfig":
        for part in (self.encoder, self.decoder):
            if isinstance(part, HifiganEncoderConfig | HifiganGeneratorConfig) and part.hop_length != self.hop_length:
                raise ValueError(
                    f"hop_length {self.hop_length} differs from {part.hop_length}, the product of the {part.kind} strides"
                )
        return self


class Codec(nn.Module):
    """Audio to codes and latents and back."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)
        self.quantizer = GroupResidualQuantizer(config.quantizer)
        self.decoder = _decoder(config)

    def encode(self, wav: Float[Tensor, "B 1 S"]) -> Int[Tensor, "B K T"]:
        """Codes of mono audio at `config.sample_rate`."""
        return self.quantizer.encode(self.encoder(wav))

    def embed(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B D T"]:
        """Latents of codes: the sum of the residual layers' vectors."""
        return self.quantizer.decode(codes)

    def decode(self, latents: Float[Tensor, "B D T"]) -> Float[Tensor, "B 1 S"]:
        """Audio of latents (quantized, or made by the flow)."""
        return self.decoder(latents).float()

    def decode_frames(self, latents: Float[Tensor, "B D T"]) -> Float[Tensor, "B P T"]:
        """What the decoder's `synthesis` turns to audio, of latents.

        Raises:
            TypeError: the decoder is not spectral.
        """
        return spectral(self.decoder).frames(latents)

    def decode_in(self, dtype: torch.dtype) -> "Codec":
        """Let the decoder, and nothing else, compute in `dtype`; latents come in float32."""
        self.decoder.to(dtype)
        return self

    def forward(
        self,
        wav: Float[Tensor, "B 1 S"],
        quantize: bool = True,
        unquantized: int = 0,
        made: Float[Tensor, "N D T"] | None = None,
    ) -> tuple[Tensor, Quantized]:
        """Training pass: reconstruction [B, 1, T * hop_length] and the quantizer's values, codes [B, K, T] and loss.

        With `quantize` off the latents go through as they are (codes are then zeros): how a run starts. So do those of the
        first `unquantized` rows, of which the codebooks learn all the same: a flow will make such latents. Or those that it
        has `made` of the first N rows are decoded in their place.
        """
        _, quantized = self._quantized(wav, quantize, unquantized)
        if made is not None:
            quantized = quantized.beside(made, len(made))
        return self.decode(quantized.values), quantized

    def spectrum(
        self, wav: Float[Tensor, "B 1 S"], quantize: bool = True, unquantized: int = 0
    ) -> tuple[Tensor, Tensor, Quantized]:
        """Training pass without a waveform: magnitudes [B, F, T], latents [B, D, T] before the quantizer, quantizer.

        `quantize` and `unquantized` as in `forward`.

        Raises:
            TypeError: the decoder is not spectral.
        """
        latents, quantized = self._quantized(wav, quantize, unquantized)
        return spectral(self.decoder).magnitude(quantized.values), latents, quantized

    def _quantized(self, wav: Tensor, quantize: bool, unquantized: int) -> tuple[Tensor, Quantized]:
        latents = self.encoder(wav)
        if not quantize:
            return latents, Quantized.bypass(latents, self.config.num_codebooks)
        return latents, self.quantizer(latents).beside(latents, unquantized)


def _encoder(config: CodecConfig) -> HifiganEncoder | SpectralEncoder | ComponentsEncoder:
    if isinstance(config.encoder, HifiganEncoderConfig):
        return HifiganEncoder(config.encoder, config.latent_dim)
    if isinstance(config.encoder, ComponentsEncoderConfig):
        return ComponentsEncoder(config.encoder, config.sample_rate, config.hop_length, config.latent_dim)
    return SpectralEncoder(config.encoder, config.hop_length, config.latent_dim)


def _decoder(config: CodecConfig) -> HifiganGenerator | SpectralDecoder:
    if isinstance(config.decoder, HifiganGeneratorConfig):
        return HifiganGenerator(config.decoder, config.latent_dim)
    return SpectralDecoder(config.decoder, config.hop_length, config.latent_dim)
