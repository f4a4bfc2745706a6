"""Training on a cluster: `train_run` in the workers of Ray Train, which places them on machines and joins them in a group.

Accelerate takes the group as it takes torchrun's, so the config, the batches and the weights are the same. Every machine
needs the same paths (a shared disk), as with torchrun: the first worker writes the run directory, all resume from it.
"""

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from longplay.data.cluster import find_ray, join_cluster
from longplay.errors import ConfigError, LongplayError, TrainingError
from longplay.train.build import StageConfig
from longplay.train.checkpoint_file import what_is_left
from longplay.train.parallel import PATIENCE
from longplay.train.run import train_run

logger = logging.getLogger(__name__)

# of Ray's own bookkeeping, beneath the run directory and only during a run
_FOLDER = "ray"


class _Mailbox:
    """An actor that keeps what the workers have to say: Ray gives their exceptions to nobody as they were."""

    def __init__(self) -> None:
        self.steps = 0
        self.errors: list[LongplayError] = []
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def said(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def done(self, steps: int) -> None:
        self.steps = steps

    def failed(self, error: LongplayError) -> None:
        self.errors.append(error)

    def read(self) -> tuple[int, list[LongplayError]]:
        return self.steps, self.errors


def train_on_ray(
    config: StageConfig,
    data: Path | str,
    run: Path,
    workers: int,
    budget_seconds: float,
    threads: int | None = None,
    address: str | None = None,
) -> int:
    """`train_run` in `workers` processes of a Ray cluster; returns the number of steps done in total.

    A process is given a GPU where the cluster has any and `loop.device` is not `cpu`.

    Args:
        config, data, run, budget_seconds: of `train_run`.
        workers: processes over the whole cluster.
        threads: CPU threads of each; default: a fair share of this machine's.
        address: see `join_cluster`.

    Raises:
        UserError: Ray is not installed.
        ConfigError: the cluster is too small.
        CheckpointError, ConfigError, TrainingError: see `train_run`; also when a worker died.
    """
    ray = find_ray()
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    join_cluster(workers, address)
    lent = ray.cluster_resources()
    kind = "GPU" if config.loop.device != "cpu" and lent.get("GPU", 0) else "CPU"
    if lent.get(kind, 0) < workers:
        raise ConfigError(f"--workers {workers}: the cluster has {lent.get(kind, 0):g} {kind}s; start fewer")
    mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
    run = run.resolve()
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "call": (config, data if "://" in str(data) else Path(data).resolve(), run, budget_seconds),
            "folder": Path.cwd(),
            "threads": threads or max(1, (os.cpu_count() or 1) // workers),
            "mailbox": mailbox,
        },
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=kind == "GPU"),
        torch_config=TorchConfig(timeout_s=round(PATIENCE.total_seconds())),
        run_config=RunConfig(name=f"start-{time.time_ns()}", storage_path=str(run / _FOLDER)),
    )
    failure: Exception | None = None
    try:
        with _heard(mailbox):
            trainer.fit()
    except TrainingFailedError as error:
        failure = error
    finally:
        shutil.rmtree(run / _FOLDER, ignore_errors=True)
    steps, errors = ray.get(mailbox.read.remote())
    if errors:
        # what went wrong, rather than that the others then missed the one where it did
        raise min(errors, key=lambda error: "lost another one" in str(error))
    if failure is not None:
        logger.error("%s", failure)
        raise TrainingError(f"a worker of the cluster died; {what_is_left(run)}, start the run again")
    return int(steps)


@contextmanager
def _heard(mailbox: Any) -> Iterator[None]:
    """Log here what the workers log, while the block runs."""
    ray, over = find_ray(), threading.Event()

    def listen() -> None:
        last = False
        while not last:
            last = over.wait(1.0)
            for line in ray.get(mailbox.said.remote()):
                logger.info("%s", line)

    thread = threading.Thread(target=listen, name="log-of-workers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _ToMailbox(logging.Handler):
    def __init__(self, mailbox: Any) -> None:
        super().__init__()
        self.mailbox = mailbox

    def emit(self, record: logging.LogRecord) -> None:
        self.mailbox.say.remote(self.format(record))


def _work(given: dict[str, Any]) -> None:
    """One worker: like a process that torchrun has started."""
    ray = find_ray()
    os.chdir(given["folder"])
    torch.set_num_threads(given["threads"])
    own = logging.getLogger("longplay")
    own.setLevel(logging.INFO)
    own.handlers = [_ToMailbox(given["mailbox"])]
    try:
        steps = train_run(*given["call"])
    except LongplayError as error:
        ray.get(given["mailbox"].failed.remote(error))
        raise
    if os.environ["RANK"] == "0":
        ray.get(given["mailbox"].done.remote(steps))
