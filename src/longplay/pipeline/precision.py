"""In which precision the lm computes."""

from typing import Literal, cast, get_args

import torch

from longplay.checkpoint.system import System
from longplay.errors import UserError
from longplay.nn import compiled
from longplay.nn.linear import Dense
from longplay.nn.quantized import has_kernels
from longplay.pipeline.int8 import load_quantized, quantize_and_keep

Precision = Literal["float32", "bfloat16", "float16", "int8", "int8-compiled"]
AUTO = "auto"
INT8 = frozenset({"int8", "int8-compiled"})
PRECISIONS: tuple[str, ...] = (AUTO, *get_args(Precision))


def check_precision(name: str) -> str:
    """Refuse what is none of `PRECISIONS`.

    Raises:
        UserError: naming them.
    """
    if name not in PRECISIONS:
        raise UserError(f"precision {name!r}: unknown; use one of {', '.join(PRECISIONS)}")
    return name


def require_compiled(head_dim: int | None = None) -> None:
    """Refuse steps that this machine cannot compile, or not for heads of `head_dim` numbers.

    Raises:
        UserError: naming what is missing.
    """
    if not compiled.is_available():
        raise UserError("precision int8-compiled: needs numba and an x86 processor with AVX2; use int8")
    if head_dim is not None and not compiled.fits(head_dim):
        raise UserError(
            f"precision int8-compiled: needs heads of a multiple of {compiled.LANES} numbers, not {head_dim}; use int8"
        )


def load_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What `load_system` should load the lm in: the CPU keeps embeddings and sums in float32.

    Raises:
        UserError: int8 is asked for on another device than the CPU.
    """
    if device.type == "cpu":
        return torch.float32
    if precision in INT8:
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
            in its weights or beside them (`pipeline/int8.py`), and torch has kernels, else float32; int8 is compiled
            where the machine can. On other devices it is as loaded.

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
    if precision == "int8-compiled":
        require_compiled(lm.config.head_dim)
    found = load_quantized(system) if precision in INT8 or (precision == AUTO and has_kernels()) else None
    if precision == AUTO:
        compiles = compiled.is_available() and compiled.fits(lm.config.head_dim)
        close = found is not None and found.is_close(compiles)
        precision = ("int8-compiled" if compiles else "int8") if close else "float32"
    if precision in INT8:
        found = found or quantize_and_keep(system, name)
        lm.prepare(found.decoder(lm, precision == "int8-compiled"))
    else:
        dtype = getattr(torch, precision)
        lm.prepare(lm.decoder({key: Dense(weights, dtype) for key, weights in lm.linears()}))
    return cast(Precision, precision)
