"""What to compute on."""

import torch

from longplay.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


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
