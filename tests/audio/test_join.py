"""The join: no jump, the tone goes on, and prediction never grows."""

import numpy as np
import pytest

from longplay.audio.join import OVERLAP_SECONDS, lead_in, predict

RATE = 48_000


def tone(start: int, count: int, frequency: float = 330, phase: float = 0.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(start, start + count) / RATE + phase)).astype(np.float32)


def test_a_tone_is_predicted() -> None:
    np.testing.assert_allclose(predict(tone(0, 4800).astype(np.float64), 720), tone(4800, 720), atol=0.01)


@pytest.mark.parametrize("phase", [0.0, 1.5, 3.1])
@pytest.mark.parametrize("frequency", [60.0, 330.0, 5000.0])
def test_the_join_jumps_no_more_than_its_neighbours(frequency: float, phase: float) -> None:
    before, after = tone(0, RATE, frequency)[None], tone(RATE, RATE, frequency, phase)[None]
    piece = np.concatenate([before, lead_in(before, after, RATE)], axis=1)[0]
    near = np.abs(np.diff(piece[RATE - 2000 : RATE + 2000])).max()
    assert near <= 1.5 * np.abs(np.diff(before)).max()
    count = round(OVERLAP_SECONDS * RATE)
    assert np.array_equal(piece[RATE + count :], after[0, count:])


def test_without_lead_in_the_same_join_would_click() -> None:
    before, after = tone(0, RATE)[None], tone(RATE, RATE, phase=1.5)[None]
    assert np.abs(np.diff(np.concatenate([before, after], axis=1))).max() > 10 * np.abs(np.diff(before)).max()


@pytest.mark.parametrize("before", [np.zeros((2, 9000)), np.ones((1, 9000)), np.full((1, 3), 0.2)])
def test_silence_constants_and_very_short_recordings_are_prolonged(before: np.ndarray) -> None:
    after = 0.1 * np.random.default_rng(0).standard_normal((before.shape[0], 4000)).astype(np.float32)
    made = lead_in(before.astype(np.float32), after, RATE)
    assert made.shape == after.shape
    assert np.abs(made).max() < 1.5


def test_noise_is_prolonged_stably() -> None:
    made = predict(np.random.default_rng(0).standard_normal(4800), 48_000)
    assert np.abs(made).max() < 5
    assert np.abs(made[-1000:]).max() < 0.1
