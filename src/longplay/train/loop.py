"""The one training loop: resumable bit for bit, with a log, held-out loss, samples, and an averaged model to export.

Step n is a function of the state and n alone: its batch and its random draws are seeded by (seed, n). So a run that
was stopped, or killed and resumed from its last checkpoint, ends in exactly the weights of one that was not. With
another number of processes the batches stay the same and sums are rounded otherwise; models that draw noise or dropout
draw it anew in each process (docs/training.md says to what precision runs agree).

A run directory holds:

```
run.yaml          the stage's config          metrics.jsonl    one line a log or evaluation
starts.jsonl      code and data of each start curves.png       what the log says, as curves
checkpoint.pt     weights, optimizer, step    samples/<step>/  audio and pictures
tensorboard/      of the tracker              codes.png        of tokenizer and codec: use of the codebooks
tracker_id        at W&B, Trackio             model/           config.yaml + <stage>.safetensors: the averaged weights
```
"""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch

from longplay.errors import ConfigError, TrainingError
from longplay.train.average import Average
from longplay.train.checkpoint_file import resume, save, what_is_left
from longplay.train.log import Log
from longplay.train.loop_config import LoopConfig
from longplay.train.parallel import Parallel
from longplay.train.stage import Stage
from longplay.train.update import Updater

logger = logging.getLogger(__name__)


def train(
    stage: Stage,
    config: LoopConfig,
    run: Path,
    budget_seconds: float = math.inf,
    parallel: Parallel | None = None,
    begun: Callable[[], None] | None = None,
) -> int:
    """Train `stage` in the directory `run` until `config.steps`, the budget, or SIGINT/SIGTERM; resume what is there.

    Args:
        stage: what to train.
        config: how.
        run: its directory.
        budget_seconds: stop, resumably, after this time.
        parallel: the processes; default those that this one was started among.
        begun: called once what is there has been resumed, before the first step.

    Returns:
        The number of steps done in total.

    Raises:
        ConfigError: the config does not fit the machine or the number of processes, or more steps are done than it asks for.
        TrainingError: a value is not finite, a file cannot be written, another process died (the last checkpoint, if
            there is any, is intact), or the directory holds another run.
    """
    parallel = parallel or Parallel(config, run)
    with parallel.loss_of_a_process(run):
        try:
            return _train(stage, config, run, budget_seconds, parallel, begun)
        except OSError as error:
            name = error.filename or run
            raise TrainingError(f"{name}: {error.strerror}; {what_is_left(run)}") from None


def _train(
    stage: Stage,
    config: LoopConfig,
    run: Path,
    budget_seconds: float,
    parallel: Parallel,
    begun: Callable[[], None] | None,
) -> int:
    stage.model.to(parallel.device)
    average = Average(stage.model, config.ema_decay, keep=parallel.is_main)
    updater = Updater(stage, config, parallel)
    if parallel.sharded:
        average.shard(stage.model)
    first = resume(stage, updater, average, run)
    if first > config.steps:
        raise ConfigError(f"loop.steps = {config.steps}: {run} has done {first}; set loop.steps={first} or more")
    if begun is not None:
        begun()
    with _StopFlag() as stop:
        started = time.monotonic()
        log = Log(run, stage, parallel)
        logger.info("%s: steps %d to %d in %s", stage.name, first, config.steps, run)
        if config.phases != (asked := (config.warmup_steps, config.decay_steps)):
            logger.warning(
                "%d steps are fewer than warmup and decay (%d, %d), which take %d and %d of them now",
                *(config.steps, *asked, *config.phases),
            )
        timer, timed = time.monotonic(), first
        done = first
        for step, parts in enumerate(updater.batches(first, config.steps), first):
            try:
                metrics = updater.update(step, parts)
            except TrainingError as error:
                raise TrainingError(f"{stage.name} step {step}: {error}; {what_is_left(run)}") from None
            average.update(stage.model)
            done = step + 1
            if done % config.log_every == 0:
                values = parallel.mean(metrics)
                speed = (done - timed) / (time.monotonic() - timer)
                rate = config.learning_rate * config.schedule(step)
                log.write(done, {**values, "rate": rate, "steps_per_second": speed})
                timer, timed = time.monotonic(), done
            last = done == config.steps or parallel.any(stop.requested or time.monotonic() - started > budget_seconds)
            if done % config.save_every == 0 or last:
                save(stage, updater, average, run, done)
            if done % config.evaluate_every == 0 or last:
                average.gather(stage.model)
                if average.model is not None:
                    _evaluate(stage, average, run, done, log)
                parallel.wait()
                timer, timed = time.monotonic(), done
            if last:
                break
        log.close()
    return done


def _evaluate(stage: Stage, average: Average, run: Path, done: int, log: Log) -> None:
    assert average.model is not None
    model = average.model.eval()
    with torch.inference_mode():
        log.write(done, {f"held_out_{name}": value for name, value in stage.evaluate(model).items()})
        stage.sample(model, run / "samples" / f"{done:07d}")
    stage.report(run)
    stage.export(model, run / "model")
    log.draw()


class _StopFlag:
    """True once SIGINT or SIGTERM came, within its block; a second signal acts as usual. Only a main thread hears signals."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        logger.info("stopping after this step")
        self.requested = True
        signal.signal(number, signal.SIG_DFL)
