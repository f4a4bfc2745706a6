from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from golden_fixtures import Golden
from longplay.checkpoint.system import load_system
from longplay.control import Control
from longplay.engine import batch, piece
from longplay.engine.batch import NO_CODE
from longplay.engine.decode import Decoding, generate
from longplay.engine.piece import Piece, RowBuilder
from longplay.engine.prefill import prefill
from longplay.keys import Key
from longplay.models.lm import LM
from longplay.prompt import GenerationOptions, Section
from tiny_lm import golden_lm, tiny_lm

GREEDY = GenerationOptions(temperature=0.0)
SAMPLED = GenerationOptions(top_k=10)
REFERENCE = GenerationOptions(temperature=0.0, compatibility="reference")


def codes_of(chunks: Iterable[Tensor], row: int = 0) -> list[int]:
    return [code for chunk in chunks for code in chunk[row].tolist() if code != NO_CODE]


def codes(lm: LM, *pieces: Piece, options: GenerationOptions = SAMPLED, chunk_frames: int = 4) -> list[list[int]]:
    chunks = list(generate(lm, pieces, options, chunk_frames))
    return [codes_of(chunks, row) for row in range(len(pieces))]


def trace(decoding: Decoding, count: int) -> tuple[Tensor, Tensor]:
    """Logits [count, B, R, V] before each of `count` codes, and the codes [count, B]."""
    logits, made = [], []
    for _ in range(count):
        logits.append(decoding.logits.clone())
        made.append(decoding.chunk(1)[:, 0])
    return torch.stack(logits), torch.stack(made)


def use_vectors(monkeypatch: pytest.MonkeyPatch, inputs: dict[str, Tensor]) -> None:
    vectors = torch.cat([inputs[f"uncond.{name}"][0] for name in ("time_start", "time_end", "chorus")])
    monkeypatch.setattr(piece, "reference_structure", lambda seed, segments, dim: vectors)


def golden_piece(fixture: Golden, prompt: bool) -> Piece:
    inputs = fixture.inputs
    assert inputs["chorus"].item() == piece.REFERENCE_CLI_IDS["verse"]
    section = Section(label="verse", start=inputs["time_start"].item(), end=inputs["time_end"].item())
    ids = tuple(inputs["text_token"][0].tolist())
    return Piece(ids, frames=16, seed=0, sections=(section,), prompt=inputs["prompt_audio"][0, : 7 * prompt])


