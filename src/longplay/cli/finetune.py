"""`longplay finetune`: a model that sounds more like a folder of music."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from longplay.cli.packages import TRAINING, need

_MUSIC, _LEARNING, _COMPUTER = "Your music", "Learning", "Your computer"


def finetune(
    music: Annotated[
        Path, typer.Argument(metavar="MUSIC", help="A folder of audio files (or a .jsonl or .csv manifest).")
    ],
    run: Annotated[
        Path, typer.Option(help="Directory for everything that is made; one that was begun is gone on with.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="nano, a model directory, or a name on a hub.")] = "nano",
    caption: Annotated[
        str | None, typer.Option(help="What all files are, e.g. 'slow tape-worn piano'.", rich_help_panel=_MUSIC)
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(help="A word that calls for this music in later prompts.", rich_help_panel=_MUSIC)
    ] = None,
    tags: Annotated[
        bool,
        typer.Option(
            help="Let musicnn (fetched once) hear styles and instruments, for captions.", rich_help_panel=_MUSIC
        ),
    ] = True,
    valid: Annotated[
        float, typer.Option(min=0.01, max=0.5, help="Share of the files to measure with.", rich_help_panel=_MUSIC)
    ] = 0.1,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Manifest or token shards of other music: measure that it is not forgotten.", rich_help_panel=_MUSIC
        ),
    ] = None,
    keep_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.9,
            help="Of what is learnt from, this share is of --keep: it is forgotten less.",
            rich_help_panel=_MUSIC,
        ),
    ] = 0.0,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Train all weights instead of a small change (LoRA); makes a whole model.",
            rich_help_panel=_LEARNING,
        ),
    ] = False,
    rank: Annotated[int, typer.Option(min=1, help="Size of the change.", rich_help_panel=_LEARNING)] = 16,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Default: eight times through the music, 200 at least, 2,000 at most.",
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=0, help="Default: 1e-3, with --full 1e-4.", show_default=False, rich_help_panel=_LEARNING),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Windows of music in a step; fewer need less memory.", rich_help_panel=_LEARNING)
    ] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of all random numbers.", rich_help_panel=_LEARNING)] = 0,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Also write a whole model, for --model RUN/model.", rich_help_panel=_LEARNING),
    ] = False,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="Make samples of this, before and after; again for more. Default: captions of two held-out files.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    sample_seconds: Annotated[
        float, typer.Option(min=1, help="Length of each sample.", rich_help_panel=_LEARNING)
    ] = 10.0,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Say what memory and time it needs, and stop.", rich_help_panel=_COMPUTER),
    ] = False,
    budget_seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Stop training after this time; the same command goes on.", rich_help_panel=_COMPUTER),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.", rich_help_panel=_COMPUTER)
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that prepare the music; default: one a core.", rich_help_panel=_COMPUTER),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: all.", rich_help_panel=_COMPUTER)
    ] = None,
) -> None:
    """Make a model sound more like your music: prepare, learn, measure, sample, in one command.

    `longplay finetune my-songs --run runs/mine --trigger mystyle`

    `longplay generate "mystyle, slow piano" --adapter runs/mine/adapter`

    15 minutes of music and more are good, at least 1 is needed. Some files are held out to measure with.

    Captions come from file names, tags and what is heard; song.txt beside song.flac may hold better ones.

    It says what memory and time learning needs before it prepares anything. Ctrl-C stops it, and the same command goes on.

    RUN/report.md tells the outcome, with samples from before and after.
    """
    import math
    import os

    need(
        (*TRAINING, *(() if full else ("peft",))),
        "finetuning",
        "finetune",
        "" if full else ", or train all weights: --full",
    )
    from longplay.cli.progress import log_and_limit, stage_bars
    from longplay.train.finetune import FinetuneConfig, How
    from longplay.train.finetune import finetune as make

    with stage_bars("prepare", "hear", "encode", "encode other") as progress:
        log_and_limit(threads)  # here, so that what is logged stands above the bars
        make(
            FinetuneConfig.parse(
                {
                    "music": str(music.absolute()),
                    "model": model,
                    "caption": caption,
                    "trigger": trigger,
                    "keep": None if keep is None else str(keep.absolute()),
                    "keep_share": keep_share,
                    "full": full,
                    "rank": rank,
                    "steps": steps,
                    "learning_rate": learning_rate,
                    "batch_size": batch_size,
                    "valid": valid,
                    "tags": tags,
                    "prompts": tuple(prompt or ()),
                    "sample_seconds": sample_seconds,
                    "seed": seed,
                },
                source="options",
            ),
            run,
            How(
                device=device,
                workers=workers or os.cpu_count() or 1,
                budget_seconds=math.inf if budget_seconds is None else budget_seconds,
                merge=merge,
                plan_only=plan,
                progress=progress,
                say=lambda line: typer.echo(line, err=True),
            ),
        )
