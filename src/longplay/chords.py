"""Chords by name, such as "F#m7": reading, spelling and transposing them, and the pitch classes that sound."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from longplay.config import Config
from longplay.keys import NOTES, Key

# By suffix, in semitones above the root, the root first.
QUALITIES: dict[str, tuple[int, ...]] = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "m7": (0, 3, 7, 10),
    "M7": (0, 4, 7, 11),
    "m7b5": (0, 3, 6, 10),
    "dim": (0, 3, 6),
    "dim7": (0, 3, 6, 9),
    "aug": (0, 4, 8),
    "sus2": (0, 2, 7),
    "sus4": (0, 5, 7),
    "6": (0, 4, 7, 9),
    "m6": (0, 3, 7, 9),
    "9": (0, 2, 4, 7, 10),
    "m9": (0, 2, 3, 7, 10),
}
_SPELLINGS = {"maj": "", "M": "", "min": "m", "-": "m", "maj7": "M7", "min7": "m7", "-7": "m7"}
_FORM = re.compile(r"([A-G])([#b]?)(.*)")
NO_CHORD = "N"


class Chord(NamedTuple):
    """Pitch class of the root, 0 for C to 11 for B, and quality, one of `QUALITIES`."""

    root: int
    quality: str

    def __str__(self) -> str:
        return NOTES[self.root] + self.quality

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read "F#m7", "Gbmin7" or "Cmaj7".

        Raises:
            ValueError: another form, or a chord of another kind.
        """
        match = _FORM.fullmatch(name.strip())
        quality = _SPELLINGS.get(match[3], match[3]) if match else None
        if match is None or quality not in QUALITIES:
            known = ", ".join(f"C{suffix}" for suffix in QUALITIES)
            raise ValueError(f"chord {name!r}: expected a root from A to G, # or b, and a kind as in {known}")
        return cls(Key.parse(match[1] + match[2]).tonic, quality)

    @property
    def pitches(self) -> tuple[int, ...]:
        """Pitch classes, the root's first."""
        return tuple((self.root + step) % 12 for step in QUALITIES[self.quality])

    @property
    def triad(self) -> "Chord":
        """The major or minor triad that it is nearest to."""
        return Chord(self.root, "m" if 3 in QUALITIES[self.quality] else "")

    def transposed(self, semitones: int) -> "Chord":
        """So many semitones higher."""
        return Chord((self.root + semitones) % 12, self.quality)


Chords = Sequence[tuple[float, Chord | None]]  # and the seconds at which they start, in order; None where none sounds


class TimedChord(Config):
    """The second at which a chord starts, and its name; `NO_CHORD` where none sounds."""

    start: float = Field(ge=0)
    name: str

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name != NO_CHORD:
            Chord.parse(name)
        return name

    @property
    def chord(self) -> Chord | None:
        """What is named."""
        return None if self.name == NO_CHORD else Chord.parse(self.name)


def timed(chords: Iterable[tuple[float, Chord | None]]) -> tuple[TimedChord, ...]:
    """Chords with the seconds at which they start, as they are written down."""
    return tuple(TimedChord(start=start, name=NO_CHORD if chord is None else str(chord)) for start, chord in chords)


def untimed(chords: Iterable[TimedChord]) -> list[tuple[float, Chord | None]]:
    """What `timed` wrote down."""
    return [(each.start, each.chord) for each in chords]


def spans(chords: Chords, end: float) -> Iterator[tuple[float, float, Chord | None]]:
    """From when to when each chord sounds, the last one until `end`."""
    starts = [start for start, _ in chords]
    for (start, chord), until in zip(chords, [*starts[1:], end], strict=False):
        yield start, until, chord


def pitch_seconds(chords: Chords, end: float) -> npt.NDArray[np.float64]:
    """How long each of the twelve pitch classes sounds in the triads of chords of which the last one sounds until `end`, [12]."""
    sounding = np.zeros(12)
    for start, until, chord in spans(chords, end):
        if chord is not None:
            sounding[list(chord.triad.pitches)] += max(until - start, 0)
    return sounding


def triads_at(chords: Chords, times: npt.NDArray[np.float64]) -> list[Chord | None]:
    """The triad that sounds at each of `times`; None where none does."""
    triads = [None, *(chord and chord.triad for _, chord in chords)]
    return [triads[at] for at in np.searchsorted([start for start, _ in chords], times, side="right")]


def parse_progression(text: str) -> tuple[Chord, ...]:
    """Read chords separated by spaces, commas, dashes or bar lines, such as "Am F C G".

    Raises:
        ValueError: none, or one that cannot be read.
    """
    names = [name for name in re.split(r"[\s,|]+|(?<=\S)-(?=[A-G])", text) if name]
    if not names:
        raise ValueError(f"chords {text!r}: give at least one, e.g. 'Am F C G'")
    return tuple(Chord.parse(name) for name in names)


def transposed(name: str, semitones: int) -> str:
    """The name of a chord so many semitones higher; `NO_CHORD` stays."""
    return name if name == NO_CHORD else str(Chord.parse(name).transposed(semitones))
