"""Muon (arXiv 2502.16982): momentum whose update of a matrix is made orthogonal, in numbers that the device is fast in.

PyTorch's own always computes in bfloat16, for which many CPUs have no instructions: there a step of nano's lm took five times
as long as with float32. Matrices of one shape are computed together.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from longplay.nn.processor import has_bfloat16

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic Newton-Schulz iteration, as published
ITERATIONS = 5
EPS = 1e-7
ADAMW_RMS = 0.2  # root mean square of AdamW's usual update, so that one learning rate serves both


class Muon(torch.optim.Optimizer):
    """For matrices only.

    Args:
        params: matrices.
        lr: learning rate, of AdamW's size.
        weight_decay: decoupled, times `lr`.
        momentum: Nesterov's.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    alike.setdefault(weight.shape, []).append(weight)
            for shape, weights in alike.items():
                updates = torch.stack([self._momentum(weight, group["momentum"]) for weight in weights])
                rate = group["lr"] * ADAMW_RMS * max(shape) ** 0.5
                for weight, update in zip(weights, orthogonal(updates), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update, alpha=-rate)

    def _momentum(self, weight: Tensor, momentum: float) -> Tensor:
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight.grad)
        mean: Tensor = state["momentum_buffer"]
        mean.lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(mean, momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """Each of the matrices [N, R, C] with all its singular values made about 1 (0.7 to 1.2)."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide.bfloat16() if has_bfloat16(matrices.device) else wide.float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPS)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if matrices.shape[1] <= matrices.shape[2] else x.mT).to(matrices.dtype)
