"""The flow in windows: what it is told of each row of a batch, and from which noise it starts there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longplay.engine.noise import FrameNoise
from longplay.engine.windows import Run, WindowPlan
from longplay.models.flow import Flow
from longplay.models.flow_config import FlowConfig
from longplay.nn.ode import Method


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


@dataclass(frozen=True)
class FlowSettings:
    """How latents are sampled, as of `Flow.sample`; rows that share them may share a batch."""

    num_steps: int | None = None
    guidance: float | None = None
    solver: Method | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class FlowRow:
    """What is one row's own.

    Attributes:
        seed: of its noise.
        chords: features [T, C] of the chords at so many codes from one on; None: the flow is told of none.
    """

    seed: int
    chords: Callable[[int, int], Tensor] | None = None


@torch.inference_mode()
def run_flow(
    flow: Flow, rows: Sequence[FlowRow], codes: Tensor, starts: Sequence[int], settings: FlowSettings
) -> Tensor:
    """Latents [B, D, T * ratio] of one window of each row; each sees the noise of its own seed and place.

    Args:
        flow: in evaluation mode.
        rows: all told of chords, or none.
        codes: [B, T].
        starts: position of the first code of each row.
        settings: of all rows.
    """
    ratio, reach, count = flow.config.ratio, flow.config.noise_reach, codes.shape[-1]
    white = [
        FrameNoise((row.seed,), flow.config.latent_dim)(start * ratio - reach, (start + count) * ratio + reach)
        for row, start in zip(rows, starts, strict=True)
    ]
    told = [row.chords(start, count) for row, start in zip(rows, starts, strict=True) if row.chords is not None]
    return flow.sample(
        codes,
        torch.cat(white).to(codes.device),
        num_steps=settings.num_steps,
        guidance=settings.guidance,
        solver=settings.solver,
        temperature=settings.temperature,
        chords=torch.stack(told).to(codes.device) if told else None,
    )


def flow_window(
    flow: Flow,
    seeds: Sequence[int],
    settings: FlowSettings = FlowSettings(),
    chords: Callable[[int, int], Tensor] | None = None,
) -> Run:
    """The flow as something to run in windows that begin together: codes [B, T] -> latents [B, D, T * ratio].

    Args:
        flow: in evaluation mode.
        seeds: of the noise, one per row.
        settings: of the sampling.
        chords: see `FlowRow`, for all rows.
    """
    rows = [FlowRow(seed, chords) for seed in seeds]
    return lambda codes, start: run_flow(flow, rows, codes, [start] * len(rows), settings)
