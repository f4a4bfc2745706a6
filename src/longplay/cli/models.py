"""`longplay models`: what there is, what is in it, fetch, convert, quantize, check."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(help="List, describe, download, convert, quantize and verify models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="nano, a model directory, or a name on a hub.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask a hub, only its cache.")]


@app.command("list")
def list_() -> None:
    """Models that are known by name."""
    from longplay.checkpoint.manage import list_models

    for model in list_models():
        typer.echo(f"{model.name:<24} {model.about:<34} {'  '.join(model.places)}")


@app.command()
def info(name: Name = "nano", offline: Offline = False) -> None:
    """What a model directory holds: sizes, rates, licence, origin."""
    from longplay.checkpoint.manage import model_info

    found = model_info(name, offline)
    config = found.config
    typer.echo(f"{config.name}: {found.layout} layout in {found.directory}")
    typer.echo(f"licence: {config.licence}")
    typer.echo(f"provenance: {config.provenance}")
    for model, weights in found.weights.items():
        typer.echo(
            f"{model:<10} {weights.parameters / 1e6:8.2f} M parameters  {weights.size / 1e6:8.1f} MB  "
            f"{', '.join(weights.dtypes)}"
        )
    if config.tokenizer is not None:
        books = config.tokenizer.num_codebooks
        of_each = "" if books == 1 else f" in each of {books} codebooks"
        typer.echo(
            f"codes: {config.tokenizer.frame_rate:g} a second, {config.tokenizer.codebook_size} different{of_each}"
        )
    if config.codec is not None:
        typer.echo(f"audio: {config.codec.sample_rate} Hz")


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="e.g. InspireMusic-1.5B-Long, owner/name@revision, modelscope:iic/...")],
    offline: Offline = False,
    complete: Annotated[
        bool, typer.Option("--complete", help="Also Qwen's base weights, which only the public code needs.")
    ] = False,
) -> None:
    """Fetch a model into the cache; a cut download goes on where it stopped."""
    from longplay.checkpoint.manage import download_model

    typer.echo(download_model(name, offline, complete))


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="nano, a model directory, or a name on a hub.")],
    destination: Annotated[Path, typer.Argument(help="Directory to make.")],
    to: Annotated[Literal["native", "published"], typer.Option(help="Layout to write.")],
    offline: Offline = False,
) -> None:
    """Write a model in the other layout; the weights stay the same, bit for bit."""
    from longplay.checkpoint.manage import convert_model

    convert_model(source, destination, to, offline)
    typer.echo(destination)


@app.command()
def quantize(
    name: Name = "nano",
    to: Annotated[
        Literal["int8", "int4"], typer.Option(help="Precision; int4 is half as large, faster, and less exact.")
    ] = "int8",
    offline: Offline = False,
) -> None:
    """Make a smaller, faster form of the language model, beside the model, and measure how close it is."""
    from longplay.pipeline.quantized import quantize_model

    path, made = quantize_model(name, to, offline)
    typer.echo("\n".join(made.describe()))
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@app.command()
def verify(name: Name = "nano", offline: Offline = False) -> None:
    """Read all of a model and check that it is whole and fits together."""
    from longplay.checkpoint.manage import verify_model

    verified = verify_model(name, offline)
    typer.echo(f"{verified.info.config.name}: {verified.tensors} tensors, all good; sha256 {verified.digest}")
