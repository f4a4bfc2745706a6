"""What a training run will need, measured on a few of its own steps."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from longplay.engine.memory import PeakMemory
from longplay.train.average import learning
from longplay.train.lm_stage import LMStage
from longplay.train.loop_config import LoopConfig
from longplay.train.parallel import Parallel
from longplay.train.update import Updater

_BYTES_OF_AVERAGE = 4


@dataclass(frozen=True)
class Estimate:
    """What training needs.

    Attributes:
        parameters, learning: weights of the model, and how many of them (or beside them) learn.
        step_seconds, evaluation_seconds: of one step and of one evaluation.
        memory: bytes of this process, on a GPU bytes of the device.
        free: bytes that this machine, or the device, has left for it.
        device: cpu, cuda or mps.
    """

    parameters: int
    learning: int
    step_seconds: float
    evaluation_seconds: float
    memory: float
    free: float
    device: str

    def seconds(self, loop: LoopConfig, done: int = 0) -> float:
        """Of the run from step `done` on."""
        steps = loop.steps - done
        evaluations = -(-loop.steps // loop.evaluate_every) - done // loop.evaluate_every
        return steps * self.step_seconds + evaluations * self.evaluation_seconds


def estimate(stage: LMStage, loop: LoopConfig, run: Path) -> Estimate:
    """Try a few steps and an evaluation of `stage`, whose weights are then of no further use."""
    parallel = Parallel(loop.model_copy(update={"trackers": ()}), run)
    device = parallel.device
    free = _free(device)
    with PeakMemory(device) as peak:
        updater = Updater(stage, loop, parallel)
        for step in (0, 1):  # whatever happens only once happens here
            updater.update(step)
        _wait(device)
        started = time.perf_counter()
        for step in (2, 3):  # a window and, where there are any, openings
            updater.update(step)
        _wait(device)
        step_seconds = (time.perf_counter() - started) / 2
        learnt = sum(parameter.numel() for parameter in learning(stage.model).values())
        started = time.perf_counter()
        with torch.inference_mode():
            stage.evaluate(stage.model.eval())
        _wait(device)
        evaluation_seconds = time.perf_counter() - started
    return Estimate(
        parameters=sum(parameter.numel() for parameter in stage.model.parameters()),
        learning=learnt,
        step_seconds=step_seconds,
        evaluation_seconds=evaluation_seconds,
        memory=peak.bytes + _BYTES_OF_AVERAGE * learnt,
        free=free,
        device=device.type,
    )


def _free(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    import psutil  # Accelerate brings it

    own = 0 if device.type == "mps" else psutil.Process().memory_info().rss  # the peak counts what there is already
    return float(psutil.virtual_memory().available + own)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
