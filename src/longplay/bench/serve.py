"""Many pieces that come and go in one session (`pipeline/session.py`), against one after the other: from prompt to sound.

Each piece has a listener who asks for it at its time and takes its sound as it comes. Both sides run in turns, whole.
"""

import random
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch

from longplay.bench.limits import CPU, machine, measure_limits
from longplay.bench.measure import Timing
from longplay.bench.models import open_pipeline
from longplay.bench.pipeline import PROMPT
from longplay.bench.report import BenchReport, Row
from longplay.engine.memory import PeakMemory
from longplay.pipeline import Pipeline, Session
from longplay.pipeline.precision import AUTO
from longplay.prompt import GenerationOptions

SHORTEST = 0.5
"""Of the longest piece: lengths differ, so that pieces leave and others join while the rest run."""


@dataclass(frozen=True)
class Request:
    """A piece that is asked for `arrival` seconds after the start."""

    options: GenerationOptions
    arrival: float


@dataclass(frozen=True)
class Heard:
    """When the listener of a piece heard its first sound and its last, in seconds after asking; how many seconds it lasts."""

    first: float
    last: float
    seconds: float


@dataclass(frozen=True)
class ServeBench:
    """What to measure.

    Attributes:
        model: see `open_pipeline`.
        seconds: of the longest piece.
        pieces: how many are asked for.
        slots: how many run at once.
        every: seconds between two requests; 0: all come at the start.
        precision: of the lm.
        device: where.
        repeats: rounds of both sides, of which the medians count.
        options: of every piece, but for seconds and seed.
    """

    model: str
    seconds: float = 10.0
    pieces: int = 16
    slots: int = 8
    every: float = 0.0
    precision: str = AUTO
    device: torch.device = CPU
    repeats: int = 1
    options: GenerationOptions = field(default_factory=GenerationOptions)

    def run(self) -> BenchReport:
        """Measure.

        Raises:
            CheckpointError: no such model, or one that lacks a part.
            UserError: an unknown precision.
        """
        pipeline = open_pipeline(self.model, self.precision, self.device)
        limits, requests = measure_limits(self.device), self.requests()
        sides = {f"{self.slots} at once": self.slots, "one after the other": 1}
        rounds: dict[str, list[dict[str, float]]] = defaultdict(list)
        for _ in range(self.repeats):
            for name, slots in sides.items():
                with pipeline.session(slots, self.seconds, self.options.guidance != 1.0, self.options.cache) as session:
                    serve(pipeline, session, requests[:1])  # warms up
                    with PeakMemory(self.device) as peak:
                        start = time.perf_counter()
                        heard = serve(pipeline, session, requests)
                        taken = time.perf_counter() - start
                rounds[name].append(values(heard, taken) | {"peak_memory_gb": peak.bytes / 1e9})
        rows = [Row(name, _medians(found)) for name, found in rounds.items()]
        gain = rows[0].values["times_real_time"] / rows[1].values["times_real_time"]
        rows[0] = Row(rows[0].name, {**rows[0].values, "times_baseline": gain})
        setting = {
            "seconds": self.seconds,
            "pieces": self.pieces,
            "slots": self.slots,
            "every": self.every,
            "precision": str(pipeline.precision),
            "repeats": self.repeats,
            "fast": self.options.fast,
            **machine(self.device),
        }
        return BenchReport("serve", self.model, setting, limits.values(), rows)

    def requests(self) -> list[Request]:
        """Of `SHORTEST` to all of `seconds`, the same in every run."""
        draw = random.Random(0)
        return [
            Request(
                self.options.model_copy(update={"seconds": self.seconds * draw.uniform(SHORTEST, 1.0), "seed": number}),
                number * self.every,
            )
            for number in range(self.pieces)
        ]


def serve(pipeline: Pipeline, session: Session, requests: Sequence[Request]) -> list[Heard]:
    """Let a listener ask for each piece when its time has come, and hear it to its end."""
    start = time.perf_counter()

    def listen(request: Request) -> Heard:
        time.sleep(max(0.0, start + request.arrival - time.perf_counter()))
        asked = time.perf_counter()
        stream = pipeline.stream(PROMPT, request.options, session=session)
        times, samples = [], 0
        for chunk in stream:
            times.append(time.perf_counter() - asked)
            samples += chunk.shape[1]
        return Heard(times[0], times[-1], samples / stream.sample_rate)

    with ThreadPoolExecutor(len(requests)) as listeners:
        return list(listeners.map(listen, requests))


def values(heard: Sequence[Heard], taken: float) -> dict[str, float]:
    """Speed and waiting times of pieces that took `taken` seconds together."""
    first, last = [each.first for each in heard], [each.last for each in heard]
    return {
        "pieces_per_s": len(heard) / taken,
        "times_real_time": sum(each.seconds for each in heard) / taken,
        "first_sound_p50_s": float(np.quantile(first, 0.5)),
        "first_sound_p95_s": float(np.quantile(first, 0.95)),
        "piece_p50_s": float(np.quantile(last, 0.5)),
        "piece_p95_s": float(np.quantile(last, 0.95)),
    }


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    speed = Timing(tuple(each["times_real_time"] for each in rounds))
    medians = {name: Timing(tuple(each[name] for each in rounds)).median for name in rounds[0]}
    return medians | {"spread": speed.spread, "peak_memory_gb": rounds[0]["peak_memory_gb"]}
