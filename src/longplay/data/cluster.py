"""Jobs over a Ray cluster: `run_jobs` with the actors of Ray Data on many machines in place of processes on this one.

The functions, the jobs and the outcomes are the same. An actor works on one job at a time; where it dies, Ray starts another
and gives it the job again. A job that kills its actor as often as `TRIES` says is given up as `WorkerDied`, all others go on.
"""

import logging
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from longplay.data.workers import TRIES, Job, Outcome, Result, died
from longplay.errors import UserError

AT_ONCE = 10_000  # jobs that are handed to Ray together, each a block of its own


def find_ray() -> Any:
    """The module `ray`.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UserError("a cluster needs Ray: `pip install 'longplay[cluster]'`") from None
    return ray


def join_cluster(workers: int, address: str | None = None) -> None:
    """Connect to a Ray cluster, or start one on this machine; nothing where this process has joined one.

    Args:
        workers: CPUs that one started here lends, and one more for Ray's own tasks.
        address: of the cluster, e.g. `auto`; default `RAY_ADDRESS`, and without it one is started here.
    """
    ray = find_ray()
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS")
    own = {} if address else {"num_cpus": workers + 1, "include_dashboard": False}
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **own)


class Attempts:
    """How often each job has been begun: an actor of its own, which outlives those that it counts for."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """Attempts at a job, with the one that begins now."""
        self.counts[number] += 1
        return self.counts[number]


class Actor:
    """A worker with the interface of a Ray Data map: a row in, a row out.

    Args:
        function: what is done with a job.
        begin: tells the attempts at a job, by its number.
        initializer: runs first, e.g. to load a model.
        initial: its arguments.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        begin: Callable[[int], int],
        initializer: Callable[..., None] | None = None,
        initial: tuple[Any, ...] = (),
    ) -> None:
        if initializer is not None:
            initializer(*initial)
        self.function, self.begin = function, begin

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one job; what it raises is its outcome, not the end of the run."""
        job = pickle.loads(row["job"])
        if self.begin(row["number"]) > TRIES:
            outcome = died(job)
        else:
            try:
                outcome = Outcome(job, self.function(job), None)
            except Exception as error:
                outcome = Outcome(job, None, error)
        return {"outcome": pickle.dumps(outcome)}


def run_on_ray(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    initializer: Callable[..., None] | None = None,
    initial: tuple[Any, ...] = (),
    gpus: int = 0,
    address: str | None = None,
) -> Iterator[Outcome[Job, Result]]:
    """Run `function` over `jobs` in actors on a Ray cluster; see `run_jobs`.

    Args:
        workers: actors over the whole cluster.
        gpus: that each of them is lent.
        address: see `join_cluster`.

    Raises:
        UserError: Ray is not installed.
    """
    ray = find_ray()
    waiting = iter(jobs)
    while chosen := list(islice(waiting, AT_ONCE)):
        join_cluster(workers, address)
        attempts = ray.remote(num_cpus=0)(Attempts).remote()
        rows = [{"number": number, "job": pickle.dumps(job)} for number, job in enumerate(chosen)]
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            Actor,
            fn_constructor_args=(function, partial(_begin, attempts), initializer, initial),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows)), max_tasks_in_flight_per_actor=1),
            num_gpus=gpus,
        )
        done.context.enable_progress_bars = False
        for row in done.iter_rows():
            yield pickle.loads(row["outcome"])  # from our own actor


def _begin(attempts: Any, number: int) -> int:
    return find_ray().get(attempts.begin.remote(number))
