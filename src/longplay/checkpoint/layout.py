"""The structure of a `.pt` file as JSON, with its tensors replaced by references.

Plain values and containers are kept as they are, so a file can be put together again with the same keys in the same
order, the same types, and tied tensors tied.
"""

import base64
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from longplay.errors import CheckpointError

Keys = tuple[Any, ...]


def describe(value: Any, refer: Callable[[Keys, Tensor], str]) -> Any:
    """`value` as JSON.

    Args:
        value: what `torch.load` returned.
        refer: names the place where a tensor is kept, given its path of keys.

    Raises:
        CheckpointError: a value is neither plain nor a tensor.
    """
    return _Describer(refer).describe(value, ())


def rebuild(description: Any, fetch: Callable[[str], Tensor]) -> Any:
    """The inverse of `describe`: `fetch` returns the tensor of a reference; each gets memory of its own, unless tied."""
    return _Rebuilder(fetch).rebuild(description)


class _Describer:
    def __init__(self, refer: Callable[[Keys, Tensor], str]) -> None:
        self.refer = refer
        self.seen: dict[str, int] = {}

    def describe(self, value: Any, path: Keys) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        if isinstance(value, OrderedDict):
            return {"ordered": self._pairs(value, path), "attributes": self._pairs(vars(value), (*path, "attributes"))}
        if isinstance(value, dict):
            return {"dict": self._pairs(value, path)}
        if isinstance(value, torch.Size):
            return {"size": list(value)}
        if isinstance(value, list | tuple | set):
            kind = next(kind for kind in (list, tuple, set) if isinstance(value, kind)).__name__
            return {kind: [self.describe(item, (*path, index)) for index, item in enumerate(value)]}
        if isinstance(value, bytes):
            return {"bytes": base64.b64encode(value).decode("ascii")}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        where = ".".join(map(str, path))
        raise CheckpointError(
            f"entry {where} is a {type(value).__name__}, which cannot be kept; remove it from the file"
        )

    def _pairs(self, mapping: dict[Any, Any], path: Keys) -> list[list[Any]]:
        return [[self.describe(key, path), self.describe(item, (*path, key))] for key, item in mapping.items()]

    def _tensor(self, tensor: Tensor, path: Keys) -> dict[str, Any]:
        reference = self.refer(path, tensor)
        entry: dict[str, Any] = {"tensor": reference}
        if self.seen.setdefault(reference, tensor.data_ptr()) != tensor.data_ptr():
            entry["copy"] = True
        if isinstance(tensor, nn.Parameter):
            entry["parameter"] = tensor.requires_grad
        return entry


class _Rebuilder:
    def __init__(self, fetch: Callable[[str], Tensor]) -> None:
        self.fetch = fetch
        self.made: dict[str, Tensor] = {}

    def rebuild(self, entry: Any) -> Any:
        if not isinstance(entry, dict):
            return entry
        kind, content = next(iter(entry.items()))
        match kind:
            case "tensor":
                return self._tensor(entry)
            case "dict":
                return self._pairs(content)
            case "ordered":
                ordered = OrderedDict(self._pairs(content))
                vars(ordered).update(self._pairs(entry["attributes"]))
                return ordered
            case "list" | "tuple" | "set":
                return {"list": list, "tuple": tuple, "set": set}[kind](self.rebuild(item) for item in content)
            case "size":
                return torch.Size(content)
            case "bytes":
                return base64.b64decode(content)
            case "dtype":
                return getattr(torch, content)
            case _:
                raise CheckpointError(f"layout: unknown kind {kind!r}; convert the published model again")

    def _pairs(self, pairs: list[list[Any]]) -> dict[Any, Any]:
        return {self.rebuild(key): self.rebuild(item) for key, item in pairs}

    def _tensor(self, entry: dict[str, Any]) -> Tensor:
        reference = entry["tensor"]
        if reference not in self.made or "copy" in entry:
            tensor = self.fetch(reference).clone()  # its own storage: torch.save writes whole storages
            if "parameter" in entry:
                tensor = nn.Parameter(tensor, requires_grad=entry["parameter"])
            self.made.setdefault(reference, tensor)
            return tensor
        return self.made[reference]
