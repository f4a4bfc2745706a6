"""The processes of a run, through Accelerate: one on a CPU or GPU, several by `torchrun` or `accelerate launch`.

Every update has one batch, whatever the number of processes: process r of W computes rows r B/W to (r + 1) B/W of it,
in `accumulate` parts. So a run gives the same weights, up to rounding, however it is spread over
processes (`nn/whole_batch.py`), and with few exceptions also however many parts there are (docs/training.md).
"""

import contextlib
import datetime
import functools
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from longplay.errors import ConfigError, TrainingError
from longplay.nn.processor import has_bfloat16
from longplay.train.loop_config import LoopConfig
from longplay.train.stage import Batch, Losses, Stage

# the first process evaluates and writes while the others wait for it
PATIENCE = datetime.timedelta(hours=1)

Forward = Callable[[int, Batch], Losses]


class Parallel:
    """This process among those of the run: `device`, `rank`, `processes`, `is_main`.

    Args:
        config: of the loop.
        run: the run directory, where trackers write.

    Raises:
        ConfigError: Accelerate, a tracker or the device is missing.
    """

    def __init__(self, config: LoopConfig, run: Path) -> None:
        try:
            from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
            from accelerate.utils import ProjectConfiguration
        except ImportError:
            raise ConfigError(
                "training needs the package accelerate; install it with: pip install 'longplay[train]'"
            ) from None
        for name in config.trackers:  # Accelerate goes on without
            if importlib.util.find_spec(name) is None:
                raise ConfigError(f"loop.trackers: {name} is not installed; `pip install {name}`, or leave it out")
        self.config = config
        self._ddp = DistributedDataParallelKwargs()
        try:
            self.accelerator = Accelerator(
                cpu=config.device == "cpu" or not torch.accelerator.is_available(),  # else gloo is not asked for
                log_with=list(config.trackers) or None,
                project_config=ProjectConfiguration(str(run), logging_dir=str(run / "tensorboard")),
                kwargs_handlers=[self._ddp, InitProcessGroupKwargs(timeout=PATIENCE)],
            )
        except (ImportError, ValueError) as error:
            raise ConfigError(f"loop: {' '.join(str(error).split())}") from None
        self.device = self.accelerator.device
        if config.device not in ("auto", self.device.type):
            raise ConfigError(
                f"loop.device = {config.device!r}: this machine has none; use auto, which finds {self.device}"
            )
        self.rank = self.accelerator.process_index
        self.processes = self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.sharded = config.shard or self.accelerator.distributed_type.value == "FSDP"
        self._root: Any = None

    def rows(self, batch_size: int) -> list[slice]:
        """The rows of a batch that this process computes, in parts.

        Raises:
            ConfigError: the batch cannot be divided.
        """
        parts = self.processes * self.config.accumulate
        if batch_size % parts:
            raise ConfigError(
                f"batch_size = {batch_size}: is no multiple of {parts} "
                f"({self.processes} processes, loop.accumulate {self.config.accumulate}); change one of them"
            )
        size, first = batch_size // parts, self.rank * self.config.accumulate
        return [slice(size * part, size * (part + 1)) for part in range(first, first + self.config.accumulate)]

    def place(self, stage: Stage) -> Forward:
        """Move the stage's modules to the device and spread them; returns what computes the losses of a batch.

        Raises:
            ConfigError: the stage cannot be sharded.
        """
        if self.config.checkpoint_activations:
            for block in stage.blocks:
                block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        if self.config.compile:
            for block in stage.blocks:
                block.compile()
        root = _Forward(stage).to(self.device)
        if self.sharded:
            _shard(root, stage, self.device, self.processes)
        elif self.processes > 1:
            self._ddp.find_unused_parameters = stage.partial_gradients
            root = self.accelerator.prepare_model(root)
        self._root = root
        return root

    def autocast(self) -> torch.autocast:
        """The context of the forward pass, in the precision that the config asks for."""
        asked = self.config.precision
        half = has_bfloat16(self.device) if asked == "auto" else asked == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    @contextlib.contextmanager
    def gradients(self, complete: bool) -> Iterator[None]:
        """Around forward and backward: sum gradients over processes only if this is the last part of the batch."""
        if self.processes == 1:
            yield
        elif self.sharded:
            self._root.set_requires_gradient_sync(complete)
            yield
        else:
            with contextlib.nullcontext() if complete else self._root.no_sync():
                yield

    def to_device(self, batch: Batch) -> Batch:
        """The batch where the model is."""
        if self.device.type == "cpu":
            return batch
        if self.device.type == "cuda":
            return {name: value.pin_memory().to(self.device, non_blocking=True) for name, value in batch.items()}
        return {name: value.to(self.device) for name, value in batch.items()}

    def mean(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        """Mean of scalars over all processes."""
        if not metrics:
            return {}
        values = torch.stack([value.detach().float() for value in metrics.values()])
        if self.processes > 1:
            values = self.accelerator.reduce(values, "mean")
        return dict(zip(metrics, values.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        if self.processes == 1:
            return flag
        flags = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags)

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def loss_of_a_process(self, run: Path) -> Iterator[None]:
        """Turn what a process sees when another one has died into a clear error."""
        try:
            yield
        except RuntimeError as error:
            lost = isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "peer"))
            if self.processes == 1 or not lost:
                raise
            raise TrainingError(
                f"process {self.rank} of {self.processes} lost another one ({' '.join(str(error).split())[:120]}); "
                f"the last checkpoint in {run} is intact, start the run again"
            ) from None


class _Forward(nn.Module):
    """The losses of a stage as a module's forward pass: what DDP and FSDP put their hooks on."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.model, self.others = stage.model, stage.others
        self._losses = stage.losses

    def forward(self, step: int, batch: Batch) -> Losses:
        return self._losses(step, batch)


def _shard(root: nn.Module, stage: Stage, device: torch.device, processes: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if stage.partial_gradients:
        raise ConfigError(f"loop.shard = true: stage {stage.name} is small and not sharded; leave it out")
    if processes == 1:
        raise ConfigError("loop.shard = true: there is one process; start several with torchrun or accelerate launch")
    if not all(parameter.requires_grad for parameter in root.parameters()):
        raise ConfigError(
            "loop.shard = true: part of the weights does not learn (lora), which is not sharded; leave it out"
        )
    mesh = init_device_mesh(device.type, (processes,))
    units: Sequence[nn.Module] = [*stage.blocks, root]
    for unit in units:
        fully_shard(unit, mesh=mesh)
