"""What the lm is trained on, what it starts from, and that it learns."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longplay.chords import Chord
from longplay.control import CHORD_WIDTH, Control
from longplay.data.token_tracks import TokenPassage, TokenTrack
from longplay.data.token_windows import TokenWindows
from longplay.errors import CheckpointError
from longplay.keys import Key
from longplay.models.lm import LMBatch
from longplay.train.init import start_from
from longplay.train.lm_examples import collate
from taught import held_out_loss, learn


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_lm_learns_what_repeats(lm_stage: Any, optimizer: str) -> None:
    stage = lm_stage()
    first = held_out_loss(stage)
    learn(stage, 150, optimizer=optimizer)
    stage.model.eval()
    assert held_out_loss(stage) < 0.5 * first


def test_the_lm_learns_to_keep_a_beat_that_only_control_tells(lm_stage: Any, tracks: list[TokenTrack]) -> None:
    """A code of its own on every bar line, noise between: where a window starts in the bar, the codes do not say at once."""
    rng = np.random.default_rng(1)

    def beaten(track: TokenTrack, period: int, first: int) -> TokenTrack:
        codes = rng.integers(1, 16, 400).astype(np.int16)
        codes[first::period] = 0
        rate = 20
        return replace(track, semantic=codes, control=Control(((first) / rate, (first + period) / rate)))

    pieces = [beaten(track, period, first) for track, period, first in zip(tracks, (5, 6, 7), (2, 3, 0), strict=True)]
    stage = lm_stage(lm=lm_stage().config.lm.model_copy(update={"control": True}), held_out_windows=8)
    windows = TokenWindows(pieces, 20)
    stage.windows = stage.held_out = windows
    learn(stage, 250, learning_rate=1e-2)
    stage.model.eval()
    with torch.inference_mode():
        found = stage.evaluate(stage.model)
    gain = found["loss_without_control"] - found["loss"]
    assert gain > 0.1, found


def test_older_weights_learn_control_from_nothing(lm_stage: Any, tmp_path: Path) -> None:
    older = lm_stage()
    older.export(older.model, tmp_path)
    newer = lm_stage(lm=older.config.lm.model_copy(update={"control": True}))
    start_from(newer.model, "lm", tmp_path)
    batch = newer.batch(0, slice(None))
    said = newer.losses(0, batch).metrics["loss"]
    batch.pop("control")
    assert older.losses(0, batch).metrics["loss"] == said
    newer.export(newer.model, tmp_path / "newer")
    with pytest.raises(CheckpointError, match="does not fit this config"):
        start_from(older.model, "lm", tmp_path / "newer")


def test_a_model_that_is_told_of_chords_starts_from_one_that_is_not(lm_stage: Any, tmp_path: Path) -> None:
    """What it will be told of them changes nothing at first."""
    older = lm_stage(lm=lm_stage().config.lm.model_copy(update={"control": True}))
    torch.nn.init.normal_(older.model.control_projection.weight)
    older.export(older.model, tmp_path)
    newer = lm_stage(lm=older.config.lm.model_copy(update={"chords": True}))
    start_from(newer.model, "lm", tmp_path)
    new = newer.model.control_projection.weight
    assert new.shape[1] == older.model.control_projection.weight.shape[1] + CHORD_WIDTH
    held = Control.steady(90, Key.parse("C major"))
    batch = newer.batch(0, slice(None))
    for chords in ((), ((0.0, Chord.parse("C")),)):
        control = torch.from_numpy(replace(held, chords=chords).features(0, batch["control"].shape[1], 20))
        batch["control"] = control.expand_as(batch["control"])
        assert older.losses(0, batch).metrics["loss"] == newer.losses(0, batch).metrics["loss"]
    torch.nn.init.normal_(new)
    assert older.losses(0, batch).metrics["loss"] != newer.losses(0, batch).metrics["loss"]


def test_lm_batches_carry_text_times_and_labels(lm_stage: Any) -> None:
    stage = lm_stage()
    windows = stage.windows.batch(0, 0, 16)
    batch = collate([stage._example(window) for window in windows])
    for row, window in enumerate(windows):
        ids = batch.ids[row, : batch.id_lengths[row]].tolist()
        assert stage.text.decode(ids) == window.caption
        assert batch.starts[row][0] == pytest.approx(window.start / 20)
        real = batch.starts[row] >= 0
        assert batch.ends[row][real].max() <= window.start / 20 + 1 + 1e-6
        assert bool(batch.complete[row]) == (window.start + 20 == len(window.track.semantic))


def test_a_window_is_told_what_is_heard_in_it(tracks: list[TokenTrack]) -> None:
    codes = len(tracks[0].semantic)
    parts = (TokenPassage(0, ("early",)), TokenPassage(codes // 2, ("late",)))
    windows = TokenWindows([replace(tracks[0], captions=("all",), passages=parts)], 4)
    drawn = windows.batch(0, 0, 200)
    assert {window.caption for window in drawn} == {"all", "early", "late"}
    for window in drawn:
        assert window.caption != ("early" if window.start + 2 >= codes // 2 else "late")


def test_every_second_step_is_of_openings_and_costs_as_many_codes(lm_stage: Any) -> None:
    stage = lm_stage(opening_frames=5)
    shapes = {step: stage.batch(step, slice(None))["codes"].shape for step in (0, 1, 2, 3)}
    assert shapes == {0: (4, 20), 1: (16, 5), 2: (4, 20), 3: (16, 5)}
    halves = [stage.batch(1, slice(first, first + 2)) for first in (0, 2)]
    whole = stage.batch(1, slice(None))
    assert torch.equal(torch.cat([half["codes"] for half in halves]), whole["codes"])
    assert torch.equal(torch.cat([half["id_lengths"] for half in halves]), whole["id_lengths"])
    assert 0 < int((whole["id_lengths"] == 0).sum()) < 16  # some without their text
    assert sum(float(half["weight"]) for half in halves) == pytest.approx(2.0)
    with torch.inference_mode():
        assert {"opening_loss", "opening_loss_without_text"} <= stage.evaluate(stage.model.eval()).keys()


@pytest.mark.parametrize("row_positions", [None, 48])
def test_the_lm_is_told_some_of_the_tags(lm_stage: Any, row_positions: int | None) -> None:
    stage, plain = (lm_stage(tag_dropout=share, row_positions=row_positions) for share in (0.9, 0.0))
    for windows in (stage.windows, plain.windows, stage.held_out, plain.held_out):
        windows.tracks = [replace(track, captions=("slow, soft piano, jazz, fast",)) for track in windows.tracks]
    told = [[_texts(each.batch(step, slice(None)), each) for step in range(4)] for each in (stage, plain)]
    assert set(told[1][0]) <= {"slow, soft piano, jazz, fast", ""}
    assert len({text for texts in told[0] for text in texts}) > 6, "other ones every time"
    assert {tag for texts in told[0] for text in texts for tag in text.split(", ") if tag} == {
        "slow",
        "soft piano",
        "jazz",
        "fast",
    }
    if row_positions is None:
        assert _texts(stage.batch(1, slice(2, 4)), stage) == told[0][1][2:], (
            "the same, however many processes share the rows"
        )
    with torch.inference_mode():
        measured = [each.evaluate(each.model.eval())["loss"] for each in (stage, plain)]
    assert measured[0] == measured[1], "held-out music is told of in full"


@pytest.mark.parametrize("row_positions", [None, 48])
def test_another_seed_leaves_out_the_text_of_other_windows(lm_stage: Any, row_positions: int | None) -> None:
    loop = lm_stage().config.loop
    model = lm_stage().config.lm.model_copy(update={"text_dropout": 0.5})

    def left_out(seed: int) -> list[bool]:
        """Of the first 4 windows of each of 16 steps, as many as every packed batch holds."""
        stage = lm_stage(lm=model, loop=loop.model_copy(update={"seed": seed}), row_positions=row_positions)
        batches = [stage.batch(step, slice(None)) for step in range(16)]
        return [not length for batch in batches for length in batch["id_lengths"][:4].tolist()]

    first, other = left_out(0), left_out(1)
    assert left_out(0) == first
    assert 0.2 < np.mean(np.equal(first, other)) < 0.8, "as if they had nothing to do with each other"


def _texts(batch: Any, stage: Any) -> list[str]:
    rows = zip(batch["ids"].tolist(), batch["id_lengths"].tolist(), strict=True)
    return [stage.text.decode(ids[:length]) for ids, length in rows]


def test_the_lm_hears_wrong_codes_and_predicts_the_right_ones(lm_stage: Any) -> None:
    stage, plain = lm_stage(misheard=0.9), lm_stage()
    batch, other = (each.batch(2, slice(None)) for each in (stage, plain))
    assert "heard" not in other
    assert torch.equal(batch["codes"], other["codes"]), "what is predicted stays"
    wrong = (batch["heard"] != batch["codes"]).float().mean(1)
    assert wrong.max() > wrong.min(), "more in one window than in the other"
    assert 0.1 < float(wrong.mean()) < 0.9
    for heard, codes in zip(batch["heard"], batch["codes"], strict=True):
        assert set(heard.tolist()) <= set(codes.tolist()), "codes of the same window"
    half = stage.batch(2, slice(2, 4))
    assert torch.equal(half["heard"], batch["heard"][2:]), "the same, however many processes share the rows"
    right = {name: value for name, value in batch.items() if name != "heard"}
    assert stage.losses(2, batch).metrics["loss"] != stage.losses(2, right).metrics["loss"]
    packed = lm_stage(misheard=0.9, row_positions=48).batch(2, slice(None))
    assert (packed["heard"] != packed["codes"]).any()
    assert torch.equal(packed["codes"], lm_stage(row_positions=48).batch(2, slice(None))["codes"])


def test_the_lm_hears_what_it_would_have_gone_on_with(lm_stage: Any) -> None:
    stage, plain = lm_stage(misheard=0.9, misheard_for="model"), lm_stage()
    batch = stage.batch(2, slice(None))
    assert "heard" not in batch
    torch.manual_seed(0)
    first = stage.losses(2, batch).metrics["loss"]
    torch.manual_seed(0)
    assert stage.losses(2, batch).metrics["loss"] == first
    assert plain.losses(2, batch).metrics["loss"] != first
    with torch.no_grad():
        stage.model.audio_head.bias[5] += 50.0  # what it expects everywhere
    heard = stage._misheard(LMBatch(**{name: value for name, value in batch.items() if name != "weight"})).heard
    assert heard is not None
    changed = heard != batch["codes"]
    assert changed.any()
    assert not changed.all()
    assert (heard[changed] == 5).all()


@torch.inference_mode()
def test_what_the_lm_draws_next_depends_on_what_is_before(lm_stage: Any) -> None:
    stage = lm_stage()
    fields = {name: value for name, value in stage.batch(0, slice(None)).items() if name != "weight"}
    torch.manual_seed(0)
    drawn = stage.model.draw_next(LMBatch(**fields))
    assert drawn.shape == fields["codes"].shape
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < 16
    torch.nn.init.normal_(stage.model.audio_embedding.weight)  # what was heard is to matter
    torch.manual_seed(0)
    drawn = stage.model.draw_next(LMBatch(**fields))
    fields["codes"] = fields["codes"].clone()
    fields["codes"][:, 10] = (fields["codes"][:, 10] + 1) % 16
    torch.manual_seed(0)
    other = stage.model.draw_next(LMBatch(**fields))
    assert torch.equal(drawn[:, :11], other[:, :11])
    assert not torch.equal(drawn[:, 11:], other[:, 11:])
