"""An `lm` in int8 or int4 that stays close to float32: calibrated, layer by layer, by measured error (`nn/quantized.py`).

A few seconds are generated in float32, and the inputs of every projection are kept. Then each projection takes the
cheapest form whose output on those inputs is close enough: int8; int8 with 8, 32 or 128 input channels kept apart;
bfloat16; float32. In int4 are those of the int8 ones that bear it, but for the head. What it costs in quality is measured
on the logits of another piece.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from longplay.control import MIDDLE_BPM, Control
from longplay.engine.batch import prefill
from longplay.engine.decode import generate
from longplay.engine.piece import Piece, RowBuilder
from longplay.engine.sampling import mix
from longplay.models.lm import LM
from longplay.nn.decoder import Decoder, Projection
from longplay.nn.graphed import step
from longplay.nn.int4 import LARGEST_SUM, Int4Weights, fits_int4, round_to_int4
from longplay.nn.linear import Dense, Weights
from longplay.nn.quantized import Int8, Int8Weights, Rounded, RoundedWeights
from longplay.prompt import GenerationOptions

ERROR_LIMIT = 0.04  # measured (docs/performance.md): what most projections of every model can keep
INT4_LIMIT = 0.15  # of the error of four bits, whose usual one is half of it
APART = (0, 8, 32, 128)
CALIBRATION_FRAMES = 150
INT4_CALIBRATION_FRAMES = 600  # of several texts: what makes up for an error is learnt from the inputs
_KEPT_INPUTS, INT4_KEPT_INPUTS = 256, 1200
_PAIR = 2  # inputs of a step, which are quantised together

Form = Literal["int4", "int8", "bfloat16", "float32"]


@dataclass(frozen=True)
class Quality:
    """How close one form of a model is to another, over the codes of a piece.

    Attributes:
        kl: mean Kullback-Leibler divergence of the distributions that codes are drawn from, in nats.
        top_overlap: share of the likeliest `top_k` codes that both agree on.
        likeliest: share of steps with the same likeliest code.
    """

    kl: float
    top_overlap: float
    likeliest: float


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
        inputs: of every projection, see `calibration_inputs`.
        limit: of the error of each, see `quantize_projection`.
    """
    return {name: quantize_projection(weights, inputs[name], limit) for name, weights in lm.linears()}


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
            error = 0.0 if heard is None else _Errors(weights, heard).of(Rounded(narrow))
            found = QuantizedProjection(narrow, error)
            if found.error <= limit and narrow.sums()[1] <= LARGEST_SUM:
                made[name] = found
    return made


class _Errors:
    """How far projections are off that stand for the same weights, on the same inputs."""

    def __init__(self, weights: Weights, inputs: Tensor) -> None:
        self._inputs = inputs[: len(inputs) // _PAIR * _PAIR].float()
        self.largest = self._inputs.abs().amax(dim=0).argsort(descending=True)
        self._exact = Dense(weights)(self._inputs)
        bulk = self._inputs.index_fill(1, self.largest[: _bulk_apart(weights)], 0.0)
        self._scale = torch.nn.functional.linear(bulk, weights.weight).square().mean().sqrt().clamp(min=1e-12)

    def of(self, projection: Projection) -> float:
        made = torch.cat([projection(pair) for pair in self._inputs.split(_PAIR)])
        return float((made - self._exact).square().mean().sqrt() / self._scale)


def _bulk_apart(weights: Weights) -> int:
    return min(APART[-2], weights.weight.shape[1] // 4)


@torch.inference_mode()
def calibration_inputs(lm: LM, ids: Sequence[int], frames: int, most: int = _KEPT_INPUTS) -> dict[str, Tensor]:
    """Inputs [M, in] of each projection while a piece is generated, prefix included; M is little more than `most`."""
    kept: dict[str, list[Tensor]] = {name: [] for name, _ in lm.linears()}
    every = max(1, _PAIR * frames // most)

    def watched(name: str, projection: Projection) -> Projection:
        calls = 0

        def run(x: Tensor) -> Tensor:
            nonlocal calls
            if calls % every == 0 or len(x) > _PAIR:
                kept[name].append(x[:: max(1, len(x) // 32)].clone())
            calls += 1
            return projection(x)

        return run

    lm.inference = lm.decoder({name: watched(name, Dense(weights)) for name, weights in lm.linears()})
    try:
        for _ in generate(lm, [calibration_piece(lm, ids, frames, seed=0)], GenerationOptions()):
            pass
    finally:
        lm.inference = None
    return {name: torch.cat(parts) for name, parts in kept.items()}


def calibration_piece(lm: LM, ids: Sequence[int], frames: int, seed: int) -> Piece:
    """A piece of exactly `frames` codes, with a pulse where the model takes one."""
    control = Control.steady(MIDDLE_BPM) if lm.config.control else None
    return Piece(tuple(ids), frames, seed, min_frames=frames, control=control)


@torch.inference_mode()
def compare(lm: LM, forms: Mapping[str, Decoder], ids: Sequence[int], frames: int) -> dict[str, Quality]:
    """How close each of `forms` is to `lm.decoder()` on a piece that the latter generates.

    Args:
        lm: in float32, not prepared.
        forms: decoders by name.
        ids: of the text.
        frames: codes of the piece; another seed than that of the calibration.
    """
    options, piece = GenerationOptions(), calibration_piece(lm, ids, frames, seed=1)
    codes = torch.cat(list(generate(lm, [piece], options)), dim=1)[0]
    exact = guided_logits(lm, lm.decoder(), piece, codes, options)
    return {
        name: _quality(exact, guided_logits(lm, decoder, piece, codes, options), options.top_k)
        for name, decoder in forms.items()
    }


def guided_logits(lm: LM, decoder: Decoder, piece: Piece, codes: Tensor, options: GenerationOptions) -> Tensor:
    """What `decoder` says, step by step, before each of `codes` [T], guidance mixed in; [T, V]."""
    codes = codes[: lm.config.context_frames]
    builder = RowBuilder(lm, piece, "none")
    cache = lm.cache(2, builder.max_positions(len(codes)))
    logits = prefill(decoder, builder.rows(codes[:0], 0, guided=True), cache)
    made, said = [logits], builder.said(0, len(codes)).expand(len(codes), -1)
    for number, code in enumerate(codes[:-1], 1):
        inputs = lm.audio_embedding(code).repeat(2, 1, 1)
        inputs[0] += said[number]
        made.append(step(decoder, inputs, cache))
    rows = torch.stack(made).float()  # [T, 2, V]
    return mix(rows[:, 0], rows[:, 1], options.guidance)


def _quality(exact: Tensor, other: Tensor, top_k: int) -> Quality:
    wanted, found = exact.log_softmax(dim=-1), other.log_softmax(dim=-1)
    kl = (wanted.exp() * (wanted - found)).sum(dim=-1).mean()
    top_k = min(top_k, exact.shape[-1])
    ours = torch.zeros_like(exact, dtype=torch.bool).scatter_(1, exact.topk(top_k).indices, True)
    agreed = ours.gather(1, other.topk(top_k).indices).float().mean()
    likeliest = (exact.argmax(dim=-1) == other.argmax(dim=-1)).float().mean()
    return Quality(float(kl), float(agreed), float(likeliest))
