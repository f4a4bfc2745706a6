"""Captions that a language model writes from the facts of a track, as in the paper; checked before they are believed."""

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from longplay.data.captions import BRIGHT_HZ, BUSY, DARK_HZ, SPARSE
from longplay.data.language_model import LanguageModel
from longplay.data.manifest import Track, read_manifest, write_manifest
from longplay.errors import UserError

ATTEMPTS = 3
MIN_LENGTH, MAX_LENGTH = 12, 400  # characters
REFUSALS = re.compile(
    r"\b(as an ai|i (?:cannot|can't|can not|am unable|am not able|don't have)|i'm (?:sorry|unable|not able)|sorry,|language model"
    r"|please provide|here (?:is|are)|certainly|sure[,!])",
    re.IGNORECASE,
)
TEMPO = re.compile(r"(\d+(?:\.\d+)?)\s*bpm", re.IGNORECASE)
TEMPO_TOLERANCE = 0.04
KEY = re.compile(r"\b([A-G](?:#|b|♯|♭|-sharp|-flat)?)[ -](?i:(major|minor))\b")  # "a minor thing" is none
MEASURED = re.compile(r"\d[\d.,]*\s*(?:k?hz|db|onsets)\b", re.IGNORECASE)
SPELLINGS = {"Db": "C#", "D#": "Eb", "Gb": "F#", "G#": "Ab", "A#": "Bb"}
SYSTEM = (
    "You write captions for a music data set. From the facts of one recording you write what a listener would type to get such "
    "music. Use the facts only: never name artists or titles, never invent instruments, tempo or key. "
    "Say brightness, density and the course of the loudness in words, without numbers, and only where they stand out. "
    "Answer with a JSON list of strings and nothing else."
)

Progress = Callable[[str, float, float], None]


class Written(NamedTuple):
    """How many tracks have new captions, and those that have none, with the reason."""

    tracks: int
    refused: dict[str, str]


def question(track: Track, count: int) -> str:
    """The facts of a track as a prompt for `count` captions."""
    facts: dict[str, object] = {
        "style": track.genre,
        "tempo in bpm": round(track.bpm) if track.bpm else None,
        "key": track.key,
        "instruments": list(track.instruments),
        "seconds": round(track.seconds),
        "sections": [section.label for section in track.sections],
        "described as": list(track.captions),
    }
    if track.measured:
        facts |= {
            "brightness (median spectral centroid in Hz)": round(track.measured.brightness),
            "density (note onsets a second)": round(track.measured.density, 1),
            "loudness of each eighth in dB below the loudest": list(track.measured.loudness),
        }
    known = {name: value for name, value in facts.items() if value}
    return (
        f"Facts: {json.dumps(known, ensure_ascii=False)}\n"
        f"Write {count} different captions, from a few words to two sentences, each of at most {MAX_LENGTH} characters."
    )


def read_answer(answer: str, track: Track, count: int) -> tuple[str, ...]:
    """The captions in an answer.

    Raises:
        ValueError: it is a refusal or no list, or a caption is empty, far too long or contradicts the facts; says why.
    """
    found = re.search(r"\[.*\]", answer, re.DOTALL)
    try:
        items = json.loads(found[0]) if found else None
    except ValueError:
        items = None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        reason = "refuses" if REFUSALS.search(answer) else "is no JSON list of strings"
        raise ValueError(f"the answer {reason}: {answer[:80]!r}")
    captions = tuple(dict.fromkeys(" ".join(item.split()) for item in items))
    for caption in captions:
        if fault := _fault(caption, track):
            raise ValueError(f"{fault}: {caption[:80]!r}")
    if len(captions) < count:
        raise ValueError(f"{len(captions)} different captions, {count} were asked for")
    return captions[:count]


