"""Ordinary differential equations dx/dt = velocity(x, t), solved on a given grid of times.

Knows no network: `velocity` is any callable. One evaluation per step with `euler`, two with `midpoint`.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
Method = Literal["euler", "midpoint"]


def cosine_time(u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The published time warp t = 1 - cos(pi/2 u): small steps near the noise, large ones near the data."""
    return 1 - torch.cos(u * (0.5 * math.pi))


def cosine_grid(num_steps: int, device: torch.device | None = None) -> Float[Tensor, " N"]:
    """The `num_steps + 1` times from 0 to 1 of the published solver."""
    return cosine_time(torch.linspace(0, 1, num_steps + 1, device=device))


def euler(velocity: Velocity, x: Float[Tensor, "*shape"], times: Float[Tensor, " N"]) -> Float[Tensor, "*shape"]:
    """First order: the error falls with the number of steps. Exact where the path is straight."""
    for t, t_next in pairwise(times):
        x = x + (t_next - t) * velocity(x, t)
    return x


def midpoint(velocity: Velocity, x: Float[Tensor, "*shape"], times: Float[Tensor, " N"]) -> Float[Tensor, "*shape"]:
    """Second order: the error falls with the square of the number of steps."""
    for t, t_next in pairwise(times):
        half = (t_next - t) / 2
        x_half = x + half * velocity(x, t)
        x = x + (t_next - t) * velocity(x_half, t + half)
    return x


def solve(
    velocity: Velocity, x_0: Float[Tensor, "*shape"], times: Float[Tensor, " N"], method: Method = "euler"
) -> Float[Tensor, "*shape"]:
    """Carry `x_0` from `times[0]` to `times[-1]`.

    Args:
        velocity: takes x and a time (a tensor without axes), gives dx/dt in the shape of x.
        x_0: where the path begins.
        times: increasing times, one step between each two.
        method: `euler` or `midpoint`.

    Returns:
        where the path ends.
    """
    return (euler if method == "euler" else midpoint)(velocity, x_0, times)
