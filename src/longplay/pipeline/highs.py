"""Super-resolution keeps what is there: the recording's own band stays, and only what lies above it is made."""

import numpy as np

from longplay.audio import Audio
from longplay.audio.resample import fit, resample

MAX_GAIN = 4.0


def add_highs(audio: Audio, made: Audio) -> Audio:
    """The recording at the higher rate, with the part of `made` that it cannot hold.

    Args:
        audio: the recording [C, S].
        made: what the models made of it, of the same channels and a higher rate; its level follows the recording's.
    """
    length = made.wav.shape[1]
    own = fit(resample(audio.wav, audio.sample_rate, made.sample_rate), length)
    down = resample(made.wav, made.sample_rate, audio.sample_rate)
    shared = fit(resample(down, audio.sample_rate, made.sample_rate), length)
    power, made_power = (np.square(wav, dtype=np.float64).mean(axis=1, keepdims=True) for wav in (own, shared))
    gain = np.sqrt(power / np.maximum(made_power, 1e-18)).clip(0, MAX_GAIN).astype(np.float32)
    return Audio(own + gain * (made.wav - shared), made.sample_rate)
