"""In which precision the lm computes, and its int8 form: made once, kept beside the model.

```
lm.int8.safetensors     tensors of every projection; metadata: digest of the weights it was made from, measured quality
```
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from longplay.checkpoint.store import load_tensors, read_metadata, save_tensors
from longplay.checkpoint.system import System, digest, load_system
from longplay.engine.quantize import CALIBRATION_FRAMES, Quality, QuantizedProjection, compare, quantize
from longplay.errors import CheckpointError, UserError
from longplay.models.lm import LM
from longplay.nn.linear import Dense, Weights
from longplay.nn.quantized import Int8Weights

Precision = Literal["float32", "bfloat16", "float16", "int8"]
AUTO = "auto"
PRECISIONS: tuple[str, ...] = (AUTO, *get_args(Precision))
FILE = "lm.int8.safetensors"
FORMAT = "1"
KL_LIMIT = 0.005
"""Nats per code that int8 may differ from float32 for `auto` to take it: what bfloat16 weights cost, within a few times."""
CALIBRATION_TEXT = "calm piano with soft strings"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Quantized:
    """An lm in int8.

    Attributes:
        projections: by name.
        quality: against float32, on a piece that calibration has not seen; that of bfloat16 beside it.
    """

    projections: Mapping[str, QuantizedProjection]
    quality: Mapping[str, Quality]


def check_precision(name: str) -> str:
    """Refuse what is none of `PRECISIONS`.

    Raises:
        UserError: naming them.
    """
    if name not in PRECISIONS:
        raise UserError(f"precision {name!r}: unknown; use one of {', '.join(PRECISIONS)}")
    return name


def load_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What `load_system` should load the lm in: the CPU keeps embeddings and sums in float32.

    Raises:
        UserError: int8 is asked for on another device than the CPU.
    """
    if device.type == "cpu":
        return torch.float32
    if precision == "int8":
        raise UserError(f"precision int8: computes on the CPU only, not on {device.type}; use bfloat16 or float16")
    return None if precision == AUTO else getattr(torch, precision)


def settle(system: System, name: str, precision: str) -> Precision:
    """Prepare the lm of `system` for inference.

    Args:
        system: with an lm, loaded in `load_dtype`.
        name: what messages call the model.
        precision: one of `PRECISIONS`. `auto` on the CPU is int8 where the model has an int8 form of measured quality
            beside it (`longplay models quantize`), else float32; on other devices it is as loaded.

    Returns:
        the precision that was settled on.

    Raises:
        UserError: int8, but this build of torch cannot.
    """
    lm = system.lm
    assert lm is not None
    if system.device.type != "cpu":
        lm.prepare()
        return cast(Precision, str(lm.audio_head.weight.dtype).removeprefix("torch."))
    found = None
    if precision in (AUTO, "int8"):
        found = load_quantized(system)
    if precision == AUTO:
        precision = "int8" if found is not None and found.quality["int8"].kl <= KL_LIMIT else "float32"
    if precision == "int8":
        found = found or _quantize_and_keep(system, name)
        lm.prepare({key: value.projection() for key, value in found.projections.items()})
    else:
        dtype = getattr(torch, precision)
        lm.prepare({key: Dense(weights, dtype) for key, weights in lm.linears()})
    return cast(Precision, precision)


def quantize_model(name_or_path: str | Path, offline: bool = False) -> tuple[Path, Quantized]:
    """Make the int8 form of a model's lm and write it beside the model.

    Raises:
        CheckpointError: no such model, one without an lm, or its directory cannot be written.
        DownloadError: a hub cannot be reached.
        UserError: this build of torch has no int8.
    """
    system = load_system(name_or_path, offline=offline)
    if system.lm is None:
        raise CheckpointError(f"model {str(name_or_path)!r}: has no lm to quantize")
    made = quantize_lm(system, system.lm)
    path = system.directory / FILE
    try:
        save_quantized(path, made, lm_digest(system))
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror}); copy the model to a place of yours"
        ) from None
    return path, made


def quantize_lm(system: System, lm: LM) -> Quantized:
    """The int8 form of the lm of `system`, with its quality."""
    text = system.text_tokenizer
    ids = tuple(text.encode(CALIBRATION_TEXT)) if text is not None else ()
    projections = quantize(lm, ids)
    forms = {
        "int8": lm.decoder({name: projection.projection() for name, projection in projections.items()}),
        "bfloat16": lm.decoder({name: Dense(weights, torch.bfloat16) for name, weights in lm.linears()}),
    }
    return Quantized(projections, compare(lm, forms, ids, CALIBRATION_FRAMES))


def save_quantized(path: Path, made: Quantized, source: str) -> None:
    """Write an int8 form made from weights with the digest `source`."""
    tensors: dict[str, Tensor] = {}
    for name, projection in made.projections.items():
        for part, value in vars(projection.weights).items():
            if value is not None:
                tensors[f"{name}.{part}"] = value
    about = {
        "errors": {name: projection.error for name, projection in made.projections.items()},
        "quality": {name: asdict(quality) for name, quality in made.quality.items()},
    }
    save_tensors(path, tensors, {"longplay_int8": FORMAT, "source": source, "about": json.dumps(about)})


def load_quantized(system: System) -> Quantized | None:
    """What `save_quantized` wrote beside a model; None where there is none, or one of other weights.

    Raises:
        CheckpointError: it is damaged.
    """
    path = system.directory / FILE
    if not path.is_file():
        return None
    metadata = read_metadata(path)
    if metadata.get("longplay_int8") != FORMAT or metadata.get("source") != lm_digest(system):
        logger.info("%s: was made from other weights; ignored", path)
        return None
    about: dict[str, Any] = json.loads(metadata["about"])
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_tensors(path).items():
        name, _, part = key.rpartition(".")
        parts.setdefault(name, {})[part] = tensor
    projections = {
        name: QuantizedProjection(_weights(tensors), about["errors"][name]) for name, tensors in parts.items()
    }
    return Quantized(projections, {name: Quality(**values) for name, values in about["quality"].items()})


def lm_digest(system: System) -> str:
    """SHA-256 over the weight file of the lm, hex."""
    return digest(tuple(file for file in system.weight_files if file.stem in ("lm", "llm")))


def _weights(tensors: dict[str, Tensor]) -> Int8Weights | Weights:
    bias = tensors.pop("bias", None)
    if "values" in tensors:
        return Int8Weights(bias=bias, **tensors)
    return Weights(bias=bias, **tensors)


def _quantize_and_keep(system: System, name: str) -> Quantized:
    assert system.lm is not None
    logger.info("quantizing the lm of %s, once", name)
    made = quantize_lm(system, system.lm)
    path = system.directory / FILE
    try:
        save_quantized(path, made, lm_digest(system))
    except OSError as error:
        logger.info("%s: cannot be kept (%s)", path, error.strerror)
    return made
