"""The recordings of a user: where they lie, what is given about them."""

import hashlib
import re
from pathlib import Path

from pydantic import Field, InstanceOf, field_validator

from longplay.address import Address
from longplay.chords import TimedChord
from longplay.config import Config
from longplay.data.manifest import Split
from longplay.keys import Key
from longplay.prompt import Prompt, Section, parse_sections


class Given(Config):
    """What a sidecar, a manifest or a file's tags say of a recording; nothing has to be given.

    Attributes:
        captions: wordings of what it is; also `caption` or `text` for one of them, in files.
        sections: also as a text, `intro:0-15,verse:15-60`; times from the start of the audio file.
        instruments: also as a text, with commas or semicolons between them.
        group: recordings of one group are kept in one split, if it is not too large for it; default: see `splits`.
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
    return f"{slug[:40] or 'track'}-{digest(source)[:6]}"


def digest(text: str) -> str:
    """64 hexadecimal digits that are the same everywhere."""
    return hashlib.sha256(text.encode()).hexdigest()
