import json
import re
from pathlib import Path

import pytest
import torch

from longplay.checkpoint.published_config import qwen_keys
from longplay.checkpoint.qwen import AUDIO_SIDE, INDEX_FILE, WEIGHTS_FILE, is_qwen, read_weights
from longplay.checkpoint.store import load_tensors, save_tensors
from longplay.errors import CheckpointError
from longplay.models.lm import LM
from longplay.text import TextTokenizer
from longplay.train.init import start_from
from tiny_lm import tiny_config

CONFIG = tiny_config(text_vocab_size=320)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2 with random weights, written by `transformers` itself."""
    transformers = pytest.importorskip("transformers")
    directory = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**qwen_keys(CONFIG), tie_word_embeddings=False))
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:  # which start as zeros and ones
            torch.nn.init.normal_(parameter, 0.5, 0.1)
    model.save_pretrained(directory)
    TextTokenizer.train(["slow piano", "fast drums"] * 4, 270).save(directory / "tokenizer.json")
    return directory


def test_an_lm_that_starts_from_qwen_computes_what_qwen_computes(theirs: Path) -> None:
    transformers = pytest.importorskip("transformers")
    lm = LM(CONFIG)
    fresh = {name: value.clone() for name, value in lm.state_dict().items()}
    start_from(lm, "lm", theirs)
    ids = torch.tensor([5, 200, 7, 7, 41, 260])
    original = transformers.Qwen2Model.from_pretrained(theirs, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = original(ids[None]).last_hidden_state
        torch.testing.assert_close(lm(lm.text_embedding(ids)[None]), expected, atol=1e-5, rtol=1e-5)
    for name, value in lm.state_dict().items():
        assert torch.equal(value, fresh[name]) == name.startswith(AUDIO_SIDE), name


def test_weights_in_several_files_are_the_same(theirs: Path, tmp_path: Path) -> None:
    tensors = load_tensors(theirs / WEIGHTS_FILE)
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in parts.items():
        save_tensors(tmp_path / file, {name: tensors[name] for name in held})
    places = {name: file for file, held in parts.items() for name in held}
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": places}))
    (tmp_path / "config.json").write_text((theirs / "config.json").read_text())
    whole, split = read_weights(theirs, CONFIG), read_weights(tmp_path, CONFIG)
    assert whole.keys() == split.keys()
    assert all(torch.equal(whole[name], split[name]) for name in whole)


def test_what_does_not_fit_is_named(theirs: Path, tmp_path: Path) -> None:
    assert is_qwen(theirs)
    assert not is_qwen(tmp_path)
    wider = CONFIG.model_copy(update={"dim": 64})
    with pytest.raises(CheckpointError, match=r"its dim is 32, the config's lm.dim 64; set lm.dim=32"):
        read_weights(theirs, wider)
    settings = json.loads((theirs / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"model_type": "llama"}))
    with pytest.raises(CheckpointError, match="model_type = 'llama' is not supported; expected 'qwen2'"):
        read_weights(tmp_path, CONFIG)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=re.escape(f"{tmp_path / WEIGHTS_FILE}: is missing")):
        read_weights(tmp_path, CONFIG)
    (tmp_path / INDEX_FILE).write_text("[]")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_weights(tmp_path, CONFIG)
    (tmp_path / INDEX_FILE).unlink()
    save_tensors(tmp_path / WEIGHTS_FILE, {"transformer.h.0.attn.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="'transformer.h.0.attn.weight' is not part of a Qwen2 model"):
        read_weights(tmp_path, CONFIG)


def test_a_qwen_that_lacks_a_layer_is_refused(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((theirs / "config.json").read_text())
    tensors = load_tensors(theirs / WEIGHTS_FILE)
    save_tensors(tmp_path / WEIGHTS_FILE, {name: value for name, value in tensors.items() if ".1.mlp." not in name})
    with pytest.raises(CheckpointError, match="its lm does not fit this config"):
        start_from(LM(CONFIG), "lm", tmp_path)
