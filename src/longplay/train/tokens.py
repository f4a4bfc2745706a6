"""From audio to token shards: every track encoded once by the tokenizer and the codec.

A shard is a parquet file of whole tracks with the published columns (CHECKPOINTS.md 5: `utt, text, chorus, time_start,
time_end, semantic_token [1, T], acoustic_token [T, K]`) and, since a row is a whole piece, `captions`, `sections`
(`label:start-end,...`) and `split`. Spectral encoders take long tracks in windows with their exact context: no seams.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf
import soxr
import torch

from longplay.data.manifest import Track, read_manifest
from longplay.engine.encode import encode
from longplay.errors import TrainingError
from longplay.models.codec import Codec
from longplay.models.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

TRACKS_PER_SHARD = 32


def prepare_tokens(manifest: Path, out: Path, tokenizer: Tokenizer, codec: Codec | None) -> int:
    """Encode every track of `manifest` that no shard in `out` holds yet; returns how many were encoded.

    What the manifest says of tracks that are encoded already (captions, sections, split) is brought up to date.
    Without a codec `acoustic_token` stays empty, which is all that stage `lm` needs.

    A shard appears complete or not at all, so a killed run goes on where it was, with nothing lost or doubled.

    Raises:
        TrainingError: the manifest has no track.
    """
    out.mkdir(parents=True, exist_ok=True)
    tracks = read_manifest(manifest)
    if not tracks:
        raise TrainingError(f"{manifest}: has no track; build a corpus first")
    shards = sorted(out.glob("*.parquet"))
    known = {track.id: track for track in tracks}
    done = {utt for shard in shards for utt in _refresh(shard, known)}
    missing = [track for track in tracks if track.id not in done]
    logger.info("%d tracks are encoded, %d to go", len(done), len(missing))
    number = len(shards)
    for start in range(0, len(missing), TRACKS_PER_SHARD):
        batch = missing[start : start + TRACKS_PER_SHARD]
        rows = [_encode_track(track, manifest.parent / track.path, tokenizer, codec) for track in batch]
        path = out / f"{number:05d}.parquet"
        _write(path, pa.Table.from_pylist(rows, schema=SCHEMA))
        number += 1
        logger.info("%s: %d of %d tracks", path.name, min(start + TRACKS_PER_SHARD, len(missing)), len(missing))
    return len(missing)


SCHEMA = pa.schema(
    [
        ("utt", pa.string()),
        ("text", pa.string()),
        ("chorus", pa.string()),
        ("time_start", pa.float64()),
        ("time_end", pa.float64()),
        ("semantic_token", pa.list_(pa.list_(pa.int64()))),
        ("acoustic_token", pa.list_(pa.list_(pa.int64()))),
        ("captions", pa.list_(pa.string())),
        ("sections", pa.string()),
        ("split", pa.string()),
    ],
    metadata={"longplay_schema": "1"},
)


def _refresh(shard: Path, tracks: Mapping[str, Track]) -> list[str]:
    """Rewrite the shard if the manifest now says something else of its tracks; returns their ids."""
    table = pq.read_table(shard)
    utts: list[str] = table["utt"].to_pylist()
    described = [name for name in SCHEMA.names if name not in ("semantic_token", "acoustic_token")]
    old = table.select(described).to_pylist()
    new = [_describe(tracks[row["utt"]]) if row["utt"] in tracks else row for row in old]
    if new != old:
        for name in described:
            column = pa.array([row[name] for row in new], type=SCHEMA.field(name).type)
            table = table.set_column(table.schema.get_field_index(name), SCHEMA.field(name), column)
        _write(shard, table)
    return utts


def _write(path: Path, table: pa.Table) -> None:
    part = path.with_suffix(".part")
    pq.write_table(table, part, compression="zstd")
    part.replace(path)


def _describe(track: Track) -> dict[str, Any]:
    return {
        "utt": track.id,
        "text": track.captions[0],
        "chorus": ",".join(section.label for section in track.sections),
        "time_start": 0.0,
        "time_end": track.seconds,
        "captions": list(track.captions),
        "sections": ",".join(map(str, track.sections)),
        "split": track.split,
    }


def _encode_track(track: Track, path: Path, tokenizer: Tokenizer, codec: Codec | None) -> dict[str, Any]:
    wav, rate = sf.read(path, dtype="float32", always_2d=True)
    mono = wav.mean(1)
    semantic = _codes(mono, rate, tokenizer)
    acoustic = [] if codec is None else _codes(mono, rate, codec).T.tolist()
    return _describe(track) | {"semantic_token": semantic.tolist(), "acoustic_token": acoustic}


@torch.inference_mode()
def _codes(mono: np.ndarray, rate: int, model: Tokenizer | Codec) -> np.ndarray:
    """Codes [K, T] of a whole track; K is 1 for the tokenizer."""
    target = model.config.sample_rate
    wav = soxr.resample(mono, rate, target, quality="HQ") if rate != target else mono
    codes = encode(model, torch.from_numpy(wav).view(1, 1, -1))[0]
    return torch.atleast_2d(codes).numpy()
