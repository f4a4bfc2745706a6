"""One update: rows of the batch -> losses -> gradients of all parts and processes -> clipped steps."""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from longplay.errors import TrainingError
from longplay.train.loop_config import LoopConfig
from longplay.train.optimizers import build_optimizers
from longplay.train.parallel import Parallel
from longplay.train.stage import Batch, Stage

SEEDS_APART = 1_000_003
_PROCESSES_APART = 1 << 40


class Updater:
    """Places a stage's modules on the device, builds their optimizers and applies updates.

    Attributes:
        optimizers: by name, for the checkpoint.
    """

    def __init__(self, stage: Stage, config: LoopConfig, parallel: Parallel) -> None:
        self.stage, self.config, self.parallel = stage, config, parallel
        self.rows = parallel.rows(stage.batch_size)
        self.forward = parallel.place(stage)
        self.modules = {"model": stage.model, **stage.others}
        self._of: dict[str, dict[str, torch.optim.Optimizer]] = {
            name: build_optimizers(
                module,
                stage.blocks if name == "model" else (),
                config if name == "model" else config.model_copy(update={"optimizer": "adamw"}),
                config.learning_rate if name == "model" else stage.learning_rates[name],
            )
            for name, module in self.modules.items()
            if name == "model" or name in stage.learning_rates
        }
        self.optimizers = {
            name if kind == "adamw" else f"{name}.{kind}": optimizer
            for name, kinds in self._of.items()
            for kind, optimizer in kinds.items()
        }

    def batches(self, first: int, last: int) -> Iterator[list[Batch]]:
        """This process's parts of the batches `first` to `last` - 1; `config.workers` threads work ahead."""
        steps = range(first, last)
        if not self.config.workers:
            yield from map(self._make, steps)
            return
        with ThreadPoolExecutor(self.config.workers, thread_name_prefix="batches") as pool:
            ahead: deque[Future[list[Batch]]] = deque()
            try:
                for step in steps:
                    ahead.append(pool.submit(self._make, step))
                    if len(ahead) > 2 * self.config.workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def update(self, step: int, parts: list[Batch] | None = None) -> dict[str, Tensor]:
        """Apply update `step`; returns metrics, scalars on the device, means over this process's rows.

        Args:
            step: its number, which seeds the random draws and sets the learning rate.
            parts: of `batches`; made here where they are not given.

        Raises:
            TrainingError: the loss or a gradient is not finite, be it that the batch is not; no weight was touched.
        """
        torch.manual_seed(self.config.seed * SEEDS_APART + step + self.parallel.rank * _PROCESSES_APART)
        for module in self.modules.values():
            module.train()
            module.zero_grad(set_to_none=True)
        loss: Tensor | None = None
        total: dict[str, Tensor] = {}
        parts = self._make(step) if parts is None else parts
        for number, part in enumerate(parts, 1):
            with self.parallel.gradients(complete=number == len(parts)):
                with self.parallel.autocast():
                    terms, metrics = self.forward(step, self.parallel.to_device(part))
                cost = torch.stack(list(terms.values())).sum() / len(parts)
                cost.backward()
            loss = cost.detach() if loss is None else loss + cost.detach()
            for name, value in metrics.items():
                total[name] = total[name] + value if name in total else value
        assert loss is not None
        norm = self._step(step, terms, loss, parts)
        return {name: value / len(parts) for name, value in total.items()} | {"norm": norm}

    def _step(self, step: int, learning: dict[str, Tensor], loss: Tensor, parts: list[Batch]) -> Tensor:
        norms = {name: _clip(self.modules[name], self.config.grad_clip) for name in learning}
        finite = float(torch.stack([loss, *norms.values()]).sum())  # the one wait for the device in an update
        if not math.isfinite(finite):
            values = ", ".join(f"gradient norm of {name} {float(norm):g}" for name, norm in norms.items())
            raise TrainingError(f"loss {float(loss):g}, {values}: not finite; {_remedy(parts)}")
        share = self.config.schedule(step)
        for name in learning:
            for optimizer in self._of[name].values():
                for group in optimizer.param_groups:
                    group["lr"] = optimizer.defaults["lr"] * share
                optimizer.step()
        return norms["model"]

    def _make(self, step: int) -> list[Batch]:
        return [self.stage.batch(step, rows) for rows in self.rows]


def _remedy(parts: list[Batch]) -> str:
    """What to do about a batch whose loss is not finite."""
    damaged = sorted({name for part in parts for name, value in part.items() if not value.isfinite().all()})
    if damaged:
        return (
            f"its batch is not either ({', '.join(damaged)}): mend what it was made from, or leave that out of --data"
        )
    return "its batch is: lower loop.learning_rate"


def _clip(module: nn.Module, largest: float) -> Tensor:
    norm = nn.utils.clip_grad_norm_(module.parameters(), largest)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
