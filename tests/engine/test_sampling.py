import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_fixtures import Golden
from longplay.engine.sampling import UNIFORM_BLOCK, likeliest, mix, redraw_repeats, sample, uniform_block

SIZE = 12
logit_rows = st.lists(st.floats(-8, 8, width=32), min_size=SIZE, max_size=SIZE).map(lambda row: torch.tensor([row]))
fractions = st.floats(0.01, 1.0)
uniform_numbers = st.floats(0, 1, exclude_max=True, width=32)


@pytest.mark.golden
def test_golden_top_ten(golden: type[Golden]) -> None:
    outputs = golden("llm").outputs
    probabilities, classes = likeliest(outputs["t2m.logits_mixed"][:1], temperature=1.0, top_k=10, top_p=1.0)
    spread = torch.zeros(1, len(outputs["top10_probs"])).scatter(1, classes, probabilities)
    torch.testing.assert_close(spread[0], outputs["top10_probs"], atol=1e-6, rtol=0)


@pytest.mark.golden
@pytest.mark.parametrize("task", ["t2m", "cont"])
def test_golden_mix(golden: type[Golden], task: str) -> None:
    fixture = golden("llm")
    conditional, unconditional, mixed = (
        fixture.outputs[f"{task}.logits_{kind}"] for kind in ("cond", "uncond", "mixed")
    )
    guidance = fixture.config["llm"]["infer_cfg_ratio"]
    torch.testing.assert_close(mix(conditional, unconditional, guidance), mixed, atol=1e-4, rtol=0)


def test_guidance_extrapolates_from_unconditional_through_conditional() -> None:
    conditional, unconditional = torch.randn(2, 3, SIZE)
    assert torch.equal(mix(conditional, unconditional, 1.0), conditional)
    assert torch.equal(mix(conditional, unconditional, 0.0), unconditional)
    torch.testing.assert_close(mix(conditional, conditional, 5.0), conditional)
    step = conditional - unconditional
    torch.testing.assert_close(mix(conditional, unconditional, 3.0), conditional + 2 * step)


@given(logit_rows, st.integers(0, SIZE + 3))
@settings(max_examples=60)
def test_top_k_keeps_the_k_likeliest_in_proportion(logits: torch.Tensor, top_k: int) -> None:
    probabilities, classes = likeliest(logits, 1.0, top_k, 1.0)
    size = min(top_k, SIZE) if top_k else SIZE
    assert probabilities.shape == (1, size)
    assert len(set(classes[0].tolist())) == size
    torch.testing.assert_close(logits[0, classes[0]], logits[0].sort(descending=True).values[:size], rtol=0, atol=0)
    expected = logits[0, classes[0]].softmax(0)
    torch.testing.assert_close(probabilities[0], expected)


@given(logit_rows, fractions)
@settings(max_examples=60)
def test_top_p_keeps_the_fewest_classes_that_hold_p(logits: torch.Tensor, top_p: float) -> None:
    probabilities, _ = likeliest(logits, 1.0, 0, top_p)
    full = logits[0].softmax(0).sort(descending=True).values
    kept = int((probabilities > 0).sum())
    assert kept >= 1
    assert float(full[:kept].sum()) >= top_p - 1e-5
    assert float(full[: kept - 1].sum()) < top_p + 1e-5
    torch.testing.assert_close(probabilities[0, :kept], full[:kept] / full[:kept].sum())


@given(logit_rows, uniform_numbers, st.floats(0.05, 5), st.integers(0, SIZE), fractions)
@settings(max_examples=100)
def test_only_what_may_be_drawn_is_drawn(
    logits: torch.Tensor, uniform: float, temperature: float, top_k: int, top_p: float
) -> None:
    logits[0, 3] = -torch.inf
    code = int(sample(logits, torch.tensor([uniform]), temperature, top_k, top_p))
    probabilities, classes = likeliest(logits, temperature, top_k, top_p)
    assert code in classes[0, probabilities[0] > 0].tolist()
    assert code != 3


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0]])
    count = 20_000
    uniforms = (torch.arange(count) + 0.5) / count
    codes = sample(logits.expand(count, -1), uniforms, temperature=0.7, top_k=0, top_p=1.0)
    shares = codes.bincount(minlength=4) / count
    torch.testing.assert_close(shares, (logits[0] / 0.7).softmax(0), atol=1e-3, rtol=0)


def test_temperature_zero_is_greedy() -> None:
    logits = torch.randn(5, SIZE)
    assert torch.equal(sample(logits, torch.rand(5), 0.0, 350, 0.9), logits.argmax(-1))


def test_rows_are_drawn_independently() -> None:
    logits, uniforms = torch.randn(4, SIZE), torch.rand(4)
    together = sample(logits, uniforms, 1.0, 5, 0.9)
    alone = [sample(logits[row : row + 1], uniforms[row : row + 1], 1.0, 5, 0.9) for row in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_uniform_numbers_depend_on_seed_and_block() -> None:
    block = uniform_block(7, 0)
    assert block.shape == (UNIFORM_BLOCK,)
    assert torch.equal(block, uniform_block(7, 0))
    assert float(block.min()) >= 0
    assert float(block.max()) < 1
    for other in (uniform_block(7, 1), uniform_block(8, 0)):
        assert not torch.equal(block, other)


def test_only_what_came_too_often_is_drawn_again() -> None:
    recent = torch.tensor([[1, 1, 2, 3], [1, 2, 3, -1]])
    logits = torch.full((2, SIZE), -torch.inf)
    logits[:, 7] = 0.0
    drawn = torch.tensor([1, 1])
    assert redraw_repeats(drawn, logits, recent, torch.tensor([0.5, 0.5]), 0.5).tolist() == [7, 1]
    assert redraw_repeats(drawn, logits, recent, torch.tensor([0.5, 0.5]), 0.25).tolist() == [7, 7]


def test_second_draws_have_numbers_of_their_own() -> None:
    assert not torch.equal(uniform_block(3, 0), uniform_block(3, 0, "redraws"))
