"""`tokenizer`: WavTokenizer, 24 kHz audio <-> one codebook of codes at 75 Hz (arXiv 2408.16532).

wav [B, 1, S] -> codes [B, T], T = ceil(S / hop_length), and back. With `num_codebooks` = K > 1 a residual quantizer
stands in the codebook's place (arXiv 2107.03312) and codes are [B, K, T]: to compare with, since lm and flow take one
code a frame. Two encoders and two decoders stand behind this one
interface: the published ones (SEANet, Vocos with attention; CHECKPOINTS.md 3.6) and the spectral ones of our own models.
"""

from typing import Annotated

from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.quantizers import Codebook, CodebookConfig, GroupResidualConfig, GroupResidualQuantizer, Quantized
from longplay.nn.seanet import SeanetConfig, SeanetEncoder
from longplay.nn.spectral import (
    SpectralDecoder,
    SpectralDecoderConfig,
    SpectralEncoder,
    SpectralEncoderConfig,
    spectral,
)
from longplay.nn.vocos import VocosDecoder, VocosDecoderConfig

EncoderConfig = Annotated[SeanetConfig | SpectralEncoderConfig, Field(discriminator="kind")]
DecoderConfig = Annotated[VocosDecoderConfig | SpectralDecoderConfig, Field(discriminator="kind")]


class TokenizerConfig(Config):
    """Rates and sizes of the tokenizer.

    Attributes:
        latent_dim: the encoder's output width.
        codebook: the codebook, or each of them.
        num_codebooks: residual codebooks, each of what the ones before it left over.
    """

    sample_rate: int = Field(gt=0)
    hop_length: int = Field(gt=0)
    latent_dim: int = Field(gt=0)
    codebook: CodebookConfig
    num_codebooks: int = Field(default=1, gt=0)
    encoder: EncoderConfig
    decoder: DecoderConfig

    @property
    def frame_rate(self) -> float:
        """Codes per second."""
        return self.sample_rate / self.hop_length

    @property
    def codebook_size(self) -> int:
        """Number of different codes in each codebook."""
        return self.codebook.size

    @classmethod
    def published(cls) -> "TokenizerConfig":
        """The tokenizer of every published InspireMusic model: 24 kHz, 75 Hz, 4096 codes (CHECKPOINTS.md 2.1)."""
        return cls(
            sample_rate=24000,
            hop_length=320,
            latent_dim=512,
            codebook=CodebookConfig(size=4096, dim=512),
            encoder=SeanetConfig(strides=(2, 4, 5, 8)),
            decoder=VocosDecoderConfig(dim=768, intermediate_dim=2304, num_layers=12, num_conditions=4, n_fft=1280),
        )

    @model_validator(mode="after")
    def _check_hop(self) -> "TokenizerConfig":
        if isinstance(self.encoder, SeanetConfig) and self.encoder.hop_length != self.hop_length:
            raise ValueError(
                f"hop_length {self.hop_length} differs from {self.encoder.hop_length}, the product of encoder.strides"
            )
        return self


class Tokenizer(nn.Module):
    """Audio to codes and back."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)
        self.codebook = _codebook(config)
        same = config.codebook.dim == config.latent_dim
        self.project_in = nn.Identity() if same else nn.Conv1d(config.latent_dim, config.codebook.dim, 1)
        self.project_out = nn.Identity() if same else nn.Conv1d(config.codebook.dim, config.latent_dim, 1)
        self.decoder = _decoder(config)

    def encode(self, wav: Float[Tensor, "B 1 S"]) -> Int[Tensor, "B *K T"]:
        """Codes [B, T], of several codebooks [B, K, T], T = ceil(S / hop_length), of mono audio at `config.sample_rate`."""
        return self.codebook.encode(self.project_in(self.encoder(wav)))

    def decode(self, codes: Int[Tensor, "B *K T"]) -> Float[Tensor, "B 1 S"]:
        """Audio [B, 1, T * hop_length] of codes."""
        return self.decoder(self.project_out(self.codebook.decode(codes)))

    def decode_frames(self, codes: Int[Tensor, "B *K T"]) -> Float[Tensor, "B P T"]:
        """What the decoder's `synthesis` turns to audio, of codes.

        Raises:
            TypeError: the decoder is not spectral.
        """
        return spectral(self.decoder).frames(self.project_out(self.codebook.decode(codes)))

    def forward(
        self, wav: Float[Tensor, "B 1 S"], quantize: bool = True, unquantized: int = 0
    ) -> tuple[Tensor, Quantized]:
        """Training pass: reconstruction [B, 1, T * hop_length] and the quantizer's values, codes [B, K, T] and loss.

        With `quantize` off the latents go through as they are (codes are then zeros): how a run starts. So do those of the
        first `unquantized` rows, of which the codebook learns all the same.
        """
        _, quantized = self._quantized(wav, quantize, unquantized)
        return self.decoder(self.project_out(quantized.values)), quantized

    def spectrum(
        self, wav: Float[Tensor, "B 1 S"], quantize: bool = True, unquantized: int = 0
    ) -> tuple[Tensor, Tensor, Quantized]:
        """Training pass without a waveform: magnitudes [B, F, T], latents [B, D, T] before the codebook, quantizer.

        `quantize` and `unquantized` as in `forward`.

        Raises:
            TypeError: the decoder is not spectral.
        """
        latents, quantized = self._quantized(wav, quantize, unquantized)
        return spectral(self.decoder).magnitude(self.project_out(quantized.values)), latents, quantized

    def _quantized(self, wav: Tensor, quantize: bool, unquantized: int) -> tuple[Tensor, Quantized]:
        latents = self.project_in(self.encoder(wav))
        if not quantize:
            return latents, Quantized.bypass(latents, self.config.num_codebooks)
        return latents, self.codebook(latents).beside(latents, unquantized)


def _encoder(config: TokenizerConfig) -> SeanetEncoder | SpectralEncoder:
    if isinstance(config.encoder, SeanetConfig):
        return SeanetEncoder(config.encoder, config.latent_dim)
    return SpectralEncoder(config.encoder, config.hop_length, config.latent_dim)


def _codebook(config: TokenizerConfig) -> Codebook | GroupResidualQuantizer:
    if config.num_codebooks == 1:
        return Codebook(config.codebook)
    return GroupResidualQuantizer(
        GroupResidualConfig(num_layers=config.num_codebooks, num_groups=1, codebook=config.codebook)
    )


def _decoder(config: TokenizerConfig) -> VocosDecoder | SpectralDecoder:
    if isinstance(config.decoder, VocosDecoderConfig):
        return VocosDecoder(config.decoder, config.hop_length, config.latent_dim)
    return SpectralDecoder(config.decoder, config.hop_length, config.latent_dim)
