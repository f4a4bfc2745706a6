"""Which recordings exist, which may be trained on, and which are reserved for testing.

`tracks.jsonl` lists the music of 25 s and more in Debian 12 packages, with the licence grade read from each
package's copyright file. A path with `.zip.d/` or `.pk3.d/` names a member of that archive.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field

from longplay.config import Config
from longplay.data.manifest import Split

TRAIN_LICENCES = ("PERM", "CC-BY-SA", "GPL-or-CC-BY-SA")
TEST_PACKAGES = ("flare-game", "hyperrogue-music")
QUICK_PACKAGES = (
    "singularity-music",
    "marsshooter-data",
    "openclonk-data",
    "fretsonfire-songs-sectoid",
    "unknown-horizons",
    "amoebax-data",  # this one and the next have music of the validation split, too
    "plee-the-bear-data",
)
NOT_MUSIC = ("/soundfx/", "/sound/weather/", "steamLocomotive", "nolok_speech", "introcutscene2")  # parts of paths
STEMS = ("guitar", "song")
TEST_EVERY = 10
VALID_EVERY = 40
MIN_CODEC_RATE = 44100
MIN_CODEC_KBPS = 100


class SourceFile(Config):
    """One audio file inside a package; `tags` are the title, artist, album and genre written in the file."""

    package: str
    path: str
    seconds: float
    sample_rate: int
    kbps: int
    licence: Literal["PERM", "CC-BY-SA", "GPL-or-CC-BY-SA", "GPL", "UNCLEAR"]
    tags: dict[str, str] = Field(default_factory=dict)


class Work(Config):
    """One piece of music: a file, or stems of equal length to be summed."""

    files: tuple[SourceFile, ...]
    split: Split

    @property
    def package(self) -> str:
        """The package that holds it."""
        return self.files[0].package

    @property
    def source(self) -> str:
        """Package and path; of stems, their folder."""
        first = self.files[0]
        path = PurePosixPath(first.path)
        return f"{first.package}/{path if len(self.files) == 1 else path.parent}"

    @property
    def id(self) -> str:
        """Readable, stable, and unique through six digits of the source's hash."""
        slug = re.sub(r"[^a-z0-9]+", "-", PurePosixPath(self.source).stem.lower()).strip("-")
        return f"{self.package}-{slug[:40]}-{_digest(self.source)[:6]}"

    @property
    def codec_ok(self) -> bool:
        """Whether every file keeps enough of the treble to teach the 48 kHz codec."""
        return all(file.sample_rate >= MIN_CODEC_RATE and file.kbps >= MIN_CODEC_KBPS for file in self.files)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of its files; of stems, the first file that has a tag decides."""
        return {key: value for file in reversed(self.files) for key, value in file.tags.items()}


def source_files() -> list[SourceFile]:
    """Every listed file, of every licence."""
    text = files("longplay.data").joinpath("tracks.jsonl").read_text(encoding="utf-8")
    return [SourceFile(**json.loads(line)) for line in text.splitlines()]


def works(listed: Sequence[SourceFile], packages: Collection[str] | None = None) -> list[Work]:
    """The pieces that may be trained or tested on, each with its split.

    What is not reserved for testing is for training, but for every fortieth piece, which is for validation.

    Args:
        listed: all known files, also those that may not be used: they count in the split rule.
        packages: restricts the result, never the split.
    """
    reserved = _reserved(listed)
    groups: dict[tuple[str, str], list[SourceFile]] = {}
    for file in listed:
        if file.licence in TRAIN_LICENCES:
            path = PurePosixPath(file.path)
            piece = path.parent if path.stem in STEMS else path
            groups.setdefault((file.package, str(piece)), []).append(file)
    tested = {key for key, members in groups.items() if any((file.package, file.path) in reserved for file in members)}
    validated = set(sorted(groups.keys() - tested)[VALID_EVERY // 2 :: VALID_EVERY])
    splits: dict[tuple[str, str], Split] = {}
    splits.update(dict.fromkeys(tested, "test"))
    splits.update(dict.fromkeys(validated, "valid"))
    return [
        Work(files=tuple(members), split=splits.get(key, "train"))
        for key, members in sorted(groups.items())
        if (packages is None or key[0] in packages) and not any(part in key[1] for part in NOT_MUSIC)
    ]


def _reserved(listed: Iterable[SourceFile]) -> set[tuple[str, str]]:
    """(package, path) of the test split: two whole packages, and every tenth file of the others.

    "Every tenth" is counted twice, over all files of a package and over its trainable ones, and both are reserved:
    whichever way another evaluation counts, it meets no music that was trained on.
    """
    by_package: dict[str, list[SourceFile]] = {}
    for file in sorted(listed, key=lambda file: file.path):
        by_package.setdefault(file.package, []).append(file)
    reserved = set()
    for package, members in by_package.items():
        trainable = [file for file in members if file.licence in TRAIN_LICENCES]
        tenth = members[TEST_EVERY - 1 :: TEST_EVERY] + trainable[TEST_EVERY - 1 :: TEST_EVERY]
        reserved |= {(package, file.path) for file in (members if package in TEST_PACKAGES else tenth)}
    return reserved


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
