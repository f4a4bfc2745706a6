"""From finished runs to one model directory that can be shipped: inference weights only, in half precision."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longplay.checkpoint.names import ModelName
from longplay.checkpoint.store import MODELS, TEXT_FILE, SystemConfig, load_config, load_weights, save_native
from longplay.errors import CheckpointError

_EMA_STATE = ("cluster_size", "embed_avg", "inited")


def release(
    parts: Mapping[ModelName, Path], out: Path, *, name: str, licence: str, provenance: str, overwrite: bool = False
) -> SystemConfig:
    """Join the models of several directories into one.

    Args:
        parts: for each model the directory that holds it, e.g. `runs/nano-lm/model`.
        out: the new model directory.
        name, licence, provenance: for its config.
        overwrite: replace a directory that is there.

    Raises:
        CheckpointError: a part lacks its model, or a weight does not fit half precision.
    """
    sections: dict[str, Any] = {}
    weights: dict[ModelName, dict[str, Tensor]] = {}
    text = None
    for model in MODELS:
        if model not in parts:
            continue
        directory = parts[model]
        config = load_config(directory)
        if model not in config.present:
            raise CheckpointError(
                f"{directory}: holds {', '.join(config.present)}, not the {model}; give another directory"
            )
        sections[model] = _frozen_codebooks(getattr(config, model).dump())
        weights[model] = {
            key: _half(tensor, f"{directory}: {model} {key}")
            for key, tensor in load_weights(directory, model).items()
            if not key.endswith(_EMA_STATE)
        }
        if model == "lm":
            text = (directory / TEXT_FILE).read_bytes()
    system = SystemConfig.parse({"name": name, "licence": licence, "provenance": provenance, **sections})
    save_native(out, system, weights, text, overwrite=overwrite)
    return system


def _frozen_codebooks(config: Any) -> Any:
    """The config with codebooks that no longer move, so that no moving averages are shipped."""
    if isinstance(config, dict):
        frozen = {key: _frozen_codebooks(value) for key, value in config.items()}
        return frozen | {"ema": False} if "ema" in frozen else frozen
    return config


def _half(tensor: Tensor, name: str) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if not torch.isfinite(half).all():
        raise CheckpointError(f"{name}: does not fit float16 (largest value {tensor.abs().max():g}); train it again")
    return half
