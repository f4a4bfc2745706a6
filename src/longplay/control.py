"""What `lm` may be told of every code besides the words: where in the bar it falls, the tempo, the key and the chord.

Words come before the music and only once; a small model hardly heeds them (docs/experiments.md, 2026-11-23). These
numbers are added to the vector from which each code is predicted, so that the model always knows when the next beat
falls and which pitches sound, and positions in the bar can be compared by attention. Published models have no such input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from longplay.chords import Chord
from longplay.keys import Key

BEAT_HARMONICS = 8  # a code of 13 ms can be told from the next one at any tempo
BAR_HARMONICS = 3
MIDDLE_BPM = 120.0
MOST_NAMED = 16  # chords, where a piece is put in words
SECONDS_WITHOUT_PULSE = 2.0  # of what stands for a bar
_PULSE_WIDTH = 2 * BEAT_HARMONICS + 2 * BAR_HARMONICS + 3  # there is one, tempo, bars of three
_KEY_WIDTH = 24
CHORD_WIDTH = 24  # pitch classes that sound, and which of them is the root; last, for models that take none
CONTROL_WIDTH = _PULSE_WIDTH + _KEY_WIDTH + CHORD_WIDTH

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Control:
    """What one piece is held to.

    Attributes:
        bars: times of bar lines in seconds from the start of the piece, two or more, rising; beyond them bars go on
            as long as the outermost are. Empty: no pulse is asked for.
        beats: in a bar.
        key: none is asked for if None.
        chords: seconds at which each begins, rising, and the chord, None for none; the last one stays.
    """

    bars: tuple[float, ...] = ()
    beats: int = 4
    key: Key | None = None
    chords: tuple[tuple[float, Chord | None], ...] = ()

    def __post_init__(self) -> None:
        if len(self.bars) == 1 or not (np.diff(self.bars) > 0).all():
            raise ValueError(f"bar lines {self.bars[:4]}: expected none, or two or more that rise")
        if self.beats < 1:
            raise ValueError(f"beats {self.beats}: a bar has at least one")

    @classmethod
    def steady(cls, bpm: float | None, key: Key | None = None, start: float = 0.0, beats: int = 4) -> "Control":
        """An even pulse whose bars start at `start` seconds; none with `bpm` None."""
        return cls(() if bpm is None else (start, start + beats * 60 / bpm), beats, key)

    @classmethod
    def tracked(
        cls,
        bars: Sequence[float],
        bpm: float | None,
        key: str | None,
        chords: Sequence[tuple[float, Chord | None]] = (),
    ) -> "Control":
        """What was found in a recording: its bar lines, the tempo that tells how many beats are in a bar, the name of its key, its chords."""
        named = Key.parse(key) if key else None
        if not bpm or len(bars) < 2:
            return cls(key=named, chords=tuple(chords))
        mean = (bars[-1] - bars[0]) / (len(bars) - 1)
        return cls(tuple(bars), max(1, round(mean * bpm / 60)), named, tuple(chords))

    @property
    def bpm(self) -> float | None:
        """The mean tempo."""
        if not self.bars:
            return None
        return 60 * self.beats * (len(self.bars) - 1) / (self.bars[-1] - self.bars[0])

    def __str__(self) -> str:
        """In words, such as "120 bpm, A minor, Am F C G": the chords until they come again."""
        chords = ["-" if chord is None else str(chord) for _, chord in self.chords[:MOST_NAMED]]
        turn = next((n for n in range(1, len(chords)) if chords[n:] == chords[:-n]), len(chords))
        facts = [f"{self.bpm:.0f} bpm" if self.bpm else "", str(self.key or ""), " ".join(chords[:turn])]
        return ", ".join(filter(None, facts))

    def position(self, seconds: Array) -> Array:
        """Where in the music each time is, in bars from the first bar line."""
        lines = np.asarray(self.bars)
        bar = np.clip(np.searchsorted(lines, seconds, side="right") - 1, 0, len(lines) - 2)
        return bar + (seconds - lines[bar]) / (lines[bar + 1] - lines[bar])

    def seconds_at(self, position: Array) -> Array:
        """When the music is at each place: the inverse of `position`."""
        lines = np.asarray(self.bars)
        bar = np.clip(np.floor(position).astype(int), 0, len(lines) - 2)
        return lines[bar] + (position - bar) * (lines[bar + 1] - lines[bar])

    def features(self, start: float, count: int, rate: float) -> npt.NDArray[np.float32]:
        """The numbers for `count` codes at `rate` a second, the first at `start` seconds: [count, CONTROL_WIDTH]."""
        return self.features_at(start + np.arange(count) / rate)

    def features_at(self, seconds: Array) -> npt.NDArray[np.float32]:
        """The numbers for a code at each of `seconds` [N]: [N, CONTROL_WIDTH]."""
        made = np.zeros((len(seconds), CONTROL_WIDTH), np.float32)
        if self.bars:
            bars = self.position(seconds)
            beat = np.outer(bars * self.beats, np.arange(1, BEAT_HARMONICS + 1))
            bar = np.outer(bars, np.arange(1, BAR_HARMONICS + 1))
            angles = 2 * np.pi * np.concatenate([beat, bar], axis=1)
            width = angles.shape[1]
            made[:, :width], made[:, width : 2 * width] = np.cos(angles), np.sin(angles)
            bpm = self.bpm
            assert bpm is not None
            made[:, 2 * width] = 1
            made[:, 2 * width + 1] = np.log2(bpm / MIDDLE_BPM)
            made[:, 2 * width + 2] = self.beats % 3 == 0
        if self.key is not None:
            made[:, _PULSE_WIDTH + self.key.tonic + 12 * (self.key.mode == "minor")] = 1
        made[:, -CHORD_WIDTH:] = self._chords_at(seconds)
        return made

    def chord_features(self, start: float, count: int, rate: float) -> npt.NDArray[np.float32]:
        """The last of the numbers of `features`: those of the chord, [count, CHORD_WIDTH]."""
        return self._chords_at(start + np.arange(count) / rate)

    def _chords_at(self, seconds: Array) -> npt.NDArray[np.float32]:
        starts, rows = self._harmony
        return rows[np.searchsorted(starts, seconds, side="right")]

    @cached_property
    def _harmony(self) -> tuple[Array, npt.NDArray[np.float32]]:
        """Where chords start [N], and the features before the first and of each, [N + 1, CHORD_WIDTH]."""
        rows = [_chord_features(chord) for chord in (None, *(chord for _, chord in self.chords))]
        return np.array([start for start, _ in self.chords]), np.stack(rows)

    def bar_starts(self, until: float) -> list[float]:
        """Where bars start from the first bar line to `until` seconds; bars of two seconds where there is no pulse."""
        lines = list(self.bars) or [0.0, SECONDS_WITHOUT_PULSE]
        while lines[-1] < until:
            lines.append(lines[-1] + (lines[-1] - lines[-2]))
        return [line for line in lines if line < until]


def _chord_features(chord: Chord | None) -> npt.NDArray[np.float32]:
    made = np.zeros(CHORD_WIDTH, np.float32)
    if chord is not None:
        made[list(chord.pitches)] = 1
        made[12 + chord.root] = 1
    return made
