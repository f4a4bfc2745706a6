"""Acoustic fingerprints, to find the same recording twice whatever its coding, level and cut.

After Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002): each short hop of a track gives
a 32-bit word, one bit per band between 300 Hz and 2 kHz: does the energy step between neighbouring bands grow or
shrink? Copies share many words at any offset; different music shares almost none.
"""

import numpy as np
import numpy.typing as npt
import soxr

RATE = 5512
FRAME = 2048
HOP = 128
BANDS = 33
LOW, HIGH = 300.0, 2000.0

Words = npt.NDArray[np.uint32]  # sorted and unique


def fingerprint(wav: npt.NDArray[np.float32], rate: int) -> Words:
    """The set of fingerprint words of a mono `wav` [S], sorted; empty if it is shorter than one frame (0.4 s)."""
    low = soxr.resample(wav, rate, RATE)
    if len(low) < FRAME + HOP:
        return np.zeros(0, np.uint32)
    windows = np.lib.stride_tricks.sliding_window_view(low, FRAME)[::HOP]
    edges = np.geomspace(LOW, HIGH, BANDS + 1) * FRAME / RATE
    bounds = np.unique(edges.astype(int))
    energy = []
    for start in range(0, len(windows), 4096):  # bounds the memory of long tracks
        power = np.abs(np.fft.rfft(windows[start : start + 4096] * np.hanning(FRAME).astype(np.float32))) ** 2
        energy.append(np.add.reduceat(power[:, : bounds[-1]], bounds[:-1], axis=1))
    steps = np.diff(np.concatenate(energy), axis=1)
    bits = np.diff(steps, axis=0) > 0
    return np.unique(bits[:, :32] @ (np.uint32(1) << np.arange(bits[:, :32].shape[1], dtype=np.uint32)))
