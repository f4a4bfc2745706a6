"""Keys by name, such as "F# minor": spelling, reading and transposing them, and which one pitches are likely to be in."""

import re
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
IN_TEXT = re.compile(r"\b[A-G][#b]? (?:major|minor)\b")
SPELT = re.compile(r"([A-Ga-g])([#b]?) ?(major|maj|minor|min|m|)")
_PITCHES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "b": -1}

Mode = Literal["major", "minor"]
# How well each pitch class fits, from the tonic up (Krumhansl and Kessler, 1982).
PROFILES: tuple[tuple[Mode, tuple[float, ...]], ...] = (
    ("major", (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)),
    ("minor", (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)),
)

Floats = npt.NDArray[np.floating[Any]]


class Key(NamedTuple):
    """Tonic, 0 for C to 11 for B, and mode."""

    tonic: int
    mode: Mode

    def __str__(self) -> str:
        return f"{NOTES[self.tonic]} {self.mode}"

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read "F# minor", "F#m" or "Gb min", which are the same.

        Raises:
            ValueError: another form.
        """
        match = SPELT.fullmatch(name.strip())
        if match is None:
            raise ValueError(f"key {name!r}: expected a form like 'F# minor' or 'F#m'")
        tonic = (_PITCHES[match[1].upper()] + _ACCIDENTALS[match[2]]) % 12
        return cls(tonic, "minor" if match[3] in ("minor", "min", "m") else "major")

    def transposed(self, semitones: int) -> "Key":
        """So many semitones higher."""
        return Key((self.tonic + semitones) % 12, self.mode)


def named_key(text: str) -> str | None:
    """The first key that a text names, as it spells it."""
    match = IN_TEXT.search(text)
    return match[0] if match else None


def likeliest_key(chroma: Floats) -> Key:
    """The key of `key_likeness` that fits best, however little it stands out."""
    return max((scores := key_likeness(chroma)), key=scores.__getitem__)


def key_likeness(chroma: Floats) -> dict[Key, float]:
    """Correlation of the mean strength of the pitch classes [12] with the profile of each of the 24 keys; 0 where all are the same."""
    if chroma.std() == 0:
        return {Key(tonic, mode): 0.0 for mode, _ in PROFILES for tonic in range(12)}
    return {
        Key(tonic, mode): float(np.corrcoef(np.roll(profile, tonic), chroma)[0, 1])
        for mode, profile in PROFILES
        for tonic in range(12)
    }
