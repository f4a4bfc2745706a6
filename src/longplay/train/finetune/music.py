"""The music of a finetune: what is said of it, whether it is enough, in which windows it is learnt."""

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from longplay.audio.decode import seconds_of
from longplay.data.intake import find_recordings
from longplay.data.manifest import Split, Track
from longplay.data.splits import splits
from longplay.data.token_tracks import TokenTrack, read_token_tracks
from longplay.errors import AudioError, ConfigError, UserError
from longplay.files import fetched

LEAST_SECONDS, FEW_SECONDS = 60.0, 300.0
KEPT_SECONDS, REHEARSED_SECONDS = 1800.0, 7200.0
PUBLISHED_WINDOW_SECONDS = 30.0
REACHED = 0.9
_NUMBER = re.compile(r"^[\W\d_]+")

Choose = Callable[[list[Track]], list[Track]]


def describe(caption: str | None, trigger: str | None) -> Choose:
    """What to say of each track and its passages: their captions, the name of its file or its title, `caption`; `trigger`
    before all.

    Args:
        caption: of all tracks.
        trigger: a word that calls for this music.
    """

    def choose(tracks: list[Track]) -> list[Track]:
        return [
            track.model_copy(
                update={
                    "captions": _worded(_titled(track), caption, trigger),
                    "passages": tuple(
                        each.model_copy(update={"captions": _worded(each.captions, caption, trigger)})
                        for each in track.passages
                    ),
                }
            )
            for track in tracks
        ]

    return choose


def _titled(track: Track) -> tuple[str, ...]:
    title = _NUMBER.sub("", track.title).strip().lower()
    said = not title or any(title in each.lower() for each in track.captions)
    return track.captions if said else (*track.captions, title)


def _worded(own: Sequence[str], caption: str | None, trigger: str | None) -> tuple[str, ...]:
    if caption:
        # a third as it is, so that these words alone are enough; the rest with what is known of the music
        own = [caption] * max(1, len(own) // 2) + [f"{caption}, {each}" for each in own]
    return tuple(f"{trigger}, {each}" if trigger else each for each in own)


class Piece(NamedTuple):
    """A file before it is prepared: its length, silence and all, and its split."""

    seconds: float
    split: Split


def pieces(source: Path, valid: float) -> list[Piece]:
    """The files of a folder or manifest by their headers; those that cannot be read are left out.

    Raises:
        UserError, ConfigError: see `find_recordings`.
    """
    recordings = find_recordings(source).recordings
    split = splits(recordings, "file", valid, 0.0)
    found = []
    for recording in recordings:
        try:
            with fetched(recording.path) as here:
                found.append(Piece(seconds_of(here), split[recording.id]))
        except (AudioError, OSError):  # preparing it will say why
            continue
    return found


def stand_ins(pieces: Sequence[Piece], split: Split, code_rate: float, codebook_size: int) -> list[TokenTrack]:
    """Random codes, as many as those of the pieces of a split: to learn them takes as long."""
    rng = np.random.default_rng(0)
    lengths = [max(1, round(piece.seconds * code_rate)) for piece in pieces if piece.split == split]
    return [
        TokenTrack(
            utt=str(number),
            semantic=rng.integers(0, codebook_size, length).astype(np.int16),
            acoustic=np.zeros((0, 0), np.int16),
            captions=("music",),
            sections=(),
        )
        for number, length in enumerate(lengths)
    ]


def check_amount(tracks: Sequence[Track | Piece]) -> str | None:
    """What to warn of, if the music is little.

    Raises:
        UserError: it is too little to learn from, or nothing is left to measure with.
    """
    seconds = sum(track.seconds for track in tracks if track.split == "train")
    if not any(track.split == "valid" for track in tracks):
        raise UserError(
            "there is one piece of music only, and none to measure with; cut it into several files, or add another one"
        )
    if seconds < LEAST_SECONDS:
        raise UserError(
            f"{seconds:.0f} s of music to learn from are too little: the model would only learn them by heart; give at "
            f"least {LEAST_SECONDS:.0f} s, better 15 minutes and more"
        )
    if seconds < FEW_SECONDS:
        return f"{seconds / 60:.1f} minutes of music are little: the model may learn them by heart; 15 minutes and more are better"
    return None


def window_frames(lengths: Sequence[int], longest: int) -> int:
    """The length of the windows: `longest`, or what nine tenths of the music, in pieces of `lengths`, reach."""
    total, reached = sum(lengths), 0
    for length in sorted(lengths, reverse=True):
        reached += length
        if reached >= REACHED * total:
            return min(longest, length)
    return longest


def choose_kept(tracks: list[Track], rehearse: bool = False) -> list[Track]:
    """Half an hour of other music to measure with: of the validation split, else the test split, else any.

    To `rehearse`, up to two hours of its training split besides.

    Raises:
        UserError: there is nothing to rehearse.
    """
    of: dict[str, list[Track]] = {}
    for track in tracks:
        of.setdefault(track.split, []).append(track)
    measured = _some(of.get("valid") or of.get("test") or tracks, KEPT_SECONDS)
    if not rehearse:
        return [track.model_copy(update={"split": "valid"}) for track in measured]
    if not of.get("train") or not (of.get("valid") or of.get("test")):
        raise UserError(
            "--keep-share: the manifest of --keep needs music of the split 'train' to learn from, and other music of "
            "the split 'valid' or 'test' to measure with; `longplay data build` splits a folder"
        )
    return _some(of["train"], REHEARSED_SECONDS) + [track.model_copy(update={"split": "valid"}) for track in measured]


def _some(tracks: Sequence[Track], enough: float) -> list[Track]:
    """Tracks in an order of their own until there are `enough` seconds."""
    chosen, seconds = [], 0.0
    for track in sorted(tracks, key=_shuffled):
        if seconds < enough:
            chosen.append(track)
            seconds += track.seconds
    return chosen


def check_kept(folder: Path, codebook_size: int) -> None:
    """Refuse shards that another tokenizer made.

    Raises:
        ConfigError: they hold codes that this one has not.
        TrainingError: there is no shard, or none with music of the validation split.
    """
    largest = int(read_token_tracks(folder, "valid").figures.largest.max())
    if largest >= codebook_size:
        raise ConfigError(
            f"{folder}: holds the code {largest}, the model has {codebook_size} codes; give a manifest, or shards made "
            "with this model's tokenizer"
        )


def _shuffled(track: Track) -> str:
    return hashlib.sha256(track.id.encode()).hexdigest()
