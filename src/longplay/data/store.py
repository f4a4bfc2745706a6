"""A directory of prepared recordings: what is done with one recording, once, and which of them are kept.

```
audio/<id>.wav      48 kHz mono 16 bits         quality/<id>.json   `Preparation`: what the file was like
facts/<id>.npy      fingerprint                 facts/<id>.json     `Facts`; null if it is not usable; written last
manifest.jsonl      what training reads         dropped.jsonl       what is not in it, and why
```
"""

import io
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import soxr
from pydantic import ValidationError

from longplay.address import Location, at_once
from longplay.analysis.measure import Facts, measure
from longplay.audio.clip import to_mono
from longplay.config import Config
from longplay.data.decode import Prepared, prepare, read, read_mono, write_wav
from longplay.data.duplicates import duplicates
from longplay.data.fingerprint import Words, fingerprint
from longplay.data.manifest import MANIFEST, SAMPLE_RATE, Track, read_manifest, write_manifest
from longplay.data.quality import Quality, flags, inspect
from longplay.errors import AudioError
from longplay.files import fetched, version, write_bytes, write_text

MIN_SECONDS = 10.0
SPLIT_ORDER = ("test", "valid", "train")  # of two copies, the one that is not trained on stays
DROPPED = "dropped.jsonl"

Progress = Callable[[str, float, float], None]  # stage, done, total


class Preparation(Config):
    """What preparing one recording found.

    Attributes:
        stamp: size and time of the files and the settings; another stamp, and the recording is prepared again.
        reason: why it is not usable, if so.
        quality: None for a file that cannot be read.
        lead: seconds of silence cut off its beginning.
    """

    stamp: str
    reason: str | None = None
    quality: Quality | None = None
    lead: float = 0.0


class Corpus(NamedTuple):
    """What a build made: the tracks of the manifest, the dropped ids with the reason, and how their owner calls those."""

    tracks: list[Track]
    dropped: dict[str, str]
    sources: dict[str, str]


class Selection(NamedTuple):
    """What is kept, in the given order, and the ids that are not, with the reason."""

    facts: dict[str, Facts]
    dropped: dict[str, str]


