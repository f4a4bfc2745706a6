"""Linear layers with weights of four bits: one of sixteen levels, times a scale of 32 neighbouring inputs.

Sixteen levels for weights that are normally distributed, scaled by the largest of their group, lie closer where weights are
more frequent (as in arXiv 2305.14314); these are their means (Lloyd's algorithm), as whole numbers that let sums of
products of bytes stay within 16 bits (`nn/kernels/vectors.py`).
"""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Integer, UInt8
from torch import Tensor
from torch.nn import functional as F

from longplay.nn.linear import Weights
from longplay.nn.quantized import RoundedWeights

LEVELS = (-64, -51, -40, -32, -24, -17, -10, -3, 3, 10, 17, 24, 32, 40, 51, 64)
GROUP = 32
"""Inputs that share a scale."""
BLOCK = 64
"""Inputs come in so many: a byte holds two of them, a group apart."""
OUTPUTS = 8
"""Outputs are a multiple of so many: twice, for the gates of an MLP, what is computed together."""
LARGEST_SUM = (1 << 31) - 1
"""That a product may reach before it is scaled."""
_LARGEST_SCALE = 63
_HALVES = 2 * LEVELS[-1]
_LARGEST_INPUT = 127
_DAMPING = 0.5  # of the mean square of an input, measured (docs/experiments.md): a few hundred inputs say little of their likeness
_OUTPUTS_AT_ONCE = 256  # whose weights stay in a cache
_FACTORS = (0.8, 0.9, 1.0, 1.1)  # of a group's largest weight, to be the largest level


@dataclass(frozen=True, eq=False)
class Int4Weights(RoundedWeights):
    """In int4: weight[o, i] is about LEVELS[nibble] * groups[o, i // 32] * scales[o].

    Attributes:
        nibbles: uint8: the lower half of byte j of block b is the level of input 64 b + j, the upper one that of 64 b + 32 + j.
        groups: uint8, at most 63.
        inputs: I; nibbles and groups are of the next multiple of 64.
    """

    nibbles: UInt8[Tensor, "O J"]
    groups: UInt8[Tensor, "O G"]
    inputs: int

    OF_OUTPUTS = ("nibbles", "groups", "scales")

    @classmethod
    def of(
        cls, weights: Weights, apart: Int[Tensor, " K"], places: Integer[Tensor, "O I"], grid: "Grid"
    ) -> "Int4Weights":
        """Levels and their scales as one layer.

        Args:
            weights: what they stand for; the input channels `apart` are kept.
            places: among the levels, of all inputs.
            grid: scales.
        """
        weight = weights.weight.detach().float().cpu()
        halves = F.pad(places.to(torch.uint8), (0, -places.shape[1] % BLOCK)).view(len(places), -1, 2, GROUP)
        nibbles = (halves[:, :, 0] | halves[:, :, 1] << 4).flatten(1)
        bias = None if weights.bias is None else weights.bias.float().cpu()
        columns = weight[:, apart].t().contiguous()
        return cls(grid.scales, bias, apart, columns, nibbles, grid.groups, weight.shape[1])

    def levels(self) -> Int[Tensor, "O J2"]:
        """The level of each input, those that fill the last block included; int8."""
        blocks = self.nibbles.view(len(self.nibbles), -1, 1, GROUP)
        places = torch.cat([blocks & 15, blocks >> 4], dim=2).flatten(1)
        return torch.tensor(LEVELS, dtype=torch.int8)[places.int()]

    def dequantize(self) -> Float[Tensor, "O I"]:
        """The weight that this stands for."""
        factors = (self.groups * self.scales[:, None]).repeat_interleave(GROUP, dim=1)
        return (self.levels() * factors)[:, : self.inputs].contiguous().index_copy_(1, self.apart, self.columns.t())

    def sums(self) -> tuple[Int[Tensor, " O"], int]:
        """Of each output its levels times their scales, and what a product can reach, at most, before it is scaled."""
        levels, groups = self.levels().view(*self.groups.shape, GROUP), self.groups.long()
        sizes = (levels.abs().sum(dim=2) * groups).sum(dim=1)
        return (levels.sum(dim=2) * groups).sum(dim=1), _LARGEST_INPUT * int(sizes.max())


@dataclass(frozen=True, eq=False)
class Grid:
    """The numbers that weights can be rounded to.

    Attributes:
        groups: uint8, scale of each group as a multiple of that of its output.
        scales: float32, of each output.
    """

    groups: UInt8[Tensor, "O G"]
    scales: Float[Tensor, " O"]

    @classmethod
    def of(cls, weight: Float[Tensor, "O I"], importance: Float[Tensor, " I"]) -> "Grid":
        """Scales that leave the smallest squared error, which counts by the `importance` of each input."""
        padding = (0, -weight.shape[1] % BLOCK)
        counts = F.pad(importance, padding).view(1, -1, GROUP)
        groups = F.pad(weight, padding).view(len(weight), -1, GROUP)
        found = torch.cat([_best_scales(some, counts) for some in groups.split(_OUTPUTS_AT_ONCE)])
        scales = found.amax(dim=1).clamp(min=1e-20) / _LARGEST_SCALE
        return cls((found / scales[:, None]).round().to(torch.uint8), scales)

    def steps(self, inputs: int) -> Float[Tensor, "O I"]:
        """What a level of each input is to be multiplied with; not zero."""
        steps = self.groups.float().clamp(min=1e-6) * self.scales[:, None]
        return steps.repeat_interleave(GROUP, dim=1)[:, :inputs]


