"""A picture of a structure: the likeness of all bars, the novelty of the bar lines, and the sections."""

from pathlib import Path

import numpy as np

from longplay.analysis.structure import Structure
from longplay.errors import UserError
from longplay.report import save_figure

COLOURS = {"intro": "#999933", "verse": "#4477aa", "chorus": "#cc6677", "outro": "#882255"}


def plot_structure(structure: Structure, seconds: float, title: str, path: Path) -> None:
    """Draw `structure` of a piece of `seconds` to a picture file.

    Raises:
        UserError: without matplotlib, or where a piece is too short to have a structure.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("a plot needs matplotlib: `pip install 'longplay[train]'`") from None
    if not structure.sections:
        raise UserError(f"{title}: is too short to have sections, there is nothing to draw")
    figure = Figure(figsize=(7, 9), layout="constrained")
    matrix, novelty, bar = figure.subplots(3, 1, gridspec_kw={"height_ratios": [8, 1.5, 0.8]}, sharex=True)
    edges = np.append(structure.bars, 2 * structure.bars[-1] - structure.bars[-2])
    matrix.pcolormesh(edges, edges, structure.likeness, cmap="viridis", vmin=-0.5, vmax=1)
    matrix.set(title=title, ylabel="seconds", ylim=(edges[-1], edges[0]))
    novelty.plot(structure.bars, structure.novelty, color="black", linewidth=0.8)
    novelty.set(ylabel="novelty", ylim=(0, 1.05))
    for section, group in zip(structure.sections, structure.groups, strict=True):
        bar.axvspan(section.start, section.end, color=COLOURS[section.label], alpha=0.8, linewidth=0)
        bar.text(
            (section.start + section.end) / 2,
            0.5,
            f"{section.label}\n{chr(ord('A') + group % 26)}",
            ha="center",
            va="center",
            fontsize=7,
        )
        for axes in (matrix, novelty, bar):
            axes.axvline(section.start, color="white" if axes is matrix else "black", linewidth=0.7)
    bar.set(xlabel="seconds", yticks=[], xlim=(0, seconds), ylim=(0, 1))
    try:
        save_figure(figure, path, dpi=110)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be drawn ({error}); give a .png, .pdf or .svg") from None
