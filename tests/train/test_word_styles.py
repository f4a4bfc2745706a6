"""An lm that is told how music sounds, by what was measured or by what its words say of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from longplay.data.token_tracks import TokenPassage, TokenTrack
from longplay.data.token_windows import TokenWindow, TokenWindows
from longplay.errors import TrainingError
from longplay.models.lm import LM, WordStyles
from longplay.text import TextTokenizer
from longplay.train.lm_examples import collate
from longplay.train.word_styles import compute_word_styles
from taught import learn

BRIGHT, DARK = (1.0, 0.0, -0.5), (-1.0, 0.5, 0.0)


@pytest.fixture
def text() -> TextTokenizer:
    return TextTokenizer.train(["bright piano", "dark strings", "bright strings"], 300)


@pytest.fixture
def styled(tracks: list[TokenTrack]) -> list[TokenTrack]:
    """Pieces whose first half is bright and whose second half is dark."""
    return [
        replace(
            track,
            captions=("music",),
            passages=(
                TokenPassage(0, ("bright piano", "bright strings"), BRIGHT),
                TokenPassage(len(track.semantic) // 2, ("dark piano", "dark strings"), DARK),
            ),
        )
        for track in tracks
    ]


@pytest.fixture
def many(styled: list[TokenTrack]) -> list[TokenTrack]:
    """So many captions that the ridge hardly matters."""
    return styled * 500


def told(module: WordStyles, text: TextTokenizer, words: str) -> np.ndarray:
    return module(torch.tensor(text.encode(words), dtype=torch.long)).numpy()


def test_words_are_told_apart_by_the_music_that_they_are_said_of(text: TextTokenizer, many: list[TokenTrack]) -> None:
    module = WordStyles(text.vocab_size, 3)
    compute_word_styles(module, text, many)
    assert told(module, text, "bright piano") == pytest.approx(BRIGHT, abs=0.15)
    assert told(module, text, "dark strings") == pytest.approx(DARK, abs=0.15)
    assert told(module, text, "bright bright piano") == pytest.approx(told(module, text, "bright piano"), abs=0.15)
    assert told(module, text, "") == pytest.approx((0, 0, 0))
    mean = (np.array(BRIGHT) + DARK) / 2
    assert told(module, text, "music") == pytest.approx(mean, abs=0.15), "it is said of all"


def test_an_id_that_was_never_seen_says_nothing(text: TextTokenizer, many: list[TokenTrack]) -> None:
    module = WordStyles(text.vocab_size, 3)
    compute_word_styles(module, text, many)
    known, unknown = text.encode("dark"), text.encode("~")
    assert torch.equal(module(torch.tensor(known)), module(torch.tensor(known + unknown)))


def test_without_styles_there_is_nothing_to_compute_from(text: TextTokenizer, tracks: list[TokenTrack]) -> None:
    with pytest.raises(TrainingError, match=r"no passage of these shards .* `longplay train tokens"):
        compute_word_styles(WordStyles(text.vocab_size, 3), text, tracks)


def test_styles_of_another_length_are_refused(text: TextTokenizer, styled: list[TokenTrack]) -> None:
    with pytest.raises(TrainingError, match=r"lm.style_dim = 4: passages have 3 numbers"):
        compute_word_styles(WordStyles(text.vocab_size, 4), text, styled)


def test_the_style_of_codes_is_that_of_their_passages(styled: list[TokenTrack]) -> None:
    track, half = styled[0], len(styled[0].semantic) // 2
    assert track.style_of(np.arange(half)) == pytest.approx(BRIGHT)
    assert track.style_of(np.arange(half, 2 * half)) == pytest.approx(DARK)
    mixed = track.style_of(np.array([0, half, half + 1, half + 2]))
    assert mixed == pytest.approx(0.25 * np.array(BRIGHT) + 0.75 * np.array(DARK))
    assert replace(track, passages=()).style_of(np.arange(4)) is None
    unknown = replace(track, passages=(track.passages[0], TokenPassage(half, ("dark",))))
    assert unknown.style_of(np.arange(half)) is not None
    assert unknown.style_of(np.arange(half + 1)) is None


def window(track: TokenTrack, start: int, caption: str) -> TokenWindow:
    return TokenWindow(track, start, track.semantic[start : start + 20], caption, False)


def test_measured_styles_are_told_and_words_stand_for_those_that_are_not(
    lm_stage: Callable[..., Any], styled: list[TokenTrack]
) -> None:
    stage = lm_stage(lm=lm_stage().config.lm.model_copy(update={"style_dim": 3}))
    model = stage.model
    torch.nn.init.normal_(model.style_projection.weight)
    compute_word_styles(model.word_styles, stage.text, styled * 500)
    examples = [stage._example(window(styled[0], 0, "dark"), free=free) for free in (False, True)]
    batch = collate(examples)
    assert batch.style is not None
    assert batch.style[0].numpy() == pytest.approx(BRIGHT)
    assert batch.style[1].isnan().all()
    ids = torch.tensor(stage.text.encode("dark"))
    measured, said = model.said(ids, None, batch.style[0]), model.said(ids, None)
    assert not torch.allclose(measured, said)
    assert torch.equal(said, model.said(ids, None, model.word_styles(ids)))
    inputs, _ = model.rows(batch)
    structure = model.structure(batch.starts[0], batch.ends[0], batch.labels[0])
    for row, style in enumerate((batch.style[0], None)):
        wanted = model.assemble(structure, ids, batch.codes[row], None, style)
        assert torch.allclose(inputs[row, : len(wanted)], wanted)
    dropped, _ = model.rows(batch, torch.ones(2, dtype=torch.bool))
    assert torch.equal(dropped[0], dropped[1]), "of a dropped text nothing is told"


def test_the_lm_learns_to_play_what_it_is_told_to_sound_like(
    lm_stage: Callable[..., Any], styled: list[TokenTrack]
) -> None:
    """Bright passages have other codes than dark ones; nothing else tells the first code."""
    rng = np.random.default_rng(0)

    def played(track: TokenTrack) -> TokenTrack:
        half = len(track.semantic) // 2
        codes = np.concatenate([rng.integers(0, 8, half), rng.integers(8, 16, half)])
        return replace(track, semantic=codes.astype(np.int16))

    pieces = [played(track) for track in styled]
    stage = lm_stage(lm=lm_stage().config.lm.model_copy(update={"style_dim": 3}))
    stage.windows = TokenWindows(pieces, 20)
    compute_word_styles(stage.model.word_styles, stage.text, pieces * 500)
    learn(stage, 150, learning_rate=3e-3)
    model: LM = stage.model.eval()
    for words, low in (("bright piano", True), ("dark strings", False)):
        ids = torch.tensor(stage.text.encode(words))
        row = model.assemble(
            model.structure(torch.zeros(1), torch.ones(1), torch.zeros(1, dtype=torch.long)), ids, ids[:0]
        )
        with torch.no_grad():
            chances = model.audio_head(model(row[None]))[0, -1, :16].softmax(-1)
        assert (float(chances[:8].sum()) > 0.8) == low, (words, chances)


def test_a_model_that_has_learnt_nothing_says_nothing_of_words(lm_stage: Callable[..., Any]) -> None:
    stage = lm_stage(lm=lm_stage().config.lm.model_copy(update={"style_dim": 3}))
    ids = torch.tensor(stage.text.encode("dark"))
    assert not stage.model.said(ids, None).any()
    assert not any(each.requires_grad for each in stage.model.word_styles.parameters()), "they are computed"
