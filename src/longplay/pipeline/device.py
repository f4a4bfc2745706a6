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


def synthesis_dtype(device: torch.device) -> torch.dtype:
    """What flow and codec compute in: bfloat16 where the machine has instructions for it, else float32.

    Its error is a tenth of the flow's own, from solving in ten steps (docs/performance.md). Without AVX-512 BF16 a CPU
    converts back and forth, which is no faster.
    """
    fast = {"cpu": torch.cpu._is_avx512_bf16_supported, "cuda": torch.cuda.is_bf16_supported}.get(device.type)
    return torch.bfloat16 if fast is not None and fast() else torch.float32
