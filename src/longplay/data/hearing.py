"""What musicnn hears in prepared recordings, kept beside their facts: `facts/<id>.tags.json`, and `.passages.json`."""

import json
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

import torch

from longplay.data.decode import read_mono
from longplay.data.musicnn import Listener
from longplay.data.store import Progress, Store
from longplay.data.tags import NOTHING, Heard, HeardPassage, passage_probabilities, probabilities, words
from longplay.data.workers import run_jobs
from longplay.errors import DownloadError
from longplay.files import write_text


def hear(store: Store, audio: Mapping[str, Path], workers: int, progress: Progress) -> None:
    """Listen to every id of `audio` (its file) that is new or was prepared again since.

    Raises:
        DownloadError: musicnn cannot be fetched.
    """
    missing = [
        (name, path)
        for name, path in audio.items()
        if not (store.tags(name).is_file() and store.passages(name).is_file())
    ]
    for done, outcome in enumerate(run_jobs(partial(_hear, store), missing, workers), 1):
        try:
            outcome.get()
        except DownloadError as error:
            raise DownloadError(f"{error}; or do without what musicnn hears: --no-tags") from None
        progress("hear", done, len(missing))


def heard(store: Store, name: str) -> Heard:
    """The words for what was heard; none where nobody listened."""
    path = store.tags(name)
    return words(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else NOTHING


def heard_passages(store: Store, name: str) -> list[HeardPassage]:
    """The same of each passage; none where nobody listened."""
    path = store.passages(name)
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [HeardPassage(start, end, words(tags)) for start, end, tags in found]


def _hear(store: Store, job: tuple[str, Path]) -> None:
    name, path = job
    wav, rate = read_mono(path)
    for file, listen in ((store.tags(name), probabilities), (store.passages(name), passage_probabilities)):
        if not file.is_file():
            write_text(file, json.dumps(listen(_listener(), wav, rate)) + "\n")


@cache
def _listener() -> Listener:
    """One for each process, on one thread: the processes are the parallelism."""
    torch.set_num_threads(1)
    return Listener.pretrained()
