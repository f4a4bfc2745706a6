"""What the processor can do for compiled kernels."""

import functools
import importlib.util
import os
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_AVX512 = frozenset({"avx512vnni", "avx512vl"})
_LEVELS = {
    "avx512vnni": (_AVX512,),
    "avxvnni": (frozenset({"avxvnni"}), _AVX512),  # the same in shorter registers
    "avx2": (frozenset({"avx2", "fma"}),),
}


@functools.cache
def features() -> frozenset[str]:
    """Names of LLVM (`avx512vnni`, ...) of what an x86 processor has; none elsewhere, or without numba to compile for it."""
    if platform.machine().lower() not in ("x86_64", "amd64") or importlib.util.find_spec("numba") is None:
        return frozenset()
    from llvmlite import binding

    return frozenset(name for name, has in binding.get_host_cpu_features().items() if has)


def has_bfloat16(device: "torch.device") -> bool:
    """Whether a device multiplies bfloat16 by instructions of its own; else torch converts, and some CPUs take forever."""
    import torch

    fast = {"cpu": torch.cpu._is_avx512_bf16_supported, "cuda": torch.cuda.is_bf16_supported}.get(device.type)
    return fast is not None and fast()


def levels() -> tuple[str, ...]:
    """By which instructions kernels can multiply bytes here, the fastest first: `avx512vnni`, `avxvnni`, `avx2`, or nothing."""
    return tuple(name for name, ways in _LEVELS.items() if any(features() >= needed for needed in ways))


def can_compile() -> bool:
    """Whether kernels can be compiled and run here: there are numba and the instructions."""
    return level() is not None


def zero() -> int:
    """What stands for zero in the bytes that kernels multiply with weights: VNNI takes unsigned ones."""
    return 0 if level() == "avx2" else 128


def has_pairs() -> bool:
    """Whether kernels can multiply pairs of bfloat16."""
    return level() == "avx512vnni" and "avx512bf16" in features()


def level() -> str | None:
    """The first of `levels`, or another of them that LONGPLAY_PROCESSOR names: a variable for tests."""
    found = levels()
    wanted = os.environ.get("LONGPLAY_PROCESSOR")
    return wanted if wanted in found else next(iter(found), None)
