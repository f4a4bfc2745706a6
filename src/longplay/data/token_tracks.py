"""The pieces of a folder of token shards, each read when it is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa

from longplay.chords import Chord, TimedChord
from longplay.control import Control
from longplay.data.intake import PUBLISHED_LABELS, warn_of_labels
from longplay.data.manifest import Split
from longplay.data.mapped import FIGURES, codes_of, mapped
from longplay.data.shards import SCHEMA_VERSION
from longplay.data.splits import hashed_splits
from longplay.data.storage import Folder, open_folder
from longplay.errors import TrainingError
from longplay.prompt import MAX_SECONDS, Section, parse_sections

REQUIRED = ("utt", "text", "semantic_token")
PUBLISHED_VALID_SHARE = 0.05
SHARDS = (".parquet", ".tar")
HELD = 4096  # pieces that stay at hand once they were read: some kB each, besides their codes


class ShardKind(NamedTuple):
    """What messages call a shard, and the lack of any, and the command that makes them."""

    one: str
    several: str
    command: str


TOKENS = ShardKind("token shard", "token shard (*.parquet)", "longplay train tokens")
TAKES = ShardKind("shard of takes", "takes", "longplay train takes")


class Shard(NamedTuple):
    """A shard: its name, its table, and which of its rows are of the split that was asked for."""

    name: str
    table: pa.Table
    rows: np.ndarray

    @property
    def tracks(self) -> "TokenTracks":
        """The pieces of these rows."""
        return TokenTracks([self])


class TokenPassage(NamedTuple):
    """A part of a piece: the number of its first code, what is said of it, and how it sounds (`styles.py`), if that is known."""

    first: int
    captions: tuple[str, ...] = ()
    style: tuple[float, ...] = ()


@dataclass(frozen=True)
class TokenTrack:
    """One piece: `semantic` [T] at the tokenizer's rate, `acoustic` [K, T'] at the codec's, and what is said of it.

    K is 0 where the shard was made without a codec. A clip of a song starts at its `offset` seconds, and its sections
    and bars have the times of the song. `passages` are its parts in order.
    """

    utt: str
    semantic: np.ndarray
    acoustic: np.ndarray
    captions: tuple[str, ...]
    sections: tuple[Section, ...]
    offset: float = 0.0
    control: Control = field(default_factory=Control)
    passages: tuple[TokenPassage, ...] = ()

    @property
    def every_caption(self) -> tuple[str, ...]:
        """What is said of the piece and of its passages."""
        return (*self.captions, *(caption for each in self.passages for caption in each.captions))

    def captions_at(self, number: int) -> tuple[str, ...]:
        """What is said of the piece, and of the passage that one of its codes is in."""
        of_passage = next((each.captions for each in reversed(self.passages) if each.first <= number), ())
        return (*self.captions, *of_passage)

    def style_of(self, numbers: np.ndarray) -> np.ndarray | None:
        """How the codes of these numbers sound on average [S]; None where that is not known of all of them."""
        places = np.searchsorted([each.first for each in self.passages], numbers, side="right") - 1
        counts = np.bincount(places.clip(0), minlength=len(self.passages))
        heard = [(each.style, count) for each, count in zip(self.passages, counts, strict=False) if count]
        if not heard or not all(style for style, _ in heard):
            return None
        styles, weights = zip(*heard, strict=True)
        return np.average(np.array(styles, np.float32), axis=0, weights=weights).astype(np.float32)


class Figures(NamedTuple):
    """Of N pieces: their ids, how many codes of the tokenizer each has, the largest of these, how many of the codec."""

    utts: list[str]
    lengths: np.ndarray
    largest: np.ndarray
    acoustic: np.ndarray


class TokenTracks(Sequence[TokenTrack]):
    """The pieces of shards, in their order; what `figures` says of them is known without reading them."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        numbers = (
            np.concatenate([shard.table[column].to_numpy()[shard.rows] for shard in shards]) for column in FIGURES
        )
        utts = [utt for shard in shards for utt in shard.table["utt"].take(shard.rows).to_pylist()]
        self.figures = Figures(utts, *numbers)
        self._ends = np.cumsum([len(shard.rows) for shard in shards])
        self._held = lru_cache(HELD)(self._read)

    def __len__(self) -> int:
        return len(self.figures.utts)

    @overload
    def __getitem__(self, index: int) -> TokenTrack: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenTrack]: ...
    def __getitem__(self, index: int | slice) -> TokenTrack | list[TokenTrack]:
        if isinstance(index, slice):
            return [self._held(place) for place in range(len(self))[index]]
        return self._held(range(len(self))[int(index)])

    def __iter__(self) -> Iterator[TokenTrack]:
        return map(self._read, range(len(self)))  # a pass over all would push out what is held

    def where(self, chosen: np.ndarray) -> "TokenTracks":
        """Those for which `chosen` [N] is true."""
        parts = np.split(chosen, self._ends[:-1])
        return TokenTracks(
            [shard._replace(rows=shard.rows[part]) for shard, part in zip(self.shards, parts, strict=True)]
        )

    def _read(self, index: int) -> TokenTrack:
        place = int(np.searchsorted(self._ends, index, side="right"))
        shard = self.shards[place]
        return _track(shard.table, int(shard.rows[index - self._ends[place]]))


