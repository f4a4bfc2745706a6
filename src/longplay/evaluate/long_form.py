"""Whether the last minute of long pieces is as good as the first: distance to real music, loops, noise, silence.

A minute is scored over all pieces at once, as the generated clips of `generation.py` are, so that minutes of one evaluation
compare with each other and with minutes of real music.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from longplay.audio import Audio
from longplay.data.musicnn import Listener
from longplay.evaluate.artifacts import silence
from longplay.evaluate.frechet import frechet_distance
from longplay.evaluate.report import Row
from longplay.nn.mel import MelSpectrogram

SAMPLE_RATE = 16000
HOP = 800  # 20 frames a second
BANDS = 32
SAME_DB = 2.0  # differences below it are those of one sound made twice
LOOK_BACK_SECONDS = 30
RANGE_DB = 60.0  # below the loudest moment of the piece everything is silent

Wav = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LongForm:
    """How many pieces, how long each is in seconds, and the length of the stretches that are scored."""

    pieces: int = 6
    seconds: float = 480.0
    stretch: float = 60.0


class Sounds(NamedTuple):
    """Mono waves [S] of one sample rate."""

    wavs: Sequence[Wav]
    sample_rate: int


def cut(wav: Wav, sample_rate: int, seconds: float) -> list[Wav]:
    """Successive stretches of a piece [S]; a rest shorter than half of one is dropped, a longer one kept."""
    size = round(seconds * sample_rate)
    return [wav[start : start + size] for start in range(0, len(wav), size) if len(wav) - start >= size / 2]


def bands(wav: Wav, sample_rate: int) -> npt.NDArray[np.float64]:
    """Level in dB of mel bands [T, 32], 20 frames a second, floored 60 dB below the loudest."""
    audio = Audio(wav[None], sample_rate).resample(SAMPLE_RATE)
    mel = MelSpectrogram(SAMPLE_RATE, 2 * HOP, HOP, BANDS)
    power = mel(mel.spectrum(torch.from_numpy(audio.wav)).abs().square())[0].T.double().numpy()
    level = 10 * np.log10(power + 1e-10)
    return np.maximum(level, level.max() - RANGE_DB)


def loops(level: npt.NDArray[np.float64]) -> float:
    """Share of the seconds of a piece, as `bands`, that a stretch within the 30 s before already was, within 2 dB.

    A lag counts from one second on. Steady sound repeats itself, too: seconds whose own frames differ by less than that
    are left out of both counts.
    """
    second = SAMPLE_RATE // HOP
    found, moving = 0, 0
    for start in range(second, len(level) - second + 1, second):
        now = level[start : start + second]
        if np.sqrt(np.square(now - now.mean(0)).mean()) < SAME_DB:
            continue
        moving += 1
        first = max(0, start - LOOK_BACK_SECONDS * second)
        before = np.lib.stride_tricks.sliding_window_view(level[first:start], second, axis=0)  # [N, 32, second]
        found += bool((np.sqrt(np.square(before - now.T).mean((1, 2))) < SAME_DB).any())
    return found / moving if moving else 0.0


def flatness(level: npt.NDArray[np.float64]) -> float:
    """How far the geometric mean over bands lies below the arithmetic one, in dB, mean over frames: near 0 for noise."""
    return float(np.mean(level.mean(1) - 10 * np.log10((10 ** (level / 10)).mean(1))))


def long_form_rows(
    made: Sounds, real: Sounds, reference: npt.NDArray[np.float32], listener: Listener, stretch: float
) -> tuple[list[Row], dict[str, float]]:
    """A row for each stretch of generated pieces and one for real music; and the last stretch over the first.

    Args:
        made: pieces of one length.
        real: single stretches, as many as pieces.
        reference: embeddings [n, D] of other real music.
        listener: whose embeddings the Frechet distance is of.
        stretch: in seconds.

    Raises:
        ValueError: the pieces are shorter than a stretch and a half.
    """
    stretches = list(zip(*(cut(wav, made.sample_rate, stretch) for wav in made.wavs), strict=False))
    if len(stretches) < 2:
        raise ValueError(f"pieces of one stretch of {stretch:g} s: use at least two")
    rows = []
    for number, wavs in enumerate(stretches):
        name = f"from {number * stretch:g} s"
        rows.append(_row(name, Sounds(wavs, made.sample_rate), reference, listener))
    ratio = rows[-1].values["frechet"] / rows[0].values["frechet"]
    return [*rows, _row("real", real, reference, listener)], {"last_to_first": ratio}


def _row(name: str, sounds: Sounds, reference: npt.NDArray[np.float32], listener: Listener) -> Row:
    wavs, rate = sounds
    levels = [bands(wav, rate) for wav in wavs]
    values = {
        "frechet": frechet_distance(reference, listener.embed(wavs, rate)),
        "loops": float(np.mean([loops(level) for level in levels])),
        "flatness_db": float(np.mean([flatness(level) for level in levels])),
        "level_db": float(np.mean([10 * np.log10(np.square(wav, dtype=np.float64).mean() + 1e-12) for wav in wavs])),
        "silent": silence(wavs, rate),
    }
    return Row(name, values)
