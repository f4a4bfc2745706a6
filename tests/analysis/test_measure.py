import numpy as np
import pytest

from longplay.analysis.key import find_key
from longplay.analysis.measure import measure, textures
from longplay.chords import TimedChord
from longplay.keys import key_likeness

RATE = 48000
CHORDS = {"C": (261.63, 329.63, 392.0), "F": (349.23, 440.0, 523.25), "G": (392.0, 493.88, 587.33)}
MINOR_CHORDS = {"Am": (220.0, 261.63, 329.63), "Dm": (293.66, 349.23, 440.0), "E": (329.63, 415.3, 493.88)}


def clicks(bpm: float, seconds: int = 20) -> np.ndarray:
    wav = np.zeros(seconds * RATE, np.float32)
    burst = np.random.default_rng(0).normal(0, 0.3, 1000).astype(np.float32) * np.linspace(1, 0, 1000, dtype=np.float32)
    for start in np.arange(0, len(wav) - 1000, 60 / bpm * RATE).astype(int):
        wav[start : start + 1000] = burst
    return wav


def chords(progression: str, table: dict[str, tuple[float, ...]], shift: int = 0) -> np.ndarray:
    time = np.arange(RATE) / RATE
    each = [
        np.sin(2 * np.pi * np.outer(np.array(table[name]) * 2 ** (shift / 12), time)).sum(0)
        for name in progression.split()
    ]
    return (0.1 * np.concatenate(each)).astype(np.float32)


@pytest.mark.parametrize("bpm", [72, 96, 120, 143, 170])
def test_tempo_of_clicks(bpm: float) -> None:
    assert measure(clicks(bpm), RATE).bpm == pytest.approx(bpm, rel=0.02)


def test_no_tempo_where_nothing_pulses() -> None:
    steady = 0.1 * np.sin(2 * np.pi * 220 * np.arange(20 * RATE) / RATE)
    assert measure(steady.astype(np.float32), RATE).bpm is None
    noise = np.random.default_rng(1).normal(0, 0.1, 20 * RATE)
    assert measure(noise.astype(np.float32), RATE).bpm is None


@pytest.mark.parametrize(("shift", "key"), [(0, "C major"), (2, "D major"), (6, "F# major"), (-2, "Bb major")])
def test_major_keys(shift: int, key: str) -> None:
    assert measure(chords("C F G C C F G C", CHORDS, shift), RATE).key == key


@pytest.mark.parametrize(("shift", "key"), [(0, "A minor"), (3, "C minor")])
def test_minor_keys(shift: int, key: str) -> None:
    assert measure(chords("Am Dm E Am Am Dm E Am", MINOR_CHORDS, shift), RATE).key == key


def test_no_key_in_noise() -> None:
    assert measure(np.random.default_rng(1).normal(0, 0.1, 10 * RATE).astype(np.float32), RATE).key is None


def test_a_key_follows_from_chords_and_how_long_they_sound() -> None:
    def names(*chords: tuple[float, str]) -> list[TimedChord]:
        return [TimedChord(start=start, name=name) for start, name in chords]

    assert str(find_key(names((0, "C"), (2, "F"), (4, "G"), (6, "C")), 8)) == "C major"
    assert str(find_key(names((0, "Am"), (2, "Dm"), (4, "E"), (6, "Am")), 8)) == "A minor"
    assert find_key(names((0, "C"), (1, "N")), 8) is None, "no chord sounds most of the time"
    assert find_key(names(*((at, chord) for at, chord in enumerate(("C", "E", "Ab")))), 3) is None, (
        "as good in three keys"
    )
    assert set(key_likeness(np.ones(12)).values()) == {0.0}, "no key is likelier in equal pitches"


def test_the_likeliest_key_is_named_however_faint() -> None:
    facts = measure(chords("C F G C C F G C", CHORDS), RATE)
    unclear = facts.model_copy(update={"chords": [TimedChord(start=0, name="C"), TimedChord(start=2, name="N")]})
    assert unclear.key is None
    assert str(facts.likeliest_key) == str(unclear.likeliest_key) == "C major"


def test_brightness_orders_sounds() -> None:
    noise = np.random.default_rng(2).normal(0, 0.1, 5 * RATE).astype(np.float32)
    muffled = np.convolve(noise, np.ones(64) / 64, mode="same").astype(np.float32)
    assert measure(muffled, RATE).brightness < 0.5 * measure(noise, RATE).brightness


def test_density_counts_onsets() -> None:
    assert measure(clicks(120), RATE).density == pytest.approx(2, rel=0.15)


def test_loudness_follows_the_level_of_each_eighth() -> None:
    levels = np.array([-30, -24, -18, -12, -6, 0, -3, -100])
    gains = np.repeat(10 ** (levels / 20), RATE)
    wav = (gains * np.random.default_rng(3).normal(0, 0.1, len(gains))).astype(np.float32)
    quiet, loud = measure(0.01 * wav, RATE), measure(wav, RATE)
    assert loud.loudness[:-1] == pytest.approx(levels[:-1], abs=0.3)
    assert -60 <= loud.loudness[-1] < -50
    assert quiet.loudness[:-1] == pytest.approx(loud.loudness[:-1], abs=0.3), "however loud the whole is"


def test_stretches_are_measured_each_beside_the_whole() -> None:
    rate = 22050
    time = np.arange(10 * rate) / rate
    dark = np.sin(2 * np.pi * 300 * time) * np.exp(-(time % 1) * 8)
    bright = np.sin(2 * np.pi * 4000 * time) * np.exp(-(time % 0.25) * 20)
    wav = np.concatenate([dark, bright, 1e-5 * bright]).astype(np.float32)
    low, high, silent = textures(wav, rate, [0, 10, 20, 30])
    assert low.brightness is not None
    assert high.brightness is not None
    assert 200 < low.brightness < 800 < 3000 < high.brightness < 5000
    assert low.density == pytest.approx(1, abs=0.25)
    assert high.density == pytest.approx(4, abs=0.5)
    assert silent == (None, 0)
    alone = measure(bright.astype(np.float32), rate)
    assert high.brightness == pytest.approx(alone.brightness, rel=0.05)
    assert textures(wav, rate, []) == []
