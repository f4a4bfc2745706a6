"""The report of a build: what came in, how good it is, what was left out; as numbers, in words and as a picture."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from longplay.address import Location
from longplay.data.build import Built
from longplay.data.quality import LIMITS, Quality, flags
from longplay.errors import UserError
from longplay.files import write_text
from longplay.report import save_figure

LISTED = 50  # rows of each table in words; the numbers have them all
SPLITS = ("train", "valid", "test")


def write_report(out: Location, built: Built, plots: bool = True) -> None:
    """Write `report.json`, `report.md` and, if asked for, `report.png` to `out`.

    Raises:
        UserError: plots are asked for without matplotlib.
    """
    figures = summary(built)
    write_text(out / "report.json", json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    write_text(out / "report.md", markdown(figures, plots))
    if plots:
        _plot(built, figures, out / "report.png")


def summary(built: Built) -> dict[str, Any]:
    """Every figure of the report."""
    tracks, dropped, sources = built.corpus
    sources = {track.id: track.source for track in tracks} | sources
    raised = {name: flags(quality) for name, quality in sorted(built.quality.items())}
    return {
        "tracks": len(tracks),
        "hours": round(sum(track.seconds for track in tracks) / 3600, 3),
        "splits": {
            split: {
                "tracks": sum(track.split == split for track in tracks),
                "hours": round(sum(track.seconds for track in tracks if track.split == split) / 3600, 3),
            }
            for split in SPLITS
        },
        "with tempo": sum(track.bpm is not None for track in tracks),
        "with key": sum(track.key is not None for track in tracks),
        "with sections": sum(bool(track.sections) for track in tracks),
        "fit for the codec": sum(track.codec_ok for track in tracks),
        "dropped": dropped,
        "dropped for": dict(Counter(reason.partition(":")[0] for reason in dropped.values())),
        "sources": {name: sources[name] for name in sorted({*dropped, *(name for name, found in raised.items() if found)})},
        "flags": {flag: sum(flag in each for each in raised.values()) for flag in LIMITS},
        "limits": {flag: {"value": name, "least": str(least), "most": str(most), "means": means} for flag, (name, least, most, means) in LIMITS.items()},
        "flagged": {name: {flag: getattr(built.quality[name], LIMITS[flag][0]) for flag in found} for name, found in raised.items() if found},
        "quality": {name: quality.dump() for name, quality in sorted(built.quality.items())},
    }  # fmt: skip


def markdown(figures: Mapping[str, Any], plots: bool) -> str:
    """The report in words."""
    lines = ["# What is in this corpus", "", f"{figures['tracks']} tracks, {figures['hours']:g} hours.", ""]
    lines += _table(("split", "tracks", "hours"), [(s, v["tracks"], v["hours"]) for s, v in figures["splits"].items()])
    known = [(name, figures[name]) for name in ("with tempo", "with key", "with sections", "fit for the codec")]
    lines += _table(("what is known", "tracks"), known)
    if plots:
        lines += ["![durations, loudness, tempo and flags](report.png)", ""]
    lines += ["## Flags", "", "Flagged recordings are in the corpus unless they stand among the dropped ones.", ""]
    lines += _table(
        ("flag", "recordings", "means"), [(f, n, figures["limits"][f]["means"]) for f, n in figures["flags"].items()]
    )
    found = [
        (figures["sources"][name], name, ", ".join(f"{flag} ({value:g})" for flag, value in each.items()))
        for name, each in figures["flagged"].items()
    ]
    lines += _table(("recording", "id", "flags (measured value)"), found)
    lines += ["## Dropped", "", f"{len(figures['dropped'])} recordings are not in the corpus.", ""]
    gone = [(figures["sources"][name], name, reason) for name, reason in figures["dropped"].items()]
    lines += _table(("recording", "id", "reason"), sorted(gone))
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """A Markdown table, cut off at `LISTED` rows; nothing for no row."""
    every = list(rows)
    if not every:
        return []
    shown = [head, ("---",) * len(head), *every[:LISTED]]
    lines = ["| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in row) + " |" for row in shown]
    return [*lines, *(["", f"... and {len(every) - LISTED} more, in report.json."] if len(every) > LISTED else []), ""]


def _plot(built: Built, figures: Mapping[str, Any], path: Location) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("the report's plots need matplotlib: `pip install 'longplay[train]'`, or --no-plots") from None
    figure = Figure(figsize=(10, 7), layout="constrained")
    ((durations, loudness), (tempo, flagged)) = figure.subplots(2, 2)
    tracks, quality = built.corpus.tracks, _kept_quality(built)
    for axes, values, label in (
        (durations, [track.seconds / 60 for track in tracks], "length (minutes)"),
        (loudness, [each.loudness for each in quality if each.loudness is not None], "loudness as it came (LUFS)"),
        (tempo, [track.bpm for track in tracks if track.bpm is not None], "tempo (bpm)"),
    ):
        axes.hist(values, bins=30, color="#4477aa")
        axes.set_xlabel(label)
        axes.set_ylabel("tracks")
    names = list(figures["flags"])
    flagged.barh(names, [figures["flags"][name] for name in names], color="#cc6677")
    flagged.invert_yaxis()
    flagged.set_xlabel("recordings flagged")
    save_figure(figure, path, dpi=110)


def _kept_quality(built: Built) -> list[Quality]:
    return [built.quality[track.id] for track in built.corpus.tracks if track.id in built.quality]
