import re
from fractions import Fraction
from random import Random

import pytest

from longplay.chords import Chord
from longplay.data.melody import RHYTHMS, STRONG_TONES, Voice, melody
from longplay.data.score import LONGEST, Part, Score, Style, compose, styles
from longplay.harmony import PROGRESSIONS, SCALES, chord
from longplay.keys import Key

WALTZ = Style(
    library="stdlib/waltz", genre="waltz", harmony="pop", beats=3, bpm=(90, 90), intro=("WaltzIntro",),
    main=("Waltz",), end=("WaltzEnd",),
)  # fmt: skip
SCORE = Score(
    seed=1,
    style=WALTZ,
    bpm=90,
    key="C major",
    voice=Voice(program=73),
    parts=(
        Part(label="intro", groove="WaltzIntro", chords=("C", "C")),
        Part(label="verse", groove="Waltz", chords=("C", "F", "G"), melody=("{4c;4d;4e;}", "{2.f;}", "{4g;2b;}")),
        Part(label="outro", groove="Waltz", chords=("C",)),
        Part(label="outro", groove="WaltzEnd", chords=("C",)),
    ),
)
LENGTHS = {"1": 4, "2.": 3, "2": 2, "4.": Fraction(3, 2), "4": 1, "8": Fraction(1, 2)}  # beats


def test_times_follow_from_bars_and_tempo() -> None:
    """A bar of three beats at 90 bpm lasts two seconds."""
    assert SCORE.bar_seconds == 2.0
    assert SCORE.seconds == 14.0
    assert [(each.label, each.start, each.end) for each in SCORE.sections] == [
        ("intro", 0, 4),
        ("verse", 4, 10),
        ("outro", 10, 14),
    ]
    assert [(each.start, each.name) for each in SCORE.chords] == [(0, "C"), (6, "F"), (8, "G"), (10, "C")]


def test_text_has_every_bar_once_in_order() -> None:
    lines = SCORE.text().splitlines()
    assert lines[:3] == ["Tempo 90", "Time 3", "Groove stdlib/waltz:WaltzIntro"]
    assert "Solo Voice 73" in lines
    bars = [line for line in lines if line[0].isdigit()]
    assert bars == ["1 C", "2 C", "3 C {4c;4d;4e;}", "4 F {2.f;}", "5 G {4g;2b;}", "6 C", "7 C"]


def test_a_seed_is_a_piece() -> None:
    choice = styles()
    assert compose(5, choice) == compose(5, choice)
    assert len({compose(seed, choice).text() for seed in range(20)}) == 20


def test_pieces_are_sane_and_varied() -> None:
    choice = styles()
    pieces = [compose(seed, choice) for seed in range(150)]
    assert all(45 <= piece.seconds <= LONGEST for piece in pieces)
    assert all(piece.style.bpm[0] <= piece.bpm <= piece.style.bpm[1] for piece in pieces)
    for piece in pieces:
        labels = [section.label for section in piece.sections]
        assert (labels[0], labels[1], labels[-1]) == ("intro", "verse", "outro")
        assert piece.sections[-1].end == pytest.approx(piece.seconds, abs=0.01)
    assert len({piece.style.genre for piece in pieces}) > 50
    assert len({piece.key for piece in pieces}) > 18


@pytest.mark.parametrize("mode", ["major", "minor"])
def test_last_chord_of_a_piece_is_its_key(mode: str) -> None:
    piece = next(piece for piece in (compose(seed, [WALTZ]) for seed in range(50)) if piece.key.endswith(mode))
    tonic = piece.key.split()[0]
    assert piece.parts[-1].chords == (tonic if mode == "major" else tonic + "m",) * 2


def test_chords_of_the_progressions_belong_to_their_key() -> None:
    """Roots lie in the scale; MMA knows each quality."""
    for (_, mode), progressions in PROGRESSIONS.items():
        for progression in progressions:
            assert len(progression.split()) in (4, 8, 12)
            for numeral in progression.split():
                root, quality = chord(numeral, Key(3, mode))
                assert (root - 3) % 12 in SCALES[mode]
                assert quality in STRONG_TONES
    assert str(chord("vi7", Key(0, "major"))) == "Am7"
    assert str(chord("iim7b5", Key(9, "minor"))) == "Bm7b5"
    with pytest.raises(ValueError, match="'H7'"):
        chord("H7", Key(0, "major"))


@pytest.mark.parametrize("beats", [3, 4])
def test_bars_of_a_melody_are_full_and_begin_on_a_chord_tone(beats: int) -> None:
    assert all(sum(LENGTHS[length] for length in rhythm.split()) == beats for rhythm in RHYTHMS[beats])
    chords = [Chord(0, ""), Chord(9, "m"), Chord(5, "M7"), Chord(7, "7")] * 4
    names = ["c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b"]
    for bar, (root, quality) in zip(melody(Random(0), chords, Key(0, "major"), beats), chords, strict=True):
        notes = re.findall(r"(\d\.?)([a-gr]#?)\+*;", bar)
        assert sum(LENGTHS[length] for length, _ in notes) == beats
        assert (names.index(notes[0][1]) - root) % 12 in STRONG_TONES[quality]
