"""What a run is told about its length, its optimizer, its processes and its log."""

import math
from typing import Literal

from pydantic import Field

from longplay.config import Config

Tracker = Literal["tensorboard", "trackio", "wandb"]


class LoopConfig(Config):
    """Length, optimizer, parallelism and bookkeeping of a run; the same on every device and number of processes.

    Attributes:
        warmup_steps, decay_steps: how long the rate rises at the beginning, and falls at the end; in proportion less where `steps`
            are fewer than both, so that a short run reaches the full rate, too (`phases`).
        optimizer: `muon` takes the matrices of the repeated blocks, AdamW all the rest.
        muon_learning_rate: peak rate of Muon, which is scaled to move weights as far as AdamW would; None: the same.
        accumulate: parts that each process computes its rows of a batch in, one after the other; saves memory.
            Codebooks then move once for each part, and `steadiness` is of a part.
        shard: spread weights, gradients and optimizer state over the processes (FSDP); lm and flow only.
        checkpoint_activations: compute the blocks again in the backward pass instead of keeping their activations.
        precision: of matrix products; `auto` is bfloat16 where the device has instructions for it, else float32. Elsewhere torch
            converts, and a step of a GAN took nine times as long.
        compile: `torch.compile` the blocks; pays after minutes.
        device: `auto` is a GPU where there is one.
        workers: threads that prepare the batches to come; 0: each batch is made when it is needed.
        trackers: where metrics go besides `metrics.jsonl`.
    """

    steps: int = Field(gt=0)
    seed: int = 0
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=5e-4, gt=0)
    muon_learning_rate: float | None = Field(default=None, gt=0)
    warmup_steps: int = Field(default=200, ge=0)
    decay_steps: int = Field(default=1000, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.01, ge=0)
    grad_clip: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    accumulate: int = Field(default=1, gt=0)
    shard: bool = False
    checkpoint_activations: bool = False
    compile: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    workers: int = Field(default=0, ge=0)
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    log_every: int = Field(default=20, gt=0)
    evaluate_every: int = Field(default=500, gt=0)
    save_every: int = Field(default=200, gt=0)

    @property
    def phases(self) -> tuple[int, int]:
        """Steps of warmup and of decay as they are in this run."""
        fit = min(1.0, self.steps / max(1, self.warmup_steps + self.decay_steps))
        return int(self.warmup_steps * fit), int(self.decay_steps * fit)

    def schedule(self, step: int) -> float:
        """Share of the peak learning rate at `step`: linear warmup, constant, cosine decay to 0."""
        warmup, decay = self.phases
        warm = min(1.0, (step + 1) / max(1, warmup))
        left = min(1.0, (self.steps - step) / max(1, decay))
        return warm * 0.5 * (1 - math.cos(math.pi * left))
