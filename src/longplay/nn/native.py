"""Machine code of the kernels: compiled by numba on first use, kept on disk, and loaded from there without numba.

numba takes half a second to get ready, and seconds to compile; what is on disk is loaded in milliseconds. Code that has just
been compiled goes the same way, so it is the same code. It is compiled anew for another processor, another numba and
other kernels.
"""

import ctypes
import functools
import hashlib
import importlib.metadata
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llvmlite import binding

from longplay.errors import LongplayError
from longplay.files import cache_folder, replacing
from longplay.nn import processor

Kernel = Callable[[int, int, int], int]
"""Runs one thread's share: its number, the number of threads, and the address of a `nn.team.Block`."""

logger = logging.getLogger(__name__)
_SOURCES = sorted(Path(__file__).with_name("kernels").glob("*.py"))


def kernel(name: str, *sizes: int) -> Kernel:
    """A function of `nn/kernels`, made for these sizes, as machine code; it does not hold Python's lock while it runs.

    Raises:
        LongplayError: it cannot be compiled.
    """
    with _one_at_a_time:  # nothing is loaded twice
        return _loaded(name, *sizes)


def get_ready(*wanted: tuple[str, *tuple[int, ...]]) -> None:
    """See that kernels, each given as the arguments of `kernel`, are on disk; those that are not are compiled side by side.

    Raises:
        LongplayError: they cannot be compiled.
    """
    missing = [arguments for arguments in wanted if not _path(*arguments).is_file()]
    if missing:
        with ThreadPoolExecutor(len(missing)) as pool:
            list(pool.map(lambda arguments: _code(*arguments), missing))


_one_at_a_time = threading.Lock()


@functools.cache
def _loaded(name: str, *sizes: int) -> Kernel:
    symbol, _, code = _code(name, *sizes).partition(b"\n")
    return _load(symbol.decode(), code)


@functools.cache
def _code(name: str, *sizes: int) -> bytes:
    path = _path(name, *sizes)
    try:
        return path.read_bytes()
    except OSError:
        logger.info("compiling kernel %s for this machine, once: up to a minute", name)
        content = _compile(name, sizes)
        _keep(path, content)
        return content


def _path(name: str, *sizes: int) -> Path:
    return _folder() / f"{'-'.join([name, *map(str, sizes)])}-{_key()}.bin"


def _folder() -> Path:
    return cache_folder() / "kernels"


@functools.cache
def _key() -> str:
    """Of everything that the code depends on."""
    parts = [importlib.metadata.version("numba"), importlib.metadata.version("llvmlite"), sys.version, sys.platform]
    parts += [
        binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
        str(processor.level()),
    ]
    sources = b"".join(source.read_bytes() for source in _SOURCES)
    return hashlib.sha256("\n".join(parts).encode() + sources).hexdigest()[:16]


def _compile(name: str, sizes: tuple[int, ...]) -> bytes:
    """The name of the function, a line end, and an object file: what a process of its own writes, which then is rid of numba."""
    script = (
        f"import sys; from longplay.nn import kernels; sys.stdout.buffer.write(kernels.compiled({name!r}, *{sizes}))"
    )
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise LongplayError(
            f"kernel {name} cannot be compiled with numba ({said[-1]}); reinstall numba, or uninstall it to do without kernels"
        )
    return done.stdout


def _keep(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(content)
    except OSError as error:
        logger.info("%s: cannot be kept (%s)", path, error.strerror)


_engines: list[Any] = []  # they own the code
_NEVER_CALLED = ctypes.CFUNCTYPE(None)(lambda: None)
"""In place of what frees numba's own arrays: the kernels make none, but name it."""


def _load(symbol: str, code: bytes) -> Kernel:
    if binding.address_of_symbol("NRT_MemInfo_call_dtor") is None:
        binding.add_symbol("NRT_MemInfo_call_dtor", ctypes.cast(_NEVER_CALLED, ctypes.c_void_p).value)
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    triple = binding.get_process_triple() + ("-elf" if sys.platform == "win32" else "")
    machine = binding.Target.from_triple(triple).create_target_machine(jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(f'target triple = "{triple}"'), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3)(
        engine.get_function_address(symbol)
    )
    result, error = ctypes.c_int64(), ctypes.c_void_p()  # that numba's functions write to
    return functools.partial(function, ctypes.byref(result), ctypes.byref(error))
