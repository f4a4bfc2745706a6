"""A LoRA adapter of an lm (arXiv 2106.09685): low-rank changes of its projections, in a directory of its own.

```
adapter.yaml          AdapterConfig: what it changes, and which lm it was made for
adapter.safetensors   <projection>.lora_A.weight [rank, in], <projection>.lora_B.weight [out, rank], names as in `peft`
```

It is added to the weights when the model is opened, W + scale * alpha / rank * B A, so that it costs nothing after that.
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import yaml
from pydantic import Field, PositiveInt
from torch import Tensor

from longplay.checkpoint.store import load_tensors, new_directory, save_tensors
from longplay.config import Config, read_yaml
from longplay.errors import CheckpointError, ConfigError

CONFIG_FILE = "adapter.yaml"
WEIGHTS_FILE = "adapter.safetensors"
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
MAX_SCALE = 4.0


class AdapterConfig(Config):
    """What `adapter.yaml` says.

    Attributes:
        base: the model it was made for, by name or directory.
        base_digest: SHA-256 over the weights of that model's lm, hex.
        rank, alpha: of the change; it counts `alpha / rank` times.
        example: a prompt in the words that it was trained with.
    """

    version: Literal[1] = 1
    base: str
    base_digest: str
    rank: PositiveInt
    alpha: float = Field(gt=0)
    example: str = ""


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter in memory.

    Attributes:
        directory: where it lies.
        config: what it says of itself.
        tensors: by name, as in its file.
        scale: how strongly it is to act; 1 as trained, 0 not at all.
    """

    directory: Path
    config: AdapterConfig
    tensors: Mapping[str, Tensor]
    scale: float = 1.0

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over its weight file, hex."""
        with (self.directory / WEIGHTS_FILE).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def check_base(self, name: str, lm_digest: str) -> None:
        """Refuse an lm that it was not made for.

        Raises:
            CheckpointError: naming both models.
        """
        if lm_digest != self.config.base_digest:
            raise CheckpointError(
                f"adapter {self.directory}: was made for the lm of {self.config.base!r} ({self.config.base_digest[:12]}), "
                f"not for that of {name!r} ({lm_digest[:12]}); give that model, or finetune this one"
            )

    def added(self, weights: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The lm's `weights` with the change added to them; what it changes is of `dtype`, default as it was.

        Raises:
            CheckpointError: it does not fit these weights.
        """
        return add_change(
            weights, self.tensors, self.scale * self.config.alpha / self.config.rank, str(self.directory), dtype
        )


def add_change(
    weights: Mapping[str, Tensor],
    change: Mapping[str, Tensor],
    factor: float,
    source: str,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """`weights` with `factor` times B A added to each projection that `change` has a pair A [r, in], B [out, r] for.

    Raises:
        CheckpointError: naming in `source` what is unknown, incomplete or of another shape.
    """
    added = dict(weights)
    for name, down in change.items():
        projection, is_down, _ = name.partition(_DOWN)
        if not is_down:
            if not name.endswith(_UP) or name.removesuffix(_UP) + _DOWN not in change:
                raise CheckpointError(f"adapter {source}: has the unknown tensor {name}; use the files of one adapter")
            continue
        target, up = f"{projection}.weight", change.get(projection + _UP)
        if target not in weights or up is None or (len(up), down.shape[1]) != weights[target].shape:
            raise CheckpointError(f"adapter {source}: {projection} does not fit the lm; use the files of one adapter")
        weight = weights[target]
        sum_ = torch.addmm(weight.float(), up.to(weight.device).float(), down.to(weight.device).float(), alpha=factor)
        added[target] = sum_.to(dtype or weight.dtype)
    return added


def is_adapter(directory: Path) -> bool:
    """Whether `directory` looks like an adapter."""
    return (directory / CONFIG_FILE).is_file()


def load_adapter(directory: Path | str, scale: float = 1.0) -> Adapter:
    """Read an adapter.

    Raises:
        CheckpointError: there is none, it is incomplete or damaged, or the scale is not between 0 and 4.
    """
    directory = Path(directory).expanduser()
    if not 0 <= scale <= MAX_SCALE:
        raise CheckpointError(f"adapter scale {scale:g}: must lie between 0 and {MAX_SCALE:g}; 1 is as trained")
    if not is_adapter(directory):
        raise CheckpointError(
            f"adapter {directory}: has no {CONFIG_FILE}; give a directory that `longplay finetune` made"
        )
    try:
        config = AdapterConfig.parse(read_yaml(directory / CONFIG_FILE), source=str(directory / CONFIG_FILE))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return Adapter(directory, config, load_tensors(directory / WEIGHTS_FILE), scale)


def save_adapter(directory: Path, config: AdapterConfig, tensors: Mapping[str, Tensor]) -> None:
    """Write an adapter anew, whole or not at all.

    Raises:
        CheckpointError: it cannot be written.
    """
    with new_directory(directory, overwrite=True) as part:
        save_tensors(part / WEIGHTS_FILE, tensors)
        (part / CONFIG_FILE).write_text(yaml.safe_dump(config.dump(), sort_keys=False, allow_unicode=True), "utf-8")
