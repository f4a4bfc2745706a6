import numpy as np
import pytest

from longplay.evaluate.artifacts import hum, silence, still

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


def test_seconds_in_which_nothing_begins_are_counted() -> None:
    seconds = np.arange(6 * RATE) / RATE
    tone = sum(np.sin(2 * np.pi * 110 * partial * seconds) / partial for partial in range(1, 40))
    tone = (0.1 * tone).astype(np.float32)
    struck = tone * np.exp(-4 * (seconds % 0.5)).astype(np.float32)
    assert still([tone], RATE) == 1
    assert still([np.zeros_like(tone)], RATE) == 1
    assert still([struck], RATE) == 0
    assert still([noise(6.0)], RATE) == 0
    assert still([np.concatenate([tone, struck])], RATE) == pytest.approx(0.5, abs=0.1)
    assert still([tone[: 3 * RATE], struck], RATE) == 0, "three seconds are a held note"
