from pathlib import Path

import pytest
import torch

from longplay.checkpoint.store import load_config, load_weights
from longplay.checkpoint.system import load_system
from longplay.errors import CheckpointError
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.train.export import export_model
from longplay.train.release import release
from systems import save_tiny

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
