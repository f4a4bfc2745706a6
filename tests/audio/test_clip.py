"""`Audio`: its checks, mono, resampling."""

import numpy as np
import pytest

from longplay.audio import Audio
from longplay.audio.resample import resample, resample_stream
from longplay.errors import AudioError


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (np.zeros(5), r"shape \[5\]: expected \[channels, samples\]"),
        (np.zeros((1, 0)), r"shape \[1, 0\]"),
        (np.full((1, 4), np.nan), "NaN or infinite"),
        (np.full((1, 4), np.inf), "NaN or infinite"),
    ],
)
def test_bad_samples_are_refused(wav: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        Audio(wav, 24_000)


def test_silence_is_known() -> None:
    assert Audio(np.full((1, 9), 5e-5), 8000).silent
    assert not Audio(np.full((1, 9), 5e-4), 8000).silent


def test_mono_is_the_mean_unless_the_channels_cancel() -> None:
    left = np.sin(np.arange(1000) / 9)
    assert np.allclose(Audio(np.stack([left, 0.5 * left]), 8000).mono(), 0.75 * left, atol=1e-6)
    assert np.allclose(Audio(np.stack([left, -left]), 8000).mono(), left, atol=1e-6)


@pytest.mark.parametrize(("source", "target"), [(44_100, 48_000), (48_000, 24_000), (8_000, 24_000), (22_050, 22_050)])
def test_resampling_keeps_pitch_level_and_duration(source: int, target: int) -> None:
    def tone(rate: int) -> np.ndarray:
        return 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)[None]

    made = Audio(tone(source), source, {"task": "x"}).resample(target)
    assert (made.sample_rate, made.wav.shape, made.recipe) == (target, (1, target), {"task": "x"})
    middle = slice(target // 4, -target // 4)
    assert np.allclose(made.wav[:, middle], tone(target)[:, middle], atol=1e-3)


@pytest.mark.parametrize("size", [1, 777, 24_000])
@pytest.mark.parametrize("target", [24_000, 44_100])
def test_streamed_resampling_equals_whole(size: int, target: int) -> None:
    wav = np.random.default_rng(0).standard_normal((1, 9_000)).astype(np.float32)
    chunks = [wav[:, start : start + size] for start in range(0, 9_000, size)]
    made = np.concatenate(list(resample_stream(chunks, 24_000, target)), axis=1)
    whole = resample(wav, 24_000, target)
    assert abs(made.shape[1] - whole.shape[1]) <= 1
    shared = min(made.shape[1], whole.shape[1])
    np.testing.assert_allclose(made[:, :shared], whole[:, :shared], atol=2e-4)
