"""Takes: several beginnings from one prompt, held to the same tempo, key and chords, and how well each keeps to them.

They are what the lm's stage `preference` learns from (`train/preference_stage.py`): which of two takes is the better one.
A shard is one of token shards (`train/tokens.py`) with `group`, which takes of one prompt share, and what was measured.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from longplay.analysis.measure import measure, same_tempo
from longplay.chords import pitch_seconds, timed, untimed
from longplay.control import Control
from longplay.data.manifest import Split, Track
from longplay.data.musicnn import Listener
from longplay.data.shards import HELD, METADATA, SEMANTIC, in_shards, next_number, write_shard
from longplay.data.storage import Folder, open_folder
from longplay.data.tags import likeness, probabilities
from longplay.data.varispeed import MOST_SEMITONES, varispeed
from longplay.data.workers import run_jobs
from longplay.errors import UserError
from longplay.evaluate.adherence import same_key
from longplay.evaluate.artifacts import silence
from longplay.evaluate.candidates import Asked
from longplay.evaluate.generation import prompt_of
from longplay.evaluate.harmony import chord_share, pitch_share
from longplay.keys import key_likeness
from longplay.pipeline import Pipeline, Take
from longplay.prompt import GenerationOptions, Prompt

GROUPS_PER_SHARD = 8
VALID_EVERY = 10  # prompts, of which the takes of one are held out

ABOUT = "longplay_takes"  # of a shard's metadata
MEASURES = ("tempo_met", "key_met", "key_fit", "chords_met", "pitches_met", "likeness", "silent")
SCHEMA = pa.schema(
    [
        ("utt", pa.string()),
        ("group", pa.int64()),
        ("text", pa.string()),
        ("split", pa.string()),
        SEMANTIC,
        *HELD,
        *((name, pa.float64()) for name in MEASURES),
    ],
    metadata=METADATA,
)

logger = logging.getLogger(__name__)
Row = dict[str, Any]


class Made(NamedTuple):
    """How many prompts a call has made takes of, and in what time."""

    groups: int
    wall_seconds: float


@dataclass(frozen=True)
class Maker:
    """One worker's part: a prompt in, its takes out.

    Attributes:
        model: name or directory.
        takes: of each prompt.
        seconds: of each take.
        seed: of the prompts that are drawn.
        threads: of the CPU.
        tracks: whose captions are the prompts.
        tags: whether to listen for the styles and instruments that a prompt names.
    """

    model: str
    takes: int
    seconds: float
    seed: int
    threads: int
    tracks: tuple[Track, ...]
    tags: bool = True

    def rows(self, group: int) -> list[Row]:
        """The takes of prompt number `group`, as a shard has them."""
        rng = np.random.default_rng((self.seed, group))
        split: Split = "train" if (group + 1) % VALID_EVERY else "valid"
        track = self.tracks[rng.integers(len(self.tracks))]
        track = varispeed(track, int(rng.integers(-MOST_SEMITONES, MOST_SEMITONES + 1)))
        text = prompt_of(track) if rng.random() < 0.5 else str(rng.choice(track.captions))
        pipeline = _pipeline(self.model, self.threads)
        prompt, options = Prompt(text=text), GenerationOptions(seconds=self.seconds, seed=group)
        seeds = [group * self.takes + number for number in range(self.takes)]
        takes = pipeline.takes(prompt, seeds, options, self.seconds, held=group)
        control = pipeline.held_to(prompt, options.settle(prompt)) or Control()
        words = Asked.of(prompt).words if self.tags else ()
        return [
            _row(group, seed, split, text, control, take) | _measured(control, words, take)
            for seed, take in zip(seeds, takes, strict=True)
        ]

    def about(self, digest: str) -> str:
        """What takes that belong together have in common, the weights of their model by hash."""
        return f"{self.takes} takes of {self.seconds:g} s, seed {self.seed}, weights {digest[:12]}"


def make_takes(maker: Maker, out: Path | str, groups: int, workers: int = 1) -> Made:
    """Make the takes of prompts 0 to `groups` - 1 that no shard in `out` holds yet.

    Raises:
        CheckpointError: there is no such model.
        UserError: a shard in `out` is none of takes, or of others; or some prompts failed: the others are done.
    """
    about = maker.about(Pipeline.load(maker.model, "cpu").digest)
    schema = SCHEMA.with_metadata({**METADATA, ABOUT: about})
    shards = open_folder(out)
    names = shards.files(".parquet")
    done = {group for name in names for group in _groups(shards, name, about)}
    missing = [group for group in range(groups) if group not in done]
    number = next_number(names)
    logger.info("takes of %d prompts are made, %d to go", len(done), len(missing))
    started, count, failed = time.monotonic(), 0, list[str]()
    for rows in in_shards(_made(maker, missing, workers, failed), GROUPS_PER_SHARD):
        table = pa.Table.from_pylist([row for group in rows for row in group], schema=schema)
        write_shard(shards, f"{number:05d}.parquet", table)
        number, count = number + 1, count + len(rows)
        logger.info("%05d.parquet: %d of %d prompts, %s", number - 1, count, len(missing), _summary(table))
    if failed:
        raise UserError(f"{len(failed)} of {len(missing)} prompts failed, the others are done; first: {failed[0]}")
    return Made(count, time.monotonic() - started)


def _made(maker: Maker, missing: Sequence[int], workers: int, failed: list[str]) -> Iterator[list[Row]]:
    for outcome in run_jobs(maker.rows, missing, workers):
        if outcome.error is not None:
            failed.append(f"prompt {outcome.job}: {outcome.error}")
        else:
            yield outcome.get()


def _groups(shards: Folder, name: str, about: str) -> list[int]:
    with shards.open(name) as file:
        try:
            table = pq.read_table(file, columns=["group"])
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{name}: is no shard of takes ({reason}); write to another folder") from None
    there = (table.schema.metadata or {}).get(ABOUT.encode(), b"others").decode()
    if there != about:
        raise UserError(f"{name}: holds {there}; these are {about}: write to another folder")
    return table["group"].to_pylist()


def _summary(table: pa.Table) -> str:
    means = {name: [each for each in table[name].to_pylist() if each is not None] for name in MEASURES}
    return ", ".join(f"{name} {np.mean(found):.2f}" for name, found in means.items() if found)


def _row(group: int, seed: int, split: Split, text: str, control: Control, take: Take) -> Row:
    chords = timed(control.chords)
    return {
        "utt": f"{group}/{seed}",
        "group": group,
        "text": text,
        "split": split,
        "semantic_token": [take.codes.tolist()],
        "bars": list(control.bars),
        "bpm": control.bpm,
        "key": control.key and str(control.key),
        "chords": [each.name for each in chords],
        "chord_starts": [each.start for each in chords],
    }


def _measured(control: Control, words: Sequence[str], take: Take) -> Row:
    wav, rate = take.audio.wav[0], take.audio.sample_rate
    facts = measure(wav, rate)
    chords = untimed(facts.chords)
    return {
        "tempo_met": float(same_tempo(control.bpm, facts.bpm)) if control.bpm else None,
        "key_met": float(same_key(str(control.key), facts.key)) if control.key else None,
        "key_fit": key_likeness(pitch_seconds(chords, facts.seconds))[control.key] if control.key else None,
        "chords_met": chord_share(control.chords, chords, facts.seconds) if control.chords else None,
        "pitches_met": pitch_share(control.chords, chords, facts.seconds) if control.chords else None,
        "likeness": likeness(probabilities(_listener(), wav, rate), words) if words else None,
        "silent": silence([wav], rate),
    }


@cache
def _pipeline(model: str, threads: int) -> Pipeline:
    """One for each process."""
    torch.set_num_threads(threads)
    return Pipeline.load(model, "cpu")


@cache
def _listener() -> Listener:
    return Listener.pretrained()
