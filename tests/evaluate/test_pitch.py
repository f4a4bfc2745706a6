import math

import numpy as np
import pytest

from longplay.evaluate.pitch import pitch_kept, pitch_stretches

RATE = 24_000
TIME = np.arange(3 * RATE) / RATE


def kept(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    return pitch_kept(pitch_stretches(reference, rate), pitch_stretches(estimate, rate))


def chord(*notes: int, detune: float = 0.0) -> np.ndarray:
    """Notes (MIDI) with four partials each."""
    partials = ((440 * 2 ** ((note + detune - 69) / 12) * n, 1 / n) for note in notes for n in range(1, 5))
    return (0.1 * sum(a * np.sin(2 * np.pi * f * TIME) for f, a in partials)).astype(np.float32)


def test_the_same_is_one_at_any_loudness() -> None:
    assert kept(chord(60, 64, 67), 0.1 * chord(60, 64, 67), RATE) == pytest.approx(1, abs=0.01)


def test_an_octave_is_near_a_tone_is_far_and_noise_is_neither() -> None:
    music = chord(60, 64, 67)
    octave, tone = kept(music, chord(72, 76, 79), RATE), kept(music, chord(62, 66, 69), RATE)
    noise = kept(music, np.random.default_rng(0).normal(0, 0.1, len(music)).astype(np.float32), RATE)
    assert octave > 0.9
    assert tone < 0
    assert abs(noise) < 0.35
    half_right = np.where(TIME < 1.5, music, chord(62, 66, 69))
    assert tone < kept(music, half_right, RATE) < 0.9


def test_silence_is_not_counted_and_keeps_nothing() -> None:
    music = chord(60, 64, 67)
    assert math.isnan(kept(np.zeros_like(music), music, RATE))
    assert kept(music, np.zeros_like(music), RATE) == 0
    assert kept(np.where(TIME < 1.5, music, 0), music, RATE) > 0.9
