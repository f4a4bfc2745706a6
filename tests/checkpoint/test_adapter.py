from pathlib import Path

import pytest
import torch
import yaml

from longplay.checkpoint.adapter import add_change, load_adapter
from longplay.checkpoint.system import load_system
from longplay.errors import CheckpointError
from systems import save_tiny, save_tiny_adapter, tiny_weights


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model")


@pytest.fixture
def directory(tmp_path: Path, model: Path) -> Path:
    return save_tiny_adapter(tmp_path / "adapter", model)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_it_is_added_to_the_projections_and_to_nothing_else(model: Path, directory: Path, scale: float) -> None:
    adapter = load_adapter(directory, scale)
    lm = load_system(model, adapter=adapter).lm
    assert lm is not None
    for name, weight in tiny_weights()["lm"].items():
        expected = weight
        if name.startswith("layers.") and name.endswith("_proj.weight"):
            target = name.removesuffix(".weight")
            pair = adapter.tensors[f"{target}.lora_B.weight"] @ adapter.tensors[f"{target}.lora_A.weight"]
            expected = weight + scale * 8 / 4 * pair
            assert scale == 0 or not torch.equal(lm.state_dict()[name], weight)
        torch.testing.assert_close(lm.state_dict()[name], expected)


def test_narrow_weights_are_added_to_in_full_precision(model: Path, directory: Path) -> None:
    tensors = load_adapter(directory).tensors
    wide = {name: weight.half().float() for name, weight in tiny_weights()["lm"].items()}
    narrow = {name: weight.half() for name, weight in wide.items()}
    exact = add_change(wide, tensors, 2.0, "a")
    name = "layers.0.mlp.up_proj.weight"
    assert torch.equal(add_change(narrow, tensors, 2.0, "a", torch.float32)[name], exact[name])
    assert torch.equal(add_change(narrow, tensors, 2.0, "a")[name], exact[name].half())


def test_another_base_is_refused(directory: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", seed=1)
    with pytest.raises(
        CheckpointError, match=r"was made for the lm of '.*/model' \(\w{12}\), not for that of '.*/other'"
    ):
        load_system(other, adapter=load_adapter(directory))


def test_what_was_made_with_it_is_known_by_another_digest(model: Path, directory: Path) -> None:
    forms = [None, load_adapter(directory), load_adapter(directory, 0.5)]
    systems = [load_system(model, adapter=form) for form in forms]
    assert len({system.lm_digest for system in systems}) == 3
    assert len({system.digest for system in systems}) == 1
    assert [system.lm_directory for system in systems] == [model, directory, directory]


def test_what_is_wrong_is_named(model: Path, directory: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model: has no adapter.yaml; give a directory that `longplay finetune`"):
        load_adapter(model)
    with pytest.raises(CheckpointError, match="adapter scale 5: must lie between 0 and 4"):
        load_adapter(directory, 5)
    adapter = load_adapter(directory)
    lm = tiny_weights()["lm"]
    short = {name: tensor for name, tensor in adapter.tensors.items() if name != "layers.1.mlp.up_proj.lora_B.weight"}
    with pytest.raises(CheckpointError, match=r"layers.1.mlp.up_proj does not fit the lm"):
        add_change(lm, short, 1.0, "a")
    with pytest.raises(CheckpointError, match=r"unknown tensor extra"):
        add_change(lm, dict(adapter.tensors) | {"extra": torch.zeros(1)}, 1.0, "a")
    moved = {name.replace("layers.1.", "layers.7."): tensor for name, tensor in adapter.tensors.items()}
    with pytest.raises(CheckpointError, match=r"layers.7.mlp.\w+ does not fit the lm"):
        add_change(lm, moved, 1.0, "a")
    (directory / "adapter.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"adapter.safetensors: is truncated or damaged"):
        load_adapter(directory)
    config = yaml.safe_load((directory / "adapter.yaml").read_text())
    (directory / "adapter.yaml").write_text(yaml.safe_dump(config | {"rank": 0}))
    with pytest.raises(CheckpointError, match=r"rank = 0"):
        load_adapter(directory)
