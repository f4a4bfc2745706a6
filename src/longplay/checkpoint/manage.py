"""What `longplay models list | info | download | convert | verify` do, as functions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from longplay.checkpoint import store
from longplay.checkpoint.build import check, skeleton
from longplay.checkpoint.convert import Layout, convert
from longplay.checkpoint.digest import digest
from longplay.checkpoint.hub import BUNDLED, KNOWN, download, locate, parse_hub_name
from longplay.checkpoint.names import ModelName
from longplay.checkpoint.quantized import is_part
from longplay.checkpoint.store import SystemConfig
from longplay.checkpoint.system import (
    check_text,
    load_config,
    load_stored,
    load_text_tokenizer,
    load_weights,
    weight_files,
)
from longplay.errors import CheckpointError
from longplay.models.codec import Codec
from longplay.models.flow import Flow
from longplay.models.lm import LM
from longplay.models.tokenizer import Tokenizer

_CLASSES: Mapping[ModelName, Callable[[Any], nn.Module]] = {
    "tokenizer": Tokenizer,
    "lm": LM,
    "flow": Flow,
    "codec": Codec,
}


@dataclass(frozen=True)
class Listed:
    """A model that can be asked for by name; `places` are the names to ask by."""

    name: str
    about: str
    places: tuple[str, ...]


@dataclass(frozen=True)
class Weights:
    """The weights of one of the four models: how many, how large on disk in bytes, in which dtypes."""

    parameters: int
    size: int
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class ModelInfo:
    """What a model directory holds."""

    config: SystemConfig
    directory: Path
    layout: Layout
    weights: Mapping[ModelName, Weights]
    has_text_tokenizer: bool


@dataclass(frozen=True)
class Verification:
    """A model that passed every check: number of tensors and the digest of its weight files."""

    info: ModelInfo
    tensors: int
    digest: str


def list_models() -> tuple[Listed, ...]:
    """The models that are known by name, the bundled ones first."""
    bundled = tuple(Listed(name, "ships with longplay", (name,)) for name in BUNDLED)
    published = (
        Listed(model.name, model.about, (model.huggingface, f"modelscope:{model.modelscope}")) for model in KNOWN
    )
    return bundled + tuple(published)


def model_info(name_or_path: str | Path, offline: bool = False) -> ModelInfo:
    """Describe a model without loading it.

    Raises:
        CheckpointError: no model there, or it is incomplete or damaged.
        DownloadError: a hub cannot be reached.
    """
    directory = locate(name_or_path, offline=offline)
    config = load_config(directory)
    weights = {model: _summary(load_stored(directory, model)) for model in config.present}
    layout: Layout = "native" if store.is_native(directory) else "published"
    return ModelInfo(config, directory, layout, weights, load_text_tokenizer(directory) is not None)


def download_model(name: str, offline: bool = False, complete: bool = False) -> Path:
    """Fetch a model from a hub into its cache.

    Args:
        name: as in `checkpoint/hub.py`.
        offline: use the cache only.
        complete: also fetch Qwen's own base weights, which only the public code needs.

    Raises:
        CheckpointError: `name` is not a name on a hub.
        DownloadError: the hub cannot be reached, or has no such model.
    """
    hub_name = parse_hub_name(name)
    if hub_name is None:
        raise CheckpointError(f"model {name!r}: is not a name on a hub; see `longplay models list`")
    return download(hub_name, offline=offline, complete=complete)


def convert_model(source: str | Path, destination: Path, to: Layout, offline: bool = False) -> None:
    """Write a model, by name or directory, in another layout; see `checkpoint/convert.py`.

    Raises:
        CheckpointError: no model there, it is damaged, or the layout cannot hold it.
        DownloadError: a hub cannot be reached.
    """
    convert(locate(source, offline=offline), destination, to)


def verify_model(name_or_path: str | Path, offline: bool = False) -> Verification:
    """Read all of a model and check names, shapes, that every number is finite, and that the parts fit together.

    Raises:
        CheckpointError: naming the first thing that is wrong.
        DownloadError: a hub cannot be reached.
    """
    info = model_info(name_or_path, offline=offline)
    check_text(info.directory, info.config, load_text_tokenizer(info.directory))
    tensors = 0
    for model in info.config.present:
        weights = load_weights(info.directory, model)
        source = f"{info.directory} {model}"
        check(skeleton(_CLASSES[model], getattr(info.config, model)).state_dict(), weights, source)
        for name, tensor in weights.items():
            if not bool(tensor.isfinite().all()):
                raise CheckpointError(f"{source}: tensor {name} holds NaN or infinity; download or train it again")
        tensors += len(weights)
    return Verification(info, tensors, digest(weight_files(info.directory, info.config)))


def _summary(weights: Mapping[str, Tensor]) -> Weights:
    return Weights(
        parameters=sum(tensor.numel() for name, tensor in weights.items() if not is_part(name, weights)),
        size=sum(tensor.numel() * tensor.element_size() for tensor in weights.values()),
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()})),
    )
