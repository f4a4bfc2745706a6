"""`longplay generate`: text to music."""

from typing import Annotated, Unpack

import typer

from longplay.cli import options


@options.grouped
def generate(
    text: Annotated[str | None, typer.Argument(help="The music in words, e.g. 'calm piano, 80 bpm'.")] = None,
    output: options.OutputOption = None,
    count: options.CountOption = 1,
    at_once: options.AtOnceOption = None,
    candidates: options.CandidatesOption = None,
    **given: Unpack[options.RequestOptions],
) -> None:
    """Make music from a description.

    `longplay generate "calm piano" --seconds 20 -o piano.flac`

    `longplay generate "techno, 130 bpm, A minor" --candidates 16` makes the one of 16 that keeps best to its words.

    `longplay generate "techno" -o - | aplay` plays it while it is made (or `| ffplay -nodisp -autoexit -`): a WAV
    stream of 16-bit stereo.
    """
    from longplay.cli.produce import produce
    from longplay.cli.request import build_request

    produce(build_request("generate", text, given), output, count, at_once, candidates=candidates)