def _best_scales(groups: Float[Tensor, "O G 32"], counts: Float[Tensor, "1 G 32"]) -> Float[Tensor, "O G"]:
    """Of each group the scale of its levels that leaves the smallest squared error, by the counts of its inputs."""
    largest = groups.abs().amax(dim=2, keepdim=True)
    scaled = groups * (LEVELS[-1] / largest.clamp(min=1e-20))
    best = torch.zeros_like(largest)
    most = torch.full_like(largest, -1.0)
    for factor in _FACTORS:
        made = nearest_levels(scaled / factor)
        counted = made * counts
        both, own = (counted * groups).sum(2, True), (counted * made).sum(2, True).clamp(min=1e-30)
        explained = both.square() / own  # of the squares of the group, by these levels and the best scale for them
        best, most = torch.where(explained > most, both / own, best), torch.maximum(explained, most)
    return (best * (largest > 1e-20))[:, :, 0]


def nearest(values: Float[Tensor, "*S"]) -> UInt8[Tensor, "*S"]:
    """Places of the levels that are nearest to values."""
    return _places_of_halves()[_halves_of(values)]


def nearest_levels(values: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """The levels themselves."""
    return _levels()[_places_of_halves().int()][_halves_of(values)]


def _halves_of(values: Tensor) -> Tensor:
    """In which half of a whole number values lie, from the lowest level on: the nearest level changes at such."""
    return (values * 2).floor_().clamp_(-_HALVES, _HALVES - 1).add_(_HALVES).to(torch.int32)


@functools.cache
def _places_of_halves() -> Tensor:
    middles = torch.arange(-_HALVES, _HALVES) / 2 + 0.25
    return (middles[:, None] - _levels()).abs().argmin(dim=1).to(torch.uint8)


def _levels() -> Float[Tensor, "16"]:
    return torch.tensor(LEVELS, dtype=torch.float32)


def fits_int4(weights: Weights) -> bool:
    """Whether kernels can compute a layer of this size."""
    return len(weights.weight) % OUTPUTS == 0


@torch.inference_mode()
def round_to_int4(
    weights: Weights, apart: Int[Tensor, " K"], inputs: Float[Tensor, "M I"] | None = None
) -> Int4Weights:
    """The nearest numbers or, better, those whose errors make up for each other on typical inputs (GPTQ, arXiv 2210.17323).

    Args:
        weights: of a layer.
        apart: input channels that are kept.
        inputs: typical ones, hundreds of them; None: each weight goes to the nearest number.
    """
    weight = weights.weight.detach().float().cpu().index_fill(1, apart, 0.0)
    if inputs is None:
        grid = Grid.of(weight, torch.ones(weight.shape[1]))
        return Int4Weights.of(weights, apart, nearest(weight / grid.steps(weight.shape[1])), grid)
    heard = inputs.float().index_fill(1, apart, 0.0)
    likeness = heard.t() @ heard / len(heard)
    mean = likeness.diagonal().mean().clamp(min=1e-20)
    likeness.diagonal().add_(_DAMPING * mean)
    grid = Grid.of(weight, likeness.diagonal())
    upper = torch.linalg.cholesky(likeness.flip(0, 1)).flip(0, 1)
    return Int4Weights.of(weights, apart, _balanced(weight, grid, upper), grid)


def _balanced(weight: Float[Tensor, "O I"], grid: Grid, upper: Float[Tensor, "I I"]) -> UInt8[Tensor, "O I"]:
    """Places of levels whose errors E leave the least of E upper upper^T E^T, found input by input.

    What the errors of the inputs before it add up to in its column of `upper`, the error of each one takes away again as far
    as it can; this is known at once within a block, and after it for all others.
    """
    count = weight.shape[1]
    exact, steps = weight.t().contiguous(), grid.steps(count).t().contiguous()
    places, owed, levels = torch.empty(exact.shape, dtype=torch.uint8), torch.zeros_like(exact), _levels()
    for begin in range(0, count, BLOCK):
        end = min(begin + BLOCK, count)
        errors = torch.empty(end - begin, exact.shape[1])
        for i in range(begin, end):
            places[i] = nearest(exact[i].sub(owed[i], alpha=float(1 / upper[i, i])).div_(steps[i]))
            errors[i - begin] = torch.addcmul(-exact[i], levels[places[i].int()], steps[i])
            owed[i + 1 : end].addr_(upper[i, i + 1 : end], errors[i - begin])
        owed[end:].addmm_(upper[begin:end, end:].t(), errors)
    return places.t()
