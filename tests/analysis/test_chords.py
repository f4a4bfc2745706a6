"""Chords found in sound, and in chroma."""

import numpy as np
import pytest

from longplay.analysis.chords import find_chords
from longplay.analysis.measure import measure
from longplay.chords import Chord, parse_progression

RATE = 24_000


def played(names: str, seconds: float, noise: float = 0.02) -> np.ndarray:
    """Each chord for so long: its notes around middle C with some overtones, its root in the bass."""
    time = np.arange(round(seconds * RATE)) / RATE
    wav = np.random.default_rng(0).normal(0, noise, (len(parse_progression(names)), len(time)))
    for row, chord in zip(wav, parse_progression(names), strict=True):
        for note in (chord.root - 12, *chord.pitches):
            frequency = 261.63 * 2 ** (note / 12)
            row += sum(0.1 / harmonic * np.sin(2 * np.pi * harmonic * frequency * time) for harmonic in (1, 2, 3))
        row *= np.exp(-time)
    return wav.reshape(-1).astype(np.float32)


@pytest.mark.parametrize("names", ["C Am F G", "Em Bm D A", "Eb Ab Bbm F", "C7 F7 G7 C7"])
def test_chords_are_found_when_they_sound(names: str) -> None:
    found = measure(played(names, 2.0), RATE).chords
    asked = [chord.triad for chord in parse_progression(names)]
    heard = [next(each.chord for each in reversed(found) if each.start <= middle) for middle in (1, 3, 5, 7)]
    assert heard == asked
    for change in (2, 4, 6):
        assert min(abs(each.start - change) for each in found) < 0.3


def test_noise_has_no_chord() -> None:
    found = measure(np.random.default_rng(1).normal(0, 0.1, 10 * RATE).astype(np.float32), RATE).chords
    ends = [*(each.start for each in found[1:]), 10.0]
    unclear = sum(end - each.start for each, end in zip(found, ends, strict=True) if each.chord is None)
    assert found[0].start == 0
    assert unclear > 5


def test_a_passing_beat_is_no_change() -> None:
    """One beat of another chord is less than the price of two changes, four are not."""
    chroma = np.full((64, 12), 0.1)
    chroma[:, list(Chord.parse("C").pitches)] += 0.6
    chroma[20:22] = np.roll(chroma[20:22], 1, axis=1) * 0.5 + chroma[20:22] * 0.5
    beats = np.arange(0, 16, 0.5)
    assert [each.name for each in find_chords(chroma, beats, 16.0)] == ["C"]
    chroma[20:30] = np.roll(chroma[0], 5)
    assert [(each.start, each.name) for each in find_chords(chroma, beats, 16.0)] == [(0, "C"), (5, "F"), (7.5, "C")]
