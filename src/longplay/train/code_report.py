"""How a model uses its codebooks: figures for the log, and a picture beside the curves."""

from pathlib import Path

from longplay.nn.quantizers import CodeUsage, figures_by_book
from longplay.report import save_figure

PICTURE = "codes.png"


def code_figures(usage: CodeUsage) -> dict[str, float]:
    """Share of the codes in use (`usage`), codes never used (`dead`), perplexity: means over codebooks, and of each of several."""
    by_book: dict[str, tuple[float, ...]] = {
        "usage": usage.books,
        "dead": tuple(map(float, usage.dead)),
        "perplexity": usage.perplexities,
    }
    means = {name: sum(values) / len(values) for name, values in by_book.items()}
    books = {key: value for name, values in by_book.items() for key, value in figures_by_book(name, values).items()}
    return means | books


def draw_codes(usage: CodeUsage, path: Path) -> None:
    """A picture of how often each code occurs, from the most frequent to the rarest, a row for each codebook."""
    from matplotlib.figure import Figure

    books, size = usage.counts.shape
    figure = Figure(figsize=(7, 0.6 + 2 * books), layout="constrained")
    for number, counts in enumerate(usage.counts.cpu(), 1):
        axes = figure.add_subplot(books, 1, number)
        total = int(counts.sum())
        axes.fill_between(range(size), counts.sort(descending=True).values, step="mid", label="as used")
        axes.axhline(total / size, color="black", linewidth=1, label="all used alike")
        axes.set_yscale("symlog", linthresh=1)
        axes.set(
            title=f"codebook {number}: {usage.books[number - 1]:.1%} in use, {usage.dead[number - 1]} of {size} dead, "
            f"perplexity {usage.perplexities[number - 1]:.0f}",
            xlabel="codes by frequency" if number == books else "",
            ylabel=f"of {total:,}",
            xlim=(0, size - 1),
            ylim=(0, None),
        )
        axes.legend()
    save_figure(figure, path, dpi=80)
