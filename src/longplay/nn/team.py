"""Threads that run the same kernel side by side, how many, and the arrays that they are given."""

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from longplay.nn.native import Kernel


_here = threading.local()


def borrow(spare: Callable[[], int]) -> None:
    """From now on, in this thread, count what `spare` says among the `available` threads."""
    _here.spare = spare


def available() -> int:
    """Threads for a kernel whose results do not depend on it: torch's number, and those that can be borrowed now."""
    spare: Callable[[], int] = getattr(_here, "spare", int)
    return torch.get_num_threads() + spare()


class Block:
    """Arrays in C order, and the address and sizes of each, [N, 4], as the kernels read them."""

    def __init__(self, *arrays: np.ndarray) -> None:
        self._arrays = arrays  # kept, since the kernels know nothing but where they are
        self._lines = np.array([[array.ctypes.data, *array.shape, *[1] * (3 - array.ndim)] for array in arrays])

    @property
    def address(self) -> int:
        """Of the first line."""
        return self._lines.ctypes.data


class Pile:
    """Arrays of one kind, to be one."""

    def __init__(self, dtype: Any) -> None:
        self._dtype, self._arrays, self._length = dtype, list[np.ndarray](), 0

    def add(self, array: np.ndarray) -> int:
        """Append; returns where it starts."""
        start = self._length
        self._arrays.append(array.reshape(-1))
        self._length += array.size
        return start

    def whole(self) -> np.ndarray:
        """All of it; a number more, so that there is one."""
        made = np.concatenate([*self._arrays, np.zeros(1, self._dtype)])
        self._arrays.clear()
        return made


class Team:
    """Threads that run the same kernel side by side; this one is the first."""

    def __init__(self) -> None:
        self.gate = np.zeros((2, 8), np.int64)
        self._helpers: list[_Helper] = []

    def run(self, kernel: "Kernel", threads: int, block: Block) -> None:
        """Run a kernel in each, and wait for all."""
        address = block.address
        while len(self._helpers) < threads - 1:
            self._helpers.append(_Helper())
        for number, helper in enumerate(self._helpers[: threads - 1], 1):
            helper.start(functools.partial(kernel, number, threads, address))
        kernel(0, threads, address)
        for helper in self._helpers[: threads - 1]:
            helper.wait()


class _Helper:
    """A thread that waits for something to run."""

    def __init__(self) -> None:
        self._wanted, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._job: Callable[[], object] | None = None
        threading.Thread(target=self._loop, name="longplay kernel", daemon=True).start()

    def start(self, job: Callable[[], object]) -> None:
        """Run `job` in the thread."""
        self._job = job
        self._wanted.release()

    def wait(self) -> None:
        """Until it is done."""
        self._done.acquire()

    def _loop(self) -> None:
        while True:
            self._wanted.acquire()
            assert self._job is not None
            self._job()
            self._done.release()
