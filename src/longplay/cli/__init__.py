"""The command `longplay`: thin commands over the package; nothing heavy is imported before a command runs."""

import atexit
import gc
import logging
from typing import Annotated

import typer

from longplay import __version__
from longplay.cli import bench, data, models, train
from longplay.cli.continue_ import continue_
from longplay.cli.evaluate import evaluate
from longplay.cli.finetune import finetune
from longplay.cli.generate import generate
from longplay.cli.packages import TRAINING, need
from longplay.cli.reconstruct import reconstruct
from longplay.cli.upscale import upscale
from longplay.errors import LongplayError

app = typer.Typer(
    name="longplay",
    help="Text and audio prompts in, coherent 48 kHz music out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate)
app.command("continue")(continue_)
app.command()(reconstruct)
app.command()(upscale)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
app.command()(finetune)
app.command()(evaluate)
app.add_typer(bench.app, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, to stderr.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Longplay: text and audio prompts in, coherent 48 kHz music of eight minutes and more out."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("longplay.nn.native").setLevel(logging.INFO)  # a wait of some seconds is to be explained


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors of the user, and what the system refuses, are one line on stderr and exit code 2.

    Args:
        arguments: default: those of the process.
    """
    # Imports make many objects and no garbage; a tenth of torch's import goes into looking for it.
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)  # and an exit would look through all of them once more, for nothing
    try:
        _run(arguments)
    except LongplayError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        typer.secho(f"error: {_refused(error)}", fg="red", err=True)
        raise SystemExit(2) from None


def _refused(error: OSError) -> str:
    """Which file or place, why, and what to do."""
    place = "" if error.filename is None else f"{error.filename}: "
    reason = " ".join((error.strerror or str(error)).split())
    return f"{place}{reason}; mend that, or choose another place, and give the same command again"


def _run(arguments: list[str] | None) -> None:
    """A command, which imports what it needs when it comes to it; of packages for training says how to get them."""
    try:
        app(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in TRAINING:
            need(TRAINING, "training", "train")
        raise
