"""Random crops of audio files as training batches; batch n is a function of (seed, n) alone, so runs resume exactly."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from longplay.data.manifest import Split
from longplay.errors import TrainingError


class Crops:
    """Draws mono crops of equal length, files weighted by their length.

    Args:
        files: path and length in seconds of each audio file.
        sample_rate: of the crops in Hz; files of another rate are resampled.
        seconds: length of a crop.
        split: of the files, for messages.

    Raises:
        TrainingError: no file is as long as a crop.
    """

    def __init__(
        self, files: Sequence[tuple[Path, float]], sample_rate: int, seconds: float, split: Split = "train"
    ) -> None:
        self.files = [(path, length) for path, length in files if length > seconds + 0.1]
        if not self.files:
            raise TrainingError(
                f"split {split}: none of its {len(files)} audio files is longer than a crop of {seconds:g} s; add longer ones"
            )
        self.sample_rate = sample_rate
        self.length = round(seconds * sample_rate)
        lengths = np.array([length for _, length in self.files])
        self.weights = lengths / lengths.sum()

    def batch(
        self, seed: int, index: int, size: int, augment: bool = True, rows: slice = slice(None)
    ) -> Float[Tensor, "B 1 S"]:
        """Batch `index` of the stream `seed`: wav [size, 1, S], or only some `rows` of it.

        `augment` draws a gain of -9 to +1 dB and a sign.

        Raises:
            TrainingError: a file cannot be read, or holds samples that are not finite.
        """
        rng = np.random.default_rng((seed, index))
        draws = []
        for choice in rng.choice(len(self.files), size, p=self.weights):
            position = rng.random()
            gain = 10 ** (rng.uniform(-9, 1) / 20) * rng.choice((-1, 1)) if augment else 1.0
            draws.append((self.files[choice][0], position, np.float32(gain)))
        crops = [torch.from_numpy(self._crop(path, position) * gain) for path, position, gain in draws[rows]]
        return torch.stack(crops).clamp(-1, 1).unsqueeze(1)

    def _crop(self, path: Path, position: float) -> np.ndarray:
        with _opened(path) as file:
            frames = -(-self.length * file.samplerate // self.sample_rate) + 1
            wav = _read(file, int(position * max(0, file.frames - frames)), frames, self.sample_rate)
        return _fit(wav, self.length)


def excerpt(path: Path, start: int, length: int, sample_rate: int) -> np.ndarray:
    """`length` samples [S] of a file, mono at `sample_rate`, from sample `start` at that rate on; silence around the file.

    Raises:
        TrainingError: the file cannot be read, or holds samples that are not finite.
    """
    with _opened(path) as file:
        rate = file.samplerate
        first = start * rate // sample_rate  # at or before `start`; what is more is cut off below
        wav = _read(file, first, -(-length * rate // sample_rate) + 2, sample_rate)
    return _fit(wav[round(start - first * sample_rate / rate) :], length)


@contextmanager
def _opened(path: Path) -> Iterator[sf.SoundFile]:
    try:
        with sf.SoundFile(path) as file:
            yield file
    except (sf.LibsndfileError, OSError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}); build the corpus again") from None


def _read(file: sf.SoundFile, first: int, count: int, sample_rate: int) -> np.ndarray:
    """`count` frames of a file from `first` on, silence before it, fewer at its end: mono [S], at `sample_rate`."""
    file.seek(min(max(0, first), file.frames))
    wav = file.read(max(0, count + min(0, first)), dtype="float32", always_2d=True).mean(1)
    if not np.isfinite(wav).all():
        raise TrainingError(
            f"{file.name}: holds samples that are not finite; mend it or take it out of the manifest, and start the run again"
        )
    wav = np.pad(wav, (max(0, -first), 0))
    return wav if file.samplerate == sample_rate else soxr.resample(wav, file.samplerate, sample_rate, quality="HQ")


def _fit(wav: np.ndarray, length: int) -> np.ndarray:
    """Cut or filled with silence at the end."""
    return np.pad(wav, (0, max(0, length - len(wav))))[:length].astype(np.float32)
