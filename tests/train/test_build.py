from pathlib import Path
from typing import Any

import pytest
import torch

from longplay.data.token_windows import TokenTrack
from longplay.errors import CheckpointError, ConfigError
from longplay.text import TextTokenizer
from longplay.train.build import CONFIGS, _start_from, load_stage_config
from longplay.train.lm_stage import LMStage
from longplay.train.parallel import Parallel
from longplay.train.update import Updater


@pytest.mark.parametrize(
    "name",
    [
        "nano-tokenizer",
        "nano-tokenizer-decoder",
        "nano-codec",
        "nano-codec-decoder",
        "nano-lm",
        "nano-flow",
        "base",
        "1.5b",
    ],
)
def test_presets_load(name: str) -> None:
    config = load_stage_config(name, ["loop.steps=7"])
    assert config.loop.steps == 7
    assert isinstance(config, CONFIGS[config.stage])


def test_wrong_configs_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match="neither a preset nor a file; presets are 1.5b, base, nano-codec, nano-codec-decoder, nano-flow",
    ):
        load_stage_config("mega")
    path = tmp_path / "a.yaml"
    path.write_text("stage: vocoder\n")
    with pytest.raises(ConfigError, match="stage = 'vocoder'; use one of tokenizer, codec, lm, flow"):
        load_stage_config(str(path))
    with pytest.raises(ConfigError, match="unknown key 'loop.step'"):
        load_stage_config("nano-codec", ["loop.step=7"])


def test_an_lm_starts_from_another_one(lm_stage: Any, tracks: list[TokenTrack], tmp_path: Path) -> None:
    first: LMStage = lm_stage()
    Updater(first, first.config.loop, Parallel(first.config.loop, tmp_path)).update(0)
    first.export(first.model, tmp_path / "model")
    torch.manual_seed(5)
    second: LMStage = lm_stage()
    torch.nn.init.normal_(second.model.text_embedding.weight)
    _start_from(second, tmp_path / "model")
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name

    TextTokenizer.train(["loud organ"] * 4, 270).save(tmp_path / "model/text_tokenizer.json")
    third: LMStage = lm_stage()
    fresh = third.model.text_embedding.weight.detach().clone()
    _start_from(third, tmp_path / "model")
    assert torch.equal(third.model.text_embedding.weight, fresh)
    assert torch.equal(third.model.audio_head.weight, first.model.audio_head.weight)


def test_an_lm_of_another_size_is_refused(lm_stage: Any, tmp_path: Path) -> None:
    stage: LMStage = lm_stage()
    stage.export(stage.model, tmp_path / "model")
    stage.model.audio_head = torch.nn.Linear(16, 9)
    with pytest.raises(CheckpointError, match="does not fit this config"):
        _start_from(stage, tmp_path / "model")


def test_an_lm_does_not_start_from_a_directory_without_one(lm_stage: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is missing"):
        _start_from(lm_stage(), tmp_path / "nowhere")
