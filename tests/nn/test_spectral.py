import torch

from longplay.nn.spectral import (
    SpectralDecoder,
    SpectralDecoderConfig,
    SpectralEncoder,
    SpectralEncoderConfig,
)

HOP = 8


def encoder() -> SpectralEncoder:
    torch.manual_seed(0)
    config = SpectralEncoderConfig(n_fft=32, dim=12, intermediate_dim=16, num_layers=2)
    return SpectralEncoder(config, HOP, latent_dim=6).eval()


def decoder() -> SpectralDecoder:
    torch.manual_seed(0)
    config = SpectralDecoderConfig(n_fft=32, dim=12, intermediate_dim=16, num_layers=2)
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


def test_the_encoder_sees_no_further_than_its_receptive_field() -> None:
    module = encoder()
    wav = torch.randn(1, 1, 100 * HOP)
    changed = wav.clone()
    changed[..., 50 * HOP : 51 * HOP] += 1.0
    moved = (module(wav) - module(changed)).abs().amax((0, 1)) > 0
    frames = torch.nonzero(moved).squeeze(1)
    assert frames.min() >= 50 - module.receptive_field
    assert frames.max() <= 50 + module.receptive_field


def test_the_decoder_sees_no_further_than_its_receptive_field() -> None:
    module = decoder()
    latents = torch.randn(1, 6, 100)
    changed = latents.clone()
    changed[..., 50] += 1.0
    moved = (module.frames(latents) - module.frames(changed)).abs().amax((0, 1)) > 0
    frames = torch.nonzero(moved).squeeze(1)
    assert frames.min() >= 50 - module.receptive_field
    assert frames.max() <= 50 + module.receptive_field
    assert frames.max() - frames.min() >= module.receptive_field, "a receptive field that is far too wide wastes work"
