"""Terms of a loss balanced by their gradients: each has a fixed share in what reaches the decoder.

Source: the loss balancer of EnCodec (arXiv 2210.13438, section 3.4). Gradients of the terms with respect to the
decoder's output are scaled by running means of their norms, so that a weight says how much a term is heard and not how
large its numbers are; then all of them together pass through the decoder once.
"""

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.whole_batch import mean_of_all

LEAST_NORM = 1e-12


class BalanceConfig(Config):
    """Which terms are balanced, and how.

    Attributes:
        shares: of the terms on the waveform, by name; what they are relative to each other counts. The terms' own weights
            then only say which there are.
        decay: of the running means, each update.
    """

    shares: dict[str, PositiveFloat] = Field(min_length=1)
    decay: float = Field(default=0.999, ge=0, lt=1)


class Balancer(nn.Module):
    """Turns terms into one whose gradient is balanced.

    A term is scaled by what earlier updates have shown of its gradient, so its first update only measures it. Norms are
    those of single rows, and their means are over the whole batch: all its parts, in all processes. So the balance is
    the same however a batch is spread. The state is in buffers, as a checkpoint wants it: for each term its moving sum
    `total` and the weight of that, and what the parts of update `step` have shown so far.
    """

    total: Tensor
    weight: Tensor
    shown: Tensor
    parts: Tensor
    step: Tensor

    def __init__(self, config: BalanceConfig) -> None:
        super().__init__()
        self.config = config
        for name in ("total", "weight", "shown", "parts"):
            self.register_buffer(name, torch.zeros(len(config.shares)))
        self.register_buffer("step", torch.tensor(-1))
        self.register_buffer("shares", torch.tensor(list(config.shares.values())), persistent=False)

    def forward(self, step: int, terms: dict[str, Tensor], estimate: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar with the balanced gradient, and the mean norm of each term's own, `norm_<term>`.

        Args:
            step: the update's number.
            terms: scalars, means over the rows; of those without a share nothing is learnt.
            estimate: [B, 1, S], on which they depend.
        """
        gradients = {  # of each row's own loss
            name: len(estimate) * torch.autograd.grad(terms[name], estimate, retain_graph=True)[0].float()
            for name in self.config.shares
            if name in terms
        }
        norms = {name: gradient.flatten(1).norm(dim=1).mean() for name, gradient in gradients.items()}
        none = torch.zeros_like(self.total[0])
        shown = mean_of_all(torch.stack([norms.get(name, none) for name in self.config.shares]))
        present = torch.stack([none + 1 if name in norms else none for name in self.config.shares])
        self._begin(step)
        self.shown += shown
        self.parts += present
        scales = dict(zip(self.config.shares, self._scales(present), strict=True))
        balanced = torch.stack([scales[name] * gradient for name, gradient in gradients.items()]).sum(0)
        surrogate = (estimate.float() * balanced).flatten(1).sum(1).mean()
        return surrogate, {f"norm_{name}": norm for name, norm in norms.items()}

    def _begin(self, step: int) -> None:
        """With a new update, take what the one before has shown into the running means."""
        new = self.step != step
        complete = new & (self.parts > 0)
        decay = self.config.decay
        self.total.copy_(torch.where(complete, decay * self.total + self.shown / self.parts.clamp_min(1), self.total))
        self.weight.copy_(torch.where(complete, decay * self.weight + 1, self.weight))
        self.shown.masked_fill_(new, 0)
        self.parts.masked_fill_(new, 0)
        self.step.fill_(step)

    def _scales(self, present: Tensor) -> Tensor:
        """What to scale the gradients of terms by, so that a row's balanced gradient has a norm of about 1."""
        known = present * (self.weight > 0)
        mean = self.total / self.weight.clamp_min(LEAST_NORM)
        shares = known * self.get_buffer("shares")
        return shares / shares.sum().clamp_min(LEAST_NORM) / mean.clamp_min(LEAST_NORM)
