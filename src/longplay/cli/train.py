"""`longplay train`: one stage, from a preset or a YAML file, into a run directory that it can resume."""

from pathlib import Path
from typing import Annotated

import typer

from longplay.checkpoint.names import ModelName
from longplay.cli.train_report import plan, status

app = typer.Typer(help="Train the models: tokenizer, codec, lm, flow.", no_args_is_help=True)
app.command()(status)
app.command()(plan)


@app.command("run")
def run(
    config: Annotated[
        str, typer.Argument(help="A preset (nano-tokenizer, nano-codec, nano-lm, nano-flow) or a YAML file.")
    ],
    directory: Annotated[Path, typer.Option("--run", help="Run directory; a run that is there is resumed.")],
    data: Annotated[Path, typer.Option(help="Manifest (tokenizer, codec) or folder of token shards (lm, flow).")],
    override: Annotated[list[str] | None, typer.Option("--set", help="Config override, e.g. loop.steps=2000.")] = None,
    budget_seconds: Annotated[float | None, typer.Option(help="Stop, resumably, after this time.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all.")] = None,
) -> None:
    """Train one stage, or go on with a run. Several processes: torchrun --nproc-per-node N --no-python -- longplay train run ..."""
    import math

    from longplay.train.build import load_stage_config
    from longplay.train.run import train_run

    _log_and_limit(threads)
    train_run(load_stage_config(config, override or []), data, directory, budget_seconds or math.inf)


@app.command("tokens")
def tokens(
    manifest: Annotated[Path, typer.Argument(help="Manifest of the corpus.")],
    out: Annotated[Path, typer.Argument(help="Folder for the token shards.")],
    model: Annotated[str, typer.Option(help="Model with the tokenizer.")],
    codec: Annotated[
        str | None, typer.Option(help="Model with the codec; without it the shards serve lm alone.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all.")] = None,
) -> None:
    """Encode a corpus into token shards for the stages lm and flow; resumable."""
    from longplay.checkpoint.system import load_system
    from longplay.errors import CheckpointError
    from longplay.train.tokens import prepare_tokens

    _log_and_limit(threads)
    tokenizer = load_system(model)
    if tokenizer.tokenizer is None:
        raise CheckpointError(f"{model}: has no tokenizer to encode with, only {', '.join(tokenizer.config.present)}")
    acoustic = None if codec is None else load_system(codec)
    if acoustic is not None and acoustic.codec is None:
        raise CheckpointError(f"{codec}: has no codec to encode with, only {', '.join(acoustic.config.present)}")
    prepare_tokens(manifest, out, tokenizer.tokenizer, None if acoustic is None else acoustic.codec)


@app.command("release")
def release(
    out: Annotated[Path, typer.Argument(help="The new model directory.")],
    name: Annotated[str, typer.Option(help="What the model is called.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights.")],
    provenance: Annotated[str, typer.Option(help="Who trained it, on what.")],
    tokenizer: Annotated[Path | None, typer.Option(help="Directory with the tokenizer.")] = None,
    codec: Annotated[Path | None, typer.Option(help="Directory with the codec.")] = None,
    lm: Annotated[Path | None, typer.Option(help="Directory with the lm and its text tokenizer.")] = None,
    flow: Annotated[Path | None, typer.Option(help="Directory with the flow.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the directory if it is there.")] = False,
) -> None:
    """Join finished runs into one model directory, in half precision; what is left out, the model cannot do."""
    from longplay.train.release import release as join

    given: dict[ModelName, Path | None] = {"tokenizer": tokenizer, "codec": codec, "lm": lm, "flow": flow}
    parts: dict[ModelName, Path] = {model: directory for model, directory in given.items() if directory is not None}
    if not parts:
        raise typer.BadParameter("name at least one of --tokenizer, --codec, --lm, --flow")
    join(parts, out, name=name, licence=licence, provenance=provenance, overwrite=overwrite)
    total = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    typer.echo(f"{out}: {total / 1e6:.1f} MB of weights")


def _log_and_limit(threads: int | None) -> None:
    """Log progress to stderr, with or without --verbose; compute on `threads` CPU threads."""
    import logging

    import torch

    # force: the command line has set up its own, quieter log before
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    if threads:
        torch.set_num_threads(threads)
