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

import torch
from torch import Tensor

from longplay.engine.noise import FrameNoise
from longplay.models.flow import Flow
from longplay.models.flow_config import FlowConfig
from longplay.nn.ode import Method

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


class WindowStream:
    """Runs windows as soon as their frames are there.

    Holds at most one window of frames that went in and one fade of what came out.
    """

    def __init__(self, run: Run, plan: WindowPlan) -> None:
        self._run = run
        self._plan = plan
        self._frames: Tensor | None = None  # received, from position _offset
        self._offset = 0
        self._steps = plan.steps()
        self._start = 0  # where the next window's own frames begin
        self._stop = next(self._steps)  # and where they end
        self._tail: Tensor | None = None  # what the last window made beyond its end

    def push(self, frames: Tensor) -> list[Tensor]:
        """Take frames [..., T], T of any size; give what is final now, in order, [..., n * ratio] each."""
        self._frames = frames if self._frames is None else torch.cat((self._frames, frames), dim=-1)
        done = []
        while self._received >= self._stop + self._plan.fade + self._plan.context:
            done.append(self._next())
        return done

    def finish(self) -> list[Tensor]:
        """Give the rest: no more frames will come."""
        done = []
        while self._start < self._received:
            more = self._received > self._stop + self._plan.fade
            done.append(self._next() if more else self._last())
        return done

    @property
    def _received(self) -> int:
        return self._offset + (0 if self._frames is None else self._frames.shape[-1])

    def _next(self) -> Tensor:
        out = self._window(self._stop + self._plan.fade)
        core = (self._stop - self._start) * self._plan.ratio
        self._tail = out[..., core:].clone()
        self._start = self._stop
        self._stop += next(self._steps)
        self._forget(self._start - self._plan.context)
        return out[..., :core].clone()  # no view, which would keep the whole window in memory

    def _last(self) -> Tensor:
        out = self._window(self._received)
        self._start = self._received
        self._tail = None
        return out

    def _window(self, reach: int) -> Tensor:
        assert self._frames is not None
        plan = self._plan
        first = max(0, self._start - plan.context)
        # A copy with a layout of its own: sums over a view may round differently, by how the frames arrived.
        frames = self._frames[..., first - self._offset : reach + plan.context - self._offset].clone(
            memory_format=torch.contiguous_format
        )
        with torch.inference_mode():
            out = self._run(frames, first)
        if out.shape[-1] != frames.shape[-1] * plan.ratio:
            raise ValueError(f"a window of {frames.shape[-1]} frames gave {out.shape[-1]}, not {plan.ratio} for each")
        out = out[..., (self._start - first) * plan.ratio : (reach - first) * plan.ratio]
        return out if self._tail is None else _cross_fade(self._tail, out)

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
    stream = WindowStream(run, plan)
    for piece in pieces:
        yield from stream.push(piece)
    yield from stream.finish()


def run_windows(run: Run, frames: Tensor, plan: WindowPlan) -> Tensor:
    """Run over a whole sequence [..., T] -> [..., T * ratio].

    Raises:
        ValueError: there are no frames.
    """
    if frames.shape[-1] == 0:
        raise ValueError("no frames to run over")
    return torch.cat(list(stream_windows(run, [frames], plan)), dim=-1)


def flow_plan(
    config: FlowConfig,
    seconds: float = 5.0,
    context_seconds: float = 0.5,
    fade_seconds: float = 0.25,
    first_seconds: float | None = None,
) -> WindowPlan:
    """Windows for the flow, whose attention and norms see all there is: context and a fade keep the joints smooth.

    Args:
        config: of the flow.
        seconds: step between windows.
        context_seconds: seen on either side.
        fade_seconds: cross-faded.
        first_seconds: step of the first window, see `WindowPlan`; `seconds` if None.
    """
    grid = 2 ** (len(config.estimator.channels) - 1)  # all windows halve their rate at the same frames

    def frames(duration: float) -> int:
        return -(-round(duration * config.code_rate) // grid) * grid

    first_step = frames(seconds if first_seconds is None else first_seconds)
    return WindowPlan(frames(seconds), frames(context_seconds), frames(fade_seconds), config.ratio, first_step, grid)


def flow_window(
    flow: Flow,
    seeds: tuple[int, ...],
    *,
    num_steps: int | None = None,
    guidance: float | None = None,
    solver: Method | None = None,
    temperature: float | None = None,
    chords: Callable[[int, int], Tensor] | None = None,
) -> Run:
    """The flow as something to run in windows: codes [B, T] -> latents [B, D, T * ratio].

    Args:
        flow: in evaluation mode.
        seeds: of the noise, one per row.
        num_steps: as of `Flow.sample`.
        guidance: as of `Flow.sample`.
        solver: as of `Flow.sample`.
        temperature: as of `Flow.sample`.
        chords: features [T, C] of the chords at so many codes from one on, for all rows; None: the flow is told of none.
    """
    noise = FrameNoise(seeds, flow.config.latent_dim)
    ratio, reach = flow.config.ratio, flow.config.noise_reach

    def run(codes: Tensor, start: int) -> Tensor:
        white = noise(start * ratio - reach, (start + codes.shape[-1]) * ratio + reach, codes.device)
        told = None if chords is None else chords(start, codes.shape[-1]).to(codes.device).expand(len(codes), -1, -1)
        return flow.sample(
            codes, white, num_steps=num_steps, guidance=guidance, solver=solver, temperature=temperature, chords=told
        )

    return run


def stateless(run: Callable[[Tensor], Tensor]) -> Run:
    """A function that is the same everywhere, as something to run in windows."""
    return lambda frames, _: run(frames)
