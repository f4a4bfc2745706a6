"""ATTRIBUTION.md: every work that a model learned from, its author and its licence."""

from collections.abc import Iterable

from longplay.data.manifest import Track

HEADER = """# Attribution

The weights in this directory were trained on the works below and are licensed CC-BY-SA-4.0. Each work was taken from
the named package of Debian 12; author and licence are those of the package's
copyright file (`/usr/share/doc/PACKAGE/copyright`), completed by the tags of the files. The works were decoded to
48 kHz mono, trimmed and set to an even loudness; no audio of theirs is part of this package.

Licences: [CC-BY-3.0](https://creativecommons.org/licenses/by/3.0/),
[CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/),
[CC-BY-SA-3.0](https://creativecommons.org/licenses/by-sa/3.0/),
[CC-BY-SA-4.0](https://creativecommons.org/licenses/by-sa/4.0/),
[CC0-1.0](https://creativecommons.org/publicdomain/zero/1.0/),
[Free Art License 1.2](https://artlibre.org/licence/lal/licence-art-libre-12/),
[Expat](https://spdx.org/licenses/MIT.html). Of a choice of licences, the Creative Commons one is used.
"""
RENDERED = """## Rendered music

{count} pieces ({hours:.1f} hours) were composed by this project at random and rendered with MMA (Musical MIDI
Accompaniment, Bob van der Poel) and fluidsynth, with the sound fonts FluidR3 GM (Frank Wen, Expat) and MuseScore
General (S. Christian Collins and others, Expat). They are CC0.
"""


def attribution(tracks: Iterable[Track]) -> str:
    """The Markdown text for the `train` split of a manifest, one table per package."""
    trained = [track for track in tracks if track.split == "train"]
    real = [track for track in trained if track.kind == "real"]
    rendered = [track for track in trained if track.kind == "rendered"]
    parts = [HEADER]
    for package in sorted({_package(track) for track in real}):
        rows = [
            f"| {_cell(track.title)} | {_cell(track.author or 'not named')} | {_cell(track.licence)} |"
            for track in sorted(real, key=lambda track: track.source)
            if _package(track) == package
        ]
        parts.append("\n".join([f"## {package}", "", "| work | author | licence |", "| --- | --- | --- |", *rows, ""]))
    if rendered:
        hours = sum(track.seconds for track in rendered) / 3600
        parts.append(RENDERED.format(count=len(rendered), hours=hours))
    return "\n".join(parts)


def _package(track: Track) -> str:
    return track.source.partition("/")[0]


def _cell(text: str) -> str:
    return text.replace("|", "/")
