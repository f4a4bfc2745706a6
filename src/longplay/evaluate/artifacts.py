"""What decoders and language models add of their own: hum at the frame rate, and silence."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

HUM_HZ = (600.0, 4000.0)
WINDOW_SECONDS = 1.4
AROUND_HZ = 45.0
SILENCE_DB = -60.0

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
