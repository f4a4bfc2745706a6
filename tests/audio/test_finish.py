"""Loudness, ceiling, fade and trim, each against what it promises."""

import numpy as np
import pytest

from longplay.audio import Audio, Finish
from longplay.audio.finish import PEAK, fade_out, fade_stream, measure, music_end

RATE = 24_000


def noise(seconds: float, level: float = 0.1, channels: int = 1) -> np.ndarray:
    made = np.random.default_rng(0).standard_normal((channels, int(seconds * RATE)))
    return (level * np.tanh(made)).astype(np.float32)


@pytest.mark.parametrize("level", [0.001, 0.3])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_loudness_asked_for_is_met(level: float, channels: int) -> None:
    made = Finish(loudness=-20, fade=0).apply(Audio(noise(4, level, channels), RATE))
    assert made.wav.shape[0] == 2
    assert measure([made.wav], RATE)[0] == pytest.approx(-20, abs=0.1)


def test_a_peak_of_minus_1_dbfs_wins_over_loudness() -> None:
    clicks = noise(4, 0.01)
    clicks[0, ::6000] = 0.9
    made = Finish(loudness=-8, fade=0).apply(Audio(clicks, RATE))
    assert measure([made.wav], RATE)[1] == pytest.approx(PEAK, rel=1e-3)
    assert measure([made.wav], RATE)[0] < -10


def test_peaks_between_the_samples_count() -> None:
    wave = np.sin(2 * np.pi * RATE / 4 * np.arange(RATE) / RATE + np.pi / 4)[None].astype(np.float32)
    assert np.abs(wave).max() == pytest.approx(0.707, abs=1e-3)
    assert measure([wave], RATE)[1] == pytest.approx(1, abs=0.02)


def test_without_loudness_the_level_stays() -> None:
    for wav in (noise(1, 0.2, 2), noise(1, 3.0, 2)):
        assert np.array_equal(Finish(loudness=None, fade=0).apply(Audio(wav, RATE)).wav, wav)


def test_a_protected_start_is_neither_trimmed_nor_faded() -> None:
    piece = np.concatenate([noise(2), np.zeros((1, 2 * RATE), np.float32), noise(2)], axis=1)
    settings = Finish(loudness=None, trim=True, fade=3)
    assert settings.apply(Audio(piece, RATE)).seconds == pytest.approx(2, abs=0.01)
    made = settings.apply(Audio(piece, RATE), protect=5)
    assert made.wav.shape[1] == 6 * RATE
    assert np.array_equal(made.wav[:, : 5 * RATE], np.repeat(piece[:, : 5 * RATE], 2, axis=0))
    assert abs(made.wav[0, -1]) < 1e-6


@pytest.mark.parametrize("size", [100, RATE, 10 * RATE])
@pytest.mark.parametrize("seconds", [0.0, 1.0, 9.0])
def test_a_streamed_fade_equals_a_whole_one(size: int, seconds: float) -> None:
    piece = noise(3, channels=2)
    chunks = [piece[:, start : start + size] for start in range(0, piece.shape[1], size)]
    made = np.concatenate(list(fade_stream(chunks, RATE, seconds)), axis=1)
    assert np.array_equal(made, fade_out(piece, RATE, seconds))


@pytest.mark.parametrize("wav", [np.zeros((1, RATE)), noise(0.1), np.full((1, 1), 0.5)])
def test_silence_and_very_short_audio_pass(wav: np.ndarray) -> None:
    made = Finish().apply(Audio(wav, RATE))
    assert np.isfinite(made.wav).all()
    assert made.peak <= PEAK * 1.001


def test_silence_is_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    Finish().apply(Audio(0.0001 * noise(2), RATE))
    assert "the piece is silent" in caplog.text
    caplog.clear()
    Finish().apply(Audio(noise(2), RATE))
    assert not caplog.text


def test_the_fade_is_the_published_line() -> None:
    made = fade_out(np.ones((2, 3 * RATE), np.float32), RATE, 1.0)
    assert np.all(made[:, : 2 * RATE] == 1)
    np.testing.assert_allclose(made[0, 2 * RATE :], np.linspace(1, 0, RATE), atol=1e-6)
    np.testing.assert_allclose(fade_out(np.ones((1, 5), np.float32), RATE, 1.0)[0], [1, 0.75, 0.5, 0.25, 0])


def test_trim_cuts_where_the_music_ends() -> None:
    def piece(*parts: tuple[float, float]) -> np.ndarray:
        return np.concatenate([noise(seconds, level) for seconds, level in parts], axis=1)

    ended = piece((3, 0.5), (1, 0.001), (1, 0.5))
    end = music_end([ended], RATE)
    assert end == pytest.approx(3 * RATE, abs=20)
    assert music_end([np.repeat(ended, 2, axis=0)], RATE) == end
    for size in (777, RATE, 2 * RATE):
        assert music_end([ended[:, start : start + size] for start in range(0, ended.shape[1], size)], RATE) == end
    for kept in (piece((3, 0.5), (0.7, 0.001), (1, 0.5)), piece((3, 0.5), (1, 0.03), (1, 0.5)), piece((2, 0.5))):
        assert music_end([kept], RATE) == kept.shape[1]  # a short pause, a quiet passage, no pause
    assert music_end([piece((0.2, 0.5), (3, 0.0))], RATE) == RATE  # never within the first second


def test_the_recipe_tells_the_settings() -> None:
    made = Finish(loudness=-16, trim=True).apply(Audio(noise(2), RATE, {"task": "generate"}))
    assert made.recipe == {"task": "generate", "finish": {"loudness": -16.0, "fade": 1.0, "trim": True}}


@pytest.mark.parametrize("size", [999, RATE, 2 * RATE + 1])
def test_a_piece_in_blocks_is_finished_as_a_whole_one(size: int) -> None:
    piece = np.concatenate([noise(3, 0.3, 2), np.zeros((2, RATE), np.float32), noise(1, channels=2)], axis=1)
    blocks = [piece[:, start : start + size] for start in range(0, piece.shape[1], size)]
    for settings in (Finish(trim=True), Finish(fade=2.5), Finish(loudness=None)):
        whole = settings.apply(Audio(piece, RATE)).wav
        made = np.concatenate(list(settings.finished(blocks, RATE)), axis=1)
        np.testing.assert_allclose(made, whole, rtol=1e-5, atol=1e-7)
