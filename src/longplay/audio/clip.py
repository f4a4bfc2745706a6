"""`Audio`: samples and their rate, checked once, never changed in place."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from longplay.audio import file, tags
from longplay.audio.file import Wav
from longplay.audio.resample import resample
from longplay.errors import AudioError

CANCELLED = 0.4  # a mean this much weaker than its louder channel has lost what they hold in opposite phase
SILENCE = 10 ** (-80 / 20)  # a peak of -80 dBFS: below the noise floor of any recording


@dataclass(frozen=True, eq=False)
class Audio:
    """A piece of audio.

    Attributes:
        wav: float32 [C, S], in [-1, 1], finite.
        sample_rate: Hz.
        recipe: how it was made (JSON values), if this package made it; `save` stores it in the file's tags.

    Raises:
        AudioError: wrong shape, no samples, or NaN or infinite samples.
    """

    wav: Wav
    sample_rate: int
    recipe: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        wav = np.ascontiguousarray(self.wav, dtype=np.float32)
        if wav.ndim != 2 or wav.size == 0:
            raise AudioError(f"audio of shape {list(wav.shape)}: expected [channels, samples], at least one of each")
        if not np.isfinite(wav).all():
            raise AudioError("audio holds NaN or infinite samples; if a model made it, load it with dtype float32")
        object.__setattr__(self, "wav", wav)

    @classmethod
    def load(cls, path: Path | str) -> "Audio":
        """Read a file of any format that libsndfile knows.

        Raises:
            AudioError: missing, broken, empty or too large.
        """
        wav, sample_rate = file.read(path)
        return cls(wav, sample_rate)

    @staticmethod
    def load_recipe(path: Path | str) -> dict[str, Any]:
        """The recipe in the tags of a file that this package wrote.

        Raises:
            AudioError: unreadable, or without a recipe.
        """
        return tags.read(path)

    def save(self, path: Path | str) -> None:
        """Write .wav or .flac (24 bit), .ogg or .mp3, with the recipe in its tags, atomically.

        Samples beyond [-1, 1] would clip: then the whole piece is scaled down to a peak of 1, and a warning logged.

        Raises:
            AudioError: the path cannot be written.
        """
        file.write(path, [self.wav], self.sample_rate, self.recipe)

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.wav.shape[1] / self.sample_rate

    @property
    def peak(self) -> float:
        """Largest absolute sample."""
        return float(max(self.wav.max(), -self.wav.min()))

    @property
    def digest(self) -> str:
        """SHA-256 over rate, shape and samples, hex."""
        head = f"{self.sample_rate} {self.wav.shape}".encode()
        return hashlib.sha256(head + self.wav.astype("<f4").tobytes()).hexdigest()

    @property
    def silent(self) -> bool:
        """Whether nothing can be heard."""
        return self.peak < SILENCE

    def mono(self) -> Wav:
        """One channel [1, S], by the rule of `to_mono`."""
        return to_mono(self.wav)[None]

    def resample(self, sample_rate: int) -> "Audio":
        """At another rate (soxr, high quality)."""
        return self.with_wav(resample(self.wav, self.sample_rate, sample_rate), sample_rate)

    def with_wav(self, wav: Wav, sample_rate: int | None = None) -> "Audio":
        """The same recipe over other samples."""
        return replace(self, wav=wav, sample_rate=sample_rate or self.sample_rate)


def to_mono(channels: Wav) -> Wav:
    """[C, S] to [S]: the mean of the channels, unless they cancel each other; then the loudest one."""
    mean = channels.mean(axis=0, dtype=np.float32)
    power = np.square(channels, dtype=np.float64).mean(axis=1)
    loudest = int(power.argmax())
    if np.square(mean, dtype=np.float64).mean() < CANCELLED**2 * power[loudest]:
        return channels[loudest].copy()
    return mean
