"""What token shards and shards of takes have in common: parquet files of rows, numbered, each written in one step."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from longplay.data.storage import Folder

SCHEMA_VERSION = "1"
METADATA = {"longplay_schema": SCHEMA_VERSION}
SEMANTIC = ("semantic_token", pa.list_(pa.list_(pa.int64())))
HELD = (  # what a piece is held to; times are those of the song
    ("bars", pa.list_(pa.float64())),
    ("bpm", pa.float64()),
    ("key", pa.string()),
    ("chords", pa.list_(pa.string())),
    ("chord_starts", pa.list_(pa.float64())),
)

T = TypeVar("T")


def in_shards(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """As many at a time as a shard takes, as they come; the last one may have fewer."""
    shard = list[T]()
    for row in rows:
        shard.append(row)
        if len(shard) == size:
            yield shard
            shard = []
    if shard:
        yield shard


def next_number(names: Sequence[str]) -> int:
    """Of the shard after those of these names."""
    stems = (name.split(".")[0] for name in names)
    return max((int(stem) + 1 for stem in stems if stem.isdigit()), default=0)


def write_shard(folder: Folder, name: str, table: pa.Table) -> None:
    """Write a shard, in one step."""
    folder.write(name, partial(pq.write_table, table, compression="zstd"))
