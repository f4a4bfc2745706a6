"""What words say of how music sounds: ridge regression from the ids of captions to the styles of their passages.

Computed, not trained, as the codec's components are (`components.py`): it takes seconds, and a model of the words that is fit to
what was measured tells unheard music apart better than one learnt code by code (docs/experiments.md, 2026-11-30).
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longplay.data.token_tracks import TokenTrack
from longplay.errors import TrainingError
from longplay.models.lm import WordStyles
from longplay.text import TextTokenizer

logger = logging.getLogger(__name__)

RIDGE = 100.0  # captions: 3 to 300 are as good on unheard music, more is worse
MOST_TRACKS = 2000  # that are looked at, evenly spread over a corpus
MOST_IDS = 4096  # the most frequent ones; others say nothing
CHUNK = 4096  # captions at a time

Array = npt.NDArray[np.floating[Any]]
Said = tuple[frozenset[int], tuple[float, ...]]  # the ids of a caption, and how its music sounds


def compute_word_styles(module: WordStyles, text: TextTokenizer, tracks: Sequence[TokenTrack]) -> None:
    """Set the weights of `module` to what the captions of `tracks` tell of the styles of their passages.

    Raises:
        TrainingError: no passage has a style, or one has another number of them.
    """
    said = [each for track in tracks[:: -(-len(tracks) // MOST_TRACKS)] for each in _said(track, text)]
    if not said:
        raise TrainingError(
            "no passage of these shards says how it sounds: build the corpus again with what musicnn hears and bring the "
            "tokens up to date with `longplay train tokens`, or set lm.style_dim=0"
        )
    if wrong := {len(style) for _, style in said} - {module.any.numel()}:
        raise TrainingError(f"lm.style_dim = {module.any.numel()}: passages have {min(wrong)} numbers; set it to that")
    known = [number for number, _ in Counter(chain.from_iterable(ids for ids, _ in said)).most_common(MOST_IDS)]
    weights, bias = _ridge(said, known)
    with torch.no_grad():
        module.each.weight.zero_()
        module.each.weight[known] = torch.from_numpy(weights).to(module.each.weight)
        module.any.copy_(torch.from_numpy(bias))
    logger.info("%d captions tell how %d words sound", len(said), len(known))


def _said(track: TokenTrack, text: TextTokenizer) -> Iterator[Said]:
    """Of the passages of a track, and of all of it."""
    parts = [each for each in track.passages if each.style]
    if not parts:
        return
    mean = tuple(np.mean([each.style for each in parts], axis=0).tolist())
    for captions, style in [(track.captions, mean), *((each.captions, each.style) for each in parts)]:
        yield from ((frozenset(text.encode(caption)), style) for caption in captions)


def _ridge(said: Sequence[Said], known: Sequence[int]) -> tuple[Array, Array]:
    """Weights [D, S] and bias [S] from the presence of D ids to styles."""
    place = {number: index for index, number in enumerate(known)}
    level: Array = np.array([style for _, style in said]).mean(0)
    mean = np.zeros(len(known))
    for ids, _ in said:
        mean[[place[number] for number in ids if number in place]] += 1 / len(said)
    square, across = np.zeros((len(known), len(known))), np.zeros((len(known), len(level)))
    for first in range(0, len(said), CHUNK):
        some = said[first : first + CHUNK]
        x = np.zeros((len(some), len(known)))
        for row, (ids, _) in enumerate(some):
            x[row, [place[number] for number in ids if number in place]] = 1
        x -= mean
        square += x.T @ x
        across += x.T @ (np.array([style for _, style in some]) - level)
    weights: Array = np.linalg.solve(square + RIDGE * np.eye(len(known)), across)
    return weights, level - mean @ weights
