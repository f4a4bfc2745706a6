"""What numba compiles for `nn/native.py`: `step` and `project` of the lm, `transformers` of the flow, `convolution` of the codec.

Each is a function that makes the function to compile, for some sizes. That one is called in every thread with its number,
how many threads there are, and the address of a `nn.team.Block`.
"""

# mypy: ignore-errors

from types import MappingProxyType

NAMES = MappingProxyType(
    {"step": "step", "project": "step", "transformers": "transformer", "convolution": "convolution"}
)
"""The module of each."""
RECENT_CODES = 32
"""The latest codes, among which `max_repeat` counts; draws by torch count them, too (`engine/batch.py`)."""


def compiled(name, *sizes):
    """Machine code: the name of the function in the object file, a line end, the object file."""
    from importlib import import_module

    from numba import njit, types

    make = getattr(import_module(f"longplay.nn.kernels.{NAMES[name]}"), name)
    made = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")(make(*sizes))
    signature = (types.int64, types.int64, types.int64)
    made.compile(signature)
    result = made.overloads[signature]
    _, _, (code, _) = result.library.serialize_using_object_code()
    return result.fndesc.llvm_func_name.encode() + b"\n" + code
