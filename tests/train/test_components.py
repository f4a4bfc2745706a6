import pytest
import torch
from torch import Tensor

from longplay.models.codec import Codec, CodecConfig
from longplay.nn.quantizers import CodebookConfig, GroupResidualConfig
from longplay.nn.spectral import (
    ComponentsEncoder,
    ComponentsEncoderConfig,
    SpectralDecoderConfig,
    SpectralEncoderConfig,
)
from longplay.train.components import BATCH_SIZE, BATCHES, SEED, start_from_components

BINS = 33


ENCODERS = {
    "components": ComponentsEncoderConfig(n_fft=64, floor=1e-3),
    "shortcut": SpectralEncoderConfig(
        n_fft=64, dim=12, intermediate_dim=16, num_layers=1, phase=False, floor=1e-3, shortcut=True
    ),
}


def codec(encoder: str, shortcut: bool = True) -> Codec:
    torch.manual_seed(0)
    return Codec(
        CodecConfig(
            sample_rate=8000,
            hop_length=16,
            quantizer=GroupResidualConfig(codebook=CodebookConfig(size=16, dim=4)),
            encoder=ENCODERS[encoder],
            decoder=SpectralDecoderConfig(n_fft=64, dim=12, intermediate_dim=16, num_layers=1, shortcut=shortcut),
        )
    ).eval()


def few_sounds(seed: int, index: int, size: int) -> Tensor:
    """Noise through four fixed filters, each as loud as it happens to be."""
    draw = torch.Generator().manual_seed(seed % 1000 + index)
    filters = torch.randn(4, 1, 31, generator=torch.Generator().manual_seed(7))
    noise = torch.nn.functional.conv1d(torch.randn(size, 1, 1600, generator=draw), filters, padding=15)
    levels = torch.exp(2 * torch.randn(size, 4, 1, generator=draw))
    return 0.01 * (noise * levels).sum(1, keepdim=True)


def logarithm(model: Codec, wav: Tensor) -> Tensor:
    encoder = model.encoder
    return encoder.logarithm(wav) if isinstance(encoder, ComponentsEncoder) else encoder.features(wav)[0]


def error(model: Codec, wav: Tensor, weight: Tensor) -> float:
    """Weighted variance of the log-magnitudes that the latents do not explain."""
    with torch.no_grad():
        made = model.decoder.head._logarithm(model.decoder._features(model.encoder(wav)))
        real = logarithm(model, wav)
    errors, spread = (
        (x.square() * weight.view(1, -1, 1)).mean() for x in (made - real, real - real.mean((0, 2), True))
    )
    return float(errors / spread)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_it_starts_as_the_best_linear_autoencoder(encoder: str) -> None:
    model, weight = codec(encoder), 1 / (torch.arange(BINS) + 3.0)
    start_from_components(model, few_sounds, weight)
    wav = few_sounds(5, 0, 16)
    found = error(model, wav, weight)
    real = logarithm(model, wav).transpose(0, 1).flatten(1)
    scaled = (real - real.mean(1, keepdim=True)) * weight.sqrt().unsqueeze(1)
    values = torch.linalg.eigvalsh(scaled @ scaled.T)
    best = float(values[: BINS - 8].sum() / values.sum())  # of these very sounds: nothing linear can do better
    assert best <= found < 1.1 * best


def test_latents_have_one_scale_and_groups_their_share() -> None:
    model = codec("components")
    start_from_components(model, few_sounds, torch.ones(BINS))
    wav = torch.cat([few_sounds(SEED, index, BATCH_SIZE) for index in range(BATCHES)])
    latents = model.encoder(wav).detach().transpose(0, 1).flatten(1)
    variance = latents.var(1)
    assert float(variance.mean()) == pytest.approx(1, abs=1e-3)
    in_turn = variance.view(2, 4).T.flatten()
    assert (in_turn[1:] < in_turn[:-1] + 1e-4).all(), "the components go to the groups in turn, largest first"
    assert in_turn[0] > 5 * in_turn[-1]
    correlation = torch.corrcoef(latents) - torch.eye(8)
    assert correlation.abs().max() < 1e-3, "principal components do not correlate"


def test_a_decoder_without_shortcut_keeps_its_weights() -> None:
    model, same = codec("components", False), codec("components", False)
    start_from_components(model, few_sounds, torch.ones(BINS))
    torch.testing.assert_close(model.state_dict(), same.state_dict())
