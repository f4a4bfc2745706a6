"""Super-resolution: the recording's band stays, the rest is the model's at a fitting level."""

import numpy as np
import pytest

from longplay import Audio
from longplay.pipeline.highs import add_highs

RATE = 48_000


def tone(pitch: float, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * pitch * np.arange(2 * rate) / rate)[None]


def level(audio: Audio, pitch: float) -> float:
    middle = audio.wav[0, RATE // 2 : -RATE // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) / len(middle) * 4
    return float(spectrum[round(pitch * len(middle) / RATE) + np.arange(-2, 3)].max())


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000])
def test_bands_meet(rate: int) -> None:
    recording = Audio(0.4 * tone(1_000, rate), rate)
    made = Audio(0.1 * tone(1_500) + 0.05 * tone(15_000), RATE)
    result = add_highs(recording, made)
    assert (result.sample_rate, result.wav.shape) == (RATE, (1, 2 * RATE))
    assert level(result, 1_000) == pytest.approx(0.4, rel=0.01)
    assert level(result, 1_500) < 0.002  # the model's version of what is there already
    assert level(result, 15_000) == pytest.approx(4 * 0.05, rel=0.02)  # four times louder, as the recording is


def test_a_wrong_level_is_never_raised_without_bound() -> None:
    result = add_highs(Audio(0.4 * tone(1_000, 24_000), 24_000), Audio(0.01 * tone(15_000), RATE))
    assert level(result, 15_000) <= 0.041


def test_a_silent_channel_stays_silent() -> None:
    recording = Audio(np.concatenate([tone(500, 24_000), np.zeros((1, 48_000))]), 24_000)
    result = add_highs(recording, Audio(np.repeat(tone(900) + tone(15_000), 2, axis=0), RATE))
    assert np.abs(result.wav[1]).max() == 0
