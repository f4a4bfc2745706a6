"""What reports share: figures as text, Markdown tables, JSON without infinities, pictures written in one step."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from longplay.address import Location
from longplay.errors import UserError
from longplay.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def number(value: float) -> str:
    """Three significant digits, or whole thousands."""
    return f"{value:.0f}" if 1000 <= abs(value) < math.inf else f"{value:.3g}"


def table(corner: str, rows: Iterable[tuple[str, Mapping[str, float]]]) -> list[str]:
    """Lines of a Markdown table: a name and its figures per row; every column that some row has, gaps where it has none.

    Args:
        corner: what the names are.
        rows: name and figures by column.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(column for _, values in rows for column in values))
    lines = [f"| {corner} | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for name, values in rows:
        cells = [number(values[column]) if column in values else "" for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def to_json(value: object) -> str:
    """Indented JSON text; infinity and NaN, which JSON has not, become null."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_plotting() -> None:
    """Find out before hours of work whether a picture can be drawn.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("matplotlib is missing; install it with: pip install 'longplay[evaluate]'") from None


def save_figure(figure: "Figure", path: Location, dpi: int) -> None:
    """Write a picture, of the format that its suffix names, in one step: it appears complete or not at all."""
    with replacing(path) as part:
        figure.savefig(part, dpi=dpi, format=path.suffix.removeprefix("."))
