"""Does music have the chords that it was held to?"""

from collections.abc import Iterator, Sequence

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
    same = np.array([[chord_share(want, untimed(got), seconds) for got in found] for want in asked])
    own = np.eye(len(asked), dtype=bool)
    return _mean(same[own]), _mean(same[~own])


def chord_share(asked: Chords, found: Chords, seconds: float) -> float:
    """Share of the time in which the triad that is found is that of the chord that is asked for; times without one do not count.

    NaN where none is asked for.
    """
    return _mean(np.array([want == got for want, got in _pairs(asked, found, seconds)]))


def pitch_share(asked: Chords, found: Chords, seconds: float) -> float:
    """Share of the pitches of the asked triads that are in those that are found; counted as `chord_share` does."""
    shared = [len({*want.pitches} & {*got.pitches}) / 3 if got else 0.0 for want, got in _pairs(asked, found, seconds)]
    return _mean(np.array(shared))


def _pairs(asked: Chords, found: Chords, seconds: float) -> Iterator[tuple[Chord, Chord | None]]:
    times = np.arange(0, seconds, STEP_SECONDS)
    for want, got in zip(triads_at(asked, times), triads_at(found, times), strict=True):
        if want is not None:
            yield want, got


def _mean(shares: np.ndarray) -> float:
    counted = shares[~np.isnan(shares)]
    return float(counted.mean()) if len(counted) else float("nan")
