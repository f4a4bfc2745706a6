"""What decoders and language models add of their own: hum at the frame rate, silence, and sounds that stand still."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

HUM_HZ = (600.0, 4000.0)
WINDOW_SECONDS = 1.4
AROUND_HZ = 45.0
SILENCE_DB = -60.0
STILL_SECONDS = 4
STILL_DB = 2.0
STILL_BANDS = 12
STILL_FRAMES = 50  # per second

Wav = npt.NDArray[np.float32]


def hum(wavs: Sequence[Wav], sample_rate: int, frame_rate: float) -> float:
    """How far power at multiples of the frame rate stands above its surroundings, in dB; the median over clips [S].

    Of the multiples between 600 and 4,000 Hz, the median; white noise and recordings have 1 to 2 dB, the largest of five bins.

    Raises:
        ValueError: a clip is shorter than 1.4 s, or no multiple lies in that range.
    """
    size = round(WINDOW_SECONDS * sample_rate)
    first, last = math.ceil(HUM_HZ[0] / frame_rate), math.floor(min(HUM_HZ[1], 0.45 * sample_rate) / frame_rate)
    if last < first or any(len(wav) < size for wav in wavs):
        raise ValueError(f"hum: needs clips of {WINDOW_SECONDS} s, and multiples of {frame_rate:g} Hz in {HUM_HZ} Hz")
    window = np.hanning(size)
    around = round(min(AROUND_HZ, 0.3 * frame_rate) * size / sample_rate)
    found = []
    for wav in wavs:
        frames = np.lib.stride_tricks.sliding_window_view(wav, size)[:: size // 2]
        power = (np.abs(np.fft.rfft(frames * window)) ** 2).sum(0) + 1e-12
        places = [round(multiple * frame_rate * size / sample_rate) for multiple in range(first, last + 1)]
        rises = [power[at - 2 : at + 3].max() / np.median(power[at - around : at + around + 1]) for at in places]
        found.append(10 * math.log10(float(np.median(rises))))
    return float(np.median(found))


def silence(wavs: Sequence[Wav], sample_rate: int) -> float:
    """Share of the seconds of all clips [S] below -60 dB of full scale (RMS); what is left of a second counts as one."""
    seconds = [wav[start : start + sample_rate] for wav in wavs for start in range(0, len(wav), sample_rate)]
    limit = 10 ** (SILENCE_DB / 20)
    return float(np.mean([np.sqrt(np.mean(np.square(second, dtype=np.float64))) < limit for second in seconds]))


def still(wavs: Sequence[Wav], sample_rate: int) -> float:
    """Share of the whole seconds of all clips [S] in which nothing begins, three more such seconds beside it: drones, held sounds, silence.

    In such a second, 12 bands never get louder by 2 dB in the mean from one 20 ms to the next; what is below -60 dB does not count.
    """
    found = []
    for wav in wavs:
        quiet = _rises(wav, sample_rate) < STILL_DB
        edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(int), [0]])))
        lengths = edges[1::2] - edges[::2]
        found.append((lengths[lengths >= STILL_SECONDS].sum(), len(quiet)))
    lasting, seconds = np.sum(found, axis=0)
    return float(lasting / max(1, seconds))


def _rises(wav: Wav, sample_rate: int) -> npt.NDArray[np.float64]:
    """By how many dB bands get louder from frame to frame, at most, in each whole second."""
    size = sample_rate // STILL_FRAMES
    count = len(wav) // sample_rate * STILL_FRAMES
    window = np.hanning(size)
    power = np.abs(np.fft.rfft(wav[: count * size].reshape(count, size) * window * (2 / window.sum()))) ** 2
    first = np.unique(np.geomspace(1, power.shape[1] - 1, STILL_BANDS).astype(int))
    levels = 10 * np.log10(np.add.reduceat(power, first, axis=1) + 10 ** (SILENCE_DB / 10))
    rises = np.maximum(np.diff(levels, axis=0, prepend=levels[:1]), 0).mean(1)
    return rises.reshape(-1, STILL_FRAMES).max(axis=1)
