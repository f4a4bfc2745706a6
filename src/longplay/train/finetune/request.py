"""What a finetune was asked to do; kept in its directory, so that it goes on with the same."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from longplay.config import Config, read_yaml
from longplay.errors import ConfigError
from longplay.files import write_text

REQUEST = "finetune.yaml"


class FinetuneConfig(Config):
    """Everything that what comes out depends on.

    Attributes:
        music: folder or manifest, absolute; what `longplay data build` takes.
        model: name or directory of the model to start from.
        caption: said of every file, before what is known of it.
        trigger: a word that starts every caption, and so calls for this music later.
        keep: manifest or folder of token shards of other music, absolute.
        keep_share: of what is learnt from that is of it, so that it is not forgotten.
        full: train all weights of the lm instead of a low-rank change.
        rank: of the change.
        steps: default: eight times through the music, within bounds.
        learning_rate: default: 1e-3 for LoRA, 1e-4 for all weights.
        batch_size: windows of a step.
        valid: share of the files to measure with.
        tags: let musicnn hear styles, instruments and moods, for captions.
        prompts: to make samples of; default: captions of files that are held out.
        sample_seconds: of each sample.
    """

    music: str
    model: str = "nano"
    caption: str | None = None
    trigger: str | None = None
    keep: str | None = None
    keep_share: float = Field(default=0.0, ge=0, le=0.9)
    full: bool = False
    rank: int = Field(default=16, ge=1, le=1024)
    steps: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=4, ge=1)
    valid: float = Field(default=0.1, gt=0, lt=1)
    tags: bool = True
    prompts: tuple[str, ...] = ()
    sample_seconds: float = Field(default=10.0, ge=1)
    seed: int = Field(default=0, ge=0)


def settle(config: FinetuneConfig, base_digest: str, run: Path) -> None:
    """Write the request into `run`, whose preparation begins; one that is there is gone on with.

    Raises:
        ConfigError: see `check_request`.
    """
    check_request(config, base_digest, run)
    if not (run / REQUEST).is_file():
        write_text(run / REQUEST, yaml.safe_dump(_asked(config, base_digest), sort_keys=False, allow_unicode=True))


def check_request(config: FinetuneConfig, base_digest: str, run: Path) -> None:
    """Check that `run` is new, or that the request that it holds is the same, over the same lm; nothing is written.

    Raises:
        ConfigError: it is another one.
    """
    path = run / REQUEST
    if path.is_file():
        usual = {name: field.default for name, field in FinetuneConfig.model_fields.items() if not field.is_required()}
        before = usual | read_yaml(path)  # what was not yet asked when the run began was as is usual now
        for key, value in _asked(config, base_digest).items():
            if before.get(key) != value:
                raise ConfigError(
                    f"{run}: holds a finetune with {key} = {before.get(key)!r}, not {value!r}; "
                    "ask for the same to go on, or give another directory"
                )
    elif run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise ConfigError(f"{run}: is there and holds no finetune; give a new directory with --run")


def _asked(config: FinetuneConfig, base_digest: str) -> dict[str, Any]:
    return {**config.dump(), "base_digest": base_digest}
