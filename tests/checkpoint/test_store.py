from pathlib import Path

import pytest
import torch
from torch import Tensor

from longplay.checkpoint import store
from longplay.checkpoint.store import SystemConfig, load_config, load_tensors, new_directory, save_native, save_tensors
from longplay.errors import CheckpointError
from systems import tiny_config, tiny_weights


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_native(tmp_path / "model", tiny_config(), tiny_weights())
    return tmp_path / "model"


def test_config_and_weights_come_back(saved: Path) -> None:
    assert load_config(saved) == tiny_config()
    for model, weights in tiny_weights().items():
        loaded = store.load_weights(saved, model)
        assert loaded.keys() == weights.keys()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_a_directory_holds_only_what_it_needs(saved: Path) -> None:
    names = {"config.yaml", *(f"{model}.safetensors" for model in store.MODELS)}
    assert {path.name for path in saved.iterdir()} == names


def test_a_training_result_holds_one_model(tmp_path: Path) -> None:
    config = SystemConfig(codec=tiny_config().codec)
    save_native(tmp_path / "model", config, {"codec": tiny_weights()["codec"]})
    assert load_config(tmp_path / "model").present == ("codec",)
    assert "lm" not in (tmp_path / "model" / "config.yaml").read_text()


def test_sections_and_weights_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weights are of"):
        save_native(tmp_path / "model", tiny_config(), {})


def test_changing_a_mapped_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(3)})
    load_tensors(tmp_path / "a.safetensors")["a"].add_(1)
    assert torch.equal(load_tensors(tmp_path / "a.safetensors")["a"], torch.zeros(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_dtypes_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    save_tensors(tmp_path / "a.safetensors", {"a": torch.ones(3, dtype=dtype)})
    assert load_tensors(tmp_path / "a.safetensors")["a"].dtype == dtype


def test_strided_and_expanded_tensors_are_saved_dense(tmp_path: Path) -> None:
    tensors = {"t": torch.arange(6.0).reshape(2, 3).T, "wide": torch.ones(1).expand(2, 2)}
    save_tensors(tmp_path / "a.safetensors", tensors)
    assert all(torch.equal(load_tensors(tmp_path / "a.safetensors")[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_cut_file_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "lm.safetensors"
    save_tensors(path, {"a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CheckpointError, match=r"lm\.safetensors: is truncated or damaged"):
        load_tensors(path)


def test_a_missing_file_is_named(saved: Path) -> None:
    (saved / "flow.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"flow\.safetensors: is missing; the model is incomplete"):
        store.load_weights(saved, "flow")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hop_length:", "hop_lenght:", "unknown key 'tokenizer.hop_lenght'"),
        ("codebook_size: 64", "codebook_size: 65", "65 differs from tokenizer.codebook.size 64"),
        ("frame_rate: 150", "frame_rate: 75", "frame_rate 75 differs from the codec's frame rate 150"),
        ("num_codebooks: 1", "num_codebooks: 4", "tokenizer.num_codebooks 4: lm and flow need a tokenizer of 1"),
        ("version: 1", "version: 2", "version = 2"),
    ],
)
def test_a_wrong_config_is_explained(saved: Path, old: str, new: str, message: str) -> None:
    path = saved / "config.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(CheckpointError, match=message):
        load_config(saved)


def test_a_tokenizer_s_config_from_before_it_could_have_several_codebooks_means_one(saved: Path) -> None:
    path = saved / "config.yaml"
    path.write_text(path.read_text().replace("  num_codebooks: 1\n", "", 1))
    tokenizer = load_config(saved).tokenizer
    assert tokenizer is not None
    assert tokenizer.num_codebooks == 1


def test_no_config_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.yaml"):
        load_config(tmp_path)


class Failing(dict[str, Tensor]):
    def items(self) -> object:  # type: ignore[override]
        raise OSError("disk full")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.zeros(3)})
    with pytest.raises(OSError, match="disk full"):
        save_tensors(path, Failing())
    assert torch.equal(load_tensors(path)["a"], torch.zeros(3))
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def write_half() -> None:
        with new_directory(tmp_path / "model") as part:
            (part / "config.yaml").write_text("half")
            raise OSError("disk full")

    with pytest.raises(CheckpointError, match=r"model: cannot be written \(disk full\)"):
        write_half()
    assert not list(tmp_path.iterdir())


def test_an_existing_directory_is_replaced_only_on_request(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="already exists"):
        save_native(saved, tiny_config(), tiny_weights())
    save_native(saved, SystemConfig(codec=tiny_config().codec), {"codec": tiny_weights()["codec"]}, overwrite=True)
    assert load_config(saved).present == ("codec",)
    assert not (saved / "lm.safetensors").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
