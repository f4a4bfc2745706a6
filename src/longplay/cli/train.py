"""`longplay train`: one stage, from a preset or a YAML file, into a run directory that it can resume."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from longplay.checkpoint.names import ModelName
from longplay.cli import options
from longplay.cli.progress import log_and_limit
from longplay.cli.train_report import plan, status, throughput

app = typer.Typer(help="Train the models: tokenizer, codec, lm, flow.", no_args_is_help=True)
app.command()(status)
app.command()(plan)
app.command()(throughput)


@app.command("run")
def run(
    config: Annotated[
        str,
        typer.Argument(
            help="A preset (nano-tokenizer, nano-codec, nano-lm, nano-flow), or a YAML file; `like: PRESET` in it takes over "
            "what it does not say."
        ),
    ],
    directory: Annotated[Path, typer.Option("--run", help="Run directory; a run that is there is resumed.")],
    data: Annotated[
        str,
        typer.Option(
            help="Manifest (tokenizer, codec), or folder of token shards (lm, flow), also an address such as s3://..."
        ),
    ],
    override: Annotated[list[str] | None, typer.Option("--set", help="Config override, e.g. loop.steps=2000.")] = None,
    budget_seconds: Annotated[
        float | None, typer.Option(help="Stop, resumably, after this time. [default: no limit]")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each process; default: all, or a fair share.")
    ] = None,
    cluster: Annotated[
        Literal["ray"] | None, typer.Option(help="Train on a Ray cluster (extra `cluster`), or on one started here.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="With --cluster: processes over all its machines.")] = None,
) -> None:
    """Train one stage, or go on with a run.

    Several processes: --cluster ray --workers N, or torchrun --nproc-per-node N --no-python -- longplay train run ...
    """
    import math

    from longplay.train.build import load_stage_config
    from longplay.train.run import train_run

    if (cluster is None) != (workers is None):
        raise typer.BadParameter("--cluster ray and --workers N go together; without a cluster use torchrun")
    if budget_seconds is not None and budget_seconds <= 0:
        raise typer.BadParameter(f"--budget-seconds {budget_seconds:g}: give more than 0; no limit without it")
    log_and_limit(threads)
    settled = load_stage_config(config, override or [])
    budget = math.inf if budget_seconds is None else budget_seconds
    if workers is None:
        train_run(settled, data, directory, budget)
        return
    from longplay.train.cluster_run import train_on_ray

    train_on_ray(settled, data, directory, workers, budget, threads)


@app.command("tokens")
def tokens(
    manifest: Annotated[str, typer.Argument(help="Manifest of the corpus: a path, or an address such as s3://...")],
    out: Annotated[str, typer.Argument(help="Folder for the token shards: a path or an address.")],
    model: Annotated[str, typer.Option(help="Model with the tokenizer.")],
    codec: Annotated[
        str | None, typer.Option(help="Model with the codec; without it the shards serve lm alone.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A listener's labels.jsonl: only what is rated well, as it was corrected.")
    ] = None,
    min_rating: Annotated[int, typer.Option(min=1, max=5, help="With --labels: the least rating to train on.")] = 3,
    varispeed: Annotated[
        str | None,
        typer.Option(
            help="Semitones, e.g. -3,2: encode each training track again, played that much slower or faster; tempo and "
            "key in its captions change with it."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, or actors of a cluster; a model in each.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each worker; default: a fair share.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where the models compute, e.g. cpu or cuda.")] = "cpu",
    cluster: options.ClusterOption = None,
) -> None:
    """Encode a corpus into token shards for the stages lm and flow; resumable, each track once."""
    import os

    from longplay.address import location
    from longplay.data.labels import apply_labels, read_labels
    from longplay.data.manifest import Track
    from longplay.data.varispeed import with_varispeed
    from longplay.train.encoding import Encoder, encode_in_processes, encode_on_ray
    from longplay.train.tokens import prepare_tokens

    try:
        semitones = [int(part) for part in varispeed.split(",")] if varispeed else []
    except ValueError:
        raise typer.BadParameter(f"--varispeed {varispeed}: give whole semitones, e.g. -3,2") from None
    if cluster is not None:  # other machines have other working directories
        manifest = str(location(manifest).resolve())
    log_and_limit(1)
    Encoder.load(model, codec)  # what is wrong with the models is said here, once
    share = threads or max(1, (os.cpu_count() or 1) // workers)
    encode = encode_in_processes if cluster is None else encode_on_ray
    encode_all = encode(model, codec, workers, device, share)
    known = read_labels(labels) if labels is not None else None

    def choose(tracks: list[Track]) -> list[Track]:
        rated = tracks if known is None else apply_labels(tracks, known, min_rating)
        return with_varispeed(rated, semitones)

    made = prepare_tokens(manifest, out, encode_all, choose)
    speed = made.audio_seconds / max(made.wall_seconds, 1e-9)
    typer.echo(
        f"{out}: {made.tracks} tracks encoded, {made.audio_seconds / 3600:.3f} h, {speed:.1f} h of audio an hour"
    )


@app.command("takes")
def takes(
    manifest: Annotated[
        Path, typer.Argument(help="Manifest of the corpus: the captions of its train split are the prompts.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the shards; what it holds is gone on with.")],
    model: Annotated[str, typer.Option(help="Model that makes them: the one that is to be trained on.")] = "nano",
    prompts: Annotated[int, typer.Option(min=1, help="How many, each at a tempo and key of its own.")] = 500,
    each: Annotated[int, typer.Option(min=2, max=64, help="Takes of each prompt.")] = 6,
    seconds: Annotated[float, typer.Option(min=4, help="Of each take; best as long as the lm's window.")] = 10.24,
    tags: Annotated[
        bool,
        typer.Option(
            "--tags/--no-tags", help="Listen for the styles and instruments that are asked for (fetches musicnn once)."
        ),
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the prompts that are drawn.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; a model in each.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each worker; default: a fair share.")
    ] = None,
) -> None:
    """Make takes of many prompts and measure how well each keeps to it; the lm then learns which are better.

    Learn from them with `longplay train run nano-lm-preference ...`.
    """
    import os

    from longplay.data.manifest import read_manifest
    from longplay.errors import UserError
    from longplay.evaluate.takes import Maker, make_takes

    tracks = tuple(track for track in read_manifest(manifest) if track.split == "train" and track.captions)
    if not tracks:
        raise UserError(f"{manifest}: no track of the train split has a caption; build a corpus first")
    log_and_limit(1)
    share = threads or max(1, (os.cpu_count() or 1) // workers)
    made = make_takes(Maker(model, each, seconds, seed, share, tracks, tags), out, prompts, workers)
    typer.echo(f"{out}: takes of {made.groups} prompts made in {made.wall_seconds / 60:.1f} minutes")


@app.command("release")
def release(
    out: Annotated[Path, typer.Argument(help="The new model directory.")],
    name: Annotated[str, typer.Option(help="What the model is called.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights.")],
    provenance: Annotated[str, typer.Option(help="Who trained it, on what.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="Model with the tokenizer: a directory, or a name such as nano.")
    ] = None,
    codec: Annotated[Path | None, typer.Option(help="Model with the codec.")] = None,
    lm: Annotated[Path | None, typer.Option(help="Model with the lm and its text tokenizer.")] = None,
    flow: Annotated[Path | None, typer.Option(help="Model with the flow.")] = None,
    lm_precision: Annotated[
        Literal["float16", "int8"],
        typer.Option(help="Of the lm's layers: int8 is half as large, runs at once, and is measured against float32."),
    ] = "float16",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the directory if it is there.")] = False,
) -> None:
    """Join finished runs into one model directory, in half precision; what is left out, the model cannot do."""
    from longplay.checkpoint.hub import locate
    from longplay.train.release import release as join

    given: dict[ModelName, Path | None] = {"tokenizer": tokenizer, "codec": codec, "lm": lm, "flow": flow}
    parts: dict[ModelName, Path] = {model: locate(str(named)) for model, named in given.items() if named is not None}
    if not parts:
        raise typer.BadParameter("name at least one of --tokenizer, --codec, --lm, --flow")
    if lm_precision == "int8" and lm is None:
        raise typer.BadParameter("--lm-precision int8 needs --lm")
    about = {"name": name, "licence": licence, "provenance": provenance}
    made = join(parts, out, **about, overwrite=overwrite, lm_precision=lm_precision)
    if made is not None:
        typer.echo("\n".join(made.describe()))
    total = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    typer.echo(f"{out}: {total / 1e6:.1f} MB of weights")
