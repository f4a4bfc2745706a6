"""Does music have the chords that it was held to?"""

from collections.abc import Sequence

import numpy as np

from longplay.chords import Chord, Chords, TimedChord, triads_at, untimed

STEP_SECONDS = 0.1


def chord_rate(asked: Sequence[Chords], found: Sequence[Sequence[TimedChord]], seconds: float) -> tuple[float, float]:
    """Share of the time in which the triad that is found is that of the chord that is asked for, and what chance gives: other pieces.

    Args:
        asked: of each piece, with the seconds at which they start; times without one do not count.
        found: of each piece, from 0 on.
        seconds: that the pieces last.

    Returns:
        share and chance; NaN where none is asked for.
    """
    times = np.arange(0, seconds, STEP_SECONDS)
    wanted = [triads_at(chords, times) for chords in asked]
    got = [triads_at(untimed(chords), times) for chords in found]
    same = np.array([[_share(want, other) for other in got] for want in wanted])
    own = np.eye(len(wanted), dtype=bool)
    return _mean(same[own]), _mean(same[~own])


def _share(wanted: Sequence[Chord | None], got: Sequence[Chord | None]) -> float:
    pairs = [(want, have) for want, have in zip(wanted, got, strict=True) if want is not None]
    return float(np.mean([want == have for want, have in pairs])) if pairs else float("nan")


def _mean(shares: np.ndarray) -> float:
    counted = shares[~np.isnan(shares)]
    return float(counted.mean()) if len(counted) else float("nan")
