"""What a command shows while it works, on stderr: bars, and the log of training."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.status import Status

if TYPE_CHECKING:
    from longplay.data.store import Progress as Hears


def status(message: str) -> Status:
    """A spinner while something of unknown length happens."""
    return Console(stderr=True).status(message)


def log_and_limit(threads: int | None) -> None:
    """Log progress to stderr, with or without --verbose; compute on `threads` CPU threads."""
    import logging

    import torch

    # force: the command line has set up its own, quieter log before
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    if threads:
        torch.set_num_threads(threads)


@contextmanager
def stage_bars(*names: str) -> "Iterator[Hears]":
    """A bar for each stage, shown from its first progress on."""
    columns = (TextColumn("{task.description:8}"), BarColumn(), TextColumn("{task.completed:.6g}/{task.total:.6g}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        tasks = {name: bars.add_task(name, total=None, visible=False) for name in names}
        yield lambda stage, done, total: bars.update(tasks[stage], completed=done, total=total, visible=True)


class Bar:
    """The progress of a piece: stage, seconds made, speed against real time, time left; only on a terminal.

    A context manager whose `update` is the progress callback of the pipeline."""

    def __init__(self, stages: Sequence[str], seconds: float) -> None:
        console = Console(stderr=True)
        self._made = dict.fromkeys(stages, 0.0)
        self._last = stages[-1]
        self._seconds = seconds
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<9}"),
            BarColumn(),
            TextColumn("{task.fields[made]:.1f} of {task.total:.0f} s  {task.fields[speed]:.2f} x real time"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(stages[0], total=seconds, made=0.0, speed=0.0)
        self.elapsed = 0.0

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.elapsed = time.monotonic() - self._started
        self._progress.stop()

    def update(self, stage: str, seconds: float) -> None:
        """`stage` has made `seconds` in all; the piece is as far as its stages are on average."""
        self._made[stage] = seconds
        self.elapsed = time.monotonic() - self._started
        made = self._made[self._last]
        done = min(sum(self._made.values()) / len(self._made), self._seconds)
        speed = done / self.elapsed if self.elapsed else 0.0
        self._progress.update(self._task, description=stage, completed=done, made=made, speed=speed)
