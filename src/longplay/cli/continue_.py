"""`longplay continue`: an audio prompt, with or without words, to more of it."""

from pathlib import Path
from typing import Annotated, Unpack

import typer

from longplay.cli import options


@options.grouped
def continue_(
    audio: Annotated[Path, typer.Argument(help="The recording to go on from, at least 1 s.")],
    text: Annotated[str | None, typer.Argument(help="How it shall go on, in words.")] = None,
    output: options.OutputOption = None,
    count: options.CountOption = 1,
    at_once: options.AtOnceOption = None,
    prompt_seconds: options.PromptSecondsOption = None,
    **given: Unpack[options.RequestOptions],
) -> None:
    """Go on from a recording: the file holds the recording, untouched, and what follows.

    `longplay continue riff.wav "add drums" --seconds 30 -o song.wav`

    The recording keeps its sample rate and channels. Times of sections count from its start.
    """
    from longplay.audio import Audio
    from longplay.cli.produce import produce
    from longplay.cli.request import build_request

    produce(build_request("continue", text, given, prompt_seconds), output, count, at_once, Audio.load(audio))
