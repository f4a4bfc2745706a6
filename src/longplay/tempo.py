"""Tempi in words and numbers: reading them, naming them, and one that suits words which name none."""

import random
import re
from collections.abc import Mapping
from math import exp, log
from statistics import NormalDist
from typing import TypeVar

T = TypeVar("T")

MIN_BPM, MAX_BPM = 30.0, 300.0
SLOW_BPM, FAST_BPM, VERY_FAST_BPM = 80, 120, 150
IN_TEXT = re.compile(r"(\d+(?:\.\d+)?) ?bpm\b", re.IGNORECASE)
WORDS = re.compile(r"\b(slow|mid-tempo|very fast|fast)\b", re.IGNORECASE)
FREE = re.compile(
    r"\b(ambient|drones?|soundscapes?|field recordings?|rubato|beatless|free (time|tempo|rhythm)|(no|without)( an?)? (beats?|pulse|rhythm))\b",
    re.IGNORECASE,
)
USUAL_BPM, USUAL_SPREAD = 115.0, 0.23  # median of the corpus that nano learns from, and deviation of the logarithm
_RANGES = {  # of words, those that say most first; of styles as they are commonly given, and as the corpus has them
    r"very slow": (50, 66),
    r"slow": (60, SLOW_BPM),
    r"mid-tempo|medium tempo": (SLOW_BPM, FAST_BPM),
    r"very fast": (VERY_FAST_BPM, 180),
    r"fast": (FAST_BPM, VERY_FAST_BPM),
    r"drum ?(and|&|'?n'?) ?bass|jungle": (168, 178),
    r"dubstep": (138, 142),
    r"trance": (128, 142),
    r"techno|rave": (122, 140),
    r"house|electropop|dance": (114, 130),
    r"disco|funk": (100, 126),
    r"ballads?|lullab(y|ies)|hymns?|adagio": (60, 85),
    r"trip-?hop|hip[- ]?hop|lo-?fi|soul|reggae|dub|downtempo": (76, 105),
    r"waltz(es)?|bluegrass|punk|bebop": (110, 165),
    r"(heavy|death|thrash|power) metal": (110, 170),
    r"calm|peaceful|relax(ing|ed)|gentle|sad|soft|sleep(y|ing)?|meditati(ve|on)": (60, 96),
    r"energetic|upbeat|driving|happy|lively|party": (112, 145),
}
_ANY = (60, 180)


def named_bpm(text: str) -> float | None:
    """The first tempo that a text names, such as "120 bpm"."""
    match = IN_TEXT.search(text)
    return float(match[1]) if match else None


def tempo_word(bpm: float) -> str:
    """How a tempo feels: slow, mid-tempo, fast or very fast."""
    if bpm < SLOW_BPM:
        return "slow"
    if bpm < FAST_BPM:
        return "mid-tempo"
    return "fast" if bpm < VERY_FAST_BPM else "very fast"


def meaning(text: str, meanings: Mapping[str, T]) -> T | None:
    """What the first of some words, regular expressions, means that a text has."""
    return next((each for words, each in meanings.items() if re.search(rf"\b({words})\b", text, re.IGNORECASE)), None)


def usual_bpm(text: str, seed: int) -> float | None:
    """A whole tempo that suits a text, drawn by a seed; None for music that is without a pulse, as ambient music may be.

    Tempi are distributed as in real music, log-normally, within what the words allow.
    """
    if FREE.search(text):
        return None
    low, high = meaning(text, _RANGES) or _ANY
    usual = NormalDist(0.0, USUAL_SPREAD)
    first, last = (usual.cdf(log(bound / USUAL_BPM)) for bound in (low, high))
    drawn = first + (last - first) * random.Random(f"tempo:{seed}").random()
    return float(round(USUAL_BPM * exp(usual.inv_cdf(drawn))))
