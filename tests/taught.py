"""A stage as a test trains it: some steps without a run directory, and what it has learnt."""

from pathlib import Path
from typing import Any

import torch

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
