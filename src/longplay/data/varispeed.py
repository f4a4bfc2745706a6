"""Varispeed: a recording played faster or slower, as tape is, so that tempo and key change together and exactly.

A corpus has each piece in one tempo and one key, so a model can do without the words that name them. Played a few
semitones off, the same piece comes with other words, and nothing but the words tells the two apart.
"""

import re
from collections.abc import Sequence

from longplay.chords import TimedChord, transposed
from longplay.data.manifest import Measured, Track
from longplay.errors import ConfigError
from longplay.keys import Key
from longplay.prompt import Section
from longplay.tempo import WORDS, tempo_word

MOST_SEMITONES = 6


def with_varispeed(tracks: Sequence[Track], semitones: Sequence[int]) -> list[Track]:
    """The tracks, and each training track again at every one of the speeds.

    Raises:
        ConfigError: a speed of 0 or beyond `MOST_SEMITONES` semitones, or the same one twice.
    """
    if len(set(semitones)) < len(semitones) or not all(0 < abs(step) <= MOST_SEMITONES for step in semitones):
        given = ",".join(map(str, semitones))
        raise ConfigError(f"varispeed {given}: give different semitones from 1 to {MOST_SEMITONES}, up or down")
    played = [varispeed(track, step) for track in tracks if track.split == "train" for step in semitones]
    return [*tracks, *played]


def varispeed(track: Track, semitones: int) -> Track:
    """What there is to say of `track` once it is played so many semitones up (faster) or down.

    Times, tempo and key are exact; captions say the new ones where they said the old. Its id ends in `@+2` or `@-3`.
    """
    speed = 2 ** (semitones / 12)
    sections = tuple(
        Section(label=each.label, start=each.start / speed, end=each.end / speed) for each in track.sections
    )

    def reworded(captions: Sequence[str]) -> tuple[str, ...]:
        return tuple(_reworded(caption, track, semitones, speed) for caption in captions)

    return track.model_copy(
        update={
            "id": f"{track.id}@{semitones:+d}",
            "speed": track.speed * speed,
            "seconds": track.seconds / speed,
            "offset": track.offset / speed,
            "bpm": track.bpm and track.bpm * speed,
            "key": track.key and _transposed(track.key, semitones),
            "chords": tuple(
                TimedChord(start=each.start / speed, name=transposed(each.name, semitones)) for each in track.chords
            ),
            "bars": tuple(time / speed for time in track.bars),
            "measured": track.measured and _faster(track.measured, speed),
            "sections": sections,
            "captions": reworded(track.captions),
            "passages": tuple(
                each.model_copy(
                    update={"start": each.start / speed, "end": each.end / speed, "captions": reworded(each.captions)}
                )
                for each in track.passages
            ),
        }
    )


def _faster(measured: Measured, speed: float) -> Measured:
    """Brighter and busier by as much; as loud."""
    return measured.model_copy(update={"brightness": measured.brightness * speed, "density": measured.density * speed})


def _transposed(key: str, semitones: int) -> str:
    return str(Key.parse(key).transposed(semitones))


def _reworded(caption: str, track: Track, semitones: int, speed: float) -> str:
    """The caption with its tempo, in numbers and in words, and its key changed; titles in quotes are left alone."""
    quoted = re.match(r'"[^"]*"', caption)
    head, rest = (quoted[0], caption[quoted.end() :]) if quoted else ("", caption)
    if track.bpm:
        old, new = f"{track.bpm:.0f} bpm", f"{track.bpm * speed:.0f} bpm"
        rest = rest.replace(old, new)
        before, after = tempo_word(track.bpm), tempo_word(track.bpm * speed)
        rest = WORDS.sub(lambda found: _like(found[0], after) if found[0].lower() == before else found[0], rest)
    if track.key:
        rest = rest.replace(track.key, _transposed(track.key, semitones))
    return head + rest


def _like(model: str, word: str) -> str:
    """`word`, with a capital if `model` has one."""
    return word[:1].upper() + word[1:] if model[:1].isupper() else word
