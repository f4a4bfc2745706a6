"""What happens to a finished piece before it is written: trim, fade-out, two channels, loudness."""

import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import pyloudnorm
from pydantic import Field

from longplay.audio.clip import Audio
from longplay.audio.file import Wav
from longplay.audio.resample import resample
from longplay.config import Config

PEAK = 10 ** (-1 / 20)  # -1 dBFS: room for what lossy encoders and converters add between samples
OVERSAMPLING = 4
GATE_SECONDS = 0.4  # one gating block of ITU-R BS.1770; anything shorter has no loudness
TRIM_LEVEL = 10 ** (-40 / 20)  # of the peak
TRIM_SECONDS = 0.8
TRIM_AFTER_SECONDS = 1.0


class Finish(Config):
    """Settings of the last step.

    Attributes:
        loudness: integrated loudness in LUFS (ITU-R BS.1770), as near to it as a true peak of -1 dBFS allows; nothing
            is compressed. None: the level stays as it is.
        fade: seconds of linear fade-out, the whole piece if it is shorter (CHECKPOINTS.md 3.7).
        trim: cut at the first pause of 0.8 s, i.e. where the music has ended.
    """

    loudness: float | None = Field(default=-14.0, ge=-60, le=-5)
    fade: float = Field(default=1.0, ge=0, le=60)
    trim: bool = False

    def apply(self, audio: Audio, protect: float = 0.0) -> Audio:
        """A new piece, with at least two channels, and with these settings in its recipe.

        Args:
            audio: the piece.
            protect: seconds at its start that neither trim nor fade may touch: those of an audio prompt.
        """
        rate = audio.sample_rate
        kept = round(protect * rate)
        wav = trim(audio.wav, rate, kept) if self.trim else audio.wav
        wav = np.concatenate([wav[:, :kept], fade_out(wav[:, kept:], rate, self.fade)], axis=1)
        channels = max(2, wav.shape[0])
        if self.loudness is not None:
            wav = wav * np.float32(gain(wav, rate, self.loudness, channels))
        recipe = None if audio.recipe is None else {**audio.recipe, "finish": self.dump()}
        return Audio(np.broadcast_to(wav, (channels, wav.shape[1])), rate, recipe)


def trim(wav: Wav, sample_rate: int, protect: int = 0) -> Wav:
    """Cut [C, S] at the first pause of 0.8 s that starts after its first second, and after `protect` samples.

    The published rule (|x| < 0.05 on every sample; it slices channels instead of time, so it never acts) would cut at
    any quiet passage; here a pause is 40 dB below the peak of the piece.
    """
    quiet = np.abs(wav).max(axis=0) < TRIM_LEVEL * np.abs(wav).max()
    first = max(int(TRIM_AFTER_SECONDS * sample_rate), protect)
    edges = np.flatnonzero(np.diff(quiet[first:].astype(np.int8), prepend=0, append=0)) + first
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start >= TRIM_SECONDS * sample_rate:
            return wav[:, :start]
    return wav


def fade_out(wav: Wav, sample_rate: int, seconds: float) -> Wav:
    """A copy of [C, S] that falls linearly to zero over its last `seconds`."""
    count = min(int(seconds * sample_rate), wav.shape[1])
    faded = wav.copy()
    if count:
        faded[:, -count:] *= np.linspace(1, 0, count, dtype=np.float32)
    return faded


def fade_stream(chunks: Iterable[Wav], sample_rate: int, seconds: float) -> Iterator[Wav]:
    """`fade_out` for a piece that comes in chunks [C, S]: the last `seconds` are held back until it is known to end."""
    count = int(seconds * sample_rate)
    held: Wav | None = None
    for chunk in chunks:
        held = chunk if held is None else np.concatenate([held, chunk], axis=1)
        if held.shape[1] > count:
            ready, held = np.split(held, [held.shape[1] - count], axis=1)
            yield ready
    if held is not None:
        yield fade_out(held, sample_rate, seconds)


def gain(wav: Wav, sample_rate: int, loudness: float, channels: int) -> float:
    """The factor that brings [C, S], played on `channels` equal or given channels, to `loudness` below the ceiling.

    Audio shorter than 0.4 s or below the gate of -70 LUFS has no loudness and gets only the ceiling.
    """
    ceiling = PEAK / max(true_peak(wav, sample_rate), 1e-9)
    measured = measure_loudness(np.broadcast_to(wav, (channels, wav.shape[1])), sample_rate)
    return min(ceiling, 10 ** ((loudness - measured) / 20)) if np.isfinite(measured) else min(ceiling, 1.0)


def measure_loudness(wav: Wav, sample_rate: int) -> float:
    """Integrated loudness of [C, S] in LUFS; -inf where there is none. Of more than two channels, the first two."""
    if wav.shape[1] < GATE_SECONDS * sample_rate:
        return -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the log of a gated block of zeros
        return float(pyloudnorm.Meter(sample_rate).integrated_loudness(wav[:2].T.astype(np.float64)))


def true_peak(wav: Wav, sample_rate: int) -> float:
    """The peak between the samples of [C, S], by four times oversampling."""
    between = resample(wav, sample_rate, OVERSAMPLING * sample_rate)
    return float(max(np.abs(between).max(), np.abs(wav).max()))
