"""On weights with planted large channels, as trained transformers have them, and on the model that ships."""

from statistics import fmean

import pytest
import torch

from longplay.checkpoint.system import load_system
from longplay.engine.listening import compare, listen
from longplay.engine.quantize import ERROR_LIMIT, INT4_LIMIT, quantize, quantize_projection, quantize_to_int4
from longplay.models.lm import LM
from longplay.nn import compiled, processor
from longplay.nn.linear import Dense, Weights
from longplay.nn.quantized import Int8, Int8Weights
from tiny_lm import tiny_lm

LARGE = torch.tensor([5, 70, 200])
NONE = torch.zeros(0, dtype=torch.long)


def planted(size: float) -> tuple[Weights, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 256, generator=generator)
    inputs[:, LARGE] *= size
    return Weights(torch.randn(96, 256, generator=generator) / 16), inputs


@pytest.mark.parametrize("size", [1.0, 30.0, 300.0])
def test_planted_channels_are_found_and_kept_apart(size: float) -> None:
    found = quantize_projection(*planted(size))
    assert found.form == "int8"
    assert found.error <= ERROR_LIMIT
    assert found.apart == (0 if size == 1.0 else 8)
    if size > 1.0:
        assert isinstance(found.weights, Int8Weights)
        assert set(LARGE.tolist()) <= set(found.weights.apart.tolist())


def test_a_sensitive_layer_stays_wide() -> None:
    weights, inputs = planted(1.0)
    inputs = inputs.sign() * inputs.abs() ** 8  # every channel is large now and then
    found = quantize_projection(weights, inputs, limit=0.004)
    assert found.form in ("bfloat16", "float32")
    exact = quantize_projection(weights, inputs, limit=1e-6)
    assert exact.form == "float32"
    assert exact.error == 0.0


def spiked_lm(size: float) -> LM:
    """Three channels of the MLP's inner activations are `size` times larger than the rest, in every layer."""
    lm = tiny_lm(dim=64, num_layers=2, intermediate_dim=256, codebook_size=400)
    with torch.no_grad():
        for layer in lm.layers:
            layer.mlp.up_proj.weight[LARGE] *= size
            layer.mlp.down_proj.weight[:, LARGE] /= size
    return lm


@pytest.mark.parametrize("size", [30.0, 300.0])
def test_logits_survive_planted_channels(size: float) -> None:
    lm = spiked_lm(size)
    heard = listen(lm, [(1, 2, 3)], 24)
    made = quantize(lm, heard.inputs)
    plain = {name: Int8(Int8Weights.of(weights, NONE)) for name, weights in lm.linears()}
    forms = {
        "ours": lm.decoder({name: value.projection() for name, value in made.items()}),
        "plain": lm.decoder(plain),
    }
    quality = compare(forms, heard)
    assert all(value.form == "int8" for value in made.values())
    assert quality["ours"].kl < quality["plain"].kl / 5


@pytest.mark.parametrize("size", [1.0, 300.0])
def test_int4_keeps_what_int8_keeps_apart(size: float) -> None:
    lm = spiked_lm(size)
    inputs = listen(lm, [(1, 2, 3)], 200, 600).inputs
    wide = quantize(lm, inputs)
    made = quantize_to_int4(lm, inputs, wide)
    assert made["head"] is wide["head"]
    for name, projection in made.items():
        assert projection.form == ("int8" if name == "head" else "int4")
        assert projection.apart == wide[name].apart
        assert projection.error <= INT4_LIMIT
    assert quantize_to_int4(lm, inputs, wide, limit=1e-3) == wide


def test_layers_that_kernels_cannot_compute_in_int4_stay_in_int8() -> None:
    lm = tiny_lm(intermediate_dim=46)
    inputs = listen(lm, [(1, 2)], 40).inputs
    made = quantize_to_int4(lm, None, quantize(lm, inputs))
    assert {name for name, each in made.items() if each.form == "int8"} == {"0.gate_up", "1.gate_up", "head"}


def test_the_same_form_has_nothing_to_lose() -> None:
    lm = tiny_lm(codebook_size=400)
    heard = listen(lm, [(1, 2)], 12)
    quality = compare({"same": lm.decoder()}, heard)["same"]  # step by step, and at once
    assert quality.kl == pytest.approx(0.0, abs=1e-6)
    assert quality.top_overlap == quality.likeliest == 1.0


