"""`longplay reconstruct`: a recording through the models and back, to hear what they keep."""

from pathlib import Path
from typing import Annotated, Literal, Unpack

import typer

from longplay.cli import options


@options.grouped
def reconstruct(
    audio: Annotated[Path, typer.Argument(help="A recording, at least 1 s.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .wav, .flac, .ogg or .mp3 file. [default: NAME-reconstructed.wav]"),
    ] = None,
    through: Annotated[
        Literal["tokenizer", "codec", "both"],
        typer.Option(help="tokenizer (24 kHz), codec (48 kHz), or both: tokenizer, flow and codec."),
    ] = "codec",
    **given: Unpack[options.TransformOptions],
) -> None:
    """Encode a recording and decode it again.

    `longplay reconstruct song.wav --through tokenizer -o heard.wav`
    """
    from longplay.cli.transform import transform

    transform(audio, output or Path(f"{audio.stem}-reconstructed.wav"), through, given, upscaling=False)
