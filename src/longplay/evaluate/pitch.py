"""How much of the pitches of a recording a reconstruction keeps: which of the twelve sound, half second by half second."""

import numpy as np
import numpy.typing as npt

from longplay.analysis.measure import HOP, RATE, pitch_classes

STRETCH_SECONDS = 0.5

Wav = npt.NDArray[np.float32]
Stretches = npt.NDArray[np.float64]


def pitch_stretches(wav: Wav, sample_rate: int) -> Stretches:
    """How far each of the twelve pitch classes is above or below their mean strength, [N, 12] for N half seconds of `wav` [S]."""
    strengths = pitch_classes(wav, sample_rate).astype(np.float64)
    frames = round(STRETCH_SECONDS * RATE / HOP)
    whole = strengths[: len(strengths) // frames * frames].reshape(-1, frames, 12).mean(1)
    return whole - whole.mean(1, keepdims=True)


def pitch_kept(real: Stretches, made: Stretches) -> float:
    """Correlation of two clips' `pitch_stretches` [N, 12], mean over half seconds: 1 for the same, about 0 for noise.

    Half seconds in which `real` has no pitch class before others (silence) do not count; NaN if none counts.
    """
    counted = np.abs(real).max(1) > 0
    norms = np.linalg.norm(real[counted], axis=1) * np.linalg.norm(made[counted], axis=1)
    products = (real[counted] * made[counted]).sum(1)
    return float(np.mean(products / np.maximum(norms, 1e-12))) if counted.any() else float("nan")
