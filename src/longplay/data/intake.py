"""Finds a user's recordings: in a folder, in a manifest (JSONL or CSV), or in the published `wav.scp` and `text`."""

import csv
import io
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import mutagen
from pydantic import ValidationError

from longplay.address import Address, Location, at_once, below, named
from longplay.audio.decode import BY_FFMPEG, BY_SOUNDFILE
from longplay.config import describe
from longplay.data.manifest import MANIFEST
from longplay.data.recordings import Given, Recording, recording_id
from longplay.errors import ConfigError, PromptError, UserError
from longplay.files import lines
from longplay.prompt import LABELS, Label, Section

NOT_DECODED = (".mid", ".midi")  # to be reported, not overlooked
AUDIO = frozenset((*BY_SOUNDFILE, *BY_FFMPEG, *NOT_DECODED))
NAMES = {"caption": "captions", "text": "captions", "artist": "author", "license": "licence", "utt": "id"}
PATHS = ("path", "audio", "audio_filepath", "file")
# Of a manifest of ours: measured anew, or not the user's to say.
IGNORED = ("seconds", "kind", "source", "codec_ok", "bars", "measured", "passages")
MADE = ((MANIFEST, "quality"), ("finetune.yaml",))  # what a corpus and a finetune are known by
SCP, SCP_TEXT = "wav.scp", "text"
PUBLISHED = re.compile(r"<\|([\d.eE+-]+)\|><\|(\w+)\|><\|(.*)\|><\|([\d.eE+-]+)\|>", re.DOTALL)
PUBLISHED_LABELS: dict[str, Label] = {**{label: label for label in LABELS}, "verse1": "verse", "verse2": "verse"}

log = logging.getLogger(__name__)


class Intake(NamedTuple):
    """What was found: recordings, and by name what is no recording, with the reason."""

    recordings: list[Recording]
    dropped: dict[str, str]


def find_recordings(source: Location, out: Location | None = None) -> Intake:
    """The recordings that `source` names: a folder, a .jsonl or .csv manifest, or a folder with `wav.scp` and `text`.

    A folder is searched to its depths, but for `out` and other corpora and finetunes in it. Beside `song.flac`, `song.txt` holds a caption a line, and `song.json` the
    fields of `Given`; the file's own tags come last. Paths in a manifest are relative to it.

    Raises:
        UserError: nothing is there, two recordings have one id, or `out` is the folder that is searched.
        ConfigError: a sidecar or a manifest line cannot be understood; named with its line.
    """
    if (source / SCP).is_file():
        found = _published(source)
    elif source.is_dir():
        found = Intake(at_once(partial(_from_folder, source), _audio_files(source, out)), {})
    elif source.is_file():
        found = Intake(at_once(partial(_from_row, source), _rows(source)), {})
    else:
        raise UserError(
            f"{source}: is not there; give a folder of audio, a .jsonl or .csv manifest, or a folder with wav.scp"
        )
    if not found.recordings and found.dropped:
        name, reason = min(found.dropped.items())
        raise UserError(f"{source}: none of {len(found.dropped)} recordings can be used; of {name}: {reason}")
    if not found.recordings:
        raise UserError(f"{source}: names no audio file ({', '.join(sorted(AUDIO)[:8])}, ...)")
    seen: dict[str, Recording] = {}
    for recording in found.recordings:
        if recording.id in seen:
            raise UserError(
                f"id {recording.id!r}: both {seen[recording.id].source} and {recording.source}; ids must differ"
            )
        seen[recording.id] = recording
    return found


def _audio_files(folder: Location, out: Location | None) -> Iterator[Location]:
    """The user's own, of each real folder once: neither what lies in `out` nor what was made of music before."""
    if out is not None and out.resolve() == folder.resolve():
        raise UserError(f"{out}: is the folder of the music itself; give another one for what is made of it")
    if isinstance(folder, Address):
        yield from _audio_at(folder, out)
        return
    seen = {out.resolve()} if isinstance(out, Path) else set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        here = Path(parent)
        if here.resolve() in seen or (here != folder and _is_made(here)):
            folders.clear()
            continue
        seen.add(here.resolve())
        folders[:] = [name for name in folders if not name.startswith(".")]
        folders.sort(key=lambda name: ((here / name).is_symlink(), name))
        for name in sorted(names):
            if Path(name).suffix.lower() in AUDIO and not name.startswith("."):
                yield here / name


def _audio_at(folder: Address, out: Location | None) -> Iterator[Address]:
    files = folder.files()
    marked = {path.parent for path in files if path.name in {mark[0] for mark in MADE}}
    made = [out, *(each for each in marked if each != folder and _is_made(each))]
    for path in files:
        hidden = "/." in f"/{below(path, folder)}"
        if path.suffix.lower() in AUDIO and not hidden and not any(each and below(path, each) for each in made):
            yield path


def _is_made(folder: Location) -> bool:
    return any(all((folder / name).is_file() or (folder / name).is_dir() for name in mark) for mark in MADE)


def _from_folder(folder: Location, path: Location) -> Recording:
    name = below(path, folder)
    assert name is not None
    given = Given()
    if (sidecar := path.with_suffix(".json")).is_file():
        given = _given(_read_json(sidecar), str(sidecar))
    if (sidecar := path.with_suffix(".txt")).is_file():
        captions = tuple(line.strip() for line in lines(_read(sidecar)) if line.strip())
        given = given.over(Given(captions=captions))
    return Recording(id=given.id or recording_id(name), path=path.resolve(), source=name, given=given.over(_tags(path)))


