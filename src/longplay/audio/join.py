"""Go on from a recording without a click, and without touching it.

The recording is prolonged for 15 ms by linear prediction (Burg's method, which is always stable), and only there, after
its end, it is cross-faded into what follows. Value, slope and phase go on; nothing of the recording changes.
"""

import numpy as np
import numpy.typing as npt

from longplay.audio.file import Wav

OVERLAP_SECONDS = 0.015  # longer, and noise, which cannot be predicted, would sag audibly
WINDOW_SECONDS = 0.1
ORDER = 256

Samples = npt.NDArray[np.float64]  # [S]


def lead_in(before: Wav, after: Wav, sample_rate: int) -> Wav:
    """`after` [C, S], its first 15 ms cross-faded from the prolongation of `before` [C, S']."""
    count = min(round(OVERLAP_SECONDS * sample_rate), after.shape[1])
    weight = np.cos(np.linspace(0, np.pi / 2, count + 1)[1:]) ** 2
    window = before[:, -round(WINDOW_SECONDS * sample_rate) :].astype(np.float64)
    prolonged = np.stack([predict(channel, count) for channel in window])
    joined = after.copy()
    joined[:, :count] = weight * prolonged + (1 - weight) * after[:, :count]
    return joined


def predict(samples: Samples, count: int) -> Samples:
    """The `count` samples that linear prediction expects after `samples`."""
    coefficients = burg(samples, min(ORDER, len(samples) // 3))
    order = len(coefficients)
    line = np.concatenate([samples[len(samples) - order :], np.zeros(count)])
    for n in range(order, len(line)):
        line[n] = coefficients @ line[n - order : n][::-1]
    return line[order:]


def burg(samples: Samples, order: int) -> Samples:
    """Prediction coefficients a [order], x[n] ~ sum_k a[k] x[n - 1 - k] (J. P. Burg, 1975)."""
    forward, backward = samples[1:], samples[:-1]
    filter_ = np.ones(1)
    for _ in range(order):
        energy = forward @ forward + backward @ backward
        if energy <= np.finfo(np.float64).tiny:
            break
        reflection = -2 * (backward @ forward) / energy
        padded = np.append(filter_, 0.0)
        filter_ = padded + reflection * padded[::-1]
        forward, backward = (
            (forward + reflection * backward)[1:],
            (backward + reflection * forward)[:-1],
        )
    return -filter_[1:]
