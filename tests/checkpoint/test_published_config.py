"""Config files with the published numbers (CHECKPOINTS.md 2) give the published presets."""

import json
from pathlib import Path
from typing import Any

import pytest

from longplay.checkpoint.published_config import (
    codec_config,
    flow_config,
    lm_config,
    published_name,
    tokenizer_config,
)
from longplay.errors import CheckpointError
from longplay.models.codec import CodecConfig
from longplay.models.flow_config import FlowConfig
from longplay.models.lm_config import LMConfig
from longplay.models.tokenizer import TokenizerConfig

SYSTEM = """
llm_input_size: {dim}
basemodel_path: '../../pretrained_models/InspireMusic-Made-Up/'
llm: !new:inspiremusic.llm.llm.LLM
    llm_input_size: !ref <llm_input_size>
    llm_output_size: !ref <llm_input_size>
    audio_token_size: 4096
    train_cfg_ratio: 0.2
flow: !new:inspiremusic.flow.flow.MaskedDiff
    input_size: 256
    vocab_size: 4096
    input_frame_rate: 75
    encoder: !new:inspiremusic.transformer.encoder.ConformerEncoder
        output_size: 512
        attention_heads: 4
        linear_units: 1024
        num_blocks: 3
        dropout_rate: 0.1
        normalize_before: True
        use_cnn_module: False
        macaron_style: False
    length_regulator: !new:inspiremusic.flow.length_regulator.InterpolateRegulator
        channels: 512
        sampling_ratios: [1, 1, 1, 1]
    decoder: !new:inspiremusic.flow.flow_matching.ConditionalCFM
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                training_cfg_rate: 0.2
                inference_cfg_rate: 0.7
        estimator: !new:inspiremusic.flow.decoder.ConditionalDecoder
            out_channels: 512
            channels: [256, 256]
            attention_head_dim: 64
            n_blocks: 4
            num_mid_blocks: 8
            num_heads: 8
            act_fn: 'gelu'
"""
TOKENIZER = """
model:
  class_path: decoder.experiment.WavTokenizer
  init_args:
    feature_extractor:
      class_path: decoder.feature_extractors.EncodecFeatures
      init_args: {num_quantizers: 1, dowmsamples: [8, 5, 4, 2], vq_bins: 4096}
    backbone:
      class_path: decoder.models.VocosBackbone
      init_args: {input_channels: 512, dim: 768, intermediate_dim: 2304, num_layers: 12, adanorm_num_embeddings: 4}
    head:
      class_path: decoder.heads.ISTFTHead
      init_args: {dim: 768, n_fft: 1280, hop_length: 320, padding: same}
"""
QWEN: dict[str, dict[str, Any]] = {
    "base": {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "intermediate_size": 4864},
    "1.5b": {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "intermediate_size": 8960},
}
CODEC = {
    "resblock": "1",
    "upsample_rates": [8, 5, 4, 2],
    "upsample_kernel_sizes": [16, 11, 8, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "n_code_groups": 2,
    "n_codes": 1024,
    "codebook_loss_lambda": 1.0,
    "commitment_loss_lambda": 0.25,
}


def write(directory: Path, size: str = "base", sample_rate: int = 48000) -> Path:
    (directory / "wavtokenizer").mkdir(parents=True)
    (directory / "music_tokenizer").mkdir()
    qwen = {**QWEN[size], "vocab_size": 151936, "num_key_value_heads": 2, "hidden_act": "silu"}
    qwen |= {"rope_theta": 1e6, "rms_norm_eps": 1e-6}
    (directory / "inspiremusic.yaml").write_text(SYSTEM.format(dim=qwen["hidden_size"]))
    (directory / "wavtokenizer" / "config.yaml").write_text(TOKENIZER)
    (directory / "config.json").write_text(json.dumps(qwen))
    (directory / "music_tokenizer" / "config.json").write_text(json.dumps(CODEC | {"sampling_rate": sample_rate}))
    return directory


@pytest.mark.parametrize("size", ["base", "1.5b"])
def test_lm(tmp_path: Path, size: Any) -> None:
    assert lm_config(write(tmp_path / "m", size), 75) == LMConfig.published(size)


@pytest.mark.parametrize(("sample_rate", "frame_rate"), [(24000, 75), (48000, 150)])
def test_codec_and_flow(tmp_path: Path, sample_rate: int, frame_rate: int) -> None:
    directory = write(tmp_path / "m", sample_rate=sample_rate)
    codec = codec_config(directory)
    assert codec == CodecConfig.published(sample_rate)
    assert flow_config(directory, codec.frame_rate) == FlowConfig.published(frame_rate)


def test_tokenizer(tmp_path: Path) -> None:
    assert tokenizer_config(write(tmp_path / "m")) == TokenizerConfig.published()


def test_the_class_path_may_have_any_prefix(tmp_path: Path) -> None:
    directory = write(tmp_path / "m")
    path = directory / "wavtokenizer" / "config.yaml"
    path.write_text(path.read_text().replace("decoder.", "inspiremusic.wavtokenizer.decoder."))
    assert tokenizer_config(directory) == TokenizerConfig.published()


def test_the_name_is_the_published_one(tmp_path: Path) -> None:
    directory = write(tmp_path / "m")
    assert published_name(directory) == "InspireMusic-Made-Up"
    path = directory / "inspiremusic.yaml"
    path.write_text(path.read_text().replace("basemodel_path", "other"))
    assert published_name(directory) == "m"


def test_the_yaml_and_qwen_must_agree(tmp_path: Path) -> None:
    directory = write(tmp_path / "m", "base")
    path = directory / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 896', '"hidden_size": 1536'))
    with pytest.raises(CheckpointError, match=r"llm\.llm_input_size = 896 is not supported; expected 1536"):
        lm_config(directory, 75)


@pytest.mark.parametrize(("name", "sample_rate"), [("InspireMusic-Base-24kHz", 24000), ("InspireMusic-1.5B", 48000)])
def test_the_name_tells_a_missing_sample_rate(tmp_path: Path, name: str, sample_rate: int) -> None:
    directory = write(tmp_path / "m")
    (directory / "music_tokenizer" / "config.json").write_text(json.dumps(CODEC))
    path = directory / "inspiremusic.yaml"
    path.write_text(path.read_text().replace("InspireMusic-Made-Up", name))
    assert codec_config(directory).sample_rate == sample_rate


def test_a_sample_rate_against_the_name_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert codec_config(write(tmp_path / "m", sample_rate=24000)).sample_rate == 24000
    assert "sampling_rate 24000 is not the 48000 Hz" in caplog.text


@pytest.mark.parametrize("file", ["inspiremusic.yaml", "config.json"])
def test_a_damaged_file_is_named(tmp_path: Path, file: str) -> None:
    directory = write(tmp_path / "m")
    (directory / file).write_text("{")
    with pytest.raises(CheckpointError, match=f"{file}: is not valid"):
        lm_config(directory, 75)
