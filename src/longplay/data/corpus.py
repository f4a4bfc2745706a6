"""Build a corpus: real music out of packages and rendered music, with one manifest.

```
OUT/debs        packages as downloaded          OUT/audio      <id>.wav, 48 kHz mono 16 bits
OUT/extracted   the listed files, per package   OUT/facts, quality     see `store`
OUT/fonts       sound fonts                     OUT/rendered   <id>.json labels of rendered pieces
OUT/manifest.jsonl   what training reads        OUT/dropped.jsonl   what is not in it, and why
```

Every file appears complete or not at all and is never made twice: an interrupted build goes on where it stopped, and
the manifest is written from what is there.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from longplay.data.debian import extract, fetch, require_tools
from longplay.data.describe import describe
from longplay.data.hearing import hear, heard
from longplay.data.manifest import Track
from longplay.data.render import FONTS, TOOLS, find_fonts, render, track_id
from longplay.data.score import Style, compose, styles
from longplay.data.sources import SourceFile, Work, source_files, works
from longplay.data.store import SPLIT_ORDER, Corpus, Progress, Store, write_corpus
from longplay.data.workers import run_jobs
from longplay.errors import LongplayError, UserError

SOUNDFONT_PACKAGES = ("fluid-soundfont-gm", "musescore-general-soundfont")

log = logging.getLogger(__name__)


def build_corpus(
    out: Path,
    packages: Sequence[str] | None = None,
    rendered_hours: float = 0.0,
    workers: int = 2,
    progress: Progress = lambda stage, done, total: None,
    listed: Sequence[SourceFile] | None = None,
    tags: bool = True,
) -> Corpus:
    """Build, or go on building, a corpus in `out`.

    Args:
        out: the corpus directory; about 350 MB per hour of music, and 5 GB of packages for all of it.
        packages: real music from these only; all of the list by default.
        rendered_hours: how much music to render from notes besides.
        workers: processes.
        progress: is told the stage (extract, decode, hear, render), how much of it is done and how much there is.
        listed: another list of files than the one that the package ships.
        tags: let musicnn say which styles, instruments and moods it hears, for the captions.

    Raises:
        UserError: a needed program is missing, or a package is not in the list.
        DownloadError: a package, or musicnn, cannot be fetched or is damaged.
    """
    require_tools(["dpkg-deb", "apt-get", *(TOOLS if rendered_hours else ())])
    known = source_files() if listed is None else listed
    if unknown := sorted(set(packages or ()) - {file.package for file in known}):
        raise UserError(f"package {unknown[0]!r} is not in the list of music; leave packages out to take all of them")
    chosen = works(known, packages)
    store = Store(out)
    missing = [work for work in chosen if not store.is_done(work.id)]
    packages_todo = {work.package: [each for each in chosen if each.package == work.package] for work in missing}
    for done, job in enumerate(run_jobs(partial(_extract, out), list(packages_todo.items()), workers), 1):
        job.get()
        progress("extract", done, len(packages_todo))
    for done, made in enumerate(run_jobs(partial(_prepare, store), missing, workers), 1):
        made.get()
        progress("decode", done, len(missing))
    if tags:
        usable = [work.id for work in chosen if store.facts(work.id) is not None]
        hear(store, {name: store.audio(name) for name in usable}, workers, progress)
    corpus = assemble(out, store, chosen)
    if rendered_hours:
        fonts = find_fonts([Path("/"), *_fetch_fonts(out)])
        _render_hours(out, fonts, rendered_hours, workers, progress)
        corpus = assemble(out, store, chosen)
    return corpus


def assemble(out: Path, store: Store, chosen: Iterable[Work]) -> Corpus:
    """Write the manifest of what is decoded, without duplicates, and of what is rendered."""
    by_id = {work.id: work for work in sorted(chosen, key=lambda work: (SPLIT_ORDER.index(work.split), work.id))}
    sources = {name: work.source for name, work in by_id.items() if store.is_done(name)}
    kept = store.select(sources)
    tracks = [
        describe(by_id[name], facts, out / "extracted" / by_id[name].package / "copyright", heard(store, name))
        for name, facts in kept.facts.items()
    ]
    for path in sorted((out / "rendered").glob("*.json")):
        tracks.append(Track.model_validate_json(path.read_text(encoding="utf-8")))
    return write_corpus(out, tracks, kept.dropped, sources)


def _extract(out: Path, package: tuple[str, Sequence[Work]]) -> None:
    name, members = package
    wanted = [file.path for work in members for file in work.files]
    extract(fetch(name, out / "debs"), wanted, out / "extracted" / name)


def _prepare(store: Store, work: Work) -> None:
    store.prepare(work.id, [store.root / "extracted" / work.package / file.path for file in work.files])


def _fetch_fonts(out: Path) -> list[Path]:
    """Sound fonts below `out/fonts`, so that renderings do not depend on what else is installed."""
    for package, font in zip(SOUNDFONT_PACKAGES, FONTS, strict=True):
        extract(fetch(package, out / "debs"), [font], out / "fonts")
    return [out / "fonts"]


def _render_hours(out: Path, fonts: Sequence[Path], hours: float, workers: int, progress: Progress) -> None:
    """Render the seeds 0, 1, 2, ... that are not there, until `hours` of rendered music exist."""
    choice = styles()
    labels = [Track.model_validate_json(path.read_text(encoding="utf-8")) for path in (out / "rendered").glob("*.json")]
    there = {track.id: track.seconds for track in labels if track.bars}  # older labels do not say where bars begin
    done = sum(there.values())
    seed = 0
    while done < hours * 3600:
        batch: list[int] = []
        while len(batch) < 4 * workers:
            if track_id(seed) not in there:
                batch.append(seed)
            seed += 1
        for job in run_jobs(partial(_render, choice, fonts, out), batch, workers):
            try:
                done += job.get()
            except LongplayError as error:
                log.warning("%s", error)
        progress("render", done / 3600, hours)


def _render(choice: Sequence[Style], fonts: Sequence[Path], out: Path, seed: int) -> float:
    return render(compose(seed, choice), fonts, out).seconds
