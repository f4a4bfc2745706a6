"""Reading `.pt` files safely: `torch.load` with `weights_only` and memory mapping, and plain messages when damaged."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longplay.errors import CheckpointError


def read_pt(path: Path) -> dict[Any, Any]:
    """The dict in a `.pt` file; tensors stay on disk until they are used. Nothing in the file is executed.

    Raises:
        CheckpointError: missing, truncated, not written by `torch.save`, holding code, or not a dict.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing; the model is incomplete, download it again")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path}: is truncated or not a PyTorch file ({path.stat().st_size} bytes); download it again"
        )
    try:
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[-1]
        raise CheckpointError(
            f"{path}: holds more than tensors and plain values, so it is not read ({reason})"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: is damaged ({reason}); download it again") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds {type(data).__name__}, expected a dict of tensors")
    return data


def tensors_at(data: Mapping[Any, Any], keys: tuple[str, ...], path: Path) -> dict[str, Tensor]:
    """The named tensors of the dict at `data[keys[0]][keys[1]]...`; entries that are not tensors are left out.

    Raises:
        CheckpointError: there is no such dict, or it holds no tensor.
    """
    node: Any = data
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    tensors = (
        {name: item for name, item in node.items() if isinstance(item, Tensor)} if isinstance(node, Mapping) else {}
    )
    if not tensors:
        where = ".".join(keys) or "the file"
        raise CheckpointError(f"{path}: {where} holds no tensors; it is not the file of a published InspireMusic model")
    return tensors
