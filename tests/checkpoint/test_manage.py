from pathlib import Path

import pytest
import torch

from longplay.checkpoint.hub import parse_hub_name
from longplay.checkpoint.manage import convert_model, download_model, list_models, model_info, verify_model
from longplay.checkpoint.store import MODELS, load_tensors, load_weights, save_tensors
from longplay.errors import CheckpointError
from systems import save_tiny, store_in_int8, tiny_config


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_every_listed_place_is_a_name() -> None:
    models = list_models()
    assert models[0].name == "nano"
    places = [place for model in models for place in model.places if model.name != "nano"]
    assert len(places) == 10
    assert all(parse_hub_name(place) is not None for place in places)
    assert "modelscope:iic/InspireMusic" in places


def test_info_counts_what_is_there(tiny: Path) -> None:
    info = model_info(tiny)
    assert info.config == tiny_config()
    assert info.layout == "native"
    assert tuple(info.weights) == MODELS
    weights = load_tensors(tiny / "lm.safetensors")
    assert info.weights["lm"].parameters == sum(tensor.numel() for tensor in weights.values())
    assert info.weights["lm"].dtypes == ("float32",)
    assert info.has_text_tokenizer


def test_a_good_model_is_verified(tiny: Path) -> None:
    verified = verify_model(tiny)
    assert verified.tensors == sum(len(load_tensors(tiny / f"{model}.safetensors")) for model in MODELS)
    assert len(verified.digest) == 64


def test_a_model_with_an_lm_in_int8_is_described_and_verified(tiny: Path, tmp_path: Path) -> None:
    stored = store_in_int8(tiny, tmp_path / "stored")
    lm, wide = model_info(stored).weights["lm"], model_info(tiny).weights["lm"]
    assert lm.parameters == wide.parameters
    assert lm.size < 0.5 * wide.size
    assert lm.dtypes == ("float16", "float32", "int8")
    assert verify_model(stored).tensors == sum(len(load_weights(stored, model)) for model in MODELS)
    path = stored / "lm.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_tensors(path).items()}
    tensors["audio_head.weight.scales"][0] = torch.nan
    save_tensors(path, tensors)
    with pytest.raises(CheckpointError, match=r"tensor audio_head\.weight holds NaN"):
        verify_model(stored)
    del tensors["audio_head.weight.scales"]
    save_tensors(path, tensors)
    with pytest.raises(CheckpointError, match=r"audio_head\.weight is in int8, but its scales do not fit it"):
        verify_model(stored)


def test_the_digest_follows_the_weights(tiny: Path) -> None:
    before = verify_model(tiny).digest
    assert verify_model(tiny).digest == before
    weights = {name: tensor.clone() for name, tensor in load_tensors(tiny / "lm.safetensors").items()}
    next(iter(weights.values())).view(-1)[0] += 1
    save_tensors(tiny / "lm.safetensors", weights)
    assert verify_model(tiny).digest != before


def test_not_a_number_is_found(tiny: Path) -> None:
    weights = {name: tensor.clone() for name, tensor in load_tensors(tiny / "flow.safetensors").items()}
    name = sorted(weights)[-1]
    weights[name].view(-1)[0] = torch.nan
    save_tensors(tiny / "flow.safetensors", weights)
    with pytest.raises(CheckpointError, match=f"tensor {name} holds NaN"):
        verify_model(tiny)


def test_weights_of_another_model_are_found(tiny: Path) -> None:
    weights = load_tensors(tiny / "codec.safetensors")
    save_tensors(
        tiny / "codec.safetensors", {name: t for name, t in weights.items() if not name.startswith("encoder.")}
    )
    with pytest.raises(CheckpointError, match=r"codec: does not match its config: misses encoder\."):
        verify_model(tiny)


def test_only_hub_names_are_downloaded(tiny: Path) -> None:
    with pytest.raises(CheckpointError, match="not a name on a hub"):
        download_model(str(tiny))


def test_an_empty_directory_is_no_model(tmp_path: Path) -> None:
    for function in (model_info, verify_model):
        with pytest.raises(CheckpointError, match="is not a model; expected config.yaml"):
            function(tmp_path)
    with pytest.raises(CheckpointError, match="is not a model"):
        convert_model(tmp_path, tmp_path / "out", "native")
