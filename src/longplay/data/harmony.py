"""Chord progressions in Roman numerals, and the chord symbols they become in a key."""

import re
from typing import Literal

from longplay.keys import NOTES, Mode

Harmony = Literal["pop", "jazz", "blues", "soul", "electronic", "metal"]

SCALES: dict[Mode, tuple[int, ...]] = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
NUMERALS = ("I", "II", "III", "IV", "V", "VI", "VII")
MINOR_SHARE: dict[Harmony, float] = {
    "pop": 0.35,
    "jazz": 0.4,
    "blues": 0.25,
    "soul": 0.4,
    "electronic": 0.75,
    "metal": 0.85,
}
PROGRESSIONS: dict[tuple[Harmony, Mode], tuple[str, ...]] = {
    ("pop", "major"): (
        "I V vi IV",
        "vi IV I V",
        "I vi IV V",
        "I IV V IV",
        "I iii IV V",
        "I IV ii V",
        "IV I V vi",
        "I I IV V I vi ii V",
    ),
    ("pop", "minor"): (
        "i VI III VII",
        "i iv VII III",
        "i VII VI VII",
        "i iv i V",
        "i III VII VI",
        "i i iv iv VI VII i V",
    ),
    ("jazz", "major"): ("ii7 V7 IM7 vi7", "IM7 vi7 ii7 V7", "iii7 vi7 ii7 V7", "IM7 IVM7 iii7 vi7 ii7 V7 IM7 V7"),
    ("jazz", "minor"): ("iim7b5 V7 i7 i7", "i7 iv7 VII7 IIIM7", "i7 iv7 iim7b5 V7", "i7 VIM7 iim7b5 V7"),
    ("blues", "major"): ("I7 I7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7", "I7 IV7 I7 I7 IV7 IV7 I7 vi7 ii7 V7 I7 V7"),
    ("blues", "minor"): ("i7 i7 i7 i7 iv7 iv7 i7 i7 VI7 V7 i7 V7",),
    ("soul", "major"): ("IM7 IVM7 IM7 IVM7", "IM7 iii7 IVM7 V7", "I7 IV7 I7 IV7", "ii7 iii7 IVM7 V7"),
    ("soul", "minor"): ("i7 iv7 i7 iv7", "i7 VIM7 VII i7", "i7 i7 iv7 V7"),
    ("electronic", "major"): ("I V vi IV", "IV V vi I", "I I IV IV"),
    ("electronic", "minor"): ("i VI III VII", "i i VI VII", "i i i i iv iv i i", "VI VII i i", "i iv VI VII"),
    ("metal", "major"): ("I IV I V", "I V vi IV"),
    ("metal", "minor"): ("i VI VII i", "i i VI VII", "i VII VI V", "i i iv VI i VII VI V"),
}
CHORD_TONES = {"": (0, 4, 7), "m": (0, 3, 7), "7": (0, 4, 10), "m7": (0, 3, 7), "M7": (0, 4, 11), "m7b5": (0, 3, 6)}


def chord(numeral: str, tonic: int, mode: Mode) -> tuple[int, str]:
    """Pitch class of the root (0 = C) and quality of a numeral such as "ii7": upper case is major, lower minor.

    Raises:
        ValueError: not a numeral.
    """
    match = re.fullmatch(r"([ivIV]+)(m7b5|M7|7)?", numeral)
    if match is None or match[1].upper() not in NUMERALS:
        raise ValueError(f"chord {numeral!r} is not a Roman numeral with an optional 7, M7 or m7b5")
    root = (tonic + SCALES[mode][NUMERALS.index(match[1].upper())]) % 12
    suffix = match[2] or ""
    return root, suffix if match[1].isupper() or suffix == "m7b5" else "m" + suffix


def symbol(root: int, quality: str) -> str:
    """A chord symbol as MMA and musicians write it, such as "F#m7"."""
    return NOTES[root] + quality
