from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from longplay.analysis.beats import track_beats
from longplay.analysis.measure import HOP, RATE, analyse
from longplay.data.accuracy import equal_sections, hit_f1, score, tenths
from longplay.data.structure_plot import plot_structure
from longplay.errors import UserError
from longplay.prompt import Section

BEAT = 0.5
RNG = np.random.default_rng(5)
CLICK = (RNG.normal(0, 0.3, 800) * np.linspace(1, 0, 800)).astype(np.float32)
PARTS = {"A": ((220, 262, 330), (196, 247, 294), 2500), "B": ((147, 175, 220), (349, 440, 523), 9000)}


def part(name: str, bars: int, level: float) -> np.ndarray:
    """Bars of four beats: two chords by turns, a click on each beat that is brighter in B."""
    first, second, colour = PARTS[name]
    time = np.arange(int(BEAT * RATE)) / RATE
    beats = []
    for bar in range(bars):
        for beat in range(4):
            wav = 0.08 * np.sin(2 * np.pi * np.outer((first, second)[bar % 2], time)).sum(0).astype(np.float32)
            wav[:800] += CLICK * (2 if beat == 0 else 1)
            wav += 0.03 * np.sin(2 * np.pi * colour * time).astype(np.float32)
            beats.append(wav)
    return level * np.concatenate(beats)


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    """Intro of 4 quiet bars, A 8, B 8 (louder), A 8, B 8, outro of 4 quiet bars: 80 s."""
    parts = (("A", 4, 0.3), ("A", 8, 0.7), ("B", 8, 1.0), ("A", 8, 0.7), ("B", 8, 1.0), ("A", 4, 0.3))
    return np.concatenate([part(*each) for each in parts]).astype(np.float32)


def test_beats_follow_the_clicks() -> None:
    onsets = np.zeros(1740, np.float32)
    fps = RATE / HOP
    known = np.arange(0.3, 20, 0.52)
    onsets[np.round(known * fps).astype(int)] = 1
    found = track_beats(onsets, fps, 118)  # the tempo is 115.4
    inner = [time for time in known if 1 < time < 19]
    assert all(np.abs(found - time).min() < 0.03 for time in inner)
    assert len(found) == pytest.approx(len(known), abs=2)


def test_sections_of_a_song_are_found_and_named(song: np.ndarray, tmp_path: Path) -> None:
    facts, structure = analyse(song, RATE)
    assert facts.sections == structure.sections
    assert (structure.sections[0].start, structure.sections[-1].end) == (0, facts.seconds)
    assert all(before.end == after.start for before, after in pairwise(structure.sections))
    starts = [section.start for section in structure.sections[1:]]
    assert hit_f1(starts, [8, 24, 40, 56, 72], 0.5) > 0.75
    labels = {
        place: section.label
        for section in structure.sections
        for place in (4, 16, 32, 48, 64, 76)
        if section.start <= place < section.end
    }
    assert labels[16] == labels[48] == "verse"
    assert labels[32] == labels[64] == "chorus"
    groups = {
        place: group
        for section, group in zip(structure.sections, structure.groups, strict=True)
        for place in (16, 32, 48, 64)
        if section.start <= place < section.end
    }
    assert groups[16] == groups[48] != groups[32] == groups[64]
    plot_structure(structure, facts.seconds, "song", tmp_path / "song.png")
    assert (tmp_path / "song.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="cannot be drawn"):
        plot_structure(structure, facts.seconds, "song", tmp_path / "song.nothing")


def test_a_short_piece_has_no_sections_and_noise_does_not_fail(tmp_path: Path) -> None:
    short = analyse(part("A", 8, 0.7), RATE)
    assert short.facts.sections == ()
    with pytest.raises(UserError, match="too short"):
        plot_structure(short.structure, short.facts.seconds, "short", tmp_path / "x.png")
    noise = np.random.default_rng(0).normal(0, 0.1, 45 * RATE).astype(np.float32)
    found = analyse(noise, RATE).facts.sections
    assert (found[0].start, found[-1].end) == (0, 45)
    assert analyse(np.zeros(45 * RATE, np.float32) + np.float32(1e-9), RATE).facts.bpm is None


def test_hits_count_once_and_within_the_tolerance() -> None:
    assert hit_f1([10, 20], [10.4, 20.6], 0.5) == 0.5
    assert hit_f1([10, 10.2], [10.1], 0.5) == pytest.approx(2 / 3)
    assert hit_f1([], [1], 3) == 0
    assert hit_f1([], [], 3) == 1


def test_baselines_cover_the_piece_and_the_score_tells_them_from_the_truth() -> None:
    known = (
        Section(label="intro", start=0, end=8),
        Section(label="verse", start=8, end=90),
        Section(label="outro", start=90, end=100),
    )
    assert score(known, known, 100) == (1, 1, 1)
    for baseline in (equal_sections(100, 16), tenths(100)):
        assert (baseline[0].start, baseline[-1].end) == (0, 100)
        assert score(baseline, known, 100).fine < 1
    assert score(tenths(100), known, 100).labels > 0.9


@pytest.mark.parametrize("bars", [5, 40])
def test_bars_begin_where_the_harmony_changes_in_short_pieces_too(bars: int) -> None:
    """10 s have no sections, but a pulse to go on with."""
    lead = part("A", 1, 0.5)[:RATE]  # two beats before the first bar line
    facts = analyse(np.concatenate([lead, part("A", bars, 0.7)]), RATE).facts
    known = 1.0 + 4 * BEAT * np.arange(bars)
    found = np.array(facts.bars)
    assert bool(facts.sections) == (bars > 20)
    assert len(found) == pytest.approx(bars, abs=2)
    inner = found[(found > 1.5) & (found < known[-1] - 0.5)]
    assert all(np.abs(known - time).min() < 0.06 for time in inner)


def test_what_does_not_pulse_has_no_bars() -> None:
    steady = 0.1 * np.sin(2 * np.pi * 220 * np.arange(20 * RATE) / RATE)
    assert analyse(steady.astype(np.float32), RATE).facts.bars == ()
