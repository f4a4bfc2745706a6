"""The published layout, read: tensors of the four models under native names, straight from the `.pt` files.

`inspiremusic.yaml` marks such a directory. Base paths inside it are ignored, the directory itself stands in for them;
Qwen's own `model.safetensors` is ignored too, because `llm.pt` holds every LM weight (CHECKPOINTS.md 1).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longplay.checkpoint.names import ModelName, is_unused, to_native
from longplay.checkpoint.pickles import read_pt, tensors_at
from longplay.checkpoint.published_config import CODEC_FILE, QWEN_FILE, SYSTEM_FILE, TOKENIZER_FILE
from longplay.errors import CheckpointError


class Part(NamedTuple):
    """A state dict inside a `.pt` file: `file[keys]`; its names get `prefix` in our tables."""

    model: ModelName
    file: str
    keys: tuple[str, ...] = ()
    prefix: str = ""


PARTS = (
    Part("tokenizer", "wavtokenizer/model.pt", ("state_dict",)),
    Part("lm", "llm.pt"),
    Part("flow", "flow.pt"),
    Part("codec", "music_tokenizer/model.pt", ("encoder",), "encoder."),
    Part("codec", "music_tokenizer/model.pt", ("quantizer",), "quantizer."),
    Part("codec", "music_tokenizer/model.pt", ("generator",), "generator."),
)
WEIGHT_FILES = tuple(dict.fromkeys(part.file for part in PARTS))
# Discriminators and losses share the Lightning checkpoint with the model.
_TOKENIZER_PREFIXES = ("feature_extractor.", "backbone.", "head.")
# One tensor under three names in the published model; the first is the one that we use.
_TIED = ("text_embedding.weight", "llm.model.model.embed_tokens.weight", "llm.model.lm_head.weight")


def is_published(directory: Path) -> bool:
    """Whether `directory` looks like the published layout."""
    return (directory / SYSTEM_FILE).is_file()


def check_complete(directory: Path) -> None:
    """A published model has all its files, unlike a native one, which may lack models.

    Raises:
        CheckpointError: naming the files that are missing.
    """
    needed = (SYSTEM_FILE, QWEN_FILE, TOKENIZER_FILE, CODEC_FILE, *WEIGHT_FILES)
    missing = [file for file in needed if not (directory / file).is_file()]
    if missing:
        raise CheckpointError(f"{directory}: is incomplete, it misses {', '.join(missing)}; download the model again")


def read_weights(directory: Path, model: ModelName) -> dict[str, Tensor]:
    """Memory-mapped tensors of one model under native names, in their stored dtypes.

    Raises:
        CheckpointError: a file is missing, cut or damaged, holds an unknown tensor, or tied copies differ.
    """
    parts = [part for part in PARTS if part.model == model]
    data = {file: read_pt(directory / file) for file in {part.file for part in parts}}
    weights: dict[str, Tensor] = {}
    for part in parts:
        path = directory / part.file
        for name, tensor in tensors_at(data[part.file], part.keys, path).items():
            native = native_name(part, name, path)
            if native is not None:
                weights[native] = tensor
    if model == "lm":
        check_tied(data["llm.pt"], directory / "llm.pt")
    return weights


def native_name(part: Part, name: str, path: Path) -> str | None:
    """The native name of a tensor of `part`; None for one that our model does not use.

    Raises:
        CheckpointError: the name belongs to no published model.
    """
    full = part.prefix + name
    if part.model == "tokenizer" and not full.startswith(_TOKENIZER_PREFIXES):
        return None
    if is_unused(part.model, full):
        return None
    try:
        return to_native(part.model, full)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and bytes (NaN equals NaN, 0 differs from -0)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.data_ptr() == b.data_ptr() and a.stride() == b.stride():
        return True
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def check_tied(data: Mapping[Any, Any], path: Path) -> None:
    """The copies of the text embedding must be equal: the published model has only one.

    Raises:
        CheckpointError: they differ.
    """
    first, *copies = (data.get(name) for name in _TIED)
    for name, copy in zip(_TIED[1:], copies, strict=True):
        if isinstance(first, Tensor) and isinstance(copy, Tensor) and not same_bits(first, copy):
            raise CheckpointError(f"{path}: {_TIED[0]} and {name} differ, but are one tensor in the published model")
