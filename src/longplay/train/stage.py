"""What a stage gives to the loop."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from longplay.config import Config

Batch = dict[str, Tensor]  # on the CPU when it is made, on the device when losses are asked for


class Losses(NamedTuple):
    """What some rows of a batch cost.

    Attributes:
        terms: for `model`, and each of the stage's other modules that learns in this step, a scalar whose gradient
            reaches that module alone. Means over the rows; the loop takes the mean over all parts of a batch.
        metrics: detached scalars to log, means over the rows.
    """

    terms: dict[str, Tensor]
    metrics: dict[str, Tensor]


class Stage(Protocol):
    """One of `tokenizer`, `codec`, `lm`, `flow`: a model, its data, its losses."""

    @property
    def name(self) -> str:
        """`tokenizer`, `codec`, `lm` or `flow`."""

    @property
    def config(self) -> Config:
        """Everything of the run."""

    @property
    def model(self) -> nn.Module:
        """The module that is averaged and exported."""

    @property
    def others(self) -> nn.ModuleDict:
        """Further modules with state: discriminators, which learn at rates of their own, or a balancer; empty if none."""

    @property
    def learning_rates(self) -> Mapping[str, float]:
        """Peak learning rate of each of `others` that learns."""

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The repeated parts of the model, called as modules: units of sharding, recomputation and compilation."""

    @property
    def partial_gradients(self) -> bool:
        """Whether some parameter gets no gradient in some steps."""

    @property
    def keeps_resting(self) -> bool:
        """Whether the checkpoint holds the weights that do not learn, too: those that the run computed. Others come from where it starts."""

    @property
    def batch_size(self) -> int:
        """Rows of one update, over all processes and parts."""

    def batch(self, step: int, rows: slice) -> Batch:
        """These rows of batch `step`, a function of the config's seed and `step` alone; may run in another thread."""

    def losses(self, step: int, batch: Batch) -> Losses:
        """Forward pass of a batch on the model's device; the loop has set autocast and torch's seed."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Held-out metrics of the averaged `model`; must not depend on global random state."""

    def sample(self, model: nn.Module, directory: Path) -> None:
        """Write audio and pictures of the averaged `model`."""

    def report(self, run: Path) -> None:
        """Draw what the last evaluation found and a curve does not show, into the run directory."""

    def export(self, model: nn.Module, directory: Path) -> None:
        """Write the averaged `model` as a native model directory."""
