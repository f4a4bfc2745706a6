"""Which chords sound when: major and minor triads, beat by beat.

Each beat's mean chroma is compared with the pitch classes of the 24 triads, and the best chain of them, in which every
change has its price, wins (Viterbi), as in Sheh and Ellis, "Chord Segmentation and Recognition using EM-Trained Hidden
Markov Models" (2003), with binary templates as in Fujishima, "Realtime Chord Recognition of Musical Sound" (1999).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from longplay.analysis.beats import beat_frames, mean_between
from longplay.chords import Chord, TimedChord, timed

CHANGE_COST = 0.35  # of another chord on the next beat, in units of likeness
UNCLEAR = 0.35  # likeness that "no chord" has; drums and noise are like none by more
TRIADS = tuple(Chord(root, quality) for quality in ("", "m") for root in range(12))

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]


def find_chords(chroma: Floats, beats: Array, seconds: float) -> tuple[TimedChord, ...]:
    """When which chord begins, in seconds, the first at 0.

    Args:
        chroma: strength of the twelve pitch classes, [frames, 12], frames evenly spaced over the piece.
        beats: their times in seconds, or any other grid.
        seconds: how long the piece is.
    """
    per_second = len(chroma) / seconds
    starts = beat_frames(beats, len(chroma), seconds)
    path = _best_chain(_likeness(mean_between(chroma, starts)))
    states: list[Chord | None] = [*TRIADS, None]
    changes = np.flatnonzero(np.diff(path, prepend=-1))
    return timed((round(float(starts[at] / per_second), 3), states[path[at]]) for at in changes)


def _likeness(means: Array) -> Array:
    """Correlation of chroma [N, 12] with each of `TRIADS`, and at last that of no chord, [N, 25]."""
    templates = np.zeros((len(TRIADS), 12))
    for row, triad in zip(templates, TRIADS, strict=True):
        row[list(triad.pitches)] = 1
    templates -= templates.mean(axis=1, keepdims=True)
    centred = means - means.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True) * np.linalg.norm(templates, axis=1)
    likeness = centred @ templates.T / np.maximum(norms, 1e-9)
    return np.concatenate([likeness, np.full((len(means), 1), UNCLEAR)], axis=1)


def _best_chain(likeness: Array) -> npt.NDArray[np.int_]:
    """The states [N] with the greatest sum of likeness less `CHANGE_COST` a change."""
    total = likeness[0]
    came = np.zeros(likeness.shape, int)
    for at in range(1, len(likeness)):
        best = int(total.argmax())
        stays = total >= total[best] - CHANGE_COST
        came[at] = np.where(stays, np.arange(len(total)), best)
        total = np.where(stays, total, total[best] - CHANGE_COST) + likeness[at]
    path = [int(total.argmax())]
    for row in came[:0:-1]:
        path.append(int(row[path[-1]]))
    return np.array(path[::-1])
