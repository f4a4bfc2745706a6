"""Windows of token shards as training batches of `lm` and `flow`; batch n is a function of (seed, n) alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from longplay.chords import Chord, TimedChord
from longplay.control import Control
from longplay.data.intake import PUBLISHED_LABELS
from longplay.data.manifest import Split
from longplay.data.recordings import hashed_splits
from longplay.data.shards import SCHEMA_VERSION
from longplay.data.storage import Folder, open_folder
from longplay.errors import TrainingError
from longplay.prompt import MAX_SECONDS, Section, parse_sections

REQUIRED = ("utt", "text", "semantic_token")
PUBLISHED_VALID_SHARE = 0.05
SHARDS = (".parquet", ".tar")


class ShardKind(NamedTuple):
    """What messages call a shard, and the lack of any, and the command that makes them."""

    one: str
    several: str
    command: str


TOKENS = ShardKind("token shard", "token shard (*.parquet)", "longplay train tokens")
TAKES = ShardKind("shard of takes", "takes", "longplay train takes")


@dataclass(frozen=True)
class TokenTrack:
    """One piece: `semantic` [T] at the tokenizer's rate, `acoustic` [K, T'] at the codec's, and what is said of it.

    K is 0 where the shard was made without a codec. A clip of a song starts at its `offset` seconds, and its sections
    and bars have the times of the song. `passages` are its parts in order: the number of the first code, and captions.
    """

    utt: str
    semantic: np.ndarray
    acoustic: np.ndarray
    captions: tuple[str, ...]
    sections: tuple[Section, ...]
    offset: float = 0.0
    control: Control = field(default_factory=Control)
    passages: tuple[tuple[int, tuple[str, ...]], ...] = ()

    @property
    def every_caption(self) -> tuple[str, ...]:
        """What is said of the piece and of its passages."""
        return (*self.captions, *(caption for _, captions in self.passages for caption in captions))

    def captions_at(self, number: int) -> tuple[str, ...]:
        """What is said of the piece, and of the passage that one of its codes is in."""
        of_passage = next((captions for first, captions in reversed(self.passages) if first <= number), ())
        return (*self.captions, *of_passage)


@dataclass(frozen=True)
class TokenWindow:
    """A stretch of a piece. `ends` is true where the window reaches the end of the piece."""

    track: TokenTrack
    start: int
    semantic: np.ndarray
    caption: str
    ends: bool


def read_token_tracks(folder: Path | str, split: Split) -> list[TokenTrack]:
    """The tracks of one split in the shards of `folder`, a path or an address that fsspec knows.

    Published shards (`.parquet`, or `.tar`, which are parquet too) have a caption and a label a row and no splits: a
    twentieth of their rows, by the hash of their names, is for validation.

    Raises:
        TrainingError: there is no shard, one has other columns or another version, or none has a track of the split.
    """
    tables = read_tables(folder, split)
    published = [
        utt for table in tables.values() if "split" not in table.column_names for utt in table["utt"].to_pylist()
    ]
    splits = hashed_splits(published, PUBLISHED_VALID_SHARE, 0)
    tracks = [
        track
        for table in tables.values()
        for track in tracks_of(table)
        if "split" in table.column_names or splits[track.utt] == split
    ]
    if not tracks:
        raise TrainingError(
            f"{folder}: no track of split {split!r} in {len(tables)} shards; check the manifest's splits"
        )
    return tracks


def read_tables(folder: Path | str, split: Split, kind: ShardKind = TOKENS) -> dict[str, pa.Table]:
    """The shards of `folder` by name; of those that have splits, only the rows of one.

    Raises:
        TrainingError: there is no shard, or one has other columns or another version.
    """
    shards = open_folder(folder)
    tables = {name: _read_table(shards, name, split, kind) for name in shards.files(*SHARDS)}
    if not tables:
        raise TrainingError(f"{folder}: holds no {kind.several}; make them with `{kind.command}`")
    return tables


def _read_table(shards: Folder, name: str, split: Split, kind: ShardKind) -> pa.Table:
    """One shard; of one of ours, only the rows of a split."""
    with shards.open(name) as file:
        try:
            schema = pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TrainingError(
                f"{name}: is no {kind.one} ({reason}); delete it and make it again with `{kind.command}`"
            ) from None
        version = (schema.metadata or {}).get(b"longplay_schema", SCHEMA_VERSION.encode()).decode()
        if version != SCHEMA_VERSION:
            raise TrainingError(
                f"{name}: has schema version {version}, this is for {SCHEMA_VERSION}; make the tokens again"
            )
        if missing := [column for column in REQUIRED if column not in schema.names]:
            raise TrainingError(
                f"{name}: lacks the columns {', '.join(missing)} of a token shard; take it out of the folder"
            )
        file.seek(0)
        return pq.read_table(file, filters=[("split", "=", split)] if "split" in schema.names else None)


def tracks_of(table: pa.Table) -> Iterator[TokenTrack]:
    """The pieces of a shard, one a row."""
    about = [column for column in table.column_names if not column.endswith("_token")]
    for index, row in enumerate(table.select(about).to_pylist()):
        semantic = _codes(table["semantic_token"][index])
        acoustic = (
            _codes(table["acoustic_token"][index]) if "acoustic_token" in table.column_names else np.zeros((0, 0))
        )
        start, end = row.get("time_start") or 0.0, row.get("time_end") or 0.0
        label = PUBLISHED_LABELS.get(row.get("chorus") or "")
        whole = (Section(label=label, start=start, end=end),) if label and start < end <= MAX_SECONDS else ()
        yield TokenTrack(
            utt=row["utt"],
            semantic=semantic.reshape(-1).astype(np.int16),
            acoustic=acoustic.T.astype(np.int16),
            captions=tuple(row.get("captions") or (row["text"],)),
            sections=parse_sections(row["sections"]) if "sections" in row else whole,
            offset=start,
            control=Control.tracked(row.get("bars") or (), row.get("bpm"), row.get("key"), _chords(row)),
            passages=_passages(row, semantic.size),
        )


def _passages(row: Mapping[str, Any], codes: int) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Of a row of so many codes; none in shards from before there were any."""
    pairs = list(zip(row.get("passage_starts") or (), row.get("passages") or (), strict=True))
    if not pairs:
        return ()
    rate = codes / (row["time_end"] - row["time_start"])
    return tuple((round((start - row["time_start"]) * rate), tuple(captions)) for start, captions in pairs)


