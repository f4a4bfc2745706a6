"""What a stage leaves behind: a native model directory that holds its one model."""

from pathlib import Path

import yaml
from safetensors.torch import save_file
from torch import nn

from longplay.config import Config


def export_model(name: str, model: nn.Module, config: Config, directory: Path) -> None:
    """Write `directory/config.yaml` (section `name`) and `directory/<name>.safetensors`, each atomically."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = directory / f"{name}.safetensors"
    part = weights.with_suffix(".part")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, part)
    part.replace(weights)
    text = yaml.safe_dump({name: config.dump()}, sort_keys=False)
    part = directory / "config.yaml.part"
    part.write_text(text, encoding="utf-8")
    part.replace(directory / "config.yaml")
