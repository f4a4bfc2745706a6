"""Bars, tempo and key as numbers for every code."""

import numpy as np
import pytest

from longplay.control import CONTROL_WIDTH, Control
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
