"""Time and memory of pieces of work, measured so that a busy or throttled machine misleads as little as possible.

Contenders run in turns, never one after the other, so that whatever else the machine does hits all of them; figures
are medians, and the spread says how far to trust them.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """How long one piece of work took.

    Attributes:
        seconds: of each repeat, in the order they ran.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """In seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median; 0 for a single repeat."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median


def in_turns(work: Mapping[str, Callable[[], object]], repeats: int = 5, warmup: int = 1) -> dict[str, Timing]:
    """Run each piece of work `warmup` times unmeasured, then `repeats` rounds of all of them.

    Args:
        work: by name; each does the same whenever it is called.
        repeats: rounds that count.
        warmup: rounds that do not.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(warmup + repeats):
        for name, run in work.items():
            taken = timed(run)
            if number >= warmup:
                seconds[name].append(taken)
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def step_in_turns(work: Mapping[str, Iterator[object]]) -> dict[str, tuple[float, ...]]:
    """Exhaust iterators in turns, one item of each per round, and time every item.

    Args:
        work: by name; one that ends earlier leaves the rounds to the others.

    Returns:
        seconds of each item of each iterator.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    running = dict(work)
    nothing = object()
    while running:
        for name, items in list(running.items()):
            start = time.perf_counter()
            item = next(items, nothing)
            synchronize()
            if item is nothing:
                del running[name]
            else:
                seconds[name].append(time.perf_counter() - start)
    return {name: tuple(taken) for name, taken in seconds.items()}


def timed(run: Callable[[], object]) -> float:
    """Seconds until `run` has done its work, an accelerator's included."""
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    """Wait for an accelerator, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The p of the best fit cost = c * size ** p: 1 is linear, 2 quadratic; NaN for fewer than two sizes."""
    if len(set(sizes)) < 2:
        return math.nan
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    return statistics.linear_regression(x, y).slope
