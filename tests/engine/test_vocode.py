"""Decoders in windows against one run over the whole, also where a phase runs on from window to window."""

import pytest
import torch

from longplay.engine import vocode
from longplay.models.codec import Codec, CodecConfig
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.nn.hifigan import HifiganGeneratorConfig
from longplay.nn.quantizers import CodebookConfig, GroupResidualConfig
from longplay.nn.spectral import SpectralDecoder, SpectralDecoderConfig, SpectralEncoderConfig

ENCODER = SpectralEncoderConfig(n_fft=32, dim=12, intermediate_dim=16, num_layers=1)
SPECTRAL = SpectralDecoderConfig(n_fft=32, dim=16, intermediate_dim=32, num_layers=2)
CONVOLUTIONS = HifiganGeneratorConfig(
    channels=16, strides=(4, 2), kernel_sizes=(8, 4), resblock_kernel_sizes=(3, 5), resblock_dilations=((1, 3), (1, 2))
)


def codec(decoder: SpectralDecoderConfig | HifiganGeneratorConfig) -> Codec:
    torch.manual_seed(0)
    quantizer = GroupResidualConfig(codebook=CodebookConfig(size=8, dim=2))
    return Codec(
        CodecConfig(sample_rate=80, hop_length=8, quantizer=quantizer, encoder=ENCODER, decoder=decoder)
    ).eval()


DECODERS = [SPECTRAL, CONVOLUTIONS]


@pytest.mark.parametrize("decoder", DECODERS, ids=["spectral", "convolutions"])
@pytest.mark.parametrize("length", [1, 50, 103, 163])
def test_a_codec_in_windows_equals_the_whole(
    decoder: SpectralDecoderConfig | HifiganGeneratorConfig, length: int
) -> None:
    model = codec(decoder)
    if isinstance(model.decoder, SpectralDecoder):
        torch.nn.init.normal_(model.decoder.head.out.weight, std=0.5)  # magnitudes with peaks
    latents = torch.randn(2, model.config.latent_dim, length)
    with torch.inference_mode():
        whole = model.decode(latents)
    assert whole.shape == (2, 1, 8 * length)
    torch.testing.assert_close(vocode.decode(model, latents), whole, rtol=0, atol=2e-5)


@pytest.mark.parametrize("decoder", DECODERS, ids=["spectral", "convolutions"])
@pytest.mark.parametrize("piece", [1, 7, 40])
def test_a_stream_is_the_same_however_the_frames_arrive(
    decoder: SpectralDecoderConfig | HifiganGeneratorConfig, piece: int
) -> None:
    model = codec(decoder)
    latents = torch.randn(1, model.config.latent_dim, 163)
    first, lag = 2.0, 0.5
    at_once = list(vocode.stream_decode(model, [latents], first, lag))
    streamed = list(vocode.stream_decode(model, latents.split(piece, dim=-1), first, lag))
    assert [chunk.shape for chunk in streamed] == [chunk.shape for chunk in at_once]
    assert torch.equal(torch.cat(streamed, dim=-1), torch.cat(at_once, dim=-1))
    assert at_once[0].shape[-1] <= 8 * 15  # the first sound comes with the first window
    torch.testing.assert_close(torch.cat(at_once, dim=-1), vocode.decode(model, latents), rtol=0, atol=2e-5)


def test_phases_are_handed_from_window_to_window() -> None:
    model = codec(SPECTRAL)
    assert isinstance(model.decoder, SpectralDecoder)
    torch.nn.init.normal_(model.decoder.head.out.weight)  # magnitudes with peaks
    latents = torch.randn(1, model.config.latent_dim, 103)
    middle = 8 * 50  # a joint between windows of 5 s at 10 frames a second
    with torch.inference_mode():
        whole, second = model.decode(latents), model.decode(latents[..., 20:])  # with all that the frames see
    apart = (whole[..., middle + 80 :] - second[..., middle + 80 - 160 :]).abs().max()
    assert apart > 100 * (whole - vocode.decode(model, latents)).abs().max()


def test_a_tokenizer_in_windows_equals_the_whole() -> None:
    torch.manual_seed(0)
    book = CodebookConfig(size=16, dim=4)
    config = TokenizerConfig(
        sample_rate=80, hop_length=8, latent_dim=4, codebook=book, encoder=ENCODER, decoder=SPECTRAL
    )
    model = Tokenizer(config).eval()
    codes = torch.randint(16, (1, 120))
    with torch.inference_mode():
        whole = model.decode(codes)
    torch.testing.assert_close(vocode.decode(model, codes), whole, rtol=0, atol=2e-5)
