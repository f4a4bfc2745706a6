"""Run a request to its files, or to a player on stdout; what is finished survives Ctrl-C."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import typer

from longplay.audio import Audio, Finish
from longplay.audio.file import Wav, check_output, write
from longplay.audio.finish import fade_stream
from longplay.audio.spool import Spool
from longplay.cli.player import write_wav_stream
from longplay.cli.progress import Bar, status
from longplay.cli.request import Request
from longplay.errors import CheckpointError, PromptError
from longplay.pipeline import Pipeline, Session, Stream, stages
from longplay.prompt import Prompt, SettledOptions

STDOUT = "-"
AT_ONCE = 8
"""Pieces that share a session, where that changes none of them (`Pipeline.exact_together`)."""


def produce(
    request: Request,
    output: str | None,
    count: int,
    at_once: int | None = None,
    audio: Audio | None = None,
    candidates: int | None = None,
) -> None:
    """Make `count` pieces, with seeds that count up or, of so many candidates, with the best.

    Args:
        request: what to make.
        output: file, `-` for stdout, or None for a name with the seed; numbered where `count` > 1.
        count: number of pieces.
        at_once: how many of them share a session; None: `AT_ONCE` where that changes none of them, else 1.
        audio: an audio prompt.
        candidates: number of seeds to choose from; None: take them as they come.

    Raises:
        PromptError, AudioError, CheckpointError, DownloadError: see `Pipeline.load`, `Pipeline.stream` and
            `find_candidates`.
    """
    first = request.options.settle(request.prompt, after=audio.seconds if audio else 0.0)
    pieces = [first.with_seed(first.seed + number) for number in range(count)]
    if output == STDOUT:
        _check_streamable(request, count)
    if candidates is not None:
        _check_comparable(request, count, candidates)
    paths = _paths(output, pieces)
    with status("loading the model"):
        pipeline = Pipeline.load(
            request.model, request.device, request.precision, request.adapter, request.adapter_scale
        )
    _check_remake(request, pipeline, audio)
    if candidates is not None:
        pieces = _best(pipeline, request.prompt, first, count, candidates)
        paths = _paths(output, pieces)
    if output == STDOUT:
        bar = Bar(stages(first.fast), first.seconds)
        with bar, closing(pipeline.stream(request.prompt, pieces[0], audio, bar.of(STDOUT))) as stream:
            chunks = fade_stream(stream, stream.sample_rate, request.finish.fade)
            write_wav_stream(sys.stdout.buffer, chunks, stream.sample_rate)
        return
    size = at_once or (AT_ONCE if pipeline.exact_together else 1)
    for start in range(0, count, size):
        group = dict(zip(paths[start : start + size], pieces[start : start + size], strict=True))
        _make(pipeline, request, group, audio)


def _make(pipeline: Pipeline, request: Request, pieces: Mapping[Path, SettledOptions], audio: Audio | None) -> None:
    """Make some pieces at once and save each; on Ctrl-C, as much of each as is finished."""
    first, protect = next(iter(pieces.values())), audio.seconds if audio else 0.0
    bar = Bar(stages(first.fast), len(pieces) * first.seconds)
    with ExitStack() as stack:
        session: Session | None = None
        if len(pieces) > 1:
            seconds = first.seconds + min(protect, first.prompt_seconds)
            session = stack.enter_context(pipeline.session(len(pieces), seconds, first.guidance != 1.0, first.cache))
        stack.enter_context(bar)
        streams = {
            path: stack.enter_context(
                closing(pipeline.stream(request.prompt, options, audio, bar.of(str(path)), session))
            )
            for path, options in pieces.items()
        }
        spools = {path: stack.enter_context(Spool()) for path in pieces}
        try:
            for path, chunk in _in_turn(streams):
                spools[path].append(chunk)
        except KeyboardInterrupt:
            for path, stream in streams.items():
                _save_begun(stream, spools[path], path, request.finish, protect)
            raise
        for path, stream in streams.items():
            stream.check_begun(spools[path].samples)
            finished = request.finish.finished(spools[path], stream.sample_rate, protect)
            write(path, finished, stream.sample_rate, stream.tags(request.finish))
    for path, options in pieces.items():
        held = None if audio else pipeline.held_to(request.prompt, options)
        about = f"; {held}" if held else ""
        beside = f" beside {len(pieces) - 1} more" if len(pieces) > 1 else ""
        say(f"{path}: {options.seconds:g} s made in {bar.elapsed:.1f} s{beside}, seed {options.seed}{about}")


def _in_turn(streams: Mapping[Path, Stream]) -> Iterator[tuple[Path, Wav]]:
    """A chunk of each after the other: pieces that are made at once grow alike, and none waits in memory."""
    left = {path: iter(stream) for path, stream in streams.items()}
    while left:
        for path in list(left):
            chunk = next(left[path], None)
            if chunk is None:
                del left[path]
            else:
                yield path, chunk


def _best(
    pipeline: Pipeline, prompt: Prompt, first: SettledOptions, count: int, candidates: int
) -> list[SettledOptions]:
    from longplay.evaluate.candidates import find_candidates

    with status(f"beginning {candidates} pieces"):
        best = find_candidates(pipeline, prompt, first, candidates)[:count]
    for candidate in best:
        say(f"of {candidates} candidates: {candidate}")
    return [first.with_seed(candidate.seed) for candidate in best]


def say(message: str) -> None:
    """One line for the user; stdout belongs to audio."""
    typer.echo(message, err=True)


def _save_begun(stream: Stream, spool: Spool, path: Path, finish: Finish, protect: float) -> None:
    if not spool.samples:
        say(f"stopped: nothing of {path} was finished yet")
        return
    made = finish.finished(spool, stream.sample_rate, protect)
    write(path, made, stream.sample_rate, stream.tags(finish))
    say(f"stopped: {path} keeps the {made.end / stream.sample_rate:.1f} s that were finished")


def _paths(output: str | None, pieces: list[SettledOptions]) -> list[Path]:
    """Of each piece; none where all goes to stdout."""
    if output == STDOUT:
        return []
    if output is None:
        return [check_output(f"longplay-{options.seed}.wav") for options in pieces]
    path = Path(output)
    if len(pieces) == 1:
        return [check_output(path)]
    width = len(str(len(pieces)))
    return [check_output(path.with_stem(f"{path.stem}-{n:0{width}d}")) for n in range(1, len(pieces) + 1)]


def _check_comparable(request: Request, count: int, candidates: int) -> None:
    from longplay.evaluate.candidates import check_comparable

    if candidates < count:
        raise PromptError(
            f"--candidates {candidates}: fewer than the {count} pieces of --count; give more, or leave it out"
        )
    if request.remake is not None:
        raise PromptError("--candidates: --from makes the piece of its seed again; leave out one of them")
    check_comparable(request.prompt)


def _check_streamable(request: Request, count: int) -> None:
    if request.finish.trim or request.loudness_given:
        raise PromptError("--output -: loudness and trim need the whole piece; leave them out or write a file")
    if count > 1:
        raise PromptError(f"--output -: {count} pieces cannot share one stream; leave out --count or write files")


def _check_remake(request: Request, pipeline: Pipeline, audio: Audio | None) -> None:
    recipe, asked, adapter = request.remake, request.remake_adapter, pipeline.system.adapter
    if asked is not None and adapter is not None and asked.digest != adapter.digest:
        raise CheckpointError(
            f"adapter {asked.path}: its weights ({adapter.digest[:12]}) are not those of the recipe ({asked.digest[:12]}); "
            "give the right ones, or --adapter to use these"
        )
    if recipe is None:
        return
    if recipe.digest != pipeline.digest:
        raise CheckpointError(
            f"model {request.model!r}: its weights ({pipeline.digest[:12]}) are not those of the recipe "
            f"({recipe.digest[:12]}, longplay {recipe.version}); give the right ones, or --model to use these"
        )
    if audio is not None and recipe.audio_prompt != audio.digest:
        raise PromptError("the audio prompt is not the one of the recipe; give the same file, or leave out --from")