def figures_of(tracks: Sequence[TokenTrack]) -> Figures:
    """Of the pieces of shards, or of some that are at hand."""
    if isinstance(tracks, TokenTracks):
        return tracks.figures
    numbers = [(len(each.semantic), each.semantic.max(initial=0), each.acoustic.size) for each in tracks]
    return Figures([each.utt for each in tracks], *np.array(numbers, np.int64).reshape(-1, 3).T)


def some_of(tracks: Sequence[TokenTrack], chosen: np.ndarray) -> Sequence[TokenTrack]:
    """Those for which `chosen` [N] is true."""
    if isinstance(tracks, TokenTracks):
        return tracks.where(chosen)
    return [track for track, wanted in zip(tracks, chosen, strict=True) if wanted]


def read_token_tracks(folder: Path | str, split: Split) -> TokenTracks:
    """The tracks of one split in the shards of `folder`, a path or an address that fsspec knows.

    Published shards (`.parquet`, or `.tar`, which are parquet too) have a caption and a label a row and no splits: a
    twentieth of their rows, by the hash of their names, is for validation.

    Raises:
        TrainingError: there is no shard, one has other columns or another version, or none has a track of the split.
    """
    shards = read_shards(folder, split)
    tracks = TokenTracks(shards)
    if not tracks:
        raise TrainingError(
            f"{folder}: no track of split {split!r} in {len(shards)} shards; check the manifest's splits"
        )
    return tracks


def read_shards(folder: Path | str, split: Split, kind: ShardKind = TOKENS) -> list[Shard]:
    """The shards of `folder`, with the rows of one split of each.

    Raises:
        TrainingError: there is no shard, or one has other columns or another version.
    """
    where = open_folder(folder)
    tables = {name: _table(where, name, kind) for name in where.files(*SHARDS)}
    if not tables:
        raise TrainingError(f"{folder}: holds no {kind.several}; make them with `{kind.command}`")
    published = [
        utt for table in tables.values() if "split" not in table.column_names for utt in table["utt"].to_pylist()
    ]
    hashed = hashed_splits(dict.fromkeys(published, 1), PUBLISHED_VALID_SHARE, 0)
    shards = []
    for name, table in tables.items():
        own = "split" in table.column_names
        splits = table["split"].to_pylist() if own else [hashed[utt] for utt in table["utt"].to_pylist()]
        shards.append(Shard(name, table, np.flatnonzero([each == split for each in splits])))
    warn_of_labels(folder, (label for shard in shards for label in _published_labels(shard)))
    return shards


def _published_labels(shard: Shard) -> list[str | None]:
    """Of each row of a published shard; ours have sections instead."""
    names = shard.table.column_names
    return shard.table["chorus"].take(shard.rows).to_pylist() if "chorus" in names and "sections" not in names else []


def _table(shards: Folder, name: str, kind: ShardKind) -> pa.Table:
    """One shard, if it is one of this version."""
    try:
        table = mapped(shards, name)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{name}: is no {kind.one} ({reason}); delete it and make it again with `{kind.command}`"
        ) from None
    version = (table.schema.metadata or {}).get(b"longplay_schema", SCHEMA_VERSION.encode()).decode()
    if version != SCHEMA_VERSION:
        raise TrainingError(
            f"{name}: has schema version {version}, this is for {SCHEMA_VERSION}; make the tokens again"
        )
    if missing := [column for column in REQUIRED if column not in table.column_names]:
        raise TrainingError(
            f"{name}: lacks the columns {', '.join(missing)} of a token shard; take it out of the folder"
        )
    return table


def _track(table: pa.Table, index: int) -> TokenTrack:
    """The piece of a row."""
    about = [column for column in table.column_names if not column.endswith("_token")]
    row = table.select(about).slice(index, 1).to_pylist()[0]
    semantic = codes_of(table["semantic_token"][index])
    acoustic = codes_of(table["acoustic_token"][index]) if "acoustic_token" in table.column_names else np.zeros((0, 0))
    start, end = row.get("time_start") or 0.0, row.get("time_end") or 0.0
    label = PUBLISHED_LABELS.get(row.get("chorus") or "")
    whole = (Section(label=label, start=start, end=end),) if label and start < end <= MAX_SECONDS else ()
    return TokenTrack(
        utt=row["utt"],
        semantic=semantic.reshape(-1).astype(np.int16, copy=False),
        acoustic=acoustic.T.astype(np.int16, copy=False),
        captions=tuple(row.get("captions") or (row["text"],)),
        sections=parse_sections(row["sections"]) if "sections" in row else whole,
        offset=start,
        control=Control.tracked(row.get("bars") or (), row.get("bpm"), row.get("key"), _chords(row)),
        passages=_passages(row, semantic.size),
    )


def _passages(row: Mapping[str, Any], codes: int) -> tuple[TokenPassage, ...]:
    """Of a row of so many codes; none in shards from before there were any."""
    starts = row.get("passage_starts") or ()
    if not starts:
        return ()
    rate = codes / (row["time_end"] - row["time_start"])
    parts = zip(starts, row["passages"], row.get("passage_styles") or [()] * len(starts), strict=True)
    return tuple(
        TokenPassage(round((start - row["time_start"]) * rate), tuple(captions), tuple(style))
        for start, captions, style in parts
    )


def _chords(row: Mapping[str, Any]) -> list[tuple[float, Chord | None]]:
    """Of a row; none in shards from before chords were found."""
    pairs = zip(row.get("chord_starts") or (), row.get("chords") or (), strict=True)
    return [(start, TimedChord(start=start, name=name).chord) for start, name in pairs]
