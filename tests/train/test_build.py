import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from longplay.checkpoint.store import save_tensors
from longplay.data.token_tracks import TokenTrack
from longplay.errors import CheckpointError, ConfigError, TrainingError
from longplay.models.lm import LM
from longplay.models.lm_config import LMConfig
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
        "nano-codec-gan",
        "nano-tokenizer-gan",
        "nano-lm",
        "nano-lm-heeding",
        "nano-lm-preference",
        "nano-lm-pretrain",
        "nano-lm-sft",
        "nano-flow",
        "nano-flow-reflow",
        "base",
        "1.5b",
    ],
)
def test_presets_load(name: str) -> None:
    config = load_stage_config(name, ["loop.seed=7"])
    assert config.loop.seed == 7
    assert isinstance(config, CONFIGS[config.stage])


@pytest.mark.parametrize("size", ["base", "1.5b"])
def test_the_three_stages_go_on_from_one_another(size: str) -> None:
    stages = [load_stage_config(f"{size}-{stage}") for stage in ("pretrain", "finetune", "sft")]
    pretrain, finetune, sft = [stage for stage in stages if isinstance(stage, LMStageConfig)]
    assert pretrain.init == Path(f"Qwen/Qwen2.5-{'0.5B' if size == 'base' else '1.5B'}")
    assert finetune.init == Path(f"runs/{size}-pretrain/model")
    assert sft.init == Path(f"runs/{size}-finetune/model")
    assert [stage.lm.text_dropout for stage in (pretrain, finetune, sft)] == [1, 0.2, 0.2]
    assert pretrain.lm.context_frames == 8 * 60 * 75
    published = LMConfig.published("base" if size == "base" else "1.5b")
    for stage in (pretrain, finetune, sft):
        same = (
            "dim",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "intermediate_dim",
            "rope_theta",
            "norm_eps",
            "text_vocab_size",
        )
        assert [getattr(stage.lm, name) for name in same] == [getattr(published, name) for name in same]
        assert stage.text == "init"


def test_a_run_starts_from_qwen(tracks: list[TokenTrack], tmp_path: Path, monkeypatch: Any) -> None:
    """Weights and text tokenizer of its layout; what a model lacks to fit is said before anything is trained."""
    lm = LM(LMConfig(text_vocab_size=400, codebook_size=16, code_rate=20, num_labels=5, dim=16, num_layers=1, num_heads=2,
                     num_kv_heads=1, intermediate_dim=24))  # fmt: skip
    theirs = {"text_embedding.": "model.embed_tokens.", "layers.": "model.layers.", "norm.": "model.norm."}
    tensors = {
        old + name.removeprefix(new): value
        for name, value in lm.state_dict().items()
        for new, old in theirs.items()
        if name.startswith(new)
    }
    save_tensors(tmp_path / "model.safetensors", tensors)
    sizes = {"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
             "intermediate_size": 24, "rope_theta": 1e6, "rms_norm_eps": 1e-6, "model_type": "qwen2"}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    TextTokenizer.train(["slow piano", "fast drums"] * 4, 280).save(tmp_path / "tokenizer.json")
    monkeypatch.setattr("longplay.train.build.read_token_tracks", lambda data, split: tracks)
    same_rate = SimpleNamespace(config=SimpleNamespace(frame_rate=20.0))
    monkeypatch.setattr("longplay.train.build.load_tokenizer", lambda name: same_rate)
    overrides = [
        f"init={tmp_path}", "lm.text_vocab_size=400", "lm.codebook_size=16", "lm.code_rate=20", "lm.dim=16", "lm.num_layers=1",
        "lm.num_heads=2", "lm.num_kv_heads=1", "lm.intermediate_dim=24", "lm.context_frames=20", "row_positions=null", "batch_size=4",
    ]  # fmt: skip
    config = load_stage_config("base-pretrain", overrides)
    stage = build_stage(config, tmp_path, tmp_path / "run")
    assert isinstance(stage, LMStage)
    for name, value in lm.state_dict().items():
        if name.startswith(tuple(theirs)):
            assert torch.equal(stage.model.state_dict()[name], value), name
    assert not stage.batch(0, slice(None))["id_lengths"].any(), "codes alone"
    with pytest.raises(CheckpointError, match="has 284 ids, lm.text_vocab_size is 260; set it to the rows"):
        build_stage(
            load_stage_config("base-pretrain", [*overrides, "lm.text_vocab_size=260"]), tmp_path, tmp_path / "run"
        )
    with pytest.raises(CheckpointError, match="its num_layers is 1, the config's lm.num_layers 2; set lm.num_layers=1"):
        build_stage(load_stage_config("base-pretrain", [*overrides, "lm.num_layers=2"]), tmp_path, tmp_path / "run")
    with pytest.raises(
        ConfigError, match="lm.code_rate = 75: of the tokenizer's codes a second there are 20; set lm.code_rate=20"
    ):
        build_stage(load_stage_config("base-pretrain", [*overrides, "lm.code_rate=75"]), tmp_path, tmp_path / "run")
    same_rate.config.frame_rate = 86.1328125
    with pytest.raises(ConfigError, match=r"there are 86.1328125; set lm.code_rate=86.1328125"):
        build_stage(config, tmp_path, tmp_path / "run")
    same_rate.config.frame_rate = 20.0
    with pytest.raises(TrainingError, match="t0: has code 1[0-9], and lm.codebook_size is 8; set it to the size"):
        build_stage(load_stage_config("base-pretrain", [*overrides, "lm.codebook_size=8"]), tmp_path, tmp_path / "run")
    same_rate.config.frame_rate = 75.0
    with pytest.raises(CheckpointError, match="no such directory; give a model directory, 'nano' or a name on a hub"):
        build_stage(load_stage_config("base-finetune"), tmp_path, tmp_path / "run")


