import numpy as np
import pytest

from longplay.evaluate.artifacts import hum, silence

RATE = 24000


def noise(seconds: float = 4.0, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


@pytest.mark.parametrize("frame_rate", [75.0, 150.0])
def test_noise_does_not_hum_and_a_frame_again_and_again_does(frame_rate: float) -> None:
    again = np.resize(noise(1 / frame_rate), 4 * RATE)
    clean = [noise(seed=seed) for seed in range(3)]
    assert hum(clean, RATE, frame_rate) < 3
    assert hum([again], RATE, frame_rate) > 30
    assert hum([again, *clean], RATE, frame_rate) < 3, "the median of the clips"
    assert hum([noise() + 0.3 * again], RATE, frame_rate) > 7


def test_a_hum_at_another_rate_is_not_meant() -> None:
    assert hum([noise() + np.resize(noise(1 / 160), 4 * RATE)], RATE, 150.0) < 4


def test_silence_hums_not() -> None:
    assert hum([np.zeros(2 * RATE, np.float32)], RATE, 150.0) == pytest.approx(0)


def test_short_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="needs clips of 1.4 s"):
        hum([noise(1.0)], RATE, 150.0)


def test_silent_seconds_are_counted() -> None:
    half = np.concatenate([np.zeros(2 * RATE, np.float32), noise(2.0)])
    assert silence([half], RATE) == 0.5
    assert silence([half, noise()], RATE) == 0.25
    assert silence([np.full(RATE, 0.0005, np.float32)], RATE) == 1
