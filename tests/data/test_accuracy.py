from pathlib import Path

import numpy as np
import pytest

from longplay.chords import Chord, TimedChord
from longplay.data.accuracy import Score, benchmark
from longplay.data.decode import write_wav
from longplay.data.manifest import SAMPLE_RATE, Track
from longplay.errors import UserError
from longplay.prompt import Section

NAMES = ("C", "F", "G", "C") * 4


def piece(folder: Path) -> Track:
    """Four bars of two seconds four times over, half of them an octave up, at 120 beats a minute."""
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    bars = []
    for index, name in enumerate(NAMES):
        notes = 220 * 2 ** ((np.array([3 + pitch for pitch in Chord.parse(name).pitches]) + 12 * (index >= 8)) / 12)
        bars.append(np.sin(2 * np.pi * np.outer(notes, time)).sum(0) * (0.4 + np.exp(-12 * (time % 0.5))))
    (folder / "audio").mkdir(exist_ok=True)
    write_wav(folder / "audio" / "a.wav", (0.1 * np.concatenate(bars)).astype(np.float32))
    return Track(
        id="a", path="audio/a.wav", seconds=32, split="train", kind="rendered", title="A", source="notes", licence="CC0-1.0",
        codec_ok=True, captions=("tones",), bpm=120, key="C major",
        sections=(Section(label="verse", start=0, end=16), Section(label="chorus", start=16, end=32)),
        chords=tuple(TimedChord(start=2 * index, name=name) for index, name in enumerate(NAMES)),
    )  # fmt: skip


def test_what_is_found_is_counted_against_what_is_known(tmp_path: Path) -> None:
    track = piece(tmp_path)
    found = benchmark([track], tmp_path, 1)
    assert found.pieces == 1
    assert found.hearing.tempo == found.hearing.key == 1
    assert found.hearing.chords > 0.9
    assert set(found.sections) == {"analysis", "equal spacing", "tenths"}
    assert all(isinstance(score, Score) for score in found.sections.values())
    lies = track.model_copy(
        update={"bpm": 90.0, "key": "E minor", "chords": (TimedChord(start=0, name="Bm"),), "id": "b"}
    )
    wrong = benchmark([lies], tmp_path, 1).hearing
    assert wrong == (0, 0, 0, 0)
    both = benchmark([track, lies], tmp_path, 1)
    assert both.hearing.tempo == 0.5
    assert both.pieces == 2


def test_without_rendered_pieces_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    real = piece(tmp_path).model_copy(update={"kind": "real"})
    with pytest.raises(UserError, match="rendered-hours"):
        benchmark([real], tmp_path, 1)
