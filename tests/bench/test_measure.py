import math
import time

import pytest

from longplay.bench.measure import Timing, exponent, in_turns, step_in_turns


def test_contenders_run_in_turns_and_warm_up_unmeasured() -> None:
    calls: list[str] = []
    timings = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=2)
    assert calls == ["a", "b"] * 5
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 3, "b": 3}


def test_iterators_step_in_turns_until_all_have_ended() -> None:
    calls: list[str] = []

    def items(name: str, count: int):  # type: ignore[no-untyped-def]
        for _ in range(count):
            calls.append(name)
            time.sleep(0.002)
            yield None

    taken = step_in_turns({"a": items("a", 3), "b": items("b", 1)})
    assert calls == ["a", "b", "a", "a"]
    assert len(taken["a"]) == 3
    assert len(taken["b"]) == 1
    assert min(taken["a"]) >= 0.002


def test_median_and_spread() -> None:
    timing = Timing((1.0, 2.0, 3.0, 4.0, 100.0))
    assert timing.median == 3.0
    assert timing.spread == pytest.approx((4 - 2) / 2 / 3)
    assert Timing((5.0,)).spread == 0.0


def test_the_exponent_of_a_power_law_is_found() -> None:
    sizes = [1.0, 2.0, 5.0, 30.0]
    assert exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert math.isnan(exponent([2.0], [1.0]))
