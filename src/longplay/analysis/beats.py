"""Where the beats fall: dynamic programming over the onset strength (Ellis, "Beat Tracking by Dynamic Programming", 2007).

Each beat wants a strong onset and a distance to the last one near the period of the tempo; the best chain of all wins.
`mean_between` says what sounds from each to the next.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

TIGHTNESS = 100.0  # how dearly a beat pays, in onset strengths, for being off the period (squared log)

Array = npt.NDArray[np.float32]


def track_beats(onsets: Array, frames_per_second: float, bpm: float) -> npt.NDArray[np.float64]:
    """Times of the beats in seconds.

    Args:
        onsets: strength [frames], never negative.
        frames_per_second: of `onsets`.
        bpm: the tempo, from which the beats may drift but not leap.
    """
    period = 60 * frames_per_second / bpm
    strength = onsets / (onsets.std() + 1e-9)
    local = np.convolve(strength, np.exp(-0.5 * (np.arange(-period, period + 1) * 32 / period) ** 2), mode="same")
    lags = np.arange(round(period / 2), round(2 * period) + 1)
    cost = -TIGHTNESS * np.log(lags / period) ** 2
    total = local.astype(np.float64)
    before = np.full(len(total), -1)
    for frame in range(lags[0], len(total)):
        reach = min(len(lags), frame - lags[0] + 1)
        chained = total[frame - lags[:reach]] + cost[:reach]
        best = int(chained.argmax())
        if chained[best] > 0:
            total[frame] += chained[best]
            before[frame] = frame - lags[best]
    beats = [int(total[-lags[-1] :].argmax()) + max(0, len(total) - int(lags[-1]))]
    while before[beats[-1]] >= 0:
        beats.append(int(before[beats[-1]]))
    return np.array(beats[::-1]) / frames_per_second


def beat_frames(beats: npt.NDArray[np.float64], count: int, seconds: float) -> npt.NDArray[np.int_]:
    """The first frame of each beat, and frame 0, of `count` frames evenly spaced over so many seconds."""
    starts = np.unique(np.concatenate([[0], np.round(beats * (count / seconds)).astype(int)]))
    return starts[starts < count]


def mean_between(values: npt.NDArray[np.floating[Any]], starts: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    """Means of rows from each start to the next, [frames, D] to [starts, D]."""
    counts = np.diff(np.concatenate([starts, [len(values)]]))
    return np.add.reduceat(values.astype(np.float64), starts, axis=0) / counts[:, None]
