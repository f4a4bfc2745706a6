"""Sections of a piece as the segments that `lm` is told about: starts, ends, label ids."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from longplay.prompt import Label, Section

# CHECKPOINTS.md 3.1: what the published models were trained with, and what their command line gives them instead.
TRAINING_IDS: Mapping[Label, int] = MappingProxyType({"intro": 0, "chorus": 1, "verse": 2, "outro": 4})
REFERENCE_CLI_IDS: Mapping[Label, int] = MappingProxyType({"intro": 0, "verse": 1, "chorus": 2, "outro": 4})


class Segment(NamedTuple):
    """One labelled stretch, in seconds from the start of the piece."""

    start: float
    end: float
    label: int


def window_segments(
    sections: Sequence[Section],
    start: float,
    end: float,
    unlabelled: int,
    label_ids: Mapping[Label, int] = TRAINING_IDS,
) -> tuple[Segment, ...]:
    """The parts of `sections` inside the window from `start` to `end` seconds, in absolute seconds.

    Args:
        sections: of the piece, in order.
        start, end: of the window.
        unlabelled: label id of the one segment that a window without any section is (`LMConfig.unlabelled`).
        label_ids: `TRAINING_IDS` or `REFERENCE_CLI_IDS`.
    """
    inside = tuple(
        Segment(max(section.start, start), min(section.end, end), label_ids[section.label])
        for section in sections
        if section.start < end and section.end > start
    )
    return inside or (Segment(start, end, unlabelled),)
