"""Takes of prompts, measured and kept in shards."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from longplay.chords import parse_progression, timed
from longplay.data.manifest import Track
from longplay.data.musicnn import Listener, Musicnn
from longplay.data.token_tracks import read_token_tracks
from longplay.data.workers import Outcome
from longplay.engine.piece import Piece, RowBuilder
from longplay.errors import UserError
from longplay.evaluate import takes
from longplay.evaluate.harmony import chord_share, pitch_share
from longplay.evaluate.takes import Maker, make_takes
from longplay.pipeline import Pipeline
from longplay.prompt import GenerationOptions, Prompt
from longplay.train.lm_examples import collate
from longplay.train.preference import take_example
from systems import tiny_system

TRACKS = (
    Track(
        id="a", path="a.wav", seconds=60.0, split="train", title="A", captions=("piano, 120 bpm, A minor", "slow piano"),
        licence="CC0-1.0", source="a", kind="real", codec_ok=True, bpm=120.0, key="A minor",
    ),
)  # fmt: skip


def in_this_process(function: Callable[[Any], Any], jobs: Iterable[Any], workers: int) -> Iterator[Outcome[Any, Any]]:
    for job in jobs:
        yield Outcome(job, function(job), None)


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    system = tiny_system(tmp_path / "tiny")
    loaded, listener = Pipeline(system, "tiny", "float32"), Listener(Musicnn(), Musicnn())
    monkeypatch.setattr(takes, "_pipeline", lambda model, threads: loaded)
    monkeypatch.setattr(Pipeline, "load", lambda model, device: loaded)
    monkeypatch.setattr(takes, "_listener", lambda: listener)
    monkeypatch.setattr(takes, "run_jobs", in_this_process)
    return loaded


def test_takes_share_what_they_are_held_to_and_differ_in_the_rest(pipeline: Pipeline) -> None:
    rows = Maker("tiny", 3, 4.0, 0, 1, TRACKS).rows(5)
    assert [row["utt"] for row in rows] == ["5/15", "5/16", "5/17"]
    for name in ("text", "bpm", "key", "chords", "split"):
        assert len({str(row[name]) for row in rows}) == 1, name
    assert len({str(row["semantic_token"]) for row in rows}) == 3
    assert rows == Maker("tiny", 3, 4.0, 0, 1, TRACKS).rows(5)
    assert rows[0]["likeness"] is not None
    assert Maker("tiny", 2, 4.0, 0, 1, TRACKS, tags=False).rows(5)[0]["likeness"] is None
    options = GenerationOptions(seconds=4.0, seed=15)
    again = pipeline.takes(Prompt(text=rows[0]["text"]), [15], options, 4.0, held=5)
    assert again[0].codes.tolist() == rows[0]["semantic_token"][0]


def test_a_take_is_learnt_from_as_it_was_made(pipeline: Pipeline, tmp_path: Path) -> None:
    """Words, times, bars, key and chords before its codes are those that it was drawn with."""
    lm, text = pipeline.system.lm, pipeline.system.text_tokenizer
    assert lm is not None
    assert text is not None
    make_takes(Maker("tiny", 2, 4.0, 0, 1, TRACKS), tmp_path, 1)
    track = read_token_tracks(tmp_path, "train")[1]
    options = GenerationOptions(seconds=4.0, seed=0).settle(Prompt())
    ids = tuple(text.encode(track.captions[0]))
    control = pipeline.held_to(Prompt(text=track.captions[0]), options)
    piece = Piece(ids=ids, frames=len(track.semantic), seed=1, control=control)
    made = RowBuilder(lm, piece, "none").rows(torch.from_numpy(track.semantic.astype(np.int64)), 0, guided=False)[0]
    learnt, _ = lm.rows(collate([take_example(track, text, lm.config)]))
    torch.testing.assert_close(learnt[0], made)


def test_what_is_made_is_not_made_again(pipeline: Pipeline, tmp_path: Path) -> None:
    maker, out = Maker("tiny", 2, 4.0, 0, 1, TRACKS), tmp_path / "takes"
    assert make_takes(maker, out, 3).groups == 3
    assert make_takes(maker, out, 3).groups == 0
    assert make_takes(maker, out, 5).groups == 2
    table = pa.concat_tables([pq.read_table(path) for path in sorted(out.glob("*.parquet"))])
    assert sorted(table["group"].to_pylist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    tracks = [
        track
        for split in ("train", "valid")
        if split in table["split"].to_pylist()
        for track in read_token_tracks(out, split)
    ]
    assert len(tracks) == 10
    control = pipeline.held_to(
        Prompt(text=tracks[0].captions[0]), GenerationOptions(seconds=4.0, seed=0).settle(Prompt())
    )
    if control is not None and control.bpm:
        assert tracks[0].control.bpm == pytest.approx(control.bpm)
    with pytest.raises(UserError, match=r"00000.parquet: holds 2 takes of 4 s, seed 0, .*; these are 2 takes of 5 s"):
        make_takes(Maker("tiny", 2, 5.0, 0, 1, TRACKS), out, 6)
    (out / "00009.parquet").write_text("not parquet")
    with pytest.raises(UserError, match="00009.parquet: is no shard of takes"):
        make_takes(maker, out, 6)


def test_prompts_that_fail_do_not_cost_the_others(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some_fail(function: Callable[[int], Any], jobs: Iterable[int], workers: int) -> Iterator[Outcome[int, Any]]:
        for job in jobs:
            yield Outcome(job, None, UserError("no memory")) if job == 1 else Outcome(job, function(job), None)

    monkeypatch.setattr(takes, "run_jobs", some_fail)
    with pytest.raises(UserError, match="1 of 3 prompts failed, the others are done; first: prompt 1: no memory"):
        make_takes(Maker("tiny", 2, 4.0, 0, 1, TRACKS), tmp_path / "takes", 3)
    assert sorted({*pq.read_table(tmp_path / "takes/00000.parquet")["group"].to_pylist()}) == [0, 2]


def test_shares_of_chords_and_of_their_pitches() -> None:
    asked = list(zip((0.0, 2.0), parse_progression("Am F"), strict=True))
    assert chord_share(asked, asked, 4.0) == pitch_share(asked, asked, 4.0) == 1.0
    relative = list(zip((0.0, 2.0), parse_progression("C F"), strict=True))
    assert chord_share(asked, relative, 4.0) == pytest.approx(0.5)
    assert pitch_share(asked, relative, 4.0) == pytest.approx((2 / 3 + 1) / 2)  # Am and C have two pitches in common
    assert chord_share(asked, [], 4.0) == pitch_share(asked, [], 4.0) == 0.0
    assert np.isnan(chord_share([], asked, 4.0))
    assert len(timed(asked)) == 2
