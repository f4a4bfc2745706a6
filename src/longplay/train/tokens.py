"""From audio to token shards: every track encoded once by the tokenizer and the codec.

A shard is a parquet file of whole tracks with the published columns (CHECKPOINTS.md 5: `utt, text, chorus, time_start,
time_end, semantic_token [1, T], acoustic_token [T, K]`) and, since a row is a whole piece, `captions`, `sections`
(`label:start-end,...`), `split`, `bars` (their lines), `bpm`, `key`, `chords` and `chord_starts`, the captions of its
parts, `passages`, with `passage_starts`, and how they sound, `passage_styles`; times are those of the song. Spectral encoders take long tracks in windows with
their exact context: no seams. Who encodes is a parameter: this process, several, or the nodes of a cluster. Only this
one writes, and what is in a shard is not encoded again: each track is there once, whoever was killed in between.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from longplay.address import location
from longplay.data.manifest import Track, parse_manifest
from longplay.data.shards import HELD, METADATA, SEMANTIC, in_shards, next_number, write_shard
from longplay.data.storage import Folder, open_folder, split_address
from longplay.data.workers import Outcome
from longplay.errors import TrainingError
from longplay.files import make_folder
from longplay.train.encoding import Codes, Job

logger = logging.getLogger(__name__)

TRACKS_PER_SHARD = 32
SCHEMA = pa.schema(
    [
        ("utt", pa.string()),
        ("text", pa.string()),
        ("chorus", pa.string()),
        ("time_start", pa.float64()),
        ("time_end", pa.float64()),
        SEMANTIC,
        ("acoustic_token", pa.list_(pa.list_(pa.int64()))),
        ("captions", pa.list_(pa.string())),
        ("sections", pa.string()),
        ("split", pa.string()),
        *HELD,
        ("passages", pa.list_(pa.list_(pa.string()))),
        ("passage_starts", pa.list_(pa.float64())),
        ("passage_styles", pa.list_(pa.list_(pa.float64()))),
    ],
    metadata=METADATA,
)

OLDEST = SCHEMA.names[: SCHEMA.names.index("bars")]  # the columns of the first version

EncodeAll = Callable[[Sequence[Job]], Iterable[Outcome[Job, Codes]]]


class Encoded(NamedTuple):
    """How much a call has encoded, and in what time."""

    tracks: int
    audio_seconds: float
    wall_seconds: float


def prepare_tokens(
    manifest: Path | str,
    out: Path | str,
    encode_all: EncodeAll,
    choose: Callable[[list[Track]], list[Track]] = lambda tracks: tracks,
    tracks_per_shard: int | None = None,
) -> Encoded:
    """Encode every track of `manifest` that no shard in `out` holds yet.

    What the manifest says of tracks that are encoded already (captions, sections, split) is brought up to date.
    Without a codec `acoustic_token` stays empty, which is all that stage `lm` needs.

    Args:
        manifest, out: paths, or addresses that fsspec knows.
        encode_all: one outcome for each job, in any order.
        choose: which tracks, and what is said of them, e.g. by a listener's labels.
        tracks_per_shard: what a kill costs at most; default `TRACKS_PER_SHARD`.

    Raises:
        UserError, OSError: `out` is no folder, or cannot be written to.
        TrainingError: no track to encode, shards of tracks that were not chosen, or tracks that cannot be encoded.
    """
    folder, name = split_address(manifest)
    with open_folder(folder).open(name) as file:
        every = parse_manifest(file.read().decode("utf-8"), str(manifest))
    tracks = choose(every)
    if not tracks:
        raise TrainingError(f"{manifest}: has no track to encode; build a corpus first")
    make_folder(location(out))
    shards = open_folder(out)
    known = {track.id: track for track in tracks}
    names = shards.files(".parquet")
    done = {utt for shard in names for utt in _refresh(shards, shard, known)}
    if unwanted := sorted(done & {track.id for track in every} - known.keys()):
        raise TrainingError(f"{out}: holds {unwanted[0]!r}, which is not chosen now; write to another folder")
    missing = [track for track in tracks if track.id not in done]
    logger.info("%d tracks are encoded, %d to go", len(done), len(missing))
    started = time.monotonic()
    jobs = [Job(track.id, folder, track.path, track.seconds, track.speed) for track in missing]
    outcomes = encode_all(jobs) if jobs else []
    number = next_number(names)
    failed: list[str] = []
    count, seconds = 0, 0.0
    for rows in in_shards(_rows(outcomes, known, failed), tracks_per_shard or TRACKS_PER_SHARD):
        write_shard(shards, f"{number:05d}.parquet", pa.Table.from_pylist([row for row, _ in rows], schema=SCHEMA))
        number, count, seconds = number + 1, count + len(rows), seconds + sum(length for _, length in rows)
        speed = seconds / max(time.monotonic() - started, 1e-9)
        logger.info("%05d.parquet: %d of %d tracks, %.1f h of audio an hour", number - 1, count, len(missing), speed)
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(missing)} tracks cannot be encoded, the others are; first: {failed[0]}"
        )
    return Encoded(count, seconds, time.monotonic() - started)


def _rows(
    outcomes: Iterable[Outcome[Job, Codes]], tracks: Mapping[str, Track], failed: list[str]
) -> Iterator[tuple[dict[str, Any], float]]:
    """Rows with the seconds of their audio; what failed is noted in `failed`."""
    for outcome in outcomes:
        if outcome.error is not None:
            failed.append(f"{outcome.job.utt}: {outcome.error}")
            continue
        codes = outcome.get()
        tokens = {"semantic_token": codes.semantic.tolist(), "acoustic_token": codes.acoustic.T.tolist()}
        yield _describe(tracks[outcome.job.utt]) | tokens, codes.seconds


def _refresh(shards: Folder, name: str, tracks: Mapping[str, Track]) -> list[str]:
    """Rewrite the shard if the manifest now says something else of its tracks; returns their ids."""
    with shards.open(name) as file:
        table = pq.read_table(file)
    if set(OLDEST) - set(table.schema.names):
        raise TrainingError(f"{name}: was not written by `longplay train tokens`; write to another folder")
    utts: list[str] = table["utt"].to_pylist()
    described = [column for column in SCHEMA.names if column not in ("semantic_token", "acoustic_token")]
    for column in set(described) - set(table.schema.names):  # of an older version
        table = table.append_column(SCHEMA.field(column), pa.nulls(len(table), SCHEMA.field(column).type))
    table = table.select(SCHEMA.names)
    old = table.select(described).to_pylist()
    new = [_describe(tracks[row["utt"]]) if row["utt"] in tracks else row for row in old]
    if new != old:
        for column in described:
            values = pa.array([row[column] for row in new], type=SCHEMA.field(column).type)
            table = table.set_column(table.schema.get_field_index(column), SCHEMA.field(column), values)
        write_shard(shards, name, table)
    return utts


def _describe(track: Track) -> dict[str, Any]:
    sections = [
        each.model_copy(update={"start": each.start + track.offset, "end": each.end + track.offset})
        for each in track.sections
    ]
    return {
        "utt": track.id,
        "text": track.captions[0] if track.captions else "",
        "chorus": ",".join(section.label for section in sections),
        "time_start": track.offset,
        "time_end": track.offset + track.seconds,
        "captions": list(track.captions),
        "sections": ",".join(map(str, sections)),
        "split": track.split,
        "bars": [time + track.offset for time in track.bars],
        "bpm": track.bpm,
        "key": track.key,
        "chords": [each.name for each in track.chords],
        "chord_starts": [each.start + track.offset for each in track.chords],
        "passages": [list(each.captions) for each in track.passages],
        "passage_starts": [each.start + track.offset for each in track.passages],
        "passage_styles": [list(each.style) for each in track.passages],
    }
