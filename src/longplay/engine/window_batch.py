"""Windows of many pieces, run together where they are alike: what flow and decoder do for pieces of one running batch.

Pieces that began at different times reach the ends of their windows at different times. So a window may wait a little
for others of its shape, but never for long, and the first one of a piece, on which its first sound depends, not at all.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from longplay.engine.windows import Window, WindowStream

P = TypeVar("P", bound=Hashable)


@dataclass(frozen=True, eq=False)
class Part(Generic[P]):
    """What a piece gained.

    Attributes:
        piece: whose.
        frames: [1, ..., T] final ones; None at the end, if nothing is left.
        ended: whether these were the last.
    """

    piece: P
    frames: Tensor | None
    ended: bool


@dataclass(eq=False)
class _Open:
    stream: WindowStream
    kind: Hashable
    waited: int = 0


class WindowBatch(Generic[P]):
    """The windows of all pieces that are being made."""

    def __init__(self, run: Callable[[Sequence[P], Sequence[Window]], Tensor], at_once: int, patience: int) -> None:
        """Begin with no pieces.

        Args:
            run: takes pieces of one kind and a window of each, all of one length; gives [B, ..., T * ratio].
            at_once: windows that are run together at most.
            patience: for how many calls of `run_ready` a window waits for others at most.
        """
        self._run, self._at_once, self._patience = run, at_once, patience
        self._open: dict[P, _Open] = {}

    def __contains__(self, piece: P) -> bool:
        return piece in self._open

    def begin(self, piece: P, stream: WindowStream, kind: Hashable = None) -> None:
        """Take a piece in, cut by `stream`; those of one `kind` may share a batch."""
        self._open[piece] = _Open(stream, kind)

    def take(self, part: Part[P]) -> None:
        """Take what comes in of a piece that has begun."""
        stream = self._open[part.piece].stream
        if part.frames is not None:
            stream.push(part.frames)
        if part.ended:
            stream.end()

    def drop(self, piece: P) -> None:
        """Forget a piece, if it is here."""
        self._open.pop(piece, None)

    def run_ready(self) -> Iterator[list[Part[P]]]:
        """Run the windows that need not wait any longer, batch by batch."""
        while (pieces := self._next()) is not None:
            streams = [self._open[piece].stream for piece in pieces]
            windows = [stream.window() for stream in streams]
            with torch.inference_mode():
                made = self._run(pieces, windows)
            parts = []
            for piece, stream, row in zip(pieces, streams, made.split(1), strict=True):
                parts.append(Part(piece, stream.take(row), ended=False))
                self._open[piece].waited = 0
            yield parts
        for each in self._open.values():
            each.waited += each.stream.ready
        done = [piece for piece, each in self._open.items() if each.stream.finished]
        if done:
            yield [Part(piece, self._open.pop(piece).stream.rest(), ended=True) for piece in done]

    def _next(self) -> list[P] | None:
        """Pieces whose windows are to be run together now; None where all of them may wait."""
        alike: dict[Hashable, list[P]] = {}
        for piece, each in self._open.items():
            if each.stream.ready:
                alike.setdefault((each.kind, each.stream.size), []).append(piece)
        coming = any(not each.stream.ready and not each.stream.ended for each in self._open.values())
        for pieces in alike.values():
            due = any(
                self._open[piece].waited >= self._patience or not self._open[piece].stream.begun for piece in pieces
            )
            if due or not coming or len(pieces) >= self._at_once:
                return pieces[: self._at_once]
        return None