def test_calibration_hears_prefix_and_steps_and_leaves_the_model_alone() -> None:
    lm = tiny_lm()
    heard = listen(lm, [(1, 2, 3)], 10)
    inputs = heard.inputs
    assert lm.inference is None
    assert set(inputs) == {name for name, _ in lm.linears()}
    assert inputs["0.qkv"].shape[1] == 32
    assert 16 <= len(inputs["0.qkv"]) <= 600
    assert quantize(lm, inputs).keys() == inputs.keys()
    assert heard.codes.shape == (10,)


def test_calibration_hears_each_text_and_not_the_piece_that_forms_are_judged_on() -> None:
    lm = tiny_lm()
    one, several = (listen(lm, texts, 12, 10**6) for texts in ([(1, 2)], [(1, 2), (3, 4, 5)]))
    assert torch.equal(one.codes, several.codes), "the same piece, in whatever company"
    every = [listen(lm, [ids], 12, 10**6).inputs["0.qkv"] for ids in ((1, 2), (3, 4, 5))]
    rows, expected = several.inputs["0.qkv"], torch.cat(every)
    assert len(rows) == len(expected)
    off = (rows[:, None] - expected).abs().amax(dim=2)
    assert off.amin(dim=0).amax() < 1e-4, "all that is heard of either text alone"
    assert off.amin(dim=1).amax() < 1e-4, "and nothing else"


def nano(text: str) -> tuple[LM, list[int]]:
    """Its lm, and the ids of a text."""
    system = load_system("nano")
    assert system.lm is not None
    assert system.text_tokenizer is not None
    return system.lm, system.text_tokenizer.encode(text)


def test_nano_in_int8_says_what_it_says_in_float32() -> None:
    lm, ids = nano("calm piano")
    heard = [
        listen(lm, [ids], 160),
        *(listen(lm, [nano(text)[1]], 160) for text in ("rock, drums, 120 bpm", "ambient pads")),
    ]
    made = quantize(lm, heard[0].inputs)
    decoder = lm.decoder({name: value.projection() for name, value in made.items()})
    eight_bits = lm.decoder({name: value.arithmetic() for name, value in made.items()})
    half = lm.decoder({name: Dense(weights, torch.bfloat16) for name, weights in lm.linears()})
    forms = {"int8": decoder, "eight bits": eight_bits, "bfloat16": half}
    if processor.can_compile() and compiled.fits(lm.config.head_dim):
        forms["compiled"] = lm.compiled_decoder({name: value.weights for name, value in made.items()})
    pieces = [compare(forms, piece) for piece in heard]
    kl = {name: fmean(piece[name].kl for piece in pieces) for name in forms}
    overlap = {name: fmean(piece[name].top_overlap for piece in pieces) for name in forms}
    wide = torch.cpu._is_vnni_supported()  # torch's inputs have 7 bits without
    assert kl["int8"] < (0.03 if wide else 0.06)
    assert overlap["int8"] > (0.9 if wide else 0.87)
    assert kl["eight bits"] < 0.03
    assert overlap["eight bits"] > 0.92
    if "compiled" in forms:
        assert kl["compiled"] < 0.015
        assert overlap["compiled"] > 0.93
    assert all(value.error <= ERROR_LIMIT for value in made.values())


@pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")
def test_nano_in_int4_is_close_and_closer_where_errors_make_up_for_each_other() -> None:
    lm, ids = nano("calm piano")
    inputs = listen(lm, [ids], 200, 600).inputs
    wide = quantize(lm, inputs)
    made, rounded = (quantize_to_int4(lm, heard, wide) for heard in (inputs, None))
    other = listen(lm, [nano("rock, drums, 120 bpm")[1]], 60)
    unheard = other.inputs
    off = []
    for form in (made, rounded):
        errors = []
        for name, weights in lm.linears():
            exact = Dense(weights)(unheard[name])
            errors.append(float((form[name].arithmetic()(unheard[name]) - exact).norm() / exact.norm()))
        off.append(sum(errors) / len(errors))
    assert off[0] < 0.95 * off[1]
    quality = compare({"int4": lm.compiled_decoder({name: each.weights for name, each in made.items()})}, other)
    assert quality["int4"].kl < 0.08
    assert quality["int4"].top_overlap > 0.88
