"""How a passage sounds, in numbers: how likely musicnn finds each tag that captions may use, against its usual likelihood.

Captions say the few tags that stand out; these say all of them, and by how much. An lm that takes them (`LMConfig.style_dim`)
is told of music as it sounds, and words, of which there are few in a corpus and many in the world, only have to tell the
numbers. Source of the idea: MusicLM (arXiv 2301.11325), whose numbers are those of a joint space of text and audio.
"""

from collections.abc import Mapping

import numpy as np

from longplay.data.tags import excess, vocabulary

STYLE_DIM = len(vocabulary())
SCALE = 2.0  # nats of log odds: the numbers of a corpus deviate by about 0.75
LIMIT = 2.0
DIGITS = 2


def style_of(found: Mapping[str, float]) -> tuple[float, ...]:
    """The numbers [STYLE_DIM] for the probabilities of `tags.probabilities`, in the order of the vocabulary."""
    numbers = np.clip([excess(found, name) / SCALE for name in vocabulary()], -LIMIT, LIMIT)
    return tuple(numbers.round(DIGITS).tolist())
