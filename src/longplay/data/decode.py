"""From a file of any kind to the corpus form: 48 kHz, mono, trimmed, at an even loudness, 16 bits."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from longplay.address import Location
from longplay.audio.clip import to_mono
from longplay.audio.decode import UndecodableError, decode
from longplay.audio.meters import loudness
from longplay.data.manifest import SAMPLE_RATE
from longplay.data.quality import Channels, Quality, inspect
from longplay.errors import AudioError
from longplay.files import fetched, write_bytes
from longplay.prompt import MAX_SECONDS

LOUDNESS = -16.0  # LUFS
PEAK = 10 ** (-1 / 20)  # -1 dBFS
SILENCE = 10 ** (-60 / 20)  # of the loudest frame
FRAME_SECONDS = 0.05

Wav = npt.NDArray[np.float32]  # [S], in [-1, 1]


class Prepared(NamedTuple):
    """A recording in corpus form: `wav` [S] at 48 kHz, the seconds cut off before it, and what the file was like."""

    wav: Wav
    lead: float
    quality: Quality


def read(path: Location) -> tuple[Channels, int]:
    """A file as channels [C, S] and its sample rate.

    Raises:
        AudioError: the file does not exist, cannot be decoded, is cut off, empty or longer than two hours, or holds NaN.
    """

    def check(frames: int, rate: int, channels: int) -> None:
        if frames > MAX_SECONDS * rate:
            raise AudioError(
                f"{path}: lasts {frames / rate / 3600:.1f} h; cut it into pieces of up to {MAX_SECONDS / 3600:g} h"
            )

    with fetched(path) as here:
        try:
            wav, rate = decode(here, check)
        except UndecodableError as error:
            raise AudioError(
                f"{path}: cannot be decoded ({error}); get it again, convert it to WAV or FLAC, or leave it out"
            ) from None
        except AudioError as error:
            raise AudioError(str(error).replace(str(here), str(path))) from None
    if not wav.shape[1]:
        raise AudioError(f"{path}: holds no samples; leave it out")
    if not np.isfinite(wav).all():
        raise AudioError(f"{path}: holds NaN or infinite samples; export it again")
    return wav, rate


def read_mono(path: Location) -> tuple[Wav, int]:
    """A file as mono [S] and its sample rate.

    Raises:
        AudioError: as `read`.
    """
    channels, rate = read(path)
    return to_mono(channels), rate


def sounding(wav: Wav, rate: int) -> tuple[int, int]:
    """First and last sample of what is not silence before and after; (0, 0) if all is silent."""
    frame = int(rate * FRAME_SECONDS)
    count = len(wav) // frame
    levels = np.sqrt(np.square(wav[: count * frame].reshape(count, frame), dtype=np.float64).mean(axis=1))
    if count == 0 or levels.max() < SILENCE:
        return 0, 0
    heard = np.flatnonzero(levels > SILENCE * levels.max())
    return int(heard[0]) * frame, int(heard[-1] + 1) * frame


def normalize(wav: Wav, rate: int) -> Wav:
    """At -16 LUFS, or as near below it as a peak of -1 dBFS allows: nothing is compressed or clipped."""
    gain = min(10 ** ((LOUDNESS - loudness(wav[None], rate)) / 20), PEAK / float(np.abs(wav).max()))
    return (wav * gain).astype(np.float32)


def prepare(paths: Sequence[Location]) -> Prepared:
    """The sum of `paths` (stems, or one file) in corpus form; an empty wav if all of it is silent.

    Raises:
        AudioError: a file cannot be decoded.
    """
    files = [read(path) for path in paths]
    mix = mixed([soxr.resample(to_mono(channels), rate, SAMPLE_RATE) for channels, rate in files])
    quality = inspect(*files[0]) if len(files) == 1 else inspect(mix[None], SAMPLE_RATE)
    start, end = sounding(mix, SAMPLE_RATE)
    wav = mix[start:end]
    return Prepared(normalize(wav, SAMPLE_RATE) if len(wav) else wav, start / SAMPLE_RATE, quality)


def mixed(stems: Sequence[Wav]) -> Wav:
    """The sum of stems that start together."""
    mix = np.zeros(max(map(len, stems)), np.float32)
    for stem in stems:
        mix[: len(stem)] += stem
    return mix


def write_wav(path: Location, wav: Wav) -> None:
    """Write 16-bit PCM at 48 kHz; the file appears complete or not at all.

    Raises:
        OSError: as `write_bytes`.
    """
    whole = io.BytesIO()  # libsndfile would not say why a disk takes no more
    soundfile.write(whole, wav, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    write_bytes(path, whole.getbuffer())
