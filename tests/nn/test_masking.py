import torch
from torch import nn

from longplay.nn.masking import MaskedGroupNorm, Padding, hide


def test_padding_knows_its_frames_and_lengths() -> None:
    padding = Padding.of(torch.tensor([3, 1]), 4)
    assert padding.frames.tolist() == [[[1, 1, 1, 0]], [[1, 0, 0, 0]]]
    assert padding.lengths.tolist() == [3, 1]
    assert padding.halved().lengths.tolist() == [2, 1]
    assert hide(torch.ones(2, 5, 4), padding).sum(dim=(1, 2)).tolist() == [15, 5]


def test_the_exact_mask_hides_keys_and_the_reference_one_adds_to_scores() -> None:
    lengths = torch.tensor([2])
    assert Padding.of(lengths, 3).attention_mask(torch.float32).tolist() == [[[[True, True, False]]]]
    reference = Padding.of(lengths, 3, reference=True).attention_mask(torch.float32)
    assert reference.tolist() == [[[[1, 1, 0], [1, 1, 0], [0, 0, 0]]]]


def test_masked_statistics_are_those_of_the_single_rows() -> None:
    norm, x, lengths = MaskedGroupNorm(2, 6), torch.randn(2, 6, 9) * 3 + 1, [9, 4]
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    masked = norm(x, Padding.of(torch.tensor(lengths), 9))
    for row, length in enumerate(lengths):
        single = norm(x[row : row + 1, :, :length])
        torch.testing.assert_close(masked[row : row + 1, :, :length], single, rtol=0, atol=1e-5)


def test_reference_statistics_count_padded_frames() -> None:
    norm, x = MaskedGroupNorm(2, 6), torch.randn(1, 6, 9)
    assert torch.equal(norm(x, Padding.of(torch.tensor([4]), 9, reference=True)), norm(x))
