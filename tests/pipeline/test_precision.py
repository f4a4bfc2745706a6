import shutil
from pathlib import Path

import pytest
import torch

from longplay.checkpoint.hub import locate
from longplay.checkpoint.system import load_system
from longplay.errors import UserError
from longplay.nn import processor
from longplay.pipeline import Pipeline
from longplay.pipeline.precision import load_dtype
from longplay.pipeline.quantized import file_of, quantize_model
from longplay.prompt import GenerationOptions

OPTIONS = GenerationOptions(seconds=0.2, seed=3, num_steps=1, fast=True)


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def test_auto_takes_int8_only_where_it_is_measured_and_close(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Pipeline.load(model, "cpu").precision == "float32"
    assert not (model / file_of("int8")).exists()
    quantize_model(model)
    monkeypatch.setattr("longplay.pipeline.quantized.KL_LIMIT", 10.0)
    assert Pipeline.load(model, "cpu").precision == "int8"
    monkeypatch.setattr("longplay.pipeline.quantized.KL_LIMIT", 0.0)
    assert Pipeline.load(model, "cpu").precision == "float32"


def test_a_large_lm_in_float32_says_what_would_be_faster(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Pipeline.load(model, "cpu")
    assert not caplog.messages, "a small one is fast enough"
    monkeypatch.setattr("longplay.pipeline.precision.LARGE", 0)
    Pipeline.load(model, "cpu")
    assert f"`longplay models quantize {model}` makes an int8 form" in caplog.text
    caplog.clear()
    Pipeline.load(model, "cpu", "float32")
    assert not caplog.messages, "it was asked for"
    quantize_model(model)
    Pipeline.load(model, "cpu")
    assert "models quantize" not in caplog.text, "it is there, and not close"


def test_a_piece_in_int8_can_be_made_again(model: Path) -> None:
    first = Pipeline.load(model, "cpu", "int8").generate("x", OPTIONS)
    again = Pipeline.load(model, "cpu", "int8").generate("x", OPTIONS)
    assert (model / file_of("int8")).exists()
    assert first.recipe is not None
    assert first.recipe["precision"] == "int8"
    assert (first.wav == again.wav).all()


@pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")
def test_the_bundled_model_runs_compiled_and_can_be_made_again() -> None:
    pipeline = Pipeline.load("nano", "cpu")
    assert pipeline.precision == "int8-compiled"
    made = pipeline.generate("calm piano", OPTIONS)
    assert made.recipe is not None
    assert made.recipe["precision"] == "int8-compiled"
    assert (Pipeline.load("nano", "cpu", "int8-compiled").generate("calm piano", OPTIONS).wav == made.wav).all()


@pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")
def test_the_bundled_model_in_int4_is_quantized_once_and_can_be_made_again(tmp_path: Path) -> None:
    copy = shutil.copytree(locate("nano"), tmp_path / "nano")
    pipeline = Pipeline.load(copy, "cpu", "int4")
    assert pipeline.precision == "int4"
    kept = (copy / file_of("int4")).read_bytes()
    made = pipeline.generate("calm piano", OPTIONS)
    assert made.recipe is not None
    assert made.recipe["precision"] == "int4"
    assert (Pipeline.load(copy, "cpu", "int4").generate("calm piano", OPTIONS).wav == made.wav).all()
    assert (copy / file_of("int4")).read_bytes() == kept
    assert Pipeline.load(copy, "cpu").precision == "int8-compiled"  # int4 is never taken unasked


def test_compiled_is_refused_where_it_cannot_be(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="int8-compiled: .* heads of a multiple of 16 numbers, not 8; use int8"):
        Pipeline.load(model, "cpu", "int8-compiled")
    monkeypatch.setattr(processor, "can_compile", lambda: False)
    assert Pipeline.load("nano", "cpu").precision == "int8"
    with pytest.raises(UserError, match="int8-compiled: needs numba and an x86 processor with AVX2"):
        Pipeline.load("nano", "cpu", "int8-compiled")
    with pytest.raises(UserError, match="int8-compiled: computes on the CPU only"):
        load_dtype("int8-compiled", torch.device("cuda"))


def test_int8_belongs_to_the_cpu() -> None:
    assert load_dtype("int8", torch.device("cpu")) == torch.float32
    assert load_dtype("bfloat16", torch.device("cuda")) == torch.bfloat16
    assert load_dtype("auto", torch.device("mps")) is None
    with pytest.raises(UserError, match="int8: computes on the CPU only"):
        load_dtype("int8", torch.device("cuda"))


def test_a_model_stored_in_int8_runs_in_int8_at_once(stored: Path) -> None:
    pipeline = Pipeline.load(stored, "cpu")
    assert pipeline.precision == "int8"
    assert not (stored / file_of("int8")).exists()
    made = pipeline.generate("x", OPTIONS)
    assert (Pipeline.load(stored, "cpu", "int8").generate("x", OPTIONS).wav == made.wav).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_model_stored_in_int8_runs_in_wider_precisions(stored: Path, precision: str) -> None:
    pipeline = Pipeline.load(stored, "cpu", precision)
    assert pipeline.precision == precision
    assert pipeline.system.lm is not None
    assert pipeline.system.lm.audio_embedding.weight.dtype == torch.float32
    assert pipeline.generate("x", OPTIONS).wav.shape[1] == 4800


def test_without_int8_kernels_a_stored_model_runs_in_float32(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        supported_engines = ("none",)

    monkeypatch.setattr("longplay.nn.quantized.quantized", Without)
    assert Pipeline.load(stored, "cpu").precision == "float32"
    with pytest.raises(UserError, match="no int8 kernels for the CPU; use bfloat16 or float32"):
        Pipeline.load(stored, "cpu", "int8")


def test_other_devices_get_a_stored_model_in_float16(stored: Path) -> None:
    lm = load_system(stored, dtype=None, device="meta").lm
    assert lm is not None
    assert {parameter.dtype for parameter in lm.parameters()} == {torch.float16}
