"""Spectra to sound: the inverse STFT in one go and piece by piece, and phases that follow from magnitudes."""

import pytest
import torch
from torch import Tensor

from longplay.nn.istft import OverlapAdd, PhaseLockedHead, Synthesis, istft, stft

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


@pytest.mark.parametrize("cuts", [[1, 1, 1, 17], [20], [3, 17], [19, 1]])
def test_overlap_add_piece_by_piece_equals_the_inverse_at_once(cuts: list[int]) -> None:
    window = torch.hann_window(40)
    spectrum = torch.randn(2, 21, 20, dtype=torch.complex64)
    overlap = OverlapAdd(window, HOP)
    pieces = [overlap.push(part) for part in spectrum.split(cuts, dim=-1)]
    made = torch.cat([*pieces, overlap.finish()], dim=-1)
    torch.testing.assert_close(made, istft(spectrum, window, HOP), rtol=1e-6, atol=1e-6)


def head(n_fft: int = 64) -> PhaseLockedHead:
    torch.manual_seed(0)
    return PhaseLockedHead(12, n_fft, HOP).eval()


def resynthesis(wav: Tensor, n_fft: int) -> Tensor:
    """A signal [B, S] from its own magnitudes alone."""
    bins = n_fft // 2 + 1
    module = PhaseLockedHead(bins, n_fft, HOP)
    with torch.no_grad():
        module.out.weight.copy_(torch.eye(bins))
        module.out.bias.zero_()
        logarithm = stft(wav, module.window, HOP).abs().clamp_min(1e-7).log()
        made: Tensor = module(logarithm.mT)
    return made


@pytest.mark.parametrize("cuts", [[1] * 9, [9], [4, 5]])
def test_synthesis_piece_by_piece_equals_the_head_at_once(cuts: list[int]) -> None:
    module, features = head(), torch.randn(2, 9, 12)
    synthesis = Synthesis(module)
    with torch.inference_mode():
        pieces = [synthesis.push(part) for part in module.frames(features).split(cuts, dim=-1)]
        made = torch.cat([*pieces, synthesis.finish()], dim=-1)
        torch.testing.assert_close(made, module(features), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hertz", [440.0, 1013.0, 2500.0])
def test_a_steady_tone_comes_back_from_its_magnitudes_without_a_hum_at_the_frame_rate(hertz: float) -> None:
    rate, length = 8000, 16000
    wav = resynthesis(0.5 * torch.sin(2 * torch.pi * hertz / rate * torch.arange(length)).unsqueeze(0), 256)
    inner = wav[0, 2000:-2000] * torch.hann_window(length - 4000)
    power = torch.fft.rfft(inner).abs().square()
    found = float(power.argmax()) * rate / len(inner)
    assert abs(found - hertz) < 2
    around = round(found * len(inner) / rate)
    away = power.clone()
    away[around - 10 : around + 11] = 0
    assert away.max() < 1e-3 * power.max()
    assert 0.4 < wav[0, 2000:-2000].abs().max() < 0.6


def test_a_click_stays_where_it_is() -> None:
    wav = torch.zeros(1, 4000)
    wav[0, 2003] = 1.0
    made = resynthesis(wav, 256)[0].square()
    assert made[1990:2016].sum() > 0.5 * made.sum()


def test_two_tones_and_a_click_are_nearer_than_with_any_other_phase() -> None:
    time = torch.arange(16000) / 8000
    wav = (0.3 * torch.sin(2 * torch.pi * 330 * time) + 0.3 * torch.sin(2 * torch.pi * 1200 * time)).unsqueeze(0)
    wav[0, 8000] += 1.0
    window = torch.hann_window(256)
    target = stft(wav, window, HOP).abs()

    def error(made: Tensor) -> float:
        return float((stft(made, window, HOP).abs() - target).norm() / target.norm())

    phase = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) * 2 * torch.pi
    assert error(resynthesis(wav, 256)) < 0.2 * error(istft(torch.polar(target, phase), window, HOP))


def test_smooth_noise_does_not_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    bins = 129
    module = PhaseLockedHead(bins, 256, HOP)

    def stands_out() -> float:
        with torch.no_grad():
            wav = module(torch.zeros(1, 4000, bins))[0]
        window = torch.hann_window(4096)
        power = torch.stft(wav, 4096, 1024, window=window, return_complex=True).abs().square().mean(1)[100:-100]
        return float(power.max() / power.median())

    with torch.no_grad():
        module.out.weight.zero_()
        module.out.bias.copy_(0.1 * torch.sin(torch.arange(bins).float()))  # a ripple of less than 1 dB
    noise = stands_out()
    monkeypatch.setattr("longplay.nn.istft.STRAY", 0.0)
    assert 100 * noise < stands_out()


def test_gradients_reach_the_magnitudes() -> None:
    module = head()
    module(torch.randn(2, 6, 12)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_magnitudes_cannot_run_away() -> None:
    module = head()
    with torch.no_grad():
        module.out.bias.fill_(1000.0)
    assert module(torch.randn(1, 5, 12)).isfinite().all()
