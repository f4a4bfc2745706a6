import pytest
import torch

from longplay.nn.spectral import (
    SpectralDecoder,
    SpectralDecoderConfig,
    SpectralEncoder,
    SpectralEncoderConfig,
    istft,
    stft,
)

HOP = 8


@pytest.mark.parametrize("n_fft", [16, 32, 40])
@pytest.mark.parametrize("samples", [80, 83, 5])
def test_istft_inverts_stft(n_fft: int, samples: int) -> None:
    wav = torch.randn(2, samples)
    window = torch.hann_window(n_fft)
    spectrum = stft(wav, window, HOP)
    frames = -(-samples // HOP)
    assert spectrum.shape == (2, n_fft // 2 + 1, frames)
    made = istft(spectrum, window, HOP)
    assert made.shape == (2, frames * HOP)
    inner = slice(HOP, (samples // HOP - 1) * HOP)  # at the very ends the window of "same" framing is near zero
    torch.testing.assert_close(made[:, inner], wav[:, inner], atol=1e-4, rtol=1e-4)


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
    moved = (module(latents) - module(changed)).abs()[0, 0].reshape(100, HOP).amax(1) > 0
    frames = torch.nonzero(moved).squeeze(1)
    assert frames.min() >= 50 - module.receptive_field
    assert frames.max() <= 50 + module.receptive_field
    assert frames.max() - frames.min() >= module.receptive_field, "a receptive field that is far too wide wastes work"
