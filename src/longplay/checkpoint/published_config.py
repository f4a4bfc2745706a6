"""Sizes of a published model, from its four config files, as our configs.

What the published code fixes itself (CHECKPOINTS.md 2) comes from the `published` preset of each config class;
what its files state replaces it. Class names in the files are compared by their last component only.
"""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from longplay.checkpoint.tags import CLASS, read_tagged_yaml
from longplay.config import Config
from longplay.errors import CheckpointError, ConfigError
from longplay.models.codec import CodecConfig
from longplay.models.flow_config import FlowConfig
from longplay.models.lm_config import LMConfig
from longplay.models.tokenizer import TokenizerConfig

QWEN_KEYS = {
    "text_vocab_size": "vocab_size",
    "dim": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "intermediate_dim": "intermediate_size",
    "rope_theta": "rope_theta",
    "norm_eps": "rms_norm_eps",
}
"""Sizes of an lm, by the keys of `LMConfig`, and those of Qwen's `config.json`."""
SYSTEM_FILE = "inspiremusic.yaml"
QWEN_FILE = "config.json"
CODEC_FILE = "music_tokenizer/config.json"
TOKENIZER_FILE = "wavtokenizer/config.yaml"

C = TypeVar("C", bound=Config)
logger = logging.getLogger(__name__)


class _Section:
    """One mapping of a published config file; a wrong or missing key is reported with file and key."""

    def __init__(self, data: Any, path: Path, name: str = "") -> None:
        if not isinstance(data, Mapping):
            raise CheckpointError(f"{path}: {name or 'it'} is {type(data).__name__}, expected a mapping")
        self.data, self.path, self.name = data, path, name

    def __getitem__(self, key: str) -> Any:
        if key not in self.data:
            raise CheckpointError(f"{self.path}: key {self._full(key)!r} is missing; is it of a published model?")
        return self.data[key]

    def section(self, key: str) -> "_Section":
        return _Section(self[key], self.path, self._full(key))

    def expect(self, key: str, *allowed: Any) -> None:
        if (value := self.data.get(key, allowed[0])) not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise CheckpointError(f"{self.path}: {self._full(key)} = {value!r} is not supported; expected {choices}")

    def expect_class(self, *allowed: str) -> None:
        self.expect(CLASS, *allowed)

    def config(self, config_class: type[C], preset: C, changes: Mapping[str, Any]) -> C:
        """`preset` with `changes` (whole sections of it are merged)."""
        try:
            return config_class.parse(_merge(preset.model_dump(), changes), source=str(self.path))
        except ConfigError as error:
            raise CheckpointError(str(error)) from None

    def _full(self, key: str) -> str:
        return f"{self.name}.{key}".lstrip(".")


def tokenizer_config(directory: Path) -> TokenizerConfig:
    """From `wavtokenizer/config.yaml`.

    Raises:
        CheckpointError: the file or a key is missing, or names parts that our model does not have.
    """
    path = directory / TOKENIZER_FILE
    init = _Section(read_tagged_yaml(path), path).section("model").section("init_args")
    encoder, backbone, head = (_part(init, key) for key in ("feature_extractor", "backbone", "head"))
    encoder.expect("num_quantizers", 1)
    head.expect("padding", "same")
    changes = {
        "sample_rate": init.data.get("sample_rate", 24000),
        "hop_length": head["hop_length"],
        "latent_dim": backbone["input_channels"],
        "codebook": {"size": encoder["vq_bins"], "dim": backbone["input_channels"]},
        # the misspelt key is the published one; strides are used in reverse
        "encoder": {"strides": list(reversed(encoder["dowmsamples"]))},
        "decoder": {
            "dim": backbone["dim"],
            "intermediate_dim": backbone["intermediate_dim"],
            "num_layers": backbone["num_layers"],
            "num_conditions": backbone["adanorm_num_embeddings"],
            "n_fft": head["n_fft"],
        },
    }
    return init.config(TokenizerConfig, TokenizerConfig.published(), changes)


def codec_config(directory: Path) -> CodecConfig:
    """From `music_tokenizer/config.json`; the encoder uses every list in reverse (CHECKPOINTS.md 3.5).

    The public code never reads `sampling_rate`, so where it is absent or odd the name of the model tells.

    Raises:
        CheckpointError: as for `tokenizer_config`.
    """
    file = _read_json(directory / CODEC_FILE)
    named = 24000 if "24kHz" in published_name(directory) else 48000
    sample_rate = file.data.get("sampling_rate", named)
    if sample_rate != named:
        logger.warning(
            "%s: sampling_rate %s is not the %d Hz of the model's name; if music sounds too slow or too fast, correct it",
            file.path,
            sample_rate,
            named,
        )
    preset = CodecConfig.published(sample_rate)
    groups = file["n_code_groups"]
    strides, kernels = file["upsample_rates"], file["upsample_kernel_sizes"]
    block_kernels, dilations = file["resblock_kernel_sizes"], file["resblock_dilation_sizes"]
    changes = {
        "hop_length": math.prod(strides),
        "quantizer": {
            "num_groups": groups,
            "codebook": {
                "size": file["n_codes"],
                "dim": preset.latent_dim // groups,
                "codebook_loss": file["codebook_loss_lambda"],
                "commitment_loss": file["commitment_loss_lambda"],
            },
        },
        "encoder": {
            "strides": strides[::-1],
            "kernel_sizes": kernels[::-1],
            "resblock": str(file["resblock"]),
            "resblock_kernel_sizes": block_kernels[::-1],
            "resblock_dilations": dilations[::-1],
        },
        "decoder": {
            "channels": file["upsample_initial_channel"],
            "strides": strides,
            "kernel_sizes": kernels,
            "resblock": str(file["resblock"]),
            "resblock_kernel_sizes": block_kernels,
            "resblock_dilations": dilations,
        },
    }
    return file.config(CodecConfig, preset, changes)


