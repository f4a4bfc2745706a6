"""The manifest: one line of JSON per track of a corpus, everything that training may know about it."""

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, ValidationError

from longplay.address import Location
from longplay.analysis.measure import Facts
from longplay.chords import TimedChord
from longplay.config import Config
from longplay.errors import ConfigError
from longplay.files import lines, write_text
from longplay.prompt import Section

MANIFEST = "manifest.jsonl"
SAMPLE_RATE = 48000

Split = Literal["train", "valid", "test"]


class Passage(Config):
    """A stretch of a track, in seconds of it, several wordings of what is heard there, and how it sounds (`styles.py`)."""

    start: float = Field(ge=0)
    end: float = Field(gt=0)
    captions: tuple[str, ...] = ()
    style: tuple[float, ...] = ()

    @property
    def wordless(self) -> Self:
        """The same without captions: something else is said of the track."""
        return self.model_copy(update={"captions": ()})


class Measured(Config):
    """What was measured of a whole track and is worth telling; `brightness`, `density` and `loudness` as in `Facts`."""

    brightness: float = Field(ge=0)
    density: float = Field(ge=0)
    loudness: tuple[float, ...]

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """From all that was measured."""
        return cls(brightness=facts.brightness, density=facts.density, loudness=facts.loudness)


class Track(Config):
    """One track: where its audio lies and what it is.

    Attributes:
        id: unique, and the stem of the audio file's name.
        path: the audio file, relative to the manifest: mono 16-bit WAV at 48 kHz, or any file that is kept where it lies.
        kind: "real" for a recording, "rendered" for one made here from notes.
        source: package and path inside it, path in the user's folder, or the renderer with its groove and seed.
        codec_ok: the source has at least 44.1 kHz and 100 kb/s, so that the 48 kHz codec may learn from it.
        captions: several wordings of the same facts, from terse to a sentence.
        passages: what is heard in one part of the track and perhaps not in another, in order.
        sections, bpm, key, chords: exact where `kind` is "rendered", else given or estimated (see `measure`).
        measured: of a real recording; None in manifests made before there was such a thing.
        bars: times of the bar lines in seconds, none without a pulse; `bpm` tells how many beats a bar has.
        offset: second of the song at which the audio starts, where it is a clip of one.
        speed: at which the file is to be played, times and tempo being those of then (`data/varispeed.py`).
    """

    id: str
    path: str
    seconds: float = Field(gt=0)
    split: Split
    kind: Literal["real", "rendered"]
    title: str
    source: str
    licence: str
    author: str | None = None
    codec_ok: bool
    captions: tuple[str, ...]
    passages: tuple[Passage, ...] = ()
    sections: tuple[Section, ...] = ()
    bpm: float | None = None
    key: str | None = None
    genre: str | None = None
    instruments: tuple[str, ...] = ()
    chords: tuple[TimedChord, ...] = ()
    bars: tuple[float, ...] = ()
    measured: Measured | None = None
    offset: float = Field(default=0.0, ge=0)
    speed: float = Field(default=1.0, gt=0)


def write_manifest(path: Location, tracks: Iterable[Track]) -> None:
    """Write `tracks` as JSON lines, sorted by id; a reader never sees half a file."""
    lines = [track.model_dump_json(exclude_defaults=True) for track in sorted(tracks, key=lambda track: track.id)]
    write_text(path, "".join(line + "\n" for line in lines))


def read_manifest(path: Location) -> list[Track]:
    """The tracks of a manifest.

    Raises:
        ConfigError: the file is missing, or a line is not a track (named by its number).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"manifest {path}: {error.strerror}; build one with `longplay data build` or `longplay data corpus {path.parent}`"
        ) from None
    return parse_manifest(text, str(path))


def parse_manifest(text: str, source: str) -> list[Track]:
    """The tracks of a manifest's text.

    Raises:
        ConfigError: a line is not a track (named by `source` and its number).
    """
    tracks = []
    for number, line in enumerate(lines(text), 1):
        try:
            tracks.append(Track.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "line"
            raise ConfigError(f"{source}:{number}: {where}: {first['msg']}; rebuild the manifest") from None
    return tracks
