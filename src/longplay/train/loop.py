"""The one training loop: resumable bit for bit, with a log, held-out loss, samples, and an averaged model to export.

Step n is a function of the state and n alone: its batch and its random draws are seeded by (seed, n). So a run that
was stopped, or killed and resumed from its last checkpoint, ends in exactly the weights of one that was not.

A run directory holds:

```
run.yaml          the stage's config          metrics.jsonl   one line a log or evaluation
checkpoint.pt     weights, optimizer, step    samples/<step>/ audio and pictures
model/            config.yaml + <stage>.safetensors: the averaged weights
```
"""

import copy
import json
import logging
import math
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from longplay.config import Config
from longplay.errors import TrainingError

logger = logging.getLogger(__name__)


class LoopConfig(Config):
    """Length, optimizer and bookkeeping of a run. `decay_steps` is how long the cosine decay at the end takes."""

    steps: int = Field(gt=0)
    seed: int = 0
    learning_rate: float = Field(default=5e-4, gt=0)
    warmup_steps: int = Field(default=200, ge=0)
    decay_steps: int = Field(default=1000, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.01, ge=0)
    grad_clip: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    log_every: int = Field(default=20, gt=0)
    evaluate_every: int = Field(default=500, gt=0)
    save_every: int = Field(default=200, gt=0)

    def rate(self, step: int) -> float:
        """Learning rate of `step`: linear warmup, constant, cosine decay to zero over the last `decay_steps`."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = min(1.0, (self.steps - step) / max(1, self.decay_steps))
        return self.learning_rate * warm * 0.5 * (1 - math.cos(math.pi * left))


class Stage(Protocol):
    """What a stage gives to the loop."""

    @property
    def name(self) -> str:
        """`tokenizer`, `codec`, `lm` or `flow`."""

    @property
    def model(self) -> nn.Module:
        """The module that is averaged and exported."""

    @property
    def others(self) -> nn.ModuleDict:
        """Further modules with state, e.g. discriminators; empty if none."""

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By name; they are saved with the run."""

    def train_step(self, step: int, rate: float) -> dict[str, float]:
        """One update at learning rate `rate`; metrics to log."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Held-out metrics of the averaged `model`; must not depend on global random state."""

    def sample(self, model: nn.Module, directory: Path) -> None:
        """Write audio and pictures of the averaged `model`."""

    def export(self, model: nn.Module, directory: Path) -> None:
        """Write the averaged `model` as a native model directory."""


def adamw(module: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only, fused where the device has it."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def update(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, grad_clip: float) -> float:
    """Backward, clip, step; returns the gradient norm.

    Raises:
        TrainingError: the loss or the gradient is not finite; no weight was touched.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(parameters, grad_clip))
    if not math.isfinite(norm) or not math.isfinite(float(loss.detach())):
        raise TrainingError(
            f"loss {float(loss.detach()):g}, gradient norm {norm:g}: not finite; lower the learning rate"
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return norm


def autocast(config: LoopConfig) -> torch.autocast:
    """The context of the forward pass: bfloat16 where the config asks for it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16")


def train(stage: Stage, config: LoopConfig, run: Path, budget_seconds: float = math.inf) -> int:
    """Train `stage` in the directory `run` until `config.steps`, the budget, or SIGINT/SIGTERM; resume what is there.

    Returns:
        The number of steps done in total.

    Raises:
        TrainingError: a value is not finite (the last checkpoint is intact) or the directory holds another run.
    """
    run.mkdir(parents=True, exist_ok=True)
    average = _Average(stage.model, config.ema_decay)
    first = _resume(stage, average, run)
    stop = _StopFlag()
    started = time.monotonic()
    logger.info("%s: steps %d to %d in %s", stage.name, first, config.steps, run)
    timer = time.monotonic()
    step = first
    for step in range(first, config.steps):
        torch.manual_seed(config.seed * 1_000_003 + step)
        stage.model.train()
        try:
            metrics = stage.train_step(step, config.rate(step))
        except TrainingError as error:
            raise TrainingError(f"{stage.name} step {step}: {error}; the last checkpoint in {run} is intact") from None
        average.update(stage.model)
        done = step + 1
        if done % config.log_every == 0:
            speed = config.log_every / (time.monotonic() - timer)
            _log(run, {"step": done, **metrics, "rate": config.rate(step), "steps_per_second": speed})
            timer = time.monotonic()
        last = done == config.steps or stop.requested or time.monotonic() - started > budget_seconds
        if done % config.save_every == 0 or last:
            _save(stage, average, run, done)
        if done % config.evaluate_every == 0 or last:
            model = average.model.eval()
            with torch.inference_mode():
                _log(run, {"step": done, **{f"held_out_{k}": v for k, v in stage.evaluate(model).items()}})
                stage.sample(model, run / "samples" / f"{done:07d}")
            stage.export(model, run / "model")
            timer = time.monotonic()
        if last:
            return done
    return config.steps


class _Average:
    """Exponential moving average of the parameters, with a short warmup; buffers are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.count += 1
        decay = min(self.decay, self.count / (self.count + 10))
        own: list[Tensor] = list(self.model.parameters())
        new: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(own, new, 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)


class _StopFlag:
    """True once SIGINT or SIGTERM came; a second signal acts as usual."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        logger.info("stopping after this step")
        self.requested = True
        signal.signal(number, signal.SIG_DFL)


def _save(stage: Stage, average: _Average, run: Path, step: int) -> None:
    state = {
        "stage": stage.name,
        "step": step,
        "model": stage.model.state_dict(),
        "others": {name: module.state_dict() for name, module in stage.others.items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in stage.optimizers.items()},
        "average": average.model.state_dict(),
        "average_count": average.count,
    }
    part = run / "checkpoint.pt.part"
    try:
        torch.save(state, part)
        part.replace(run / "checkpoint.pt")
    except OSError as error:
        raise TrainingError(
            f"{run / 'checkpoint.pt'}: cannot be written ({error.strerror}); the last one is kept"
        ) from None


def _resume(stage: Stage, average: _Average, run: Path) -> int:
    path = run / "checkpoint.pt"
    if not path.exists():
        return 0
    state: dict[str, Any] = torch.load(path, weights_only=True, mmap=True)
    if state["stage"] != stage.name:
        raise TrainingError(
            f"{run}: holds a run of stage {state['stage']!r}, not {stage.name!r}; give another directory"
        )
    try:
        stage.model.load_state_dict(state["model"])
        for name, module in stage.others.items():
            if name in state["others"]:  # a part that the config has since gained starts afresh
                module.load_state_dict(state["others"][name])
        average.model.load_state_dict(state["average"])
        for name, optimizer in stage.optimizers.items():
            if name in state["optimizers"]:
                optimizer.load_state_dict(state["optimizers"][name])
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise TrainingError(
            f"{run}: its checkpoint does not fit this config ({reason}); give another directory"
        ) from None
    average.count = state["average_count"]
    return int(state["step"])


def _log(run: Path, record: dict[str, float]) -> None:
    rounded = {key: float(f"{value:.6g}") for key, value in record.items()}
    logger.info("%s", "  ".join(f"{key} {value:g}" for key, value in rounded.items()))
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": round(time.time(), 1), **rounded}) + "\n")
