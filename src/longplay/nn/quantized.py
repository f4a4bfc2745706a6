"""Linear layers with int8 weights, one scale per output channel, on the CPU.

The inputs of a call are quantised together, so a few channels that are tens of times larger than the rest, which
trained transformers have, would leave no digits to the others (arXiv 2208.07339). Such input channels are kept apart:
their columns stay in float32, and int8 never sees them.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.backends import quantized
from torch.nn import functional as F

from longplay.errors import UserError
from longplay.nn.linear import Weights

_MAX = 127


@dataclass(frozen=True, eq=False)
class RoundedWeights(ABC):
    """A layer whose weights are whole numbers times scales, and exact in the columns kept apart.

    Attributes:
        scales: float32, of each output.
        bias: float32 or None.
        apart: input channels in float32.
        columns: their weights, [K, out].
    """

    scales: Float[Tensor, " O"]
    bias: Float[Tensor, " O"] | None
    apart: Int[Tensor, " K"]
    columns: Float[Tensor, "K O"]

    OF_OUTPUTS: ClassVar[tuple[str, ...]] = ("scales",)
    """Attributes that have a row for each output."""

    @abstractmethod
    def dequantize(self) -> Float[Tensor, "O I"]:
        """The weight that this stands for."""

    @staticmethod
    def stack(parts: Sequence["RoundedWeights"], bias: Float[Tensor, " O"] | None) -> "RoundedWeights":
        """One layer whose output is the outputs of `parts`, and `bias`.

        Raises:
            ValueError: the parts keep different channels apart.
        """
        first = parts[0]
        if not all(torch.equal(part.apart, first.apart) for part in parts):
            raise ValueError("layers that keep different channels apart cannot be one")
        together = {name: torch.cat([getattr(part, name) for part in parts]) for name in first.OF_OUTPUTS}
        return replace(first, bias=bias, columns=torch.cat([part.columns for part in parts], dim=1), **together)

    def split(self, sizes: Sequence[int]) -> list["RoundedWeights"]:
        """The layers, without biases, that `stack` would put together; `sizes` are their outputs."""
        rows = zip(*(getattr(self, name).split(sizes) for name in self.OF_OUTPUTS), strict=True)
        return [
            replace(
                self,
                bias=None,
                apart=self.apart.clone(),
                columns=columns,
                **dict(zip(self.OF_OUTPUTS, row, strict=True)),
            )
            for columns, row in zip(self.columns.split(sizes, dim=1), rows, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Int8Weights(RoundedWeights):
    """In int8: weight[o, i] is about values[o, i] * scales[o].

    Attributes:
        values: int8, zero in the columns kept apart.
    """

    values: Int[Tensor, "O I"]

    OF_OUTPUTS = ("values", "scales")

    @classmethod
    def of(cls, weights: Weights, apart: Int[Tensor, " K"]) -> "Int8Weights":
        """Round to the nearest, keeping the input channels `apart`."""
        weight = weights.weight.detach().float().cpu()
        columns = weight[:, apart].t().contiguous()
        rest = weight.index_fill(1, apart, 0.0)
        scales = rest.abs().amax(dim=1).clamp(min=1e-12) / _MAX
        values = (rest / scales[:, None]).round().clamp(-_MAX, _MAX).to(torch.int8)
        bias = None if weights.bias is None else weights.bias.float().cpu()
        return cls(scales, bias, apart, columns, values)

    def dequantize(self) -> Float[Tensor, "O I"]:
        """The weight that this stands for."""
        return (self.values * self.scales[:, None]).index_copy_(1, self.apart, self.columns.t())


class Int8:
    """The product with `Int8Weights`; inputs and outputs are float32 on the CPU."""

    def __init__(self, weights: Int8Weights) -> None:
        self._packed = _pack(weights)
        multiply = torch.ops.quantized.linear_dynamic.default
        # The call itself looks through its arguments for what only `torch.compile` puts there, for a seventh of the time of a
        # small product; what it then calls has a private name.
        self._multiply = getattr(multiply, "_op", multiply)
        self._reduce_range = input_bits() < 8
        self._apart = weights.apart if len(weights.apart) else None
        self._columns = weights.columns

    def __call__(self, x: Tensor) -> Tensor:
        """[M, in] to [M, out]."""
        if self._apart is None:
            return self._multiply(x, self._packed, self._reduce_range)
        made = self._multiply(x.index_fill(1, self._apart, 0.0), self._packed, self._reduce_range)
        return made.addmm_(x.index_select(1, self._apart), self._columns)


class Rounded:
    """The product with `RoundedWeights` and inputs of eight bits, as `Int8` has them with VNNI, in float32: slower, and the same on every machine."""

    def __init__(self, weights: RoundedWeights) -> None:
        self._weight = weights.dequantize().index_fill(1, weights.apart, 0.0)
        self._weights = weights

    def __call__(self, x: Tensor) -> Tensor:
        """[..., M, in] to [..., M, out]; M inputs are rounded together."""
        weights = self._weights
        rest = x.index_fill(-1, weights.apart, 0.0)
        low, high = rest.amin((-2, -1), keepdim=True).clamp(max=0.0), rest.amax((-2, -1), keepdim=True).clamp(min=0.0)
        step = ((high - low) / 255).clamp(min=1e-12)
        zero = (-low / step).round()
        rounded = (((rest / step).round() + zero).clamp(0, 255) - zero) * step
        made = F.linear(rounded, self._weight, weights.bias)
        return made.add_(x.index_select(-1, weights.apart) @ weights.columns)


_ENGINES = ("x86", "fbgemm", "qnnpack")


def has_kernels() -> bool:
    """Whether this build of torch has int8 kernels for the CPU."""
    return any(name in quantized.supported_engines for name in _ENGINES)


def engine() -> str:
    """The int8 kernels of this build of torch: `x86` or `fbgemm` on x86, `qnnpack` on ARM and Apple.

    Raises:
        UserError: there are none.
    """
    for name in _ENGINES:
        if name in quantized.supported_engines:
            return name
    raise UserError("precision int8: this build of torch has no int8 kernels for the CPU; use bfloat16 or float32")


def input_bits() -> int:
    """Of the inputs of `Int8` on this machine.

    On x86 without VNNI the kernels add pairs of products in 16 bits, which overflow unless inputs have 7; QNNPACK has 8.

    Raises:
        UserError: this build of torch has no int8 kernels.
    """
    return 8 if engine() == "qnnpack" or _has_vnni() else 7


def _pack(weights: Int8Weights) -> torch.ScriptObject:
    name, before = engine(), quantized.engine
    quantized.engine = name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch calls quantised tensors deprecated, but linear_dynamic takes no other
            zeros = torch.zeros(len(weights.scales), dtype=torch.long)
            tensor = torch._make_per_channel_quantized_tensor(weights.values, weights.scales.double(), zeros, 0)
            return torch.ops.quantized.linear_prepack(tensor, weights.bias)
    finally:
        quantized.engine = before


def _has_vnni() -> bool:
    known = getattr(torch.cpu, "_is_vnni_supported", None)  # private; where it is gone, 7 bits are the safe choice
    return bool(known and known())
