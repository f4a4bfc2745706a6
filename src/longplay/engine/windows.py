"""Long sequences in overlapping windows, whole or as they come: the flow, the codec's and the tokenizer's decoders.

A window makes `step` new frames. It sees `context` more frames on either side, whose output is thrown away, and
makes `fade` frames beyond its end, over which its successor is faded in:

```
window 0   |------- step -------|fade|context|
window 1         |context|------- step -------|fade|context|
```

A decoder with a finite receptive field takes just that as context and needs no fade: the windows then equal one run
over the whole. Where sound should start early, the first windows are short and grow by half from one to the next: a
player that starts with the first then never waits for a source of 1.6 times real time.

Which windows there are depends on the number of frames alone, not on how they arrive, so that a streamed piece equals
an offline one exactly. Memory and time per window do not grow with the piece.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Run = Callable[[Tensor, int], Tensor]
"""Takes frames [..., T] and the absolute position of the first; gives [..., T * ratio]."""


@dataclass(frozen=True)
class WindowPlan:
    """How a sequence is cut. Every length but `ratio` counts frames that go in.

    Attributes:
        step: frames between the starts of two windows.
        context: frames on either side that a window sees besides its own.
        fade: frames over which two neighbours are cross-faded.
        ratio: frames or samples that come out per frame that goes in.
        first_step: step of the first window, from where steps grow to `step`; None: all are `step`.
        grid: all steps are multiples of it.
        lag: frames that the first window is shorter than `first_step`: what comes in the steps of one plan then goes out
            in the windows of the next, which needs `lag` frames more to see, without waiting for another step.
    """

    step: int
    context: int
    fade: int
    ratio: int
    first_step: int | None = None
    grid: int = 1
    lag: int = 0

    def __post_init__(self) -> None:
        first = self.step if self.first_step is None else self.first_step
        if min(self.step, self.ratio, first - self.lag, self.grid) < 1 or min(self.context, self.fade, self.lag) < 0:
            raise ValueError(f"{self}: steps, grid and ratio must be positive, context, fade and lag not negative")
        if self.fade > min(self.step, first - self.lag):
            raise ValueError(f"{self}: fade must not be longer than a step, or three windows would meet")
        if self.step % self.grid or first % self.grid:
            raise ValueError(f"{self}: step and first_step must be multiples of grid")

    def steps(self) -> Iterator[int]:
        """The step of each window, without end."""
        step = self.step if self.first_step is None else min(self.first_step, self.step)
        yield step - self.lag
        while True:
            step = min(self.step, step + max(1, step // (2 * self.grid)) * self.grid)
            yield step


class Window(NamedTuple):
    """Frames [..., T] to run over, and the absolute position of the first."""

    frames: Tensor
    first: int


class WindowStream:
    """Cuts frames into windows as they come, and joins what was made of them.

    Holds at most one window of frames that went in, beyond what one push brings, and one fade of what came out.
    """

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._frames: Tensor | None = None  # received, from position _offset
        self._offset = 0
        self._ended = False
        self._steps = plan.steps()
        self._start = 0  # where the next window's own frames begin
        self._stop = next(self._steps)  # and where they end
        self._tail: Tensor | None = None  # what the last window made beyond its end

    @property
    def begun(self) -> bool:
        """Whether a window has been run."""
        return self._start > 0

    @property
    def finished(self) -> bool:
        """Whether all frames have come and have been run."""
        return self._ended and self._start >= self._received

    @property
    def ready(self) -> bool:
        """Whether there is a window to run."""
        if self._ended:
            return self._start < self._received
        return self._received >= self._stop + self._plan.fade + self._plan.context

    @property
    def ended(self) -> bool:
        """Whether all frames have come."""
        return self._ended

    @property
    def size(self) -> int:
        """How many frames the window of now has."""
        return min(self._reach + self._plan.context, self._received) - max(0, self._start - self._plan.context)

    def push(self, frames: Tensor) -> None:
        """Take frames [..., T], T of any size."""
        self._frames = frames if self._frames is None else torch.cat((self._frames, frames), dim=-1)

    def end(self) -> None:
        """No more frames will come."""
        self._ended = True

    def window(self) -> Window:
        """The window to run now, if `ready`."""
        assert self._frames is not None
        first = max(0, self._start - self._plan.context)
        # A copy with a layout of its own: sums over a view may round differently, by how the frames arrived.
        frames = self._frames[..., first - self._offset : self._reach + self._plan.context - self._offset].clone(
            memory_format=torch.contiguous_format
        )
        return Window(frames, first)

    def take(self, made: Tensor) -> Tensor:
        """What is final, [..., n * ratio], now that [..., T * ratio] was made of the frames of `window`.

        Raises:
            ValueError: `made` has another length.
        """
        plan, reach = self._plan, self._reach
        first = max(0, self._start - plan.context)
        if made.shape[-1] != self.size * plan.ratio:
            raise ValueError(f"a window of {self.size} frames gave {made.shape[-1]}, not {plan.ratio} for each")
        made = made[..., (self._start - first) * plan.ratio : (reach - first) * plan.ratio]
        made = made if self._tail is None else _cross_fade(self._tail, made)
        if self._last:
            self._start, self._tail = self._received, None
            return made
        core = (self._stop - self._start) * plan.ratio
        self._tail = made[..., core:].clone()
        self._start = self._stop
        self._stop += next(self._steps)
        self._forget(self._start - plan.context)
        return made[..., :core].clone()  # no view, which would keep the whole window in memory

    def rest(self) -> Tensor | None:
        """What is left once the stream is `finished`, if anything."""
        return None

    @property
    def _received(self) -> int:
        return self._offset + (0 if self._frames is None else self._frames.shape[-1])

    @property
    def _last(self) -> bool:
        """Whether the window of now is the last one."""
        return self._ended and self._received <= self._stop + self._plan.fade

    @property
    def _reach(self) -> int:
        """Up to where the window of now makes frames."""
        return self._received if self._last else self._stop + self._plan.fade

    def _forget(self, position: int) -> None:
        assert self._frames is not None
        drop = max(0, position - self._offset)
        self._frames = self._frames[..., drop:].clone()
        self._offset += drop


def _cross_fade(old: Tensor, new: Tensor) -> Tensor:
    length = old.shape[-1]
    weight = (torch.arange(length, device=new.device, dtype=torch.float32) + 0.5) / max(length, 1)
    faded = torch.lerp(old.float(), new[..., :length].float(), weight).to(new.dtype)
    return torch.cat((faded, new[..., length:]), dim=-1)


def stream_windows(run: Run, pieces: Iterable[Tensor], plan: WindowPlan) -> Iterator[Tensor]:
    """Run over frames as they come; streams can feed one another."""
    return run_stream(run, pieces, WindowStream(plan))


def run_stream(run: Run, pieces: Iterable[Tensor], stream: WindowStream) -> Iterator[Tensor]:
    """`stream_windows` with a stream that is made already."""

    def made() -> Iterator[Tensor]:
        while stream.ready:
            with torch.inference_mode():
                out = run(*stream.window())
            yield stream.take(out)

    for piece in pieces:
        stream.push(piece)
        yield from made()
    stream.end()
    yield from made()
    if (rest := stream.rest()) is not None:
        yield rest


def run_windows(run: Run, frames: Tensor, plan: WindowPlan) -> Tensor:
    """Run over a whole sequence [..., T] -> [..., T * ratio].

    Raises:
        ValueError: there are no frames.
    """
    if frames.shape[-1] == 0:
        raise ValueError("no frames to run over")
    return torch.cat(list(stream_windows(run, [frames], plan)), dim=-1)


def stateless(run: Callable[[Tensor], Tensor]) -> Run:
    """A function that is the same everywhere, as something to run in windows."""
    return lambda frames, _: run(frames)
