"""Chords that are asked for, and those that are found."""

import math

import pytest

from longplay.chords import Chord, TimedChord
from longplay.evaluate.harmony import chord_rate

ASKED = [
    ((0.0, Chord.parse("Am7")), (2.0, Chord.parse("F"))),
    ((1.0, Chord.parse("C")), (3.0, None)),
]


def found(*chords: tuple[float, str]) -> list[TimedChord]:
    return [TimedChord(start=start, name=name) for start, name in chords]


def test_time_with_the_triad_that_is_asked_for() -> None:
    right = [found((0.0, "Am"), (2.0, "F")), found((0.0, "C"))]
    assert chord_rate(ASKED, right, 4.0) == (1, 0)
    late = [found((0.0, "N"), (1.0, "Am"), (2.0, "Fm")), found((0.0, "C"), (2.0, "Am"))]
    kept, chance = chord_rate(ASKED, late, 4.0)
    assert kept == pytest.approx((0.25 + 0.5) / 2)
    assert chance == pytest.approx(0.0)
    swapped = [found((0.0, "C")), found((0.0, "Am"))]
    assert chord_rate(ASKED, swapped, 4.0) == pytest.approx((0, (0.5 + 1) / 2))


def test_pieces_without_chords_do_not_count() -> None:
    assert chord_rate([*ASKED[:1], ()], [found((0.0, "Am")), found((0.0, "C"))], 4.0)[0] == 0.5
    assert math.isnan(chord_rate([()], [found((0.0, "C"))], 4.0)[0])
