"""Ordinary differential equations dx/dt = velocity(x, t), solved on a given grid of times.

Knows no network: `velocity` is any callable. One evaluation per step with `euler` and `ab2`, two with `midpoint` and
`heun`. `euler` is of first order (the error halves when the steps double), the others of second (it falls to a quarter).
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
Clock = Callable[[Tensor], Tensor]
Method = Literal["euler", "midpoint", "heun", "ab2"]


def cosine_time(u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The published time warp t = 1 - cos(pi/2 u): small steps near the noise, large ones near the data."""
    return 1 - torch.cos(u * (0.5 * math.pi))


def cosine_grid(num_steps: int, device: torch.device | None = None) -> Float[Tensor, " N"]:
    """The `num_steps + 1` times from 0 to 1 of the published solver."""
    return cosine_time(torch.linspace(0, 1, num_steps + 1, device=device))


def grid(method: Method, num_steps: int, device: torch.device | None = None) -> Float[Tensor, " N"]:
    """The times that suit a method, by measurement (docs/performance.md): the published ones for `euler`, even ones for others.

    The first step of `ab2` is Euler's, so it is made shorter: t = u^1.25.
    """
    if method == "euler":
        return cosine_grid(num_steps, device)
    return torch.linspace(0, 1, num_steps + 1, device=device) ** (1.25 if method == "ab2" else 1)


def euler(
    velocity: Velocity, x: Float[Tensor, "*shape"], times: Float[Tensor, " N"], clock: Clock
) -> Float[Tensor, "*shape"]:
    """Along the velocity at the start of each step. Exact where the path is straight."""
    for t, t_next in pairwise(times):
        x = x + (clock(t_next) - clock(t)) * velocity(x, t)
    return x


def midpoint(
    velocity: Velocity, x: Float[Tensor, "*shape"], times: Float[Tensor, " N"], clock: Clock
) -> Float[Tensor, "*shape"]:
    """Along the velocity in the middle of each step, which half an Euler step finds."""
    for t, t_next in pairwise(times):
        middle = t + (t_next - t) / 2
        x_half = x + (clock(middle) - clock(t)) * velocity(x, t)
        x = x + (clock(t_next) - clock(t)) * velocity(x_half, middle)
    return x


def heun(
    velocity: Velocity, x: Float[Tensor, "*shape"], times: Float[Tensor, " N"], clock: Clock
) -> Float[Tensor, "*shape"]:
    """Along the mean of the velocities at both ends of each step, the later of which an Euler step finds."""
    for t, t_next in pairwise(times):
        step = clock(t_next) - clock(t)
        v = velocity(x, t)
        x = x + step / 2 * (v + velocity(x + step * v, t_next))
    return x


def ab2(
    velocity: Velocity, x: Float[Tensor, "*shape"], times: Float[Tensor, " N"], clock: Clock
) -> Float[Tensor, "*shape"]:
    """Adams-Bashforth: along the line through the velocities of this step and the one before; the first is Euler's.

    Steps may differ in length: the line is followed to the middle of the step.
    """
    v_last, t_last = None, times[0]
    for t, t_next in pairwise(times):
        step = clock(t_next) - clock(t)
        v = velocity(x, t)
        ahead = v if v_last is None else v + step / (2 * (clock(t) - clock(t_last))) * (v - v_last)
        x, v_last, t_last = x + step * ahead, v, t
    return x


_SOLVERS = {"euler": euler, "midpoint": midpoint, "heun": heun, "ab2": ab2}


def itself(time: Tensor) -> Tensor:
    """The clock of an equation that counts in the time of its grid."""
    return time


def solve(
    velocity: Velocity,
    x_0: Float[Tensor, "*shape"],
    times: Float[Tensor, " N"],
    method: Method = "euler",
    clock: Clock = itself,
) -> Float[Tensor, "*shape"]:
    """Carry `x_0` from `times[0]` to `times[-1]`.

    Args:
        velocity: takes x and a time (a tensor without axes), gives dx by the clock in the shape of x.
        x_0: where the path begins.
        times: increasing times, one step between each two.
        method: one of the functions above.
        clock: what passes as time does; numbers may differ over the axes of x.

    Returns:
        where the path ends.
    """
    return _SOLVERS[method](velocity, x_0, times, clock)


def evaluations(method: Method, num_steps: int) -> int:
    """How often `velocity` is computed in that many steps: what a solution costs."""
    return num_steps * (2 if method in ("midpoint", "heun") else 1)
