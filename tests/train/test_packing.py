"""Windows of different lengths in rows: filled, fair, and learnt from as without packing."""

from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longplay.data.token_tracks import TokenTrack
from longplay.data.token_windows import TokenWindow, TokenWindows
from longplay.errors import ConfigError, TrainingError
from longplay.models.lm import LMBatch
from longplay.prompt import Section
from longplay.train.lm_examples import Example, collate
from longplay.train.lm_stage import LMStage, LMStageConfig
from longplay.train.loop import train
from longplay.train.packing import fill_rows
from tiny_lm import tiny_config

LM = tiny_config()
ROWS, POSITIONS = 4, 64


def track(utt: str, length: int) -> TokenTrack:
    codes = np.arange(length).astype(np.int16) % 16
    sections = (Section(label="intro", start=0, end=1), Section(label="chorus", start=1, end=2))
    return TokenTrack(utt, codes, np.zeros((0, 0), np.int16), ("slow piano", "fast drums"), sections)


def example(length: int, text: int = 0) -> Example:
    piece = track("t", length)
    return Example(TokenWindow(piece, 0, piece.semantic, "", ends=True), (1,) * text, LM)


@pytest.fixture
def stage(lm_stage: Any) -> Any:
    """The tiny lm over pieces of 3 to 45 codes, whose windows of 20 are packed."""

    def build(**changes: Any) -> LMStage:
        whole = lm_stage(row_positions=POSITIONS, batch_size=ROWS, **changes)
        tracks = [track(f"t{length}", length) for length in (3, 7, 12, 19, 20, 31, 45)]
        torch.manual_seed(0)
        return LMStage(whole.config, whole.tokenizer, whole.text, tracks, tracks)

    return build


def test_rows_hold_what_fits_and_hardly_anything_is_empty() -> None:
    lengths = np.random.default_rng(0).integers(5, 400, 1000).tolist()
    rows = fill_rows((example(length, text=9) for length in lengths), 8, 512)
    used = [sum(each.before + each.frames for each in row) for row in rows]
    assert max(used) <= 512
    assert sum(used) > 0.97 * 8 * 512
    padded = max(each.before + each.frames for row in rows for each in row) * sum(map(len, rows))
    assert sum(used) < 0.75 * padded


def test_what_is_cut_keeps_its_beginning_and_does_not_end() -> None:
    ((whole, cut),) = fill_rows(cycle([example(40)]), 1, 40 + 5 + 30)
    assert (whole.frames, whole.window.ends) == (40, True)
    assert cut.frames == 75 - 45 - cut.before
    assert not cut.window.ends
    assert np.array_equal(cut.window.semantic, whole.window.semantic[: cut.frames])
    assert cut.segments[-1].end == pytest.approx(cut.frames / 75)


def test_less_than_half_of_a_window_is_no_window() -> None:
    (row,) = fill_rows(cycle([example(40)]), 1, 45 + 5 + 19)
    assert [each.frames for each in row] == [40]


def test_text_that_leaves_no_room_is_named() -> None:
    with pytest.raises(TrainingError, match="row_positions = 50: is too few for 40 codes after 45 positions of text"):
        fill_rows(cycle([example(40, text=40)]), 1, 50)


def test_every_code_comes_as_often_whatever_the_length_of_its_piece() -> None:
    tracks = [track("short", 10), track("window", 50), track("long", 400)]
    windows = TokenWindows(tracks, 50, shorter=True)
    seen: Counter[str] = Counter()
    for window in islice(windows.draw(0, 0), 6000):
        seen[window.track.utt] += len(window.semantic)
        assert window.ends == (window.start + len(window.semantic) == len(window.track.semantic))
    per_code = np.array([seen[piece.utt] / len(piece.semantic) for piece in tracks])
    assert per_code.std() < 0.1 * per_code.mean()


def test_a_batch_is_a_function_of_seed_and_step_and_its_parts_make_it_up(stage: Any) -> None:
    one, other = stage(), stage()
    whole, again = one.batch(5, slice(None)), other.batch(5, slice(None))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert not torch.equal(whole["code_lengths"], one.batch(6, slice(None))["code_lengths"])
    halves = [one.batch(5, slice(first, first + 2)) for first in (0, 2)]
    assert torch.equal(torch.cat([half["code_lengths"] for half in halves]), whole["code_lengths"])
    assert sum(float(half["weight"]) for half in halves) == pytest.approx(2.0)
    assert 0.8 < float(whole["filled"]) <= 1
    assert {3, 7, 12, 19} & set(whole["code_lengths"].tolist())  # shorter than a window, and whole


def test_parts_of_a_batch_add_up_to_its_loss(stage: Any) -> None:
    lm = stage()
    whole = lm.losses(3, lm.batch(3, slice(None))).terms["model"]
    halves = [lm.losses(3, lm.batch(3, slice(first, first + 2))).terms["model"] for first in (0, 2)]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_packed_and_padded_rows_cost_and_teach_the_same(stage: Any) -> None:
    lm = stage()
    batch = lm.batch(3, slice(None))
    fields = LMBatch(**{name: value for name, value in batch.items() if name not in ("weight", "filled")})
    found = []
    for packed in (False, True):
        lm.model.zero_grad()
        loss, accuracy = lm.model.loss(fields, packed=packed)
        loss.backward()
        found.append((loss.detach(), accuracy, {name: p.grad.clone() for name, p in lm.model.named_parameters()}))
    (loss_a, accuracy_a, grads_a), (loss_b, accuracy_b, grads_b) = found
    torch.testing.assert_close(loss_b, loss_a, atol=1e-5, rtol=0)
    torch.testing.assert_close(accuracy_b, accuracy_a)
    for name, grad in grads_a.items():
        torch.testing.assert_close(grads_b[name], grad, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_openings_are_packed_too(stage: Any) -> None:
    lengths = stage(opening_frames=5).batch(1, slice(None))["code_lengths"]
    assert lengths.max() == 5
    assert len(lengths) >= 4 * ROWS


def test_resumed_equals_uninterrupted(stage: Any, tmp_path: Path) -> None:
    whole = stage()
    train(whole, whole.config.loop, tmp_path / "whole")
    first = stage()
    assert train(first, first.config.loop, tmp_path / "parts", budget_seconds=0.0) == 1
    second = stage()
    workers = second.config.loop.model_copy(update={"workers": 2})
    assert train(second, workers, tmp_path / "parts") == 4
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key
    assert '"filled"' in (tmp_path / "whole/metrics.jsonl").read_text()


def test_rows_that_hold_no_window_are_refused(lm_stage: Any) -> None:
    data = lm_stage().config.dump() | {"row_positions": 20}
    with pytest.raises(ConfigError, match="row_positions 20 must exceed lm.context_frames 20"):
        LMStageConfig.parse(data)


def test_collating_pads_every_field() -> None:
    batch = collate([example(4, text=3), example(9)])
    assert (batch.ids.shape, batch.codes.shape) == ((2, 3), (2, 9))
    assert batch.id_lengths.tolist() == [3, 0]
    assert batch.code_lengths.tolist() == [4, 9]
