"""`longplay upscale`: a recording of 24 kHz or less to the codec's rate."""

from pathlib import Path
from typing import Annotated, Unpack

import typer

from longplay.cli import options


@options.grouped
def upscale(
    audio: Annotated[Path, typer.Argument(help="A recording at 24 kHz or less, at least 1 s.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .wav, .flac, .ogg or .mp3 file. [default: NAME-upscaled.wav]"),
    ] = None,
    **given: Unpack[options.TransformOptions],
) -> None:
    """Give a dull recording its highs; what it holds stays.

    `longplay upscale old.wav -o bright.flac`
    """
    from longplay.cli.transform import transform

    transform(audio, output or Path(f"{audio.stem}-upscaled.wav"), "both", given, upscaling=True)
