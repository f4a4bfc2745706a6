"""What a user asks for: `Prompt` (text and sections) and `GenerationOptions` (every knob, with its range)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from longplay.config import Config
from longplay.errors import PromptError

Label = Literal["intro", "verse", "chorus", "outro"]
LABELS: tuple[Label, ...] = ("intro", "verse", "chorus", "outro")
MAX_TEXT_LENGTH = 4000
MAX_SECONDS = 7200.0


class Section(Config):
    """One labelled stretch of the piece, in seconds from its start."""

    label: Label
    start: float = Field(ge=0)
    end: float = Field(gt=0, le=MAX_SECONDS)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"section {self.label}:{self.start:g}-{self.end:g} must end after it starts")
        return self

    def __str__(self) -> str:
        return f"{self.label}:{self.start:g}-{self.end:g}"


class Prompt(Config):
    """A text description and the sections of the piece (empty: one section over its whole length)."""

    text: str = Field(default="", max_length=MAX_TEXT_LENGTH)
    sections: tuple[Section, ...] = ()

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        for before, after in zip(self.sections, self.sections[1:], strict=False):
            if after.start < before.end:
                raise ValueError(f"sections {before} and {after} overlap; order them and let each start after the last")
        return self


def parse_sections(text: str) -> tuple[Section, ...]:
    """Read `intro:0-15,verse:15-60`.

    Raises:
        PromptError: an unknown label, a malformed or reversed time range.
    """
    sections = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        label, _, span = item.partition(":")
        start, dash, end = span.partition("-")
        if label not in LABELS:
            raise PromptError(f"section {item!r}: unknown label {label!r}; use one of {', '.join(LABELS)}")
        try:
            times = float(start), float(end)
        except ValueError:
            raise PromptError(f"section {item!r}: expected label:start-end in seconds, e.g. verse:15-60") from None
        if not dash or times[0] < 0 or times[1] <= times[0]:
            raise PromptError(f"section {item!r}: needs 0 <= start < end, in seconds")
        sections.append(Section(label=label, start=times[0], end=times[1]))
    return tuple(sections)


class GenerationOptions(Config):
    """Every option of a generation; the same words in Python, on the command line and over HTTP."""

    seconds: float = Field(default=30.0, gt=0, le=MAX_SECONDS)
    guidance: float = Field(default=3.0, ge=0, le=20)
    temperature: float = Field(default=1.0, ge=0, le=5)
    top_k: int = Field(default=350, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    num_steps: int = Field(default=10, ge=1, le=1000)
    flow_guidance: float = Field(default=0.7, ge=0, le=20)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    fast: bool = False
    compatibility: Literal["none", "reference"] = "none"
