"""Which of several seeds keeps best to its prompt? Each begins a piece, and what begins is measured.

A piece is known by its seed, so the one that is chosen is made as if nobody had searched, and so is its file's recipe.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from longplay.analysis.measure import measure, same_tempo
from longplay.audio import Audio
from longplay.data.musicnn import Listener
from longplay.data.tags import likeness, probabilities, vocabulary
from longplay.errors import PromptError
from longplay.evaluate.adherence import same_key
from longplay.pipeline import Pipeline
from longplay.prompt import Prompt, SettledOptions

SKETCH_SECONDS = 10.0
MIN_SECONDS = 4.0


@dataclass(frozen=True)
class Asked:
    """What of a prompt can be heard in music.

    Attributes:
        bpm: its tempo.
        key: such as "F# minor".
        words: styles, instruments and moods of `data/tags.yaml`.
    """

    bpm: float | None
    key: str | None
    words: tuple[str, ...]

    def __bool__(self) -> bool:
        return self != Asked(None, None, ())

    @classmethod
    def of(cls, prompt: Prompt) -> "Asked":
        """Read a prompt."""
        named = tuple(word for word in _words() if re.search(rf"\b{re.escape(word)}s?\b", prompt.text, re.IGNORECASE))
        return cls(prompt.asked_bpm, prompt.asked_key, named)


@dataclass(frozen=True, order=True)
class Candidate:
    """A seed, and how its piece begins; the best is the greatest.

    Attributes:
        met: whether tempo and key are as asked: how many of them.
        likeness: how much the asked words stand out to a listening network, see `data.tags.likeness`; 0 where none is asked.
        seed: of the piece.
        bpm: measured; None without a clear pulse.
        key: measured; None where none stands out.
    """

    met: int
    likeness: float
    seed: int = field(compare=False)
    bpm: float | None = field(compare=False)
    key: str | None = field(compare=False)

    def __str__(self) -> str:
        tempo = "no clear pulse" if self.bpm is None else f"{self.bpm:g} bpm"
        return f"seed {self.seed}: {tempo}, {self.key or 'no clear key'}"


def check_comparable(prompt: Prompt) -> Asked:
    """What a prompt asks for.

    Raises:
        PromptError: nothing that can be heard.
    """
    asked = Asked.of(prompt)
    if not asked:
        examples = ", ".join(_words()[:6])
        raise PromptError(
            f"prompt {prompt.text!r}: candidates are compared by tempo ('120 bpm'), key ('F# minor') and words like {examples}; "
            "it names none"
        )
    return asked


def find_candidates(
    pipeline: Pipeline,
    prompt: Prompt,
    options: SettledOptions,
    count: int,
    listener: Listener | None = None,
) -> list[Candidate]:
    """Begin pieces with `count` seeds from that of `options` on, and compare them, the best first.

    Args:
        pipeline: with tokenizer and lm.
        prompt: what is asked for.
        options: of the pieces.
        count: of seeds.
        listener: for the words; fetched where it is not given and needed.

    Raises:
        PromptError: the prompt names nothing that can be compared, or the piece is, or may turn out, too short to tell.
        CheckpointError: the model lacks a part.
        DownloadError: the listening network cannot be fetched.
    """
    asked = check_comparable(prompt)
    if options.seconds < MIN_SECONDS:
        raise PromptError(f"seconds = {options.seconds:g}: candidates are compared over {MIN_SECONDS:g} s or more")
    if options.compatibility == "reference":
        raise PromptError(
            "compatibility = reference: its pieces may end at once, which cannot be compared; leave out candidates"
        )
    seeds = [options.seed + number for number in range(count)]
    sketches = pipeline.sketch(prompt, seeds, options, SKETCH_SECONDS)
    likes = _likeness(asked.words, sketches, listener)
    found = [_candidate(asked, seed, sketch, like) for seed, sketch, like in zip(seeds, sketches, likes, strict=True)]
    return sorted(found, reverse=True)


def _candidate(asked: Asked, seed: int, sketch: Audio, like: float) -> Candidate:
    facts = measure(sketch.wav[0], sketch.sample_rate)
    met = [
        asked.bpm is not None and same_tempo(asked.bpm, facts.bpm),
        asked.key is not None and same_key(asked.key, facts.key),
    ]
    return Candidate(sum(met), like, seed, facts.bpm, facts.key)


def _likeness(words: Sequence[str], sketches: Sequence[Audio], listener: Listener | None) -> list[float]:
    if not words:
        return [0.0] * len(sketches)
    listener = listener or Listener.pretrained()
    return [likeness(probabilities(listener, sketch.wav[0], sketch.sample_rate), words) for sketch in sketches]


def _words() -> list[str]:
    return sorted({entry.word for entry in vocabulary().values()})
