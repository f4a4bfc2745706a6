"""From finished runs to one model directory that can be shipped: inference weights only, in half precision, the lm's or int8."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from longplay.checkpoint.build import build
from longplay.checkpoint.names import ModelName
from longplay.checkpoint.store import MODELS, TEXT_FILE, SystemConfig, load_config, load_weights, save_native
from longplay.errors import CheckpointError
from longplay.models.lm import LM
from longplay.nn.quantizers import MOVING
from longplay.pipeline.quantized import KL_LIMIT, Quantized, form_metadata, form_tensors, quantize_lm
from longplay.text import TextTokenizer

LMPrecision = Literal["float16", "int8"]


def release(
    parts: Mapping[ModelName, Path],
    out: Path,
    *,
    name: str,
    licence: str,
    provenance: str,
    overwrite: bool = False,
    lm_precision: LMPrecision = "float16",
) -> Quantized | None:
    """Join the models of several directories into one.

    Args:
        parts: for each model the directory that holds it, e.g. `runs/nano-lm/model`.
        out: the new model directory.
        name, licence, provenance: for its config.
        overwrite: replace a directory that is there.
        lm_precision: what the projections of the lm are stored in; int8 takes half the bytes and is ready to run, and other
            devices and precisions make of it what they need (`checkpoint/quantized.py`).

    Returns:
        the int8 form of the lm, and how close it is to float32, where it was asked for.

    Raises:
        CheckpointError: a part lacks its model, a weight does not fit half precision, or int8 is not close enough.
        UserError: int8, but this build of torch has none.
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
            if not key.endswith(MOVING)
        }
        if model == "lm":
            text = (directory / TEXT_FILE).read_bytes()
    system = SystemConfig.parse({"name": name, "licence": licence, "provenance": provenance, **sections})
    made: Quantized | None = None
    metadata: dict[ModelName, dict[str, str]] = {}
    if lm_precision == "int8" and system.lm is not None:
        source = str(parts["lm"])
        lm = build(LM, system.lm, weights["lm"], f"{source} lm", torch.float32)
        made = quantize_lm(lm, TextTokenizer.load(parts["lm"] / TEXT_FILE))
        if not made.is_close():
            raise CheckpointError(
                f"{source}: its lm in int8 is {made.kl():.4f} nats a code from float32, more than "
                f"{KL_LIMIT:g}; release it in float16"
            )
        weights["lm"] |= form_tensors(lm, made)
        metadata["lm"] = form_metadata(made)
    save_native(out, system, weights, text, overwrite, metadata)
    return made


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
