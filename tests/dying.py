"""Jobs that end their workers, where workers can import them."""

import os
import signal
from pathlib import Path
from typing import Any

from longplay.data import store


def work(folder: Path, job: int) -> int:
    """Job 2 kills its worker each time, job 5 once, job 3 raises."""
    (folder / f"{job}.{len(list(folder.glob(f'{job}.*')))}").touch()
    if job == 2 or (job == 5 and len(list(folder.glob("5.*"))) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 3:
        raise ValueError("three")
    return job * job


def half_prepare(folder: Path, function: Any, job: Any) -> Any:
    """`function`, which prepares a recording; the first worker dies when the audio is written and the facts are not."""
    if not (folder / "died").exists():
        (folder / "died").touch()
        store.measure = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    return function(job)
