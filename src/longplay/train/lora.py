"""LoRA (arXiv 2106.09685) on the language model, through `peft`: its own weights rest, small ones beside them learn."""

from typing import Any

from pydantic import Field, PositiveInt
from torch import Tensor

from longplay.checkpoint.adapter import add_change
from longplay.checkpoint.build import build
from longplay.config import Config
from longplay.errors import ConfigError
from longplay.models.lm import LM

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_BASE = ".base_layer"
_LEARNT = ".lora_"


class LoRAConfig(Config):
    """Size of the change.

    Attributes:
        rank: of each projection's change.
        alpha: the change counts `alpha / rank` times.
        dropout: share of the inputs that the change does not see in a step.
    """

    rank: PositiveInt = 16
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


def check_lora() -> None:
    """Find out before any work whether LoRA can be trained.

    Raises:
        ConfigError: the package `peft` is missing.
    """
    _peft()


def add_lora(model: LM, config: LoRAConfig) -> None:
    """Put a pair of matrices beside every projection of `model`, at first without effect; nothing else learns any more.

    Raises:
        ConfigError: the package `peft` is missing.
    """
    peft = _peft()
    peft.inject_adapter_in_model(
        peft.LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=list(PROJECTIONS)
        ),
        model,
    )


def lora_tensors(model: LM) -> dict[str, Tensor]:
    """The pairs, by the names that an adapter's file has (`checkpoint/adapter.py`)."""
    tensors: dict[str, Tensor] = _peft().get_peft_model_state_dict(model)
    return tensors


def merged(model: LM, config: LoRAConfig) -> LM:
    """A plain lm that computes what `model` with its pairs does."""
    own = {name.replace(_BASE, ""): tensor for name, tensor in model.state_dict().items() if _LEARNT not in name}
    weights = add_change(own, lora_tensors(model), config.alpha / config.rank, "in training")
    return build(LM, model.config, weights, "the lm in training")


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ConfigError(
            "LoRA needs the package peft; install it with: pip install 'longplay[finetune]', or train all weights: --full"
        ) from None
    return peft
