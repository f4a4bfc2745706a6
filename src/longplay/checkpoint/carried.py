"""What a published model has beyond our four models, kept beside them so that it can be written back bit for bit.

```
published/layout.json          how each .pt file is put together, tensors as references
published/extras.safetensors   tensors that our models do not use: dead layers, discriminators, differing copies
published/files/               every other file of the published directory, unchanged
```

A reference is `lm:NAME` for a tensor of a native weight file and `extras:NAME` for one of the extras. Training a
converted model further keeps this folder valid: the references then lead to the new weights.
"""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from longplay.checkpoint.layout import describe, rebuild
from longplay.checkpoint.names import ModelName, to_native
from longplay.checkpoint.pickles import read_pt
from longplay.checkpoint.published import PARTS, WEIGHT_FILES, native_name, same_bits
from longplay.checkpoint.store import MODELS, load_tensors, load_weights, save_tensors
from longplay.errors import CheckpointError

FOLDER = "published"
FILES = "files"
_LAYOUT = "layout.json"
_EXTRAS = "extras.safetensors"
# Copies in the published files of tensors that we keep once: file, prefix -> model, published prefix.
_COPIES: tuple[tuple[str, str, ModelName, str], ...] = (
    ("llm.pt", "llm.model.model.embed_tokens.", "lm", "text_embedding."),
    ("llm.pt", "llm.model.lm_head.", "lm", "text_embedding."),
    ("flow.pt", "quantizer.", "codec", "quantizer."),
)


def is_carried(directory: Path) -> bool:
    """Whether a native directory was made from a published one."""
    return (directory / FOLDER / _LAYOUT).is_file()


def carry(source: Path, weights: Mapping[ModelName, Mapping[str, Tensor]], directory: Path) -> None:
    """Keep everything of the published directory `source` that is not in `weights`.

    Args:
        source: published directory.
        weights: what `read_weights` found there, for all four models.
        directory: native directory; its folder `published` is made.

    Raises:
        CheckpointError: a `.pt` file is damaged or holds values that cannot be kept.
    """
    extras: dict[str, Tensor] = {}
    layout = {}
    for file in WEIGHT_FILES:
        data = read_pt(source / file)
        refer = _Referrer(source / file, file, weights, extras)
        layout[file] = describe(data, refer)
    folder = directory / FOLDER
    (folder / FILES).mkdir(parents=True)
    save_tensors(folder / _EXTRAS, extras)
    (folder / _LAYOUT).write_text(json.dumps(layout, indent=1), encoding="utf-8")
    for path in other_files(source):
        target = folder / FILES / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def restore(directory: Path, destination: Path) -> None:
    """Write the published files of a converted native directory into the existing folder `destination`.

    Raises:
        CheckpointError: the native directory is damaged, or does not fit its `published` folder.
        OSError: a file cannot be written.
    """
    folder = directory / FOLDER
    try:
        layout: dict[str, Any] = json.loads((folder / _LAYOUT).read_text(encoding="utf-8"))
    except ValueError:
        raise CheckpointError(f"{folder / _LAYOUT}: is damaged; convert the published model again") from None
    for path in other_files(folder / FILES):
        target = destination / path.relative_to(folder / FILES)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    fetch = _Fetcher(directory)
    for file, description in layout.items():
        target = destination / file
        target.parent.mkdir(parents=True, exist_ok=True)
        data = rebuild(description, fetch)
        try:
            torch.save(data, target)
        except RuntimeError as error:  # torch's word for a full disk
            raise OSError(errno.EIO, str(error).splitlines()[0]) from None


def other_files(directory: Path) -> Iterator[Path]:
    """Every file of a published directory except its weights and what is hidden, such as a download cache."""
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and relative.as_posix() not in WEIGHT_FILES:
            yield path


class _Referrer:
    """Names the place of each tensor of one `.pt` file, adding it to the extras if it has none."""

    def __init__(
        self, path: Path, file: str, weights: Mapping[ModelName, Mapping[str, Tensor]], extras: dict[str, Tensor]
    ) -> None:
        self.path, self.file, self.weights, self.extras = path, file, weights, extras

    def __call__(self, keys: tuple[Any, ...], tensor: Tensor) -> str:
        model, name = self._home(keys, tensor)
        if model is not None:
            return f"{model}:{name}"
        self.extras[name] = tensor
        return f"extras:{name}"

    def _home(self, keys: tuple[Any, ...], tensor: Tensor) -> tuple[ModelName | None, str]:
        part = next((part for part in PARTS if part.file == self.file and part.keys == keys[:-1]), None)
        if part is not None:
            native = native_name(part, keys[-1], self.path)
            if native is not None:
                return part.model, native
            for file, prefix, model, original in _COPIES:
                if file == self.file and keys[-1].startswith(prefix):
                    native = to_native(model, original + keys[-1].removeprefix(prefix))
                    if same_bits(tensor, self.weights[model][native]):
                        return model, native
        return None, f"{self.file}/{'/'.join(map(str, keys))}"


class _Fetcher:
    """The tensor of a reference; weight files are mapped when they are first needed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files: dict[str, dict[str, Tensor]] = {}

    def __call__(self, reference: str) -> Tensor:
        file, _, name = reference.partition(":")
        if file not in self.files:
            known = file in MODELS
            self.files[file] = (
                load_weights(self.directory, cast(ModelName, file))
                if known
                else load_tensors(self.directory / FOLDER / _EXTRAS)
            )
        if name not in self.files[file]:
            raise CheckpointError(f"{self.directory}: {file} has no tensor {name!r}, which the published layout needs")
        return self.files[file][name]
