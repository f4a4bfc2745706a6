"""`longplay bench`: how fast each stage is, beside the limits of this machine and a baseline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from longplay.bench.report import BenchReport

app = typer.Typer(help="Measure speed against the machine's limits and a baseline.", no_args_is_help=True)

Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the figures here, and a picture beside it.")]


@app.command()
def lm(
    model: Annotated[
        str, typer.Option("--model", "-m", help="random:base, random:1.5b, nano, a model directory or a name on a hub.")
    ] = "nano",
    seconds: Annotated[float, typer.Option(min=2, help="Of music to make.")] = 30.0,
    batch: Annotated[int, typer.Option(min=1, help="Pieces at once, each a pair of rows.")] = 1,
    precision: Annotated[
        str, typer.Option(help="Forms that compete, some of float32,bfloat16,int8.")
    ] = "float32,bfloat16,int8",
    cache: Annotated[Literal["float32", "bfloat16", "int8"], typer.Option(help="Of keys and values.")] = "float32",
    baseline_seconds: Annotated[
        float, typer.Option(min=0, help="Of music for the transformers loop to make; 0 leaves it out.")
    ] = 5.0,
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Codes per second of the language model, guidance included."""
    prepare(threads, json)
    import torch

    from longplay.bench.lm import LMBench, parse_precisions

    bench = LMBench(model, seconds, batch, parse_precisions(precision), baseline_seconds, getattr(torch, cache))
    show(bench.run(), json)


def prepare(threads: int | None, json: Path | None) -> None:
    """Before a bench: the number of threads, and whether its picture can be drawn."""
    import torch

    from longplay.bench.report import check_plotting

    if threads:
        torch.set_num_threads(threads)
    if json is not None:
        check_plotting()


def show(report: "BenchReport", json: Path | None) -> None:
    """After a bench: the table on stdout, the figures in `json`."""
    from longplay.bench.report import markdown, write_report

    typer.echo(markdown(report), nl=False)
    if json is not None:
        write_report(report, json)
