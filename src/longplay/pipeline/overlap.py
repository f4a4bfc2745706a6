"""Stages that work at the same time: each in a thread of its own, with a bounded queue to the next.

The lm is bound by memory and by the host, flow and codec by arithmetic, and torch lets go of the interpreter while it
computes: on two cores the stages hardly hinder each other, and no core is idle while there is work. A stage that waits
lends its threads to kernels of the others whose results do not depend on how many there are. So what they make does not
depend on which of them is faster: the items, their order, and torch's threads of each stage are fixed.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from traceback import clear_frames
from typing import Generic, TypeVar

import torch

from longplay.nn.team import borrow

T = TypeVar("T")
R = TypeVar("R")

_POLL_SECONDS = 0.1  # how long a stage that waits takes to notice that nobody wants its results


@dataclass(frozen=True)
class Share:
    """CPU threads of each stage while all of them run."""

    lm: int
    flow: int
    decoder: int

    @classmethod
    def of(cls, threads: int) -> "Share":
        """Half for the lm, the rest three to one for flow and decoder, at least one each.

        On two cores each stage has one: single threads share cores better than pools whose members wait for each other.
        """
        lm = max(1, threads // 2)
        decoder = max(1, (threads - lm) // 4)
        return cls(lm, max(1, threads - lm - decoder), decoder)


class Cores:
    """Counts the threads that work, of `total` that there are to be."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._lock = threading.Lock()

    def spare(self) -> int:
        """How many more there may be now."""
        return max(0, self._free)

    @contextmanager
    def taken(self, threads: int) -> Iterator[None]:
        """So many work in here; or, if negative, wait."""
        self._take(threads)
        try:
            yield
        finally:
            self._take(-threads)

    def _take(self, threads: int) -> None:
        with self._lock:
            self._free -= threads


def overlapped(items: Iterator[T], threads: int, capacity: int, cores: Cores) -> Generator[T, None, None]:
    """The same items, made ahead in another thread.

    An error of the maker is raised here, after the items before it. When this iterator is closed, dropped or
    interrupted, the maker ends after what it is computing, and is waited for; so do the makers of a whole chain.

    Args:
        items: iterated in the other thread alone.
        threads: that torch may use there.
        capacity: how many items may wait, which bounds the memory.
        cores: that all stages of a chain work on.
    """
    stage = _Stage(items, threads, capacity, cores)
    stage.begin()
    try:
        yield from stage.made()
    finally:
        stage.unwanted.set()
        stage.join()


class Unwanted(Exception):
    """Nobody waits for the results of this thread any more."""


@dataclass(frozen=True)
class _End:
    error: BaseException | None


class _Stage(threading.Thread, Generic[T]):
    def __init__(self, items: Iterator[T], threads: int, capacity: int, cores: Cores) -> None:
        super().__init__(name="longplay-stage")
        self.unwanted = threading.Event()
        self._items = items
        self._threads = threads
        self._cores = cores
        self._queue: queue.Queue[T | _End] = queue.Queue(capacity)
        self._begun = threading.Event()

    def begin(self) -> None:
        self.start()
        self._begun.wait()

    def made(self) -> Iterator[T]:
        item = patiently(self._queue.get)
        # A stage's number of threads is its own, but torch also keeps the last one that was set, for threads to come.
        # Here, where all stages have begun, it becomes again what the caller has.
        torch.set_num_threads(torch.get_num_threads())
        while not isinstance(item, _End):
            yield item
            item = patiently(self._queue.get)
        if item.error is not None:
            raise item.error

    def run(self) -> None:
        torch.get_num_threads()  # the first call in a thread takes the shared number, and must not come after the next
        torch.set_num_threads(self._threads)
        borrow(self._cores.spare)
        self._begun.set()
        with suppress(Unwanted), self._cores.taken(self._threads):
            error = self._make()
            patiently(partial(self._queue.put, _End(error)))

    def waits(self) -> AbstractContextManager[None]:
        """In here, others may use this stage's cores."""
        return self._cores.taken(-self._threads)

    def _make(self) -> BaseException | None:
        try:
            for item in self._items:
                patiently(partial(self._queue.put, item))
        except Unwanted:
            raise
        except BaseException as error:  # whatever it is, it belongs to the one who waits for the items
            clear_frames(error.__traceback__)  # which hold the stages before this one
            return error
        return None


def patiently(operation: Callable[..., R]) -> R:
    """Do what takes a `timeout` and raises `queue.Full` or `queue.Empty` then. Wait for room or for an item, unless this thread's work is unwanted, or the main thread has ended."""
    thread = threading.current_thread()
    with thread.waits() if isinstance(thread, _Stage) else nullcontext():
        while threading.main_thread().is_alive() and not (isinstance(thread, _Stage) and thread.unwanted.is_set()):
            try:
                return operation(timeout=_POLL_SECONDS)
            except (queue.Full, queue.Empty):
                continue
    raise Unwanted
