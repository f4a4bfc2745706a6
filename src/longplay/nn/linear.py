"""Linear layers for decoding: side by side as one, since fewer and larger products are what one position at a time needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Weights:
    """A linear layer as plain tensors.

    Attributes:
        weight: [out, in].
        bias: [out] or None.
    """

    weight: Float[Tensor, "O I"]
    bias: Float[Tensor, " O"] | None = None

    def to(self, dtype: torch.dtype) -> "Weights":
        """The same in another dtype."""
        return Weights(self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))


def stack_linears(layers: Sequence[nn.Linear]) -> Weights:
    """One layer whose output is the outputs of `layers`, concatenated; all have the same input and all or none a bias."""
    return Weights(torch.cat([layer.weight.detach() for layer in layers]), stack_biases(layers))


def stack_biases(layers: Sequence[nn.Linear]) -> Float[Tensor, " O"] | None:
    """The bias of `stack_linears`."""
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    return torch.cat(biases) if biases else None


class Dense:
    """A product in the precision of the weights, in and out in the dtype of the input.

    Attributes:
        weight: [out, in]; laid out in memory so that few inputs are multiplied fastest.
        bias: [out] or None.
    """

    def __init__(self, weights: Weights, dtype: torch.dtype | None = None) -> None:
        if dtype is not None:
            weights = weights.to(dtype)
        weight = weights.weight
        if weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.shape[0] > weight.shape[1]:
            weight = weight.t().contiguous().t()  # a third faster for two inputs, measured
        self.weight = weight
        self.bias = weights.bias

    def __call__(self, x: Tensor) -> Tensor:
        """[M, in] to [M, out]."""
        if x.dtype == self.weight.dtype:
            return F.linear(x, self.weight, self.bias)
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)
