"""Names of keys, such as "F# minor": spelling, reading and transposing them."""

import re
from typing import Literal, NamedTuple, Self

NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
IN_TEXT = re.compile(r"\b[A-G][#b]? (?:major|minor)\b")
SPELT = re.compile(r"([A-Ga-g])([#b]?) ?(major|maj|minor|min|m|)")
_PITCHES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "b": -1}

Mode = Literal["major", "minor"]


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
