"""How well sections, tempo, key and chords are found: on rendered pieces, in which all of them are known exactly.

A boundary is hit by one found within a tolerance of it, each by one at most; the start and the end of a piece do not
count. Precision and recall of hits give F1 (Turnbull et al., "A Supervised Approach for Detecting Boundaries in Music",
2007; tolerances of 0.5 s and 3 s as in MIREX).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from longplay.analysis.measure import Facts, measure, same_tempo
from longplay.chords import triads_at, untimed
from longplay.data.decode import read_mono
from longplay.data.manifest import Track
from longplay.data.workers import run_jobs
from longplay.errors import UserError
from longplay.keys import Key
from longplay.prompt import Label, Section

TOLERANCES = (0.5, 3.0)
EDGE_PART = 0.1
LABEL_STEP = 0.5  # seconds between the places where labels and chords are compared
EXCERPT_SECONDS = 10.0  # from the middle of a piece: what can be said of a clip


class Score(NamedTuple):
    """F1 at 0.5 s and at 3 s, and the share of the time with the right label."""

    fine: float
    coarse: float
    labels: float


class Hearing(NamedTuple):
    """Shares of the pieces whose tempo (within 4 %) and key are right, of the time whose triad is, and of excerpts whose key is.

    A tempo or key that is not named counts as wrong; for an excerpt the likeliest key counts.
    """

    tempo: float
    key: float
    chords: float
    key_of_excerpt: float


class Accuracy(NamedTuple):
    """Of `sections` by each method, the analysis first, of the analysis in all else, and the number of pieces."""

    sections: dict[str, Score]
    hearing: Hearing
    pieces: int


class _Found(NamedTuple):
    whole: Facts
    excerpt: Facts


def hit_f1(found: Sequence[float], known: Sequence[float], tolerance: float) -> float:
    """F1 of the hits; 1 where there is nothing to find and nothing is found."""
    if not found or not known:
        return float(not found and not known)
    left, right = sorted(found), sorted(known)
    hits = first = second = 0
    while first < len(left) and second < len(right):  # both in order, so the nearest free one is the best match
        if abs(left[first] - right[second]) <= tolerance:
            hits, first, second = hits + 1, first + 1, second + 1
        elif left[first] < right[second]:
            first += 1
        else:
            second += 1
    return 2 * hits / (len(left) + len(right))


def score(found: Sequence[Section], known: Sequence[Section], seconds: float) -> Score:
    """Compare sections that were found with those that are known."""
    fine, coarse = (hit_f1([s.start for s in found[1:]], [s.start for s in known[1:]], each) for each in TOLERANCES)
    places = np.arange(LABEL_STEP / 2, seconds, LABEL_STEP)
    right = [_label_at(found, place) == _label_at(known, place) for place in places]
    return Score(fine, coarse, float(np.mean(right)))


def equal_sections(seconds: float, length: float) -> tuple[Section, ...]:
    """A baseline that hears nothing: sections of about `length` seconds, by turns verse and chorus between the edges."""
    bounds = np.linspace(0, seconds, max(3, round(seconds / length)) + 1)
    count = len(bounds) - 1
    labels: list[Label] = ["intro", *(("verse", "chorus")[i % 2] for i in range(count - 2)), "outro"]
    return tuple(Section(label=label, start=a, end=b) for label, a, b in zip(labels, bounds, bounds[1:], strict=False))


def tenths(seconds: float) -> tuple[Section, ...]:
    """A baseline of position: a tenth of intro and of outro, and stretches of up to 30 s of verse between."""
    inner = np.linspace(EDGE_PART * seconds, (1 - EDGE_PART) * seconds, max(2, round(0.8 * seconds / 30)) + 1)
    bounds = [0.0, *inner, seconds]
    labels: list[Label] = ["intro", *(["verse"] * (len(inner) - 1)), "outro"]  # type: ignore[list-item]
    return tuple(Section(label=label, start=a, end=b) for label, a, b in zip(labels, bounds, bounds[1:], strict=False))


def benchmark(tracks: Iterable[Track], folder: Path, workers: int) -> Accuracy:
    """Mean scores of the analysis, and for sections those of two baselines that do not listen.

    Args:
        tracks: rendered ones with sections are taken.
        folder: of their manifest.

    Raises:
        UserError: there is none.
    """
    chosen = {track.id: track for track in tracks if track.kind == "rendered" and len(track.sections) > 1}
    if not chosen:
        raise UserError(
            f"{folder}: has no rendered piece with known sections; `longplay data corpus --rendered-hours 1`"
        )
    mean_length = float(np.mean([track.seconds / len(track.sections) for track in chosen.values()]))
    jobs = [(track.id, str(folder / track.path)) for track in chosen.values()]
    found = {outcome.job[0]: outcome.get() for outcome in run_jobs(_listen, jobs, workers)}
    methods: dict[str, Callable[[Track], Sequence[Section]]] = {
        "analysis": lambda track: found[track.id].whole.sections,
        "equal spacing": lambda track: equal_sections(track.seconds, mean_length),
        "tenths": lambda track: tenths(track.seconds),
    }
    sections = {
        name: Score(*_mean(score(method(track), track.sections, track.seconds) for track in chosen.values()))
        for name, method in methods.items()
    }
    hearing = Hearing(*_mean(_heard(found[track.id], track) for track in chosen.values()))
    return Accuracy(sections, hearing, len(chosen))


def _listen(job: tuple[str, str]) -> _Found:
    wav, rate = read_mono(Path(job[1]))
    size = round(EXCERPT_SECONDS * rate)
    start = max(0, (len(wav) - size) // 2)
    return _Found(measure(wav, rate), measure(wav[start : start + size], rate))


def _heard(found: _Found, track: Track) -> Hearing:
    key = track.key and Key.parse(track.key)
    places = np.arange(LABEL_STEP / 2, track.seconds, LABEL_STEP)
    known, heard = (triads_at(untimed(chords), places) for chords in (track.chords, found.whole.chords))
    return Hearing(
        tempo=track.bpm is not None and same_tempo(track.bpm, found.whole.bpm),
        key=found.whole.key == (key and str(key)),
        chords=float(np.mean([one == other for one, other in zip(known, heard, strict=True)])),
        key_of_excerpt=found.excerpt.likeliest_key == key,
    )


def _mean(rows: Iterable[Sequence[float]]) -> list[float]:
    return [float(value) for value in np.mean(list(rows), axis=0)]


def _label_at(sections: Sequence[Section], place: float) -> str | None:
    return next((section.label for section in sections if section.start <= place < section.end), None)
