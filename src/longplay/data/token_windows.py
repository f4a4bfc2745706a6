"""Windows of pieces as training batches of `lm` and `flow`; batch n is a function of (seed, n) alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from longplay.data.token_tracks import TokenTrack, figures_of
from longplay.errors import TrainingError


@dataclass(frozen=True)
class TokenWindow:
    """A stretch of a piece. `ends` is true where the window reaches the end of the piece."""

    track: TokenTrack
    start: int
    semantic: np.ndarray
    caption: str
    ends: bool


class TokenWindows:
    """Draws windows of `frames` tokenizer codes, so that every code comes as often as any other.

    Args:
        tracks: the pieces.
        frames: codes of a window.
        shorter: take pieces of fewer codes whole; else they are left out.
        others: further pieces, of which `share` of the windows are.
        share: 0 to 1.

    Raises:
        TrainingError: no piece is long enough.
    """

    def __init__(
        self,
        tracks: Sequence[TokenTrack],
        frames: int,
        shorter: bool = False,
        others: Sequence[TokenTrack] = (),
        share: float = 0.0,
    ) -> None:
        self.frames = frames
        self.tracks, self.others = tracks, others
        self._places, weights = self._weighted(tracks, 1 if shorter else frames)
        self._first_other = len(weights)
        if share:
            more, further = self._weighted(others, 1 if shorter else frames)
            self._places = np.concatenate((self._places, more))
            weights = np.concatenate((weights * (1 - share), further * share))
        self.weights = weights

    def _weighted(self, tracks: Sequence[TokenTrack], least: int) -> tuple[np.ndarray, np.ndarray]:
        """Places of the pieces that are long enough, and how often each is to come."""
        lengths = figures_of(tracks).lengths
        fitting = np.flatnonzero(lengths >= least)
        if not len(fitting):
            raise TrainingError(f"none of {len(tracks)} pieces has {least} codes; shorten the window")
        weights = lengths[fitting] / np.minimum(lengths[fitting], self.frames)  # a piece of one window is drawn whole
        return fitting, weights / weights.sum()

    def batch(self, seed: int, index: int, size: int) -> list[TokenWindow]:
        """Windows of batch `index`; a start, an end and any caption of the piece are as likely as their share of it."""
        rng = np.random.default_rng((seed, index))
        choices = rng.choice(len(self.weights), size, p=self.weights)
        return [self._window(self._track(int(choice)), rng) for choice in choices]

    def draw(self, seed: int, index: int) -> Iterator[TokenWindow]:
        """Windows of batch `index` without end, drawn as those of `batch` are."""
        rng = np.random.default_rng((seed, index))
        heap = self.weights.cumsum()
        while True:
            choice = min(int(np.searchsorted(heap, rng.random(), side="right")), len(heap) - 1)
            yield self._window(self._track(choice), rng)

    def _track(self, choice: int) -> TokenTrack:
        tracks = self.tracks if choice < self._first_other else self.others
        return tracks[int(self._places[choice])]

    def _window(self, track: TokenTrack, rng: np.random.Generator) -> TokenWindow:
        length = len(track.semantic)
        frames = min(self.frames, length)
        # drawn from a range half a window wider on both sides, so that beginnings and endings are not rare
        start = int(np.clip(rng.integers(-frames // 2, length - frames // 2), 0, length - frames))
        return TokenWindow(
            track=track,
            start=start,
            semantic=track.semantic[start : start + frames],
            caption=str(rng.choice(track.captions_at(start + frames // 2))),
            ends=start + frames == length,
        )
