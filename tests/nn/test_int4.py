import pytest
import torch
from torch import Tensor

from longplay.nn.int4 import GROUP, LARGEST_SUM, LEVELS, Grid, fits_int4, nearest, round_to_int4
from longplay.nn.linear import Dense, Weights
from longplay.nn.quantized import Rounded, RoundedWeights

NONE = torch.zeros(0, dtype=torch.long)


def layer(outputs: int = 24, inputs: int = 200) -> Weights:
    generator = torch.Generator().manual_seed(0)
    return Weights(torch.randn(outputs, inputs, generator=generator) / 8, torch.randn(outputs, generator=generator))


def alike(count: int = 600, inputs: int = 200) -> Tensor:
    """Inputs that resemble each other, as those of a trained layer do."""
    generator = torch.Generator().manual_seed(1)
    mixed = torch.randn(inputs, 20, generator=generator)
    own = torch.randn(count, inputs, generator=generator)
    return torch.randn(count, 20, generator=generator) @ mixed.t() + own


def off_by(made: Tensor, exact: Tensor) -> float:
    return float((made - exact).norm() / exact.norm())


def test_each_weight_becomes_the_nearest_number_of_its_group() -> None:
    weights = layer()
    made = round_to_int4(weights, NONE)
    steps = (made.groups * made.scales[:, None]).repeat_interleave(GROUP, dim=1)[:, :200]
    numbers = steps[..., None] * torch.tensor(LEVELS)
    nearest_ones = (numbers - weights.weight[..., None]).abs().amin(dim=-1)
    torch.testing.assert_close((made.dequantize() - weights.weight).abs(), nearest_ones)
    assert 0.06 < off_by(made.dequantize(), weights.weight) < 0.085  # four bits of normally distributed weights
    assert made.nibbles.shape == (24, 128)  # of 256 inputs, the next multiple of 64
    assert made.groups.max() == 63


@pytest.mark.parametrize("apart", [NONE, torch.tensor([3, 170])])
def test_errors_make_up_for_each_other_on_inputs_that_were_not_heard(apart: Tensor) -> None:
    weights, inputs = layer(), alike()
    inputs[:, [3, 170]] *= 30.0
    heard, unheard = inputs[:500], inputs[500:]
    exact = Dense(weights)(unheard)
    far, near = (off_by(Rounded(round_to_int4(weights, apart, some))(unheard), exact) for some in (None, heard))
    assert near < 0.6 * far


def test_channels_kept_apart_are_exact() -> None:
    weights, apart = layer(), torch.tensor([3, 170])
    made = round_to_int4(weights, apart, alike())
    assert torch.equal(made.dequantize()[:, apart], weights.weight[:, apart])
    assert made.bias is not None
    assert torch.equal(made.bias, weights.bias)


def test_a_group_of_zeros_stays_zero_and_an_output_may_be_nothing() -> None:
    weights = Weights(layer().weight.clone())
    weights.weight[5] = 0.0
    weights.weight[7, 32:64] = 0.0
    made = round_to_int4(weights, NONE, alike())
    assert not made.dequantize()[5].any()
    assert not made.dequantize()[7, 32:64].any()
    assert made.dequantize().isfinite().all()


def test_layers_are_stacked_and_split() -> None:
    one, other = (round_to_int4(layer(outputs), torch.tensor([2])) for outputs in (8, 24))
    stacked = RoundedWeights.stack([one, other], None)
    assert torch.equal(stacked.dequantize(), torch.cat([one.dequantize(), other.dequantize()]))
    for part, again in zip((one, other), stacked.split([8, 24]), strict=True):
        assert torch.equal(part.dequantize(), again.dequantize())


def test_what_kernels_cannot_compute_is_said_before() -> None:
    assert fits_int4(layer(24))
    assert not fits_int4(layer(20))
    made = round_to_int4(Weights(torch.ones(8, 8192)), NONE)
    assert made.sums()[1] == 127 * 64 * 63 * 8192 > LARGEST_SUM
    assert round_to_int4(layer(), NONE).sums()[1] < LARGEST_SUM / 10


def test_scales_serve_the_inputs_that_count() -> None:
    weight = torch.randn(1, 64, generator=torch.Generator().manual_seed(2))
    weight[0, 0] = 6.0

    def error(importance: float) -> Tensor:
        """Of each input, if the first counts so much."""
        counts = torch.ones(64)
        counts[0] = importance
        grid = Grid.of(weight, counts)
        return (torch.tensor(LEVELS)[nearest(weight / grid.steps(64)).int()] * grid.steps(64) - weight)[0].abs()

    assert error(1e4)[0] < error(1e-4)[0]
    assert error(1e-4)[1:32].mean() < error(1e4)[1:32].mean()
