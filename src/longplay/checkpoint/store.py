"""The native layout: a directory with one config and one safetensors file per model.

```
config.yaml             SystemConfig: a section per model that is present
tokenizer.safetensors   lm.safetensors   flow.safetensors   codec.safetensors
text_tokenizer.json     the `tokenizers` file of the text side
published/              only after converting a published model: what the native layout has no place for (carried.py)
```

Everything is strict: an unknown key, a missing, surplus or mis-shaped tensor, or a cut file is an error. A directory
may lack models (a training stage leaves one); a model is there if and only if its section is.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from longplay.checkpoint.names import ModelName
from longplay.checkpoint.quantized import widen
from longplay.config import Config, read_yaml, same_rate
from longplay.errors import CheckpointError, ConfigError
from longplay.files import replacing
from longplay.models.codec import CodecConfig
from longplay.models.flow_config import FlowConfig
from longplay.models.lm_config import LMConfig
from longplay.models.tokenizer import TokenizerConfig

MODELS: tuple[ModelName, ...] = ("tokenizer", "lm", "flow", "codec")
CONFIG_FILE = "config.yaml"
TEXT_FILE = "text_tokenizer.json"


class SystemConfig(Config):
    """A whole model directory: where it comes from, and the config of each model that is present."""

    version: Literal[1] = 1
    name: str = Field(default="unnamed", description="what `longplay models list` and recipes call it")
    licence: str = Field(default="not stated", description="of the weights")
    provenance: str = Field(default="not stated", description="who trained it, on what")
    tokenizer: TokenizerConfig | None = None
    lm: LMConfig | None = None
    flow: FlowConfig | None = None
    codec: CodecConfig | None = None

    @model_validator(mode="after")
    def _check_fit(self) -> Self:
        if self.tokenizer and self.tokenizer.num_codebooks > 1 and (self.lm or self.flow):
            raise ValueError(
                f"tokenizer.num_codebooks {self.tokenizer.num_codebooks}: lm and flow need a tokenizer of 1"
            )
        pairs: tuple[tuple[str, float | None, str, float | None], ...] = (
            (
                "lm.codebook_size",
                self.lm.codebook_size if self.lm else None,
                "tokenizer.codebook.size",
                self.tokenizer.codebook_size if self.tokenizer else None,
            ),
            (
                "flow.codebook_size",
                self.flow.codebook_size if self.flow else None,
                "tokenizer.codebook.size",
                self.tokenizer.codebook_size if self.tokenizer else None,
            ),
            (
                "flow.code_rate",
                self.flow.code_rate if self.flow else None,
                "the tokenizer's frame rate",
                self.tokenizer.frame_rate if self.tokenizer else None,
            ),
            (
                "flow.latent_dim",
                self.flow.latent_dim if self.flow else None,
                "the codec's latent width",
                self.codec.latent_dim if self.codec else None,
            ),
            (
                "flow.frame_rate",
                self.flow.frame_rate if self.flow else None,
                "the codec's frame rate",
                self.codec.frame_rate if self.codec else None,
            ),
        )
        for name, value, other_name, other in pairs:
            if value is not None and other is not None and not same_rate(value, other):
                raise ValueError(
                    f"{name} {value:.12g} differs from {other_name} {other:.12g}; the models are not of one system"
                )
        return self

    @property
    def present(self) -> tuple[ModelName, ...]:
        """The models that this directory holds."""
        return tuple(name for name in MODELS if getattr(self, name) is not None)


def is_native(directory: Path) -> bool:
    """Whether `directory` looks like the native layout."""
    return (directory / CONFIG_FILE).is_file()


def weights_file(directory: Path, model: ModelName) -> Path:
    """Where the weights of `model` lie."""
    return directory / f"{model}.safetensors"


def load_config(directory: Path) -> SystemConfig:
    """Read `config.yaml`.

    Raises:
        CheckpointError: it is missing, unreadable, or has a wrong key or value.
    """
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{directory}: has no {CONFIG_FILE}; give the directory of a model")
    try:
        return SystemConfig.parse(read_yaml(path), source=str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def load_weights(directory: Path, model: ModelName) -> dict[str, Tensor]:
    """Memory-mapped tensors of one model, in their stored dtypes; those in int8 become float16 (`checkpoint/quantized.py`).

    Raises:
        CheckpointError: the file is missing, cut or damaged.
    """
    path = weights_file(directory, model)
    return widen(load_tensors(path), str(path))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Memory-mapped tensors of a safetensors file.

    Raises:
        CheckpointError: the file is missing, cut or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing; the model is incomplete, download or convert it again")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is truncated or damaged ({error}); download or convert it again") from None


def read_metadata(path: Path) -> dict[str, str]:
    """What is written in the header of a safetensors file.

    Raises:
        CheckpointError: the file is missing, cut or damaged.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is truncated or damaged ({error}); remove it") from None


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, with `metadata` in its header; a reader sees the old file or the new one, never a part."""
    header = {"format": "pt", **(metadata or {})}
    with replacing(path) as part:
        save_file({name: _dense(tensor) for name, tensor in tensors.items()}, part, metadata=header)
        part.chmod(0o644)  # safetensors makes it private


def save_native(
    directory: Path,
    config: SystemConfig,
    weights: Mapping[ModelName, Mapping[str, Tensor]],
    text_tokenizer: bytes | None = None,
    overwrite: bool = False,
    metadata: Mapping[ModelName, Mapping[str, str]] | None = None,
) -> None:
    """Write a complete model directory.

    Args:
        directory: made by this call, whole or not at all.
        config: its sections name exactly the models in `weights`.
        weights: state dict per model, native names, any dtype.
        text_tokenizer: contents of the `tokenizers` JSON file.
        overwrite: replace a directory that is already there.
        metadata: for the headers of the weight files.

    Raises:
        CheckpointError: `directory` is there and `overwrite` is false.
        ValueError: the sections of `config` are not the models of `weights`.
    """
    if set(config.present) != set(weights):
        raise ValueError(f"config has the models {config.present}, weights are of {tuple(weights)}")
    with new_directory(directory, overwrite) as part:
        write_native(part, config, weights, text_tokenizer, metadata)


def write_native(
    directory: Path,
    config: SystemConfig,
    weights: Mapping[ModelName, Mapping[str, Tensor]],
    text_tokenizer: bytes | None,
    metadata: Mapping[ModelName, Mapping[str, str]] | None = None,
) -> None:
    """Write the files of the native layout into the existing `directory`; arguments as for `save_native`."""
    for model, tensors in weights.items():
        save_tensors(weights_file(directory, model), tensors, (metadata or {}).get(model))
    if text_tokenizer is not None:
        (directory / TEXT_FILE).write_bytes(text_tokenizer)
    present = {key: value for key, value in config.dump().items() if value is not None}
    text = yaml.safe_dump(present, sort_keys=False, allow_unicode=True)
    (directory / CONFIG_FILE).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def new_directory(directory: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary directory beside `directory` that takes its place when the block ends without an error.

    Raises:
        CheckpointError: `directory` is there, is not empty, and `overwrite` is false, or it cannot be written.
    """
    if directory.exists() and not overwrite and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(f"{directory}: already exists; remove it or choose another place")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be written ({error.strerror}); choose another place") from None
    try:
        part.chmod(0o755)  # mkdtemp makes it private
        yield part
        _swap(part, directory)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{directory}: cannot be written ({error}); is there room on the disk?") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _swap(part: Path, directory: Path) -> None:
    if not directory.exists():
        part.rename(directory)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{directory.name}.old.", dir=directory.parent))
    directory.rename(old / directory.name)
    part.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def _dense(tensor: Tensor) -> Tensor:
    # safetensors refuses expanded and strided tensors, and tensors that share memory within a file
    return tensor.detach().cpu().contiguous()
