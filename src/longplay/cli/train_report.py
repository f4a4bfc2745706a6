"""`longplay train status`, `plan` and `throughput`: how a run does, what one would cost, how fast tokens are made."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longplay.cli import options

if TYPE_CHECKING:
    from longplay.train.status import Status


def status(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
) -> None:
    """How far runs are, how fast, and how good: last and best values, and their curves."""
    from rich.console import Console

    from longplay.train.status import read_status

    console = Console()
    for run in runs:
        current = read_status(run)
        console.print(f"[bold]{run}[/bold]: {_headline(current)}", highlight=False)
        console.print(_table(current))
        for book in current.codebooks:
            console.print(
                f"codebook {book.number}: {book.usage:.1%} in use, {book.dead} codes dead, perplexity {book.perplexity:.4g}",
                highlight=False,
            )


def plan(
    preset: Annotated[str, typer.Argument(help="A preset (base, 1.5b, nano-codec ...) or a YAML file.")],
    gpus: Annotated[int, typer.Option(min=1, help="How many, over all machines.")] = 8,
    gpu: Annotated[str, typer.Option(help="a100, h100, h200 or l40s.")] = "h100",
    utilisation: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of the peak that is reached.")] = 0.4,
    override: Annotated[list[str] | None, typer.Option("--set", help="Config override, e.g. batch_size=256.")] = None,
) -> None:
    """What training costs on so many GPUs: memory, compute, time and data, by arithmetic."""
    from longplay.train.build import load_stage_config
    from longplay.train.lm_stage import LMStageConfig
    from longplay.train.plan import Cluster, describe, describe_division, divide, plan_lm_stage
    from longplay.train.plan_crops import describe_crops, plan_crops

    config = load_stage_config(preset, override or [])
    cluster = Cluster(gpu=gpu, gpus=gpus, utilisation=utilisation)
    batch_size, accumulate = divide(config.batch_size, config.loop.accumulate, gpus)
    division = describe_division(config.batch_size, config.loop.accumulate, gpus)
    if isinstance(config, LMStageConfig):
        lm = plan_lm_stage(config, cluster, batch_size=batch_size, accumulate=accumulate)
        lines = describe(lm, cluster)
    else:
        crops = plan_crops(config, cluster, batch_size=batch_size, accumulate=accumulate)
        lines = describe_crops(crops, cluster)
    typer.echo("\n".join([*division, lines]))


def throughput(
    manifest: Annotated[str, typer.Argument(help="Manifest of a corpus: a path or an address.")],
    model: Annotated[str, typer.Option(help="Model with the tokenizer.")],
    codec: Annotated[str | None, typer.Option(help="Model with the codec.")] = None,
    workers: Annotated[str, typer.Option(help="Numbers of workers to compare, e.g. 1,2,4.")] = "1,2",
    hours: Annotated[float, typer.Option(min=0.0, help="Of audio to encode each time.")] = 0.5,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; medians are told.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each worker, whatever their number.")] = 1,
    device: Annotated[str, typer.Option(help="Where the models compute, e.g. cpu or cuda.")] = "cpu",
    cluster: options.ClusterOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for throughput.json and throughput.md.")] = None,
) -> None:
    """Hours of audio an hour that `train tokens` encodes, and how it grows with the workers."""
    from longplay.data.cluster import join_cluster
    from longplay.train.encoding import Encoder, encode_in_processes, encode_on_ray
    from longplay.train.throughput import measure_throughput
    from longplay.train.tokens import EncodeAll

    try:
        counts = [int(part) for part in workers.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1 or len(set(counts)) < len(counts):
        raise typer.BadParameter(f"--workers {workers}: give different numbers of 1 or more, e.g. 1,2,4")
    Encoder.load(model, codec)  # what is wrong with the models is said here, once

    def encode_all(count: int) -> EncodeAll:
        if cluster is None:
            return encode_in_processes(model, codec, count, device, threads)
        join_cluster(max(counts))
        return encode_on_ray(model, codec, count, device, threads)

    setting: dict[str, str | int | float] = {"model": model, "codec": codec or "none", "device": device}
    setting |= {"threads": threads, "cluster": cluster or "none"}
    report = measure_throughput(manifest, encode_all, counts, hours, repeats, setting)
    typer.echo("\n".join(report.lines()))
    if out is not None:
        report.write(out)


def _headline(status: "Status") -> str:
    parts = [f"{status.stage}, step {status.step} of {status.steps} ({100 * status.step / status.steps:.0f} %)"]
    if status.steps_per_second and status.seconds_left is not None:
        parts += [f"{status.steps_per_second:.3g} steps/s", f"{_duration(status.seconds_left)} left"]
    return ", ".join(parts)


def _table(status: "Status") -> object:
    from rich import box
    from rich.table import Table

    from longplay.train.status import sparkline

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("metric", "last", "best", "at step"):
        table.add_column(column, justify="left" if column == "metric" else "right", no_wrap=True)
    table.add_column("curve", no_wrap=True)
    for kind, metrics in (("held out ", status.held_out), ("", status.training)):
        for metric in metrics:
            best = f"{metric.best:.4g}"
            table.add_row(
                kind + metric.name, f"{metric.last:.4g}", best, str(metric.best_step), sparkline(metric.values)
            )
    return table


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{round(seconds)} s"
