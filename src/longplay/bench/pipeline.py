"""Seconds from prompt to sound per second of music: stages at the same time, and one after the other as a baseline.

Also how long the first sound takes, in this process and from the command on, and how the memory grows with the piece.
"""

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from longplay.audio.file import Wav
from longplay.bench.limits import CPU, machine, measure_limits
from longplay.bench.lm import RANDOM
from longplay.bench.measure import Timing
from longplay.bench.models import open_pipeline
from longplay.bench.report import BenchReport, Curve, Row
from longplay.engine.memory import PeakMemory
from longplay.errors import UserError
from longplay.pipeline import Pipeline
from longplay.pipeline.precision import AUTO
from longplay.pipeline.steps import Steps
from longplay.pipeline.stream import silent
from longplay.prompt import GenerationOptions, Prompt

PROMPT = Prompt(text="calm piano music")
_HEADER_BYTES = 44
_BASELINE = 0.0
"""Stands for its length among the others."""


@dataclass(frozen=True)
class PipelineBench:
    """What to measure.

    Attributes:
        model: see `open_system`.
        lengths: seconds of music, the shortest first.
        precision: of the lm.
        options: of every piece, but for the seconds.
        baseline_seconds: of music that the baseline makes; 0 leaves it out.
        device: where.
        repeats: rounds of all lengths and the baseline, of which the medians count.
    """

    model: str
    lengths: tuple[float, ...] = (7.5, 15.0, 30.0)
    precision: str = AUTO
    options: GenerationOptions = field(default_factory=lambda: GenerationOptions(seed=0))
    baseline_seconds: float = 10.0
    device: torch.device = CPU
    repeats: int = 1

    def run(self) -> BenchReport:
        """Measure, the shortest piece first: memory that was once used is seldom given back.

        Raises:
            CheckpointError: no such model, or one that lacks a part.
            UserError: the command itself fails.
        """
        pipeline = open_pipeline(self.model, self.precision, self.device)
        _consume(pipeline.stream(PROMPT, self._options(2.0)))  # warms up
        limits = measure_limits(self.device)
        made, peaks = self._rounds(pipeline)
        rows = [Row(f"{seconds:g} s", _values(made[seconds], seconds, peaks[seconds])) for seconds in self.lengths]
        if self.baseline_seconds:
            values = _values(made[_BASELINE], self.baseline_seconds, peaks[_BASELINE])
            rows = [row.against(values["s_per_s"]) for row in rows]
            rows.append(Row(f"{self.baseline_seconds:g} s, one stage after the other", values))
        if not self.model.startswith(RANDOM):
            rows.append(Row("from the command on", {"first_sound_s": self._from_command()}))
        given = {
            name: value for name, value in self.options.dump().items() if value != GenerationOptions().dump()[name]
        }
        setting = {"precision": str(pipeline.precision), "repeats": self.repeats, **given, **machine(self.device)}
        costs = [Timing(tuple(each.seconds for each in made[seconds])).median for seconds in self.lengths]
        curve = Curve("all stages at the same time", self.lengths, costs)
        return BenchReport("pipeline", self.model, setting, limits.values(), rows, [curve])

    def _rounds(self, pipeline: Pipeline) -> tuple[dict[float, list["_Made"]], dict[float, int]]:
        """Every length, and the baseline, in each of the rounds; the memory that each needed in the first."""
        work: dict[float, Callable[[], Iterable[Wav]]] = {
            seconds: partial(pipeline.stream, PROMPT, self._options(seconds)) for seconds in self.lengths
        }
        if self.baseline_seconds:
            options = self._options(self.baseline_seconds).settle(PROMPT)
            work[_BASELINE] = partial(_in_sequence, Steps(pipeline.system, self.model, options, silent))
        made: dict[float, list[_Made]] = defaultdict(list)
        peaks: dict[float, int] = {}
        for _ in range(self.repeats):
            for length, begin in work.items():
                with PeakMemory(self.device) as peak:
                    made[length].append(_consume(begin()))
                peaks.setdefault(length, peak.bytes)
        return made, peaks

    def _options(self, seconds: float) -> GenerationOptions:
        return self.options.model_copy(update={"seconds": seconds})

    def _from_command(self) -> float:
        command = [sys.executable, "-m", "longplay", "generate", PROMPT.text, "--output", "-", "--fade", "0"]
        given = f"--seconds 10 --seed 0 --precision {self.precision} --device {self.device}"
        command += ["--model", self.model, *given.split(), *(["--fast"] if self.options.fast else [])]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            first = process.stdout.read(_HEADER_BYTES + 1)
            taken = time.perf_counter() - start
            process.kill()
            if len(first) <= _HEADER_BYTES:
                assert process.stderr is not None
                raise UserError(f"`{' '.join(command[1:])}` made no sound: {process.stderr.read().decode().strip()}")
        return taken


def _in_sequence(steps: Steps) -> Iterator[Wav]:
    """All codes before the first sound; all of the work is done while it is iterated over."""
    piece = steps.piece(PROMPT)
    codes = list(steps.generate(piece))
    yield from steps.decode(iter(codes), piece)


@dataclass(frozen=True)
class _Made:
    first: float
    seconds: float


def _consume(chunks: Iterable[Wav]) -> _Made:
    """Take chunks as a player would, and keep none."""
    start = time.perf_counter()
    first = 0.0
    for _ in chunks:
        first = first or time.perf_counter() - start
    return _Made(first, time.perf_counter() - start)


def _values(made: Sequence[_Made], seconds: float, peak: int) -> dict[str, float]:
    timing = Timing(tuple(each.seconds for each in made))
    return {
        "s_per_s": timing.median / seconds,
        "spread": timing.spread,
        "times_real_time": seconds / timing.median,
        "first_sound_s": Timing(tuple(each.first for each in made)).median,
        "peak_memory_gb": peak / 1e9,
    }
