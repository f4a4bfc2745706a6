"""In which precision the lm computes."""

import logging
from typing import Literal, cast, get_args

import torch

from longplay.checkpoint.system import System
from longplay.errors import UserError
from longplay.nn import compiled, processor
from longplay.nn.linear import Dense
from longplay.nn.quantized import has_kernels
from longplay.pipeline.quantized import Kind, load_quantized, quantize_and_keep

Precision = Literal["float32", "bfloat16", "float16", "int8", "int8-compiled", "int4"]
AUTO = "auto"
COMPILED = frozenset({"int8-compiled", "int4"})
"""By kernels of our own (`nn/compiled.py`)."""
QUANTIZED = COMPILED | {"int8"}
LARGE = 100_000_000
"""Parameters from which on an lm without an int8 form deserves a word."""
PRECISIONS: tuple[str, ...] = (AUTO, *get_args(Precision))

logger = logging.getLogger(__name__)


def check_precision(name: str) -> str:
    """Refuse what is none of `PRECISIONS`.

    Raises:
        UserError: naming them.
    """
    if name not in PRECISIONS:
        raise UserError(f"precision {name!r}: unknown; use one of {', '.join(PRECISIONS)}")
    return name


def kind_of(precision: str) -> Kind:
    """The form that a precision of `QUANTIZED` needs."""
    return "int4" if precision == "int4" else "int8"


def load_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What `load_system` should load the lm in: the CPU keeps embeddings and sums in float32.

    Raises:
        UserError: int8 or int4 is asked for on another device than the CPU.
    """
    if device.type == "cpu":
        return torch.float32
    if precision in QUANTIZED:
        raise UserError(
            f"precision {precision}: computes on the CPU only, not on {device.type}; use bfloat16 or float16"
        )
    return None if precision == AUTO else getattr(torch, precision)


def settle(system: System, name: str, precision: str) -> Precision:
    """Prepare the lm of `system` for inference.

    Args:
        system: with an lm, loaded in `load_dtype`.
        name: what messages call the model.
        precision: one of `PRECISIONS`. `auto` on the CPU is int8 where the model has an int8 form of measured quality,
            in its weights or beside them (`pipeline/quantized.py`), and torch has kernels, else float32; int8 is compiled
            where the machine can. int4 is never taken unasked. On other devices it is as loaded.

    Returns:
        the precision that was settled on.

    Raises:
        UserError: int8, but this build of torch cannot, or compiled, but the machine cannot.
    """
    lm = system.lm
    assert lm is not None
    if system.device.type != "cpu":
        lm.prepare()
        return cast(Precision, str(lm.audio_head.weight.dtype).removeprefix("torch."))
    if precision in COMPILED:
        compiled.require(precision, lm.config.head_dim)
    known = precision in QUANTIZED or (precision == AUTO and has_kernels())
    found = load_quantized(system, kind_of(precision)) if known else None
    if precision == AUTO:
        compiles = processor.can_compile() and compiled.fits(lm.config.head_dim)
        close = found is not None and found.is_close(compiles)
        precision = ("int8-compiled" if compiles else "int8") if close else "float32"
        if known and found is None and sum(weights.numel() for weights in lm.parameters()) > LARGE:
            logger.warning(
                "%s: its language model computes in float32; `longplay models quantize %s` makes an int8 form once, which is several times faster",
                name,
                name,
            )
    if precision in QUANTIZED:
        found = found or quantize_and_keep(system, name, kind_of(precision))
        lm.prepare(found.decoder(lm, precision in COMPILED))
    else:
        dtype = getattr(torch, precision)
        lm.prepare(lm.decoder({key: Dense(weights, dtype) for key, weights in lm.linears()}))
    return cast(Precision, precision)
