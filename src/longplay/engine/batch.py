"""Pieces that share one batch of `lm` and join and leave it while it runs.

A piece holds a slot: one row of the batch, or with guidance two next to each other, conditional and unconditional. Rows
have positions, lengths and random numbers of their own, so a piece does not notice its neighbours. Nothing is
concatenated per step, and nothing is read back from the device but whole chunks of codes.

A model trained on windows (`LMConfig.context_frames`), or a piece that asks for it (`Piece.history`), forgets: when a piece's history fills the window, its older half
is dropped, the rest is read again behind a prefix that names the new window, and generation goes on. So time and memory
per code stay the same at any length.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from longplay.engine.piece import Piece, RowBuilder
from longplay.engine.prefill import PREFILL_POSITIONS, Prefill
from longplay.engine.sampling import UNIFORM_BLOCK, mix, redraw_repeats, sample, uniform_block
from longplay.models.lm import LM
from longplay.nn.cache import KVCache
from longplay.nn.compiled import Drawing
from longplay.nn.graphed import GraphedStep, step
from longplay.nn.kernels import RECENT_CODES
from longplay.prompt import GenerationOptions

NO_CODE = -1
CHUNK_FRAMES = 15
"""Codes between two looks at the device, unless told otherwise."""
SAID_BLOCK = 64
"""Codes of which is computed at a time what is said of them."""


@dataclass(eq=False)
class _Seat:
    """What the host knows of the piece in a slot.

    Attributes:
        builder: makes its rows.
        options: of its sampling.
        step: codes made.
        first: code of prompt and piece where the history that the model hears starts.
        length: codes of prompt and piece so far.
        held: positions of its longest row.
        reading: what is left to be read before codes can be made; None once all is.
    """

    builder: RowBuilder
    options: GenerationOptions
    step: int
    first: int
    length: int
    held: int
    reading: Prefill | None = None

    @property
    def done(self) -> bool:
        """Whether all codes are made."""
        return self.step == self.builder.piece.frames

    def hear(self, count: int) -> bool:
        """Count codes that were made and heard; says whether older ones must be forgotten now."""
        self.step += count
        self.length += count
        self.held += count
        return _window_start(self.builder.context, self.first, self.length) != self.first


class Batch:
    """Slots for pieces, and the cache that they share.

    Attributes:
        logits: of the next codes, [P, R, V]; R is 2 with guidance (conditional, unconditional), else 1.
        cache: keys and values of rows 0 to P * R - 1, those of a slot next to each other.
    """

    @torch.inference_mode()
    def __init__(
        self, lm: LM, slots: int, positions: int, guided: bool, cache_dtype: torch.dtype | None = None
    ) -> None:
        """Reserve all memory.

        Args:
            lm: in evaluation mode.
            slots: pieces at once.
            positions: that a row can hold (`RowBuilder.max_positions`).
            guided: whether slots have two rows.
            cache_dtype: of keys and values; None: that of the model.
        """
        self.lm = lm
        self._decoder = lm.inference or lm.decoder()
        self._width = 2 if guided else 1
        device = lm.audio_head.weight.device
        on_cuda = device.type == "cuda"
        self._step = GraphedStep(self._decoder) if on_cuda else functools.partial(step, self._decoder)
        self.cache = lm.cache(slots * self._width, positions, cache_dtype)
        self.logits = torch.zeros(slots, self._width, lm.config.codebook_size + 1, device=device)
        self._views: dict[int, KVCache] = {}
        self._seats: list[_Seat | None] = [None] * slots
        self._history = torch.zeros(slots, positions, dtype=torch.long, device=device)
        counters = torch.zeros(5, slots, dtype=torch.long, device=device)
        self._steps, self._frames, self._first_eos, self._active, self._heard = counters
        self._ended = torch.ones(slots, dtype=torch.bool, device=device)
        self._uniforms = torch.zeros(2, slots, UNIFORM_BLOCK, device=device)  # of draws, and of second draws
        self._said = lm.audio_head.bias.new_zeros(slots, SAID_BLOCK, lm.config.dim) if lm.config.control else None
        self._drawing: Drawing | None = None
        if self._decoder.compiled is not None and lm.audio_embedding.weight.dtype == torch.float32:
            embedding = lm.audio_embedding.weight
            self._drawing = Drawing(counters, self._ended, self._uniforms, self._said, embedding, self._history)
        self._settle()

    @torch.inference_mode()
    def join(self, slot: int, piece: Piece, options: GenerationOptions) -> None:
        """Put a piece into a free slot and read its prompt: `begin` and `read` in one."""
        self.begin(slot, piece, options)
        while not self.read(slot):
            pass

    @torch.inference_mode()
    def begin(self, slot: int, piece: Piece, options: GenerationOptions) -> None:
        """Put a piece into a free slot; it makes codes once its prompt is `read`.

        Args:
            slot: number of a free one.
            piece: what to make.
            options: `guidance`, `temperature`, `top_k`, `top_p`, `max_repeat` and `compatibility` count here.

        Raises:
            ValueError: the slot is taken, or the piece does not fit into its rows.
        """
        if self._seats[slot] is not None:
            raise ValueError(f"slot {slot} is taken")
        builder = RowBuilder(self.lm, piece, options.compatibility)
        if builder.max_positions(piece.frames) > self.cache.capacity:
            raise ValueError(
                f"a piece of {builder.max_positions(piece.frames)} positions does not fit into {self.cache.capacity}"
            )
        prompt = builder.prompt.to(self.logits.device)
        seat = _Seat(builder, options, 0, _window_start(builder.context, 0, len(prompt)), len(prompt), 0)
        self._seats[slot] = seat
        seat.reading = self._reading(slot, prompt[seat.first :])
        self._settle()

    @torch.inference_mode()
    def read(self, slot: int, positions: int = PREFILL_POSITIONS) -> bool:
        """Read so many more positions of the prompt of a piece that has begun; says whether it makes codes now."""
        seat = self._seats[slot]
        assert seat is not None
        if seat.reading is not None:
            seat.reading.read(positions)
            seat.held = seat.reading.held
            self._set_longest()
            if seat.reading.done:
                self._finish_reading(slot)
                piece = seat.builder.piece
                self._steps[slot], self._frames[slot], self._first_eos[slot] = 0, piece.frames, piece.first_eos
                self._ended[slot], self._active[slot] = False, 1
                self._settle()
        return seat.reading is None

    @torch.inference_mode()
    def move(self, slot: int, free: int) -> None:
        """Let the piece of a slot go on in a free one.

        Raises:
            ValueError: `free` is taken, or the piece of `slot` is still being read.
        """
        seat = self._seats[slot]
        if self._seats[free] is not None or seat is None or seat.reading is not None:
            raise ValueError(
                f"slot {slot} cannot move to slot {free}: it must hold a piece that was read, and {free} none"
            )
        self._seats[free] = seat
        old, new = (slice(each * self._width, (each + 1) * self._width) for each in (slot, free))
        self.cache.copy_rows(old, new, seat.held)
        self.logits[free] = self.logits[slot]
        self._history[free] = self._history[slot]
        for state in (self._steps, self._frames, self._first_eos, self._active, self._heard, self._ended):
            state[free] = state[slot]
        self._uniforms[:, free] = self._uniforms[:, slot]
        if self._said is not None:
            self._said[free] = self._said[slot]
        self._free(slot)

    @torch.inference_mode()
    def leave(self, slot: int) -> None:
        """Free a slot, whether or not its piece is finished."""
        self._free(slot)

    def _free(self, slot: int) -> None:
        self._seats[slot] = None
        self._ended[slot], self._active[slot] = True, 0
        self.cache.lengths[slot * self._width : (slot + 1) * self._width] = 0
        self._settle()

    @torch.inference_mode()
    def chunk(self, count: int) -> Tensor:
        """The next `count` codes [P, count] of each slot, `NO_CODE` where it is free or its piece has ended."""
        made: list[Tensor] = []
        while count > 0:
            span = self._undisturbed(count)
            made.append(self._draw(span) if span else self._advance()[:, None])
            count -= max(span, 1)
        return torch.cat(made, dim=1)

    def _going(self) -> list[tuple[int, _Seat]]:
        """The slots whose pieces want more codes."""
        return [(slot, seat) for slot, seat in self._read_ones() if not seat.done]

    def _read_ones(self) -> list[tuple[int, _Seat]]:
        """The slots whose pieces have been read."""
        return [(slot, seat) for slot, seat in enumerate(self._seats) if seat is not None and seat.reading is None]

    def _undisturbed(self, count: int) -> int:
        """How many of the next codes a compiled step can draw by itself, until the host has something to do; 0 if none."""
        compiled = self._decoder.compiled
        if self._drawing is None or compiled is None:
            return 0
        span, busy = min(count, compiled.longest_draw), False
        for _, seat in self._going():
            busy, context = True, seat.builder.context
            span = min(
                span,
                seat.builder.piece.frames - 1 - seat.step,
                *(n - seat.step % n for n in (UNIFORM_BLOCK, SAID_BLOCK)),
            )
            if context is not None:
                span = min(span, seat.first + context - seat.length)
        return span if busy else 0

    def _draw(self, count: int) -> Tensor:
        """The same as so many times `_advance`, where nothing disturbs."""
        assert self._drawing is not None
        assert self._decoder.compiled is not None
        self._renew_uniforms()
        self._renew_said(0)
        self._decoder.compiled.draw(self._drawing, self.logits[: self._top], self._rows, count)
        for slot, seat in self._going():
            if seat.hear(count):
                self._forget(slot)
        self._drawing.codes[self._top :] = NO_CODE
        return self._drawing.codes[:, :count].clone()

    def _settle(self) -> None:
        """After a change of who is there: the rows that run, and the pieces that are sampled alike."""
        self._top = max((slot for slot, _ in self._read_ones()), default=-1) + 1
        # Views are kept: graphs and compiled steps have buffers of their own in them.
        rows = self._top * self._width
        if rows not in self._views:
            self._views[rows] = self.cache.rows(0, rows)
        self._rows = self._views[rows]
        self._set_longest()
        self._counts = self._active[: self._top].repeat_interleave(self._width)
        alike: dict[GenerationOptions, list[int]] = {}
        for slot, seat in self._read_ones():
            asked = seat.options
            if self._drawing is not None:
                self._drawing.set(slot, asked.guidance, asked.temperature, asked.top_k, asked.top_p, asked.max_repeat)
            alike.setdefault(asked, []).append(slot)
        self._alike = [
            (options, None if len(slots) == self._top else torch.tensor(slots, device=self.logits.device))
            for options, slots in alike.items()
        ]

    def _set_longest(self) -> None:
        self._rows.longest = max((seat.held for seat in self._seats if seat), default=0)

    def _advance(self) -> Tensor:
        codes = self._choose()
        self._ended |= (codes == self.lm.config.eos) | (self._steps >= self._frames)
        codes = codes.masked_fill(self._ended, NO_CODE)
        heard = codes.clamp(min=0)  # an ended piece idles on code 0
        self._steps += 1
        forgetful, busy = self._count_step()
        self._history.scatter_(1, self._heard[:, None], heard[:, None])
        self._heard += self._active
        if busy:
            self._hear(heard[: self._top])
            for slot in forgetful:
                self._forget(slot)
        return codes

    def _count_step(self) -> tuple[list[int], bool]:
        """Which pieces must forget before they hear more, and whether any piece goes on."""
        forgetful, busy = [], False
        for slot, seat in self._going():
            if seat.step == seat.builder.piece.frames - 1:  # it needs no more logits, and its rows are full
                seat.step += 1
                self._active[slot] = 0
                self._counts = self._active[: self._top].repeat_interleave(self._width)
                continue
            busy = True
            if seat.hear(1):
                forgetful.append(slot)
        return forgetful, busy

    def _choose(self) -> Tensor:
        codes = torch.zeros(len(self._seats), dtype=torch.long, device=self.logits.device)
        self._renew_uniforms()
        place = (self._steps % UNIFORM_BLOCK)[:, None]
        uniforms = self._uniforms[0].gather(1, place)[:, 0]
        early = self._steps < self._first_eos
        for options, slots in self._alike:
            chosen = slice(0, self._top) if slots is None else slots
            logits = self.logits[chosen].float()
            mixed = logits[:, 0].clone()
            if options.guidance != 1.0:
                mixed = mix(mixed, logits[:, 1], options.guidance)
            mixed[:, self.lm.config.eos].masked_fill_(early[chosen], -torch.inf)
            drawn = sample(mixed, uniforms[chosen], options.temperature, options.top_k, options.top_p)
            if options.max_repeat is not None:
                redraws = self._uniforms[1].gather(1, place)[chosen, 0]
                drawn = redraw_repeats(drawn, mixed, self._recent()[chosen], redraws, options.max_repeat)
            codes[chosen] = drawn
        return codes

    def _renew_uniforms(self) -> None:
        for slot, seat in self._read_ones():
            if seat.step % UNIFORM_BLOCK == 0:
                seed, block = seat.builder.piece.seed, seat.step // UNIFORM_BLOCK
                self._uniforms[0, slot] = uniform_block(seed, block)
                if seat.options.max_repeat is not None:
                    self._uniforms[1, slot] = uniform_block(seed, block, "redraws")

    def _recent(self) -> Tensor:
        """The latest codes [P, N] that each slot has heard, `NO_CODE` where there were none."""
        places = self._heard[:, None] - torch.arange(RECENT_CODES, 0, -1, device=self._heard.device)
        return self._history.gather(1, places.clamp(min=0)).masked_fill(places < 0, NO_CODE)

    def _hear(self, codes: Tensor) -> None:
        """Let the model hear the newest codes [P] of the slots that run."""
        inputs = self.lm.audio_embedding(codes)[:, None]
        if self._width > 1:
            inputs = inputs.repeat(1, self._width, 1)
        if self._said is not None:
            inputs[:, 0] += self._next_said()
        logits = self._step(inputs.flatten(0, 1)[:, None], self._rows, self._counts)
        self.logits[: self._top] = logits.unflatten(0, (-1, self._width))

    def _next_said(self) -> Tensor:
        """What is said of the next codes, as additions [P, D] to the newest ones."""
        assert self._said is not None
        self._renew_said(1)
        place = (self._steps[: self._top] - 1) % SAID_BLOCK
        return self._said[: self._top].gather(1, place[:, None, None].expand(-1, 1, self._said.shape[2]))[:, 0]

    def _renew_said(self, ahead: int) -> None:
        """See that it is known what is said of the next codes, when so many of them have been counted already."""
        if self._said is None:
            return
        for slot, seat in self._going():
            if (seat.step - ahead) % SAID_BLOCK == 0:
                self._said[slot] = seat.builder.said(seat.length + 1 - ahead, SAID_BLOCK)

    def _forget(self, slot: int) -> None:
        """Drop the older half of what the model hears of a piece and read the rest again."""
        seat = self._seats[slot]
        assert seat is not None
        start = _window_start(seat.builder.context, seat.first, seat.length)
        kept = self._history[slot, start - seat.first : seat.length - seat.first].clone()
        seat.first = start
        seat.reading = self._reading(slot, kept)
        self._finish_reading(slot)
        self._set_longest()

    def _reading(self, slot: int, history: Tensor) -> Prefill:
        """The rows of a piece, to be read afresh behind this history."""
        seat = self._seats[slot]
        assert seat is not None
        self._history[slot, : len(history)] = history
        self._heard[slot] = len(history)
        cache = self.cache.rows(slot * self._width, (slot + 1) * self._width)
        cache.clear()
        return Prefill(self._decoder, seat.builder.rows(history, seat.first, self._width == 2), cache)

    def _finish_reading(self, slot: int) -> None:
        seat = self._seats[slot]
        assert seat is not None
        assert seat.reading is not None
        self.logits[slot] = seat.reading.logits()
        seat.held, seat.reading = seat.reading.held, None


def _window_start(context: int | None, first: int, length: int) -> int:
    """Where the history starts that is heard before code `length`, now that it has started at `first`."""
    while context is not None and length - first >= context:
        first += context // 2
    return first
