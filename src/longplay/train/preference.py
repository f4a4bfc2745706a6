"""Preference: of two takes from one prompt, the better one is to become likelier (DPO, arXiv 2305.18290).

Next-code prediction teaches what music is like, not to keep to a prompt: of a code, the words and chords say a
hundredth of a nat. Two takes from one prompt differ in nothing but what the model did of its own, so which of them
keeps to the prompt says it without the rest. The model is held near the one it started from, its reference, and goes
on learning from music beside.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from longplay.config import Config
from longplay.data.manifest import Split
from longplay.data.token_tracks import TAKES, TokenTrack, read_shards
from longplay.data.token_windows import TokenWindow
from longplay.errors import ConfigError, TrainingError
from longplay.models.lm import LM, LMBatch
from longplay.models.lm_config import LMConfig
from longplay.text import TextTokenizer
from longplay.train.lm_examples import Example, collate, tensors

logger = logging.getLogger(__name__)

# What a take is worth: of the shares that are met, nats of likeness, and the share that is silent.
WORTH = {
    "tempo_met": 1.0,
    "key_met": 1.0,
    "key_fit": 1.0,
    "chords_met": 1.5,
    "pitches_met": 1.5,
    "likeness": 0.7,
    "silent": -4.0,
}


class PreferenceConfig(Config):
    """What is learnt from takes, beside the music.

    Attributes:
        takes: shards of `longplay train takes`.
        pairs: of takes for each row of music.
        beta: how far from the reference pays: the margin, in nats over a whole take, counts this much.
        weight: of this loss beside that of the music.
        worth: what each measure of a take counts for; see `WORTH`.
        least: by how much the better take of a pair is worth more.
    """

    takes: Path
    pairs: int = Field(default=1, gt=0)
    beta: float = Field(default=0.1, gt=0)
    weight: float = Field(default=1.0, gt=0)
    worth: dict[str, float] = WORTH
    least: float = Field(default=0.5, gt=0)


class Rated(NamedTuple):
    """A take, and what it is worth."""

    track: TokenTrack
    worth: float


class Pair(NamedTuple):
    """Two takes from one prompt, the better one first."""

    better: TokenTrack
    worse: TokenTrack


class Pairs:
    """The pairs of some takes; those that differ more come more often.

    Args:
        groups: takes of one prompt each.
        least: difference in worth.

    Raises:
        TrainingError: no two takes of a prompt differ as much.
    """

    def __init__(self, groups: Sequence[Sequence[Rated]], least: float) -> None:
        found = [self._of(group, least) for group in groups]
        self.groups = [(pairs, gaps / gaps.sum()) for pairs, gaps in found if len(pairs)]
        if not self.groups:
            raise TrainingError(
                f"takes of {len(groups)} prompts: no two of a prompt differ by {least:g}; make more takes, or lower preference.least"
            )

    def draw(self, seed: int, index: int, size: int) -> list[Pair]:
        """Pairs of batch `index`: every prompt is as likely."""
        rng = np.random.default_rng((seed, index, 2))
        drawn = [self.groups[choice] for choice in rng.integers(len(self.groups), size=size)]
        return [pairs[rng.choice(len(pairs), p=chances)] for pairs, chances in drawn]

    @staticmethod
    def _of(group: Sequence[Rated], least: float) -> tuple[list[Pair], np.ndarray]:
        ordered = sorted(group, key=lambda take: take.worth)
        couples = [(worse, better) for worse, better in combinations(ordered, 2) if better.worth - worse.worth >= least]
        pairs = [Pair(better.track, worse.track) for worse, better in couples]
        return pairs, np.array([better.worth - worse.worth for worse, better in couples])


def read_pairs(config: PreferenceConfig, split: Split) -> Pairs:
    """The pairs of one split in the shards of takes.

    Raises:
        ConfigError: `config.worth` names what is not measured.
        TrainingError: there is no shard, one is none of takes, or nothing is to be preferred.
    """
    groups = defaultdict[int, list[Rated]](list)
    for shard in read_shards(config.takes, split, TAKES):
        if unknown := sorted({"group", *config.worth} - set(shard.table.column_names)):
            raise ConfigError(f"{config.takes}/{shard.name}: takes have no {', '.join(unknown)}; see preference.worth")
        measured = shard.table.select(["group", *config.worth]).take(shard.rows).to_pylist()
        for track, row in zip(shard.tracks, measured, strict=True):
            groups[row["group"]].append(Rated(track, _worth(row, config.worth)))
    return Pairs(list(groups.values()), config.least)


def _worth(row: Mapping[str, Any], weights: Mapping[str, float]) -> float:
    """What was not asked for, and so not measured, counts for nothing."""
    return sum(weight * row[name] for name, weight in weights.items() if row[name] is not None)


class Preference:
    """Pairs as batches, and what they cost.

    Args:
        config: of this loss.
        reference: the model that it starts from; stays as it is.
        text: turns prompts into ids.
        held_out: how many pairs are measured.
    """

    def __init__(self, config: PreferenceConfig, reference: LM, text: TextTokenizer, held_out: int) -> None:
        self.config, self.text, self.held_out = config, text, held_out
        self.reference = reference.eval().requires_grad_(False)
        self.train = read_pairs(config, "train")
        try:
            self.valid: Pairs | None = read_pairs(config, "valid")
        except TrainingError as error:
            logger.warning("no pair of takes is held out to measure with (%s)", error)
            self.valid = None

    def batch(self, seed: int, step: int, rows: slice, batch_size: int) -> dict[str, Tensor]:
        """Fields of `LMBatch` for the pairs of these rows of a batch, the better and the worse take of each in turn."""
        pairs = self.train.draw(seed, step, batch_size * self.config.pairs)
        first, stop, _ = rows.indices(batch_size)
        return tensors(self._collated(pairs[first * self.config.pairs : stop * self.config.pairs]))

    def loss(self, model: LM, batch: LMBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and detached metrics.

        Returns:
            `preference` (the loss), `preferred` (share of pairs whose better take has become likelier than the worse
            one), and how much likelier either is than to the reference, in nats a code: `better`, `worse`.
        """
        self.reference.to(batch.codes.device)
        with torch.no_grad():
            before = self.reference.log_likelihood(batch)
        gained = model.log_likelihood(batch) - before
        better, worse = gained[0::2], gained[1::2]
        margin = better - worse
        loss = -F.logsigmoid(self.config.beta * margin).mean()
        each = gained.detach() / batch.code_lengths
        metrics = {
            "preference": loss.detach(),
            "preferred": (margin > 0).float().mean(),
            "better": each[0::2].mean(),
            "worse": each[1::2].mean(),
        }
        return self.config.weight * loss, metrics

    def evaluate(self, model: LM) -> dict[str, float]:
        """The metrics on held-out pairs; none where there are none."""
        if self.valid is None:
            return {}
        device = next(model.parameters()).device
        rows = []
        for pair in self.valid.draw(1, 0, self.held_out):
            _, metrics = self.loss(model, self._collated([pair]).to(device))
            rows.append(metrics)
        return {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}

    def _collated(self, pairs: Sequence[Pair]) -> LMBatch:
        return collate([take_example(take, self.text, self.reference.config) for pair in pairs for take in pair])


def take_example(take: TokenTrack, text: TextTokenizer, lm: LMConfig) -> Example:
    """A take as it was made: from words, from the start of a piece that goes on."""
    caption = take.captions[0]
    return Example(TokenWindow(take, 0, take.semantic, caption, ends=False), tuple(text.encode(caption)), lm)
