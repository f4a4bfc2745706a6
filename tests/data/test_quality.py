import numpy as np
import pytest

from longplay.data.quality import Quality, flags, inspect

RATE = 48000


def noise(seconds: float = 4, level: float = 0.05, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, (2, int(seconds * RATE))).astype(np.float32)


def test_a_clean_recording_raises_no_flag() -> None:
    quality = inspect(noise(), RATE)
    assert (quality.seconds, quality.sample_rate, quality.channels) == (4, RATE, 2)
    assert flags(quality) == []


def test_clipping_is_the_share_of_samples_held_at_the_maximum() -> None:
    time = np.arange(2 * RATE) / RATE
    sine = 1.5 * np.sin(2 * np.pi * 200 * time).astype(np.float32)[None]
    quality = inspect(np.clip(sine, -1, 1), RATE)
    assert quality.clipped == pytest.approx((np.abs(sine) >= 1).mean(), rel=0.02)
    assert "clipping" in flags(quality)
    assert inspect(np.clip(sine, -1, 1) * np.float32(0.99), RATE).clipped == quality.clipped
    assert inspect(sine / 1.5, RATE).clipped < 0.02  # a sine at full scale: its tops are flat for a few samples
    assert inspect(np.clip(sine, -1, 1) * np.float32(0.5), RATE).clipped == 0


def test_dropouts_are_gaps_torn_into_sound_and_not_rests() -> None:
    wav = noise(8)
    for second in (1, 3, 5):
        wav[:, second * RATE : second * RATE + 480] = 0
    wav[:, 7 * RATE - 48 : 7 * RATE] = 0  # 1 ms: too short
    assert inspect(wav, RATE).dropouts == pytest.approx(3 / 8 * 60, abs=0.01)
    rests = noise(8)
    for second in (1, 3, 5):  # a note that fades, and a rest
        rests[:, second * RATE - RATE // 2 : second * RATE] *= np.geomspace(1, 1e-4, RATE // 2, dtype=np.float32)
        rests[:, second * RATE : second * RATE + 4800] = 0
    assert inspect(rests, RATE).dropouts == 0


def test_channels_that_are_the_same_or_cancel_are_flagged() -> None:
    wav = noise()
    assert "mono as stereo" in flags(inspect(np.stack([wav[0], wav[0]]), RATE))
    assert "out of phase" in flags(inspect(np.stack([wav[0], -0.9 * wav[0]]), RATE))
    assert inspect(wav[:1], RATE).side is None


def test_silence_level_and_offset() -> None:
    wav = noise()
    wav[:, RATE:] = 0
    assert inspect(wav, RATE).silent == pytest.approx(0.75, abs=0.02)
    assert flags(inspect(wav, RATE)) == ["silence"]
    assert "quiet" in flags(inspect(noise(level=2e-3), RATE))
    assert flags(inspect(noise() + np.float32(0.05), RATE)) == ["offset"]


def test_the_band_ends_where_a_low_pass_cut_it() -> None:
    wav = noise()
    spectrum = np.fft.rfft(wav)
    spectrum[:, int(spectrum.shape[1] * 11 / 24) :] = 0
    quality = inspect(np.fft.irfft(spectrum).astype(np.float32), RATE)
    assert quality.bandwidth == pytest.approx(11000, abs=150)
    assert flags(quality) == ["narrow band"]
    assert inspect(wav, RATE).bandwidth == pytest.approx(24000, abs=50)


@pytest.mark.parametrize("samples", [1, 100, 3000])
def test_the_shortest_files_and_digital_silence_are_measured(samples: int) -> None:
    quality = inspect(np.zeros((2, samples), np.float32), RATE)
    assert (quality.silent, quality.loudness, quality.side, quality.bandwidth) == (1, None, None, 0)
    assert Quality.model_validate_json(quality.model_dump_json()) == quality
