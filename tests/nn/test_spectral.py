import pytest
import torch

from longplay.nn.spectral import (
    ComponentsEncoder,
    ComponentsEncoderConfig,
    SpectralDecoder,
    SpectralDecoderConfig,
    SpectralEncoder,
    SpectralEncoderConfig,
)

HOP = 8


def encoder(shortcut: bool = False) -> SpectralEncoder:
    torch.manual_seed(0)
    config = SpectralEncoderConfig(n_fft=32, dim=12, intermediate_dim=16, num_layers=2, shortcut=shortcut)
    return SpectralEncoder(config, HOP, latent_dim=6).eval()


def decoder(shortcut: bool = False) -> SpectralDecoder:
    torch.manual_seed(0)
    config = SpectralDecoderConfig(n_fft=32, dim=12, intermediate_dim=16, num_layers=2, shortcut=shortcut)
    return SpectralDecoder(config, HOP, latent_dim=6).eval()


def test_lengths() -> None:
    assert encoder()(torch.randn(2, 1, 81)).shape == (2, 6, 11)
    assert decoder()(torch.randn(2, 6, 11)).shape == (2, 1, 88)


def test_without_phase_the_latents_do_not_know_the_sign() -> None:
    config = SpectralEncoderConfig(n_fft=32, dim=12, intermediate_dim=16, num_layers=2, phase=False)
    module = SpectralEncoder(config, HOP, latent_dim=6)
    wav = torch.randn(1, 1, 80)
    torch.testing.assert_close(module(wav), module(-wav))
    assert (encoder()(wav) - encoder()(-wav)).abs().max() > 1e-3


def test_silence_is_finite() -> None:
    assert encoder()(torch.zeros(1, 1, 80)).isfinite().all()


@pytest.mark.parametrize("shortcut", [False, True])
def test_the_encoder_sees_no_further_than_its_receptive_field(shortcut: bool) -> None:
    module = encoder(shortcut)
    wav = torch.randn(1, 1, 100 * HOP)
    changed = wav.clone()
    changed[..., 50 * HOP : 51 * HOP] += 1.0
    moved = (module(wav) - module(changed)).abs().amax((0, 1)) > 0
    frames = torch.nonzero(moved).squeeze(1)
    assert frames.min() >= 50 - module.receptive_field
    assert frames.max() <= 50 + module.receptive_field


@pytest.mark.parametrize("shortcut", [False, True])
def test_the_decoder_sees_no_further_than_its_receptive_field(shortcut: bool) -> None:
    module = decoder(shortcut)
    latents = torch.randn(1, 6, 100)
    changed = latents.clone()
    changed[..., 50] += 1.0
    moved = (module.frames(latents) - module.frames(changed)).abs().amax((0, 1)) > 0
    frames = torch.nonzero(moved).squeeze(1)
    assert frames.min() >= 50 - module.receptive_field
    assert frames.max() <= 50 + module.receptive_field
    assert frames.max() - frames.min() >= module.receptive_field, "a receptive field that is far too wide wastes work"


def test_a_shortcut_carries_the_level_past_the_norms() -> None:
    module = encoder(shortcut=True)
    assert module.shortcut is not None
    torch.nn.init.zeros_(module.out.weight)
    wav = torch.randn(1, 1, 400)
    risen = module(10 * wav) - module(wav)
    expected = module.shortcut.weight.sum(1).view(1, -1, 1) * torch.tensor(10.0).log()
    torch.testing.assert_close(risen, expected.expand_as(risen), atol=1e-4, rtol=1e-4)


def test_an_encoder_without_shortcut_reads_the_tensors_it_always_had() -> None:
    assert not [name for name in encoder().state_dict() if "shortcut" in name]
    assert decoder().head.out.in_features == 12
    assert decoder(True).head.out.in_features == 12 + 6


def components() -> ComponentsEncoder:
    torch.manual_seed(0)
    return ComponentsEncoder(ComponentsEncoderConfig(n_fft=32, floor=0.1), 8000, HOP, latent_dim=6)


def test_an_encoder_of_components_is_linear_in_the_level_and_learns_nothing() -> None:
    module, wav = components(), 1000 * torch.randn(1, 1, 400)
    risen = module(10 * wav) - module(wav)
    expected = module.out.weight.sum(1).view(1, -1, 1) * torch.tensor(10.0).log()
    inside = slice(4, -4)  # the frames at the ends have zeros in them
    torch.testing.assert_close(risen[..., inside], expected.expand_as(risen)[..., inside], atol=1e-3, rtol=1e-3)
    assert not [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    assert module(wav).shape == (1, 6, 50)


def test_below_the_floor_which_falls_with_the_frequency_all_is_alike() -> None:
    module = components()
    time = torch.arange(400) / 8000
    low, high = (torch.sin(2 * torch.pi * hz * time).view(1, 1, -1) for hz in (500, 3500))
    silent = module(torch.zeros(1, 1, 400))[..., 10:40]
    level = 0.05 / 8  # a sine of level a has a magnitude of 8 a in a window of 32
    torch.testing.assert_close(module(level * low)[..., 10:40], silent)
    assert (module(level * high)[..., 10:40] - silent).abs().max() > 0.01


def test_the_encoder_of_components_sees_no_further_than_its_receptive_field() -> None:
    module, wav = components(), torch.randn(1, 1, 100 * HOP)
    changed = wav.clone()
    changed[..., 50 * HOP : 51 * HOP] += 1.0
    frames = torch.nonzero((module(wav) - module(changed)).abs().amax((0, 1)) > 0).squeeze(1)
    assert 50 - module.receptive_field <= frames.min() <= frames.max() <= 50 + module.receptive_field
