"""From a file to samples: by libsndfile or, for what that does not read, by FFmpeg, which the extra `m4a` brings along."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from longplay.audio.whole import cut_off
from longplay.errors import AudioError

Check = Callable[[int, int, int], None]
"""Is told frames, rate and channels before a file is decoded, and raises if that is too much."""

BY_SOUNDFILE = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64",
)  # fmt: skip
BY_FFMPEG = (".m4a", ".m4b", ".aac", ".wma", ".ape", ".wv", ".webm", ".mp4", ".mka", ".mov", ".mp2", ".tta")
NO_FILE = "File does not exist"  # says libsndfile of what is there, but is no MP3


class UndecodableError(AudioError):
    """A file's samples cannot be read; says why, without the path."""


def decode(path: Path, check: Check) -> tuple[npt.NDArray[np.float32], int]:
    """A file as float32 [C, S] and its rate in Hz; of several streams the first with sound.

    Raises:
        UndecodableError: the file is broken, cut off, or no audio that is known.
        AudioError: it does not exist, or needs FFmpeg, and that is not there; or `check` refuses it.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise AudioError(f"{path}: {kind}; give the path of an audio file")
    try:
        wav, rate = _by_ffmpeg(path, check) if path.suffix.lower() in BY_FFMPEG else _by_soundfile(path, check)
        missing = cut_off(path, wav.shape[1] / rate)
    except OSError as error:
        raise UndecodableError(error.strerror or str(error)) from None
    if missing:
        raise UndecodableError(missing)
    return wav, rate


def seconds_of(path: Path) -> float:
    """How long a file is, silence and all, as its header says.

    Raises:
        AudioError: as `decode`.
    """
    found: list[float] = []

    def look(frames: int, rate: int, channels: int) -> None:
        found.append(frames / rate)
        raise _SeenError

    with suppress(_SeenError):
        decode(path, look)
    return found[0]


class _SeenError(Exception):
    """The header has been read, which is enough."""


def _by_soundfile(path: Path, check: Check) -> tuple[npt.NDArray[np.float32], int]:
    try:
        with soundfile.SoundFile(path) as file:
            check(file.frames, file.samplerate, file.channels)
            return np.ascontiguousarray(file.read(dtype="float32", always_2d=True).T), int(file.samplerate)
    except soundfile.LibsndfileError as error:
        reason = str(error).rpartition(": ")[2].strip().rstrip(".")
        raise UndecodableError("no audio that is known" if reason.startswith(NO_FILE) else reason) from None


def _by_ffmpeg(path: Path, check: Check) -> tuple[npt.NDArray[np.float32], int]:
    try:
        import av
    except ImportError:
        raise AudioError(
            f"{path}: {path.suffix} files need FFmpeg: pip install 'longplay[m4a]' brings it, or convert it to FLAC"
        ) from None
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise UndecodableError("there is no sound in it")
            stream = container.streams.audio[0]
            seconds = (
                float((stream.duration or 0) * (stream.time_base or 0)) or (container.duration or 0) / av.time_base
            )
            check(round(seconds * stream.rate), stream.rate, stream.channels)
            planar = av.AudioResampler(format="fltp")
            blocks = [
                block.to_ndarray() for frame in [*container.decode(stream), None] for block in planar.resample(frame)
            ]
            return (
                np.concatenate([np.zeros((stream.channels, 0), np.float32), *blocks], axis=1),
                stream.rate,
            )
    except av.FFmpegError as error:
        raise UndecodableError(str(error.strerror)) from None
