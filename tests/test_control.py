"""Bars, tempo and key as numbers for every code."""

from dataclasses import replace

import numpy as np
import pytest

from longplay.chords import Chord
from longplay.control import CHORD_WIDTH, CONTROL_WIDTH, Control
from longplay.keys import Key, named_key


def test_the_same_place_in_every_bar_has_the_same_numbers() -> None:
    made = Control.steady(120).features(0.0, 450, 75)  # a bar of 2 s is 150 codes
    assert made.shape == (450, CONTROL_WIDTH)
    np.testing.assert_allclose(made[:150], made[150:300], atol=1e-5)
    likeness = made[:150] @ made[0]
    assert likeness.argmax() == 0
    assert likeness[1:].max() < 0.95 * likeness[0]


def test_tracked_bars_of_an_even_pulse_are_the_even_pulse() -> None:
    even = Control.steady(90, Key(9, "minor"), start=0.4)
    tracked = Control(tuple(0.4 + np.arange(9) * 240 / 90), 4, Key(9, "minor"))
    assert tracked.bpm == pytest.approx(90)
    np.testing.assert_allclose(tracked.features(-3.0, 2000, 75), even.features(-3.0, 2000, 75), atol=1e-3)


def test_bars_follow_a_pulse_that_drifts_and_go_on_beyond_what_is_known() -> None:
    control = Control((1.0, 3.0, 4.0))
    assert control.position(np.array([-1.0, 1.0, 2.0, 3.0, 3.5, 4.0, 6.0])).tolist() == [-1, 0, 0.5, 1, 1.5, 2, 4]
    assert control.seconds_at(np.array([-1, 0, 0.5, 1, 1.5, 2, 4])).tolist() == [-1.0, 1.0, 2.0, 3.0, 3.5, 4.0, 6.0]


def test_what_is_not_asked_for_is_zero() -> None:
    assert not Control().features(0, 10, 75).any()
    key = Control(key=Key.parse("F# minor")).features(0, 3, 75)
    assert (key > 0).sum(axis=1).tolist() == [1, 1, 1]
    assert not np.array_equal(key, Control(key=Key.parse("F# major")).features(0, 3, 75))
    pulse = Control.steady(100).features(0, 1, 75)
    assert not np.array_equal(pulse, Control.steady(200).features(0, 1, 75))
    assert not np.array_equal(pulse, Control.steady(100, beats=3).features(0, 1, 75))


@pytest.mark.parametrize("bars", [(1.0,), (1.0, 1.0), (2.0, 1.0)])
def test_bar_lines_rise(bars: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected none, or two or more that rise"):
        Control(bars)


def test_keys_are_read_however_they_are_spelt() -> None:
    assert Key.parse("Gb minor") == Key.parse("f# minor") == Key.parse("F#m") == Key(6, "minor")
    assert Key.parse("bb") == Key.parse("A#maj") == Key(10, "major")
    assert Key.parse("b minor") == Key(11, "minor")
    assert str(Key.parse("Cb major")) == "B major"
    assert str(Key.parse("C minor").transposed(-1)) == "B minor"
    assert named_key("a slow piece in Db major, then E minor") == "Db major"
    assert named_key("a major hit") is None
    with pytest.raises(ValueError, match="key 'H dur': expected a form like 'F# minor' or 'F#m'"):
        Key.parse("H dur")


def test_each_code_is_told_the_chord_that_sounds() -> None:
    control = Control(chords=((1.0, Chord.parse("Am")), (2.0, None), (3.0, Chord.parse("G7"))))
    made = control.features(0, 8, 2)[:, -CHORD_WIDTH:]  # every half second
    assert [set(np.flatnonzero(row[:12])) for row in made] == [
        *[set()] * 2, *[{9, 0, 4}] * 2, *[set()] * 2, *[{7, 11, 2, 5}] * 2,
    ]  # fmt: skip
    assert [np.flatnonzero(row[12:]).tolist() for row in made[2::2]] == [[9], [], [7]]
    later = control.features(3, 2, 2)[:, -CHORD_WIDTH:]
    np.testing.assert_array_equal(later, made[6:])


def test_a_control_in_words() -> None:
    chords = tuple((2.0 * bar, Chord.parse("AFCG"[bar % 4])) for bar in range(30))
    control = Control.steady(120, Key.parse("A minor"))
    assert str(control) == "120 bpm, A minor"
    assert str(replace(control, chords=chords)) == "120 bpm, A minor, A F C G"
    assert str(Control(chords=((0.0, Chord.parse("D")),))) == "D"
    assert control.bar_starts(5) == [0, 2, 4]
    assert Control().bar_starts(5) == [0, 2, 4], "as long as usual bars are"
