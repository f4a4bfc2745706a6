"""From a work and its measurements to its line of the manifest."""

import re
import unicodedata
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath

import yaml
from pydantic import Field

from longplay.analysis.measure import Facts
from longplay.config import Config
from longplay.data.captions import Description, captions, course, moods, passages
from longplay.data.copyright import Rights, read_stanzas, rights
from longplay.data.manifest import Measured, Track
from longplay.data.sources import Work
from longplay.data.tags import NOTHING, Heard

DEFAULT_STYLES = ("video game music",)
# A file's genre tag is believed where it names a style; "Game", "Other" or an artist's slogan say nothing.
GENRE_TAGS = (
    "ambient",
    "classical",
    "death metal",
    "electronic",
    "house",
    "orchestral",
    "psychedelic",
    "reggae",
    "rock",
)


class Package(Config):
    """What `packages.yaml` says of one package; `paths` gives styles to the tracks whose path holds the key."""

    styles: tuple[str, ...] = DEFAULT_STYLES
    paths: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    authors: tuple[str, ...] = ()
    licence: str = ""


def describe(work: Work, facts: Facts, copyright_file: Path, heard: Heard = NOTHING) -> Track:
    """The manifest line of a real recording, from what its package says, what was measured and what was heard."""
    named = title(work)
    own = ownership(work, copyright_file)
    known = Description(
        title=named,
        styles=styles(work),
        moods=moods(facts),
        course=course(facts.loudness),
        bpm=facts.bpm,
        key=facts.key,
    )
    about = known.hearing(heard)
    return Track(
        id=work.id,
        path=f"audio/{work.id}.wav",
        seconds=facts.seconds,
        split=work.split,
        kind="real",
        title=named,
        source=work.source,
        licence=own.licence,
        author=", ".join(own.authors) or None,
        codec_ok=work.codec_ok,
        captions=captions(about),
        passages=passages(known, heard),
        sections=facts.sections,
        bpm=facts.bpm,
        key=facts.key,
        bars=facts.bars,
        measured=Measured.of(facts),
        chords=facts.chords,
        genre=about.styles[0],
        instruments=about.instruments,
    )


def title(work: Work) -> str:
    """The title of the tags, else the name of the file in words."""
    raw = work.tags.get("title") or PurePosixPath(work.source).stem
    words = re.sub(r"[_\s]+", " ", re.sub(r"^\d+[\s._-]+", "", raw)).strip(" -")
    return words if work.tags.get("title") else words.replace("-", " ")


def styles(work: Work) -> tuple[str, ...]:
    """Genre tag of the file, styles of its path, or those of its package."""
    package = _packages().get(work.package, Package())
    tag = work.tags.get("genre", "").lower()
    special = [words for part, words in package.paths.items() if part in work.source]
    found = special[0] if special else package.styles
    return tuple(dict.fromkeys([*([tag] if tag in GENRE_TAGS else []), *found]))


def ownership(work: Work, copyright_file: Path) -> Rights:
    """Authors and licence: from the copyright file, else as read by hand; the artist of the tags comes first."""
    by_hand = _packages().get(work.package, Package())
    found = rights(read_stanzas(copyright_file.read_text(encoding="utf-8", errors="replace")), work.files[0].path)
    authors = found.authors or by_hand.authors
    artist = work.tags.get("artist", "")
    if artist and "." not in artist and not any(_plain(artist) in _plain(author) for author in authors):
        authors = (artist, *authors)
    return Rights(authors, found.licence or by_hand.licence or work.files[0].licence)


def _plain(name: str) -> str:
    """For comparing: without accents, signs and capitals."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", name).lower() if letter.isalnum())


@cache
def _packages() -> dict[str, Package]:
    data = yaml.safe_load(files("longplay.data").joinpath("packages.yaml").read_text("utf-8"))
    return {name: Package(**entry) for name, entry in data.items()}
