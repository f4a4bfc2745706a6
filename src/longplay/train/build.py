"""From a config to a stage that can train."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from longplay.checkpoint.adapter import AdapterConfig
from longplay.checkpoint.hub import locate
from longplay.checkpoint.store import TEXT_FILE
from longplay.checkpoint.system import lm_digest, load_config, load_system, load_text_tokenizer, weight_files
from longplay.config import merge, override, read_yaml, same_rate
from longplay.data.manifest import Split, read_manifest
from longplay.data.token_tracks import TokenTrack, figures_of, read_token_tracks
from longplay.errors import CheckpointError, ConfigError, TrainingError
from longplay.models.lm import LM
from longplay.text import TextTokenizer
from longplay.train.audio_stage import AudioStage, AudioStageConfig
from longplay.train.checkpoint_file import holds_start
from longplay.train.encoding import load_tokenizer
from longplay.train.flow_stage import FlowStage, FlowStageConfig
from longplay.train.init import start_from
from longplay.train.lm_stage import LMStage, LMStageConfig
from longplay.train.lora import add_lora
from longplay.train.stage import Stage
from longplay.train.word_styles import compute_word_styles

StageConfig = AudioStageConfig | LMStageConfig | FlowStageConfig
CONFIGS: dict[str, type[AudioStageConfig] | type[LMStageConfig] | type[FlowStageConfig]] = {
    "tokenizer": AudioStageConfig,
    "codec": AudioStageConfig,
    "lm": LMStageConfig,
    "flow": FlowStageConfig,
}


def load_stage_config(name: str, overrides: Sequence[str] = ()) -> StageConfig:
    """The config of a preset of this package, or of a YAML file; `like` in it names one that it changes.

    Raises:
        ConfigError: there is neither, or it does not fit.
    """
    data = override(_read(name), overrides)
    stage = data.get("stage")
    if stage not in CONFIGS:
        raise ConfigError(f"{name}: stage = {stage!r}; use one of {', '.join(CONFIGS)}")
    return CONFIGS[stage].parse(data, source=name)


def _read(name: str, changing: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a preset or a file says, and what that says which it changes; `changing` are those that lead here."""
    if name in changing:
        raise ConfigError(f"{name}: like itself, by way of {', '.join(changing)}; name another preset or file")
    presets = files("longplay.train") / "presets"
    preset = presets / f"{name}.yaml"
    if preset.is_file():
        data = yaml.safe_load(preset.read_text(encoding="utf-8"))
    elif Path(name).exists():
        data = read_yaml(name)
    else:
        known = sorted(entry.name.removesuffix(".yaml") for entry in presets.iterdir())
        raise ConfigError(f"{name}: neither a preset nor a file; presets are {', '.join(known)}")
    like = data.pop("like", None)
    return data if like is None else merge(_read(str(like), (*changing, name)), data)


def build_stage(config: StageConfig, data: Path | str, run: Path) -> Stage:
    """The stage of `config` over `data`; a new text tokenizer is written to `run`.

    Args:
        config: of any stage.
        data: a manifest (tokenizer, codec) or a folder of token shards (lm, flow), by path or address.
        run: the run directory.

    Raises:
        CheckpointError: a model that the stage stands on is missing.
        DownloadError: `init` names one on a hub, which cannot be reached.
        ConfigError: the data cannot be read.
        TrainingError: the data holds nothing to train on, or the checkpoint in `run` is damaged.
    """
    torch.manual_seed(config.loop.seed)
    begins = not holds_start(run)
    if isinstance(config, AudioStageConfig):
        train_files, held_out_files = (audio_files(Path(data), split, config.stage) for split in ("train", "valid"))
        return AudioStage(config, train_files, held_out_files, begins)
    train, held_out = read_token_tracks(data, "train"), read_token_tracks(data, "valid")
    if isinstance(config, FlowStageConfig):
        codec = load_system(config.codec).codec
        if codec is None:
            raise CheckpointError(f"{config.codec}: holds no codec; give the model directory of a codec run")
        _check_fit("flow.latent_dim", config.flow.latent_dim, codec.config.latent_dim, "the codec's latents have")
        _check_fit(
            "flow.frame_rate",
            config.flow.frame_rate,
            codec.config.frame_rate,
            "of the codec's latents a second there are",
        )
        for tracks in (train, held_out):
            _check_codes("flow", config.flow.codebook_size, tracks)
        return FlowStage(config, codec, train, held_out, begins)
    return build_lm_stage(config, train, held_out, run)


