"""From a config and tensors to a module, without ever holding the weights twice.

Layers are made with their parameters on the meta device, the loaded tensors take their places, and only a
dtype or device change copies them, one model at a time.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from longplay.errors import CheckpointError
from longplay.nn.conv import fold_weight_norm

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C")
_SHOWN = 3
_INITIALISERS = (
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.kaiming_uniform_,
)


class _EmptyOnMeta(TorchFunctionMode):
    """Sends `torch.empty` to the meta device, and leaves meta tensors uninitialised.

    Parameters of torch layers start as `torch.empty`, so they cost nothing; small buffers that are computed in a
    constructor and not stored (windows, frequencies) become real, which under `torch.device("meta")` they would not.
    Some functions of meta tensors make torch import its library of decompositions, for seconds; they are avoided.
    """

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.empty:
            return func(*args, **{**options, "device": "meta"})
        first = args[0] if args else options.get("tensor")
        if isinstance(first, Tensor) and first.is_meta:
            if func in _INITIALISERS:
                return first
            if func is torch.linalg.vector_norm:  # of a weight-normed convolution, which keeps its dimensions
                return first.new_empty([1 if axis in options["dim"] else size for axis, size in enumerate(first.shape)])
        return func(*args, **options)


def build(
    model_class: Callable[[C], M],
    config: C,
    tensors: Mapping[str, Tensor],
    source: str,
    dtype: torch.dtype | None = None,
    fold: bool = True,
    as_stored: Callable[[M], Iterable[str]] | None = None,
) -> M:
    """A model in evaluation mode with `tensors` as its weights.

    Args:
        model_class: one of the four models; called with `config` only.
        config: its config.
        tensors: the complete state dict, native names, any float dtype.
        source: what to call the origin of `tensors` in an error message.
        dtype: of all floating-point weights; None takes the widest that is stored.
        fold: turn weight-normed convolutions into plain ones and freeze the weights, for inference; training
            needs them as stored.
        as_stored: names of weights of the model that keep their dtype, whatever `dtype` is; they are not even read.

    Raises:
        CheckpointError: missing, surplus or mis-shaped tensors.
    """
    model = skeleton(model_class, config)
    check(model.state_dict(), tensors, source)
    if dtype is None:
        stored = (tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
        dtype = functools.reduce(torch.promote_types, stored)
    left = frozenset() if as_stored is None else frozenset(as_stored(model))
    cast = {
        name: tensor.to(dtype) if tensor.is_floating_point() and name not in left else tensor
        for name, tensor in tensors.items()
    }
    model.load_state_dict(cast, strict=True, assign=True)
    if fold:
        fold_weight_norm(model)
        model.requires_grad_(False)
    return model.eval()


def skeleton(model_class: Callable[[C], M], config: C) -> M:
    """A model whose parameters have shapes but no memory."""
    with _EmptyOnMeta():
        return model_class(config)


def check(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Compare names and shapes.

    Raises:
        CheckpointError: naming the first few tensors that are missing, surplus or have the wrong shape.
    """
    problems = []
    if missing := sorted(expected.keys() - found.keys()):
        problems.append(f"misses {_some(missing)}")
    if surplus := sorted(found.keys() - expected.keys()):
        problems.append(f"has unknown {_some(surplus)}")
    wrong = [
        f"{name} {list(found[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if wrong:
        problems.append(f"has wrong shapes: {_some(wrong)}")
    if problems:
        raise CheckpointError(
            f"{source}: does not match its config: {'; '.join(problems)}; use the config and weights of one model"
        )


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
