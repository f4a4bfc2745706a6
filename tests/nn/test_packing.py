import torch
from torch.nn.functional import scaled_dot_product_attention

from longplay.nn.packing import Packing, attend_causally

LENGTHS = (3, 1, 7, 2)


def test_it_is_attention_under_a_block_diagonal_causal_mask() -> None:
    torch.manual_seed(0)
    queries, keys, values = torch.randn(1, 4, 13, 8), torch.randn(1, 2, 13, 8), torch.randn(1, 2, 13, 8)
    mask = torch.block_diag(*(torch.ones(length, length) for length in LENGTHS)).tril().bool()
    expected = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(attend_causally(queries, keys, values, Packing(LENGTHS)), expected)


def test_positions_start_again_with_every_sequence() -> None:
    positions = Packing(LENGTHS).positions(torch.device("cpu"))
    assert positions.tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 4, 5, 6, 0, 1]
