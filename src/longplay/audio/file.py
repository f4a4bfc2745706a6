"""Audio files: anything that `decode` reads -> float32 [C, S], and back as wav, flac (24 bit), ogg (Vorbis) or mp3."""

import logging
import math
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from longplay.audio import tags
from longplay.audio.decode import UndecodableError, decode
from longplay.errors import AudioError
from longplay.files import beside, replacing

logger = logging.getLogger(__name__)

Wav = npt.NDArray[np.float32]  # [C, S], in [-1, 1]

FORMATS = {
    ".wav": ("WAV", "PCM_24"),
    ".flac": ("FLAC", "PCM_24"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
MAX_SECONDS = 7200.0
MAX_VALUES = 2 * 48_000 * 7200  # two hours of 48 kHz stereo: 2.8 GB as float32
BLOCK = 1 << 16  # the Vorbis encoder keeps a whole call on the stack and overflows it on long ones
FULL_SCALE_24 = 1 << 23


def read(path: Path | str) -> tuple[Wav, int]:
    """Decode a file of any rate and number of channels.

    Returns:
        wav [C, S] and its sample rate in Hz.

    Raises:
        AudioError: the file is missing, broken, of an unknown format, empty, or longer than two hours.
    """
    path = Path(path)
    try:
        wav, rate = decode(path, partial(_check_size, path))
    except UndecodableError as error:
        raise AudioError(
            f"{path}: is broken or not audio ({error}); give a WAV, FLAC, OGG, MP3, AIFF, AU or M4A file"
        ) from None
    if wav.shape[1] == 0:
        raise AudioError(f"{path}: holds no samples; give a file with sound")
    if not np.isfinite(wav).all():
        raise AudioError(f"{path}: holds NaN or infinite samples; export it again")
    return wav, rate


def _check_size(path: Path, frames: int, rate: int, channels: int) -> None:
    if frames > MAX_SECONDS * rate or frames * channels > MAX_VALUES:
        raise AudioError(
            f"{path}: is too large ({frames / rate / 60:.0f} minutes, {channels} channels, {rate} Hz); "
            f"cut it to at most {MAX_SECONDS / 60:.0f} minutes of 48 kHz stereo"
        )


def check_output(path: Path | str) -> Path:
    """The path, if a file can be written there; call it before hours of work.

    Raises:
        AudioError: unknown extension, a missing or read-only folder, or a folder in the file's place.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise AudioError(f"{path}: unknown extension {path.suffix!r}; use one of {', '.join(FORMATS)}")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise AudioError(f"{path}: the folder {path.parent} does not exist; create it first")
    probe = beside(path)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise AudioError(f"{path}: cannot be written ({error.strerror}); choose another place") from None
    return path


def write(path: Path | str, blocks: Iterable[Wav], sample_rate: int, recipe: Mapping[str, Any] | None = None) -> None:
    """Encode a piece in the format of the extension; the file appears complete or not at all.

    Samples beyond [-1, 1] would clip: then the whole piece is scaled down to a peak of 1, and a warning logged.

    24-bit samples are rounded here and not by libsndfile, whose scale of 2^23 - 1 would change samples that came from
    a 16 or 24-bit file; so a file read and written again holds the same samples.

    Args:
        path: ends in .wav, .flac, .ogg or .mp3.
        blocks: [C, S], one after the other; gone through twice.
        sample_rate: Hz.
        recipe: how the audio was made, JSON values only; stored in the tags.

    Raises:
        AudioError: the path cannot be written, or the format refuses the rate or number of channels.
    """
    path = check_output(path)
    container, subtype = FORMATS[path.suffix.lower()]
    channels, peak = 0, 1.0
    for wav in blocks:
        channels, peak = wav.shape[0], max(peak, float(wav.max()), -float(wav.min()))
    if peak > 1:
        logger.warning("%s: scaled down by %.1f dB, it would clip", path, 20 * math.log10(peak))
    try:
        with replacing(path) as part:
            with soundfile.SoundFile(part, "w", sample_rate, channels, subtype, format=container) as file:
                for wav in blocks:
                    for start in range(0, wav.shape[1], BLOCK):
                        block = wav[:, start : start + BLOCK].T / peak
                        file.write(to_24_bit(block) if subtype == "PCM_24" else np.ascontiguousarray(block))
            if recipe is not None:
                tags.write(part, container, recipe)
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        raise AudioError(
            f"{path}: cannot be written as {container}, {sample_rate} Hz, {channels} channels ({error}); "
            "use .wav or .flac, or another place"
        ) from None


def to_24_bit(wav: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Samples as 24-bit integers in the upper bits of 32, as libsndfile takes them."""
    scaled = np.rint(wav.astype(np.float64) * FULL_SCALE_24)
    return np.ascontiguousarray(scaled.clip(-FULL_SCALE_24, FULL_SCALE_24 - 1).astype(np.int32) << 8)
