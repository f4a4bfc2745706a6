"""The key of a piece: the one that its chords fit best.

Chords say more of it than the strength of the pitch classes, in which the overtones of every note, its fifth before all,
have their share (docs/experiments.md, 2026-11-28).
"""

from collections.abc import Sequence

from longplay.chords import TimedChord, pitch_seconds, untimed
from longplay.keys import Key, key_and_lead

MIN_LEAD = 0.05  # of the best key's likeness over that of any other tonic
MIN_SHARE = 0.5  # of the time in which some chord sounds; in drums and noise fewer are found


def find_key(chords: Sequence[TimedChord], seconds: float) -> Key | None:
    """The key of the chords of a piece of `seconds`; None where none stands out."""
    if sum(pitches := pitch_seconds(untimed(chords), seconds)) < 3 * MIN_SHARE * seconds:  # a triad has three
        return None
    found, lead = key_and_lead(pitches)
    return found if lead > MIN_LEAD else None
