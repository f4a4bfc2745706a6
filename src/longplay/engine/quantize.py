"""An `lm` in int8 or int4 that stays close to float32: calibrated, layer by layer, by measured error (`nn/quantized.py`).

From the inputs of every projection while music is generated (`listening`), each takes the cheapest form whose output on
them is close enough: int8; int8 with 8, 32 or 128 input channels kept apart; bfloat16; float32. In int4 are those of the
int8 ones that bear it, but for the head.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from longplay.models.lm import LM
from longplay.nn.decoder import Projection
from longplay.nn.int4 import LARGEST_SUM, Int4Weights, fits_int4, round_to_int4
from longplay.nn.linear import Dense, Weights
from longplay.nn.quantized import Int8, Int8Weights, Rounded, RoundedWeights

ERROR_LIMIT = 0.04  # measured (docs/performance.md): what most projections of every model can keep
INT4_LIMIT = 0.15  # of the error of four bits, whose usual one is half of it
APART = (0, 8, 32, 128)
_FEW = 256  # inputs say how far a form is off
_PAIR = 2  # inputs of a step, which are quantised together

Form = Literal["int4", "int8", "bfloat16", "float32"]


@dataclass(frozen=True, eq=False)
class QuantizedProjection:
    """One projection in its form, and how far its outputs were off on the calibration."""

    weights: RoundedWeights | Weights
    error: float

    @property
    def form(self) -> Form:
        """What it is computed in."""
        if isinstance(self.weights, Int4Weights):
            return "int4"
        if isinstance(self.weights, Int8Weights):
            return "int8"
        assert isinstance(self.weights, Weights)
        return "bfloat16" if self.weights.weight.dtype == torch.bfloat16 else "float32"

    @property
    def apart(self) -> int:
        """Input channels kept apart."""
        return len(self.weights.apart) if isinstance(self.weights, RoundedWeights) else 0

    def projection(self) -> Projection:
        """What computes it, of torch's kernels: there are none for int4."""
        return Int8(self.weights) if isinstance(self.weights, Int8Weights) else self.arithmetic()

    def arithmetic(self) -> Projection:
        """What it computes with inputs of eight bits, slowly."""
        return Rounded(self.weights) if isinstance(self.weights, RoundedWeights) else Dense(self.weights)


def quantize(lm: LM, inputs: Mapping[str, Tensor], limit: float = ERROR_LIMIT) -> dict[str, QuantizedProjection]:
    """Choose a form for every projection of `lm.linears()`.

    Args:
        lm: in float32 on the CPU, not prepared.
        inputs: of every projection, see `listening`.
        limit: of the error of each, see `quantize_projection`.
    """
    return {name: quantize_projection(weights, _few(inputs[name]), limit) for name, weights in lm.linears()}


def _few(inputs: Tensor) -> Tensor:
    return inputs[:: -(-len(inputs) // _FEW)]


@torch.inference_mode()
def quantize_projection(weights: Weights, inputs: Tensor, limit: float = ERROR_LIMIT) -> QuantizedProjection:
    """The cheapest form of a projection that is off by at most `limit`.

    Args:
        weights: in float32.
        inputs: typical ones, [M, in]; they are rounded to eight bits, whatever the kernels of this machine do, so that a
            model has the same form wherever it is quantised.
        limit: of the error, relative to what the channels carry that are never kept apart: large channels must not
            hide what happens to the others.
    """
    off = _Errors(weights, inputs)
    for count in APART:
        if count <= weights.weight.shape[1] // 4:
            split = Int8Weights.of(weights, off.largest[:count].sort().values)
            found = QuantizedProjection(split, off.of(Rounded(split)))
            if found.error <= limit:
                return found
    half = weights.to(torch.bfloat16)
    found = QuantizedProjection(half, off.of(Dense(half)))
    return found if found.error <= limit else QuantizedProjection(weights, 0.0)


def quantize_to_int4(
    lm: LM, inputs: Mapping[str, Tensor] | None, known: Mapping[str, QuantizedProjection], limit: float = INT4_LIMIT
) -> dict[str, QuantizedProjection]:
    """Each projection in int4 that bears it, and the others as `known`.

    Args:
        lm: in float32 on the CPU, not prepared.
        inputs: of every projection, hundreds of them; None: weights go to the nearest number, whatever the error.
        known: forms in int8, which say what channels are kept apart.
        limit: of the error of each, see `quantize_projection`.
    """
    made = dict(known)
    for name, weights in lm.linears():
        wide = known[name].weights
        if name != "head" and isinstance(wide, Int8Weights) and fits_int4(weights):
            heard = None if inputs is None else inputs[name]
            narrow = round_to_int4(weights, wide.apart, heard)
            error = 0.0 if heard is None else _Errors(weights, _few(heard)).of(Rounded(narrow))
            found = QuantizedProjection(narrow, error)
            if found.error <= limit and narrow.sums()[1] <= LARGEST_SUM:
                made[name] = found
    return made


class _Errors:
    """How far projections are off that stand for the same weights, on the same inputs."""

    def __init__(self, weights: Weights, inputs: Tensor) -> None:
        self._pairs = inputs[: len(inputs) // _PAIR * _PAIR].float().unflatten(0, (-1, _PAIR))
        self.largest = self._pairs.abs().amax(dim=(0, 1)).argsort(descending=True)
        self._exact = F.linear(self._pairs, weights.weight, weights.bias)
        bulk = self._pairs.index_fill(2, self.largest[: _bulk_apart(weights)], 0.0)
        self._scale = F.linear(bulk, weights.weight).square().mean().sqrt().clamp(min=1e-12)

    def of(self, projection: Projection) -> float:
        return float((projection(self._pairs) - self._exact).square().mean().sqrt() / self._scale)


def _bulk_apart(weights: Weights) -> int:
    return min(APART[-2], weights.weight.shape[1] // 4)
