"""What a user asks for: `Prompt` (text, sections, tempo, key, chords) and `GenerationOptions` (every knob, with its range).

Wrong values raise `PromptError` wherever these classes are made: in Python, on the command line, from a recipe.
"""

import re
import secrets
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from longplay.chords import Chord, parse_progression
from longplay.config import Config, describe
from longplay.control import Control
from longplay.errors import PromptError
from longplay.keys import Key, named_key
from longplay.tempo import MAX_BPM, MIN_BPM, named_bpm

Cache = Literal["float32", "bfloat16", "int8"]
Label = Literal["intro", "verse", "chorus", "outro"]
LABELS: tuple[Label, ...] = ("intro", "verse", "chorus", "outro")
MAX_TEXT_LENGTH = 4000
MAX_SECONDS = 7200.0
DEFAULT_SECONDS = 30.0
MAX_DRAWN_SEED = 2**31
TRIPLE = re.compile(r"\bwaltz|\b3/4\b", re.IGNORECASE)


class _Asked(Config):
    """A config whose wrong values are the asking user's: they raise `PromptError`, nested or not."""

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise PromptError(describe(error, type(self))) from None


class Section(_Asked):
    """One labelled stretch, in seconds from the start of the piece.

    Raises:
        PromptError: an unknown label, a negative or reversed time range, or one beyond two hours.
    """

    label: Label
    start: float = Field(ge=0)
    end: float = Field(gt=0, le=MAX_SECONDS)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError("must end after it starts")
        return self

    def __str__(self) -> str:
        return f"{self.label}:{self.start:g}-{self.end:g}"


class Prompt(_Asked):
    """A description in words and the sections of the piece (none: the model decides).

    Attributes:
        text: the words.
        sections: labelled stretches in order.
        bpm: the tempo; None: the one that the words name ("120 bpm"), else one that suits them (`pipeline/arrangement.py`).
        key: such as "F# minor"; None: the one that the words name, else that of the chords, else one that suits the words.
        chords: such as "Am F C G", one a bar, again and again; None: some of the key that suit the words.

    Raises:
        PromptError: a text of more than 4,000 characters, sections that overlap or are out of order, a tempo or key out of
            range, or another one than the text names, chords that cannot be read.
    """

    text: str = ""
    sections: tuple[Section, ...] = ()
    bpm: float | None = Field(default=None, ge=MIN_BPM, le=MAX_BPM)
    key: str | None = None
    chords: str | None = None

    @field_validator("text")
    @classmethod
    def _bounded(cls, text: str) -> str:
        if len(text) > MAX_TEXT_LENGTH:
            raise ValueError(f"{len(text)} characters are too many; use at most {MAX_TEXT_LENGTH}")
        return text

    @field_validator("key")
    @classmethod
    def _spelt(cls, key: str | None) -> str | None:
        return None if key is None else str(Key.parse(key))

    @field_validator("chords")
    @classmethod
    def _read(cls, chords: str | None) -> str | None:
        return None if chords is None else " ".join(map(str, parse_progression(chords)))

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        for before, after in zip(self.sections, self.sections[1:], strict=False):
            if after.start < before.end:
                raise PromptError(
                    f"sections {before} and {after} overlap or are out of order; let each start after the last ends"
                )
        return self

    @model_validator(mode="after")
    def _of_one_mind(self) -> Self:
        named = named_bpm(self.text)
        if self.bpm is not None and named is not None and abs(self.bpm - named) > 0.5:
            raise ValueError(f"bpm is {self.bpm:g}, but the text says {named:g} bpm; leave one of them out")
        if self.key is not None:
            other = named_key(self.text)
            if other is not None and Key.parse(other) != Key.parse(self.key):
                raise ValueError(f"key is {self.key}, but the text says {other}; leave one of them out")
        return self

    @property
    def asked_bpm(self) -> float | None:
        """The tempo in numbers, else in words."""
        return self.bpm or named_bpm(self.text)

    @property
    def asked_key(self) -> str | None:
        """The key in its own field, else in words."""
        return self.key or named_key(self.text)

    @property
    def control(self) -> Control | None:
        """The even pulse and the key that are asked for, one way or the other."""
        bpm = self.asked_bpm
        if bpm is not None and not MIN_BPM <= bpm <= MAX_BPM:
            bpm = None  # words may be about anything
        key = self.asked_key
        if bpm is None and key is None:
            return None
        return Control.steady(bpm, Key.parse(key) if key else None, beats=self.beats)

    @property
    def beats(self) -> int:
        """Of a bar: four, or three in a waltz."""
        return 3 if TRIPLE.search(self.text) else 4

    @property
    def progression(self) -> tuple[Chord, ...]:
        """The chords that are asked for, one a bar; they come again and again."""
        return parse_progression(self.chords) if self.chords else ()

    @property
    def start(self) -> float:
        """Where the piece starts in the song that the sections describe, in seconds."""
        return self.sections[0].start if self.sections else 0.0

    def require_text(self) -> None:
        """Refuse a prompt without words, where there is nothing else to go by.

        Raises:
            PromptError: the text is empty or blank.
        """
        if not self.text.strip():
            raise PromptError("the prompt is empty; describe the music in a few words, e.g. 'calm piano, 80 bpm'")


