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
# How well each pitch class fits, from the tonic up: as set by Temperley ("What's Key for Key?", 1999), and as counted by him in
# the pieces of Kostka and Payne's textbook ("Music and Probability", 2007). Together they tell best (docs/experiments.md, 2026-11-28).
PROFILES: dict[Mode, tuple[tuple[float, ...], ...]] = {
    "major": (
        (5, 2, 3.5, 2, 4.5, 4, 2, 4.5, 2, 3.5, 1.5, 4),
        (0.748, 0.060, 0.488, 0.082, 0.670, 0.460, 0.096, 0.715, 0.104, 0.366, 0.057, 0.400),
    ),
    "minor": (
        (5, 2, 3.5, 4.5, 2, 4, 2, 4.5, 3.5, 2, 1.5, 4),
        (0.712, 0.084, 0.474, 0.618, 0.049, 0.460, 0.105, 0.747, 0.404, 0.067, 0.133, 0.330),
    ),
}

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


def likeliest_key(pitches: Floats) -> Key:
    """The key of `key_likeness` that fits best, however little it stands out."""
    return key_and_lead(pitches)[0]


def key_likeness(pitches: Floats) -> dict[Key, float]:
    """How well the strength of the pitch classes [12] fits each of the 24 keys: correlation, mean over `PROFILES`; 0 where all are the same."""
    if pitches.std() == 0:
        return dict.fromkeys(_TEMPLATES, 0.0)
    standard = _standard(pitches)
    return {key: float(np.mean(template * standard)) for key, template in _TEMPLATES.items()}


def key_and_lead(pitches: Floats) -> tuple[Key, float]:
    """The key of `key_likeness` that fits best, and by how much better than any of another tonic."""
    scores = key_likeness(pitches)
    found = max(scores, key=scores.__getitem__)
    return found, scores[found] - max(score for other, score in scores.items() if other.tonic != found.tonic)


def _standard(values: Floats) -> Floats:
    """With mean 0 and deviation 1."""
    return (values - values.mean()) / values.std()


_TEMPLATES = {
    Key(tonic, mode): np.roll(np.mean([_standard(np.array(each)) for each in profiles], axis=0), tonic)
    for mode, profiles in PROFILES.items()
    for tonic in range(12)
}
