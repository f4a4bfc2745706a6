"""Windows of many pieces: each is what it is alone, those of one shape share a batch, none waits for long."""

from collections.abc import Sequence

import torch
from torch import Tensor

from longplay.engine.window_batch import Part, WindowBatch
from longplay.engine.windows import Window, WindowPlan, WindowStream, run_windows

PLAN = WindowPlan(step=10, context=2, fade=1, ratio=2, first_step=4)


def run_one(frames: Tensor, first: int) -> Tensor:
    return (frames + frames.mean() + first).repeat_interleave(2, dim=-1)


class Recorded:
    """A batch whose runs are counted."""

    def __init__(self, at_once: int, patience: int) -> None:
        self.sizes: list[int] = []
        self.batch = WindowBatch[str](self.run, at_once, patience)
        self.made: dict[str, list[Tensor]] = {}
        self.ended: list[str] = []

    def run(self, pieces: Sequence[str], windows: Sequence[Window]) -> Tensor:
        self.sizes.append(len(pieces))
        return torch.cat([run_one(window.frames, window.first) for window in windows])

    def push(self, **parts: Tensor | None) -> None:
        for name, frames in parts.items():
            if name not in self.batch:
                self.batch.begin(name, WindowStream(PLAN))
            self.batch.take(Part(name, frames, ended=frames is None))
        for done in self.batch.run_ready():
            for part in done:
                if part.frames is not None:
                    self.made.setdefault(part.piece, []).append(part.frames)
                if part.ended:
                    self.ended.append(part.piece)


def frames(length: int, seed: int) -> Tensor:
    return torch.randn(1, 3, length, generator=torch.Generator().manual_seed(seed))


def test_each_piece_is_what_it_is_alone() -> None:
    pieces = {"a": frames(61, 1), "b": frames(34, 2), "c": frames(47, 3)}
    for at_once, patience in ((1, 0), (2, 0), (8, 3)):
        recorded = Recorded(at_once, patience)
        left = {name: list(wav.split(5, dim=-1)) for name, wav in pieces.items()}
        for number in range(40):
            now = {}
            for place, (name, chunks) in enumerate(left.items()):
                if number >= 3 * place and name not in recorded.ended:
                    now[name] = chunks.pop(0) if chunks else None
            recorded.push(**{name: part for name, part in now.items() if part is not None or name in recorded.batch})
        assert sorted(recorded.ended) == ["a", "b", "c"]
        for name, whole in pieces.items():
            assert torch.equal(torch.cat(recorded.made[name], dim=-1), run_windows(run_one, whole, PLAN)), name


def test_those_that_are_ready_share_a_batch() -> None:
    recorded = Recorded(at_once=3, patience=9)
    for _ in range(3):
        recorded.push(**{name: frames(10, 0) for name in "abcdef"})
    assert recorded.sizes == [3, 3] * 3


def test_a_window_waits_for_others_but_not_for_ever_and_the_first_one_not_at_all() -> None:
    recorded = Recorded(at_once=8, patience=2)
    recorded.push(a=frames(7, 0), b=frames(1, 0))
    assert recorded.sizes == [1], "the first window"
    recorded.push(a=frames(6, 0))  # its second is ready
    recorded.push()
    assert recorded.sizes == [1], "b may come"
    recorded.push()
    assert recorded.sizes == [1, 1], "it has not"


def test_nothing_waits_for_pieces_that_have_ended() -> None:
    recorded = Recorded(at_once=8, patience=100)
    recorded.push(a=frames(30, 0), b=frames(3, 0))
    recorded.push(b=None)
    recorded.push(a=None)
    assert recorded.ended == ["b", "a"]
    assert sum(part.shape[-1] for part in recorded.made["a"]) == 60


def test_a_piece_without_frames_ends_and_one_that_is_dropped_is_forgotten() -> None:
    recorded = Recorded(at_once=1, patience=0)
    recorded.push(a=None, b=frames(30, 0))
    recorded.batch.drop("b")
    recorded.batch.drop("never there")
    recorded.push()
    assert recorded.ended == ["a"]
    assert "a" not in recorded.made
    assert "b" not in recorded.batch
