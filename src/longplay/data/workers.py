"""Jobs over worker processes: every job has one outcome, in the order of completion, whatever happens to a worker.

A worker that dies (killed, out of memory, crashed in a decoder) takes the whole pool with it. The pool is then made
anew and what was running is tried again, each job alone, so that the one to blame is known: a job that kills its
worker twice more is given up as `WorkerDied`, all others go on.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from longplay.errors import LongplayError

TRIES = 2
QUEUED = 2  # jobs per worker that are handed over at a time: one to work on, one to go on with

Job = TypeVar("Job")
Result = TypeVar("Result")


class WorkerDied(LongplayError):
    """A worker process ended without a result, again and with no other job beside it."""


class Outcome(NamedTuple, Generic[Job, Result]):
    """What became of one job: its result, or the error that it raised."""

    job: Job
    result: Result | None
    error: Exception | None

    def get(self) -> Result:
        """The result; raises the error."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # None may be the result


class RunJobs(Protocol):
    """What `run_jobs` is one of: it runs a picklable function over jobs in some workers, one outcome for each job."""

    def __call__(
        self, function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
    ) -> Iterator[Outcome[Job, Result]]:
        """Run the jobs; see `run_jobs`."""


def died(job: Job) -> Outcome[Job, Any]:
    """Of a job that ended its worker."""
    return Outcome(job, None, WorkerDied("its worker process died, e.g. killed or out of memory"))


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    initializer: Callable[..., None] | None = None,
    initial: tuple[Any, ...] = (),
) -> Iterator[Outcome[Job, Result]]:
    """Run `function` over `jobs` in `workers` processes.

    Args:
        function: a picklable callable; what it raises comes back in the outcome.
        jobs: drawn as they are needed.
        workers: processes, started afresh (spawn).
        initializer: runs first in every worker, e.g. to load a model.
        initial: its arguments.
    """

    def pool(size: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(size, get_context("spawn"), initializer=initializer, initargs=initial)

    waiting = iter(jobs)
    while True:
        interrupted: list[Job] = []
        with pool(workers) as executor:
            for job, future in _run(executor, function, waiting, QUEUED * workers):
                if _died(future):
                    interrupted.append(job)
                else:
                    yield _outcome(job, future)
        if not interrupted:
            return
        for job in interrupted:
            for _ in range(TRIES):
                with pool(1) as executor:
                    ((_, future),) = _run(executor, function, iter([job]), 1)
                if not _died(future):
                    break
            yield _outcome(job, future)


def _run(
    pool: ProcessPoolExecutor, function: Callable[[Job], Result], jobs: Iterator[Job], at_once: int
) -> Iterator[tuple[Job, Future[Result]]]:
    """Jobs and their finished futures, until there are no more jobs or the pool is broken."""
    running: dict[Future[Result], Job] = {}
    broken = False
    while True:
        if not broken:
            for job in islice(jobs, at_once - len(running)):
                running[_submit(pool, function, job)] = job
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            broken = broken or _died(future)
            yield running.pop(future), future


def _submit(pool: ProcessPoolExecutor, function: Callable[[Job], Result], job: Job) -> Future[Result]:
    try:
        return pool.submit(function, job)
    except BrokenProcessPool as error:  # it broke between two jobs
        future: Future[Result] = Future()
        future.set_exception(error)
        return future


def _died(future: Future[Any]) -> bool:
    return isinstance(future.exception(), BrokenProcessPool)


def _outcome(job: Job, future: Future[Result]) -> Outcome[Job, Result]:
    error = future.exception()
    if _died(future):
        return died(job)
    if isinstance(error, Exception):
        return Outcome(job, None, error)
    if error is not None:
        raise error
    return Outcome(job, future.result(), None)
