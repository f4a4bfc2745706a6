"""What a stage leaves behind: a native model directory that holds its one model."""

from pathlib import Path

from torch import nn

from longplay.checkpoint.names import ModelName
from longplay.checkpoint.store import SystemConfig, save_native
from longplay.config import Config
from longplay.text import TextTokenizer


def export_model(
    name: ModelName, model: nn.Module, config: Config, directory: Path, text: TextTokenizer | None = None
) -> None:
    """Write `directory` anew, whole or not at all: the config's section `name`, the weights, the text tokenizer."""
    system = SystemConfig.parse({"name": directory.parent.name, name: config.dump()})
    text_tokenizer = None if text is None else text.to_json().encode("utf-8")
    directory.parent.mkdir(parents=True, exist_ok=True)
    save_native(directory, system, {name: model.state_dict()}, text_tokenizer, overwrite=True)