def _chords(row: Mapping[str, Any]) -> list[tuple[float, Chord | None]]:
    """Of a row; none in shards from before chords were found."""
    pairs = zip(row.get("chord_starts") or (), row.get("chords") or (), strict=True)
    return [(start, TimedChord(start=start, name=name).chord) for start, name in pairs]


def _codes(cell: pa.ListScalar) -> np.ndarray:
    """Codes of one cell: lists of lists [rows, width], or a flat list [1, T]."""
    values = cell.values
    if values is None or not len(values):
        return np.zeros((0, 0))
    if not pa.types.is_list(values.type):
        return values.to_numpy(zero_copy_only=False)[None]
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)


class TokenWindows:
    """Draws windows of `frames` tokenizer codes, so that every code comes as often as any other.

    Args:
        tracks: the pieces.
        frames: codes of a window.
        shorter: take pieces of fewer codes whole; else they are left out.
        others: further pieces, of which `share` of the windows are.
        share: 0 to 1.

    Raises:
        TrainingError: no piece is long enough.
    """

    def __init__(
        self,
        tracks: list[TokenTrack],
        frames: int,
        shorter: bool = False,
        others: Sequence[TokenTrack] = (),
        share: float = 0.0,
    ) -> None:
        self.frames = frames
        self.tracks, weights = self._weighted(tracks, 1 if shorter else frames)
        if share:
            more, further = self._weighted(others, 1 if shorter else frames)
            self.tracks, weights = self.tracks + more, np.concatenate((weights * (1 - share), further * share))
        self.weights = weights

    def _weighted(self, tracks: Sequence[TokenTrack], least: int) -> tuple[list[TokenTrack], np.ndarray]:
        fitting = [track for track in tracks if len(track.semantic) >= least]
        if not fitting:
            raise TrainingError(f"none of {len(tracks)} pieces has {least} codes; shorten the window")
        lengths = np.array([len(track.semantic) for track in fitting], dtype=np.float64)
        weights = lengths / np.minimum(lengths, self.frames)  # a piece of one window is drawn whole
        return fitting, weights / weights.sum()

    def batch(self, seed: int, index: int, size: int) -> list[TokenWindow]:
        """Windows of batch `index`; a start, an end and any caption of the piece are as likely as their share of it."""
        rng = np.random.default_rng((seed, index))
        return [self._window(self.tracks[choice], rng) for choice in rng.choice(len(self.tracks), size, p=self.weights)]

    def draw(self, seed: int, index: int) -> Iterator[TokenWindow]:
        """Windows of batch `index` without end, drawn as those of `batch` are."""
        rng = np.random.default_rng((seed, index))
        heap = self.weights.cumsum()
        while True:
            choice = min(int(np.searchsorted(heap, rng.random(), side="right")), len(heap) - 1)
            yield self._window(self.tracks[choice], rng)

    def _window(self, track: TokenTrack, rng: np.random.Generator) -> TokenWindow:
        length = len(track.semantic)
        frames = min(self.frames, length)
        # drawn from a range half a window wider on both sides, so that beginnings and endings are not rare
        start = int(np.clip(rng.integers(-frames // 2, length - frames // 2), 0, length - frames))
        return TokenWindow(
            track=track,
            start=start,
            semantic=track.semantic[start : start + frames],
            caption=str(rng.choice(track.captions_at(start + frames // 2))),
            ends=start + frames == length,
        )
