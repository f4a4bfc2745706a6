"""A complete model in memory: `load_system` opens any model directory or name, whatever its layout."""

import functools
import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from longplay.checkpoint import published, store
from longplay.checkpoint.adapter import Adapter
from longplay.checkpoint.build import build
from longplay.checkpoint.digest import Digest, digest
from longplay.checkpoint.hub import locate
from longplay.checkpoint.names import ModelName
from longplay.checkpoint.published_config import codec_config, flow_config, lm_config, published_name, tokenizer_config
from longplay.checkpoint.store import SystemConfig
from longplay.errors import CheckpointError
from longplay.models.codec import Codec
from longplay.models.flow import Flow
from longplay.models.lm import LM
from longplay.models.tokenizer import Tokenizer
from longplay.text import TextTokenizer

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C")
_DIGEST_NOTE = ".lm.digest.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class System:
    """The four models, ready for inference, with what they were loaded from; a model that is absent is None.

    Attributes:
        config: of the whole directory.
        directory: where it lies.
        weight_files: its weight files, in a fixed order.
        device: where the models are.
        adapter: what was added to the lm, if anything.
    """

    config: SystemConfig
    directory: Path
    weight_files: tuple[Path, ...]
    device: torch.device
    tokenizer: Tokenizer | None = None
    lm: LM | None = None
    flow: Flow | None = None
    codec: Codec | None = None
    text_tokenizer: TextTokenizer | None = None
    adapter: Adapter | None = None

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the weight files, hex; read on first use, which takes about a second per GB."""
        return digest(self.weight_files)

    @functools.cached_property
    def lm_digest(self) -> str:
        """SHA-256 over the weights of the lm, hex, read unless it is noted; with an adapter, over what they were made of."""
        if self.adapter is None:
            return self._lm_digest.sha256
        base = self.adapter.config.base_digest  # opening the model has checked it
        return hashlib.sha256(f"{base} {self.adapter.digest} {self.adapter.scale:g}".encode()).hexdigest()

    @functools.cached_property
    def _lm_digest(self) -> Digest:
        files = lm_files(self.weight_files)
        return Digest.noted(files, self.directory / _DIGEST_NOTE) or Digest.of(files)

    def note_lm_digest(self) -> None:
        """Write `lm_digest` down beside the model, for the next time; it has another form there."""
        note = self.directory / _DIGEST_NOTE
        if self.adapter is None and Digest.noted(lm_files(self.weight_files), note) is None:
            self._lm_digest.keep(note)

    @property
    def lm_directory(self) -> Path:
        """Where other forms of the lm are kept: beside the adapter, else beside the model."""
        return self.directory if self.adapter is None else self.adapter.directory


def load_system(
    name_or_path: str | Path = "nano",
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    offline: bool = False,
    adapter: Adapter | None = None,
    lean: bool = False,
) -> System:
    """Open a model for inference.

    Args:
        name_or_path: `nano`, a native or published directory, or a name on a hub (`checkpoint/hub.py`).
        device: where the models go.
        dtype: of the lm. None: float32 on the CPU, elsewhere the widest dtype that is stored. The other three
            always compute in float32.
        offline: never ask a hub, only its cache.
        adapter: to be added to the lm.
        lean: leave what other forms of the lm replace (`LM.replaced`) as it is stored and on disk until it is read. Such an
            lm is only good for making a decoder of it; `lm.float()` makes it an ordinary one.

    Raises:
        CheckpointError: no model there, it is incomplete, damaged or inconsistent, or the adapter is not for it.
        DownloadError: a hub cannot be reached.
    """
    directory = locate(name_or_path, offline=offline)
    target = torch.device(device)
    if dtype is None and target.type == "cpu":
        dtype = torch.float32
    config = load_config(directory)
    text_tokenizer = load_text_tokenizer(directory)
    check_text(directory, config, text_tokenizer)
    files = weight_files(directory, config)
    if adapter is not None:
        adapter.check_base(str(name_or_path), lm_digest(files))
    system = System(
        config=config,
        directory=directory,
        weight_files=files,
        device=target,
        tokenizer=_open(Tokenizer, config.tokenizer, directory, "tokenizer", target, torch.float32),
        lm=_open(LM, config.lm, directory, "lm", target, dtype, adapter, LM.replaced if lean else None),
        flow=_open(Flow, config.flow, directory, "flow", target, torch.float32),
        codec=_open(Codec, config.codec, directory, "codec", target, torch.float32),
        text_tokenizer=text_tokenizer,
        adapter=adapter,
    )
    logger.info("loaded %s from %s: %s", config.name, directory, ", ".join(config.present))
    return system


def load_config(directory: Path) -> SystemConfig:
    """The config of a native or published directory.

    Raises:
        CheckpointError: it is neither, or a config file is missing or wrong.
    """
    if store.is_native(directory):
        return store.load_config(directory)
    if not published.is_published(directory):
        raise CheckpointError(
            f"{directory}: is not a model; expected {store.CONFIG_FILE} (native) or inspiremusic.yaml (published) in it"
        )
    published.check_complete(directory)
    tokenizer, codec = tokenizer_config(directory), codec_config(directory)
    name = published_name(directory)
    return SystemConfig(
        name=name,
        licence="as stated by the publisher of the checkpoint",
        provenance=f"published InspireMusic checkpoint {name}",
        tokenizer=tokenizer,
        lm=lm_config(directory, tokenizer.frame_rate),
        flow=flow_config(directory, codec.frame_rate),
        codec=codec,
    )


def load_text_tokenizer(directory: Path) -> TextTokenizer | None:
    """The text side of a native or published directory; None where a native one has none.

    Raises:
        CheckpointError: it is damaged, or missing in a published directory.
    """
    if not store.is_native(directory):
        return TextTokenizer.load_published(directory)
    path = directory / store.TEXT_FILE
    return TextTokenizer.load(path) if path.is_file() else None


def check_text(directory: Path, config: SystemConfig, text_tokenizer: TextTokenizer | None) -> None:
    """The lm must have a row for each id of the text tokenizer; it may have more.

    Raises:
        CheckpointError: it has not.
    """
    if config.lm is not None and text_tokenizer is not None and text_tokenizer.vocab_size > config.lm.text_vocab_size:
        raise CheckpointError(
            f"{directory}: its text tokenizer has {text_tokenizer.vocab_size} ids, its lm only "
            f"{config.lm.text_vocab_size}; use the files of one model"
        )


def load_weights(directory: Path, model: ModelName) -> dict[str, Tensor]:
    """Memory-mapped tensors of one model of a native or published directory, native names, stored dtypes, int8 as float16.

    Raises:
        CheckpointError: a weight file is missing, cut or damaged.
    """
    return (
        store.load_weights(directory, model) if store.is_native(directory) else published.read_weights(directory, model)
    )


def load_stored(directory: Path, model: ModelName) -> dict[str, Tensor]:
    """As `load_weights`, but with the parts of int8 tensors as they lie in the file (`checkpoint/quantized.py`)."""
    if store.is_native(directory):
        return store.load_tensors(store.weights_file(directory, model))
    return published.read_weights(directory, model)


def weight_files(directory: Path, config: SystemConfig) -> tuple[Path, ...]:
    """The files that hold the weights, in a fixed order."""
    if store.is_native(directory):
        return tuple(store.weights_file(directory, model) for model in config.present)
    return tuple(directory / file for file in published.WEIGHT_FILES)


def lm_digest(files: tuple[Path, ...]) -> str:
    """SHA-256, hex, over the weights of the lm among the weight files of a model."""
    return digest(lm_files(files))


def lm_files(files: tuple[Path, ...]) -> tuple[Path, ...]:
    """Those that hold the lm, among the weight files of a model."""
    return tuple(file for file in files if file.stem in ("lm", "llm"))


def _open(
    model_class: Callable[[C], M],
    section: C | None,
    directory: Path,
    model: ModelName,
    device: torch.device,
    dtype: torch.dtype | None,
    adapter: Adapter | None = None,
    as_stored: Callable[[M], Iterable[str]] | None = None,
) -> M | None:
    if section is None:
        return None
    weights = load_weights(directory, model)
    if adapter is not None:
        weights = adapter.added(weights, dtype)
    return build(model_class, section, weights, f"{directory} {model}", dtype, as_stored=as_stored).to(device)
