"""What a piece is held to, of what its prompt asks for and what it leaves open."""

import pytest

from longplay.chords import Chord, parse_progression
from longplay.control import Control
from longplay.harmony import key_of
from longplay.keys import Key
from longplay.pipeline.arrangement import PART_BARS, arrange, carry_on
from longplay.prompt import Prompt, parse_sections


def names(control: Control) -> list[str]:
    return [str(chord) for _, chord in control.chords]


def arranged(prompt: Prompt, seed: int = 3, until: float = 16.0) -> Control:
    control = arrange(prompt, seed, until, chords=True)
    assert control is not None
    return control


def test_what_is_asked_for_is_kept() -> None:
    made = arranged(Prompt(text="techno", bpm=120, chords="Am F C G"))
    assert made.bpm == pytest.approx(120)
    assert made.chords[:5] == tuple(zip((0, 2, 4, 6, 8), parse_progression("Am F C G Am"), strict=True))
    assert made.chords[-1][0] == 14, "to the end of the piece"
    assert made.key == Key.parse("C major"), "that of the chords"
    assert arranged(Prompt(text="techno in A minor", chords="Am F C G")).key == Key.parse("A minor")
    assert arranged(Prompt(text="a waltz", bpm=90, chords="C")).chords[1][0] == pytest.approx(2), "bars of three"


def test_what_is_left_open_is_drawn_by_the_seed() -> None:
    words = Prompt(text="techno, A minor")
    drawn = arranged(words)
    assert drawn.bpm is not None
    assert 122 <= drawn.bpm <= 140
    assert drawn.key == Key.parse("A minor")
    assert key_of([chord for _, chord in drawn.chords if chord]) == drawn.key
    assert arranged(words) == drawn
    assert arranged(words, seed=4).bpm != drawn.bpm
    assert len({arranged(Prompt(text="techno"), seed=seed).key for seed in range(20)}) > 5


def test_music_without_pulse_or_pitch_stays_so() -> None:
    ambient = arranged(Prompt(text="ambient, no beat"))
    assert not ambient.bars
    assert [start for start, _ in ambient.chords[:3]] == [0, 2, 4]
    drums = arranged(Prompt(text="drum solo"))
    assert drums.bars
    assert drums.key is None
    assert not drums.chords
    assert arrange(Prompt(text="noise, free time"), 3, 10, chords=True) is None


def test_a_model_that_knows_no_chords_is_told_what_is_asked_for_alone() -> None:
    assert arrange(Prompt(text="ambient"), 3, 10, chords=False) is None
    plain = arrange(Prompt(text="techno"), 3, 10, chords=False)
    assert plain is not None
    assert plain.bars
    assert plain.key is None
    assert not plain.chords


def test_verses_return_with_their_chords() -> None:
    prompt = Prompt(text="pop", bpm=120, sections=parse_sections("intro:0-8,verse:8-24,chorus:24-40,verse:40-56"))
    made = arranged(prompt, until=56)
    at = dict(made.chords)
    verse, chorus = [[at[start + 2 * bar] for bar in range(8)] for start in (8.0, 24.0)]
    assert verse != chorus
    assert [at[40.0 + 2 * bar] for bar in range(8)] == verse
    assert [at[2.0 * bar] for bar in range(4)] == verse[:4]
    long = arranged(Prompt(text="pop", bpm=120), until=200)
    parts = [[chord for _, chord in long.chords[first : first + PART_BARS]] for first in range(0, 48, PART_BARS)]
    assert parts[0] == parts[2] != parts[1]


def test_a_progression_begins_with_its_section() -> None:
    """Even if its first bar begins a little early."""
    prompt = Prompt(text="pop", bpm=118, sections=parse_sections("verse:0-17,chorus:17-60"), chords="C F G")
    made = arranged(prompt, until=60)
    first = next(index for index, (start, _) in enumerate(made.chords) if start > 15.5)
    assert made.chords[first][0] == pytest.approx(8 * 240 / 118)
    assert names(made)[first : first + 3] == ["C", "F", "G"]


FOUND = Control.tracked(
    [0.5, 2.5, 4.5, 6.5, 8.5],
    120,
    "A minor",
    [(0.0, None), (0.5, Chord.parse("Am")), (2.4, Chord.parse("F")), (4.6, Chord.parse("C")), (6.4, Chord.parse("G"))],
)


def test_the_chords_of_a_recording_go_on() -> None:
    made = carry_on(Prompt(), 3, FOUND, 9.3, 20.0)
    assert made.bars == FOUND.bars
    assert made.key == FOUND.key
    assert made.chords[:5] == FOUND.chords
    assert [(start, str(chord)) for start, chord in made.chords[5:]] == [
        (8.5, "Am"), (10.5, "F"), (12.5, "C"), (14.5, "G"), (16.5, "Am"), (18.5, "F"),
    ]  # fmt: skip


def test_what_is_asked_for_comes_before_what_is_heard() -> None:
    faster = carry_on(Prompt(bpm=150), 3, FOUND, 9.3, 20.0)
    assert faster.bpm == pytest.approx(150)
    assert faster.bars[0] == 8.5, "from the last bar line on"
    assert [start for start, _ in faster.chords[5:8]] == pytest.approx([8.5, 10.1, 11.7])
    assert names(carry_on(Prompt(chords="D E"), 3, FOUND, 9.3, 20.0))[5:8] == ["D", "E", "D"]
    other = carry_on(Prompt(key="E major"), 3, FOUND, 9.3, 30.0)
    assert other.key == Key.parse("E major")
    assert key_of([chord for start, chord in other.chords if chord and start > 8]) == other.key


def test_a_recording_without_pulse_or_pitch() -> None:
    still = carry_on(Prompt(), 3, Control(chords=((0.0, Chord.parse("D")),)), 5.0, 12.0)
    assert not still.bars
    assert {str(chord) for _, chord in still.chords} == {"D"}
    late = tuple((start, Chord.parse(name)) for start, name in ((22.0, "Dm"), (24.0, "G"), (26.0, "C"), (28.0, "C")))
    end = carry_on(Prompt(), 3, Control(chords=late), 31.0, 40.0)
    assert [(start, str(chord)) for start, chord in end.chords[4:]] == [
        (30, "Dm"),
        (32, "G"),
        (34, "C"),
        (36, "C"),
        (38, "Dm"),
    ]
    assert carry_on(Prompt(), 3, Control(), 5.0, 12.0) == Control()
    silent = carry_on(Prompt(), 3, Control.steady(120), 5.0, 12.0)
    assert not silent.chords
