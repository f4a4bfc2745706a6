"""Processes and the actors of a cluster: one outcome for each job, whatever happens to the workers."""

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dying import work
from longplay.data.cluster import Actor, run_on_ray
from longplay.data.workers import Outcome, WorkerDied, run_jobs


def assert_one_outcome_each(outcomes: list[Outcome[int, int]]) -> None:
    assert sorted(outcome.job for outcome in outcomes) == list(range(8))
    by_job = {outcome.job: outcome for outcome in outcomes}
    assert {job: by_job[job].get() for job in (0, 1, 4, 5, 6, 7)} == {0: 0, 1: 1, 4: 16, 5: 25, 6: 36, 7: 49}
    with pytest.raises(ValueError, match="three"):
        by_job[3].get()
    with pytest.raises(WorkerDied, match="died"):
        by_job[2].get()


def test_every_job_has_one_outcome_though_workers_die(tmp_path: Path) -> None:
    assert_one_outcome_each(list(run_jobs(partial(work, tmp_path), range(8), workers=2)))


def test_no_job_is_no_outcome() -> None:
    assert list(run_jobs(abs, [], workers=1)) == []


def test_an_actor_says_what_became_of_a_job_and_gives_up_one_that_ends_it() -> None:
    begun: list[int] = []

    def begin(number: int) -> int:
        begun.append(number)
        return begun.count(number)

    def halve(job: int) -> int:
        if job % 2:
            raise ValueError(f"{job} is odd")
        return job // 2

    actor = Actor(halve, begin)

    def outcome(number: int, job: int) -> Any:
        return pickle.loads(actor({"number": number, "job": pickle.dumps(job)})["outcome"])

    assert outcome(0, 8) == Outcome(8, 4, None)
    with pytest.raises(ValueError, match="7 is odd"):
        outcome(1, 7).get()
    assert outcome(0, 8).get() == 4
    with pytest.raises(WorkerDied):
        outcome(0, 8).get()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_on_ray_every_job_has_one_outcome_too(ray: Any, tmp_path: Path) -> None:
    assert_one_outcome_each(list(run_on_ray(partial(work, tmp_path), range(8), workers=2)))
    assert len(list(tmp_path.glob("2.*"))) == 2
    assert list(run_on_ray(abs, [], workers=1)) == []
