"""Many pieces through one running batch that they join and leave (`engine/batching.py`), against one after the other.

Both sides run in turns, round by round, and each has a clock that only its own rounds advance: what one waits for the
other does not count, and a busy machine slows both.
"""

import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from longplay.bench.limits import CPU, machine, measure_limits
from longplay.bench.models import open_pipeline
from longplay.bench.report import BenchReport, Row
from longplay.engine.batch import CHUNK_FRAMES
from longplay.engine.batching import Runner
from longplay.engine.memory import PeakMemory
from longplay.engine.piece import Piece, RowBuilder
from longplay.errors import CheckpointError
from longplay.models.lm import LM
from longplay.pipeline.precision import AUTO
from longplay.prompt import GenerationOptions

TEXT_IDS = 24
SHORTEST = 0.5
"""Of the longest piece: lengths differ, so that pieces leave and others join while the rest run."""


@dataclass(frozen=True, eq=False)
class Request:
    """A piece that is asked for `arrival` seconds after the start."""

    key: str
    piece: Piece
    arrival: float


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
    """

    model: str
    seconds: float = 10.0
    pieces: int = 16
    slots: int = 8
    every: float = 0.0
    precision: str = AUTO
    device: torch.device = CPU

    def run(self) -> BenchReport:
        """Measure.

        Raises:
            CheckpointError: no such model, or one without an lm.
            UserError: an unknown precision.
        """
        pipeline = open_pipeline(self.model, self.precision, self.device)
        lm = pipeline.system.lm
        if lm is None:
            raise CheckpointError(f"model {self.model!r}: has no lm")
        limits, requests = measure_limits(self.device), self._requests(lm.config.code_rate)
        services = {
            f"{self.slots} at once": Service(lm, requests, self.slots),
            "one after the other": Service(lm, requests, 1),
        }
        with PeakMemory(self.device) as peak:
            serve(list(services.values()))
        rows = [Row(name, service.values(lm.config.code_rate)) for name, service in services.items()]
        gain = rows[0].values["codes_per_s"] / rows[1].values["codes_per_s"]
        rows[0] = Row(rows[0].name, {**rows[0].values, "times_baseline": gain})
        setting = {
            "seconds": self.seconds,
            "pieces": self.pieces,
            "slots": self.slots,
            "every": self.every,
            "precision": str(pipeline.precision),
            **machine(self.device),
        }
        return BenchReport("serve", self.model, setting, limits.values() | {"peak_memory_gb": peak.bytes / 1e9}, rows)

    def _requests(self, rate: int) -> list[Request]:
        draw = random.Random(0)
        requests = []
        for number in range(self.pieces):
            frames = max(1, round(rate * self.seconds * draw.uniform(SHORTEST, 1.0)))
            piece = Piece(tuple(range(TEXT_IDS)), frames, seed=number, min_frames=frames)
            requests.append(Request(str(number), piece, number * self.every))
        return requests


class Service:
    """A `Runner` at work on requests, by a clock that stands still while others work."""

    def __init__(self, lm: LM, requests: Sequence[Request], slots: int) -> None:
        """Reserve all memory and make one chunk to warm up.

        Args:
            lm: for inference.
            requests: in the order of their arrival.
            slots: pieces at once.
        """
        self._options = GenerationOptions()
        positions = max(
            RowBuilder(lm, request.piece, self._options.compatibility).max_positions(request.piece.frames)
            for request in requests
        )
        self._runner = Runner(lm, slots, positions)
        first = requests[0].piece
        frames = min(CHUNK_FRAMES, first.frames)
        self._runner.submit("warm-up", Piece(first.ids, frames, first.seed, min_frames=frames), self._options)
        while not self._runner.idle:
            self._runner.round()
        self._coming = deque(requests)
        self._arrivals = {request.key: request.arrival for request in requests}
        self._clock = 0.0
        self._codes = 0
        self._first: dict[str, float] = {}
        self._whole: dict[str, float] = {}

    @property
    def busy(self) -> bool:
        """Whether something is left to make."""
        return bool(self._coming) or not self._runner.idle

    def round(self) -> None:
        """Take the requests that have arrived, and make a chunk of each running piece."""
        if self._runner.idle:
            self._clock = max(self._clock, self._coming[0].arrival)
        while self._coming and self._coming[0].arrival <= self._clock:
            request = self._coming.popleft()
            self._runner.submit(request.key, request.piece, self._options)
        start = time.perf_counter()
        made = self._runner.round()
        self._clock += time.perf_counter() - start
        for one in made:
            self._codes += len(one.codes)
            waited = self._clock - self._arrivals[one.key]
            if len(one.codes):
                self._first.setdefault(one.key, waited)
            if one.finished:
                self._whole[one.key] = waited

    def values(self, rate: float) -> dict[str, float]:
        """Speed and waiting times so far, for models of `rate` codes per second of music."""
        first, whole = list(self._first.values()), list(self._whole.values())
        return {
            "pieces_per_s": len(whole) / self._clock,
            "codes_per_s": self._codes / self._clock,
            "times_real_time": self._codes / self._clock / rate,
            "first_code_p50_s": float(np.quantile(first, 0.5)),
            "first_code_p95_s": float(np.quantile(first, 0.95)),
            "piece_p50_s": float(np.quantile(whole, 0.5)),
            "piece_p95_s": float(np.quantile(whole, 0.95)),
        }


def serve(services: Sequence[Service]) -> None:
    """Let all of them finish, a round of each in turn."""
    while any(service.busy for service in services):
        for service in services:
            if service.busy:
                service.round()
