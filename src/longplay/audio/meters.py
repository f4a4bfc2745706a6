"""Loudness and true peak of audio that comes in blocks: any length, in the memory of one block."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from longplay.audio.file import Wav

OVERSAMPLING = 4
ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # LU below the mean of what passes the absolute one
_OFFSET = -0.691  # of the filter's gain at 997 Hz
_HOPS = 4  # a gating block of 0.4 s starts every 0.1 s


class LoudnessMeter:
    """Integrated loudness by ITU-R BS.1770-4 of at most two channels.

    Args:
        sample_rate: Hz.
        channels: 1 or 2; one is measured as if it came from one loudspeaker.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        import pyloudnorm  # brings scipy: half a second that a stream should not wait for
        from scipy.signal import lfilter

        self._lfilter: Any = lfilter
        self._filters = list(pyloudnorm.Meter(sample_rate)._filters.values())  # the two of the K weighting
        self._states = [np.zeros((channels, 2)) for _ in self._filters]
        self._hop = sample_rate / 10
        self._partial = np.zeros((channels, 0))  # squares of an unfinished hop
        self._energies: list[npt.NDArray[np.float64]] = []  # of each hop, per channel
        self._samples = 0

    def add(self, block: Wav) -> None:
        """Hear [C, S]; blocks of any size."""
        weighted = block.astype(np.float64)
        for number, stage in enumerate(self._filters):
            weighted, self._states[number] = self._lfilter(stage.b, stage.a, weighted, zi=self._states[number])
            weighted = stage.passband_gain * weighted
        squares = np.concatenate([self._partial, np.square(weighted)], axis=1)
        start = 0
        while (stop := int((len(self._energies) + 1) * self._hop) - self._samples) <= squares.shape[1]:
            self._energies.append(squares[:, start:stop].sum(axis=1))
            start = stop
        self._samples += start
        self._partial = squares[:, start:]

    @property
    def value(self) -> float:
        """LUFS; -inf for less than 0.4 s and for what is below the absolute gate."""
        count = len(self._energies) - _HOPS + 1
        if count < 1:
            return -np.inf
        hops = np.array(self._energies)
        windows = np.stack([hops[start : start + count] for start in range(_HOPS)])  # [hops of a block, blocks, C]
        power = windows.sum(axis=(0, 2)) / (_HOPS * self._hop)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the logarithm of a silent block
            levels = _OFFSET + 10 * np.log10(power)
        heard = power[levels >= ABSOLUTE_GATE]
        if not heard.size:
            return -np.inf
        gate = _OFFSET + 10 * np.log10(heard.mean()) + RELATIVE_GATE
        return float(_OFFSET + 10 * np.log10(power[(levels > gate) & (levels >= ABSOLUTE_GATE)].mean()))


class PeakMeter:
    """The peak between the samples, by four times oversampling (ITU-R BS.1770-4, annex 2)."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._stream = soxr.ResampleStream(sample_rate, OVERSAMPLING * sample_rate, channels, dtype="float32")
        self._channels = channels
        self._peak = 0.0

    def add(self, block: Wav) -> None:
        """Hear [C, S]; blocks of any size."""
        self._hear(self._stream.resample_chunk(np.ascontiguousarray(block.T, dtype=np.float32)))
        self._hear(block)

    def end(self) -> float:
        """The peak of the piece, which now ends."""
        self._hear(self._stream.resample_chunk(np.zeros((0, self._channels), np.float32), last=True))
        return self._peak

    def _hear(self, samples: npt.NDArray[np.float32]) -> None:
        if samples.size:
            self._peak = max(self._peak, float(samples.max()), -float(samples.min()))
