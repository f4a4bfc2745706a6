"""What one piece of a batch asks of `lm`, and the input rows that say so: conditional and unconditional."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from longplay.control import Control
from longplay.models.lm import LM
from longplay.models.segments import REFERENCE_CLI_IDS, TRAINING_IDS, Segment, window_segments
from longplay.prompt import Section

Compatibility = Literal["none", "reference"]
MIN_SHARE = 0.9
REFERENCE_PROMPT_SECONDS = 5.0


def _no_codes() -> Tensor:
    return torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True, eq=False)
class Piece:
    """One piece to generate.

    Attributes:
        ids: of the text; empty for none.
        frames: how many codes to make at most.
        seed: of its random numbers.
        sections: in seconds from the start of the piece.
        prompt: codes [T] to go on from.
        offset: seconds from the start of the piece to the first code of `prompt`, or else to the first new one.
        history: codes that the model hears at most; None: as many as it was trained on.
        min_frames: codes before which eos is forbidden; None is the published rule, nine tenths of `frames`.
        control: bars, tempo and key that it is held to, for models that take them.
    """

    ids: tuple[int, ...]
    frames: int
    seed: int
    sections: tuple[Section, ...] = ()
    prompt: Tensor = field(default_factory=_no_codes)
    offset: float = 0.0
    min_frames: int | None = None
    history: int | None = None
    control: Control | None = None

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"frames {self.frames}: a piece needs at least one")
        if self.history is not None and self.history < 2:
            raise ValueError(f"history {self.history}: a piece needs two codes or more to go on from")

    @property
    def first_eos(self) -> int:
        """Number of the first code in whose place eos may come."""
        return int(MIN_SHARE * self.frames) if self.min_frames is None else self.min_frames


@dataclass(frozen=True, eq=False)
class RowBuilder:
    """Input rows of one piece at any point of it.

    The conditional row holds everything. The unconditional one is what training makes by dropping the text; with
    `compatibility` "reference" it is what the published inference code makes instead (CHECKPOINTS.md 3.3): random
    vectors for times and label, id 0 for every text and prompt position.
    """

    lm: LM
    piece: Piece
    compatibility: Compatibility

    @property
    def prompt(self) -> Tensor:
        """Prompt codes that count; the published code hears their first five seconds."""
        if self.compatibility == "reference":
            return self.piece.prompt[: int(REFERENCE_PROMPT_SECONDS * self.lm.config.code_rate)]
        return self.piece.prompt

    @property
    def context(self) -> int | None:
        """How many codes the model hears at most; None: all."""
        known = [limit for limit in (self.lm.config.context_frames, self.piece.history) if limit is not None]
        return min(known, default=None)

    def segments(self, first: int) -> tuple[Segment, ...]:
        """What the model is told about the piece when its history starts at code `first`.

        A model trained on windows hears of the window that starts there, any other one of the whole piece.
        """
        config, piece = self.lm.config, self.piece
        label_ids = REFERENCE_CLI_IDS if self.compatibility == "reference" else TRAINING_IDS
        if config.context_frames is None and piece.sections:
            return tuple(Segment(s.start, s.end, label_ids[s.label]) for s in piece.sections)
        start = piece.offset + first / config.code_rate
        frames = config.context_frames or len(self.prompt) + piece.frames
        return window_segments(piece.sections, start, start + frames / config.code_rate, config.unlabelled, label_ids)

    def max_positions(self, frames: int) -> int:
        """The longest that a row becomes while `frames` codes are made: sos, segments, text, task, codes."""
        codes = len(self.prompt) + frames
        context = self.context
        return (
            2 + 3 * max(1, len(self.piece.sections)) + len(self.piece.ids) + (min(codes, context) if context else codes)
        )

    def said(self, first: int, count: int) -> Tensor:
        """What the conditional row adds to the vectors before the codes of prompt and piece from `first` on, [count or 1, D]."""
        ids = torch.tensor(self.piece.ids, dtype=torch.long, device=self.lm.audio_head.bias.device)
        return self.lm.said(ids, self._control(first, count))

    def _control(self, first: int, count: int) -> Tensor | None:
        """Features [count, C]; None where the piece is held to nothing."""
        if self.piece.control is None:
            return None
        rate = self.lm.config.code_rate
        made = self.piece.control.features(self.piece.offset + first / rate, count, rate)
        return torch.from_numpy(made).to(self.lm.audio_head.bias)

    def rows(self, history: Tensor, first: int, guided: bool) -> list[Tensor]:
        """Inputs [N, D] of the conditional row and, if `guided`, the unconditional one.

        Args:
            history: codes [T] of prompt and piece so far, from code `first` on.
            first: where `history` starts.
            guided: whether the unconditional row is needed.
        """
        lm, device = self.lm, history.device
        starts, ends, labels = zip(*self.segments(first), strict=True)
        structure = lm.structure(
            torch.tensor(starts, dtype=torch.float64),
            torch.tensor(ends, dtype=torch.float64),
            torch.tensor(labels, device=device),
        )
        ids = torch.tensor(self.piece.ids, dtype=torch.long, device=device)
        rows = [lm.assemble(structure, ids, history, self._control(first, len(history) + 1))]
        if guided and self.compatibility == "reference":
            heard = history.clone()
            heard[: max(0, len(self.prompt) - first)] = 0
            noise = reference_structure(self.piece.seed, len(labels), lm.config.dim).to(structure)
            rows.append(lm.assemble(noise, torch.zeros_like(ids), heard))
        elif guided:
            rows.append(lm.assemble(structure, ids[:0], history))
        return rows


def reference_structure(seed: int, segments: int, dim: int) -> Tensor:
    """The published random stand-ins [3 * segments, dim] for times (rounded to float16) and labels, but seeded."""
    digest = hashlib.blake2b(f"structure:{seed}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    vectors = torch.rand(3 * segments, dim, generator=generator)
    vectors[: 2 * segments] = vectors[: 2 * segments].half().float()
    return vectors
