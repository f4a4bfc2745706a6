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


def sine(hertz: float, level: float = 1.0) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(2 * RATE) / RATE)).astype(np.float32)[None]


@pytest.mark.parametrize("gain", [1.0, 0.99, 0.7, 0.2])
@pytest.mark.parametrize("hertz", [60, 200, 3000])
def test_clipping_is_the_share_of_samples_held_at_the_maximum(hertz: float, gain: float) -> None:
    loud = sine(hertz, 1.5)
    quality = inspect(as_16_bits(gain * np.clip(loud, -1, 1)), RATE)
    assert quality.clipped == pytest.approx((np.abs(loud) >= 1).mean(), rel=0.05)
    assert flags(quality) == ["clipping"]


def test_what_is_clipped_in_one_channel_or_direction_is_clipped() -> None:
    wav = noise(2)
    wav[1] = 0.1 * np.maximum(sine(200, 1.5)[0], -1)
    assert "clipping" in flags(inspect(wav, RATE))


@pytest.mark.parametrize("level", [1.0, 0.3, 0.01, 1e-4])
def test_tops_that_are_round_or_drawn_flat_are_not_clipped(level: float) -> None:
    steps = np.sign(sine(200)) + 0.5 * np.sign(sine(330))
    for wav in (sine(40), sine(200), sine(3000), steps / 1.5, np.sign(sine(100)), noise()[:1] * 4):
        assert inspect(as_16_bits(level * np.clip(wav, -1, 1)), RATE).clipped == 0


def as_16_bits(wav: np.ndarray) -> np.ndarray:
    """Dithered, as a file has it."""
    dither = np.random.default_rng(1).uniform(-0.5, 0.5, wav.shape)
    return (np.clip(np.round(wav * 32768 + dither), -32768, 32767) / 32768).astype(np.float32)


def test_dropouts_are_gaps_torn_into_sound_and_not_rests() -> None:
    wav = noise(8)
    for second in (1, 3, 5):
        wav[:, second * RATE : second * RATE + 480] = 0
    wav[:, 7 * RATE - 48 : 7 * RATE] = 0  # 1 ms: too short
    assert inspect(wav, RATE).dropouts == pytest.approx(3 / 8 * 60, abs=0.01)
    assert inspect(as_16_bits(wav), RATE).dropouts == inspect(wav, RATE).dropouts
    one_side = noise(8)
    one_side[1] = wav[1]
    one_side[0, RATE + 240 : RATE + 720] = 0  # overlaps with one in the other channel
    assert inspect(one_side, RATE).dropouts == inspect(wav, RATE).dropouts
    rests = noise(8)
    for second in (1, 3, 5):  # a note that fades, and a rest
        rests[:, second * RATE - RATE // 2 : second * RATE] *= np.geomspace(1, 1e-4, RATE // 2, dtype=np.float32)
        rests[:, second * RATE : second * RATE + 4800] = 0
    assert inspect(rests, RATE).dropouts == 0


def test_channels_that_are_the_same_or_cancel_are_flagged() -> None:
    wav = noise()[0]
    for level in (1, 0.5):
        assert flags(inspect(as_16_bits(np.stack([wav, level * wav])), RATE)) == ["mono as stereo"]
    assert "out of phase" in flags(inspect(np.stack([wav, -0.9 * wav]), RATE))
    nearly = inspect(np.stack([wav, wav + 0.01 * noise()[1]]), RATE)
    assert nearly.width == pytest.approx(nearly.side, abs=0.1)
    assert nearly.width == pytest.approx(20 * np.log10(0.01 / 2), abs=0.1)
    alone = inspect(wav[None], RATE)
    assert (alone.side, alone.width, alone.balance) == (None, None, None)


def test_a_dead_channel_is_flagged_and_a_quiet_one_is_not() -> None:
    left, right = noise()
    for dead in (0 * right, 1e-5 * right):
        assert flags(inspect(np.stack([left, dead]), RATE)) == ["one channel"]
        assert flags(inspect(as_16_bits(np.stack([dead, left])), RATE)) == ["one channel"]
    quiet = inspect(np.stack([left, 0.01 * right]), RATE)
    assert quiet.balance == pytest.approx(-40, abs=0.1)
    assert flags(quiet) == []


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
    assert (quality.width, quality.balance) == (None, None)
    assert Quality.model_validate_json(quality.model_dump_json()) == quality
