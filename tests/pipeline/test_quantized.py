import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from longplay.checkpoint.digest import Digest, Look
from longplay.checkpoint.store import SystemConfig, load_tensors, read_metadata, save_native, save_tensors
from longplay.checkpoint.system import System, load_system
from longplay.engine.quantize import QuantizedProjection
from longplay.errors import CheckpointError, UserError
from longplay.nn import processor
from longplay.nn.linear import Dense, Weights
from longplay.nn.quantized import Int8Weights
from longplay.pipeline.precision import settle
from longplay.pipeline.quantized import Quantized, file_of, load_quantized, quantize_lm, quantize_model, save_quantized
from systems import tiny_config, tiny_text_tokenizer, tiny_weights
from tiny_lm import tiny_lm

needs_kernels = pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def test_the_int8_form_is_kept_beside_the_model_and_found_again(model: Path) -> None:
    assert load_quantized(load_system(model)) is None
    path, made = quantize_model(model)
    assert path == model / file_of("int8")
    found = load_quantized(load_system(model))
    assert found is not None
    assert found.quality == made.quality
    for name, projection in made.projections.items():
        again = found.projections[name]
        assert (again.form, again.apart, again.error) == (projection.form, projection.apart, projection.error)
        width = (
            projection.weights.dequantize()
            if isinstance(projection.weights, Int8Weights)
            else projection.weights.weight
        )
        x = torch.randn(2, width.shape[1])
        assert torch.equal(again.projection()(x), projection.projection()(x))


@needs_kernels
def test_the_int4_form_is_kept_beside_the_model_and_found_again(tmp_path: Path) -> None:
    lm, text = tiny_lm(num_heads=2, num_kv_heads=1, text_vocab_size=280), tiny_text_tokenizer().to_json().encode()
    model = tmp_path / "model"
    save_native(model, SystemConfig(name="small", lm=lm.config), {"lm": dict(lm.state_dict())}, text)
    path, made = quantize_model(model, "int4")
    assert path == model / file_of("int4")
    assert set(made.quality) == {"int4", "int8-compiled"}
    found = load_quantized(load_system(model), "int4")
    assert found is not None
    assert found.quality == made.quality
    assert load_quantized(load_system(model)) is None  # that is another form
    for name, projection in made.projections.items():
        assert projection.form == ("int8" if name == "head" else "int4")
        again = found.projections[name]
        assert (again.form, again.apart, again.error) == (projection.form, projection.apart, projection.error)
        x = torch.randn(2, 48 if name.endswith("down") else 32)
        assert torch.equal(again.arithmetic()(x), projection.arithmetic()(x))


def test_int4_is_refused_where_steps_cannot_be_compiled(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="int4: needs heads of a multiple of 16 numbers, not 8; use int8"):
        quantize_model(model, "int4")
    monkeypatch.setattr(processor, "can_compile", lambda: False)
    with pytest.raises(UserError, match="int4: needs numba and an x86 processor with AVX2; use int8"):
        quantize_model(model, "int4")


def test_a_form_of_other_weights_is_ignored(model: Path) -> None:
    quantize_model(model)
    weights = model / "lm.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert load_quantized(load_system(model)) is None


def corrupt_projections(model: Path) -> None:
    """Put nonsense in the place of every weight that int8 replaces."""
    path = model / "lm.safetensors"
    changed = {name: tensor.clone() for name, tensor in load_tensors(path).items()}
    for name, tensor in changed.items():
        if name.endswith("_proj.weight") or name == "audio_head.weight":
            tensor.fill_(torch.nan)
    save_tensors(path, changed)


def logits(system: System) -> torch.Tensor:
    assert system.lm is not None
    assert system.lm.inference is not None
    ids, codes = torch.tensor([3, 4]), torch.arange(10)
    structure = system.lm.structure(torch.zeros(1), torch.ones(1), torch.zeros(1, dtype=torch.long))
    inputs = system.lm.assemble(structure, ids, codes)[None]
    return system.lm.inference.head(system.lm.inference(inputs, system.lm.cache(1, 20))[0])


