"""`longplay train status` and `longplay train plan`: how a run does, and what one would cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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


def plan(
    preset: Annotated[str, typer.Argument(help="A preset of stage lm (base, 1.5b, nano-lm) or a YAML file.")],
    gpus: Annotated[int, typer.Option(min=1, help="How many, over all machines.")] = 8,
    gpu: Annotated[str, typer.Option(help="a100, h100, h200 or l40s.")] = "h100",
    utilisation: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of the peak that is reached.")] = 0.4,
    override: Annotated[list[str] | None, typer.Option("--set", help="Config override, e.g. batch_size=256.")] = None,
) -> None:
    """What training a language model costs: memory, compute, time and data, by arithmetic."""
    from longplay.errors import ConfigError
    from longplay.train.build import load_stage_config
    from longplay.train.lm_stage import LMStageConfig
    from longplay.train.plan import Cluster, describe, plan_lm

    config = load_stage_config(preset, override or [])
    if not isinstance(config, LMStageConfig):
        raise ConfigError(f"{preset}: trains the {config.stage}, which one GPU can do; plan an lm")
    cluster = Cluster(gpu=gpu, gpus=gpus, utilisation=utilisation)
    loop = config.loop
    result = plan_lm(
        config.lm,
        cluster,
        batch_size=config.batch_size,
        steps=loop.steps,
        accumulate=loop.accumulate,
        shard=loop.shard,
        checkpoint_activations=loop.checkpoint_activations,
    )
    typer.echo(describe(result, cluster))


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
