"""LoRA in stage `lm`: what learns, what is kept, what comes out."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from longplay.checkpoint.adapter import AdapterConfig, load_adapter
from longplay.checkpoint.store import load_weights
from longplay.checkpoint.system import load_system
from longplay.errors import ConfigError, TrainingError
from longplay.models.lm import LM
from longplay.train.average import Average, learning
from longplay.train.build import _start_from
from longplay.train.lm_stage import LMStage
from longplay.train.loop import train
from longplay.train.lora import LoRAConfig, add_lora, check_lora, lora_tensors, merged
from longplay.train.parallel import Parallel
from longplay.train.update import Updater

LORA = LoRAConfig(rank=4, alpha=8)


@pytest.fixture
def base(lm_stage: Any, tmp_path: Path) -> Path:
    stage = lm_stage()
    learn(stage, 40)
    stage.export(stage.model, tmp_path / "base/model")
    return tmp_path / "base/model"


@pytest.fixture
def lora_stage(lm_stage: Any, base: Path) -> Any:
    def build(lora: LoRAConfig = LORA, **changes: Any) -> LMStage:
        stage: LMStage = lm_stage(lora=lora, init=base, **changes)
        config = AdapterConfig(base="base", base_digest=load_system(base).lm_digest, rank=lora.rank, alpha=lora.alpha)
        stage.adapter = config
        _start_from(stage, base)
        add_lora(stage.model, lora)
        return stage

    return build


def learn(stage: LMStage, steps: int, **loop: Any) -> None:
    config = stage.config.loop.model_copy(update={"steps": 1000, "warmup_steps": 0, "learning_rate": 2e-2, **loop})
    updater = Updater(stage, config, Parallel(config, Path("unused")))
    for step in range(steps):
        updater.update(step)
    stage.model.eval()


@torch.inference_mode()
def held_out_loss(stage: LMStage) -> float:
    return stage.evaluate(stage.model.eval())["loss"]


@torch.inference_mode()
def states(model: LM) -> torch.Tensor:
    return model(torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_the_pairs_learn_and_they_start_without_effect(lora_stage: Any, base: Path, optimizer: str) -> None:
    stage = lora_stage()
    plain = load_system(base).lm
    assert plain is not None
    torch.testing.assert_close(states(stage.model.eval()), states(plain))
    assert len(learning(stage.model)) == 2 * 7
    learn(stage, 30, optimizer=optimizer)
    assert not torch.allclose(states(stage.model), states(plain))
    weights = load_weights(base, "lm")
    for name, value in stage.model.state_dict().items():
        if ".lora_" not in name:
            assert torch.equal(value, weights[name.replace(".base_layer", "")]), name
        else:
            assert value.abs().sum() > 0, name


def test_it_learns_the_music(lora_stage: Any) -> None:
    stage = lora_stage()
    first = held_out_loss(stage)
    learn(stage, 150)
    assert held_out_loss(stage) < 0.8 * first


def test_merged_and_exported_compute_what_training_does(lora_stage: Any, base: Path, tmp_path: Path) -> None:
    stage = lora_stage()
    learn(stage, 20)
    expected = states(stage.model)
    torch.testing.assert_close(states(merged(stage.model, LORA)), expected)
    stage.export(stage.model, tmp_path / "run/model")
    adapter = load_adapter(tmp_path / "run/model")
    assert adapter.tensors.keys() == lora_tensors(stage.model).keys()
    opened = load_system(base, adapter=adapter).lm
    assert opened is not None
    torch.testing.assert_close(states(opened), expected)
    # cached decoding, which is what generation does, hears the change too
    inputs = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        made = opened.decoder()(inputs, opened.cache(1, 8))
        torch.testing.assert_close(made, stage.model(inputs), atol=1e-5, rtol=1e-4)


def test_samples_are_of_the_changed_model(lora_stage: Any, tmp_path: Path) -> None:
    first, changed = lora_stage(), lora_stage()
    learn(changed, 60, learning_rate=0.1)
    for stage, name in ((first, "first"), (changed, "changed")):
        with torch.inference_mode():
            stage.sample(stage.model.eval(), tmp_path / name)
    assert (tmp_path / "first/0.wav").read_bytes() != (tmp_path / "changed/0.wav").read_bytes()
    lora_stage(sample_seconds=0.0).sample(first.model, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_resumed_equals_uninterrupted_and_the_checkpoint_is_small(lora_stage: Any, tmp_path: Path) -> None:
    lora = LoRAConfig(rank=4, alpha=8, dropout=0.3)
    whole = lora_stage(lora)
    train(whole, whole.config.loop, tmp_path / "whole")
    first = lora_stage(lora)
    assert train(first, first.config.loop, tmp_path / "parts", budget_seconds=0.0) == 1
    second = lora_stage(lora)
    assert train(second, second.config.loop, tmp_path / "parts") == 4
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key
    a, b = (load_adapter(tmp_path / run / "model").tensors for run in ("whole", "parts"))
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    state = torch.load(tmp_path / "parts/checkpoint.pt", weights_only=True)
    for part in ("model", "average"):
        assert len(state[part]) == 14
        assert all(".lora_" in name for name in state[part])


def test_another_base_is_noticed_when_a_run_goes_on(lora_stage: Any, tmp_path: Path) -> None:
    first = lora_stage()
    train(first, first.config.loop, tmp_path / "run", budget_seconds=0.0)
    second = lora_stage()
    with torch.no_grad():
        second.model.audio_embedding.weight[3, 4] += 0.01
    with pytest.raises(TrainingError, match="the weights that it started from are others now"):
        train(second, second.config.loop, tmp_path / "run")


def test_the_average_shares_what_does_not_learn(lora_stage: Any) -> None:
    stage = lora_stage()
    average = Average(stage.model, 0.5, keep=True)
    assert average.model is not None
    learn(stage, 3)
    average.update(stage.model)
    theirs = dict(stage.model.named_parameters())
    for name, mine in average.model.named_parameters():
        assert (mine is theirs[name]) == (".lora_" not in name)
        if ".lora_B." in name:
            assert 0 < mine.abs().sum() < theirs[name].abs().sum()


def test_the_best_evaluation_is_kept(lora_stage: Any, tmp_path: Path) -> None:
    stage = lora_stage(keep_best=True)
    with torch.inference_mode():
        stage.evaluate(stage.model.eval())
        stage.export(stage.model, tmp_path / "run/model")
        first = (tmp_path / "run/model/adapter.safetensors").read_bytes()
    for parameter in learning(stage.model).values():
        torch.nn.init.normal_(parameter)
    with torch.inference_mode():
        worse = stage.evaluate(stage.model)
        stage.export(stage.model, tmp_path / "run/model")
        assert (tmp_path / "run/model/adapter.safetensors").read_bytes() == first
        stage._measured = worse | {"loss": 0.0}
        stage.export(stage.model, tmp_path / "run/model")
    assert (tmp_path / "run/model/adapter.safetensors").read_bytes() != first


def test_other_music_is_measured_too(lora_stage: Any, tracks: Any) -> None:
    stage = lora_stage()
    kept = LMStage(stage.config, stage.tokenizer, stage.text, tracks, tracks, tracks)
    with torch.inference_mode():
        metrics = kept.evaluate(kept.model.eval())
        assert metrics["kept_loss"] == metrics["loss"]
        assert "kept_loss" not in stage.evaluate(stage.model)


def test_what_is_wrong_is_named(lm_stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="lora and text = init need the model to start from: set init"):
        type(lm_stage().config).parse(lm_stage().config.dump() | {"lora": {"rank": 2}})
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'longplay\[finetune\]', or train all weights: --full"):
        check_lora()
