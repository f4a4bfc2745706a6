"""Qwen2.5 as its hub has it (arXiv 2412.15115): the weights of text that an lm of the same sizes may start from.

```
config.json                     sizes
model.safetensors               weights; or several files, named by model.safetensors.index.json
tokenizer.json                  text tokenizer
```

It has no codes yet: what the lm has for them (`AUDIO_SIDE`) starts afresh.
"""

import json
from pathlib import Path

from torch import Tensor

from longplay.checkpoint import store
from longplay.checkpoint.published_config import QWEN_FILE, SYSTEM_FILE, qwen_sizes
from longplay.errors import CheckpointError
from longplay.models.lm_config import LMConfig

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
AUDIO_SIDE = ("audio_embedding.", "audio_head.", "structure_embedding.", "task_embedding.")
"""Beginnings of the names of tensors that it lacks."""

_NAMES = {"model.embed_tokens.": "text_embedding.", "model.layers.": "layers.", "model.norm.": "norm."}
_UNUSED = "lm_head."  # it would say words


def is_qwen(directory: Path) -> bool:
    """Whether `directory` looks like a Qwen model, and is none of music."""
    return (directory / QWEN_FILE).is_file() and not (store.is_native(directory) or (directory / SYSTEM_FILE).is_file())


def read_weights(directory: Path, config: LMConfig) -> dict[str, Tensor]:
    """Memory-mapped tensors under the names of an lm, in their stored dtypes.

    Args:
        directory: of the model.
        config: of the lm that is to start from it.

    Raises:
        CheckpointError: a file is missing or damaged, it is no Qwen2 model, or its sizes are not those of `config`.
    """
    for name, value in qwen_sizes(directory / QWEN_FILE).items():
        if (own := getattr(config, name)) != value:
            raise CheckpointError(
                f"{directory}: its {name} is {value}, the config's lm.{name} {own}; set lm.{name}={value}"
            )
    weights: dict[str, Tensor] = {}
    for file in weight_files(directory):
        for name, tensor in store.load_tensors(file).items():
            if not name.startswith(_UNUSED):
                weights[_native(name, file)] = tensor
    return weights


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the weights, in a fixed order.

    Raises:
        CheckpointError: the index of several is damaged.
    """
    index = directory / INDEX_FILE
    if not index.is_file():
        return [directory / WEIGHTS_FILE]
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return [directory / name for name in sorted(set(places.values()))]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index}: is damaged ({error!r}); download the model again") from None


def _native(name: str, file: Path) -> str:
    for theirs, ours in _NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise CheckpointError(f"{file}: tensor {name!r} is not part of a Qwen2 model; download the model again")