def lm_config(directory: Path, code_rate: float) -> LMConfig:
    """From `inspiremusic.yaml` and Qwen's `config.json`.

    Args:
        directory: of the model.
        code_rate: codes per second of the tokenizer.

    Raises:
        CheckpointError: as for `tokenizer_config`.
    """
    path = directory / SYSTEM_FILE
    lm, sizes = _Section(read_tagged_yaml(path), path).section("llm"), qwen_sizes(directory / QWEN_FILE)
    lm.expect_class("LLM")
    lm.expect("llm_input_size", sizes["dim"])
    lm.expect("llm_output_size", sizes["dim"])
    changes = {
        **sizes,
        "codebook_size": lm["audio_token_size"],
        "code_rate": code_rate,
        "text_dropout": lm["train_cfg_ratio"],
    }
    return lm.config(LMConfig, LMConfig.published("base"), changes)


def qwen_sizes(path: Path) -> dict[str, Any]:
    """What Qwen's `config.json` says of an lm, by the keys of `LMConfig`.

    Raises:
        CheckpointError: the file is missing or damaged, or of a model that computes otherwise.
    """
    qwen = _read_json(path)
    qwen.expect("model_type", "qwen2")
    qwen.expect("hidden_act", "silu")
    qwen.expect("use_sliding_window", False)
    qwen.expect("rope_scaling", None)
    turning = qwen.section("rope_parameters") if "rope_parameters" in qwen.data else qwen  # as newer files have it
    turning.expect("rope_type", "default")
    return {ours: (turning if theirs == "rope_theta" else qwen)[theirs] for ours, theirs in QWEN_KEYS.items()}


def qwen_keys(config: LMConfig) -> dict[str, Any]:
    """What an lm's config says by the keys of Qwen's `config.json`."""
    return {theirs: getattr(config, ours) for ours, theirs in QWEN_KEYS.items()}


def published_name(directory: Path) -> str:
    """The name that the model was published under: the last part of the yaml's base path, else of the directory."""
    base = str(read_tagged_yaml(directory / SYSTEM_FILE).get("basemodel_path") or "")
    return PurePosixPath(base).name or directory.resolve().name


def flow_config(directory: Path, frame_rate: float) -> FlowConfig:
    """From `inspiremusic.yaml`.

    Args:
        directory: of the model.
        frame_rate: latent frames per second of the codec that the flow feeds.

    Raises:
        CheckpointError: as for `tokenizer_config`.
    """
    path = directory / SYSTEM_FILE
    flow = _Section(read_tagged_yaml(path), path).section("flow")
    encoder, regulator, decoder = (flow.section(key) for key in ("encoder", "length_regulator", "decoder"))
    solver, estimator = decoder.section("cfm_params"), decoder.section("estimator")
    solver = solver.section("content") if "content" in solver.data else solver
    encoder.expect_class("ConformerEncoder")
    encoder.expect("use_cnn_module", False)
    encoder.expect("macaron_style", False)
    encoder.expect("normalize_before", True)
    decoder.expect_class("ConditionalCFM")
    estimator.expect("act_fn", "gelu")
    solver.expect("solver", "euler")
    solver.expect("t_scheduler", "cosine")
    levels = len(estimator["channels"])
    changes = {
        "codebook_size": flow["vocab_size"],
        "code_rate": flow["input_frame_rate"],
        "frame_rate": frame_rate,
        "input_dim": flow["input_size"],
        "latent_dim": estimator["out_channels"],
        "encoder": {
            "dim": encoder["output_size"],
            "num_layers": encoder["num_blocks"],
            "num_heads": encoder["attention_heads"],
            "hidden_dim": encoder["linear_units"],
            "dropout": encoder["dropout_rate"],
        },
        "regulator_layers": len(regulator["sampling_ratios"]),
        "estimator": {
            "channels": estimator["channels"],
            "num_blocks": [estimator["n_blocks"]] * levels,
            "num_mid_blocks": estimator["num_mid_blocks"],
            "num_heads": estimator["num_heads"],
            "head_dim": estimator["attention_head_dim"],
        },
        "sigma_min": solver["sigma_min"],
        "condition_dropout": solver["training_cfg_rate"],
        "guidance": solver["inference_cfg_rate"],
    }
    return flow.config(FlowConfig, FlowConfig.published(), changes)


def _part(parent: _Section, key: str) -> _Section:
    part = parent.section(key)
    name = str(part.data.get("class_path", "")).rpartition(".")[2]
    expected = {"feature_extractor": "EncodecFeatures", "backbone": "VocosBackbone", "head": "ISTFTHead"}[key]
    if name != expected:
        raise CheckpointError(f"{part.path}: {part.name} is a {name or 'nothing'}; only {expected} is supported")
    return part.section("init_args")


def _read_json(path: Path) -> _Section:
    try:
        return _Section(json.loads(path.read_text(encoding="utf-8")), path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); download the model again") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: is not valid JSON ({error}); download the model again") from None


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = _merge(merged[key], value) if isinstance(value, Mapping) else value
    return merged