def test_weights_that_a_form_replaces_are_not_read_and_yet_their_change_is_noticed(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longplay.checkpoint.digest._REST_NS", 0)
    quantize_model(model)
    opened = load_system(model, lean=True)
    settle(opened, "it", "int8")
    expected = logits(opened)
    assert expected.isfinite().all()
    note, sha256 = model / ".lm.digest.json", opened.lm_digest
    assert note.is_file()

    corrupt_projections(model)
    Digest(sha256, (Look.at(model / "lm.safetensors"),)).keep(note)  # as if nothing had happened
    unread = load_system(model, lean=True)
    settle(unread, "it", "int8")
    assert torch.equal(logits(unread), expected)

    time.sleep(0.02)  # a tick of the file system's clock
    (model / "lm.safetensors").touch()
    found = load_system(model, lean=True)
    assert load_quantized(found) is None, "a form of other weights"
    settle(found, "it", "auto")
    assert logits(found).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_lean_lm_computes_what_an_ordinary_one_does(tmp_path: Path, dtype: torch.dtype, precision: str) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in tiny_weights()["lm"].items()}
    config = SystemConfig(name="lm", lm=tiny_config().lm)
    for name in ("wide", "lean"):  # an int8 form is made, in both
        save_native(tmp_path / name, config, {"lm": weights}, tiny_text_tokenizer().to_json().encode())
    made = {name: load_system(tmp_path / name, lean=name == "lean") for name in ("wide", "lean")}
    assert made["lean"].lm is not None
    assert made["lean"].lm.audio_head.weight.dtype == made["lean"].lm.text_embedding.weight.dtype == dtype
    for name, system in made.items():
        assert settle(system, name, precision) == precision
    assert torch.equal(logits(made["lean"]), logits(made["wide"]))


def test_every_form_is_kept(model: Path) -> None:
    system = load_system(model)
    assert system.lm is not None
    weights = dict(system.lm.linears())
    forms: dict[str, Int8Weights | Weights] = {
        "0.qkv": Int8Weights.of(weights["0.qkv"], torch.tensor([1, 30])),
        "0.down": weights["0.down"].to(torch.bfloat16),
        "head": Int8Weights.of(weights["head"], torch.zeros(0, dtype=torch.long)),
    }
    projections = {name: QuantizedProjection(forms.get(name, value), 0.5) for name, value in weights.items()}
    save_quantized(system, Quantized(projections, {}))
    found = load_quantized(system)
    assert found is not None
    for name, projection in projections.items():
        assert found.projections[name].form == projection.form
        assert found.projections[name].apart == projection.apart
        # The columns kept apart are stored in half precision.
        x = torch.randn(2, 48 if name.endswith("down") else 32)
        torch.testing.assert_close(
            found.projections[name].projection()(x), projection.projection()(x), rtol=2e-3, atol=1e-4
        )
    assert (model / file_of("int8")).stat().st_size < (model / "lm.safetensors").stat().st_size / 2


def test_a_stored_form_is_what_was_measured(stored: Path, tiny: Path) -> None:
    source, found = load_system(tiny), load_quantized(load_system(stored))
    assert source.lm is not None
    assert found is not None
    made = quantize_lm(source.lm, source.text_tokenizer)
    assert found.quality.keys() == made.quality.keys()
    assert found.quality["int8"].kl == pytest.approx(made.quality["int8"].kl, rel=0.2, abs=1e-6)
    for name, weights in source.lm.linears():
        x = torch.randn(2, weights.weight.shape[1])
        exact, ours = Dense(weights)(x), found.projections[name].projection()(x)
        assert (ours - exact).square().mean().sqrt() < 0.02 * exact.square().mean().sqrt() + 1e-6


def test_a_stored_form_stays_as_it_is(stored: Path) -> None:
    before = (stored / "lm.safetensors").read_bytes()
    path, made = quantize_model(stored)
    assert path == stored / "lm.safetensors"
    assert made.projections["head"].form == "int8"
    assert path.read_bytes() == before
    assert not (stored / file_of("int8")).exists()


@pytest.mark.parametrize(
    "about",
    ["{", "{}", json.dumps({"forms": {}, "errors": {}, "quality": {}}), json.dumps({"quality": {"int8": {"a": 1}}})],
)
def test_a_damaged_form_is_named(stored: Path, about: str) -> None:
    path = stored / "lm.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_tensors(path).items()}
    save_tensors(path, tensors, {**read_metadata(path), "about": about})
    with pytest.raises(CheckpointError, match=r"lm\.safetensors: its int8 form is damaged"):
        load_quantized(load_system(stored))


def test_parts_of_different_forms_do_not_pass_for_one_layer(model: Path) -> None:
    system = load_system(model)
    assert system.lm is not None
    made = quantize_lm(system.lm, None)
    split = Int8Weights.of(dict(system.lm.linears())["0.qkv"], torch.tensor([1]))
    projections = {**made.projections, "0.qkv": QuantizedProjection(split, 0.0)}
    save_quantized(system, replace(made, projections=projections))
    tensors = {name: tensor.clone() for name, tensor in load_tensors(model / file_of("int8")).items()}
    tensors["layers.0.self_attn.k_proj.weight.apart"] += 1
    save_tensors(model / file_of("int8"), tensors, read_metadata(model / file_of("int8")))
    with pytest.raises(CheckpointError, match="damaged .*different channels"):
        load_quantized(load_system(model))
