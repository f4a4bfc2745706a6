"""Names of keys, such as "F# minor": spelling, reading and transposing them."""

import re
from typing import Literal, NamedTuple, Self

NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEY = re.compile(r"\b([A-G])(#|b)? (major|minor)\b")
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
        """Read "F# minor" or "Gb minor", which are the same.

        Raises:
            ValueError: another form.
        """
        match = KEY.fullmatch(name[:1].upper() + name[1:])
        if match is None:
            raise ValueError(f"key {name!r}: expected a form like 'F# minor'")
        tonic = (_PITCHES[match[1]] + _ACCIDENTALS[match[2] or ""]) % 12
        return cls(tonic, "major" if match[3] == "major" else "minor")

    def transposed(self, semitones: int) -> "Key":
        """So many semitones higher."""
        return Key((self.tonic + semitones) % 12, self.mode)


def named_key(text: str) -> str | None:
    """The first key that a text names, as it spells it."""
    match = KEY.search(text)
    return match[0] if match else None
