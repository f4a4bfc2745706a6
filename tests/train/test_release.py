from pathlib import Path

import pytest
import torch

from longplay.checkpoint.store import load_config, load_tensors, load_weights
from longplay.checkpoint.system import load_system
from longplay.errors import CheckpointError
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.train.export import export_model
from longplay.train.init import start_from
from longplay.train.release import release
from systems import save_tiny, store_in_int8, tiny_models

ABOUT = {"name": "small", "licence": "CC0", "provenance": "a test"}
SPECTRAL = {"kind": "spectral", "n_fft": 64, "dim": 8, "intermediate_dim": 12, "num_layers": 1}


def test_parts_of_several_directories_become_one_model(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_tiny(tmp_path / name, seed=ord(name))
    release(
        {"tokenizer": tmp_path / "a", "codec": tmp_path / "b", "lm": tmp_path / "a", "flow": tmp_path / "b"},
        tmp_path / "out",
        **ABOUT,
    )
    system = load_system(tmp_path / "out")
    assert system.config.name == "small"
    assert system.text_tokenizer is not None
    for model, source in (("tokenizer", "a"), ("codec", "b"), ("flow", "b"), ("lm", "a")):
        stored = load_weights(tmp_path / "out", model)
        assert all(value.dtype == torch.half for value in stored.values() if value.is_floating_point())
        original = load_weights(tmp_path / source, model)
        for name, value in stored.items():
            torch.testing.assert_close(value.float(), original[name].float(), atol=1e-3, rtol=1e-3)


def test_moving_averages_are_left_behind_and_the_codes_stay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = TokenizerConfig.parse(
        {
            "sample_rate": 640, "hop_length": 32, "latent_dim": 4, "codebook": {"size": 16, "dim": 4},
            "encoder": SPECTRAL, "decoder": SPECTRAL,
        }
    )  # fmt: skip
    model = Tokenizer(config)
    wav = torch.randn(1, 1, 6400)
    for _ in range(5):
        model(wav)
    model.eval()
    export_model("tokenizer", model, config, tmp_path / "run/model")
    assert "codebook.embed_avg" in load_weights(tmp_path / "run/model", "tokenizer")
    release({"tokenizer": tmp_path / "run/model"}, tmp_path / "out", **ABOUT)
    assert "codebook.embed_avg" not in load_weights(tmp_path / "out", "tokenizer")
    shipped = load_system(tmp_path / "out").tokenizer
    assert shipped is not None
    assert not shipped.config.codebook.ema
    assert (shipped.encode(wav) == model.encode(wav)).float().mean() > 0.95  # half precision moves a few


def test_a_directory_without_the_model_is_named(tmp_path: Path) -> None:
    save_tiny(tmp_path / "a", seed=0)
    release({"codec": tmp_path / "a"}, tmp_path / "codec", **ABOUT)
    assert load_config(tmp_path / "codec").present == ("codec",)
    with pytest.raises(CheckpointError, match=r"codec: holds codec, not the flow; give another directory"):
        release({"flow": tmp_path / "codec"}, tmp_path / "out", **ABOUT)


def test_an_lm_in_int8_is_half_as_large_and_says_how_close_it_is(tmp_path: Path) -> None:
    save_tiny(tmp_path / "a")
    made = release({"lm": tmp_path / "a"}, tmp_path / "out", **ABOUT, lm_precision="int8")
    assert made is not None
    assert made.quality["int8"].kl < 0.005
    wide = release({"lm": tmp_path / "a"}, tmp_path / "half", **ABOUT)
    assert wide is None
    stored = load_tensors(tmp_path / "out/lm.safetensors")
    half = load_tensors(tmp_path / "half/lm.safetensors")
    for name, tensor in half.items():
        expected = torch.int8 if name.endswith(("proj.weight", "head.weight")) else torch.half
        assert stored[name].dtype == expected, name
        if expected == torch.half:
            assert torch.equal(stored[name], tensor)
    widened = load_weights(tmp_path / "out", "lm")
    assert widened.keys() == half.keys()
    assert all(value.dtype == torch.half for value in widened.values())
    for name, tensor in half.items():
        assert (widened[name] - tensor).abs().max() <= 0.005 * tensor.abs().max(), name


def test_an_lm_that_int8_changes_too_much_is_not_released_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(tmp_path / "a")
    monkeypatch.setattr("longplay.pipeline.quantized.KL_LIMIT", 0.0)
    with pytest.raises(
        CheckpointError, match=r"a: its lm in int8 is .* nats a code from float32.*release it in float16"
    ):
        release({"lm": tmp_path / "a"}, tmp_path / "out", **ABOUT, lm_precision="int8")
    assert not (tmp_path / "out").exists()


def test_a_release_in_int8_can_be_released_again(tmp_path: Path) -> None:
    once = store_in_int8(save_tiny(tmp_path / "a"), tmp_path / "once")
    release({"lm": once}, tmp_path / "wide", **ABOUT)
    wide, first = load_weights(tmp_path / "wide", "lm"), load_weights(once, "lm")
    assert all(torch.equal(wide[name], first[name]) for name in first)
    release({"lm": once}, tmp_path / "again", **ABOUT, lm_precision="int8")
    for name, tensor in load_tensors(once / "lm.safetensors").items():
        torch.testing.assert_close(load_tensors(tmp_path / "again/lm.safetensors")[name], tensor, rtol=2e-3, atol=1e-6)


def test_training_starts_from_an_lm_in_int8(tmp_path: Path) -> None:
    once = store_in_int8(save_tiny(tmp_path / "a"), tmp_path / "once")
    lm = tiny_models(seed=1)["lm"]
    start_from(lm, "lm", once)
    wide = load_weights(once, "lm")
    assert all(torch.equal(value, wide[name].float()) for name, value in lm.state_dict().items())
