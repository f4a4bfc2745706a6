"""`longplay bench`: how fast each stage is, beside the limits of this machine and a baseline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from longplay.cli import options

if TYPE_CHECKING:
    import torch

    from longplay.bench.report import BenchReport

app = typer.Typer(help="Measure speed against the machine's limits and a baseline.", no_args_is_help=True)

Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all.")]
Json = Annotated[
    Path | None,
    typer.Option("--json", help="Also write the figures here, and a picture of the cost over length beside it."),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, mps, or auto: a GPU where there is one.")]

Model = Annotated[
    str, typer.Option("--model", "-m", help="random:base, random:1.5b, nano, a model directory or a name on a hub.")
]
Batch = Annotated[int, typer.Option(min=1, help="Pieces at once.")]
Repeats = Annotated[int, typer.Option(min=1, help="Of each contender, of which the median counts.")]


@app.command()
def lm(
    model: Model = "nano",
    seconds: Annotated[float, typer.Option(min=2, help="Of music to make.")] = 30.0,
    batch: Batch = 1,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Forms that compete, some of float32,bfloat16,int8,int8-compiled,int4; default: all that can."
        ),
    ] = None,
    cache: options.CacheOption = None,
    baseline_seconds: Annotated[
        float, typer.Option(min=0, help="Of music for the transformers loop to make; 0 leaves it out.")
    ] = 5.0,
    device: Device = "cpu",
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Codes per second of the language model, guidance included."""
    place = prepare(threads, json, device)

    from longplay.bench.lm import LMBench, parse_precisions

    forms = parse_precisions(precision, place)
    show(LMBench(model, seconds, batch, forms, baseline_seconds, cache, place).run(), json)


@app.command()
def flow(
    model: Model = "nano",
    seconds: Annotated[float, typer.Option(min=2, help="Of music to make.")] = 10.0,
    batch: Batch = 1,
    repeats: Repeats = 3,
    num_steps: options.NumStepsOption = None,
    solver: options.SolverOption = None,
    baseline_seconds: Annotated[
        float, typer.Option(min=0, help="The longest piece made whole, for comparison; 0 leaves it out.")
    ] = 10.0,
    study: Annotated[
        Literal["solver", "windows", "precision"] | None,
        typer.Option(help="Instead of the speed: what cheaper settings cost in quality, on trained weights."),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Seconds per second of music of the flow, in windows and whole; or one of three studies of its settings."""
    place = prepare(threads, json, device)
    if study is not None:
        if num_steps is not None or solver is not None or batch > 1 or place.type != "cpu":
            raise typer.BadParameter(
                f"--study {study} has settings of its own, on the CPU; leave out --num-steps, --solver, --batch and --device"
            )
        from longplay.bench.flow_studies import FlowStudy

        show(FlowStudy(model, study, seconds).run(), json)
        return
    from longplay.bench.flow import FlowBench

    show(FlowBench(model, seconds, repeats, num_steps, solver, baseline_seconds, place, batch).run(), json)


@app.command()
def codec(
    model: Model = "nano",
    seconds: Annotated[float, typer.Option(min=2, help="Of music to decode.")] = 10.0,
    batch: Batch = 1,
    repeats: Repeats = 3,
    device: Device = "cpu",
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Seconds per second of music of the codec's and the tokenizer's decoders, in windows and whole."""
    place = prepare(threads, json, device)
    from longplay.bench.codec import CodecBench

    show(CodecBench(model, seconds, repeats, place, batch).run(), json)


@app.command()
def pipeline(
    model: Model = "nano",
    seconds: Annotated[float, typer.Option(min=4, help="Of music to make.")] = 30.0,
    shortest: Annotated[
        float | None,
        typer.Option(min=1, help="Make this much too, and nothing between. [default: a quarter and a half]"),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of the lm: auto, float32, bfloat16, int8, int8-compiled or int4.")
    ] = "auto",
    fast: Annotated[bool, typer.Option("--fast", help="Through the tokenizer instead of flow and codec.")] = False,
    baseline_seconds: Annotated[
        float, typer.Option(min=0, help="Of music to make one stage after the other; 0 leaves it out.")
    ] = 10.0,
    num_steps: options.NumStepsOption = None,
    solver: options.SolverOption = None,
    cache: options.CacheOption = None,
    history_seconds: options.HistorySecondsOption = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds of all lengths, of which the medians count.")] = 3,
    device: Device = "cpu",
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Prompt to sound: speed, first sound, memory."""
    place = prepare(threads, json, device)
    from longplay.bench.pipeline import PipelineBench
    from longplay.prompt import GenerationOptions

    given = GenerationOptions(
        seed=0, fast=fast, num_steps=num_steps, solver=solver, cache=cache, history_seconds=history_seconds
    )
    lengths = (seconds / 4, seconds / 2, seconds) if shortest is None else (shortest, seconds)
    show(PipelineBench(model, lengths, precision, given, baseline_seconds, place, repeats).run(), json)


@app.command()
def serve(
    model: Model = "nano",
    seconds: Annotated[float, typer.Option(min=1, help="Of the longest piece; the shortest is half as long.")] = 10.0,
    pieces: Annotated[int, typer.Option(min=1, help="How many are asked for.")] = 16,
    slots: Annotated[int, typer.Option(min=1, help="How many run at once.")] = 8,
    every: Annotated[float, typer.Option(min=0, help="Seconds between two requests; 0: all at the start.")] = 0.0,
    precision: Annotated[
        str, typer.Option(help="Of the lm: auto, float32, bfloat16, int8, int8-compiled or int4.")
    ] = "auto",
    fast: Annotated[bool, typer.Option("--fast", help="Through the tokenizer instead of flow and codec.")] = False,
    num_steps: options.NumStepsOption = None,
    solver: options.SolverOption = None,
    cache: options.CacheOption = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds of both sides, of which the medians count.")] = 1,
    device: Device = "cpu",
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Many pieces at once, which come and go, from prompt to sound; against one piece after the other."""
    place = prepare(threads, json, device)
    from longplay.bench.serve import ServeBench
    from longplay.prompt import GenerationOptions

    given = GenerationOptions(fast=fast, num_steps=num_steps, solver=solver, cache=cache)
    show(ServeBench(model, seconds, pieces, slots, every, precision, place, repeats, given).run(), json)


def prepare(threads: int | None, json: Path | None, device: str) -> "torch.device":
    """Before a bench: the number of threads, whether its picture can be drawn, and the device."""
    import torch

    from longplay.pipeline.device import resolve_device
    from longplay.report import check_plotting

    if threads:
        torch.set_num_threads(threads)
    if json is not None:
        check_plotting()
    return resolve_device(device)


def show(report: "BenchReport", json: Path | None) -> None:
    """After a bench: the table on stdout, the figures in `json`."""
    from longplay.bench.report import markdown, write_report

    typer.echo(markdown(report), nl=False)
    if json is not None:
        write_report(report, json)
