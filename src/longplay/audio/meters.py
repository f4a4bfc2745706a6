"""Loudness and true peak of audio that comes in blocks: any length, in the memory of one block."""

import math
import warnings

import numpy as np
import numpy.typing as npt
import soxr

from longplay.audio.file import Wav

OVERSAMPLING = 4
ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # LU below the mean of what passes the absolute one
_OFFSET = -0.691  # of the filter's gain at 997 Hz
_FADED_SECONDS = 0.25
_PART = 1 << 17  # samples that are filtered at a time
_HOPS = 4  # a gating block of 0.4 s starts every 0.1 s


class LoudnessMeter:
    """Integrated loudness by ITU-R BS.1770-4 of at most two channels.

    Args:
        sample_rate: Hz.
        channels: 1 or 2; one is measured as if it came from one loudspeaker.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._weigh = _Weighting(sample_rate, channels)
        self._hop = sample_rate / 10
        self._partial = np.zeros((channels, 0))  # squares of an unfinished hop
        self._energies: list[npt.NDArray[np.float64]] = []  # of each hop, per channel
        self._samples = 0

    def add(self, block: Wav) -> None:
        """Hear [C, S]; blocks of any size."""
        for part in np.array_split(block, max(1, block.shape[1] // _PART), axis=1):
            self._count(np.square(self._weigh(part)))

    def _count(self, squares: npt.NDArray[np.float64]) -> None:
        squares = np.concatenate([self._partial, squares], axis=1)
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


def loudness(wav: Wav, sample_rate: int) -> float:
    """Of a whole piece [C, S], as `LoudnessMeter` says it."""
    meter = LoudnessMeter(sample_rate, len(wav))
    meter.add(wav)
    return meter.value


class _Weighting:
    """The K weighting: a high shelf and a high pass, one after the other, as a product of spectra.

    Their responses fade by 120 dB in less than the samples that are kept from block to block. scipy filters, too, but its
    import takes longer than a minute of music to be filtered. Coefficients are those of Bristow-Johnson's cookbook, with
    which the standard's figures at 48 kHz hold at any rate.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._stages = [_high_shelf(sample_rate, 1500.0, 1 / math.sqrt(2), 4.0), _high_pass(sample_rate, 38.0, 0.5)]
        self._before = np.zeros((channels, round(_FADED_SECONDS * sample_rate)))
        self._gain = np.zeros(0, complex)  # at the frequencies of a spectrum, of the size that was needed last

    def __call__(self, block: Wav) -> npt.NDArray[np.float64]:
        """[C, S] to the same."""
        kept = self._before.shape[1]
        heard = np.concatenate([self._before, block], axis=1)
        size = 1 << (heard.shape[1] - 1).bit_length()
        if len(self._gain) != size // 2 + 1:
            delay = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
            self._gain = np.ones(len(delay), complex)
            for b, a in self._stages:
                self._gain *= np.polyval(b[::-1], delay) / np.polyval(a[::-1], delay)
        self._before = heard[:, heard.shape[1] - kept :]
        made: npt.NDArray[np.float64] = np.fft.irfft(np.fft.rfft(heard, size) * self._gain, size)
        return made[:, kept : heard.shape[1]]


def _high_shelf(rate: int, frequency: float, q: float, gain_db: float) -> tuple[list[float], list[float]]:
    """Coefficients of a second-order filter, of the input and of the output."""
    a, angle = 10 ** (gain_db / 40), 2 * math.pi * frequency / rate
    c, slope = math.cos(angle), math.sin(angle) / q * math.sqrt(a)
    return (
        [a * (a + 1 + (a - 1) * c + slope), -2 * a * (a - 1 + (a + 1) * c), a * (a + 1 + (a - 1) * c - slope)],
        [a + 1 - (a - 1) * c + slope, 2 * (a - 1 - (a + 1) * c), a + 1 - (a - 1) * c - slope],
    )


def _high_pass(rate: int, frequency: float, q: float) -> tuple[list[float], list[float]]:
    """Likewise."""
    angle = 2 * math.pi * frequency / rate
    c, width = math.cos(angle), math.sin(angle) / (2 * q)
    return [(1 + c) / 2, -(1 + c), (1 + c) / 2], [1 + width, -2 * c, 1 - width]


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
