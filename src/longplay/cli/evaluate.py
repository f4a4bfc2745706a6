"""`longplay evaluate`: a model on the test split of a corpus."""

from pathlib import Path
from typing import Annotated, Unpack

import typer

from longplay.cli import options


@options.grouped
def evaluate(
    model: Annotated[str, typer.Argument(help="`nano`, a model directory, or a name on a hub.")],
    manifest: Annotated[Path, typer.Option(help="Manifest of a corpus with a test split.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json, results.md, results.png and generated clips.")],
    clips: Annotated[int, typer.Option(min=2, help="Number of clips.")] = 64,
    seconds: Annotated[float, typer.Option(min=4, help="Length of each.")] = 10.0,
    parts: Annotated[
        str, typer.Option(help="Some of codec,tokenizer,flow,generation,speed,long,steps,continuation.")
    ] = "codec,tokenizer,flow,generation,speed",
    long_pieces: Annotated[int, typer.Option(min=2, help="Number of pieces of part long.")] = 6,
    long_seconds: Annotated[float, typer.Option(min=120, help="Length of each.")] = 480.0,
    candidates: Annotated[
        int | None, typer.Option(min=2, help="Generate each clip with the best of so many seeds. [default: off]")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: options.PrecisionOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all.")] = None,
    **given: Unpack[options.EvaluationOptions],
) -> None:
    """Measure reconstruction, generation, speed and, if asked, long pieces, beside Opus, real music and noise.

    `longplay evaluate nano --manifest corpus/manifest.jsonl --out runs/evaluation`
    """
    import torch

    from longplay.cli.request import only_given
    from longplay.evaluate.long_form import LongForm
    from longplay.evaluate.model import evaluate_model, parse_parts
    from longplay.evaluate.report import markdown
    from longplay.pipeline.precision import AUTO
    from longplay.prompt import GenerationOptions

    if threads:
        torch.set_num_threads(threads)
    report = evaluate_model(
        model,
        manifest,
        out,
        clips=clips,
        seconds=seconds,
        parts=parse_parts(parts),
        long_form=LongForm(long_pieces, long_seconds),
        candidates=candidates,
        options=GenerationOptions(**only_given(given)),
        device=device,
        precision=precision or AUTO,
    )
    typer.echo(markdown(report))
