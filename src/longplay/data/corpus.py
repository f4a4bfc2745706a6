"""Build a corpus: real music out of packages and rendered music, with one manifest.

```
OUT/debs        packages as downloaded          OUT/audio      <id>.wav, 48 kHz mono 16 bits
OUT/extracted   the listed files, per package   OUT/facts      <id>.json measurements, <id>.npy fingerprint
OUT/fonts       sound fonts                                    <id>.tags.json what musicnn hears
OUT/rendered    <id>.json labels of rendered pieces
OUT/manifest.jsonl   what training reads        OUT/dropped.jsonl   what is not in it, and why
```

Every file appears complete or not at all and is never made twice: an interrupted build goes on where it stopped, and
the manifest is written from what is there.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from longplay.data.debian import extract, fetch, require_tools
from longplay.data.decode import prepare, read_mono, write_wav
from longplay.data.describe import describe
from longplay.data.fingerprint import duplicates, fingerprint
from longplay.data.manifest import MANIFEST, SAMPLE_RATE, Track, read_manifest, write_manifest, write_text
from longplay.data.measure import Facts, measure
from longplay.data.musicnn import Listener
from longplay.data.render import FONTS, TOOLS, find_fonts, render, track_id
from longplay.data.score import Style, compose, styles
from longplay.data.sources import SourceFile, Work, source_files, works
from longplay.data.tags import NOTHING, Heard, probabilities, words
from longplay.errors import LongplayError, UserError

SPLIT_ORDER = ("test", "valid", "train")  # of two copies, the one that is not trained on stays
SOUNDFONT_PACKAGES = ("fluid-soundfont-gm", "musescore-general-soundfont")
DROPPED = "dropped.jsonl"

Progress = Callable[[str, float, float], None]  # stage, done, total

log = logging.getLogger(__name__)


class Corpus(NamedTuple):
    """What a build made: the tracks of the manifest, and the dropped ids with the reason."""

    tracks: list[Track]
    dropped: dict[str, str]


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
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        by_package: dict[str, list[Work]] = {}
        for work in chosen:
            by_package.setdefault(work.package, []).append(work)
        todo = {name: members for name, members in by_package.items() if not all(_is_done(out, w) for w in members)}
        jobs = [pool.submit(_extract, out, name, members) for name, members in todo.items()]
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            progress("extract", done, len(jobs))
        jobs = [pool.submit(_prepare, out, work) for work in chosen if not _is_done(out, work)]
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            progress("decode", done, len(jobs))
        jobs = [pool.submit(_hear, out, work) for work in chosen if tags and _is_unheard(out, work)]
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            progress("hear", done, len(jobs))
        corpus = assemble(out, chosen)
        if rendered_hours:
            fonts = find_fonts([Path("/"), *_fetch_fonts(out)])
            _render_hours(out, fonts, rendered_hours, pool, workers, progress)
            corpus = assemble(out, chosen)
    return corpus


def assemble(out: Path, chosen: Iterable[Work]) -> Corpus:
    """Write the manifest of what is decoded, without duplicates, and of what is rendered."""
    ordered = sorted(chosen, key=lambda work: (SPLIT_ORDER.index(work.split), work.id))
    facts = {work.id: _read_facts(out, work) for work in ordered if _is_done(out, work)}
    sounding = {name: found for name, found in facts.items() if found is not None}
    copies = duplicates({name: np.load(_facts_path(out, name).with_suffix(".npy")) for name in sounding})
    dropped = {name: "silent or under 10 s" for name in facts if name not in sounding}
    dropped |= {name: f"repeats {original}" for name, original in copies.items()}
    tracks = [
        describe(work, sounding[work.id], out / "extracted" / work.package / "copyright", _read_heard(out, work))
        for work in ordered
        if work.id in sounding and work.id not in copies
    ]
    for path in sorted((out / "rendered").glob("*.json")):
        tracks.append(Track.model_validate_json(path.read_text(encoding="utf-8")))
    write_manifest(out / MANIFEST, tracks)
    lines = [json.dumps({"id": name, "reason": reason}) for name, reason in sorted(dropped.items())]
    write_text(out / DROPPED, "".join(line + "\n" for line in lines))
    return Corpus(read_manifest(out / MANIFEST), dropped)


def _extract(out: Path, package: str, members: Sequence[Work]) -> None:
    wanted = [file.path for work in members for file in work.files]
    extract(fetch(package, out / "debs"), wanted, out / "extracted" / package)


def _prepare(out: Path, work: Work) -> None:
    """Decode and measure one work; the facts are written last and say that all of it is done."""
    path = out / "audio" / f"{work.id}.wav"
    if path.is_file():
        wav = read_mono(path)[0]
    else:
        prepared = prepare([out / "extracted" / work.package / file.path for file in work.files])
        if prepared is None:
            write_text(_facts_path(out, work.id), "null\n")
            return
        wav = prepared
        write_wav(path, wav)
    facts = measure(wav, SAMPLE_RATE)
    _facts_path(out, work.id).parent.mkdir(parents=True, exist_ok=True)
    np.save(_facts_path(out, work.id).with_suffix(".npy"), fingerprint(wav, SAMPLE_RATE))
    write_text(_facts_path(out, work.id), facts.model_dump_json() + "\n")


def _hear(out: Path, work: Work) -> None:
    wav, rate = read_mono(out / "audio" / f"{work.id}.wav")
    write_text(_tags_path(out, work.id), json.dumps(probabilities(_listener(), wav, rate)) + "\n")


@cache
def _listener() -> Listener:
    """One for each process, on one thread: the processes are the parallelism."""
    torch.set_num_threads(1)
    return Listener.pretrained()


def _is_unheard(out: Path, work: Work) -> bool:
    return not _tags_path(out, work.id).is_file() and _read_facts(out, work) is not None


def _tags_path(out: Path, name: str) -> Path:
    return out / "facts" / f"{name}.tags.json"


def _read_heard(out: Path, work: Work) -> Heard:
    path = _tags_path(out, work.id)
    return words(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else NOTHING


def _is_done(out: Path, work: Work) -> bool:
    return _facts_path(out, work.id).is_file()


def _facts_path(out: Path, name: str) -> Path:
    return out / "facts" / f"{name}.json"


def _read_facts(out: Path, work: Work) -> Facts | None:
    text = _facts_path(out, work.id).read_text(encoding="utf-8")
    return None if text.strip() == "null" else Facts.model_validate_json(text)


def _fetch_fonts(out: Path) -> list[Path]:
    """Sound fonts below `out/fonts`, so that renderings do not depend on what else is installed."""
    for package, font in zip(SOUNDFONT_PACKAGES, FONTS, strict=True):
        extract(fetch(package, out / "debs"), [font], out / "fonts")
    return [out / "fonts"]


def _render_hours(
    out: Path, fonts: Sequence[Path], hours: float, pool: ProcessPoolExecutor, workers: int, progress: Progress
) -> None:
    """Render the seeds 0, 1, 2, ... that are not there, until `hours` of rendered music exist."""
    choice = styles()
    done = sum(
        Track.model_validate_json(path.read_text(encoding="utf-8")).seconds
        for path in (out / "rendered").glob("*.json")
    )
    seed = 0
    while done < hours * 3600:
        batch: list[int] = []
        while len(batch) < 4 * workers:
            if not (out / "rendered" / f"{track_id(seed)}.json").is_file():
                batch.append(seed)
            seed += 1
        for job in as_completed([pool.submit(_render, seed, choice, fonts, out) for seed in batch]):
            try:
                done += job.result()
            except LongplayError as error:
                log.warning("%s", error)
        progress("render", done / 3600, hours)


def _render(seed: int, choice: Sequence[Style], fonts: Sequence[Path], out: Path) -> float:
    return render(compose(seed, choice), fonts, out).seconds