def parse_sections(text: str) -> tuple[Section, ...]:
    """Read `intro:0-15,verse:15-60`; a blank text is no section.

    Raises:
        PromptError: an unknown label, or a malformed, negative or reversed time range.
    """
    return tuple(_parse_section(item.strip()) for item in text.split(",")) if text.strip() else ()


def _parse_section(item: str) -> Section:
    label, _, span = item.partition(":")
    start, _, end = span.partition("-")
    if label not in LABELS:
        raise PromptError(f"section {item!r}: unknown label {label!r}; use one of {', '.join(LABELS)}")
    try:
        return Section(label=label, start=float(start), end=float(end))
    except (ValueError, PromptError):
        raise PromptError(
            f"section {item!r}: expected label:start-end with 0 <= start < end <= {MAX_SECONDS:g} seconds, "
            "e.g. verse:15-60"
        ) from None


class GenerationOptions(_Asked):
    """Every option of a generation; the same words in Python, on the command line and over HTTP.

    Attributes:
        seconds: duration of what is made; None: as long as the sections, or 30 s without any.
        guidance: weight of the prompt against the model's own taste in `lm` (classifier-free); 1 is off.
        temperature: of sampling; 0 always takes the likeliest code.
        top_k: sample from the k likeliest codes; 0 is off.
        top_p: sample from the likeliest codes that hold this probability; 1 is off.
        num_steps: of the flow's solver; None: the model's own default.
        solver: of the flow (`nn/ode.py`); None: the model's own default. `midpoint` and `heun` cost two steps each.
        flow_guidance: as `guidance`, in `flow`; 0 is off. None: the model's own default.
        flow_temperature: deviation of the noise that the flow starts from; with less of it pitches are clearer, and the sound is poorer.
            None: the model's own default.
        seed: of all random numbers; None draws one, which the recipe then holds.
        fast: without flow and codec: the tokenizer's own decoder, at its lower rate.
        prompt_seconds: how much of the end of an audio prompt the model hears.
        history_seconds: how much of its own music the model hears while it goes on; what is older is forgotten, words
            and sections are not, and time and memory per second stay the same. None: as it was trained.
        cache: numbers that the lm keeps of its music in: bfloat16 takes half of the memory of float32, int8 a quarter, which
            long pieces of large models notice in time too. None: bfloat16 where its steps are compiled, else those that it
            computes in.
        max_repeat: a code that makes up this share or more of the latest 32 is drawn again, from all codes: a guard against
            loops, and sounds that stand still (arXiv 2406.05370). 1: only where all of them are the same. None: the
            model's own default, which is off for published ones.
        compatibility: `reference` imitates the published inference code where Longplay differs (CHECKPOINTS.md 7).

    Raises:
        PromptError: a value out of its range.
    """

    seconds: float | None = Field(default=None, gt=0, le=MAX_SECONDS)
    guidance: float = Field(default=3.0, ge=0, le=20)
    temperature: float = Field(default=1.0, ge=0, le=5)
    top_k: int = Field(default=350, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    num_steps: int | None = Field(default=None, ge=1, le=1000)
    solver: Literal["euler", "midpoint", "heun", "ab2"] | None = None
    flow_guidance: float | None = Field(default=None, ge=0, le=20)
    flow_temperature: float | None = Field(default=None, ge=0, le=2)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    fast: bool = False
    prompt_seconds: float = Field(default=10.0, ge=1, le=300)
    history_seconds: float | None = Field(default=None, ge=1, le=MAX_SECONDS)
    cache: Cache | None = None
    max_repeat: float | None = Field(default=None, gt=0, le=1)
    compatibility: Literal["none", "reference"] = "none"

    def settle(self, prompt: Prompt, after: float = 0.0) -> "SettledOptions":
        """The same options with duration and seed decided.

        Args:
            prompt: whose sections may set the duration.
            after: seconds of the piece that an audio prompt already holds.

        Raises:
            PromptError: the sections of `prompt` last longer than `seconds`, or do not reach beyond `after`.
        """
        labelled = None
        if prompt.sections:
            labelled = prompt.sections[-1].end - max(prompt.start, after)
            if labelled <= 0:
                raise PromptError(
                    f"the last section, {prompt.sections[-1]}, ends within the {after:g} s of the audio prompt; "
                    "times count from its start"
                )
        seconds = self.seconds or labelled or DEFAULT_SECONDS
        if labelled and labelled > seconds + 1e-6:
            raise PromptError(
                f"the sections last {labelled:g} s, but seconds is {seconds:g}; ask for {labelled:g} s, or none"
            )
        seed = secrets.randbelow(MAX_DRAWN_SEED) if self.seed is None else self.seed
        return SettledOptions(**{**self.dump(), "seconds": seconds, "seed": seed})


class SettledOptions(GenerationOptions):
    """Options with a known duration and seed, as a recipe holds them."""

    seconds: float = Field(gt=0, le=MAX_SECONDS)
    seed: int = Field(ge=0, lt=2**63)

    def with_seed(self, seed: int) -> "SettledOptions":
        """The same options with another seed."""
        return SettledOptions(**{**self.dump(), "seed": seed})
