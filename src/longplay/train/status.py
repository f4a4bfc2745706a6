"""What a run directory says of its run: how far it is, how fast, how good."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from longplay.config import read_yaml
from longplay.errors import ConfigError
from longplay.train.log import HELD_OUT, read_metrics, series

_HIGHER_IS_BETTER = ("accuracy", "usage", "perplexity")
_BOOK = "_book_"
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Metric:
    """One metric: its last value, the best one and the step it was reached at, and all values in order."""

    name: str
    last: float
    best: float
    best_step: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class CodebookUse:
    """How a codebook was used in the last evaluation: share of its codes, how many never, perplexity."""

    number: int
    usage: float
    dead: int
    perplexity: float


@dataclass(frozen=True)
class Status:
    """A run at the time of its last log line.

    Attributes:
        seconds_left: at the speed of the last line; None before there is one.
        held_out, training: metrics, in the order of the log.
        codebooks: of a tokenizer or codec.
    """

    stage: str
    step: int
    steps: int
    steps_per_second: float | None
    seconds_left: float | None
    held_out: tuple[Metric, ...]
    training: tuple[Metric, ...]
    codebooks: tuple[CodebookUse, ...]


def read_status(run: Path) -> Status:
    """The status of a run directory.

    Raises:
        ConfigError: it is no run directory.
    """
    from longplay.train.starts import CONFIG

    if not (run / CONFIG).is_file():
        raise ConfigError(f"{run}: has no {CONFIG}; give the directory of a run")
    config = read_yaml(run / CONFIG)
    records = read_metrics(run)
    steps, step = int(config["loop"]["steps"]), int(records[-1]["step"]) if records else 0
    speeds = series(records, "steps_per_second")[1]
    names = list(dict.fromkeys(name for record in records for name in record))
    values = [name for name in names if name not in ("time", "step", "rate", "steps_per_second")]
    return Status(
        stage=str(config["stage"]),
        step=step,
        steps=steps,
        steps_per_second=speeds[-1] if speeds else None,
        seconds_left=(steps - step) / speeds[-1] if speeds else None,
        held_out=tuple(_metric(records, name) for name in values if name.startswith(HELD_OUT) and _BOOK not in name),
        training=tuple(_metric(records, name) for name in values if not name.startswith(HELD_OUT)),
        codebooks=_codebooks(records),
    )


def sparkline(values: tuple[float, ...], width: int = 32) -> str:
    """A curve of `width` characters; each shows the mean of the values that fall on it."""
    if not values:
        return ""
    width = min(width, len(values))
    edges = [index * len(values) // width for index in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    return "".join(_BARS[round((mean - low) / span * (len(_BARS) - 1)) if span else 0] for mean in means)


def _codebooks(records: list[dict[str, float]]) -> tuple[CodebookUse, ...]:
    """Those of the last evaluation that counted codes."""
    counted = [record for record in records if f"{HELD_OUT}dead" in record]
    if not counted:
        return ()
    last = {name.removeprefix(HELD_OUT): value for name, value in counted[-1].items()}
    numbers = [int(name.rpartition("_")[2]) for name in last if name.startswith(f"dead{_BOOK}")]
    suffixes = {number: f"{_BOOK}{number}" for number in numbers} or {1: ""}
    return tuple(
        CodebookUse(
            number=number,
            usage=last[f"usage{suffix}"],
            dead=round(last[f"dead{suffix}"]),
            perplexity=last[f"perplexity{suffix}"],
        )
        for number, suffix in suffixes.items()
    )


def _metric(records: list[dict[str, float]], name: str) -> Metric:
    steps, values = series(records, name)
    sign = -1 if any(word in name for word in _HIGHER_IS_BETTER) else 1
    best = min(range(len(values)), key=lambda index: sign * values[index])
    return Metric(name.removeprefix(HELD_OUT), values[-1], values[best], int(steps[best]), tuple(values))