def write_captions(
    manifest: Path,
    out: Path,
    model: LanguageModel,
    count: int = 3,
    keep: bool = True,
    workers: int = 8,
    progress: Progress = lambda stage, done, total: None,
) -> Written:
    """Let `model` write `count` captions for each track of `manifest`; writes the manifest `out`.

    A track whose answers are of no use in three attempts keeps the captions that it has. Stopped and started again, it
    goes on from the answers in the cache.

    Args:
        keep: keep the captions that are there, after the new ones, and those of passages.
        workers: requests at a time.
        progress: is told of the tracks that are done.

    Raises:
        EndpointError: the endpoint fails for good; nothing is written, the answers so far are kept.
        UserError: the manifest is empty, or `out` lies in another folder, where its paths would not hold.
    """
    if out.resolve().parent != manifest.resolve().parent:
        raise UserError(f"{out}: must lie beside {manifest}, whose audio paths are relative to it")
    tracks = read_manifest(manifest)
    if not tracks:
        raise UserError(f"{manifest}: has no track to describe")
    captions: dict[str, tuple[str, ...]] = {}
    refused: dict[str, str] = {}
    with ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(_ask, model, track, count): track for track in tracks}
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                track = jobs[job]
                try:
                    captions[track.id] = job.result()
                except ValueError as error:
                    refused[track.id] = str(error)
                progress("caption", done, len(tracks))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    write_manifest(out, [_with(track, captions.get(track.id, ()), keep) for track in tracks])
    return Written(len(captions), refused)


def _ask(model: LanguageModel, track: Track, count: int) -> tuple[str, ...]:
    for attempt in range(ATTEMPTS):
        try:
            return read_answer(model.ask(SYSTEM, question(track, count), attempt), track, count)
        except ValueError as error:
            last = error
    raise last


def _with(track: Track, captions: Sequence[str], keep: bool) -> Track:
    if not captions:
        return track
    every = dict.fromkeys([*captions, *(track.captions if keep else ())])
    passages = track.passages if keep else tuple(each.wordless for each in track.passages)
    return track.model_copy(update={"captions": tuple(every), "passages": passages})


def _fault(caption: str, track: Track) -> str | None:
    """What is wrong with a caption, in words; None if nothing is."""
    if not MIN_LENGTH <= len(caption) <= MAX_LENGTH:
        return f"{len(caption)} characters, {MIN_LENGTH} to {MAX_LENGTH} are asked for"
    if REFUSALS.search(caption):
        return "a refusal or a preface"
    for match in TEMPO.finditer(caption):
        if track.bpm is None or abs(float(match[1]) / track.bpm - 1) > TEMPO_TOLERANCE:
            return f"a tempo of {match[1]} bpm where the facts say {track.bpm or 'none'}"
    for match in KEY.finditer(caption):
        if track.key is None or _plain_key(*match.groups()) != _plain_key(*track.key.split()):
            return f"the key {match[0]} where the facts say {track.key or 'none'}"
    if found := MEASURED.search(caption):
        return f"a measurement that no listener would type ({found[0]})"
    return _false_claim(caption, track)


def _false_claim(caption: str, track: Track) -> str | None:
    """A word for what was measured where the measurement says the opposite; None if there is none.

    Words with which the track is described already, such as a style's name, are not questioned.
    """
    if track.measured is None:
        return None
    brightness, density = track.measured.brightness, track.measured.density
    *before, end = track.measured.loudness
    false = {
        "bright": brightness < DARK_HZ,
        "dark": brightness > BRIGHT_HZ,
        "sparse": density > BUSY,
        "busy|dense": density < SPARSE,
        "builds up|building up|crescendo": max(before[2:], default=0) < min(before[:2], default=0),
        "fades|fading|fade-?out|dies away": end > max(before, default=0),
    }
    known = " ".join([*track.captions, track.genre or ""])
    for words, is_false in false.items():
        said = re.search(rf"\b(?:{words})\b", caption, re.IGNORECASE)
        if said and is_false and not re.search(rf"\b{said[0]}\b", known, re.IGNORECASE):
            return f"the word {said[0]!r}, where the facts say the opposite"
    return None


def _plain_key(tonic: str, mode: str) -> tuple[str, str]:
    """One spelling for each key."""
    name = tonic.lower().replace("-sharp", "#").replace("♯", "#").replace("-flat", "b").replace("♭", "b")
    name = name[:1].upper() + name[1:]
    return SPELLINGS.get(name, name), mode.lower()
