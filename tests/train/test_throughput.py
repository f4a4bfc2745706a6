"""The figures follow from what was encoded and when."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longplay.data.manifest import Track, write_manifest
from longplay.data.workers import Outcome
from longplay.errors import UserError
from longplay.train import throughput
from longplay.train.encoding import Codes, Job

SECONDS = 36.0  # a hundredth of an hour


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    about = {"kind": "real", "title": "t", "source": "s", "licence": "CC0", "codec_ok": True, "captions": ("a",)}
    tracks = [Track(id=f"u{n}", path=f"u{n}.wav", seconds=SECONDS, split="train", **about) for n in range(20)]
    write_manifest(tmp_path / "manifest.jsonl", tracks)
    return tmp_path / "manifest.jsonl"


class Clock:
    """Time that only the encoders spend."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: Any) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput.time, "monotonic", clock.monotonic)
    return clock


def encoders(clock: Clock, start: float, each: float) -> Any:
    """Encoders that take `start` seconds to load, and `each` seconds a track, all workers at once."""

    def of(workers: int) -> Any:
        def encode_all(jobs: Sequence[Job]) -> Iterator[Outcome[Job, Codes]]:
            clock.now += start
            for index, job in enumerate(jobs):
                clock.now += each if index % workers == 0 else 0.0
                yield Outcome(job, Codes(np.zeros((1, 2), np.int16), np.zeros((0, 0), np.int16), SECONDS), None)

        return encode_all

    return of


def test_rates_leave_the_start_out_and_speedup_is_over_the_first(manifest: Path, clock: Clock) -> None:
    report = throughput.measure_throughput(str(manifest), encoders(clock, 50.0, 2.0), (1, 2), hours=0.16, repeats=2)
    one, two = report.rows
    assert report.setting["tracks"] == 16
    assert (one.start_seconds, two.start_seconds) == (52.0, 52.0)
    assert one.hours_per_hour == pytest.approx(SECONDS / 2)
    assert two.hours_per_hour == pytest.approx(2 * one.hours_per_hour)
    assert (two.speedup, two.efficiency) == (pytest.approx(2.0), pytest.approx(1.0))
    assert "| 2 |" in report.lines()[-1]


def test_workers_that_do_not_help_have_half_the_efficiency(manifest: Path, clock: Clock) -> None:
    def encode_all(workers: int) -> Any:
        return encoders(clock, 1.0, 2.0)(1)

    one, two = throughput.measure_throughput(str(manifest), encode_all, (1, 2), hours=0.16, repeats=1).rows
    assert two.speedup == pytest.approx(1.0)
    assert two.efficiency == pytest.approx(0.5)
    assert one.hours_per_hour == pytest.approx(two.hours_per_hour)


def test_too_few_tracks_to_judge_are_refused(manifest: Path, clock: Clock) -> None:
    with pytest.raises(
        UserError, match="has 5 tracks in its first 0.05 h, too few for 2 workers; measure on 8 or more"
    ):
        throughput.measure_throughput(str(manifest), encoders(clock, 1.0, 2.0), (1, 2), hours=0.05)
