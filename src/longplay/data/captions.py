"""Captions: several wordings of the same facts, from terse tags to a sentence. Nothing is said that is not known."""

from collections.abc import Sequence
from typing import Self

import numpy as np

from longplay.analysis.measure import Facts, Texture
from longplay.config import Config
from longplay.data.manifest import Passage
from longplay.data.tags import Heard, HeardPassage
from longplay.prompt import Section
from longplay.tempo import tempo_word

MAX_INSTRUMENTS = 5
MAX_TAG_WORDS = 4  # what is longer is no tag of a list, but part of a sentence
DARK_HZ, BRIGHT_HZ = 1200, 2300  # about the lower and the upper fifth of the real music
SPARSE, BUSY = 2.5, 5.5  # onsets per second, likewise
EVEN_DB, WIDE_DB = 4, 12  # dynamics, likewise
CLEAR_DB = 6  # half as loud, nearly: a change that anybody hears
SWAY_DB = 2  # as much a rise may falter
DYNAMICS_WORDS = ("steady", "dynamic")


class Description(Config):
    """What is known about a track, ready to be worded.

    Attributes:
        styles: genres and styles, the most telling first.
        moods: adjectives.
        course: how loud it is from beginning to end, as verbs: "builds up".
    """

    title: str | None = None
    styles: tuple[str, ...] = ()
    moods: tuple[str, ...] = ()
    course: tuple[str, ...] = ()
    bpm: float | None = None
    key: str | None = None
    instruments: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()

    def hearing(self, heard: Heard) -> Self:
        """And what was heard: more styles and moods, and instruments where none are known."""
        return self.model_copy(
            update={
                "styles": tuple(dict.fromkeys([*self.styles, *heard.styles])),
                "moods": (*self.moods, *heard.moods),
                "instruments": self.instruments or heard.instruments,
            }
        )


def moods(facts: Facts) -> tuple[str, ...]:
    """Adjectives for what stands out in a measurement; none for what is ordinary."""
    texture = texture_moods(Texture(facts.brightness, facts.density))
    return (*texture, *_outside(facts.dynamics, EVEN_DB, WIDE_DB, *DYNAMICS_WORDS))


def course(loudness: Sequence[float]) -> tuple[str, ...]:
    """How a piece goes from beginning to end, of the level of its eighths in dB; nothing where it is not plain to hear."""
    level = np.array(loudness)
    body = level[1:-1].mean()
    peak = int(level.argmax())
    rises = (np.diff(level[: peak + 1]) > -SWAY_DB).all()
    sinks = (np.diff(level[peak:]) < SWAY_DB).all()
    middle = np.maximum(level[2:5], level[3:6]).min()  # two eighths in a row
    said = []
    if peak >= 4 and rises and level[4:7].mean() - level[:2].mean() > CLEAR_DB:
        said.append("builds up")
    elif level[0] < body - CLEAR_DB:
        said.append("starts quietly")
    if peak <= 3 and sinks and level[1:3].mean() - level[5:].mean() > CLEAR_DB:
        said.append("calms down")
    elif level[-1] < body - CLEAR_DB:
        said.append("fades towards the end")
    if middle < min(level[:2].mean(), level[-2:].mean()) - CLEAR_DB:
        said.append("goes quiet halfway")
    return tuple(said)


def texture_moods(texture: Texture) -> tuple[str, ...]:
    """Those of `moods` that a stretch of music has, too."""
    brightness, density = texture
    shade = () if brightness is None else _outside(brightness, DARK_HZ, BRIGHT_HZ, "dark", "bright")
    return (*shade, *_outside(density, SPARSE, BUSY, "sparse", "busy"))


def _outside(value: float, low: float, high: float, below: str, above: str) -> tuple[str, ...]:
    return (below,) if value < low else (above,) if value > high else ()


def captions(about: Description) -> tuple[str, ...]:
    """Three to five different captions of one track."""
    style = about.styles[0] if about.styles else "music"
    instruments = about.instruments[:MAX_INSTRUMENTS]
    tempo = [tempo_word(about.bpm)] if about.bpm else []
    measured = [f"{about.bpm:.0f} bpm"] if about.bpm else []
    measured += [about.key] if about.key else []
    labels = [section.label for section in about.sections]

    tags = ", ".join([*about.styles, *tempo, *about.moods, *measured, *instruments, *about.course])
    mood = " ".join([*tempo, *about.moods, style])
    short = style + (f" in {about.key}" if about.key else "") + (f" at {about.bpm:.0f} bpm" if about.bpm else "")
    feel = ", ".join([*tempo, *about.moods])
    felt = f"{feel} {style}" if feel else style
    named = felt if style.endswith("music") else f"{_article(felt)} {felt} piece"
    sentence = _capital(named) + (f" with {_listing(instruments)}" if instruments else "")
    sentence += f", {' in '.join(measured)}." if len(measured) == 2 else f", {measured[0]}." if measured else "."
    sentence += f" It {_listing(about.course)}." if about.course else ""
    structured = sentence + (f" It goes {', '.join(labels)}." if labels else "")
    titled = (
        f'"{about.title}": {", ".join([*about.styles[:2], *about.moods, *tempo]) or "music"}' if about.title else ""
    )
    wordings = (tags, mood, _capital(short), sentence if titled else structured, titled)
    return tuple(dict.fromkeys(filter(None, wordings)))


def passages(known: Description, heard: Heard) -> tuple[Passage, ...]:
    """Captions of the passages of a track, from what is known of all of it and what was heard and measured in each.

    How much its level moves is said of the whole, where it moves of none: ten seconds hardly tell.
    """

    def part(each: HeardPassage) -> Description:
        update: dict[str, object] = {"title": None, "sections": (), "course": ()}
        if each.texture is not None:
            update["moods"] = (*texture_moods(each.texture), *(word for word in known.moods if word in DYNAMICS_WORDS))
        return known.model_copy(update=update).hearing(each.heard)

    return tuple(
        Passage(start=each.start, end=each.end, captions=captions(part(each)), style=each.style)
        for each in heard.passages
    )


def some_tags(caption: str, share: float, rng: np.random.Generator) -> str:
    """A caption that is a list of tags, less a share of them drawn up to `share`, in any order; any other caption as it is.

    At least one tag stays.
    """
    tags = caption.split(", ")
    if len(tags) < 2 or caption.endswith(".") or any(len(tag.split()) > MAX_TAG_WORDS for tag in tags):
        return caption
    left = max(1, round(len(tags) * (1 - rng.uniform(0, share))))
    return ", ".join(rng.permutation(tags)[:left].tolist())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _article(text: str) -> str:
    return "an" if text[:1].lower() in "aeiou" else "a"


def _listing(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)
