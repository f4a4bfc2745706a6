"""`--adapter` of `generate` and `continue`, and what it leaves in the recipe."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from longplay import Audio, GenerationOptions, Pipeline
from longplay.pipeline import read_recipe
from systems import save_tiny, save_tiny_adapter, store_in_int8

SHORT = ("--seconds", "0.8", "--fast", "--device", "cpu", "--seed", "1", "--loudness", "off", "--fade", "0")


@pytest.fixture
def adapter(tmp_path: Path, tiny: Path) -> Path:
    return save_tiny_adapter(tmp_path / "adapter", tiny)


def test_it_changes_the_music_and_brings_its_own_model(run, tiny: Path, adapter: Path) -> None:
    assert run("generate", "x", *SHORT, "-o", "plain.wav", "--model", tiny).code == 0
    assert run("generate", "x", *SHORT, "-o", "x.wav", "--adapter", adapter).code == 0
    assert run("generate", "x", *SHORT, "-o", "none.wav", "--adapter", adapter, "--adapter-scale", "0").code == 0
    plain, changed, none = (Audio.load(name).wav for name in ("plain.wav", "x.wav", "none.wav"))
    assert not np.array_equal(plain, changed)
    assert np.array_equal(plain, none)
    made = Pipeline.load(adapter=adapter, device="cpu").generate("x", GenerationOptions(seconds=0.8, fast=True, seed=1))
    np.testing.assert_allclose(changed[:1], made.wav, atol=2**-23)
    used = read_recipe("none.wav").adapter
    assert used is not None
    assert (used.path, used.scale, len(used.digest)) == (str(adapter), 0.0, 64)
    assert read_recipe("plain.wav").adapter is None


def test_from_makes_the_same_file_again_with_the_same_adapter_only(run, tiny: Path, adapter: Path) -> None:
    assert run("generate", "x", *SHORT, "-o", "x.wav", "--adapter", adapter, "--adapter-scale", "0.5").code == 0
    assert run("generate", "--from", "x.wav", "-o", "again.wav").code == 0
    assert Path("x.wav").read_bytes() == Path("again.wav").read_bytes()
    assert run("generate", "--from", "x.wav", "-o", "off.wav", "--adapter", "off").code == 0
    assert read_recipe("off.wav").adapter is None
    assert run("generate", "--from", "x.wav", "-o", "full.wav", "--adapter-scale", "1").code == 0
    assert not np.array_equal(Audio.load("full.wav").wav, Audio.load("x.wav").wav)

    other = save_tiny_adapter(adapter.parent / "other", tiny, seed=1)
    shutil.copy(other / "adapter.safetensors", adapter / "adapter.safetensors")
    outcome = run("generate", "--from", "x.wav", "-o", "y.wav")
    assert outcome.code == 2
    assert "are not those of the recipe" in outcome.err
    assert run("generate", "--from", "x.wav", "-o", "y.wav", "--adapter", other).code == 0
    shutil.rmtree(adapter)
    outcome = run("generate", "--from", "x.wav", "-o", "y.wav")
    assert outcome.code == 2
    assert "has no adapter.yaml" in outcome.err


def test_continue_takes_it_too(run, song: Path, tiny: Path, adapter: Path) -> None:
    for name, more in (("plain.wav", ("--model", tiny)), ("x.wav", ("--adapter", adapter))):
        assert run("continue", song, *SHORT, "-o", name, *more).code == 0
    plain, changed = (Audio.load(name).wav for name in ("plain.wav", "x.wav"))
    assert np.array_equal(plain[:, : 2 * 44_100], changed[:, : 2 * 44_100])
    assert not np.array_equal(plain, changed)


def test_int8_of_an_adapted_model_is_kept_beside_the_adapter(run, tiny: Path, adapter: Path) -> None:
    assert run("generate", "x", *SHORT, "-o", "x.wav", "--adapter", adapter, "--precision", "int8").code == 0
    assert (adapter / "lm.int8.safetensors").is_file()
    assert not (tiny / "lm.int8.safetensors").exists()


def test_bad_input_is_named(run, tiny: Path, adapter: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", seed=1)
    for arguments, message in (
        (("--adapter", adapter, "--model", other), "was made for the lm of"),
        (("--adapter", tiny), "has no adapter.yaml; give a directory that `longplay finetune` made"),
        (("--adapter", adapter, "--adapter-scale", "9"), "adapter scale 9: must lie between 0 and 4"),
        (("--adapter-scale", "0.5", "--model", tiny), "there is no adapter; name one with --adapter"),
    ):
        outcome = run("generate", "x", *SHORT, "-o", "x.wav", *arguments)
        assert outcome.code == 2, arguments
        assert message in outcome.err
        assert "Traceback" not in outcome.err


def test_an_lm_that_is_stored_in_int8_is_changed_too(run, tiny: Path, tmp_path: Path) -> None:
    stored = store_in_int8(tiny, tmp_path / "stored")
    adapter = save_tiny_adapter(tmp_path / "its", stored)
    assert run("generate", "x", *SHORT, "-o", "plain.wav", "--model", stored).code == 0
    assert run("generate", "x", *SHORT, "-o", "x.wav", "--adapter", adapter).code == 0
    assert [read_recipe(name).precision for name in ("plain.wav", "x.wav")] == ["int8", "float32"]
    assert run("generate", "x", *SHORT, "-o", "int8.wav", "--adapter", adapter, "--precision", "int8").code == 0
    plain, changed, narrow = (Audio.load(name).wav for name in ("plain.wav", "x.wav", "int8.wav"))
    assert not np.array_equal(plain, changed)
    assert not np.array_equal(plain, narrow)
    # the form that is kept beside the adapter is of this strength, and not taken for another one
    assert run("generate", "x", *SHORT, "-o", "half.wav", "--adapter", adapter, "--adapter-scale", "0").code == 0
    exact = Pipeline.load(stored, "cpu", "float32").generate("x", GenerationOptions(seconds=0.8, fast=True, seed=1))
    np.testing.assert_allclose(Audio.load("half.wav").wav[:1], exact.wav, atol=2**-23)
