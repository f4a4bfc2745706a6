import shutil
from pathlib import Path

import pytest
import torch

from longplay.checkpoint.system import load_system
from longplay.errors import UserError
from longplay.pipeline import Pipeline
from longplay.pipeline.precision import FILE, load_dtype, load_quantized, quantize_model
from longplay.prompt import GenerationOptions

OPTIONS = GenerationOptions(seconds=0.2, seed=3, num_steps=1, fast=True)


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def test_the_int8_form_is_kept_beside_the_model_and_found_again(model: Path) -> None:
    assert load_quantized(load_system(model)) is None
    path, made = quantize_model(model)
    assert path == model / FILE
    found = load_quantized(load_system(model))
    assert found is not None
    assert found.quality == made.quality
    for name, projection in made.projections.items():
        again = found.projections[name]
        assert (again.form, again.apart, again.error) == (projection.form, projection.apart, projection.error)
        x = torch.randn(
            2, projection.weights.__dict__.get("values", projection.weights.__dict__.get("weight")).shape[1]
        )
        assert torch.equal(again.projection()(x), projection.projection()(x))


def test_a_form_of_other_weights_is_ignored(model: Path) -> None:
    quantize_model(model)
    weights = model / "lm.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert load_quantized(load_system(model)) is None


def test_auto_takes_int8_only_where_it_is_measured_and_close(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Pipeline.load(model, "cpu").precision == "float32"
    assert not (model / FILE).exists()
    quantize_model(model)
    monkeypatch.setattr("longplay.pipeline.precision.KL_LIMIT", 10.0)
    assert Pipeline.load(model, "cpu").precision == "int8"
    monkeypatch.setattr("longplay.pipeline.precision.KL_LIMIT", 0.0)
    assert Pipeline.load(model, "cpu").precision == "float32"


def test_a_piece_in_int8_can_be_made_again(model: Path) -> None:
    first = Pipeline.load(model, "cpu", "int8").generate("x", OPTIONS)
    again = Pipeline.load(model, "cpu", "int8").generate("x", OPTIONS)
    assert (model / FILE).exists()
    assert first.recipe is not None
    assert first.recipe["precision"] == "int8"
    assert (first.wav == again.wav).all()


def test_int8_belongs_to_the_cpu() -> None:
    assert load_dtype("int8", torch.device("cpu")) == torch.float32
    assert load_dtype("bfloat16", torch.device("cuda")) == torch.bfloat16
    assert load_dtype("auto", torch.device("mps")) is None
    with pytest.raises(UserError, match="int8: computes on the CPU only"):
        load_dtype("int8", torch.device("cuda"))
