"""Codes from `lm`, step by step, for several pieces at once: `generate` yields them, `Decoding` holds the state.

A piece has one row in the batch, or with guidance two next to each other, conditional and unconditional. All rows
start at slot 0 of a preallocated cache and have positions and lengths of their own, so a piece does not notice its
neighbours. Nothing is concatenated per step, and nothing is read back from the device but whole chunks of codes.

A model trained on windows (`LMConfig.context_frames`) forgets: when a piece's history fills the window, its older half
is dropped, the rest is read again behind a prefix that names the new window, and generation goes on. So time and memory
per code stay the same at any length.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from longplay.engine.piece import Piece, RowBuilder
from longplay.engine.sampling import UNIFORM_BLOCK, mix, sample, uniform_block
from longplay.models.lm import LM
from longplay.nn.attention import KVCache
from longplay.prompt import GenerationOptions

NO_CODE = -1
CHUNK_FRAMES = 15
PREFILL_POSITIONS = 512


def generate(
    lm: LM, pieces: Sequence[Piece], options: GenerationOptions, chunk_frames: int = CHUNK_FRAMES
) -> Iterator[Tensor]:
    """The new codes of some pieces, as they are made; prompts are not repeated. Close the iterator to cancel.

    Args:
        lm: in evaluation mode.
        pieces: at least one.
        options: `guidance`, `temperature`, `top_k`, `top_p` and `compatibility` count here.
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
    """Some pieces in the making.

    Attributes:
        logits: of the next codes, [B, R, V]; R is 2 with guidance (conditional, unconditional), else 1.
        cache: keys and values of rows 0 to B * R - 1, those of a piece next to each other.
    """

    logits: Tensor
    cache: KVCache

    @torch.inference_mode()
    def __init__(self, lm: LM, pieces: Sequence[Piece], options: GenerationOptions) -> None:
        self.lm, self.options = lm, options
        self._builders = [RowBuilder(lm, piece, options.compatibility) for piece in pieces]
        self._guided = options.guidance != 1.0
        self._width = 2 if self._guided else 1
        device = lm.audio_head.weight.device
        self._frames = torch.tensor([piece.frames for piece in pieces], device=device)
        self._first_eos = torch.tensor([piece.first_eos for piece in pieces], device=device)
        self._steps = max(piece.frames for piece in pieces)
        self._step = 0
        self._ended = torch.zeros(len(pieces), dtype=torch.bool, device=device)
        # Codes of prompt and piece, and which of them are the history that the model still hears.
        prompts = [builder.prompt for builder in self._builders]
        self._lengths = [len(prompt) for prompt in prompts]
        self._places = torch.tensor(self._lengths, device=device)[:, None]
        self._history = torch.zeros(len(pieces), max(self._lengths) + self._steps, dtype=torch.long, device=device)
        for row, prompt in zip(self._history, prompts, strict=True):
            row[: len(prompt)] = prompt
        self._first = [self._window_start(0, length) for length in self._lengths]
        self._uniforms = torch.zeros(len(pieces), 0, device=device)
        self._read_all()

    @property
    def finished(self) -> bool:
        """Whether every piece has all its frames; pieces that ended by eos are in `chunk`'s codes alone."""
        return self._step >= self._steps

    @torch.inference_mode()
    def chunk(self, count: int) -> Tensor:
        """The next codes [B, n] of each piece, n = `count` or what is left, `NO_CODE` where a piece has ended."""
        chunk = [self._advance() for _ in range(min(count, self._steps - self._step))]
        return torch.stack(chunk, dim=1)

    def _advance(self) -> Tensor:
        codes = self._choose()
        self._ended |= (codes == self.lm.config.eos) | (self._step >= self._frames)
        codes = codes.masked_fill(self._ended, NO_CODE)
        heard = codes.clamp(min=0)  # an ended piece idles on code 0 until the others are done
        self._history.scatter_(1, self._places + self._step, heard[:, None])
        self._lengths = [length + 1 for length in self._lengths]
        self._step += 1
        if not self.finished:
            self._read(heard)
        return codes

    def _choose(self) -> Tensor:
        options, eos = self.options, self.lm.config.eos
        logits = self.logits[:, 0].to(torch.float32, copy=True)
        if self._guided:
            logits = mix(logits, self.logits[:, 1].float(), options.guidance)
        logits[:, eos] = logits[:, eos].masked_fill(self._step < self._first_eos, -torch.inf)
        block, place = divmod(self._step, UNIFORM_BLOCK)
        if place == 0:
            blocks = [uniform_block(builder.piece.seed, block) for builder in self._builders]
            self._uniforms = torch.stack(blocks).to(logits.device)
        return sample(logits, self._uniforms[:, place], options.temperature, options.top_k, options.top_p)

    def _read(self, codes: Tensor) -> None:
        """Let the model hear the newest codes [B]."""
        starts = [self._window_start(*held) for held in zip(self._first, self._lengths, strict=True)]
        full = [index for index, start in enumerate(starts) if start != self._first[index]]
        self._first = starts
        if len(full) < len(starts):
            inputs = self.lm.audio_embedding(codes).repeat_interleave(self._width, dim=0)
            hidden = self.lm(inputs[:, None], self.cache)
            self.logits = self.lm.audio_head(hidden[:, 0]).unflatten(0, (-1, self._width))
        for index in full:
            rows = self._rows(index)
            cache = self.cache.rows(index * self._width, (index + 1) * self._width)
            self.logits[index] = prefill(self.lm, rows, cache)
        if full:
            self.cache.adopt()

    def _read_all(self) -> None:
        rows = [row for index in range(len(self._builders)) for row in self._rows(index)]
        capacity = max(builder.max_positions(self._steps) for builder in self._builders)
        self.cache = self.lm.cache(len(rows), capacity)
        self.logits = prefill(self.lm, rows, self.cache).unflatten(0, (-1, self._width))

    def _rows(self, index: int) -> list[Tensor]:
        first = self._first[index]
        return self._builders[index].rows(self._history[index, first : self._lengths[index]], first, self._guided)

    def _window_start(self, first: int, length: int) -> int:
        """Where the history starts that is heard before code `length`, now that it has started at `first`."""
        context = self.lm.config.context_frames
        while context is not None and length - first >= context:
            first += context // 2
        return first


@torch.inference_mode()
def prefill(lm: LM, rows: Sequence[Tensor], cache: KVCache, positions: int = PREFILL_POSITIONS) -> Tensor:
    """Read whole rows into an empty cache.

    Args:
        lm: the model.
        rows: inputs [N, D], of different lengths.
        cache: with a row for each.
        positions: read at a time, which bounds the memory that a long prompt takes.

    Returns:
        logits [B, V] after the last position of each row.
    """
    lengths = [len(row) for row in rows]
    inputs = pad_sequence(list(rows), batch_first=True)
    last = inputs.new_zeros(len(rows), inputs.shape[2])
    for start in range(0, max(lengths), positions):
        chunk = inputs[:, start : start + positions]
        counts = [min(max(length - start, 0), chunk.shape[1]) for length in lengths]
        hidden = lm(chunk, cache, torch.tensor(counts, device=inputs.device))
        for row, length in enumerate(lengths):
            if start < length <= start + chunk.shape[1]:
                last[row] = hidden[row, length - 1 - start]
    return lm.audio_head(last)
