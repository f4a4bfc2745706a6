"""Sequences one after the other in one row, each blind to the others: no padding, no work between sequences.

The same as attention with a block-diagonal causal mask (arXiv 2107.02027), computed block by block: a mask would have
most of its products thrown away.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Packing:
    """The lengths of the sequences in a packed row, in order; they fill it."""

    lengths: tuple[int, ...]

    def positions(self, device: torch.device) -> Int[Tensor, " N"]:
        """The position of each vector within its own sequence."""
        return torch.cat([torch.arange(length, device=device) for length in self.lengths])


def attend_causally(
    queries: Float[Tensor, "B H N D"],
    keys: Float[Tensor, "B G N D"],
    values: Float[Tensor, "B G N D"],
    packing: Packing,
) -> Float[Tensor, "B H N D"]:
    """Causal attention with grouped keys within each sequence."""
    # Lengths differ by step: compiled, it would be so anew for each. A decorator would wake the compiler at import.
    attend = torch.compiler.disable(_attend) if torch.compiler.is_compiling() else _attend
    made: Tensor = attend(queries, keys, values, packing)
    return made


def _attend(queries: Tensor, keys: Tensor, values: Tensor, packing: Packing) -> Tensor:
    parts = zip(*(x.split(packing.lengths, dim=2) for x in (queries, keys, values)), strict=True)
    made = [scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True) for q, k, v in parts]
    return torch.cat(made, dim=2)
