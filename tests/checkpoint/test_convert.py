import filecmp
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from longplay.checkpoint.carried import other_files
from longplay.checkpoint.convert import convert
from longplay.checkpoint.published import WEIGHT_FILES, same_bits
from longplay.checkpoint.store import SystemConfig, load_config, load_tensors, load_weights, save_native, save_tensors
from longplay.checkpoint.system import load_system
from longplay.errors import CheckpointError
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.nn.quantizers import CodebookConfig
from longplay.nn.seanet import SeanetConfig
from longplay.nn.vocos import VocosDecoderConfig
from systems import save_tiny, store_in_int8


@pytest.fixture(scope="module")
def original(golden_directory: Path) -> Path:
    return golden_directory / "tiny_checkpoint"


@pytest.fixture(scope="module")
def native(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("convert") / "native"
    convert(original, directory, "native")
    return directory


@pytest.fixture(scope="module")
def published(native: Path) -> Path:
    directory = native.parent / "published"
    convert(native, directory, "published")
    return directory


def assert_same(a: Any, b: Any, where: str) -> None:
    assert type(a) is type(b), where
    if isinstance(a, Tensor):
        assert same_bits(a, b), where
        assert not isinstance(a, torch.nn.Parameter) or a.requires_grad == b.requires_grad
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        if isinstance(a, OrderedDict):
            assert_same(vars(a), vars(b), f"{where} attributes")
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}/{index}")
    else:
        assert a == b, where


@pytest.mark.tiny_checkpoint
class TestRoundTrip:
    @pytest.mark.parametrize("file", WEIGHT_FILES)
    def test_every_tensor_and_value_is_bit_exact(self, original: Path, published: Path, file: str) -> None:
        a, b = (torch.load(directory / file, weights_only=True) for directory in (original, published))
        assert_same(a, b, file)

    def test_tied_tensors_are_tied_again(self, published: Path) -> None:
        state = torch.load(published / "llm.pt", weights_only=True)
        names = ("text_embedding.weight", "llm.model.model.embed_tokens.weight", "llm.model.lm_head.weight")
        assert len({state[name].data_ptr() for name in names}) == 1
        assert (published / "llm.pt").stat().st_size < 1.05 * sum(
            storage.nbytes() for storage in {t.data_ptr(): t.untyped_storage() for t in state.values()}.values()
        )

    def test_every_other_file_is_byte_identical(self, original: Path, published: Path) -> None:
        names = [str(path.relative_to(original)) for path in other_files(original)]
        assert "model.safetensors" in names
        assert filecmp.cmpfiles(original, published, names, shallow=False)[0] == names
        every = {path.relative_to(published) for path in published.rglob("*") if path.is_file()}
        assert len(every) == len(names) + len(WEIGHT_FILES)

    def test_the_native_directory_computes_the_same(self, original: Path, native: Path) -> None:
        codes = torch.arange(20)[None]
        a, b = (load_system(directory) for directory in (original, native))
        assert a.tokenizer is not None
        assert b.tokenizer is not None
        assert torch.equal(a.tokenizer.decode(codes), b.tokenizer.decode(codes))
        assert a.text_tokenizer is not None
        assert b.text_tokenizer is not None
        text = "calm piano [breath] <|im_end|>"
        assert a.text_tokenizer.encode(text) == b.text_tokenizer.encode(text)

    def test_the_flow_does_not_repeat_the_codecs_quantizer(self, native: Path) -> None:
        extras = load_tensors(native / "published" / "extras.safetensors")
        assert not [name for name in extras if "quantizer" in name and name.startswith("flow.pt")]


