"""`codec`: HiFi-Codec, 48 kHz audio <-> latents at 150 Hz, K codes a frame (arXiv 2305.02765).

wav [B, 1, S] -> codes [B, K, T] -> latents [B, D, T] -> wav [B, 1, T * hop_length]. The decoder is the vocoder of the
whole system: it turns the flow's latents into sound. Published parts: CHECKPOINTS.md 3.5; spectral parts: our own models.
"""

from typing import Annotated

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.quantizers import GroupResidualConfig, GroupResidualQuantizer, Quantized
from longplay.nn.spectral import SpectralDecoder, SpectralDecoderConfig, SpectralEncoder, SpectralEncoderConfig

EncoderConfig = Annotated[SpectralEncoderConfig, Field()]
DecoderConfig = Annotated[SpectralDecoderConfig, Field()]


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


class Codec(nn.Module):
    """Audio to codes and latents and back."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SpectralEncoder(config.encoder, config.hop_length, config.latent_dim)
        self.quantizer = GroupResidualQuantizer(config.quantizer)
        self.decoder = SpectralDecoder(config.decoder, config.hop_length, config.latent_dim)

    def encode(self, wav: Float[Tensor, "B 1 S"]) -> Int[Tensor, "B K T"]:
        """Codes of mono audio at `config.sample_rate`."""
        return self.quantizer.encode(self.encoder(wav))

    def embed(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B D T"]:
        """Latents of codes: the sum of the residual layers' vectors."""
        return self.quantizer.decode(codes)

    def decode(self, latents: Float[Tensor, "B D T"]) -> Float[Tensor, "B 1 S"]:
        """Audio of latents (quantized, or made by the flow)."""
        return self.decoder(latents)

    def forward(self, wav: Float[Tensor, "B 1 S"]) -> tuple[Tensor, Quantized]:
        """Training pass: reconstruction [B, 1, T * hop_length] and the quantizer's values, codes [B, K, T] and loss."""
        quantized = self.quantizer(self.encoder(wav))
        return self.decode(quantized.values), quantized
