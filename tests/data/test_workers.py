import os
import signal
from functools import partial
from pathlib import Path

import pytest

from longplay.data.workers import WorkerDied, run_jobs


def work(folder: Path, job: int) -> int:
    """Job 2 kills its worker each time, job 5 once, job 3 raises."""
    (folder / f"{job}.{len(list(folder.glob(f'{job}.*')))}").touch()
    if job == 2 or (job == 5 and len(list(folder.glob("5.*"))) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 3:
        raise ValueError("three")
    return job * job


def test_every_job_has_one_outcome_though_workers_die(tmp_path: Path) -> None:
    outcomes = list(run_jobs(partial(work, tmp_path), range(8), workers=2))
    assert sorted(outcome.job for outcome in outcomes) == list(range(8))
    by_job = {outcome.job: outcome for outcome in outcomes}
    assert {job: by_job[job].get() for job in (0, 1, 4, 5, 6, 7)} == {0: 0, 1: 1, 4: 16, 5: 25, 6: 36, 7: 49}
    with pytest.raises(ValueError, match="three"):
        by_job[3].get()
    with pytest.raises(WorkerDied, match="died"):
        by_job[2].get()


def test_no_job_is_no_outcome() -> None:
    assert list(run_jobs(abs, [], workers=1)) == []