@pytest.mark.golden
@pytest.mark.parametrize("task", ["t2m", "cont"])
def test_golden_guided(golden: type[Golden], monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    fixture = golden("llm")
    lm, outputs = golden_lm(fixture), fixture.outputs
    use_vectors(monkeypatch, fixture.inputs)
    asked = golden_piece(fixture, prompt=task == "cont")
    builder = RowBuilder(lm, asked, "reference")
    rows = torch.stack(builder.rows(builder.prompt, 0, guided=True))
    torch.testing.assert_close(rows, outputs[f"{task}.lm_input"], atol=1e-4, rtol=0)

    logits, made = trace(Decoding(lm, [asked], REFERENCE), 16)
    torch.testing.assert_close(logits[:, 0, 0], outputs[f"{task}.logits_cond"], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits[:, 0, 1], outputs[f"{task}.logits_uncond"], atol=1e-4, rtol=0)
    assert made[:, 0].tolist() == outputs[f"{task}.tokens"].tolist()
    assert codes(lm, asked, options=REFERENCE)[0] == outputs[f"{task}.tokens"].tolist()


@pytest.mark.golden
def test_golden_unguided_ends_by_eos(golden: type[Golden]) -> None:
    fixture = golden("llm")
    lm, expected = golden_lm(fixture), fixture.outputs["t2m_nocfg.tokens"]
    asked = golden_piece(fixture, prompt=False)
    options = GenerationOptions(temperature=0.0, guidance=1.0, compatibility="reference")
    builder = RowBuilder(lm, asked, "reference")
    rows = torch.stack(builder.rows(builder.prompt, 0, guided=False))
    torch.testing.assert_close(rows, fixture.outputs["t2m_nocfg.lm_input"], atol=1e-4, rtol=0)
    logits, _ = trace(Decoding(lm, [asked], options), 16)
    assert logits.shape[2] == 1
    torch.testing.assert_close(logits[:, 0, 0], fixture.outputs["t2m_nocfg.logits_cond"], atol=1e-4, rtol=0)
    assert len(expected) < 16
    assert codes(lm, asked, options=options)[0] == expected.tolist()


@pytest.mark.tiny_checkpoint
@pytest.mark.parametrize("task", ["t2m", "cont"])
def test_tiny_checkpoint(
    golden: type[Golden], golden_directory: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    expected = golden("tiny_checkpoint_expected")
    lm = load_system(golden_directory / "tiny_checkpoint").lm
    assert lm is not None
    use_vectors(monkeypatch, expected.inputs)
    heard = expected.outputs["wavtokenizer.codes"][0, 0]
    asked = Piece(
        ids=tuple(expected.outputs["llm.text_ids"].tolist()),
        frames=37,
        seed=0,
        sections=(Section(label="intro", start=0, end=30),),
        prompt=heard if task == "cont" else heard[:0],
    )
    tokens = expected.outputs[f"llm.{task}.tokens"][0]
    logits, made = trace(Decoding(lm, [asked], REFERENCE), len(tokens))
    mixed = 3 * logits[:, 0, 0] - 2 * logits[:, 0, 1]
    torch.testing.assert_close(mixed, expected.outputs[f"llm.{task}.logits_mixed"], atol=1e-4, rtol=0)
    assert made[:, 0].tolist() == tokens.tolist()


def assert_steps_equal_a_full_forward(
    lm: LM, asked: Piece, compatibility: Any, frames: int, steps: Iterable[int]
) -> None:
    """The logits before some of `frames` codes are those of the whole rows so far."""
    logits, made = trace(Decoding(lm, [asked], GenerationOptions(compatibility=compatibility)), frames)
    builder = RowBuilder(lm, asked, compatibility)
    for step in steps:
        history = torch.cat([asked.prompt, made[:step, 0]])
        for row, inputs in enumerate(builder.rows(history, 0, guided=True)):
            with torch.no_grad():
                full = lm.audio_head(lm(inputs[None]))[0, -1]
            torch.testing.assert_close(logits[step, 0, row], full, atol=1e-5, rtol=1e-4)


RAGGED = (
    Piece((1, 2, 3), frames=9, seed=5, prompt=torch.tensor([4, 5])),
    Piece((7,), frames=14, seed=6, sections=(Section(label="intro", start=0, end=1),) * 1, min_frames=14),
    Piece((), frames=3, seed=5, prompt=torch.arange(19)),
)


@pytest.mark.parametrize("guidance", [3.0, 1.0])
@pytest.mark.parametrize("context_frames", [None, 8])
def test_a_batch_equals_its_pieces_alone(guidance: float, context_frames: int | None) -> None:
    lm = tiny_lm(context_frames=context_frames)
    options = GenerationOptions(guidance=guidance, top_k=10, top_p=0.95)
    together = codes(lm, *RAGGED, options=options)
    assert together == [codes(lm, one, options=options)[0] for one in RAGGED]
    assert len(together[1]) == 14


HELD = tuple(
    replace(piece, frames=piece.frames + 70, min_frames=100, offset=offset, control=control)
    for piece, offset, control in zip(
        RAGGED,
        (0.0, 3.1, 1.7),
        (Control.steady(140, start=0.1), None, Control((2.0, 3.0, 3.9), 3, Key(4, "minor"))),
        strict=True,
    )
)  # beyond a block of controls


@pytest.mark.parametrize("context_frames", [None, 8])
def test_pieces_with_and_without_a_pulse_share_a_batch(context_frames: int | None) -> None:
    lm = tiny_lm(context_frames=context_frames, control=True)
    options = GenerationOptions(top_k=10)
    together = codes(lm, *HELD, options=options)
    assert together == [codes(lm, one, options=options)[0] for one in HELD]
    freed = codes(lm, replace(HELD[0], control=None), options=options)[0]
    assert freed != together[0]


@pytest.mark.parametrize("held", HELD)
def test_stepwise_logits_with_a_pulse_equal_a_full_forward(held: Piece) -> None:
    steps = (0, 1, 2, 63, 64, 65, held.frames - 1)
    assert_steps_equal_a_full_forward(tiny_lm(control=True), held, "none", held.frames, steps)


def test_a_model_that_takes_no_pulse_says_so() -> None:
    with pytest.raises(ValueError, match=r"LMConfig.control is false"):
        codes(tiny_lm(), HELD[0])


@pytest.mark.parametrize("compatibility", ["none", "reference"])
def test_stepwise_logits_equal_a_full_forward(compatibility: Any) -> None:
    assert_steps_equal_a_full_forward(tiny_lm(), RAGGED[0], compatibility, 9, range(9))


def test_chunked_prefill_equals_whole() -> None:
    lm = tiny_lm()
    rows = [torch.randn(length, lm.config.dim) for length in (11, 4, 7)]
    decoder = lm.decoder()
    whole = prefill(decoder, rows, lm.cache(3, 11))
    for positions in (1, 3, 4, 7):
        torch.testing.assert_close(prefill(decoder, rows, lm.cache(3, 11), positions), whole, atol=1e-5, rtol=1e-5)


def test_unguided_runs_one_row() -> None:
    lm = tiny_lm()
    assert Decoding(lm, RAGGED[:1], GenerationOptions(guidance=1.0)).cache.lengths.shape == (1,)
    assert Decoding(lm, RAGGED[:1], GenerationOptions(guidance=1.5)).cache.lengths.shape == (2,)


def test_the_unconditional_row_is_what_training_makes_by_dropping_text() -> None:
    lm = tiny_lm()
    conditional, unconditional = RowBuilder(lm, RAGGED[0], "none").rows(RAGGED[0].prompt, 0, guided=True)
    silent = Piece((), RAGGED[0].frames, 0, prompt=RAGGED[0].prompt)
    assert torch.equal(unconditional, RowBuilder(lm, silent, "none").rows(silent.prompt, 0, guided=False)[0])
    assert len(conditional) - len(unconditional) == len(RAGGED[0].ids)


def test_reference_compatibility_is_seeded_and_cuts_the_prompt() -> None:
    lm = tiny_lm(code_rate=2)
    long = Piece((1,), 4, seed=3, prompt=torch.arange(15))
    builder = RowBuilder(lm, long, "reference")
    assert builder.prompt.tolist() == list(range(10))
    first, again = (builder.rows(builder.prompt, 0, guided=True)[1] for _ in range(2))
    assert torch.equal(first, again)
    other = RowBuilder(lm, Piece((1,), 4, seed=4, prompt=torch.arange(15)), "reference")
    assert not torch.equal(first, other.rows(other.prompt, 0, guided=True)[1])
    assert torch.equal(first[-10:], lm.audio_embedding(torch.zeros(10, dtype=torch.long)))


def test_seeds_decide() -> None:
    lm = tiny_lm()
    drafts = [codes(lm, Piece((1, 2), 20, seed))[0] for seed in (1, 1, 2)]
    assert drafts[0] == drafts[1] != drafts[2]


def test_chunking_does_not_change_the_codes() -> None:
    lm = tiny_lm()
    assert len({tuple(codes(lm, Piece((1,), 20, 4), chunk_frames=size)[0]) for size in (1, 7, 20, 64)}) == 1


def eos_loving(frames: int) -> LM:
    lm = tiny_lm(context_frames=frames)
    with torch.no_grad():
        lm.audio_head.bias[lm.config.eos] = 1e4
    return lm


@pytest.mark.parametrize(("min_frames", "length"), [(None, 18), (0, 0), (5, 5), (20, 20)])
def test_eos_is_forbidden_before_min_frames(min_frames: int | None, length: int) -> None:
    lm = eos_loving(64)
    chunks = list(generate(lm, [Piece((1,), 20, 0, min_frames=min_frames)], GREEDY, 6))
    assert len(codes_of(chunks)) == length
    assert all((chunk != NO_CODE).any() for chunk in chunks)
    assert all(chunk.shape[1] == 6 for chunk in chunks[:-1])


def test_pieces_of_a_batch_end_by_themselves() -> None:
    lm = eos_loving(64)
    lengths = [len(row) for row in codes(lm, Piece((1,), 10, 0, min_frames=2), Piece((1,), 7, 0, min_frames=7))]
    assert lengths == [2, 7]


def test_closing_the_iterator_stops_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    calls: list[int] = []
    lm.audio_embedding.register_forward_hook(lambda *_: calls.append(1))
    chunks = generate(lm, [Piece((1,), 1000, 0, min_frames=1000)], SAMPLED, chunk_frames=3)
    assert next(chunks).shape == (1, 3)
    chunks.close()
    assert len(calls) == 2 + 3  # two rows read, then a step per code
    with pytest.raises(StopIteration):
        next(chunks)


def windows_of(lm: LM, asked: Piece, monkeypatch: pytest.MonkeyPatch) -> tuple[Decoding, list[tuple[int, int]]]:
    seen: list[tuple[int, int]] = []
    real = batch.RowBuilder.rows

    def rows(self: RowBuilder, history: Tensor, first: int, guided: bool) -> list[Tensor]:
        seen.append((first, len(history)))
        return real(self, history, first, guided)

    monkeypatch.setattr(batch.RowBuilder, "rows", rows)
    return Decoding(lm, [asked], SAMPLED), seen


def test_memory_stays_flat_beyond_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm(context_frames=8)
    sections: Sequence[Section] = [Section(label="intro", start=0, end=0.2), Section(label="verse", start=0.2, end=2)]
    asked = Piece((1, 2), 30, 0, tuple(sections), min_frames=30)
    decoding, seen = windows_of(lm, asked, monkeypatch)
    storage, capacity = decoding.cache.data.data_ptr(), decoding.cache.capacity
    made = decoding.chunk(30)
    assert seen == [(first, 4 * (first > 0)) for first in range(0, 28, 4)]
    assert decoding.cache.data.data_ptr() == storage
    assert decoding.cache.longest <= capacity == 2 + 3 * 2 + 2 + 8
    assert made.shape == (1, 30)
    longer = Decoding(lm, [Piece((1, 2), 3000, 0, tuple(sections))], SAMPLED)
    assert longer.cache.capacity == capacity


def test_windows_are_told_their_place_in_the_piece() -> None:
    lm = tiny_lm(context_frames=150, code_rate=75, num_labels=6, unlabelled=5)
    sections = (Section(label="intro", start=0, end=3), Section(label="chorus", start=3, end=10))
    builder = RowBuilder(lm, Piece((), 3000, 0, sections, offset=1.0), "none")
    assert builder.segments(0) == ((1.0, 3.0, 0),)
    assert builder.segments(75) == ((2.0, 3.0, 0), (3.0, 4.0, 1))
    assert builder.segments(750) == ((11.0, 13.0, 5),)


def test_a_model_of_whole_pieces_is_told_everything_once() -> None:
    lm = tiny_lm()
    sections = (Section(label="verse", start=30, end=60),)
    assert RowBuilder(lm, Piece((), 75, 0, sections), "none").segments(0) == ((30.0, 60.0, 2),)
    assert RowBuilder(lm, Piece((), 75, 0, sections), "reference").segments(0) == ((30.0, 60.0, 1),)
    assert RowBuilder(lm, Piece((), 75, 0, offset=2.0), "none").segments(0) == ((2.0, 3.0, lm.config.unlabelled),)


def test_a_prompt_longer_than_the_context_is_heard_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm(context_frames=8)
    _, seen = windows_of(lm, Piece((), 3, 0, prompt=torch.arange(19)), monkeypatch)
    assert seen == [(12, 7)]


def test_logits_after_forgetting_equal_a_fresh_start(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm(context_frames=8)
    asked = Piece((1, 2), 12, 0, min_frames=12)
    logits, made = trace(Decoding(lm, [asked], SAMPLED), 10)
    rows = RowBuilder(lm, asked, "none").rows(made[4:9, 0], 4, guided=True)  # code 8 came after forgetting
    for row, inputs in enumerate(rows):
        with torch.no_grad():
            torch.testing.assert_close(logits[9, 0, row], lm.audio_head(lm(inputs[None]))[0, -1], atol=1e-5, rtol=1e-4)


def test_a_piece_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="frames 0"):
        Piece((), 0, 0)


def test_a_model_of_whole_pieces_forgets_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    asked = Piece((1, 2), 30, 0, min_frames=30, history=8)
    decoding, seen = windows_of(lm, asked, monkeypatch)
    capacity = decoding.cache.capacity
    first = decoding.chunk(8)
    assert torch.equal(first, Decoding(lm, [Piece((1, 2), 30, 0, min_frames=30)], SAMPLED).chunk(8))
    decoding.chunk(22)
    assert [start for start, _ in seen if start] == list(range(4, 28, 4))
    assert Decoding(lm, [Piece((1, 2), 3000, 0, history=8)], SAMPLED).cache.capacity == capacity
    with pytest.raises(ValueError, match="history 1"):
        Piece((1,), 3, 0, history=1)


def test_loops_are_broken_on_request() -> None:
    lm = tiny_lm()
    with torch.no_grad():
        lm.audio_head.weight.zero_()
        lm.audio_head.bias.zero_()
        lm.audio_head.bias[3] = 6.0  # all but certain
    asked = Piece((1,), 60, 0, min_frames=60)
    stuck = codes(lm, asked, options=GenerationOptions(top_k=1, guidance=1.0))[0]
    assert set(stuck) == {3}
    freed = GenerationOptions(top_k=1, guidance=1.0, temperature=1.0, max_repeat=0.25)
    assert codes(lm, asked, options=freed)[0] == codes(lm, asked, options=freed, chunk_frames=7)[0]
    with torch.no_grad():
        lm.audio_head.bias[3] = 1.0
    made = codes(lm, asked, options=freed)[0]
    assert 0.25 < made.count(3) / len(made) < 0.6


def test_the_cache_takes_the_numbers_that_are_asked_for() -> None:
    lm = tiny_lm()
    piece = Piece((1, 2), 12, 0, min_frames=12)
    for name in ("float32", "bfloat16", "int8"):
        options = GenerationOptions(cache=name, temperature=0.0)  # type: ignore[arg-type]
        decoding = Decoding(lm, [piece], options)
        assert decoding.cache.data.dtype == getattr(torch, name)
        assert decoding.chunk(12).shape == (1, 12)
