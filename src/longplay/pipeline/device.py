"""What to compute on, and in which precision."""

import torch

from longplay.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """`auto` is cuda, else mps, else cpu, whichever this machine has first.

    Raises:
        UserError: an unknown name, or a device that this machine or this build of torch lacks.
    """
    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise UserError(f"device {name!r}: unknown; use one of {', '.join(DEVICES)}")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if not available[kind]:
        raise UserError(f"device {name!r}: not available to torch on this machine; use cpu or auto")
    return torch.device(name)


def resolve_dtype(name: str | None) -> torch.dtype | None:
    """The dtype of that name; None stays None.

    Raises:
        UserError: an unknown name.
    """
    if name is not None and name not in DTYPES:
        raise UserError(f"dtype {name!r}: unknown; use one of {', '.join(DTYPES)}")
    return None if name is None else DTYPES[name]