def build_lm_stage(
    config: LMStageConfig, train: Sequence[TokenTrack], held_out: Sequence[TokenTrack], run: Path
) -> LMStage:
    """The lm's stage over tracks that are at hand; else as `build_stage`."""
    tokenizer = load_tokenizer(config.tokenizer)
    _check_fit(
        "lm.code_rate", config.lm.code_rate, tokenizer.config.frame_rate, "of the tokenizer's codes a second there are"
    )
    for tracks in (train, held_out):
        _check_codes("lm", config.lm.codebook_size, tracks)
    init = None if config.init is None else locate(str(config.init))
    text = _text_tokenizer(config, init, run, train)
    kept = read_token_tracks(config.keep, "valid") if config.keep is not None else ()
    rehearsed = read_token_tracks(config.keep, "train") if config.keep is not None and config.keep_share else ()
    stage = LMStage(
        config, tokenizer, text, train, held_out, kept, rehearsed, _adapter(config, init), _reference(config, init)
    )
    if init is not None:
        _start_from(stage, init)
    words = stage.model.word_styles
    # those of `init` know more words than a few pieces more tell
    if words is not None and not words.each.weight.any() and not holds_start(run):
        compute_word_styles(words, text, train)
    if config.lora is not None:
        add_lora(stage.model, config.lora)
    return stage


def _check_fit(key: str, given: float, needed: float, what: str) -> None:
    """Refuse a config that is about other codes or latents than there are.

    Raises:
        ConfigError: naming the key.
    """
    if not same_rate(given, needed):
        raise ConfigError(f"{key} = {given:.12g}: {what} {needed:.12g}; set {key}={needed:.12g}")


def _check_codes(stage: str, size: int, tracks: Sequence[TokenTrack]) -> None:
    """Refuse shards of a tokenizer with more codes.

    Raises:
        TrainingError: naming the piece.
    """
    figures = figures_of(tracks)
    for index in np.flatnonzero(figures.largest >= size)[:1]:
        raise TrainingError(
            f"{figures.utts[index]}: has code {figures.largest[index]}, and {stage}.codebook_size is {size}; "
            "set it to the size of the tokenizer's codebook"
        )


def audio_files(manifest: Path, split: Split, stage: str) -> list[tuple[Path, float]]:
    """Paths and seconds of the tracks of a split that `stage` may learn from."""
    return [
        (manifest.parent / track.path, track.seconds)
        for track in read_manifest(manifest)
        if track.split == split and (track.codec_ok or stage != "codec")
    ]


def _reference(config: LMStageConfig, init: Path | None) -> LM | None:
    """What `preference` holds the model near: the one that it starts from."""
    if config.preference is None or init is None:
        return None
    reference = LM(config.lm)
    start_from(reference, "lm", init)
    return reference


def _adapter(config: LMStageConfig, init: Path | None) -> AdapterConfig | None:
    """What the adapter of a run says of itself."""
    if config.lora is None or init is None:
        return None
    base = lm_digest(weight_files(init, load_config(init)))
    return AdapterConfig(base=str(config.init), base_digest=base, rank=config.lora.rank, alpha=config.lora.alpha)


def _start_from(stage: LMStage, directory: Path) -> None:
    """Another text tokenizer means other words: the text embedding then starts afresh."""
    text = load_text_tokenizer(directory)
    same_text = text is not None and text.to_json() == stage.text.to_json()
    start_from(
        stage.model,
        "lm",
        directory,
        own=() if same_text else ("text_embedding.weight", "word_styles.each.weight", "word_styles.any"),
    )


def _text_tokenizer(config: LMStageConfig, init: Path | None, run: Path, tracks: Sequence[TokenTrack]) -> TextTokenizer:
    """The run's text tokenizer, learnt once from the training captions, or that of the model it starts from."""
    if config.text == "init" and init is not None:
        text = load_text_tokenizer(init)
        if text is None:
            raise CheckpointError(f"{init}: holds no text tokenizer; set text=own")
        if text.vocab_size > config.lm.text_vocab_size:
            raise CheckpointError(
                f"{init}: its text tokenizer has {text.vocab_size} ids, lm.text_vocab_size is {config.lm.text_vocab_size}; "
                "set it to the rows of that model's text embedding"
            )
        return text
    run.mkdir(parents=True, exist_ok=True)
    path = run / TEXT_FILE
    if not path.exists():
        captions = (caption for track in tracks for caption in track.every_caption)
        TextTokenizer.train(captions, config.lm.text_vocab_size).save(path)
    return TextTokenizer.load(path)
