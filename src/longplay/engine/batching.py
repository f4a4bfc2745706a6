"""Continuous batching: pieces of different lengths join and leave one running batch.

`Scheduler` only decides who runs; it knows no model. `Runner` does what it says with a `Batch`. A piece is the unit,
its conditional and unconditional rows together, and its memory for all of its length is reserved when it is admitted:
what runs is never put off, and never goes on with half of its pair.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from longplay.engine.batch import CHUNK_FRAMES, NO_CODE, Batch
from longplay.engine.piece import Piece, RowBuilder
from longplay.engine.prefill import PREFILL_POSITIONS
from longplay.models.lm import LM
from longplay.prompt import GenerationOptions


@dataclass(frozen=True)
class Admission:
    """A piece that may start, and the slot that is its own until it is freed."""

    key: str
    slot: int


class Scheduler:
    """Who runs in which slot.

    Owners are served in turn: a free slot goes to the waiting owner with the fewest running pieces, among those to
    the one whose last piece was admitted longest ago; the pieces of one owner run in the order they came.
    """

    def __init__(self, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"slots {slots}: at least one is needed")
        self._free = set(range(slots))
        self._waiting: dict[str, deque[str]] = {}
        self._owners: dict[str, str] = {}
        self._running: dict[str, int] = {}
        self._last_admitted: dict[str, int] = {}
        self._admissions = 0

    @property
    def running(self) -> dict[str, int]:
        """Slots by key."""
        return dict(self._running)

    @property
    def waiting(self) -> int:
        """How many pieces wait."""
        return sum(map(len, self._waiting.values()))

    def submit(self, key: str, owner: str = "") -> None:
        """Queue a piece.

        Raises:
            ValueError: one of that key waits or runs already.
        """
        if key in self._owners:
            raise ValueError(f"piece {key!r} is here already")
        self._owners[key] = owner
        self._waiting.setdefault(owner, deque()).append(key)

    def admit(self) -> list[Admission]:
        """Give out the free slots, lowest first."""
        admitted = []
        while self._free and self._waiting:
            owner = min(self._waiting, key=self._claim)
            key = self._waiting[owner].popleft()
            if not self._waiting[owner]:
                del self._waiting[owner]
            slot = min(self._free)
            self._free.remove(slot)
            self._running[key] = slot
            self._admissions += 1
            self._last_admitted[owner] = self._admissions
            admitted.append(Admission(key, slot))
        return admitted

    def close_gap(self) -> tuple[int, int] | None:
        """Let the piece of the highest slot have a lower one that is free.

        Returns:
            the slot that it leaves and the one that it has now; None where no slot below it is free.
        """
        key = max(self._running, key=self._running.__getitem__, default=None)
        if key is None or not self._free or min(self._free) > self._running[key]:
            return None
        old, new = self._running[key], min(self._free)
        self._free.remove(new)
        self._free.add(old)
        self._running[key] = new
        return old, new

    def remove(self, key: str) -> int | None:
        """Forget a piece that is finished or cancelled.

        Returns:
            the slot that it leaves; None where it was still waiting, or is not known.
        """
        owner = self._owners.pop(key, None)
        if owner is None:
            return None
        slot = self._running.pop(key, None)
        if slot is not None:
            self._free.add(slot)
        else:
            self._waiting[owner].remove(key)
            if not self._waiting[owner]:
                del self._waiting[owner]
        if owner not in self._owners.values():
            self._last_admitted.pop(owner, None)
        return slot

    def _claim(self, owner: str) -> tuple[int, int]:
        running = sum(self._owners[key] == owner for key in self._running)
        return running, self._last_admitted.get(owner, 0)


@dataclass(frozen=True, eq=False)
class Made:
    """What a piece gained in one round.

    Attributes:
        key: of the piece.
        codes: [n] on the CPU; may be empty when it ends.
        finished: whether these were the last.
    """

    key: str
    codes: Tensor
    finished: bool


class Runner:
    """A batch of `lm` that pieces join and leave; each sounds as it would alone (in float32, up to rounding)."""

    def __init__(
        self,
        lm: LM,
        slots: int,
        positions: int,
        guided: bool = True,
        cache_dtype: torch.dtype | None = None,
        chunk_frames: int = CHUNK_FRAMES,
        prefill_positions: int = PREFILL_POSITIONS,
    ) -> None:
        """Reserve all memory.

        Args:
            lm: prepared, or in evaluation mode.
            slots: pieces at once.
            positions: that a row can hold.
            guided: whether slots have an unconditional row; without one, guidance must be 1.
            cache_dtype: of keys and values.
            chunk_frames: codes of a round; pieces join and leave between rounds.
            prefill_positions: of the prompt of each piece that joins, read in a round: a long one does not hold up the rest.
        """
        self._lm, self._guided = lm, guided
        self._chunk_frames, self._prefill_positions = chunk_frames, prefill_positions
        self._batch = Batch(lm, slots, positions, guided, cache_dtype)
        self._scheduler = Scheduler(slots)
        self._asked: dict[str, tuple[Piece, GenerationOptions]] = {}
        self._made: dict[str, int] = {}
        self._joining: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self._asked

    def submit(self, key: str, piece: Piece, options: GenerationOptions, owner: str = "") -> None:
        """Queue a piece.

        Args:
            key: names it.
            piece: what to make.
            options: of its sampling.
            owner: whom to be fair to.

        Raises:
            ValueError: the key is taken, the piece is too long for a row, or it needs guidance and there is none.
        """
        if not self.holds(piece, options):
            raise ValueError(f"piece {key!r}: is too long for rows of {self._batch.cache.capacity} positions")
        if options.guidance != 1.0 and not self._guided:
            raise ValueError(f"piece {key!r}: guidance {options.guidance:g} needs a guided batch")
        self._scheduler.submit(key, owner)
        self._asked[key] = piece, options

    def holds(self, piece: Piece, options: GenerationOptions) -> bool:
        """Whether a row is long enough for a piece."""
        needed = RowBuilder(self._lm, piece, options.compatibility).max_positions(piece.frames)
        return needed <= self._batch.cache.capacity

    def cancel(self, key: str) -> None:
        """Stop a piece between rounds; one that is not known is no error, since it may just have ended."""
        slot = self._scheduler.remove(key)
        if slot is not None:
            self._batch.leave(slot)
        self._asked.pop(key, None)
        self._made.pop(key, None)
        self._joining.discard(key)

    def round(self) -> list[Made]:
        """Let waiting pieces join, make a chunk of each running piece, and let finished ones leave."""
        for admission in self._scheduler.admit():
            self._batch.begin(admission.slot, *self._asked[admission.key])
            self._made[admission.key] = 0
            self._joining.add(admission.key)
        for key in sorted(self._joining):
            if self._batch.read(self._scheduler.running[key], self._prefill_positions):
                self._joining.remove(key)
        self._close_gaps()
        running = {key: slot for key, slot in self._scheduler.running.items() if key not in self._joining}
        if not running:
            return []
        codes = self._batch.chunk(self._chunk_frames).cpu()
        made = []
        for key, slot in running.items():
            own = codes[slot][codes[slot] != NO_CODE]
            self._made[key] += len(own)
            ended = len(own) < self._chunk_frames or self._made[key] == self._asked[key][0].frames
            made.append(Made(key, own, ended))
            if ended:
                self.cancel(key)
        return made

    def _close_gaps(self) -> None:
        """Rows up to the highest are computed: none of them is to be empty. What is being read stays where it is."""
        while not self._joining and (change := self._scheduler.close_gap()):
            self._batch.move(*change)

    def run(self) -> Iterator[Made]:
        """Rounds until nothing is left; pieces may be submitted and cancelled meanwhile."""
        while not self.idle:
            yield from self.round()
