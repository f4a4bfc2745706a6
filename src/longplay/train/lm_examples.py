"""Windows of pieces as the language model takes them: text, segments, codes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from longplay.control import MIDDLE_BPM, Control
from longplay.data.token_tracks import TokenTrack
from longplay.data.token_windows import TokenWindow
from longplay.models.lm import LMBatch
from longplay.models.lm_config import LMConfig
from longplay.models.segments import Segment, window_segments

STRETCH_BEATS = (1, 2, 4, 8, 16)  # that stay together where beats are exchanged


@dataclass(frozen=True)
class Example:
    """One window for a model of config `lm`.

    Attributes:
        ids: of its text, none where the text is dropped.
        held: whether the model is told of bars, tempo, key and chords.
        styled: whether it is told of how the music sounds, as that was measured.
        heard: codes that the model hears in the place of the window's; None: the window's.
        order: which codes of the piece stand in the window, and which one would follow, [T + 1]; None: those from its start on.
    """

    window: TokenWindow
    ids: Sequence[int]
    lm: LMConfig
    held: bool = True
    styled: bool = True
    heard: npt.NDArray[np.integer[Any]] | None = None
    order: npt.NDArray[np.integer[Any]] | None = None

    @cached_property
    def segments(self) -> Sequence[Segment]:
        """What the piece's sections say of the window."""
        start = self.start
        end = start + self.frames / self.lm.code_rate
        return window_segments(self.window.track.sections, start, end, self.lm.unlabelled)

    @property
    def start(self) -> float:
        """Second of the song at which the window starts."""
        return self.window.track.offset + self.window.start / self.lm.code_rate

    @property
    def control(self) -> Tensor:
        """Features of its codes and the one after [T + 1, C]; zeros where the model is not told."""
        track = self.window.track
        known = track.control if self.held else Control()
        return torch.from_numpy(known.features_at(track.offset + self.places / self.lm.code_rate))

    @property
    def style(self) -> Tensor:
        """How it sounds [Y], on average; not a number where that is not known, or the model is not told."""
        known = self.window.track.style_of(self.places[:-1])
        if known is None or not self.styled:
            return torch.full((self.lm.style_dim,), torch.nan)
        return torch.from_numpy(known)

    @property
    def numbers(self) -> npt.NDArray[np.integer[Any]]:
        """Those of the piece's codes from the window's start on, and of the one after [T + 1]."""
        return self.window.start + np.arange(self.frames + 1)

    @property
    def places(self) -> npt.NDArray[np.integer[Any]]:
        """Those of the codes that stand in the window, and of the one that would follow [T + 1]."""
        return self.numbers if self.order is None else self.order

    @property
    def frames(self) -> int:
        """Codes."""
        return len(self.window.semantic)

    @property
    def before(self) -> int:
        """Positions before the codes: sos, three a segment, text, task."""
        return 2 + 3 * len(self.segments) + len(self.ids)

    @property
    def targets(self) -> int:
        """Codes to predict, and the end of the piece."""
        return self.frames + self.window.ends

    def cut(self, frames: int) -> "Example":
        """The first `frames` codes of it."""
        window = replace(self.window, semantic=self.window.semantic[:frames], ends=False)
        heard = None if self.heard is None else self.heard[:frames]
        return replace(self, window=window, heard=heard, order=None if self.order is None else self.order[: frames + 1])

    def rearranged(self, rng: np.random.Generator) -> "Example":
        """With its beats exchanged for those at the same place of other bars of the piece.

        What comes next then follows from what the model is told, above all the chord, more than from what it has heard.
        """
        track = self.window.track
        order = exchange_beats(self.numbers, track, self.lm.code_rate, rng)
        return replace(self, window=replace(self.window, semantic=track.semantic[order[:-1]], ends=False), order=order)

    def misheard(self, share: float, rng: np.random.Generator) -> "Example":
        """With a share of the codes heard, drawn up to `share`, exchanged for others of the window.

        So the model learns to go on from its own mistakes, and to heed what it is told more than what it heard.
        """
        codes = self.window.semantic
        wrong = rng.random(len(codes)) < rng.uniform(0, share)
        return replace(self, heard=np.where(wrong, rng.choice(codes, len(codes)), codes))


def exchange_beats(
    numbers: npt.NDArray[np.integer[Any]], track: TokenTrack, rate: float, rng: np.random.Generator
) -> npt.NDArray[np.integer[Any]]:
    """Numbers of neighbouring codes of a piece [N], exchanged, in stretches of beats, for those at the same place of some bar.

    A stretch that would reach beyond the piece stays. Where there is no pulse, half a second stands for a beat.
    """
    pulse = track.control if track.control.bars else Control.steady(MIDDLE_BPM)
    position = pulse.position(track.offset + numbers / rate)
    _, first, stretch = np.unique(
        np.floor(position * pulse.beats / rng.choice(STRETCH_BEATS)), return_index=True, return_inverse=True
    )
    drawn = pulse.position(track.offset + rng.integers(len(track.semantic), size=len(first)) / rate)
    bars = np.round(drawn - position[first])
    there = np.round((pulse.seconds_at(position + bars[stretch]) - track.offset) * rate).astype(int)
    inside = (np.minimum.reduceat(there, first) >= 0) & (np.maximum.reduceat(there, first) < len(track.semantic))
    return np.where(inside[stretch], there, numbers)


def collate(examples: Sequence[Example]) -> LMBatch:
    """A padded batch, one example a row; of the examples all mishear or none."""
    windows = [example.window for example in examples]
    segments = [example.segments for example in examples]
    controlled = examples[0].lm.control
    heard = [example.heard.tolist() for example in examples if example.heard is not None]
    return LMBatch(
        ids=_padded([example.ids for example in examples], 0, torch.long),
        id_lengths=torch.tensor([len(example.ids) for example in examples]),
        codes=_padded([window.semantic.tolist() for window in windows], 0, torch.long),
        code_lengths=torch.tensor([example.frames for example in examples]),
        starts=_padded([[segment.start for segment in row] for row in segments], -1, torch.float32),
        ends=_padded([[segment.end for segment in row] for row in segments], -1, torch.float32),
        labels=_padded([[segment.label for segment in row] for row in segments], 0, torch.long),
        complete=torch.tensor([window.ends for window in windows]),
        control=pad_sequence([example.control for example in examples], batch_first=True) if controlled else None,
        style=torch.stack([example.style for example in examples]) if examples[0].lm.style_dim else None,
        heard=_padded(heard, 0, torch.long) if heard else None,
    )


def tensors(batch: LMBatch) -> dict[str, Tensor]:
    """The fields of a batch that it has."""
    return {name: value for name, value in vars(batch).items() if value is not None}


def _padded(rows: Sequence[Sequence[float]], value: int, dtype: torch.dtype) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=dtype)