def test_a_flow_is_made_straight_along_more_steps_than_it_takes_afterwards() -> None:
    config = load_stage_config("nano-flow-reflow")
    assert isinstance(config, FlowStageConfig)
    assert config.reflow is not None
    assert config.reflow.num_steps is not None, "not nano's own, which is one"
    assert config.reflow.num_steps > config.flow.num_steps


def test_wrong_configs_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match="neither a preset nor a file; presets are 1.5b, 1.5b-finetune, 1.5b-pretrain, 1.5b-sft, base, base-finetune, base-pretrain, base-sft, nano-codec",
    ):
        load_stage_config("mega")
    path = tmp_path / "a.yaml"
    path.write_text("stage: vocoder\n")
    with pytest.raises(ConfigError, match="stage = 'vocoder'; use one of tokenizer, codec, lm, flow"):
        load_stage_config(str(path))
    with pytest.raises(ConfigError, match="unknown key 'loop.step'"):
        load_stage_config("nano-codec", ["loop.step=7"])


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("nano-tokenizer", ["adversarial.start_step=0"], "leave out adversarial, or spectrum"),
        ("nano-tokenizer-decoder", ["init=null"], "freeze_encoder = true: of a model that has learnt; set init to it"),
        ("nano-tokenizer", ["loop.steps=300"], "quantize_from_step = 300: the run ends after loop.steps = 300; set"),
        ("nano-codec-gan", ["adversarial.start_step=4000"], "adversarial.start_step = 4000: the run ends after"),
        ("nano-lm-heeding", ["loop.steps=300"], "plain_steps = 300 of loop.steps = 300: nothing is ever misheard"),
        ("nano-lm-heeding", ["loop.steps=300", "rearranged=0"], "nothing is ever misheard or rearranged"),
    ],
)
def test_what_would_never_come_to_pass_is_refused(preset: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_stage_config(preset, overrides)


def test_steps_may_be_plain_where_nothing_is_disturbed() -> None:
    load_stage_config("nano-lm-heeding", ["loop.steps=300", "rearranged=0", "misheard=0"])


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
