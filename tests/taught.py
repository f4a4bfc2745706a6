"""A stage as a test trains it: some steps without a run directory, what it has learnt, and a run in one go and in parts."""

from pathlib import Path
from typing import Any

import torch

from longplay.train.loop import train
from longplay.train.parallel import Parallel
from longplay.train.update import Updater


@torch.inference_mode()
def held_out_loss(stage: Any) -> float:
    return stage.evaluate(stage.model)["loss"]


def learn(stage: Any, steps: int, **loop: Any) -> None:
    config = stage.config.loop.model_copy(update={"steps": 1000, "warmup_steps": 0, **loop})
    updater = Updater(stage, config, Parallel(config, Path("unused")))
    for step in range(steps):
        updater.update(step)


def check_resumes_exactly(build: Any, folder: Path) -> Any:
    """That four steps in one go and in two parts end in the same weights; returns the stage of the run in one go."""
    whole = build()
    train(whole, whole.config.loop, folder / "whole")
    first = build()
    assert train(first, first.config.loop, folder / "parts", budget_seconds=0.0) == 1
    second = build()
    assert train(second, second.config.loop, folder / "parts") == 4
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key
    return whole
