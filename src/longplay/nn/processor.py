"""What the processor can do for compiled kernels."""

import functools
import importlib.util
import platform


@functools.cache
def features() -> frozenset[str]:
    """Names of LLVM (`avx512vnni`, ...) of what an x86 processor has; none elsewhere, or without numba to compile for it."""
    if platform.machine().lower() not in ("x86_64", "amd64") or importlib.util.find_spec("numba") is None:
        return frozenset()
    from llvmlite import binding

    return frozenset(name for name, has in binding.get_host_cpu_features().items() if has)
