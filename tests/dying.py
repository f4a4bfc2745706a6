"""A job that ends its worker, where workers can import it."""

import os
import signal
from pathlib import Path


def work(folder: Path, job: int) -> int:
    """Job 2 kills its worker each time, job 5 once, job 3 raises."""
    (folder / f"{job}.{len(list(folder.glob(f'{job}.*')))}").touch()
    if job == 2 or (job == 5 and len(list(folder.glob("5.*"))) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 3:
        raise ValueError("three")
    return job * job
