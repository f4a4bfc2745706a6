import numpy as np
import pytest

from longplay.data.manifest import Track
from longplay.data.musicnn import Heard
from longplay.evaluate.adherence import retrieval_rate
from longplay.evaluate.clips import Clip
from longplay.evaluate.generation import adherence_rows, controls, prompt_of, quality_rows

RATE = 22050


def track(name: str, *captions: str) -> Track:
    return Track(
        id=name,
        path=f"{name}.wav",
        seconds=10,
        split="test",
        kind="real",
        title=name,
        source="test",
        licence="PD",
        codec_ok=True,
        captions=captions,
    )


def clicks(bpm: float, seconds: float = 8.0) -> np.ndarray:
    """A click on every beat over a chord of A minor."""
    t = np.arange(int(seconds * RATE)) / RATE
    beat = np.exp(-60 * (t % (60 / bpm))) * np.random.default_rng(0).standard_normal(len(t))
    chord = sum(np.sin(2 * np.pi * pitch * t) for pitch in (220, 261.63, 329.63))
    return (0.2 * beat + 0.05 * chord).astype(np.float32)


def test_the_prompt_is_the_caption_that_asks_for_most() -> None:
    assert prompt_of(track("a", "rock", "rock at 120 bpm", "rock, 120 bpm, E minor")) == "rock, 120 bpm, E minor"
    assert prompt_of(track("a", "first", "second")) == "first"


def test_distances_are_given_in_units_of_real_music() -> None:
    random = np.random.default_rng(0)
    reference, real = random.standard_normal((2, 400, 3)).astype(np.float32)

    rows = quality_rows(reference, real + 1, {"far": real + 2})

    assert [row.system for row in rows] == ["far", "real, other tracks"]
    assert rows[0].values["times_real"] == pytest.approx(4, rel=0.2)
    assert rows[1].values["times_real"] == 1


def test_controls_are_the_same_every_time() -> None:
    clips = [Clip(track("a", "x"), 0, clicks(100, 1), RATE)]

    first, again = controls(clips), controls(clips)

    assert set(first) == {"shuffled in 0.1 s chunks", "real + noise at 10 dB", "white noise"}
    assert all(np.array_equal(first[name][0], again[name][0]) for name in first)


def test_music_that_does_what_it_was_asked_scores_full_marks() -> None:
    bpms = [70, 84, 96, 108, 120, 132, 144, 156]
    clips = [Clip(track(str(bpm), f"clicks, {bpm} bpm, A minor"), 0, clicks(bpm), RATE) for bpm in bpms]
    tags = np.random.default_rng(0).uniform(0.01, 0.5, (8, 100)).astype(np.float32)
    heard = Heard(np.zeros((8, 200), np.float32), tags)

    generated, chance, real = adherence_rows(clips, heard, [clip.wav for clip in clips], RATE, heard, [None] * 8)

    assert generated.values["own_of_8"] == retrieval_rate(tags, tags, [str(bpm) for bpm in bpms]) == 1
    assert generated.values["tempo"] >= 0.75
    assert generated.values["key"] == generated.values["tonic"] == 1
    assert chance.values["own_of_8"] == 1 / 8
    assert chance.values["tempo"] < 0.2
    assert "chords" not in generated.values
    assert "own_of_8" not in real.values  # no track gives a second clip to be found by
