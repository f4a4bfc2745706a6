"""What musicnn hears in prepared recordings, kept beside their facts.

`facts/<id>.tags.json` says it of the whole, `.passages.json` of each passage; `.textures.json` what was measured there.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch

from longplay.address import Location, at_once
from longplay.analysis.measure import Texture, textures
from longplay.data.decode import read_mono
from longplay.data.musicnn import Listener
from longplay.data.store import Progress, Store
from longplay.data.styles import style_of
from longplay.data.tags import (
    NOTHING,
    Heard,
    HeardPassage,
    Wav,
    passage_bounds,
    passage_probabilities,
    probabilities,
    words,
)
from longplay.data.workers import RunJobs, run_jobs
from longplay.errors import DownloadError, UserError
from longplay.files import write_text

Listen = Callable[[Wav, int], Any]


def hear(
    store: Store, audio: Mapping[str, Location], workers: int, progress: Progress, run: RunJobs = run_jobs
) -> None:
    """Listen to every id of `audio` (its file) that is new or was prepared again since.

    Raises:
        DownloadError: musicnn cannot be fetched.
    """
    unheard = at_once(partial(_unheard, store), audio)
    missing = [job for job, files in zip(audio.items(), unheard, strict=True) if files]
    for done, outcome in enumerate(run(partial(_hear, store), missing, workers), 1):
        try:
            outcome.get()
        except DownloadError as error:
            raise DownloadError(f"{error}; or do without what musicnn hears: --no-tags") from None
        progress("hear", done, len(missing))


def heard(store: Store, name: str) -> Heard:
    """The words for what was heard, in all and in each passage; none where nobody listened.

    Raises:
        UserError: a file of what was heard is damaged.
    """
    whole, parts = _read(store.tags(name)), _read(store.passages(name)) or ()
    found = _read(store.textures(name))
    measured = [None] * len(parts) if found is None else [Texture(*each) for each in found]
    if len(measured) != len(parts):
        raise UserError(
            f"{store.textures(name)}: is not of the {len(parts)} passages; delete it and build the corpus again"
        )
    passages = tuple(
        HeardPassage(start, end, words(tags), texture, style_of(tags))
        for (start, end, tags), texture in zip(parts, measured, strict=True)
    )
    return (words(whole) if whole else NOTHING)._replace(passages=passages)


def _read(path: Location) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError:
        raise UserError(f"{path}: is damaged; delete it and build the corpus again") from None


def _unheard(store: Store, name: str) -> list[tuple[Location, Listen]]:
    """The files that are not there, and what makes them."""
    files: tuple[tuple[Location, Listen], ...] = (
        (store.tags(name), lambda wav, rate: probabilities(_listener(), wav, rate)),
        (store.passages(name), lambda wav, rate: passage_probabilities(_listener(), wav, rate)),
        (store.textures(name), lambda wav, rate: textures(wav, rate, passage_bounds(wav, rate))),
    )
    return [each for each in files if not each[0].is_file()]


def _hear(store: Store, job: tuple[str, Location]) -> None:
    name, path = job
    wav, rate = read_mono(path)
    for file, listen in _unheard(store, name):
        write_text(file, json.dumps(listen(wav, rate)) + "\n")


@cache
def _listener() -> Listener:
    """One for each process, on one thread: the processes are the parallelism."""
    torch.set_num_threads(1)
    return Listener.pretrained()