def _rows(manifest: Location) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line stands, and its fields."""
    if manifest.suffix == ".csv":
        yield from _csv_rows(manifest)
    elif manifest.suffix in (".jsonl", ".json"):
        for number, line in enumerate(lines(_read(manifest)), 1):
            if line.strip():
                yield f"{manifest}:{number}", _parse_json(line, f"{manifest}:{number}")
    else:
        raise UserError(f"{manifest}: a manifest ends in .jsonl or .csv")


def _csv_rows(manifest: Location) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `_rows`; of a row of several lines, the last one."""
    rows = csv.DictReader(io.StringIO(_read(manifest), newline=""), strict=True)
    try:
        for row in rows:
            where = f"{manifest}:{rows.line_num}"
            if None in row:
                raise ConfigError(f'{where}: has more fields than columns; put "quotes" around what holds a comma')
            if any(row.values()):
                yield where, {key: value for key, value in row.items() if value}
    except csv.Error as error:
        raise ConfigError(f"{manifest}:{rows.line_num + 1}: is not CSV ({error}); check its quotes") from None


def _from_row(manifest: Location, line: tuple[str, Mapping[str, Any]]) -> Recording:
    where, row = line
    names = [row[key] for key in PATHS if row.get(key)]
    if len(names) != 1:
        raise ConfigError(f"{where}: expected the audio file as one of {', '.join(PATHS)}")
    given = _given({key: value for key, value in row.items() if key not in (*PATHS, *IGNORED)}, where)
    source = str(names[0])
    path = named(source, manifest.parent)
    return Recording(
        id=given.id or recording_id(source), path=path.resolve(), source=source, given=given.over(_tags(path))
    )


def _published(folder: Location) -> Intake:
    """The recipes' pair: `<utt> <path>`, and `<utt>\\t<|start|><|label|><|text|><|end|>` with times of the song."""
    texts = {utt: text for _, utt, text in _utterances(folder / SCP_TEXT)}
    files = list(_utterances(folder / SCP))
    recordings, labels = [], []
    dropped = dict.fromkeys(texts.keys() - {utt for _, utt, _ in files}, f"no audio: no line of {SCP} names it")
    for number, utt, name in files:
        if not name:
            raise ConfigError(f"{folder / SCP}:{number}: expected `<utt> <path>`")
        match = PUBLISHED.fullmatch(texts.get(utt, ""))
        start, end = (max(0.0, float(match[1])), float(match[4])) if match else (0.0, 1.0)
        if match is None:
            dropped[utt] = "no text: no line of the form <|start|><|label|><|text|><|end|>"
        elif start >= end:
            dropped[utt] = f"no time: starts at {start:g} s, not before its end at {end:g} s"
        else:
            labels.append(match[2])
            label = PUBLISHED_LABELS.get(match[2])
            sections = (Section(label=label, start=0, end=end - start),) if label else ()
            given = Given(id=_safe_id(utt), captions=(match[3],), sections=sections, offset=start)
            path = named(name, folder)
            recordings.append(
                Recording(id=_safe_id(utt), path=path.resolve(), source=name, given=given.over(_tags(path)))
            )
    warn_of_labels(folder / SCP_TEXT, labels)
    return Intake(recordings, dropped)


def _utterances(path: Location) -> Iterator[tuple[int, str, str]]:
    """Number, utt and the rest of each line of one of the pair; blanks or tabs stand between."""
    for number, line in enumerate(lines(_read(path)), 1):
        if line.strip():
            utt, *rest = line.strip().split(maxsplit=1)
            yield number, utt, "".join(rest)


def warn_of_labels(where: object, labels: Iterable[str | None]) -> None:
    """Log which labels of published data are none that a section can have."""
    unknown = Counter(label for label in labels if label and label not in PUBLISHED_LABELS)
    if unknown:
        told = ", ".join(f"{label} ({count})" for label, count in sorted(unknown.items()))
        log.warning("%s: no section for the labels %s; known are %s", where, told, ", ".join(PUBLISHED_LABELS))


def _given(fields: Mapping[str, Any], where: str) -> Given:
    """`fields` by their names or the other names that people use.

    Raises:
        ConfigError: an unknown field, or a value that does not fit.
    """
    renamed = {NAMES.get(key, key): value for key, value in fields.items()}
    if "id" in renamed:
        renamed["id"] = _safe_id(str(renamed["id"]))
    try:
        return Given.model_validate(renamed)
    except ValidationError as error:
        raise ConfigError(f"{where}: {describe(error, Given)}") from None
    except PromptError as error:
        raise ConfigError(f"{where}: {error}") from None


def _safe_id(name: str) -> str:
    """An id becomes a file name: what could leave the folder, or is hard to type, gives way to a hash."""
    return name if re.fullmatch(r"[\w][\w.-]{0,99}", name) else recording_id(name)


def _tags(path: Location) -> Given:
    """Title, artist, album, genre and licence of the file's tags; nothing where it has none or they are damaged."""
    try:
        if isinstance(path, Address):
            with path.opened() as file:
                tags = mutagen.File(fileobj=file, filename=path.name, easy=True)
        else:
            tags = mutagen.File(path, easy=True)
    except (mutagen.MutagenError, OSError):
        return Given()

    def first(name: str) -> str | None:
        try:
            values: Iterable[Any] = (tags or {}).get(name) or ()
        except (KeyError, ValueError):
            return None
        return next((str(value).strip() for value in values if str(value).strip()), None)

    genre = first("genre")
    return Given(
        title=first("title"), author=first("artist"), album=first("album"),
        genre=genre and genre.lower(), licence=first("license"),
    )  # fmt: skip


def _read(path: Location) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; convert it") from None


def _read_json(path: Location) -> dict[str, Any]:
    return _parse_json(_read(path), str(path))


def _parse_json(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: holds {type(value).__name__}, expected an object of fields")
    return value
