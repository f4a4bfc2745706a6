"""Windows whose beats are exchanged: still music of the piece, told of what stands there."""

from typing import Any

import numpy as np
import pytest
import torch

from longplay.chords import Chord
from longplay.control import Control
from longplay.data.token_tracks import TokenTrack
from longplay.data.token_windows import TokenWindow, TokenWindows
from longplay.train.lm_examples import STRETCH_BEATS, Example, exchange_beats
from tiny_lm import tiny_config

RATE = 20
LM = tiny_config(codebook_size=1000, code_rate=RATE, context_frames=200, control=True, chords=True)
SWAYING = Control(
    bars=tuple(np.cumsum([0.5, *[2.0, 2.1] * 12]).tolist()),
    chords=tuple((0.5 + 4.1 * n, Chord(n % 12, "m")) for n in range(12)),
)


def piece(control: Control, offset: float = 0.0) -> TokenTrack:
    """Codes that count up, 48 s."""
    return TokenTrack("a", np.arange(48 * RATE, dtype=np.int16), np.zeros((0, 0)), ("",), (), offset, control)


def example(control: Control, start: int = 100, frames: int = 200, offset: float = 0.0) -> Example:
    track = piece(control, offset)
    return Example(TokenWindow(track, start, track.semantic[start : start + frames], "", ends=False), (1,), LM)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_beats_come_from_the_same_place_of_other_bars(offset: float) -> None:
    track, numbers, rng = piece(SWAYING, offset), np.arange(100, 301), np.random.default_rng(0)
    jumps = set()
    for _ in range(20):
        order = exchange_beats(numbers, track, RATE, rng)
        assert 0 <= order.min() < order.max() < len(track.semantic)
        places = [SWAYING.position(offset + each / RATE) for each in (numbers, order)]
        off = (places[0] - places[1] + 0.5) % 1 - 0.5
        assert np.abs(off).max() < 0.5 / RATE / 2.0 + 1e-9, "to half a code"
        jumps.add(int((np.diff(order) > 2).sum() + (np.diff(order) < 0).sum()))
    assert max(jumps) > 8 > 2 > min(jumps), f"stretches of {STRETCH_BEATS} beats"


def test_without_a_pulse_stretches_come_from_anywhere() -> None:
    order = exchange_beats(np.arange(100, 301), piece(Control()), RATE, np.random.default_rng(1))
    assert (order != np.arange(100, 301)).mean() > 0.5


def test_a_rearranged_window_is_told_what_stands_there() -> None:
    plain = example(SWAYING, offset=3.0)
    made = plain.rearranged(np.random.default_rng(2))
    assert made.order is not None
    assert made.window.semantic.tolist() == made.order[:-1].tolist(), "codes of this piece count up"
    assert not np.array_equal(made.window.semantic, plain.window.semantic)
    told = SWAYING.features_at(3.0 + made.order / RATE)
    assert torch.equal(made.control, torch.from_numpy(told))
    beat = slice(0, 1)  # its place, which goes on as before
    assert (made.control[:, beat] - plain.control[:, beat]).abs().max() < 0.35, "to half a code"
    assert (made.control[:, -12:] != plain.control[:, -12:]).any(), "other chords"
    cut = made.cut(50)
    assert torch.equal(cut.control, made.control[:51])


def test_what_is_misheard_is_another_code_of_the_window() -> None:
    plain, shares = example(SWAYING), []
    for seed in range(40):
        made = plain.misheard(0.9, np.random.default_rng(seed))
        assert made.heard is not None
        assert made.window is plain.window, "what is predicted stays"
        assert np.isin(made.heard, plain.window.semantic).all()
        shares.append((made.heard != plain.window.semantic).mean())
    assert 0.3 < np.mean(shares) < 0.6, "up to 0.9, drawn evenly"
    assert max(shares) - min(shares) > 0.5


def test_some_windows_are_rearranged_until_the_last_steps(lm_stage: Any) -> None:
    plain, stage, misheard = (
        lm_stage(**changes)
        for changes in ({}, {"rearranged": 0.5, "plain_steps": 2}, {"misheard": 0.9, "plain_steps": 2})
    )
    for each in (plain, stage, misheard):
        each.windows = TokenWindows([piece(Control())], 20)
    changed = [
        (stage.batch(step, slice(None))["codes"] != plain.batch(step, slice(None))["codes"]).any(1) for step in range(4)
    ]
    assert torch.cat(changed[:2]).any()
    assert not torch.cat(changed[:2]).all()
    assert not torch.cat(changed[2:]).any()
    half = stage.batch(1, slice(2, 4))
    assert torch.equal(half["codes"], stage.batch(1, slice(None))["codes"][2:])
    assert "heard" in misheard.batch(1, slice(None))
    assert "heard" not in misheard.batch(2, slice(None))
