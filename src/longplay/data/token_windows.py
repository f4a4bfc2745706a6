"""Windows of token shards as training batches of `lm` and `flow`; batch n is a function of (seed, n) alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from longplay.errors import TrainingError
from longplay.prompt import Section, parse_sections


@dataclass(frozen=True)
class TokenTrack:
    """One piece: `semantic` [T] at the tokenizer's rate, `acoustic` [K, T'] at the codec's, and what is said of it.

    K is 0 where the shard was made without a codec.
    """

    utt: str
    semantic: np.ndarray
    acoustic: np.ndarray
    captions: tuple[str, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class TokenWindow:
    """A stretch of a piece. `ends` is true where the window reaches the end of the piece."""

    track: TokenTrack
    start: int
    semantic: np.ndarray
    caption: str
    ends: bool


def read_token_tracks(folder: Path, split: str) -> list[TokenTrack]:
    """The tracks of one split in the shards of `folder`.

    Raises:
        TrainingError: there is no shard, or none has a track of the split.
    """
    shards = sorted(folder.glob("*.parquet"))
    if not shards:
        raise TrainingError(f"{folder}: holds no token shard (*.parquet); make them with `longplay train tokens`")
    tracks = [track for shard in shards for track in _read_shard(shard, split)]
    if not tracks:
        raise TrainingError(
            f"{folder}: no track of split {split!r} in {len(shards)} shards; check the manifest's splits"
        )
    return tracks


def _read_shard(path: Path, split: str) -> Iterator[TokenTrack]:
    try:
        table = pq.read_table(path, filters=[("split", "=", split)])
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{path}: is no token shard ({reason}); delete it and make it again with `longplay train tokens`"
        ) from None
    for index, row in enumerate(table.select(["utt", "captions", "sections"]).to_pylist()):
        semantic = table["semantic_token"][index].values.flatten().to_numpy(zero_copy_only=False)
        acoustic = table["acoustic_token"][index].values
        width = len(acoustic[0]) if len(acoustic) else 0
        yield TokenTrack(
            utt=row["utt"],
            semantic=semantic.astype(np.int16),
            acoustic=acoustic.flatten().to_numpy(zero_copy_only=False).reshape(len(acoustic), width).T.astype(np.int16),
            captions=tuple(row["captions"]),
            sections=parse_sections(row["sections"]),
        )


class TokenWindows:
    """Draws windows of `frames` tokenizer codes, pieces weighted by their length."""

    def __init__(self, tracks: list[TokenTrack], frames: int) -> None:
        self.tracks = [track for track in tracks if len(track.semantic) >= frames]
        if not self.tracks:
            raise TrainingError(f"none of {len(tracks)} pieces has {frames} codes; shorten the window")
        self.frames = frames
        lengths = np.array([len(track.semantic) for track in self.tracks], dtype=np.float64)
        self.weights = lengths / lengths.sum()

    def batch(self, seed: int, index: int, size: int) -> list[TokenWindow]:
        """Windows of batch `index`; a start, an end and any caption of the piece are as likely as their share of it."""
        rng = np.random.default_rng((seed, index))
        return [self._window(self.tracks[choice], rng) for choice in rng.choice(len(self.tracks), size, p=self.weights)]

    def _window(self, track: TokenTrack, rng: np.random.Generator) -> TokenWindow:
        length = len(track.semantic)
        # drawn from a range half a window wider on both sides, so that beginnings and endings are not rare
        start = int(np.clip(rng.integers(-self.frames // 2, length - self.frames // 2), 0, length - self.frames))
        return TokenWindow(
            track=track,
            start=start,
            semantic=track.semantic[start : start + self.frames],
            caption=str(rng.choice(track.captions)),
            ends=start + self.frames == length,
        )
