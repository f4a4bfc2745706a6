"""Chord progressions: in Roman numerals, as the chords that these become in a key, and as a piece of some words has them."""

import re
from collections.abc import Sequence
from random import Random
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from longplay.chords import Chord, pitch_seconds
from longplay.keys import Key, Mode, key_and_lead, likeliest_key
from longplay.tempo import meaning

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
        "i VI iv V",
        "i VII VI V",
        "i iv VII i",
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
# Of any style but jazz, whose chords have four notes; none says its key sooner.
CADENCES: dict[Mode, tuple[str, ...]] = {
    "major": ("I IV I V", "I IV V I"),
    "minor": ("i iv i V", "i VI i V", "i i iv V"),
}
KEY_LEAD = 0.2  # by which a progression's key fits better than that of any other tonic, in four bars and in all
# As words say it, those that say most first; what says nothing is pop.
_STYLES: dict[str, Harmony] = {
    r"jazz|swing|be-?bop|bossa( nova)?|lounge|big band|dixieland": "jazz",
    r"blues|boogie(-woogie)?": "blues",
    r"soul|funk|r ?& ?b|gospel|motown|disco": "soul",
    r"((heavy|death|thrash|power|black|doom) )?metal|punk|grunge|hard rock": "metal",
    r"techno|house|trance|electronica?|edm|dance|dubstep|synth-?wave|chip-?tune|rave|ambient|drum ?(and|&|'?n'?) ?bass": "electronic",
}
_MOODS: dict[str, Mode] = {
    r"sad|dark|melanchol(y|ic)|mournful|sinister|tense|mysterious|gloomy|horror|haunting|angry|tragic": "minor",
    r"happy|cheerful|bright|joy(ful)?|uplifting|sunny|playful|merry|festive|children": "major",
}
UNPITCHED = re.compile(
    r"\b(noise|atonal|beat ?box(ing)?|(drums?|percussion) (solo|only|loop|break)|(solo|only) (drums?|percussion)|field recordings?|sound effects?)\b",
    re.IGNORECASE,
)
STILL = re.compile(r"\b(drones?|soundscapes?)\b", re.IGNORECASE)


class Turns(NamedTuple):
    """Chords, one a bar, that come again and again: in verses (and intro and outro), and in choruses."""

    verse: tuple[Chord, ...]
    chorus: tuple[Chord, ...]


def chord(numeral: str, key: Key) -> Chord:
    """The chord of a numeral such as "ii7": upper case is major, lower minor.

    Raises:
        ValueError: not a numeral.
    """
    match = re.fullmatch(r"([ivIV]+)(m7b5|M7|7)?", numeral)
    if match is None or match[1].upper() not in NUMERALS:
        raise ValueError(f"chord {numeral!r} is not a Roman numeral with an optional 7, M7 or m7b5")
    root = (key.tonic + SCALES[key.mode][NUMERALS.index(match[1].upper())]) % 12
    suffix = match[2] or ""
    return Chord(root, suffix if match[1].isupper() or suffix == "m7b5" else "m" + suffix)


def progression(numerals: str, key: Key) -> tuple[Chord, ...]:
    """The chords of numerals separated by spaces, one a bar."""
    return tuple(chord(numeral, key) for numeral in numerals.split())


def usual_key(text: str, seed: int) -> Key:
    """A key that suits a text which names none, drawn by a seed."""
    random = Random(f"key:{seed}")
    mode: Mode = "minor" if random.random() < MINOR_SHARE[_style(text)] else "major"
    return Key(random.randrange(12), meaning(text, _MOODS) or mode)


def usual_turns(text: str, key: Key, seed: int) -> Turns | None:
    """Progressions in a key that suit a text, drawn by a seed; None for music without pitch, as a drum solo is.

    By the pitches of their chords no other key is nearly as likely: many progressions, most of the minor ones, leave it open.
    """
    if UNPITCHED.search(text):
        return None
    home = "I" if key.mode == "major" else "i"
    if STILL.search(text):
        return Turns(progression(home, key), progression(home, key))
    random = Random(f"harmony:{seed}")
    style = _style(text)
    options = PROGRESSIONS[style, key.mode] + (() if style == "jazz" else CADENCES[key.mode])
    fitting = [turn for turn in (progression(numerals, key) for numerals in options) if _says(turn, key)]
    verse = random.choice(fitting)
    return Turns(verse, random.choice([turn for turn in fitting if turn != verse] or [verse]))


def key_of(chords: Sequence[Chord]) -> Key:
    """The key that chords, each of them as long, are likeliest to be in."""
    return likeliest_key(_pitches(chords))


def _says(turn: Sequence[Chord], key: Key) -> bool:
    """Whether a progression is in a key, beyond doubt from its first four bars on."""
    found = (key_and_lead(_pitches(bars)) for bars in (turn[:4], turn))
    return all(likeliest == key and lead >= KEY_LEAD for likeliest, lead in found)


def _pitches(chords: Sequence[Chord]) -> npt.NDArray[np.float64]:
    return pitch_seconds(list(enumerate(chords)), len(chords))


def _style(text: str) -> Harmony:
    return meaning(text, _STYLES) or "pop"
