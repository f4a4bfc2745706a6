import math

import torch

from longplay.nn.conformer import Conformer, ConformerConfig, RelativeAttention, align_offsets, relative_positions
from longplay.nn.masking import Padding

CONFIG = ConformerConfig(dim=8, num_layers=2, num_heads=2, hidden_dim=16)


def test_scores_are_aligned_by_offset() -> None:
    length = 4
    offsets = torch.arange(length - 1, -length, -1, dtype=torch.float32)
    aligned = align_offsets(offsets.expand(1, 1, length, -1))[0, 0]
    i, j = torch.meshgrid(torch.arange(length), torch.arange(length), indexing="ij")
    assert torch.equal(aligned, (i - j).float())


def test_positions_are_sinusoids_of_the_offset() -> None:
    table = relative_positions(3, 8)
    assert table.shape == (5, 8)
    for row, offset in enumerate((2, 1, 0, -1, -2)):
        for column in range(4):
            angle = offset * 10_000 ** (-2 * column / 8)
            assert math.isclose(table[row, 2 * column].item(), math.sin(angle), abs_tol=1e-6)
            assert math.isclose(table[row, 2 * column + 1].item(), math.cos(angle), abs_tol=1e-6)


@torch.no_grad()
def test_attention_equals_its_formula() -> None:
    torch.manual_seed(0)
    attention, x = RelativeAttention(CONFIG).eval(), torch.randn(1, 5, 8)
    table = relative_positions(5, 8)
    query, key, value = (
        layer(x)[0].unflatten(-1, (2, 4)) for layer in (attention.linear_q, attention.linear_k, attention.linear_v)
    )
    position = attention.linear_pos(table).unflatten(-1, (2, 4))
    heads = torch.zeros(5, 2, 4)
    for head in range(2):
        scores = torch.zeros(5, 5)
        for i in range(5):
            for j in range(5):
                by_content = (query[i, head] + attention.pos_bias_u[head]) @ key[j, head]
                by_distance = (query[i, head] + attention.pos_bias_v[head]) @ position[4 - (i - j), head]
                scores[i, j] = (by_content + by_distance) / math.sqrt(4)
        heads[:, head] = scores.softmax(dim=-1) @ value[:, head]
    torch.testing.assert_close(attention(x, table)[0], attention.linear_out(heads.flatten(1)))


@torch.no_grad()
def test_padded_rows_equal_single_ones() -> None:
    torch.manual_seed(0)
    encoder, x = Conformer(6, CONFIG).eval(), torch.randn(2, 7, 6)
    batch = encoder(x, Padding.of(torch.tensor([7, 4]), 7))
    torch.testing.assert_close(batch[:1], encoder(x[:1]), rtol=0, atol=1e-6)
    torch.testing.assert_close(batch[1:, :4], encoder(x[1:, :4]), rtol=0, atol=1e-6)
