"""How far a reconstruction is from its original, clip by clip.

For each of four STFT sizes n (256, 512, 1024, 2048; Hann window, hop n / 4, zero-padded centred frames):

* mel: mean over bands and frames of |log10 M(reference) - log10 M(estimate)|, M being max(10, n / 16) Slaney mel bands
  of the magnitude spectrum from 0 Hz to half the sample rate, floored at 1e-5;
* convergence: spectral convergence, |||R| - |E||| / |||R||| in the Frobenius norm (Arik et al. 2018);
* log_magnitude: mean over bins and frames of |log10 |R| - log10 |E||, floored at 1e-5.

Each is the mean over the four sizes. Figures depend on the sample rate: compare only at the same one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longplay.nn.mel import MelSpectrogram

N_FFTS = (256, 512, 1024, 2048)
FLOOR = 1e-5

Wav = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Distance:
    """Distances of one clip from its original.

    Attributes:
        mel: mean log10-mel distance.
        convergence: multi-resolution spectral convergence; 1 for silence.
        log_magnitude: mean log10-magnitude distance.
        si_sdr: scale-invariant signal-to-distortion ratio in dB; infinite for a perfect copy.
    """

    mel: float
    convergence: float
    log_magnitude: float
    si_sdr: float


class Ruler:
    """Measures at one sample rate."""

    def __init__(self, sample_rate: int) -> None:
        self.scales = [MelSpectrogram(sample_rate, n, n // 4, num_mels=max(10, n // 16)) for n in N_FFTS]

    @torch.inference_mode()
    def distance(self, reference: Wav, estimate: Wav) -> Distance:
        """Compare two clips [S].

        Raises:
            ValueError: different lengths.
        """
        if reference.shape != estimate.shape or reference.ndim != 1:
            raise ValueError(f"clips {reference.shape} and {estimate.shape}: expected the same length, one channel")
        wavs = torch.from_numpy(np.stack([reference, estimate]).astype(np.float32))
        terms = torch.stack([self._terms(scale, wavs) for scale in self.scales]).mean(0)
        mel, convergence, log_magnitude = terms.tolist()
        return Distance(mel, convergence, log_magnitude, si_sdr(reference, estimate))

    @staticmethod
    def _terms(scale: MelSpectrogram, wavs: Tensor) -> Tensor:
        magnitude = scale.spectrum(wavs).abs()  # [2, F, T]
        mel = scale(magnitude).clamp_min(FLOOR).log10()
        log = magnitude.clamp_min(FLOOR).log10()
        convergence = (magnitude[0] - magnitude[1]).norm() / magnitude[0].norm().clamp_min(FLOOR)
        return torch.stack([(mel[0] - mel[1]).abs().mean(), convergence, (log[0] - log[1]).abs().mean()])


def si_sdr(reference: Wav, estimate: Wav) -> float:
    """Scale-invariant signal-to-distortion ratio in dB of two clips [S] (Le Roux et al. 2019)."""
    a, b = reference.astype(np.float64), estimate.astype(np.float64)
    power = a @ a
    target = (a @ b) / power * a if power > 0 else np.zeros_like(a)
    noise = b - target
    if not target.any():
        return -np.inf
    return float(10 * np.log10((target @ target) / (noise @ noise))) if noise.any() else np.inf
