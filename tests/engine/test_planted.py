"""Channels that are tens and hundreds of times larger than the others, planted at the inputs of every kind of projection.

What such channels carry here is no more than what any other channel carries; so what is lost of the others is what counts,
and is told relative to what they carry. Every form is tried by torch's kernels (of int4: by its arithmetic) and by our own,
with what calibration chose and without.
"""

import functools
from collections.abc import Mapping
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longplay.engine.listening import Listening, listen
from longplay.engine.quantize import QuantizedProjection, quantize, quantize_to_int4
from longplay.models.lm import LM, Layer
from longplay.nn import processor
from longplay.nn.compiled import CompiledWeights
from longplay.nn.decoder import Projection
from longplay.nn.int4 import round_to_int4
from longplay.nn.linear import Dense, Weights
from longplay.nn.quantized import Int8Weights, input_bits
from tiny_lm import tiny_lm

Place = Literal["qkv", "o", "gate_up", "down"]
Kind = Literal["int8", "int4"]
PLANTED = torch.tensor([5, 17, 30])
NONE = torch.zeros(0, dtype=torch.long)
HEADS = 2
GAIN = 0.3
"""Of any channel, about (`tiny_lm`)."""
needs_kernels = pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")


@functools.cache
def planted_lm(place: Place, size: float) -> tuple[LM, Tensor, Listening, Mapping[str, Tensor]]:
    """An lm, the inputs of its projections at `place` that are `size` times as large, what was heard of it, and inputs that were not."""
    lm = tiny_lm(dim=64, num_heads=HEADS, num_kv_heads=1, intermediate_dim=256, codebook_size=400)
    inputs = PLANTED
    with torch.no_grad():
        for layer in lm.layers:
            assert isinstance(layer, Layer)
            attention, mlp = layer.self_attn, layer.mlp
            if place == "qkv":
                layer.input_layernorm.weight[PLANTED] = size * GAIN
                readers = [attention.q_proj, attention.k_proj, attention.v_proj]
            elif place == "gate_up":
                layer.post_attention_layernorm.weight[PLANTED] = size * GAIN
                readers = [mlp.gate_proj, mlp.up_proj]
            elif place == "o":
                attention.v_proj.weight[PLANTED] *= size
                attention.v_proj.bias[PLANTED] *= size
                inputs = torch.cat([PLANTED + head * lm.config.head_dim for head in range(HEADS)])
                readers = [attention.o_proj]
            else:
                mlp.up_proj.weight[PLANTED] *= size
                readers = [mlp.down_proj]
            for reader in readers:
                reader.weight[:, inputs] /= size
    return lm, inputs, listen(lm, [(1, 2, 3)], 80, 240), listen(lm, [(9, 8, 7, 6)], 24).inputs


def bound(kind: Kind, ours: bool) -> float:
    """Of the error, relative to what the other channels carry."""
    if kind == "int4":
        return 0.07
    return 0.02 if ours or input_bits() == 8 else 0.03


def calibrated(lm: LM, kind: Kind, heard: Listening) -> dict[str, QuantizedProjection]:
    wide = quantize(lm, heard.inputs)
    return wide if kind == "int8" else quantize_to_int4(lm, heard.inputs, wide)


def uncalibrated(lm: LM, kind: Kind) -> dict[str, QuantizedProjection]:
    return {
        name: QuantizedProjection(
            round_to_int4(weights, NONE) if kind == "int4" and name != "head" else Int8Weights.of(weights, NONE), 0.0
        )
        for name, weights in lm.linears()
    }


def computing(form: Mapping[str, QuantizedProjection], ours: bool) -> Mapping[str, Projection]:
    if ours:
        return CompiledWeights({name: projection.weights for name, projection in form.items()}).projections
    return {name: projection.projection() for name, projection in form.items()}


def lost(weights: Weights, projection: Projection, inputs: Tensor, planted: Tensor) -> float:
    """Of what the other channels carry; two inputs at a time, as steps have them."""
    carried = F.linear(inputs.index_fill(1, planted, 0.0), weights.weight)
    made = torch.cat([projection(pair) for pair in inputs.split(2)])
    return float((made - Dense(weights)(inputs)).norm() / carried.norm())


@pytest.mark.parametrize("ours", [False, pytest.param(True, marks=needs_kernels)], ids=["torch", "compiled"])
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("size", [30.0, 300.0])
@pytest.mark.parametrize("place", ["qkv", "o", "gate_up", "down"])
def test_the_other_channels_keep_their_digits(place: Place, size: float, kind: Kind, ours: bool) -> None:
    lm, planted, heard, unheard = planted_lm(place, size)
    careful, careless = (computing(form, ours) for form in (calibrated(lm, kind, heard), uncalibrated(lm, kind)))
    for name, weights in lm.linears():
        if name.endswith(f".{place}"):
            with_it, without = (lost(weights, form[name], unheard[name], planted) for form in (careful, careless))
            assert with_it < bound(kind, ours)
            assert without > 1.5 * bound(kind, ours), "it would not be noticed that nothing was calibrated"
