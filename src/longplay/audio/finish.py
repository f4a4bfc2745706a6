"""What happens to a finished piece before it is written: trim, fade-out, two channels, loudness.

Everything works on blocks [C, S] of a piece that can be gone through again, so that its length costs no memory.
"""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from longplay.audio.clip import Audio
from longplay.audio.file import Wav
from longplay.audio.meters import LoudnessMeter, PeakMeter
from longplay.config import Config

logger = logging.getLogger(__name__)

SILENT = 10 ** (-50 / 20)
PEAK = 10 ** (-1 / 20)  # -1 dBFS: room for what lossy encoders and converters add between samples
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
        made = np.concatenate(list(self.finished([audio.wav], audio.sample_rate, protect)), axis=1)
        recipe = None if audio.recipe is None else {**audio.recipe, "finish": self.dump()}
        return Audio(made, audio.sample_rate, recipe)

    def finished(self, blocks: Iterable[Wav], sample_rate: int, protect: float = 0.0) -> "Finished":
        """The piece with these settings, in blocks, as `apply` makes it; `blocks` are gone through a few times."""
        kept = round(protect * sample_rate)
        end = music_end(blocks, sample_rate, kept) if self.trim else sum(block.shape[1] for block in blocks)
        fade = min(int(self.fade * sample_rate), max(0, end - kept))
        shaped = Finished(blocks, end, fade)
        return (
            shaped if self.loudness is None else Finished(blocks, end, fade, gain(shaped, sample_rate, self.loudness))
        )


@dataclass(frozen=True)
class Finished:
    """A piece that was trimmed, faded and brought to a level: iterate over its blocks, of two channels or more.

    Attributes:
        blocks: [C, S], of the piece as it was.
        end: samples that are left.
        fade: samples before the end over which it falls linearly to zero.
        factor: of all samples.
    """

    blocks: Iterable[Wav]
    end: int
    fade: int
    factor: np.float32 | None = None

    def __iter__(self) -> Iterator[Wav]:
        line = np.linspace(1, 0, self.fade, dtype=np.float32)
        position = 0
        for block in self.blocks:
            wav = block[:, : max(0, self.end - position)]
            first = self.end - self.fade - position  # of the fade, in this block
            position += block.shape[1]
            if not wav.shape[1]:
                continue
            if self.fade and first < wav.shape[1]:
                wav = wav.copy()
                start = max(0, first)
                wav[:, start:] *= line[start - first : wav.shape[1] - first]
            if self.factor is not None:
                wav = wav * self.factor
            yield np.broadcast_to(wav, (max(2, wav.shape[0]), wav.shape[1]))


def music_end(blocks: Iterable[Wav], sample_rate: int, protect: int = 0) -> int:
    """The sample where the first pause of 0.8 s starts, after the first second and after `protect` samples, or the end.

    The published rule (|x| < 0.05 on every sample; it slices channels instead of time, so it never acts) would cut at
    any quiet passage; here a pause is 40 dB below the peak of the piece.
    """
    level = TRIM_LEVEL * max(float(np.abs(block).max(initial=0.0)) for block in blocks)
    pause = TRIM_SECONDS * sample_rate
    heard = max(int(TRIM_AFTER_SECONDS * sample_rate), protect) - 1  # the last sample that is no pause, so far
    total = 0
    for block in blocks:
        loud = np.flatnonzero(np.abs(block).max(axis=0) >= level) + total
        total += block.shape[1]
        marks = np.concatenate([[heard], loud[loud > heard]])
        pauses = np.flatnonzero(np.diff(marks) > pause)
        if pauses.size:
            return int(marks[pauses[0]]) + 1
        heard = int(marks[-1])
    return heard + 1 if total - heard - 1 >= pause else total


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


def gain(blocks: Iterable[Wav], sample_rate: int, loudness: float) -> np.float32:
    """The factor that brings a piece in blocks [C, S] to `loudness`, its true peak below the ceiling.

    Audio shorter than 0.4 s or below the gate of -70 LUFS has no loudness and gets only the ceiling; of silence a warning
    is logged, since a model may make it where music was asked for.
    """
    measured, peak = measure(blocks, sample_rate)
    if not np.isfinite(measured) and peak < SILENT:
        logger.warning(
            "the piece is silent (peak %.0f dBFS); try another seed, or other words", 20 * math.log10(max(peak, 1e-9))
        )
    ceiling = PEAK / max(peak, 1e-9)
    return np.float32(min(ceiling, 10 ** ((loudness - measured) / 20)) if np.isfinite(measured) else min(ceiling, 1.0))


def measure(blocks: Iterable[Wav], sample_rate: int) -> tuple[float, float]:
    """Integrated loudness in LUFS, of the first two channels, and true peak of all, of a piece in blocks [C, S]."""
    loudness: LoudnessMeter | None = None
    peak: PeakMeter | None = None
    for block in blocks:
        if loudness is None or peak is None:
            loudness, peak = LoudnessMeter(sample_rate, min(2, len(block))), PeakMeter(sample_rate, len(block))
        loudness.add(block[:2])
        peak.add(block)
    return (-np.inf, 0.0) if loudness is None or peak is None else (loudness.value, peak.end())