@pytest.mark.tiny_checkpoint
def test_half_precision_and_a_differing_quantizer_survive(original: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(original, source, copy_function=shutil.copyfile)
    llm, flow = (torch.load(source / file, weights_only=True) for file in ("llm.pt", "flow.pt"))
    half = {name: tensor.bfloat16() if name.startswith("llm.") else tensor for name, tensor in llm.items()}
    shared = half["llm.model.lm_head.weight"]
    half["text_embedding.weight"] = half["llm.model.model.embed_tokens.weight"] = shared
    flow["quantizer.quantizer_modules.0.embedding.weight"] += 1
    torch.save(half, source / "llm.pt")
    torch.save(flow, source / "flow.pt")
    convert(source, tmp_path / "native", "native")
    convert(tmp_path / "native", tmp_path / "published", "published")
    for file, expected in (("llm.pt", half), ("flow.pt", flow)):
        written = torch.load(tmp_path / "published" / file, weights_only=True)
        assert all(same_bits(written[name], tensor) for name, tensor in expected.items())


@pytest.mark.tiny_checkpoint
def test_new_weights_reach_the_published_files(native: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    shutil.copytree(native, trained)
    weights = {name: tensor.clone() for name, tensor in load_tensors(trained / "lm.safetensors").items()}
    name = next(name for name in weights if name.startswith("text_embedding"))
    weights[name] += 1
    save_tensors(trained / "lm.safetensors", weights)
    convert(trained, tmp_path / "published", "published")
    state = torch.load(tmp_path / "published" / "llm.pt", weights_only=True)
    assert torch.equal(state["text_embedding.weight"], weights[name])
    assert torch.equal(state["llm.model.lm_head.weight"], weights[name])


@pytest.mark.tiny_checkpoint
def test_a_changed_config_cannot_be_published(native: Path, tmp_path: Path) -> None:
    shutil.copytree(native, tmp_path / "changed")
    path = tmp_path / "changed" / "config.yaml"
    path.write_text(path.read_text().replace("guidance: 0.7", "guidance: 0.9"))
    with pytest.raises(CheckpointError, match="the flow section"):
        convert(tmp_path / "changed", tmp_path / "published", "published")
    assert not (tmp_path / "published").exists()


@pytest.mark.tiny_checkpoint
def test_the_same_layout_is_refused(original: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is in the published layout already"):
        convert(original, tmp_path / "copy", "published")


@pytest.mark.tiny_checkpoint
def test_an_existing_destination_is_refused(original: Path, native: Path) -> None:
    with pytest.raises(CheckpointError, match="already exists"):
        convert(original, native, "native")


def test_several_codebooks_are_refused_with_that_reason(tmp_path: Path) -> None:
    seanet = TokenizerConfig(
        sample_rate=24000,
        hop_length=320,
        latent_dim=16,
        codebook=CodebookConfig(size=8, dim=16),
        num_codebooks=2,
        encoder=SeanetConfig(strides=(2, 4, 5, 8), base_channels=2),
        decoder=VocosDecoderConfig(dim=32, intermediate_dim=16, num_layers=1, num_conditions=4, n_fft=1280),
    )
    weights = Tokenizer(seanet).state_dict()
    save_native(tmp_path / "residual", SystemConfig(tokenizer=seanet), {"tokenizer": weights})
    with pytest.raises(CheckpointError, match="cannot hold a tokenizer of 2 codebooks; keep it native"):
        convert(tmp_path / "residual", tmp_path / "out", "published")


def test_spectral_parts_are_refused_with_that_reason(tmp_path: Path) -> None:
    save_tiny(tmp_path / "tiny")
    with pytest.raises(CheckpointError, match=r"spectral parts \(tokenizer encoder, tokenizer decoder, codec encoder"):
        convert(tmp_path / "tiny", tmp_path / "published", "published")
    assert not (tmp_path / "published").exists()


def test_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a model directory"):
        convert(tmp_path, tmp_path / "native", "native")


@pytest.mark.tiny_checkpoint
def test_config_of_the_converted_model(native: Path) -> None:
    config = load_config(native)
    assert config.name == "InspireMusic-Tiny"
    assert "InspireMusic-Tiny" in config.provenance


@pytest.mark.tiny_checkpoint
def test_an_lm_in_int8_is_published_in_float(native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longplay.pipeline.quantized.KL_LIMIT", 1.0)  # its weights are random
    trained, narrow = tmp_path / "trained", store_in_int8(native, tmp_path / "narrow")
    shutil.copytree(native, trained)
    shutil.copy(narrow / "lm.safetensors", trained / "lm.safetensors")
    convert(trained, tmp_path / "published", "published")
    state = torch.load(tmp_path / "published" / "llm.pt", weights_only=True)
    name = "llm_decoder.weight"
    assert state[name].dtype == torch.half
    assert torch.equal(state[name], load_weights(narrow, "lm")["audio_head.weight"])
