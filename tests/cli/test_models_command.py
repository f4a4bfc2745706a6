"""`longplay models`: each subcommand, and each way in which a model can be unusable."""

import shutil
from pathlib import Path

import pytest


def test_list(run) -> None:
    outcome = run("models", "list")
    assert outcome.code == 0
    assert outcome.out.startswith("nano ")
    assert "FunAudioLLM/InspireMusic-1.5B-Long" in outcome.out


def test_info(run, tiny: Path) -> None:
    outcome = run("models", "info", tiny)
    assert outcome.code == 0
    assert "tiny: native layout in" in outcome.out
    assert "75 a second, 64 different" in outcome.out
    assert "48000 Hz" in outcome.out


def test_verify_tells_the_digest(run, tiny: Path) -> None:
    outcome = run("models", "verify", tiny)
    assert outcome.code == 0
    assert "all good; sha256" in outcome.out


@pytest.mark.tiny_checkpoint
def test_convert_there_and_back_keeps_the_weights(run, golden_directory: Path, tmp_path: Path) -> None:
    published, native, again = golden_directory / "tiny_checkpoint", tmp_path / "native", tmp_path / "again"
    assert run("models", "convert", published, native, "--to", "native").code == 0
    assert run("models", "convert", native, again, "--to", "published").code == 0
    assert "published layout" in run("models", "info", again).out
    assert run("models", "verify", again).code == 0
    refused = run("models", "convert", native, again, "--to", "native")
    assert refused.code == 2
    assert refused.err.count("\n") == 1


def test_spectral_parts_have_no_published_layout(run, tiny: Path, tmp_path: Path) -> None:
    outcome = run("models", "convert", tiny, tmp_path / "copy", "--to", "published")
    assert outcome.code == 2
    assert "spectral" in outcome.err
    assert not (tmp_path / "copy").exists()


def test_download_wants_a_name(run) -> None:
    outcome = run("models", "download", "nonsense")
    assert (outcome.code, outcome.err) == (
        2,
        "error: model 'nonsense': is not a name on a hub; see `longplay models list`\n",
    )


def damaged(tiny: Path, tmp_path: Path, how: str) -> Path:
    path = tmp_path / "damaged"
    shutil.copytree(tiny, path)
    config = path / "config.yaml"
    if how == "half-downloaded":
        (path / "lm.safetensors").unlink()
    elif how == "truncated":
        weights = path / "flow.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "mismatched":
        config.write_text(config.read_text().replace("code_rate: 75", "code_rate: 75\n  num_layers_: 2", 1))
    elif how == "other weights":
        shutil.copy(path / "flow.safetensors", path / "lm.safetensors")
    elif how == "not a model":
        config.unlink()
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("half-downloaded", "lm.safetensors: is missing; the model is incomplete, download or convert it again"),
        ("truncated", "flow.safetensors: is truncated or damaged"),
        ("mismatched", "unknown key 'lm.num_layers_'; remove it or check its spelling"),
        ("other weights", "does not match its config: misses"),
        ("not a model", "is not a model; expected config.yaml (native) or inspiremusic.yaml (published) in it"),
    ],
)
@pytest.mark.parametrize("command", [("models", "verify"), ("generate", "piano", "--seconds", "1", "--model")])
def test_damaged_models_are_refused_in_one_line(run, tiny, tmp_path, how, message, command) -> None:
    outcome = run(*command, damaged(tiny, tmp_path, how))
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_an_absent_directory_is_refused(run) -> None:
    outcome = run("models", "info", "no/such/place")
    assert outcome.code == 2
    assert "no such directory; give a model directory, 'nano' or a name on a hub" in outcome.err


def test_quantize_tells_the_quality_and_keeps_the_form(run, tiny: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny, tmp_path / "copy")
    outcome = run("models", "quantize", copy)
    assert outcome.code == 0, outcome.err
    assert "int8 against float32: KL 0." in outcome.out
    assert "bfloat16 against float32: KL 0." in outcome.out
    assert (copy / "lm.int8.safetensors").stat().st_size > 0
    assert run("models", "verify", copy).code == 0
