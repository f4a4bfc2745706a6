"""How a run starts from the weights of another, or from those of a model of text."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from longplay.checkpoint import qwen
from longplay.checkpoint.system import load_weights
from longplay.errors import CheckpointError
from longplay.models.codec import Codec
from longplay.models.lm import LM
from longplay.models.tokenizer import Tokenizer
from longplay.nn.quantizers import MOVING, Codebook

logger = logging.getLogger(__name__)

# They change nothing before they learn, so a model that lacks them can learn them.
NEW = (
    "control_projection.weight",
    "text_projection.weight",
    "style_projection.weight",
    "word_styles.",
    "chord_projection.weight",
    "noise_taps",
    "noise_mix",
)


WIDENED = "control_projection.weight"


def start_from(model: nn.Module, stage: Literal["lm", "flow"], directory: Path, own: Collection[str] = ()) -> None:
    """Give `model` the weights of a model directory.

    Args:
        model: of the run.
        stage: whose weights to take.
        directory: native or published model directory; of an lm, also one of Qwen2.5 (`checkpoint/qwen.py`).
        own: names of the tensors that `model` keeps as they are.

    Raises:
        CheckpointError: the directory has no such weights, or they do not fit.
    """
    lacking: tuple[str, ...] = NEW
    if isinstance(model, LM) and qwen.is_qwen(directory):
        weights, lacking = qwen.read_weights(directory, model.config), NEW + qwen.AUDIO_SIDE
    else:
        weights = load_weights(directory, stage)
    _widen(weights, model)
    kept = {
        name: value
        for name, value in model.state_dict().items()
        if name in own or (name not in weights and name.startswith(lacking))
    }
    try:
        model.load_state_dict(weights | kept)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{directory}: its {stage} does not fit this config ({reason})") from None


def _widen(weights: dict[str, Tensor], model: nn.Module) -> None:
    """Let a model that is told of chords start from one that is not: what is new changes nothing at first."""
    own, given = model.state_dict().get(WIDENED), weights.get(WIDENED)
    if own is not None and given is not None and own.shape[1] > given.shape[1]:
        weights[WIDENED] = F.pad(given, (0, own.shape[1] - given.shape[1]))


def start_autoencoder(model: Tokenizer | Codec, stage: Literal["tokenizer", "codec"], directory: Path) -> None:
    """Give `model` the weights of a model directory; what its decoder lacks, or has in another size, starts afresh.

    Raises:
        CheckpointError: the directory has no such weights, or more than the decoder differs.
    """
    weights = load_weights(directory, stage)
    own = model.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
    books = {name: part for name, part in model.named_modules() if isinstance(part, Codebook) and part.config.ema}
    released = {
        name: part for name, part in books.items() if f"{name}.embed" in fitting and f"{name}.inited" not in weights
    }
    moving = {f"{name}.{part}" for name in released for part in MOVING}
    left = sorted(own.keys() - fitting.keys() - moving)
    unknown = sorted(name for name in weights.keys() - own.keys() if name.startswith("encoder."))
    if wrong := [name for name in left if not name.startswith("decoder.")] + unknown:
        raise CheckpointError(
            f"{directory}: {wrong[0]} of its {stage} does not fit this config; only the decoder may differ"
        )
    logger.info("from %s; afresh: %s", directory, ", ".join(left) or "nothing")
    model.load_state_dict(own | fitting)
    for codebook in released.values():
        codebook.go_on()
