import torch

from longplay.nn.length_regulator import LengthRegulator
from longplay.nn.masking import Padding


@torch.no_grad()
def test_padded_rows_equal_single_ones_at_uneven_ratios() -> None:
    torch.manual_seed(0)
    regulator, x = LengthRegulator(6, 4, num_layers=2), torch.randn(2, 9, 6)
    padding, padding_out = Padding.of(torch.tensor([9, 5]), 9), Padding.of(torch.tensor([18, 11]), 18)
    batch = regulator(x, 18, padding, padding_out)
    torch.testing.assert_close(batch[1:, :, :11], regulator(x[1:, :5], 11), rtol=0, atol=1e-5)
    assert not batch[1, :, 11:].any()


@torch.no_grad()
def test_whole_rows_may_stretch_to_different_lengths() -> None:
    torch.manual_seed(0)
    regulator, x = LengthRegulator(6, 4, num_layers=2), torch.randn(2, 9, 6)
    batch = regulator(x, 18, None, Padding.of(torch.tensor([18, 16]), 18))
    torch.testing.assert_close(batch[1:, :, :16], regulator(x[1:], 16), rtol=0, atol=1e-5)


@torch.no_grad()
def test_without_layers_it_interpolates() -> None:
    regulator = LengthRegulator(1, 1, num_layers=0)
    torch.nn.init.ones_(regulator.model[0].weight)
    torch.nn.init.zeros_(regulator.model[0].bias)
    stretched = regulator(torch.tensor([[[0.0], [4.0]]]), 4)
    assert stretched.tolist() == [[[0, 1, 3, 4]]]
