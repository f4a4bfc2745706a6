"""The clips that everything is measured on: the same ones for every model, spread over all tracks of a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longplay.audio import Audio
from longplay.data.manifest import Split, Track, read_manifest
from longplay.errors import UserError

GOLDEN = 0.6180339887498949  # its multiples spread over [0, 1) evenly, however many are taken
MIN_LEVEL = 10 ** (-60 / 20)  # quieter stretches say nothing about a model

Wav = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Clip:
    """A stretch of a track.

    Attributes:
        track: where it comes from, with captions and facts.
        start: in seconds.
        wav: [S] mono at `sample_rate`.
    """

    track: Track
    start: float
    wav: Wav
    sample_rate: int

    def at(self, sample_rate: int) -> Wav:
        """The samples [S'] at another rate."""
        return Audio(self.wav[None], self.sample_rate).resample(sample_rate).wav[0]


def eligible_tracks(manifest: Path, split: Split, seconds: float) -> list[Track]:
    """Recorded (not rendered) tracks of a split that hold a clip of `seconds`, sorted by id.

    Raises:
        ConfigError: the manifest cannot be read.
        UserError: no such track.
    """
    tracks = [t for t in read_manifest(manifest) if t.split == split and t.kind == "real" and t.seconds >= seconds]
    if not tracks:
        raise UserError(
            f"{manifest}: no recorded track of {seconds:g} s or more in the split {split!r}; build the corpus"
        )
    return sorted(tracks, key=lambda track: track.id)


def cut_clips(manifest: Path, tracks: Sequence[Track], count: int, seconds: float) -> list[Clip]:
    """`count` clips, as evenly over the tracks as can be; silent stretches are passed over.

    The clips are sorted by track and time, and are the same on every machine; fewer than `count` come back only if
    the tracks hold less music.

    Raises:
        AudioError: a file of the manifest cannot be read.
    """
    each, rest = divmod(count, len(tracks))
    shares = -(-np.arange(len(tracks) + 1) * rest // len(tracks))  # the remainder is spread evenly over the tracks
    clips: list[Clip] = []
    for track, share in zip(tracks, np.diff(shares), strict=True):
        wanted = each + int(share)
        if wanted:
            clips += _cut(Audio.load(manifest.parent / track.path), track, wanted, seconds)
    return clips


def _cut(audio: Audio, track: Track, count: int, seconds: float) -> list[Clip]:
    wav, rate = audio.mono()[0], audio.sample_rate
    length = round(seconds * rate)
    room = len(wav) - length
    found: dict[int, Wav] = {}
    for turn in range(1, 4 * count + 1):
        start = int(turn * GOLDEN % 1 * (room + 1))
        piece = wav[start : start + length]
        if len(found) < count and all(abs(start - other) >= length for other in found) and _level(piece) > MIN_LEVEL:
            found[start] = piece
    return [Clip(track, start / rate, found[start].copy(), rate) for start in sorted(found)]


def _level(wav: Wav) -> float:
    return float(np.sqrt(np.square(wav, dtype=np.float64).mean()))
