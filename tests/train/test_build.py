from pathlib import Path
from typing import Any

import pytest
import torch

from longplay.data.token_windows import TokenTrack
from longplay.errors import CheckpointError, ConfigError
from longplay.text import TextTokenizer
from longplay.train.build import CONFIGS, _start_from, build_stage, load_stage_config
from longplay.train.flow_stage import FlowStageConfig
from longplay.train.lm_stage import LMStage, LMStageConfig
from longplay.train.parallel import Parallel
from longplay.train.update import Updater
from systems import save_residual


@pytest.mark.parametrize(
    "name",
    [
        "nano-tokenizer",
        "nano-tokenizer-decoder",
        "nano-tokenizer-residual",
        "nano-codec",
        "nano-codec-decoder",
        "nano-lm",
        "nano-lm-heeding",
        "nano-lm-preference",
        "nano-flow",
        "nano-flow-reflow",
        "base",
        "1.5b",
    ],
)
def test_presets_load(name: str) -> None:
    config = load_stage_config(name, ["loop.steps=7"])
    assert config.loop.steps == 7
    assert isinstance(config, CONFIGS[config.stage])


def test_a_flow_is_made_straight_along_more_steps_than_it_takes_afterwards() -> None:
    config = load_stage_config("nano-flow-reflow")
    assert isinstance(config, FlowStageConfig)
    assert config.reflow is not None
    assert config.reflow.num_steps is not None, "not nano's own, which is one"
    assert config.reflow.num_steps > config.flow.num_steps


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


def test_a_config_says_what_it_changes_of_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("like: nano-lm-heeding\nlm: {dim: 128}\nopening_frames: null\n")
    mine, theirs = load_stage_config(str(path), ["misheard=0"]), load_stage_config("nano-lm-heeding")
    assert isinstance(mine, LMStageConfig)
    assert isinstance(theirs, LMStageConfig)
    assert (mine.lm.dim, mine.opening_frames, mine.misheard) == (128, None, 0)
    assert mine.lm.num_layers == theirs.lm.num_layers
    assert mine.loop == theirs.loop
    path.write_text(f"like: {path}\n")
    with pytest.raises(ConfigError, match="like itself, by way of .*mine.yaml; name another"):
        load_stage_config(str(path))
    path.write_text("like: nano-ml\n")
    with pytest.raises(ConfigError, match="nano-ml: neither a preset nor a file"):
        load_stage_config(str(path))


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


def test_the_residual_tokenizer_differs_in_nothing_but_its_codebooks() -> None:
    single, residual = (load_stage_config(f"nano-tokenizer{kind}").dump() for kind in ("", "-residual"))
    assert (single["tokenizer"].pop("num_codebooks"), residual["tokenizer"].pop("num_codebooks")) == (1, 4)
    assert single == residual


def test_a_tokenizer_of_several_codebooks_is_refused_by_the_lm(
    tracks: list[TokenTrack], tmp_path: Path, monkeypatch: Any
) -> None:
    save_residual(tmp_path / "model")
    config = load_stage_config("nano-lm", [f"tokenizer={tmp_path / 'model'}"])
    monkeypatch.setattr("longplay.train.build.read_token_tracks", lambda data, split: tracks)
    with pytest.raises(CheckpointError, match="its tokenizer has 3 codebooks, and lm and flow take one code a frame"):
        build_stage(config, tmp_path, tmp_path / "run")


def test_an_lm_of_another_size_is_refused(lm_stage: Any, tmp_path: Path) -> None:
    stage: LMStage = lm_stage()
    stage.export(stage.model, tmp_path / "model")
    stage.model.audio_head = torch.nn.Linear(16, 9)
    with pytest.raises(CheckpointError, match="does not fit this config"):
        _start_from(stage, tmp_path / "model")


def test_an_lm_does_not_start_from_a_directory_without_one(lm_stage: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is missing"):
        _start_from(lm_stage(), tmp_path / "nowhere")
