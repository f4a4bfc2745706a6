"""From a file of any kind to the corpus form: 48 kHz, mono, trimmed, at an even loudness, 16 bits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyloudnorm
import soundfile
import soxr

from longplay.audio.clip import to_mono
from longplay.data.manifest import SAMPLE_RATE
from longplay.errors import AudioError

LOUDNESS = -16.0  # LUFS
PEAK = 10 ** (-1 / 20)  # -1 dBFS
SILENCE = 10 ** (-60 / 20)  # of the loudest frame
FRAME_SECONDS = 0.05
MIN_SECONDS = 10.0

Wav = npt.NDArray[np.float32]  # [S], in [-1, 1]


def read_mono(path: Path) -> tuple[Wav, int]:
    """A file as mono [S] and its sample rate.

    Raises:
        AudioError: the file cannot be decoded.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{path}: cannot be decoded ({error}); extract it again or drop it from the list") from None
    return to_mono(samples.T), rate


def trim(wav: Wav, rate: int) -> Wav:
    """Without the silence before and after; empty if all is silent."""
    frame = int(rate * FRAME_SECONDS)
    count = len(wav) // frame
    levels = np.sqrt(np.square(wav[: count * frame].reshape(count, frame), dtype=np.float64).mean(axis=1))
    if count == 0 or levels.max() < SILENCE:
        return wav[:0]
    heard = np.flatnonzero(levels > SILENCE * levels.max())
    return wav[heard[0] * frame : (heard[-1] + 1) * frame]


def normalize(wav: Wav, rate: int) -> Wav:
    """At -16 LUFS, or as near below it as a peak of -1 dBFS allows: nothing is compressed or clipped."""
    loudness = pyloudnorm.Meter(rate).integrated_loudness(wav)
    gain = min(10 ** ((LOUDNESS - loudness) / 20), PEAK / float(np.abs(wav).max()))
    return (wav * gain).astype(np.float32)


def prepare(paths: Sequence[Path]) -> Wav | None:
    """The sum of `paths` (stems, or one file) in corpus form, [S] at 48 kHz; None if under 10 s of it sound.

    Raises:
        AudioError: a file cannot be decoded.
    """
    stems = [soxr.resample(wav, rate, SAMPLE_RATE) for wav, rate in map(read_mono, paths)]
    mix = np.zeros(max(map(len, stems)), np.float32)
    for stem in stems:
        mix[: len(stem)] += stem
    wav = trim(mix, SAMPLE_RATE)
    return normalize(wav, SAMPLE_RATE) if len(wav) >= MIN_SECONDS * SAMPLE_RATE else None


def write_wav(path: Path, wav: Wav) -> None:
    """Write 16-bit PCM at 48 kHz; the file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    soundfile.write(part, wav, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    part.replace(path)
