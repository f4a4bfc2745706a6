"""Does the music do what the prompt says? Tags, tempo and key.

Tags: among 8 generated clips, is the one that was made from a caption the nearest, by musicnn tags, to the recording
that the caption describes? Chance is one in eight. Instead of drawing 7 rivals, the expectation over all draws is
computed exactly.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from longplay.keys import Key

CHOICES = 8

Array = npt.NDArray[np.floating]
T = TypeVar("T")
M = TypeVar("M")


def same_key(asked: str, measured: str | None) -> bool:
    """The same tonic, however it is spelled, and mode."""
    return measured is not None and Key.parse(asked) == Key.parse(measured)


def same_tonic(asked: str, likeliest: Key | None) -> bool:
    """The same tonic, whatever the mode."""
    return likeliest is not None and Key.parse(asked).tonic == likeliest.tonic


def hit_rate(
    asked: Sequence[T | None], measured: Sequence[M | None], same: Callable[[T, M | None], bool]
) -> tuple[float, float]:
    """Share of the prompts that ask for something and get it, and what chance gives: answers to other prompts.

    Returns:
        hits and chance; NaN where no prompt, or only one, asks.
    """
    pairs = [(want, got) for want, got in zip(asked, measured, strict=True) if want is not None]
    hits = [same(want, got) for want, got in pairs]
    others = [same(want, got) for i, (want, _) in enumerate(pairs) for j, (_, got) in enumerate(pairs) if i != j]
    return (float(np.mean(hits)) if hits else math.nan), (float(np.mean(others)) if others else math.nan)


def retrieval_rate(wanted: Array, made: Array, groups: Sequence[str], choices: int = CHOICES) -> float:
    """How often a clip is nearest to what it should be like, among itself and `choices` - 1 others.

    Tag probabilities become log odds, standardised over each set, so that an overall difference of the sets in level
    or contrast does not count; nearness is their cosine.

    Args:
        wanted: [N, D] tag probabilities of the recordings that the prompts describe.
        made: [N, D] of the clips made from the prompts.
        groups: [N]; clips of the same group (a track) are no rivals.
        choices: to choose from.

    Raises:
        ValueError: fewer than `choices` groups to choose from.
    """
    similarity = _directions(wanted) @ _directions(made).T
    names = np.asarray(groups)
    rates = []
    for i, row in enumerate(similarity):
        rivals = row[names != names[i]]
        if len(rivals) < choices - 1:
            raise ValueError(f"{len(rivals) + 1} clips to choose from: retrieval needs {choices}")
        worse = int((rivals < row[i]).sum())
        rates.append(math.comb(worse, choices - 1) / math.comb(len(rivals), choices - 1))
    return float(np.mean(rates))


def _directions(probabilities: Array) -> Array:
    p = probabilities.astype(np.float64).clip(1e-6, 1 - 1e-6)
    odds = np.log(p / (1 - p))
    standard = (odds - odds.mean(0)) / odds.std(0).clip(1e-6)
    return standard / np.linalg.norm(standard, axis=1, keepdims=True).clip(1e-12)
