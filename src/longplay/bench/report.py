"""What a bench found: a table for the terminal, JSON, and a picture of the cost over length."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from longplay.bench.measure import exponent
from longplay.files import write_text
from longplay.report import number, save_figure, table, to_json


@dataclass(frozen=True)
class Row:
    """One contender: ours in one of its forms, or the baseline.

    Attributes:
        name: what ran.
        values: its figures; units are part of their names.
    """

    name: str
    values: Mapping[str, float]

    def against(self, cost: float) -> "Row":
        """With its speed relative to that of a baseline which takes `cost` seconds per second of music."""
        return Row(self.name, {**self.values, "times_baseline": cost / self.values["s_per_s"]})


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
    limits = ", ".join(f"{key} {number(value)}" for key, value in report.limits.items())
    lines = [f"## bench {report.stage}: {report.model}", "", f"{setting}. Limits: {limits}.", ""]
    lines += table(report.stage, ((row.name, row.values) for row in report.rows))
    for curve in report.curves:
        if not math.isnan(curve.exponent):
            lines += ["", f"Cost of {curve.name} grows with length to the power {curve.exponent:.2f}."]
    return "\n".join(lines) + "\n"


def write_report(report: BenchReport, path: Path) -> None:
    """Write `path` (JSON) and, if there are curves, a picture beside it with the suffix .png."""
    found = {**asdict(report), "exponents": {curve.name: curve.exponent for curve in report.curves}}
    write_text(path, to_json(found))
    if report.curves:
        _plot(report, path.with_suffix(".png"))


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
    save_figure(figure, path, dpi=90)
