"""Codes from `lm`, step by step, for several pieces at once: `generate` yields them, `Decoding` holds the state."""

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from longplay.engine.batch import CHUNK_FRAMES, NO_CODE, Batch
from longplay.engine.piece import Piece, RowBuilder
from longplay.models.lm import LM
from longplay.nn.cache import KVCache
from longplay.prompt import GenerationOptions


def generate(
    lm: LM, pieces: Sequence[Piece], options: GenerationOptions, chunk_frames: int = CHUNK_FRAMES
) -> Generator[Tensor, None, None]:
    """The new codes of some pieces, as they are made; prompts are not repeated. Close the iterator to cancel.

    Args:
        lm: in evaluation mode.
        pieces: at least one.
        options: `guidance`, `temperature`, `top_k`, `top_p`, `cache` and `compatibility` count here.
        chunk_frames: codes per chunk; on an accelerator the host waits once per chunk.

    Yields:
        codes [B, n] with n <= chunk_frames, `NO_CODE` where a piece has ended. Every chunk holds some code.
    """
    decoding = Decoding(lm, pieces, options)
    while not decoding.finished:
        codes = decoding.chunk(chunk_frames)
        count = int((codes != NO_CODE).any(dim=0).sum())
        if count:
            yield codes[:, :count]
        if count < chunk_frames:
            return


class Decoding:
    """Some pieces that start together, in a batch of their own."""

    def __init__(self, lm: LM, pieces: Sequence[Piece], options: GenerationOptions) -> None:
        positions = max(RowBuilder(lm, piece, options.compatibility).max_positions(piece.frames) for piece in pieces)
        cache: torch.dtype | None = None if options.cache is None else getattr(torch, options.cache)
        self._batch = Batch(lm, len(pieces), positions, options.guidance != 1.0, cache)
        for slot, piece in enumerate(pieces):
            self._batch.join(slot, piece, options)
        self._left = max(piece.frames for piece in pieces)

    @property
    def logits(self) -> Tensor:
        """Of the next codes, [B, R, V]; R is 2 with guidance (conditional, unconditional), else 1."""
        return self._batch.logits

    @property
    def cache(self) -> KVCache:
        """Keys and values of rows 0 to B * R - 1, those of a piece next to each other."""
        return self._batch.cache

    @property
    def finished(self) -> bool:
        """Whether every piece has all its frames; pieces that ended by eos are in `chunk`'s codes alone."""
        return self._left == 0

    def chunk(self, count: int) -> Tensor:
        """The next codes [B, n] of each piece, n = `count` or what is left, `NO_CODE` where a piece has ended."""
        count = min(count, self._left)
        self._left -= count
        return self._batch.chunk(count)
