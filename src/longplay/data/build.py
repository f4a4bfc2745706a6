"""`longplay data build`: from a user's recordings to a corpus, with a report.

```
OUT/manifest.jsonl   what training reads       OUT/audio, facts, quality   see `store`
OUT/dropped.jsonl    what is not, and why      OUT/report.json, .md, .png  what came in, and how good it is
```

Every file appears complete or not at all. A build that was stopped goes on; one that is repeated prepares what is new or
changed, and nothing else.
"""

import math
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from longplay.address import Location, at_once, below
from longplay.analysis.measure import Facts
from longplay.data.captions import Description, captions, course, moods, passages
from longplay.data.hearing import hear, heard
from longplay.data.intake import find_recordings
from longplay.data.manifest import Measured, Split, Track
from longplay.data.quality import LIMITS, Quality, flags
from longplay.data.recordings import Given, Recording
from longplay.data.splits import GroupBy, hashed_split, splits
from longplay.data.store import MIN_SECONDS, SPLIT_ORDER, Corpus, Preparation, Progress, Selection, Store, write_corpus
from longplay.data.tags import Heard
from longplay.data.workers import RunJobs, run_jobs
from longplay.errors import UserError
from longplay.files import make_folder
from longplay.prompt import Section

MIN_CODEC_RATE, MIN_CODEC_BAND = 44100, 15000
MIN_SECTION_SECONDS = 0.5
LOSSY_HZ = 2000
LOSSLESS = (".wav", ".flac", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64")


class Built(NamedTuple):
    """A corpus, and what its files were like as they came."""

    corpus: Corpus
    quality: dict[str, Quality]


def build(
    source: Location,
    out: Location,
    valid: float = 0.05,
    test: float = 0.05,
    group_by: GroupBy = "album",
    min_seconds: float = MIN_SECONDS,
    drop: Collection[str] = (),
    reference: bool = False,
    tags: bool = True,
    workers: int = 1,
    progress: Progress = lambda stage, done, total: None,
    run: RunJobs = run_jobs,
) -> Built:
    """Build, or bring up to date, a corpus in `out` from the recordings that `source` names (`find_recordings`).

    Args:
        valid, test: shares of the splits; `group_by` says what is kept together (`splits`). What is dropped counts for none.
        min_seconds: what sounds for less is dropped.
        drop: flags (`quality.LIMITS`) for which a recording is dropped; the others are only reported.
        reference: keep the audio where and as it is, and only name it; else it is written at 48 kHz, mono, trimmed of
            silence, at an even loudness.
        tags: let musicnn say which styles, instruments and moods it hears, for captions where none are given.
        workers: processes, or what `run` takes for them.
        progress: is told how many recordings are prepared, and of how many.
        run: who prepares and listens, e.g. `run_on_ray`; only this process writes the manifest, after them.

    Raises:
        UserError: `source` names nothing, a share or a flag is wrong, or no recording can be used.
        ConfigError: a sidecar or a manifest line cannot be understood.
        DownloadError: musicnn cannot be fetched.
        OSError: `out` cannot be written to, or takes no more; the same build goes on from there.
    """
    if not (valid >= 0 and test >= 0 and valid + test < 1):
        raise UserError(f"shares of {valid:g} for validation and {test:g} for test: together they must stay below 1")
    if unknown := sorted(set(drop) - set(LIMITS)):
        raise UserError(f"flag {unknown[0]!r}: unknown; flags are {', '.join(LIMITS)}")
    intake = find_recordings(source, out)
    make_folder(out)
    store = Store(out, min_seconds, reference)
    done_before = at_once(lambda each: store.is_done(each.id, [each.path]), intake.recordings)
    todo = [each for each, is_done in zip(intake.recordings, done_before, strict=True) if not is_done]
    failed = {}
    for done, outcome in enumerate(run(partial(_prepare, store), todo, workers), 1):
        if isinstance(outcome.error, OSError):  # of the disk, not of the recording: the next ones would fail as well
            raise outcome.error
        if outcome.error is not None:
            failed[outcome.job.id] = f"failed: {outcome.error}"
        progress("prepare", done, len(todo))
    if tags:
        there = [each for each in intake.recordings if each.id not in failed]
        facts = at_once(lambda each: store.facts(each.id), there)
        usable = [each for each, found in zip(there, facts, strict=True) if found is not None]
        audio = {each.id: each.path if reference else store.audio(each.id) for each in usable}
        hear(store, audio, workers, progress, run)
    dropped = intake.dropped | failed
    by_id = {each.id: each for each in intake.recordings if each.id not in dropped}
    prepared = dict(zip(by_id, at_once(store.preparation, by_id), strict=True))
    held_out = {name: SPLIT_ORDER.index(hashed_split(each, group_by, valid, test)) for name, each in by_id.items()}
    best = sorted(by_id, key=lambda name: (held_out[name], _worse(by_id[name], prepared[name]), name))
    kept = store.select({name: by_id[name].source for name in best}, drop)
    split = splits([by_id[name] for name in kept.facts], group_by, valid, test)
    sources = {each.id: each.source for each in intake.recordings}
    return _assemble(store, by_id, prepared, kept, split, dropped | kept.dropped, sources)


def _prepare(store: Store, recording: Recording) -> None:
    store.prepare(recording.id, [recording.path])


def _assemble(
    store: Store,
    by_id: Mapping[str, Recording],
    prepared: Mapping[str, Preparation | None],
    kept: Selection,
    split: Mapping[str, Split],
    dropped: Mapping[str, str],
    sources: Mapping[str, str],
) -> Built:
    quality = {name: made.quality for name, made in prepared.items() if made and made.quality}

    def track(name: str) -> Track:
        made = prepared[name]
        assert made is not None
        audio = by_id[name].path if store.reference else store.audio(name)
        path = below(audio, store.root) or str(audio)  # relative inside it, so that a corpus can be moved
        return _track(by_id[name], kept.facts[name], made, heard(store, name), split[name], path)

    tracks = at_once(track, kept.facts)
    corpus = write_corpus(store.root, tracks, dropped, sources)
    if not tracks:
        reasons = sorted({reason.split(":")[0] for reason in corpus.dropped.values()})
        raise UserError(
            f"none of {len(dropped)} recordings can be used ({', '.join(reasons)}); see {store.root / 'dropped.jsonl'}"
        )
    return Built(corpus, quality)


def _worse(recording: Recording, made: Preparation | None) -> tuple[float, ...]:
    """Of two copies the one with the lesser numbers stays: fewer flags, more of the treble, longer, not coded with loss.

    Coding moves the treble's end a little, up or down, so a copy coded with loss must have more of it by `LOSSY_HZ`.
    """
    if made is None or made.quality is None:
        return (math.inf,)
    found = made.quality
    others = [flag for flag in flags(found) if LIMITS[flag][0] != "bandwidth"]
    lossy = recording.path.suffix.lower() not in LOSSLESS
    treble = (found.bandwidth - LOSSY_HZ * lossy) // 1000
    return len(others), -treble, -round(found.seconds), lossy


def _track(recording: Recording, facts: Facts, made: Preparation, heard: Heard, split: Split, path: str) -> Track:
    """The manifest line: what is given, then what was measured and heard."""
    given = recording.given
    title = given.title or Path(recording.source).stem.replace("_", " ").replace("-", " ")
    bpm, key = given.bpm or facts.bpm, given.key or facts.key
    sections = _shifted(given.sections, made.lead, facts.seconds) if given.sections else facts.sections
    known = Description(
        title=given.title,
        styles=(given.genre,) if given.genre else (),
        moods=moods(facts),
        course=course(facts.loudness),
        bpm=bpm,
        key=key,
        instruments=given.instruments,
        sections=sections if given.sections else (),
    )
    about = known.hearing(heard)
    return Track(
        id=recording.id,
        path=path,
        seconds=facts.seconds,
        split=split,
        kind="real",
        title=title,
        source=recording.source,
        licence=given.licence or "not stated",
        author=given.author,
        codec_ok=_fit_for_codec(made.quality),
        captions=_worded(given, about),
        passages=tuple(each.wordless if given.captions else each for each in passages(known, heard)),
        sections=sections,
        bpm=bpm,
        key=key,
        genre=about.styles[0] if about.styles else None,
        instruments=about.instruments,
        chords=given.chords or facts.chords,
        bars=facts.bars,
        measured=Measured.of(facts),
        offset=given.offset,
    )


def _fit_for_codec(quality: Quality | None) -> bool:
    """Whether the 48 kHz codec may learn from it: treble that is missing there should not be missing everywhere."""
    return quality is not None and quality.sample_rate >= MIN_CODEC_RATE and quality.bandwidth >= MIN_CODEC_BAND


def _worded(given: Given, about: Description) -> tuple[str, ...]:
    """The given captions, and each with the tempo and key that it does not name; without any, wordings of the facts."""
    if not given.captions:
        return captions(about)
    measured = [f"{about.bpm:.0f} bpm"] if about.bpm else []
    measured += [about.key] if about.key else []
    more = []
    for caption in given.captions:
        missing = [fact for fact in measured if fact.split()[-1].lower() not in caption.lower()]
        more += [", ".join([caption.rstrip(" ."), *missing])] if missing else []
    return tuple(dict.fromkeys([*given.captions, *more]))


def _shifted(sections: tuple[Section, ...], lead: float, seconds: float) -> tuple[Section, ...]:
    """Sections of the file as those of the audio that is left of it: `lead` seconds later, and no longer than it is."""
    moved = [(each.label, max(0.0, each.start - lead), min(seconds, each.end - lead)) for each in sections]
    return tuple(
        Section(label=label, start=round(start, 3), end=round(end, 3))
        for label, start, end in moved
        if end - start > MIN_SECTION_SECONDS
    )
