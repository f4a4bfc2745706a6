"""What a listening network hears in a track, in words for its caption: styles, instruments and moods.

musicnn gives a probability for each of its tags. Some tags are probable in any music, so a tag is said only where it
stands out: where it has some probability at all and its log odds exceed, by `MARGIN`, the usual ones of game and free
music (`tags.yaml`, medians over the training split of the corpus).
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from longplay.analysis.measure import Texture
from longplay.data.musicnn import HOP_LENGTH, PATCH_FRAMES, SAMPLE_RATE, Listener
from longplay.data.musicnn_weights import tag_names

EXCERPTS = 3  # of one patch each, evenly spread over the track
PASSAGE_SECONDS = 10.0
PASSAGE_PATCHES = 2  # in the middle of a passage
MARGIN = 0.7  # nats of log odds above the usual
MIN_PROBABILITY = 0.05
MAX_STYLES, MAX_INSTRUMENTS, MAX_MOODS = 2, 3, 2

Wav = npt.NDArray[np.float32]


class PassageTags(NamedTuple):
    """The probability of each tag in the passage of a track from `start` to `end` seconds."""

    start: float
    end: float
    tags: dict[str, float]


class Heard(NamedTuple):
    """The words that stand out, the most telling first, and those that do in each passage."""

    styles: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    moods: tuple[str, ...] = ()
    passages: tuple["HeardPassage", ...] = ()


class HeardPassage(NamedTuple):
    """The words for what stands out from `start` to `end` seconds, what was measured there, and how it sounds (`styles.py`)."""

    start: float
    end: float
    heard: Heard
    texture: Texture | None = None
    style: tuple[float, ...] = ()


NOTHING = Heard()


def probabilities(listener: Listener, wav: Wav, rate: int) -> dict[str, float]:
    """Mean probability of each tag over excerpts of a mono track [S] of 3.2 s and more.

    The keys are `MTT/<tag>` and `MSD/<tag>`, since the two sets of weights share some tags.
    """
    length = _length(1, rate)
    count = min(EXCERPTS, len(wav) // length)
    starts = np.linspace(0, len(wav) - length, count + 2)[1:-1] if count else [0]
    excerpts = [wav[int(start) : int(start) + length] for start in starts]
    return _named(listener.hear(excerpts, rate).tags.mean(0))


def passage_probabilities(listener: Listener, wav: Wav, rate: int) -> list[PassageTags]:
    """What `probabilities` says of each passage of `PASSAGE_SECONDS`, by its middle; the last one takes in the rest.

    A track that is shorter than two patches has none.
    """
    length, bounds = _length(PASSAGE_PATCHES, rate), passage_bounds(wav, rate)
    middles = [int((start + end) / 2 * rate) - length // 2 for start, end in pairwise(bounds)]
    excerpts = [wav[middle : middle + length] for middle in middles]
    found = listener.hear(excerpts, rate).tags if excerpts else ()
    return [
        PassageTags(round(start, 3), round(end, 3), _named(tags))
        for (start, end), tags in zip(pairwise(bounds), found, strict=True)
    ]


def passage_bounds(wav: Wav, rate: int) -> list[float]:
    """Where the passages of `passage_probabilities` begin, and the end of the last one, in seconds."""
    if len(wav) < _length(PASSAGE_PATCHES, rate):
        return []
    count = max(1, len(wav) // round(PASSAGE_SECONDS * rate))
    return [*(PASSAGE_SECONDS * number for number in range(count)), len(wav) / rate]


def _length(patches: int, rate: int) -> int:
    """Samples that hold so many patches."""
    return int((patches * PATCH_FRAMES + 1) * HOP_LENGTH / SAMPLE_RATE * rate)


def _named(found: npt.NDArray[np.float32]) -> dict[str, float]:
    names = [f"{training}/{tag}" for training in ("MTT", "MSD") for tag in tag_names(training)]
    return {name: round(float(value), 4) for name, value in zip(names, found, strict=True)}


def words(found: dict[str, float]) -> Heard:
    """The styles, instruments and moods that stand out in the probabilities of `probabilities`."""
    lift: dict[str, dict[str, float]] = {"styles": {}, "instruments": {}, "moods": {}}
    for name, entry in vocabulary().items():
        more = excess(found, name)
        if more > MARGIN and found[name] >= MIN_PROBABILITY:
            group = lift[entry.kind]
            group[entry.word] = max(more, group.get(entry.word, 0.0))

    def telling(kind: str, limit: int) -> tuple[str, ...]:
        return tuple(sorted(lift[kind], key=lift[kind].__getitem__)[::-1][:limit])

    return Heard(
        styles=telling("styles", MAX_STYLES),
        instruments=telling("instruments", MAX_INSTRUMENTS),
        moods=telling("moods", MAX_MOODS),
    )


def likeness(found: dict[str, float], words: Sequence[str]) -> float:
    """How much more likely than usual `words` are in the probabilities of `probabilities`, over all words: nats of log odds.

    Music that is likely to be anything is like nothing: of four takes of 96 prompts, the best ones by this were told apart
    by their tags in 50 %, those by the asked words alone in 48 %, and any in 42 % (docs/experiments.md).
    """
    over: dict[str, float] = {}
    for name, entry in vocabulary().items():
        over[entry.word] = max(excess(found, name), over.get(entry.word, -np.inf))
    return float(np.mean([over[word] for word in words]) - np.mean(list(over.values())))


class Entry(NamedTuple):
    """A tag that captions may use: its kind, its word, and its usual log odds."""

    kind: str
    word: str
    usual: float


@cache
def vocabulary() -> dict[str, Entry]:
    """The usable tags; voices, decades and judgements ("catchy") are left out."""
    data = yaml.safe_load(files("longplay.data").joinpath("tags.yaml").read_text("utf-8"))
    return {name: Entry(kind, word, usual) for kind, entries in data.items() for name, (word, usual) in entries.items()}


def excess(found: Mapping[str, float], name: str) -> float:
    """By how many nats of log odds a tag is likelier than usual."""
    return _log_odds(found[name]) - vocabulary()[name].usual


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-4), 1 - 1e-4)
    return float(np.log(p / (1 - p)))
