"""Stages at work at the same time: order, errors, stopping, bounds, threads."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from longplay.nn.team import available
from longplay.pipeline.overlap import Cores, Share, overlapped


def running() -> int:
    return sum(thread.name == "longplay-stage" for thread in threading.enumerate())


def test_items_come_in_order_and_nothing_is_left_running() -> None:
    doubled = (2 * n for n in overlapped(iter(range(100)), 1, 3, Cores(2)))
    assert list(overlapped(doubled, 1, 2, Cores(2))) == [2 * n for n in range(100)]
    assert running() == 0


def test_a_maker_works_unasked_but_no_further_ahead_than_the_queue_holds() -> None:
    made = []

    def maker() -> Iterator[int]:
        for n in range(100):
            made.append(n)
            yield n

    items = overlapped(maker(), 1, 4, Cores(2))
    assert next(items) == 0
    deadline = time.monotonic() + 30
    while len(made) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 6  # one taken, four waiting, one in hand
    items.close()
    assert len(made) == 6
    assert running() == 0


def test_an_error_comes_after_the_items_before_it() -> None:
    def maker() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    items = overlapped(overlapped(maker(), 1, 4, Cores(2)), 1, 4, Cores(2))
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)
    assert running() == 0


def test_an_error_in_the_middle_stops_the_stages_before_it() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 0

    def maker(items: Iterator[int]) -> Iterator[int]:
        yield next(items)
        raise ValueError("broken")

    items = overlapped(maker(overlapped(endless(), 1, 1, Cores(2))), 1, 4, Cores(2))
    with pytest.raises(ValueError, match="broken"):
        list(items)
    assert running() == 0


def test_an_interrupt_of_the_one_who_waits_stops_every_stage() -> None:
    closed = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    items = overlapped(overlapped(endless(), 1, 1, Cores(2)), 1, 1, Cores(2))
    next(items)
    with pytest.raises(KeyboardInterrupt):
        items.throw(KeyboardInterrupt)
    assert running() == 0
    del items
    assert closed == [True]


def test_each_stage_has_its_own_threads_and_the_caller_keeps_its() -> None:
    before = torch.get_num_threads()
    counts = ([torch.get_num_threads()] for _ in range(3))
    both = ([*count, torch.get_num_threads()] for count in overlapped(counts, 3, 1, Cores(5)))
    assert list(overlapped(both, 2, 1, Cores(5))) == [[3, 2]] * 3
    assert torch.get_num_threads() == before
    fresh: list[int] = []
    later = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert fresh == [before]


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8, 64])
def test_shares_leave_no_stage_without_a_thread(threads: int) -> None:
    share = Share.of(threads)
    assert min(share.lm, share.flow, share.decoder) >= 1
    assert share.lm + share.flow + share.decoder <= max(3, threads)


def test_a_stage_borrows_the_cores_of_those_that_wait_and_no_more_than_there_are() -> None:
    cores = Cores(4)
    turn = threading.Semaphore(0)
    seen: list[int] = []

    def first() -> Iterator[int]:
        deadline = time.monotonic() + 30
        while available() < 4 and time.monotonic() < deadline:  # until the second stage waits for an item
            time.sleep(0.001)
        seen.append(available())
        yield 0
        assert turn.acquire(timeout=30)
        seen.append(available())  # and now it works
        turn.release()
        yield 1

    def second(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            if item == 0:
                turn.release()
                while len(seen) < 2:
                    time.sleep(0.001)
            yield item

    made = overlapped(second(overlapped(first(), 1, 2, cores)), 2, 2, cores)
    assert list(made) == [0, 1]
    assert seen == [4, 2]
    assert cores.spare() == 4
    assert available() == torch.get_num_threads()
