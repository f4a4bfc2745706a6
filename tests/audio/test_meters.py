"""Meters in blocks against the standard's reference implementation, and against the whole."""

import numpy as np
import pyloudnorm
import pytest

from longplay.audio.meters import LoudnessMeter, PeakMeter


def music(rate: int, channels: int) -> np.ndarray:
    """5 s with a loud and a quiet part, so that both gates act."""
    rng = np.random.default_rng(0)
    level = np.repeat([0.3, 0.001, 0.00001, 0.2, 0.02], rate)
    return (level * rng.standard_normal((channels, 5 * rate))).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("rate", [24_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("size", [1_000, 10**6])
def test_loudness_is_that_of_pyloudnorm(rate: int, channels: int, size: int) -> None:
    wav, meter = music(rate, channels), LoudnessMeter(rate, channels)
    for start in range(0, wav.shape[1], size):
        meter.add(wav[:, start : start + size])
    expected = pyloudnorm.Meter(rate).integrated_loudness(wav.T.astype(np.float64))
    assert meter.value == pytest.approx(expected, abs=0.005)


def test_silence_and_moments_have_no_loudness() -> None:
    for wav in (np.zeros((1, 48_000)), np.ones((1, 10_000))):
        meter = LoudnessMeter(48_000, 1)
        meter.add(wav.astype(np.float32))
        assert meter.value == -np.inf


def test_the_true_peak_does_not_depend_on_the_blocks() -> None:
    wave = np.sin(np.pi / 2 * np.arange(24_000) + np.pi / 4)[None].astype(np.float32)
    peaks = []
    for size in (100, 7_777, 24_000):
        meter = PeakMeter(24_000, 1)
        for start in range(0, 24_000, size):
            meter.add(wave[:, start : start + size])
        peaks.append(meter.end())
    assert peaks[0] == pytest.approx(1, abs=0.02)
    assert peaks == pytest.approx([peaks[0]] * 3, abs=1e-6)
