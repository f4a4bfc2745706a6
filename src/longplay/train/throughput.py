"""How many hours of audio `train tokens` encodes in an hour, and what more workers bring.

What is measured is the whole of it: decoding, resampling, encoding in the workers, writing shards in this process. The
clock starts once as many tracks are done as there are workers, so that starting them and loading the models, which a long
run does once, is told apart.
"""

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from longplay import __version__
from longplay.data.manifest import Track
from longplay.data.workers import Outcome
from longplay.errors import UserError
from longplay.files import write_text
from longplay.report import table, to_json
from longplay.train.encoding import Codes, Job
from longplay.train.tokens import EncodeAll, prepare_tokens

# tracks per worker below which the last ones alone decide
_LEAST = 4


@dataclass(frozen=True)
class Throughput:
    """One number of workers, medians over the repeats.

    Attributes:
        start_seconds: until the first tracks were done.
        hours_per_hour: of audio, from then on.
        speedup: over the first number of workers.
        efficiency: of `speedup` for each added worker.
    """

    workers: int
    start_seconds: float
    hours_per_hour: float
    speedup: float
    efficiency: float


@dataclass(frozen=True)
class ThroughputReport:
    """All numbers of workers on the same tracks, and what they were measured on."""

    setting: Mapping[str, str | int | float]
    rows: Sequence[Throughput]

    def lines(self) -> list[str]:
        """A Markdown table."""
        named = ((str(row.workers), {k: v for k, v in asdict(row).items() if k != "workers"}) for row in self.rows)
        return [", ".join(f"{key} {value}" for key, value in self.setting.items()), "", *table("workers", named)]

    def write(self, folder: Path) -> None:
        """Write `throughput.json` and `throughput.md` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "throughput.json", to_json(asdict(self)))
        write_text(folder / "throughput.md", "\n".join(self.lines()) + "\n")


def measure_throughput(
    manifest: str,
    encode_all: Callable[[int], EncodeAll],
    counts: Sequence[int],
    hours: float = 0.5,
    repeats: int = 3,
    setting: Mapping[str, str | int | float] | None = None,
) -> ThroughputReport:
    """Encode the first `hours` of a corpus with each number of workers in turn, `repeats` times, into nothing.

    Args:
        manifest: path or address.
        encode_all: what `prepare_tokens` takes, for a number of workers.
        counts: numbers of workers; the others are compared with the first.
        hours: of audio; all of the corpus if it has less.
        repeats: rounds over all of `counts`.
        setting: further facts for the report.

    Raises:
        UserError: too few tracks to keep the workers busy.
        TrainingError: see `prepare_tokens`.
    """
    chosen: list[Track] = []

    def choose(tracks: list[Track]) -> list[Track]:
        chosen[:] = _first(tracks, hours)
        if len(chosen) < _LEAST * max(counts):
            raise UserError(
                f"{manifest}: has {len(chosen)} tracks in its first {hours:g} h, too few for {max(counts)} workers; "
                f"measure on {_LEAST * max(counts)} or more"
            )
        return chosen

    measured: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for _ in range(repeats):
        for count in counts:
            measured[count].append(_once(manifest, encode_all(count), count, choose))
    medians = {
        count: (statistics.median(start for start, _ in runs), statistics.median(rate for _, rate in runs))
        for count, runs in measured.items()
    }
    base = medians[counts[0]][1]
    rows = [
        Throughput(count, start, rate, rate / base, rate / base * counts[0] / count)
        for count, (start, rate) in medians.items()
    ]
    facts: dict[str, str | int | float] = {
        "tracks": len(chosen),
        "audio_hours": round(sum(track.seconds for track in chosen) / 3600, 3),
        "repeats": repeats,
        "cpus": os.cpu_count() or 1,
        "machine": platform.machine(),
        "version": __version__,
    }
    return ThroughputReport({**(setting or {}), **facts}, rows)


def _once(
    manifest: str, encode_all: EncodeAll, workers: int, choose: Callable[[list[Track]], list[Track]]
) -> tuple[float, float]:
    """Seconds until `workers` tracks were done, and hours of audio an hour after that."""
    done: list[tuple[float, float]] = []

    def timed(jobs: Sequence[Job]) -> Iterator[Outcome[Job, Codes]]:
        for outcome in encode_all(jobs):
            done.append((time.monotonic(), 0.0 if outcome.result is None else outcome.result.seconds))
            yield outcome

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        prepare_tokens(manifest, folder, timed, choose)
    ended = time.monotonic()
    started = done[workers - 1][0]
    return started - began, sum(seconds for _, seconds in done[workers:]) / max(ended - started, 1e-9)


def _first(tracks: list[Track], hours: float) -> list[Track]:
    found, seconds = [], 0.0
    for track in tracks:
        if seconds >= 3600 * hours:
            break
        found.append(track)
        seconds += track.seconds
    return found
