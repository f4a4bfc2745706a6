"""Chords by name, and progressions."""

import pytest

from longplay.chords import Chord, TimedChord, parse_progression, pitch_seconds, transposed
from longplay.harmony import KEY_LEAD, key_of, progression, usual_key, usual_turns
from longplay.keys import Key, key_and_lead


@pytest.mark.parametrize(
    ("name", "spelt", "pitches"),
    [
        ("C", "C", {0, 4, 7}),
        ("Am", "Am", {9, 0, 4}),
        ("Gbmin7", "F#m7", {6, 9, 1, 4}),
        ("Bbmaj7", "BbM7", {10, 2, 5, 9}),
        ("E7", "E7", {4, 8, 11, 2}),
        ("Bm7b5", "Bm7b5", {11, 2, 5, 9}),
        ("D#dim", "Ebdim", {3, 6, 9}),
        ("Gsus4", "Gsus4", {7, 0, 2}),
    ],
)
def test_names_and_pitches(name: str, spelt: str, pitches: set[int]) -> None:
    chord = Chord.parse(name)
    assert str(chord) == spelt
    assert set(chord.pitches) == pitches
    assert chord.pitches[0] == chord.root
    assert Chord.parse(str(chord)) == chord
    assert str(chord.transposed(5).transposed(7)) == spelt


@pytest.mark.parametrize("name", ["", "H", "am", "Cfoo", "C major", "7"])
def test_what_is_no_chord_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected a root from A to G"):
        Chord.parse(name)


def test_a_progression_as_people_write_it() -> None:
    expected = tuple(map(Chord.parse, ("Am", "F", "C", "G7")))
    for text in ("Am F C G7", "Am, F, C, G7", "| Am | F | C | G7 |", "Am-F-C-G7", " Am  F\tC\nG7 "):
        assert parse_progression(text) == expected
    with pytest.raises(ValueError, match="at least one"):
        parse_progression(" | ")


def test_no_chord_has_a_name_too() -> None:
    assert TimedChord(start=1, name="N").chord is None
    assert transposed("N", 3) == "N"
    assert transposed("A7", 3) == "C7"
    with pytest.raises(ValueError, match="'Cx'"):
        TimedChord(start=1, name="Cx")


def test_progressions_that_are_drawn_say_their_key() -> None:
    """Of all keys the asked one is the likeliest by what sounds, in any style and any key."""
    for style in ("pop song", "jazz", "blues", "soul", "techno", "heavy metal"):
        for tonic in range(12):
            for key in (Key(tonic, "major"), Key(tonic, "minor")):
                for seed in range(8):
                    turns = usual_turns(style, key, seed)
                    assert turns is not None
                    for chords in (turns.verse, turns.chorus, turns.verse[:4], turns.chorus[:4]):
                        sounding = pitch_seconds(list(enumerate(chords)), len(chords))
                        found, lead = key_and_lead(sounding)
                        assert found == key
                        assert lead >= KEY_LEAD
                    assert turns.verse != turns.chorus or style == "jazz", "there is another one to go to"
    assert key_of(progression("i VI III VII", Key.parse("A minor"))) == Key.parse("C major"), "not all do"


def test_a_seed_is_a_harmony_and_words_choose_it() -> None:
    key = Key.parse("C major")
    assert len({usual_turns("a song", key, seed) for seed in range(20)}) > 5
    assert usual_turns("a song", key, 3) == usual_turns("a song", key, 3)
    assert {usual_key("a happy song", seed).mode for seed in range(20)} == {"major"}
    assert {usual_key("dark techno", seed).mode for seed in range(20)} == {"minor"}
    assert len({usual_key("a song", seed) for seed in range(99)}) > 15
    jazz = usual_turns("smoky jazz", key, 1)
    assert jazz is not None
    assert all(len(chord.pitches) == 4 for chord in jazz.verse)
    assert usual_turns("drum solo", key, 1) is None
    still = usual_turns("a deep drone", key, 1)
    assert still is not None
    assert still.verse == still.chorus == (Chord.parse("C"),)
