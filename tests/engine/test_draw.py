"""Codes that a compiled step draws by itself are those that torch would draw from its logits."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from longplay.control import Control
from longplay.engine.batch import Batch
from longplay.engine.batching import Runner
from longplay.engine.decode import generate
from longplay.engine.piece import Piece
from longplay.keys import Key
from longplay.models.lm import LM
from longplay.nn import compiled, processor
from longplay.nn.quantized import Int8Weights
from longplay.prompt import GenerationOptions
from tiny_lm import tiny_lm

NONE_APART = torch.zeros(0, dtype=torch.long)
pytestmark = pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")

PIECES = {
    "steady": Piece(
        (1, 2, 3),
        frames=150,
        min_frames=150,
        seed=5,
        prompt=torch.tensor([4, 5]),
        control=Control.steady(140, start=0.1),
    ),
    "may end": Piece((7,), frames=90, seed=6, min_frames=20),
    "long": Piece(
        (), frames=300, seed=5, prompt=torch.arange(11), min_frames=300, control=Control(key=Key(4, "minor"))
    ),
    "short": Piece((9, 9), frames=2, seed=8),
    "later": Piece((3,), frames=17, seed=1, min_frames=17, history=5),
}
OPTIONS = {
    "steady": GenerationOptions(top_k=10),
    "may end": GenerationOptions(top_k=0, top_p=0.95, temperature=4.0),
    "long": GenerationOptions(top_k=350, guidance=1.0),
    "short": GenerationOptions(temperature=0.0),
    "later": GenerationOptions(top_k=3, guidance=1.5, temperature=0.8),
}


def model(**changes: Any) -> LM:
    lm = tiny_lm(dim=96, num_heads=6, num_kv_heads=2, **changes)
    lm.inference = lm.compiled_decoder({name: Int8Weights.of(weights, NONE_APART) for name, weights in lm.linears()})
    return lm


def made(lm: LM, **changes: Any) -> dict[str, list[int]]:
    """Codes of all pieces in two slots, those of "later" cancelled after its first ones."""
    runner = Runner(lm, slots=2, positions=400, chunk_frames=40)
    codes: dict[str, list[int]] = {key: [] for key in PIECES}
    for key, piece in PIECES.items():
        plain = piece if lm.config.control else replace(piece, control=None)
        runner.submit(key, plain, OPTIONS[key].model_copy(update=changes))
    while not runner.idle:
        for chunk in runner.round():
            codes[chunk.key] += chunk.codes.tolist()
    return codes


def by_torch(monkeypatch: pytest.MonkeyPatch, lm: LM, **changes: Any) -> dict[str, list[int]]:
    with monkeypatch.context() as patched:
        patched.setattr(Batch, "_undisturbed", lambda self, count: 0)
        return made(lm, **changes)


@pytest.mark.parametrize("max_repeat", [None, 0.1])
@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("context_frames", [None, 70])
def test_the_same_codes(
    monkeypatch: pytest.MonkeyPatch, context_frames: int | None, control: bool, max_repeat: float | None
) -> None:
    lm = model(context_frames=context_frames, control=control)
    drawn: list[int] = []
    draw = compiled.CompiledStep.draw
    monkeypatch.setattr(
        compiled.CompiledStep, "draw", lambda self, *given: (drawn.append(given[-1]), draw(self, *given))[1]
    )
    codes = made(lm, max_repeat=max_repeat)
    assert sum(drawn) > 300, "most codes are drawn by the step"
    assert max(drawn) > 15
    assert [len(codes[key]) for key in ("steady", "long", "short", "later")] == [150, 300, 2, 17]
    assert 20 <= len(codes["may end"]) < 90, "it ends within a span"
    assert codes == by_torch(monkeypatch, lm, max_repeat=max_repeat)


def test_a_piece_goes_on_beside_one_that_has_filled_the_cache() -> None:
    lm, options = model(), GenerationOptions(top_k=10)
    full = Piece((1,), frames=4, seed=1, prompt=torch.arange(60) % 20, min_frames=4)
    short = Piece((2,), frames=40, seed=2, min_frames=40)
    together = torch.cat(list(generate(lm, [full, short], options)), dim=1)
    assert (together[0] >= 0).sum() == 4
    assert torch.equal(together[1], torch.cat(list(generate(lm, [short], options)), dim=1)[0])


def test_threads_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = made(model())
    monkeypatch.setattr(compiled, "_BYTES_PER_THREAD", 1)
    monkeypatch.setattr(compiled, "available", lambda: 2)
    together = model()
    assert together.inference is not None
    assert together.inference.compiled is not None
    assert together.inference.compiled.longest_draw == 1
    assert made(together) == alone


def test_a_guard_against_loops_changes_what_is_drawn() -> None:
    lm = model()
    assert made(lm, max_repeat=0.1) != made(lm)
