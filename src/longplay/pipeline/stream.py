"""A piece in the making: chunks as they are finished, and how they become one `Audio`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from longplay.audio import Audio
from longplay.audio.file import Wav
from longplay.errors import AudioError
from longplay.pipeline.recipe import Recipe

Stage = Literal["tokenizer", "lm", "flow", "codec"]
Progress = Callable[[Stage, float], None]
"""Called with a stage and the seconds of music that it has made in all."""


def silent(stage: Stage, seconds: float) -> None:
    """The progress callback for those who do not want to know."""


@dataclass(frozen=True)
class Stream:
    """Iterate once over wav chunks [C, S]; each is final.

    Attributes:
        sample_rate: of the chunks, in Hz.
        recipe: how the piece is made.
    """

    sample_rate: int
    recipe: Recipe
    chunks: Iterator[Wav]

    def __iter__(self) -> Iterator[Wav]:
        return self.chunks

    def join(self, chunks: Sequence[Wav]) -> Audio:
        """One piece of the chunks that came out so far.

        Raises:
            AudioError: there are none; a model may end a piece at once with `compatibility` "reference".
        """
        if not chunks:
            raise AudioError("the model ended the piece before it began; try another seed or more seconds")
        return Audio(np.concatenate(chunks, axis=1), self.sample_rate, self.recipe.tags())
