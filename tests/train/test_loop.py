import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from longplay.errors import TrainingError
from longplay.train.audio_stage import AudioStage, AudioStageConfig
from longplay.train.loop import LoopConfig, train


def config(steps: int, **changes: Any) -> AudioStageConfig:
    spectral = {"kind": "spectral", "n_fft": 64, "dim": 16, "intermediate_dim": 24, "num_layers": 1}
    data = {
        "stage": "tokenizer",
        "tokenizer": {
            "sample_rate": 8000,
            "hop_length": 32,
            "latent_dim": 8,
            "codebook": {"size": 64, "dim": 4},
            "encoder": spectral,
            "decoder": spectral,
        },
        "batch_size": 4,
        "quantize_from_step": 2,
        "crop_seconds": 0.1,
        "held_out_crops": 4,
        "held_out_seconds": 0.5,
        "loss": {"n_ffts": [64, 128]},
        "loop": {
            "steps": steps,
            "warmup_steps": 2,
            "decay_steps": 1,
            "save_every": 3,
            "evaluate_every": 6,
            "log_every": 1,
        },
    }
    return AudioStageConfig.parse(data | changes)


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[Path, float]]:
    time = np.arange(16000) / 8000
    wav = sum(np.sin(2 * np.pi * f * time) * (0.2 + 0.1 * np.sin(3 * time)) for f in (220, 330, 880))
    path = tmp_path / "tone.wav"
    sf.write(path, wav.astype(np.float32), 8000)
    return [(path, 2.0)]


def stage(steps: int, files: list[tuple[Path, float]], **changes: Any) -> AudioStage:
    torch.manual_seed(0)
    return AudioStage(config(steps, **changes), files, files)


GAN = {"adversarial": {"start_step": 2, "discriminators": {"periods": [2], "n_ffts": [64], "channels": 4}}}


@pytest.mark.parametrize("changes", [{}, GAN], ids=["plain", "gan"])
def test_resumed_equals_uninterrupted_bit_for_bit(files: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = stage(6, files, **changes)
    assert train(whole, whole.config.loop, tmp_path / "whole") == 6

    first = stage(6, files, **changes)
    assert train(first, first.config.loop, tmp_path / "parts", budget_seconds=0.0) == 1
    second = stage(6, files, **changes)
    assert train(second, second.config.loop, tmp_path / "parts") == 6
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    a, b = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("whole", "parts"))
    assert all(torch.equal(value, b["average"][name]) for name, value in a["average"].items())


def test_a_run_leaves_log_samples_and_model(files: Any, tmp_path: Path) -> None:
    run = stage(6, files)
    train(run, run.config.loop, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "mel" in line] == [1, 2, 3, 4, 5, 6]
    assert {"held_out_mel", "held_out_usage", "held_out_perplexity"} <= lines[-1].keys()
    assert (tmp_path / "run/samples/0000006/0.wav").exists()
    assert (tmp_path / "run/samples/0000006/0.png").exists()
    assert (tmp_path / "run/model/tokenizer.safetensors").exists()


def test_it_learns_one_batch(files: Any, tmp_path: Path) -> None:
    run = stage(1, files)
    loop = run.config.loop
    losses = [run.train_step(0, 3e-3)["mel"] for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    assert loop.steps == 1


def test_a_value_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(files: Any, tmp_path: Path) -> None:
    good = stage(3, files)
    train(good, good.config.loop, tmp_path / "run")
    before = (tmp_path / "run/checkpoint.pt").read_bytes()
    bad = stage(6, files)
    bad.reconstruction.forward = lambda *_: {"mel": sum(p.sum() for p in bad.model.parameters()) * float("nan")}  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="step 3.*not finite.*intact"):
        train(bad, bad.config.loop, tmp_path / "run")
    assert (tmp_path / "run/checkpoint.pt").read_bytes() == before


def test_a_directory_of_another_run_is_refused(files: Any, tmp_path: Path) -> None:
    run = stage(3, files)
    train(run, run.config.loop, tmp_path / "run")
    other = stage(3, files, tokenizer=config(1).tokenizer.dump() | {"latent_dim": 6})  # type: ignore[union-attr]
    with pytest.raises(TrainingError, match="does not fit this config"):
        train(other, other.config.loop, tmp_path / "run")
    run.name = "codec"  # type: ignore[assignment]
    with pytest.raises(TrainingError, match="holds a run of stage 'tokenizer', not 'codec'"):
        train(run, run.config.loop, tmp_path / "run")


def test_learning_rate_warms_up_holds_and_decays() -> None:
    loop = LoopConfig(steps=100, learning_rate=1.0, warmup_steps=10, decay_steps=20)
    assert loop.rate(0) == pytest.approx(0.1)
    assert loop.rate(50) == 1.0
    assert loop.rate(90) == pytest.approx(0.5)
    assert loop.rate(99) < 0.01
