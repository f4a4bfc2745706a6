"""Reading `.pt` files safely: `torch.load` with `weights_only` and memory mapping, and plain messages when damaged."""

import logging
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longplay.errors import CheckpointError

logger = logging.getLogger(__name__)


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
        data = _load(path)
    except (RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: is damaged ({reason}); download it again") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds {type(data).__name__}, expected a dict of tensors")
    return data


def _load(path: Path) -> Any:
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True, "mmap": True}
    try:
        return torch.load(path, **options)
    except pickle.UnpicklingError:
        # Training frameworks leave namespaces and dict classes beside the weights. Each class name is bound to a
        # plain dict, so that nothing of the class is needed, imported or run.
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        try:
            with torch.serialization.safe_globals([(OrderedDict, name) for name in unknown]):
                data = torch.load(path, **options)
        except (pickle.UnpicklingError, TypeError, ValueError):
            names = ", ".join(sorted(unknown)) or "an unknown kind of pickle"
            raise CheckpointError(
                f"{path}: holds more than tensors and plain values ({names}), so it is not read"
            ) from None
        logger.warning("%s: objects of %s are read as plain dicts", path, ", ".join(sorted(unknown)))
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
