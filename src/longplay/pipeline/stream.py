"""A piece in the making: chunks as they are finished, and how they become one `Audio`."""

import functools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from longplay.audio import Audio, Finish
from longplay.audio.file import Wav
from longplay.errors import AudioError
from longplay.pipeline.recipe import Recipe

Stage = Literal["tokenizer", "lm", "flow", "codec"]
Progress = Callable[[Stage, float], None]
"""Called with a stage and the seconds of music that it has made in all; by one stage at a time, not in your thread."""


def silent(stage: Stage, seconds: float) -> None:
    """The progress callback for those who do not want to know."""


class Meter:
    """Tells `progress` how many seconds of a piece a stage has made so far, beyond `skip`; counts frames at `rate`."""

    def __init__(self, progress: Progress, stage: Stage, rate: float, skip: float = 0.0) -> None:
        self._progress, self._stage, self._rate, self._skip = progress, stage, rate, skip
        self._frames = 0

    def count(self, frames: int) -> None:
        """So many more have been made."""
        self._frames += frames
        self._progress(self._stage, max(0.0, self._frames / self._rate - self._skip))


def one_at_a_time(progress: Progress) -> Progress:
    """The same callback for stages that work at the same time."""
    lock = threading.Lock()

    def locked(stage: Stage, seconds: float) -> None:
        with lock:
            progress(stage, seconds)

    return locked


def do_nothing() -> None:
    """There is nothing to be given up."""


@dataclass(frozen=True)
class Stream:
    """Iterate once over wav chunks [C, S]; each is final. Close it to stop early.

    Attributes:
        sample_rate: of the chunks, in Hz.
        chunks: what iterating gives.
        describe: makes the recipe.
        cancel: gives up what has not been made, where it is made whether or not anybody iterates.
    """

    sample_rate: int
    chunks: Generator[Wav, None, None]
    describe: Callable[[], Recipe]
    cancel: Callable[[], None] = do_nothing

    @functools.cached_property
    def recipe(self) -> Recipe:
        """How the piece is made. Only now are the weights read for their digest, a second per GB: sound comes first."""
        return self.describe()

    def __iter__(self) -> Iterator[Wav]:
        return self.chunks

    def close(self) -> None:
        """Stop making the piece; returns when nothing of it runs any more."""
        self.chunks.close()
        self.cancel()

    def tags(self, finish: Finish) -> dict[str, Any]:
        """The recipe for a file of the piece with these settings."""
        return {**self.recipe.tags(), "finish": finish.dump()}

    def check_begun(self, count: int) -> None:
        """Refuse a piece of no chunks or samples.

        Raises:
            AudioError: `count` is 0; a model may end a piece at once with `compatibility` "reference".
        """
        if not count:
            raise AudioError("the model ended the piece before it began; try another seed or more seconds")

    def join(self, chunks: Sequence[Wav]) -> Audio:
        """One piece of the chunks that came out so far.

        Raises:
            AudioError: there are none, see `check_begun`.
        """
        self.check_begun(len(chunks))
        return Audio(np.concatenate(chunks, axis=1), self.sample_rate, self.recipe.tags())
