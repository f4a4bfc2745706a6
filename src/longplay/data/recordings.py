"""The recordings of a user: where they lie, what is given about them, which split they belong to."""

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, InstanceOf, field_validator

from longplay.address import Address
from longplay.chords import TimedChord
from longplay.config import Config
from longplay.data.manifest import Split
from longplay.keys import Key
from longplay.prompt import Prompt, Section, parse_sections

GroupBy = Literal["album", "artist", "folder", "file"]

log = logging.getLogger(__name__)


class Given(Config):
    """What a sidecar, a manifest or a file's tags say of a recording; nothing has to be given.

    Attributes:
        captions: wordings of what it is; also `caption` or `text` for one of them, in files.
        sections: also as a text, `intro:0-15,verse:15-60`; times from the start of the audio file.
        instruments: also as a text, with commas or semicolons between them.
        group: recordings of one group are never spread over the splits; default: see `splits`.
        offset: second of the song at which the audio file starts.
    """

    id: str | None = None
    captions: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    split: Split | None = None
    group: str | None = None
    title: str | None = None
    author: str | None = None
    album: str | None = None
    licence: str | None = None
    genre: str | None = None
    bpm: float | None = Field(default=None, gt=0)
    key: str | None = None
    instruments: tuple[str, ...] = ()
    chords: tuple[TimedChord, ...] = ()
    offset: float = 0.0

    @field_validator("captions", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("instruments", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        names = re.split("[,;]", value) if isinstance(value, str) else None
        return value if names is None else [name.strip() for name in names if name.strip()]

    @field_validator("key")
    @classmethod
    def _spelt(cls, value: str | None) -> str | None:
        return None if value is None else str(Key.parse(value))

    @field_validator("sections", mode="before")
    @classmethod
    def _parsed(cls, value: object) -> object:
        return parse_sections(value) if isinstance(value, str) else value

    @field_validator("sections")
    @classmethod
    def _ordered(cls, value: tuple[Section, ...]) -> tuple[Section, ...]:
        return Prompt(sections=value).sections

    def over(self, other: "Given") -> "Given":
        """These values, and those of `other` where there is none here."""
        return Given.model_validate(
            {**other.model_dump(exclude_defaults=True), **self.model_dump(exclude_defaults=True)}
        )


class Recording(Config):
    """One audio file to learn from.

    Attributes:
        id: unique, stable, fit for a file name.
        path: of the file, absolute, or its address.
        source: how its owner calls it: path below the folder, or as the manifest has it.
    """

    id: str
    path: Path | InstanceOf[Address]
    source: str
    given: Given


def recording_id(source: str) -> str:
    """Readable, stable, and unique through six digits of the source's hash."""
    slug = re.sub(r"[^a-z0-9]+", "-", Path(source).stem.lower()).strip("-")
    return f"{slug[:40] or 'track'}-{_digest(source)[:6]}"


def splits(recordings: Sequence[Recording], group_by: GroupBy, valid: float, test: float) -> dict[str, Split]:
    """The split of each id.

    A group is hashed to a number between 0 and 1: below `test` it is tested on, in the next `valid` validated on, else
    trained on. So a group stays in its split when others come or go, with one exception: where no group falls
    into a split whose share is not 0, the group nearest to it moves there, for a stage cannot do without.

    Args:
        recordings: those whose split is given keep it.
        group_by: what is kept together unless a group is given: `album` (artist and album, else the folder), `artist`
            (else the folder), `folder` (a file in the topmost folder is its own), or each `file` for itself.
        valid, test: shares, from 0 to 1 together.
    """
    groups: dict[str, list[Recording]] = {}
    for recording in recordings:
        groups.setdefault(_group(recording, group_by), []).append(recording)
    if len(groups) == 1 < len(recordings) and (valid or test):
        log.warning("all %d recordings are one group, %r: split by file instead", len(recordings), *groups)
        groups = {recording.source: [recording] for recording in recordings}
    chosen = hashed_splits(groups, valid, test)
    return {
        recording.id: recording.given.split or chosen[group]
        for group, members in groups.items()
        for recording in members
    }


def hashed_splits(groups: Iterable[str], valid: float, test: float) -> dict[str, Split]:
    """The split of each group by the rule of `splits`."""
    place = {group: int(_digest(group)[:12], 16) / 16**12 for group in groups}
    chosen: dict[str, Split] = {
        group: "test" if at < test else "valid" if at < test + valid else "train" for group, at in place.items()
    }
    wanted: tuple[tuple[Split, float], ...] = (("valid", valid), ("test", test))
    for split, share in wanted:
        candidates = [group for group, each in chosen.items() if each == "train"]
        if share and split not in chosen.values() and len(candidates) > 1:
            chosen[min(candidates, key=lambda group: place[group])] = split
    return chosen


def _group(recording: Recording, group_by: GroupBy) -> str:
    given = recording.given
    if given.group:
        return given.group
    folder = str(Path(recording.source).parent)
    named = {"album": given.album and f"{given.author}/{given.album}", "artist": given.author}.get(group_by)
    if named:
        return named
    return recording.source if group_by == "file" or folder == "." else folder


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
