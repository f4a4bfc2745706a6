"""What a form of an `lm` loses, for `bench lm`: how far its weights alone, and its cache alone, are from float32 on one piece.

One form makes a few seconds; then every form says what it expects before each of these codes. Its weights are
judged with keys and values in float32, its cache with weights in float32: both together say less, since weights in int8
round their inputs, too, and every change before them, however small, lets them round otherwise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from longplay.engine.decode import generate
from longplay.engine.listening import Quality, closeness, says, steady_piece
from longplay.models.lm import LM
from longplay.pipeline.precision import QUANTIZED
from longplay.prompt import GenerationOptions

FRAMES = 150
"""Codes that forms are judged on."""


class LMQuality:
    """Judges the forms of an lm on one piece.

    Args:
        lm: in float32 on the CPU.
        maker: form of it that makes the piece.
        ids: of its text.
    """

    def __init__(self, lm: LM, maker: LM, ids: Sequence[int]) -> None:
        self._lm, self._decoder = lm, lm.decoder()
        self._piece = steady_piece(lm, ids, FRAMES, seed=2)  # others than those that forms are made by
        self._codes = torch.cat(list(generate(maker, [self._piece], GenerationOptions())), dim=1)[0].cpu()
        self._exact = self._wide(torch.float32)

    def of(self, form: LM, precision: str, cache_dtype: torch.dtype) -> dict[str, float]:
        """What a form loses, in nats a code and as shares of the likeliest codes; a cache in float32 loses nothing.

        Args:
            form: of the lm, with its decoder as `inference`.
            precision: of it.
            cache_dtype: of its keys and values.
        """
        assert form.inference is not None
        at_once = precision not in QUANTIZED  # those round what they are given, a step at a time
        narrow = says(form, form.inference, self._piece, self._codes, at_once).cpu()
        values = _values("weights", closeness(self._exact, narrow))
        if cache_dtype != torch.float32:
            values |= _values("cache", closeness(self._exact, self._wide(cache_dtype)))
        return values

    def _wide(self, cache_dtype: torch.dtype) -> Tensor:
        return says(self._lm, self._decoder, self._piece, self._codes, at_once=True, cache_dtype=cache_dtype)


def _values(part: str, quality: Quality) -> dict[str, float]:
    return {f"{part}_kl_nats": quality.kl, f"{part}_top_350_shared": quality.top_overlap}
