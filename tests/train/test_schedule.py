"""The learning rate over a run, whatever its length."""

import pytest

from longplay.train.loop_config import LoopConfig


def rates(**loop: int) -> list[float]:
    config = LoopConfig(**loop)
    return [config.schedule(step) for step in range(config.steps)]


def test_the_rate_rises_stays_and_falls() -> None:
    made = rates(steps=100, warmup_steps=10, decay_steps=40)
    assert made[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert made[10:60] == [1.0] * 50
    assert made[60:] == sorted(made[60:], reverse=True)
    assert made[-1] < 0.01


@pytest.mark.parametrize("steps", [2, 9, 300, 1199])
def test_a_run_that_is_shorter_than_its_phases_reaches_the_full_rate(steps: int) -> None:
    made = rates(steps=steps, warmup_steps=200, decay_steps=1000)
    assert max(made) > 0.9
    if steps > 10:
        assert made[-1] < 0.1
        assert made.index(max(made)) == pytest.approx(steps / 6, abs=2)


def test_phases_that_fit_stay_as_they_are() -> None:
    assert LoopConfig(steps=1200, warmup_steps=200, decay_steps=1000).phases == (200, 1000)
    assert LoopConfig(steps=600, warmup_steps=200, decay_steps=1000).phases == (100, 500)
    assert LoopConfig(steps=5, warmup_steps=0, decay_steps=0).phases == (0, 0)
