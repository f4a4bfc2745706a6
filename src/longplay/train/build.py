"""From a config to a stage that can train."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
import yaml

from longplay.config import override, read_yaml
from longplay.data.manifest import Split, read_manifest
from longplay.errors import ConfigError
from longplay.train.audio_stage import AudioStage, AudioStageConfig
from longplay.train.loop import Stage

StageConfig = AudioStageConfig
CONFIGS: dict[str, type[StageConfig]] = {"tokenizer": AudioStageConfig, "codec": AudioStageConfig}


def load_stage_config(name: str, overrides: Sequence[str] = ()) -> StageConfig:
    """The config of a preset of this package, or of a YAML file.

    Raises:
        ConfigError: there is neither, or it does not fit.
    """
    presets = files("longplay.train") / "presets"
    preset = presets / f"{name}.yaml"
    if preset.is_file():
        data = yaml.safe_load(preset.read_text(encoding="utf-8"))
    elif Path(name).exists():
        data = read_yaml(name)
    else:
        known = sorted(entry.name.removesuffix(".yaml") for entry in presets.iterdir())
        raise ConfigError(f"{name}: neither a preset nor a file; presets are {', '.join(known)}")
    data = override(data, overrides)
    stage = data.get("stage")
    if stage not in CONFIGS:
        raise ConfigError(f"{name}: stage = {stage!r}; use one of {', '.join(CONFIGS)}")
    return CONFIGS[stage].parse(data, source=name)


def build_stage(config: StageConfig, data: Path, run: Path) -> Stage:
    """The stage of `config` over `data`; its config is written to `run/run.yaml`.

    Raises:
        ConfigError: the data cannot be read.
        TrainingError: the data holds nothing to train on.
    """
    torch.manual_seed(config.loop.seed)
    run.mkdir(parents=True, exist_ok=True)
    (run / "run.yaml").write_text(yaml.safe_dump(config.dump(), sort_keys=False), encoding="utf-8")
    return AudioStage(config, audio_files(data, "train", config.stage), audio_files(data, "valid", config.stage))


def audio_files(manifest: Path, split: Split, stage: str) -> list[tuple[Path, float]]:
    """Paths and seconds of the tracks of a split that `stage` may learn from."""
    return [
        (manifest.parent / track.path, track.seconds)
        for track in read_manifest(manifest)
        if track.split == split and (track.codec_ok or stage != "codec")
    ]
