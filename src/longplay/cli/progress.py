"""The progress bar: stage, seconds made, speed against real time, time left; on stderr, and only on a terminal."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.status import Status


def status(message: str) -> Status:
    """A spinner while something of unknown length happens."""
    return Console(stderr=True).status(message)


class Bar:
    """A context manager whose `update` is the progress callback of the pipeline."""

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
