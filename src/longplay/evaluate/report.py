"""What an evaluation found: `results.json`, a Markdown table per part, and one picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from longplay.files import write_text
from longplay.report import number, save_figure, table, to_json

COMPARED = ("mel", "frechet")
"""The columns that the picture shows."""


@dataclass(frozen=True)
class Row:
    """One system, measured."""

    system: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Part:
    """One part of the evaluation.

    Attributes:
        name: codec, tokenizer, flow, generation, adherence or speed.
        about: what was compared with what.
        rows: the systems, the model's own first.
        facts: figures that belong to the model alone.
        missing: why there are no figures, or None.
    """

    name: str
    about: str
    rows: Sequence[Row] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
    missing: str | None = None


@dataclass(frozen=True)
class Report:
    """All parts of one evaluation.

    Attributes:
        model: name or directory.
        digest: SHA-256 over its weights.
        parameters: of each model it has.
        setting: what was evaluated on: clips, seconds, tracks, device, version.
    """

    model: str
    digest: str
    parameters: Mapping[str, int]
    setting: Mapping[str, str | int | float]
    parts: Sequence[Part]


def write_report(report: Report, folder: Path) -> None:
    """Write `results.json`, `results.md` and `results.png` into `folder`, each in one step."""
    write_text(folder / "results.json", to_json(asdict(report)))
    write_text(folder / "results.md", markdown(report))
    _plot(report, folder / "results.png")


def markdown(report: Report) -> str:
    """One table per part; a part without figures says why."""
    sizes = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in report.parameters.items())
    setting = ", ".join(f"{key} {value}" for key, value in report.setting.items())
    lines = [f"# Evaluation of {report.model}", "", f"Parameters: {sizes or 'none'}. Setting: {setting}.", ""]
    for part in report.parts:
        lines += [f"## {part.name}", "", part.about, ""]
        if part.missing is not None:
            lines += [f"**Missing:** {part.missing}", ""]
        if part.rows:
            lines += [*table("system", ((row.system, row.values) for row in part.rows)), ""]
        lines += [f"- {name}: {number(value)}" for name, value in part.facts.items()]
        lines += [""] if part.facts else []
    return "\n".join(lines)


def _plot(report: Report, path: Path) -> None:
    from matplotlib.figure import Figure

    panels = [
        (part, name) for part in report.parts for name in COMPARED if any(name in row.values for row in part.rows)
    ]
    figure = Figure(figsize=(11, 1 + 2.2 * max(1, math.ceil(len(panels) / 2))), layout="constrained")
    for index, (part, name) in enumerate(panels, 1):
        rows = [row for row in part.rows if name in row.values]
        axes = figure.add_subplot(math.ceil(len(panels) / 2), 2, index)
        bars = axes.barh(
            [row.system for row in rows],
            [row.values[name] for row in rows],
            color=["tab:orange" if row is part.rows[0] else "tab:gray" for row in rows],
        )
        axes.bar_label(bars, fmt="%.3g", padding=2)
        axes.margins(x=0.15)
        axes.invert_yaxis()
        axes.set_title(f"{part.name}: {name} (lower is better)")
    save_figure(figure, path, dpi=90)
