"""Overlapping codes: the search, what it gains, and how codebooks learn to be overlapped."""

import pytest
import torch
from torch import Tensor

from longplay.nn.overlap import Overlap
from longplay.nn.quantizers import CodebookConfig, GroupResidualConfig, GroupResidualQuantizer

OVERLAP = 5


def slow(batch: int, frames: int) -> Tensor:
    """Latents [B, 4, T] that change over some eight frames."""
    noise = torch.randn(batch * 4, 1, frames + 14)
    window = torch.hann_window(17, periodic=False)[1:-1]
    return torch.conv1d(noise, (window / window.norm()).view(1, 1, -1)).view(batch, 4, frames)


def quantizer(ema: bool = True, **options: int) -> GroupResidualQuantizer:
    book = CodebookConfig(size=16, dim=2, decay=0.9, ema=ema)
    return GroupResidualQuantizer(GroupResidualConfig(num_layers=1, num_groups=2, codebook=book, **options))


def trained(overlap: int) -> GroupResidualQuantizer:
    torch.manual_seed(0)
    made = quantizer(overlap=overlap)
    for _ in range(60):
        made(slow(8, 100))
    return made.eval()


@torch.no_grad()
def error(made: GroupResidualQuantizer, latents: Tensor) -> float:
    return float((made.decode(made.encode(latents)) - latents).square().mean() / latents.square().mean())


def test_overlapping_codes_say_more_at_the_same_bit_rate() -> None:
    latents = slow(4, 200)
    assert error(trained(OVERLAP), latents) < 0.6 * error(trained(1), latents)


def test_a_search_that_has_come_to_rest_leaves_no_single_code_to_change() -> None:
    made = trained(OVERLAP)
    made.config = made.config.model_copy(update={"sweeps": 50})
    latents = slow(1, 40)
    codes = made.encode(latents)
    best = error(made, latents)
    for frame in range(0, 40, 7):
        for code in range(16):
            other = codes.clone()
            other[0, 0, frame] = code
            assert float((made.decode(other) - latents).square().mean() / latents.square().mean()) >= best * (1 - 1e-5)


def test_a_vector_is_spread_over_its_neighbours_and_keeps_its_sum() -> None:
    overlap = Overlap(OVERLAP)
    vectors = torch.zeros(1, 2, 11)
    vectors[0, 1, 5] = 3.0
    spread = overlap.spread(vectors)
    assert spread[0, 0].abs().max() == 0
    assert torch.count_nonzero(spread) == OVERLAP
    assert spread.sum() == pytest.approx(3.0)
    torch.testing.assert_close(spread, spread.flip(-1))


@pytest.mark.parametrize("start", [0, 8 * OVERLAP])
def test_a_stretch_has_the_codes_of_the_whole_but_for_its_reach(start: int) -> None:
    made = trained(OVERLAP)
    made.config = made.config.model_copy(update={"sweeps": 2})
    whole, reach = slow(1, 300), made.reach
    assert reach % OVERLAP == 0
    part = made.encode(whole[..., start : start + 200])
    first = reach if start else 0
    assert torch.equal(part[..., first : 200 - reach], made.encode(whole)[..., start + first : start + 200 - reach])


def test_forward_encode_and_decode_agree_and_the_gradient_passes_straight_through() -> None:
    made = trained(OVERLAP)
    latents = slow(2, 30).requires_grad_()
    quantized = made(latents)
    assert torch.equal(quantized.codes, made.encode(latents))
    torch.testing.assert_close(quantized.values, made.decode(quantized.codes))
    quantized.values.sum().backward()
    assert torch.equal(latents.grad, torch.ones_like(latents))


def test_codes_do_not_change_under_autocast() -> None:
    made, latents = trained(OVERLAP), slow(2, 100)
    with torch.autocast("cpu", torch.bfloat16):
        codes, values = made.encode(latents), made(latents).values
    assert torch.equal(codes, made.encode(latents))
    torch.testing.assert_close(values, made.decode(codes))


def test_codebooks_that_are_parameters_learn_by_their_loss() -> None:
    torch.manual_seed(0)
    made = quantizer(ema=False, overlap=OVERLAP)
    for book in made.parameters():
        torch.nn.init.normal_(book)
    held, optimizer = slow(4, 100), torch.optim.Adam(made.parameters(), 0.02)
    before = error(made, held)
    for _ in range(60):
        optimizer.zero_grad()
        made(slow(8, 100)).loss.backward()
        optimizer.step()
    assert error(made, held) < 0.7 * before


def test_fewer_frames_than_overlap_are_quantized() -> None:
    latents = slow(2, 3)
    made = trained(OVERLAP)
    assert made.decode(made.encode(latents)).shape == latents.shape


def test_an_even_overlap_is_refused() -> None:
    with pytest.raises(ValueError, match="4 frames have no middle one"):
        GroupResidualConfig(codebook=CodebookConfig(size=16, dim=2), overlap=4)
