"""A random piece for MMA (Musical MIDI Accompaniment), with labels that are exact because we chose them.

A seed decides style, tempo, key, structure, chords and melody. `Score.text()` is the MMA source; the times of its
sections and chords follow from bars, beats and tempo.
"""

from collections.abc import Sequence
from importlib.resources import files
from random import Random

import yaml
from pydantic import Field

from longplay.chords import TimedChord
from longplay.config import Config
from longplay.data.melody import Voice, choose_voice, melody
from longplay.harmony import MINOR_SHARE, PROGRESSIONS, Harmony, progression
from longplay.keys import Key, Mode
from longplay.prompt import Label, Section

MIN_BPM, MAX_BPM = 60, 180
SHORTEST, LONGEST = 75.0, 185.0
INTRO_BARS, OUTRO_BARS, END_BARS = 4, 4, 2
MELODY_SHARE = 0.6


class Style(Config):
    """One style of MMA's library; grooves are named `library:groove` in a source."""

    library: str
    genre: str
    harmony: Harmony
    beats: int
    bpm: tuple[int, int]
    intro: tuple[str, ...] = Field(min_length=1)
    main: tuple[str, ...] = Field(min_length=1)
    end: tuple[str, ...] = Field(min_length=1)


class Part(Config):
    """Bars that share a label and a groove; each bar is its chord and, in MMA's notation, its melody or ""."""

    label: Label
    groove: str
    chords: tuple[str, ...]
    melody: tuple[str, ...] = ()


class Score(Config):
    """A whole piece. Every bar has one chord and `style.beats` beats; `bpm` counts those beats."""

    seed: int
    style: Style
    bpm: int
    key: str
    voice: Voice | None
    parts: tuple[Part, ...]

    @property
    def bar_seconds(self) -> float:
        """The length of a bar."""
        return self.style.beats * 60 / self.bpm

    @property
    def seconds(self) -> float:
        """The written length, without the reverberation after the last bar."""
        return sum(len(part.chords) for part in self.parts) * self.bar_seconds

    @property
    def sections(self) -> tuple[Section, ...]:
        """The labelled sections; neighbouring parts of one label are one section."""
        spans: list[tuple[Label, int, int]] = []
        bar = 0
        for part in self.parts:
            start = spans.pop()[1] if spans and spans[-1][0] == part.label else bar
            bar += len(part.chords)
            spans.append((part.label, start, bar))
        return tuple(
            Section(label=label, start=round(start * self.bar_seconds, 3), end=round(end * self.bar_seconds, 3))
            for label, start, end in spans
        )

    @property
    def chords(self) -> tuple[TimedChord, ...]:
        """The chord symbols, each where it changes."""
        result: list[TimedChord] = []
        for bar, name in enumerate(name for part in self.parts for name in part.chords):
            if not result or result[-1].name != name:
                result.append(TimedChord(start=round(bar * self.bar_seconds, 3), name=name))
        return tuple(result)

    @property
    def bars(self) -> tuple[float, ...]:
        """The bar lines, that at the end of the last bar included."""
        count = sum(len(part.chords) for part in self.parts)
        return tuple(round(bar * self.bar_seconds, 3) for bar in range(count + 1))

    def text(self) -> str:
        """The MMA source."""
        lines = [f"Tempo {self.bpm}", f"Time {self.style.beats}"]
        bar = 1
        for part in self.parts:
            lines.append(f"Groove {self.style.library}:{part.groove}")
            if self.voice is not None:
                lines += [f"Solo Voice {self.voice.program}", "Solo Octave 5", "Solo Volume mf"]
            for name, notes in zip(part.chords, part.melody or ("",) * len(part.chords), strict=True):
                lines.append(f"{bar} {name} {notes}".rstrip())
                bar += 1
        return "\n".join(lines) + "\n"


def styles() -> list[Style]:
    """The styles that pieces are made of (`grooves.yaml`)."""
    return [
        Style(**item) for item in yaml.safe_load(files("longplay.data").joinpath("grooves.yaml").read_text("utf-8"))
    ]


def compose(seed: int, choice: Sequence[Style]) -> Score:
    """The piece of a `seed`: the same seed and choice of styles give the same piece."""
    random = Random(seed)
    style = random.choice(choice)
    bpm = random.randint(max(style.bpm[0], MIN_BPM), min(style.bpm[1], MAX_BPM))
    mode: Mode = "minor" if random.random() < MINOR_SHARE[style.harmony] else "major"
    key = Key(random.randrange(12), mode)
    voice = choose_voice(random) if random.random() < MELODY_SHARE else None
    options = PROGRESSIONS[style.harmony, mode]
    progressions = [random.choice(options), random.choice(options)]
    grooves = [random.choice(style.main), random.choice(style.main)]

    def part(label: Label, groove: str, bars: int, numerals: str, sung: bool) -> Part:
        turn = progression(numerals, key)
        chords = [turn[bar % len(turn)] for bar in range(bars)]
        tune = melody(random, chords, key, style.beats) if sung and voice is not None else ()
        return Part(label=label, groove=groove, chords=tuple(map(str, chords)), melody=tune)

    sing_verses = random.random() < 0.5
    bars = {"verse": _bars(random, progressions[0]), "chorus": _bars(random, progressions[1])}
    target = random.uniform(SHORTEST, LONGEST) * bpm / 60 / style.beats - INTRO_BARS - OUTRO_BARS
    body: list[Part] = []
    while True:
        label: Label = "chorus" if body and body[-1].label == "verse" else "verse"
        if sum(len(each.chords) for each in body) + bars[label] > max(target, bars["verse"]):
            break
        second = label == "chorus"
        body.append(part(label, grooves[second], bars[label], progressions[second], second or sing_verses))
    home = "I" if mode == "major" else "i"
    return Score(
        seed=seed,
        style=style,
        bpm=bpm,
        key=str(key),
        voice=voice,
        parts=(
            part("intro", random.choice(style.intro), INTRO_BARS, progressions[0], False),
            *body,
            part("outro", grooves[0], OUTRO_BARS - END_BARS, progressions[0], False),
            part("outro", random.choice(style.end), END_BARS, home, False),
        ),
    )


def _bars(random: Random, progression: str) -> int:
    """Whole turns of a progression, 8 to 16 bars."""
    turn = len(progression.split())
    return turn * random.choice([count for count in (1, 2, 4) if 8 <= count * turn <= 16])