@dataclass(frozen=True)
class Store:
    """Prepared recordings in `root`, a folder of this machine or of a store that many machines share.

    Attributes:
        min_seconds: what sounds for less is not usable.
        reference: leave the audio where it is, untouched, and only measure it.
    """

    root: Location
    min_seconds: float = MIN_SECONDS
    reference: bool = False

    def prepare(self, name: str, paths: Sequence[Location]) -> None:
        """Decode, inspect and measure one recording (or stems); the facts come last and say that all is done.

        Raises:
            OSError: what was made cannot be written, which is no fault of the recording.
        """
        stamp = self._stamp(paths)
        audio = self.audio(name)
        old = self.preparation(name)
        facts: Facts | None = None
        measured = self._facts(name).is_file()
        if measured and audio.is_file() and (old is None or old.stamp == stamp):  # to be measured again
            wav = read_mono(audio)[0]
            made = old or Preparation(stamp=stamp)
        else:
            for outdated in (self._facts(name), self.tags(name), self.passages(name), self.textures(name)):
                outdated.unlink(missing_ok=True)
            wav, made = self._decode(paths, stamp)
            if made.reason is None and not self.reference:
                write_wav(audio, wav)
            write_text(self._preparation(name), made.model_dump_json() + "\n")
        if made.reason is None:
            facts = measure(wav, SAMPLE_RATE)
            words = io.BytesIO()
            np.save(words, fingerprint(wav, SAMPLE_RATE))
            write_bytes(self._fingerprint(name), words.getbuffer())
        write_text(self._facts(name), "null\n" if facts is None else facts.model_dump_json() + "\n")

    def is_done(self, name: str, paths: Sequence[Location] = ()) -> bool:
        """Whether it is prepared; with `paths`, from these files as they are now and with these settings."""
        if not self._facts(name).is_file():
            return False
        try:
            self.facts(name)
        except ValidationError:  # measured when less was measured
            return False
        made = self.preparation(name)
        return not paths or (made is not None and made.stamp == self._stamp(paths))

    def select(self, ordered: Mapping[str, str], drop: Collection[str] = ()) -> Selection:
        """The usable recordings without copies and without those that any flag of `drop` is raised for.

        Args:
            ordered: ids, and how their owner calls them; of two copies the first one stays.
            drop: names of flags, see `quality`.
        """
        facts: dict[str, Facts] = {}
        dropped: dict[str, str] = {}
        names = list(ordered)
        records = at_once(lambda name: (self.facts(name), self.preparation(name)), names)
        for name, (found, made) in zip(names, records, strict=True):
            raised = [flag for flag in flags(made.quality) if flag in drop] if made and made.quality else []
            if found is None:
                dropped[name] = (made and made.reason) or "silent or too short"
            elif raised:
                dropped[name] = f"flagged: {', '.join(raised)}"
            else:
                facts[name] = found
        copies = duplicates(dict(zip(facts, at_once(self.fingerprint, facts), strict=True)))
        dropped |= {name: f"duplicate: repeats {ordered[original]}" for name, original in copies.items()}
        return Selection({name: found for name, found in facts.items() if name not in copies}, dropped)

    def facts(self, name: str) -> Facts | None:
        """Measurements of a recording that is done; None if it is not usable."""
        text = self._facts(name).read_text(encoding="utf-8")
        return None if text.strip() == "null" else Facts.model_validate_json(text)

    def preparation(self, name: str) -> Preparation | None:
        """What preparing it found; None if it is not done, or was before there were such records."""
        path = self._preparation(name)
        return Preparation.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None

    def fingerprint(self, name: str) -> Words:
        """Of a recording that is done and usable."""
        with fetched(self._fingerprint(name)) as file:
            return np.load(file)

    def audio(self, name: str) -> Location:
        """Where its prepared audio lies."""
        return self.root / "audio" / f"{name}.wav"

    def tags(self, name: str) -> Location:
        """Where it is written what musicnn hears in it."""
        return self.root / "facts" / f"{name}.tags.json"

    def passages(self, name: str) -> Location:
        """Where it is written what musicnn hears in each of its passages."""
        return self.root / "facts" / f"{name}.passages.json"

    def textures(self, name: str) -> Location:
        """Where it is written what was measured in each of its passages."""
        return self.root / "facts" / f"{name}.textures.json"

    def _decode(self, paths: Sequence[Location], stamp: str) -> tuple[np.ndarray, Preparation]:
        try:
            wav, lead, quality = _as_it_is(paths[0]) if self.reference else prepare(paths)
        except (AudioError, FileNotFoundError) as error:  # the latter of an address
            return np.zeros(0, np.float32), Preparation(stamp=stamp, reason=f"unreadable: {error}")
        seconds = len(wav) / SAMPLE_RATE
        reason = None
        if seconds < self.min_seconds:
            reason = (
                f"too short: {seconds:.1f} s of sound, at least {self.min_seconds:g} s are asked for"
                if len(wav)
                else "silent"
            )
        return wav, Preparation(stamp=stamp, reason=reason, quality=quality, lead=round(lead, 3))

    def _stamp(self, paths: Sequence[Location]) -> str:
        return " ".join(
            [*map(version, paths), f"min {self.min_seconds:g} s", *(["by reference"] if self.reference else [])]
        )

    def _facts(self, name: str) -> Location:
        return self.root / "facts" / f"{name}.json"

    def _fingerprint(self, name: str) -> Location:
        return self.root / "facts" / f"{name}.npy"

    def _preparation(self, name: str) -> Location:
        return self.root / "quality" / f"{name}.json"


def write_corpus(
    out: Location, tracks: Iterable[Track], dropped: Mapping[str, str], sources: Mapping[str, str]
) -> Corpus:
    """Write the manifest and the list of what is dropped.

    Args:
        sources: how their owner calls recordings, by id; what has no other name is called by its id.
    """
    write_manifest(out / MANIFEST, tracks)
    called = {name: sources.get(name, name) for name in sorted(dropped)}
    rows = [{"id": name, "source": source, "reason": dropped[name]} for name, source in called.items()]
    write_text(out / DROPPED, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return Corpus(read_manifest(out / MANIFEST), dict(dropped), called)


def _as_it_is(path: Location) -> Prepared:
    channels, rate = read(path)
    wav = soxr.resample(to_mono(channels), rate, SAMPLE_RATE)
    quality = inspect(channels, rate)
    return Prepared(wav if quality.silent < 1 else wav[:0], 0.0, quality)
