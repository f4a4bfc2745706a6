"""What a command shows while it works, on stderr: bars, and the log of training."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
    """The progress of pieces: stage, seconds made, speed against real time, time left; only on a terminal.

    A context manager; `of` gives the progress callback of each piece."""

    def __init__(self, stages: Sequence[str], seconds: float) -> None:
        console = Console(stderr=True)
        self._made: dict[str, dict[str, float]] = {stage: {} for stage in stages}
        self._lock = threading.Lock()  # stages tell of themselves
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

    def of(self, piece: str = "") -> "Callable[[str, float], None]":
        """What hears that a stage has made so many seconds of a piece in all."""
        return lambda stage, seconds: self._update(piece, stage, seconds)

    def _update(self, piece: str, stage: str, seconds: float) -> None:
        """The pieces are as far as their stages are on average."""
        with self._lock:
            self._made[stage][piece] = seconds
            made = {stage: sum(of_pieces.values()) for stage, of_pieces in self._made.items()}
        self.elapsed = time.monotonic() - self._started
        done = min(sum(made.values()) / len(made), self._seconds)
        speed = done / self.elapsed if self.elapsed else 0.0
        self._progress.update(self._task, description=stage, completed=done, made=made[self._last], speed=speed)
