"""What a bench found: a table for the terminal, JSON, and a picture of the cost over length."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from longplay.bench.measure import exponent
from longplay.data.manifest import write_text
from longplay.errors import UserError


@dataclass(frozen=True)
class Row:
    """One contender: ours in one of its forms, or the baseline.

    Attributes:
        name: what ran.
        values: its figures; units are part of their names.
    """

    name: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Curve:
    """What making a piece costs as it gets longer.

    Attributes:
        name: what ran.
        seconds: lengths of music.
        cost: seconds of computing for all of it, up to each length.
    """

    name: str
    seconds: Sequence[float]
    cost: Sequence[float]

    @property
    def exponent(self) -> float:
        """1: linear in the length."""
        return exponent(self.seconds, self.cost)


@dataclass(frozen=True)
class BenchReport:
    """All of one bench.

    Attributes:
        stage: lm, flow, codec, pipeline or serve.
        model: what was measured.
        setting: length, batch, threads, machine, version.
        limits: of the machine, in the same run.
        rows: the contenders, ours first.
        curves: cost over length.
    """

    stage: str
    model: str
    setting: Mapping[str, str | int | float]
    limits: Mapping[str, float]
    rows: Sequence[Row]
    curves: Sequence[Curve] = ()


def markdown(report: BenchReport) -> str:
    """A table of the contenders, the limits beside it."""
    setting = ", ".join(f"{key} {value}" for key, value in report.setting.items())
    limits = ", ".join(f"{key} {_number(value)}" for key, value in report.limits.items())
    columns = list(dict.fromkeys(name for row in report.rows for name in row.values))
    lines = [f"## bench {report.stage}: {report.model}", "", f"{setting}. Limits: {limits}.", ""]
    lines += [f"| {report.stage} | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for row in report.rows:
        cells = [_number(row.values[name]) if name in row.values else "" for name in columns]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    for curve in report.curves:
        if not math.isnan(curve.exponent):
            lines += ["", f"Cost of {curve.name} grows with length to the power {curve.exponent:.2f}."]
    return "\n".join(lines) + "\n"


def check_plotting() -> None:
    """Find out before the work whether the picture can be drawn.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("matplotlib is missing; install it with: pip install 'longplay[evaluate]'") from None


def write_report(report: BenchReport, path: Path) -> None:
    """Write `path` (JSON) and, if there are curves, a picture beside it with the suffix .png."""
    found = {**asdict(report), "exponents": {curve.name: curve.exponent for curve in report.curves}}
    write_text(path, json.dumps(_plain(found), indent=2, ensure_ascii=False) + "\n")
    if report.curves:
        _plot(report, path.with_suffix(".png"))


def _number(value: float) -> str:
    return f"{value:.0f}" if 1000 <= abs(value) < math.inf else f"{value:.3g}"


def _plain(value: object) -> object:
    """JSON has no infinity and no NaN: they become null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plot(report: BenchReport, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for curve in report.curves:
        axes.loglog(curve.seconds, curve.cost, marker=".", label=f"{curve.name}: length^{curve.exponent:.2f}")
    longest = max(max(curve.seconds) for curve in report.curves)
    shortest = min(min(curve.seconds) for curve in report.curves)
    axes.loglog([shortest, longest], [shortest, longest], color="gray", linestyle=":", label="real time")
    axes.set_xlabel("seconds of music")
    axes.set_ylabel("seconds of computing")
    axes.set_title(f"{report.stage}, {report.model}")
    axes.legend()
    temporary = path.with_name(f".{path.name}.part")
    figure.savefig(temporary, dpi=90, format="png")
    temporary.replace(path)
