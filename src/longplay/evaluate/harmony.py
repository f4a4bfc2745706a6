"""Does music have the chords that it was held to?"""

from collections.abc import Sequence

import numpy as np

from longplay.chords import Chord, Chords, TimedChord, triads_at, untimed

STEP_SECONDS = 0.1


def chord_rate(asked: Sequence[Chords], found: Sequence[Sequence[TimedChord]], seconds: float) -> tuple[float, float]:
    """Mean `chord_share`, and what chance gives: other pieces.

    Args:
        asked: of each piece, with the seconds at which they start; pieces without one do not count.
        found: of each piece, from 0 on.
        seconds: that the pieces last.

    Returns:
        share and chance; NaN where none is asked for.
    """
    wanted = [_triads(chords, seconds) for chords in asked]
    got = [_triads(untimed(chords), seconds) for chords in found]
    same = np.array([[_same(want, other) for other in got] for want in wanted])
    own = np.eye(len(wanted), dtype=bool)
    return _mean(same[own]), _mean(same[~own])


def chord_share(asked: Chords, found: Chords, seconds: float) -> float:
    """Share of the time in which the triad that is found is that of the chord that is asked for; times without one do not count.

    NaN where none is asked for.
    """
    return _same(_triads(asked, seconds), _triads(found, seconds))


def pitch_share(asked: Chords, found: Chords, seconds: float) -> float:
    """Share of the pitches of the asked triads that are in those that are found; counted as `chord_share` does."""
    pairs = zip(_triads(asked, seconds), _triads(found, seconds), strict=True)
    shared = [len({*want.pitches} & {*got.pitches}) / 3 if got else 0.0 for want, got in pairs if want is not None]
    return _mean(np.array(shared))


def _triads(chords: Chords, seconds: float) -> list[Chord | None]:
    return triads_at(chords, np.arange(0, seconds, STEP_SECONDS))


def _same(asked: Sequence[Chord | None], found: Sequence[Chord | None]) -> float:
    return _mean(np.array([want == got for want, got in zip(asked, found, strict=True) if want is not None]))


def _mean(shares: np.ndarray) -> float:
    counted = shares[~np.isnan(shares)]
    return float(counted.mean()) if len(counted) else float("nan")
