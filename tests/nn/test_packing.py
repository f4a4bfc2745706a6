import subprocess
import sys

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


COMPILED = """
import torch
from torch._dynamo.testing import CompileCounter
from longplay.nn.packing import Packing, attend_causally

class Doubled(torch.nn.Module):
    def forward(self, x, packing):
        return 2 * attend_causally(x + 1, x + 1, x + 1, packing)

plain, compiled, counter = Doubled(), Doubled(), CompileCounter()
compiled.compile(backend=counter)
for lengths in [(5, 6), (3, 9, 2), (7, 1), (4, 4, 8, 2), (6, 13), (2, 3)]:
    x = torch.randn(1, 2, sum(lengths), 8)
    torch.testing.assert_close(compiled(x, Packing(lengths)), plain(x, Packing(lengths)))
    print(counter.frame_count)
"""


def test_compiled_around_it_no_new_lengths_are_compiled_anew() -> None:
    # in a process of its own: the compiler and the checks of shapes in tests do not go together
    done = subprocess.run([sys.executable, "-c", COMPILED], check=True, capture_output=True, text=True)
    counts = [int(line) for line in done.stdout.split()]
    assert len(counts) == 6
    assert counts[-1] == counts[1], "the first two: one for a length, one for any"
