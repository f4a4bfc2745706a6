"""Reading whole rows into a cache, in parts, which bound the memory that a long prompt takes and the time that others wait for it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from longplay.nn.cache import KVCache
from longplay.nn.decoder import Decoder

PREFILL_POSITIONS = 512


class Prefill:
    """Rows on their way into an empty cache.

    Attributes:
        held: positions of the longest row that are read.
    """

    def __init__(self, decoder: Decoder, rows: Sequence[Tensor], cache: KVCache) -> None:
        """Begin.

        Args:
            decoder: of the model.
            rows: inputs [N, D], of different lengths.
            cache: with a row for each.
        """
        self._decoder, self._cache = decoder, cache
        self._lengths = [len(row) for row in rows]
        self._inputs = pad_sequence(list(rows), batch_first=True)
        self._last = self._inputs.new_zeros(len(rows), self._inputs.shape[2])
        self._length = max(self._lengths)
        self.held = 0

    @property
    def done(self) -> bool:
        """Whether all is read."""
        return self.held == self._length

    @torch.inference_mode()
    def read(self, positions: int) -> None:
        """Read so many more positions of each row, or what is left."""
        start = self.held
        chunk = self._inputs[:, start : start + positions]
        counts = [min(max(length - start, 0), chunk.shape[1]) for length in self._lengths]
        hidden = self._decoder(chunk, self._cache, torch.tensor(counts, device=chunk.device))
        for row, length in enumerate(self._lengths):
            if start < length <= start + chunk.shape[1]:
                self._last[row] = hidden[row, length - 1 - start]
        self.held = min(start + positions, self._length)

    @torch.inference_mode()
    def logits(self, positions: int = PREFILL_POSITIONS) -> Tensor:
        """Logits [B, V] after the last position of each row; reads what is left, so many positions at a time."""
        while not self.done:
            self.read(positions)
        return self._decoder.head(self._last)


def prefill(decoder: Decoder, rows: Sequence[Tensor], cache: KVCache, positions: int = PREFILL_POSITIONS) -> Tensor:
    """Read whole rows at once: see `Prefill`; gives its logits."""
    return Prefill(decoder, rows, cache).logits(positions)
