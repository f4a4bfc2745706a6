"""The structure of a piece: where sections begin, which of them are alike, and what they are called.

1. Beats make a grid that follows the music; bars of three or four beats are compared by their spectra and chroma
   (cosine of the centred features of a whole bar, beat by beat, so that a rhythm is part of the likeness).
2. Boundaries are those of the best segmentation by dynamic programming: a segment is worth the mean likeness of bars
   up to 15 apart inside it, less for lengths that are no multiple of eight, four or two bars (after Marmoret, Cohen
   and Bimbot, "Barwise Music Structure Analysis with the Correlation Block-Matching Segmentation Algorithm", 2023), more
   for beginning where the checkerboard novelty is high (Foote, "Automatic Audio Segmentation Using a Measure of Audio
   Novelty", 2000). Which beat a bar begins on is the choice that makes the best segmentation and the most changes of
   harmony on its bar lines.
3. Segments that run in step on some diagonal are of one group. At the edges, what is short, quiet or does not return is
   intro and outro; the first group after that is the verse, the loudest other one that returns the chorus, the rest are
   verses: a convention and not an analysis.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longplay.analysis.beats import beat_frames, mean_between
from longplay.prompt import Label, Section

GRID_SECONDS = 0.5  # of the grid, where there is no pulse to follow
MIN_SECONDS = 40.0  # what is shorter has no sections
MIN_BARS, MAX_BARS, BAND = 4, 32, 15
LENGTH_COST = {8: 0.0, 4: 0.25, 2: 0.5, 1: 1.0}  # by the largest of these that divides the number of bars
HARMONY_WEIGHT = 3.0  # of the changes of harmony on the bar lines, against the worth of the segmentation
NOVELTY_BEATS = 16  # to each side
ALIKE = 0.45  # likeness of two segments of one group
EDGE_LEVEL = -1.5  # dB against the others of its group, at which a first or last segment is an intro or outro

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]


class Structure(NamedTuple):
    """What was found.

    Attributes:
        sections: labelled, without gaps, from 0 to the end; none for a short piece.
        groups: of each section, a number that like ones share.
        bars: times of the bar lines in seconds.
        likeness: of each two bars, [bars, bars], -1 to 1.
        novelty: of each bar line, 0 to 1.
    """

    sections: tuple[Section, ...]
    groups: tuple[int, ...]
    bars: Array
    likeness: Array
    novelty: Array


def find_structure(bands: Floats, chroma: Floats, levels: Floats, beats: Array, seconds: float) -> Structure:
    """Find the structure of a piece.

    Args:
        bands: log energy per band, [frames, bands], frames evenly spaced over the piece.
        chroma: strength of the twelve pitch classes, [frames, 12].
        levels: loudness in dB, [frames].
        beats: their times in seconds, or any other grid.
        seconds: how long the piece is.
    """
    per_second = len(bands) / seconds
    starts = beat_frames(beats, len(bands), seconds)
    spectrum, harmony = mean_between(bands, starts), _unit(mean_between(chroma, starts))
    loud = mean_between(levels[:, None], starts)[:, 0]
    spectrum = _unit(spectrum - spectrum.mean(axis=0))
    novelty = _novelty(spectrum)
    change = np.concatenate([[0], np.square(np.diff(harmony, axis=0)).sum(axis=1)])
    change = (change - change.mean()) / (change.std() + 1e-9)
    metre = _metre(np.concatenate([spectrum, harmony - harmony.mean(axis=0)], axis=1))
    best: tuple[float, list[int], npt.NDArray[np.int_], Array] | None = None
    phases = [np.arange(phase, len(spectrum) - metre + 1, metre) for phase in range(metre)]
    for phase, lines in enumerate(phases):
        if len(lines) < 2 * MIN_BARS or seconds < MIN_SECONDS:
            continue
        bars = spectrum[: lines[-1] + metre][phase:].reshape(len(lines), -1)
        likeness = _cosine(bars - bars.mean(axis=0))
        worth, bounds = _segment(likeness, novelty[lines])
        worth += HARMONY_WEIGHT * float(change[lines].mean())
        if best is None or worth > best[0]:
            best = worth, bounds, lines, likeness
    if best is None:
        lines = max(phases, key=lambda lines: change[lines].mean() if len(lines) else -np.inf)
        return Structure((), (), starts[lines] / per_second, np.zeros((0, 0)), novelty[lines])
    _, bounds, lines, likeness = best
    groups = _group(likeness, bounds)
    edges = [0, *lines[bounds[1:-1]], len(spectrum)]
    energy = np.array([loud[start:end].mean() for start, end in pairwise(edges)])
    widths = np.diff(np.array(bounds))
    times = [0.0, *(starts[edges[1:-1]] / per_second), seconds]
    sections = tuple(
        Section(label=label, start=round(start, 2), end=round(end, 2))
        for label, start, end in zip(_labels(groups, energy, widths), times, times[1:], strict=False)
    )
    return Structure(sections, tuple(groups), starts[lines] / per_second, likeness, novelty[lines])


def _segment(likeness: Array, novelty: Array) -> tuple[float, list[int]]:
    """The worth and the bounds, in bars, of the best segmentation; bounds are from 0 to the number of bars."""
    count = len(likeness)
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    total = np.zeros((count + 1, count + 1))
    total[1:, 1:] = np.where((apart > 0) & (apart <= BAND), likeness, 0).cumsum(axis=0).cumsum(axis=1)
    costs = np.array([0.0, *(_length_cost(width) for width in range(1, MAX_BARS + 1))])
    best = np.full(count + 1, -np.inf)
    best[0] = 0
    before = np.zeros(count + 1, int)
    for end in range(MIN_BARS, count + 1):
        starts = np.arange(max(0, end - MAX_BARS), end - MIN_BARS + 1)
        widths = end - starts
        inside = total[end, end] - 2 * total[starts, end] + total[starts, starts]
        worth = best[starts] + inside / widths - costs[widths]
        before[end] = starts[worth.argmax()]
        best[end] = worth.max() + (novelty[end] if end < count else 0)
    bounds = [count]
    while bounds[-1] > 0:
        bounds.append(int(before[bounds[-1]]))
    return float(best[count]), bounds[::-1]


def _length_cost(bars: int) -> float:
    return next(cost for divisor, cost in LENGTH_COST.items() if bars % divisor == 0)


def _group(likeness: Array, bounds: list[int]) -> list[int]:
    """A number for each segment: that of the most alike group so far, or a new one."""
    groups: list[int] = []
    spans = list(pairwise(bounds))
    for start, end in spans:
        scores: dict[int, list[float]] = {}
        for (other_start, other_end), group in zip(spans, groups, strict=False):
            scores.setdefault(group, []).append(_likeness(likeness[start:end, other_start:other_end]))
        means = {group: float(np.mean(found)) for group, found in scores.items()}
        nearest = max(means, key=lambda group: means[group], default=0)
        groups.append(nearest if means.get(nearest, -1) > ALIKE else len(means))
    return groups


def _likeness(block: Array) -> float:
    """Of two segments: along the best of the diagonals that span half the shorter one, as both run on in step."""
    short = min(block.shape)
    offsets = range(short // 2 - block.shape[0], block.shape[1] - short // 2 + 1)
    return max(float(np.diagonal(block, offset).mean()) for offset in offsets if np.diagonal(block, offset).size)


def _labels(groups: list[int], energy: Array, widths: npt.NDArray[np.int_]) -> list[Label]:
    """By repetition, level and position; `energy` in dB and `widths` in bars, per segment."""
    count = len(groups)
    labels: list[Label] = ["verse"] * count
    if count == 1:
        return labels
    inner = list(range(count))
    for place, label in ((0, "intro"), (count - 1, "outro")):
        alike = [energy[other] for other in range(count) if groups[other] == groups[place] and other != place]
        short = widths[place] <= 0.6 * np.median(widths)
        if not alike or short or energy[place] - np.mean(alike) < EDGE_LEVEL:
            labels[place] = "intro" if label == "intro" else "outro"
            inner.remove(place)
    others = {groups[each] for each in inner} - {groups[inner[0]] if inner else -1}
    returning = [group for group in others if sum(groups[each] == group for each in inner) > 1] or list(others)
    if returning:
        chorus = max(returning, key=lambda group: np.mean([energy[each] for each in inner if groups[each] == group]))
        labels = ["chorus" if each in inner and groups[each] == chorus else labels[each] for each in range(count)]
    return labels


def _novelty(features: Array) -> Array:
    """Checkerboard novelty of each position of unit rows, 0 to 1."""
    offsets = np.arange(-NOVELTY_BEATS, NOVELTY_BEATS) + 0.5
    taper = np.exp(-0.5 * (offsets / (NOVELTY_BEATS / 2)) ** 2) * np.sign(offsets)
    padded = np.pad(features, ((NOVELTY_BEATS, NOVELTY_BEATS), (0, 0)))
    # the kernel is an outer product, so its sum over all likenesses is the square of a weighted sum of the features
    sums = np.stack([np.convolve(column, taper[::-1], mode="valid")[: len(features)] for column in padded.T], axis=1)
    found = np.square(sums).sum(axis=1)
    return found / (found.max() + 1e-9)


def _metre(features: Array) -> int:
    """Beats in a bar, 3 or 4: whichever brings back the same sound after one, two and four bars."""

    def likeness(lag: int) -> float:
        return float((features[lag:] * features[:-lag]).sum(axis=1).mean()) if lag < len(features) else -np.inf

    return max((4, 3), key=lambda metre: sum(likeness(metre * bars) for bars in (1, 2, 4)))


def _unit(rows: Array) -> Array:
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)


def _cosine(rows: Array) -> Array:
    unit = _unit(rows)
    return unit @ unit.T
