"""Tiny stages `lm` and `flow` over tiny pieces of codes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from longplay.data.token_tracks import TokenTrack
from longplay.models.codec import Codec, CodecConfig
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.prompt import Section
from longplay.text import TextTokenizer
from longplay.train.audio_stage import AudioStage, AudioStageConfig
from longplay.train.flow_stage import FlowStage, FlowStageConfig
from longplay.train.lm_stage import LMStage, LMStageConfig

SPECTRAL = {"kind": "spectral", "n_fft": 64, "dim": 8, "intermediate_dim": 12, "num_layers": 1}
BOOK = {"size": 16, "dim": 2, "ema": False}
LOOP = {
    "steps": 4,
    "warmup_steps": 2,
    "decay_steps": 1,
    "save_every": 3,
    "evaluate_every": 4,
    "log_every": 1,
    "learning_rate": 3e-3,
    "trackers": [],
}


@pytest.fixture(scope="module")
def tracks() -> list[TokenTrack]:
    rng = np.random.default_rng(0)
    sections = (Section(label="intro", start=0, end=1), Section(label="chorus", start=1, end=2))
    return [
        TokenTrack(
            utt=f"t{index}",
            semantic=np.resize(rng.integers(0, 16, 5), 40 + index).astype(np.int16),
            acoustic=rng.integers(0, 16, (4, 2 * (40 + index) - 1)).astype(np.int16),
            captions=("slow piano", "fast drums"),
            sections=sections,
        )
        for index in range(3)
    ]


@pytest.fixture
def lm_stage(tracks: list[TokenTrack]) -> Any:
    config = LMStageConfig.parse(
        {
            "stage": "lm",
            "tokenizer": "unused",
            "lm": {
                "text_vocab_size": 300, "codebook_size": 16, "code_rate": 20, "num_labels": 5, "dim": 16, "num_layers": 1,
                "num_heads": 2, "num_kv_heads": 1, "intermediate_dim": 24, "context_frames": 20,
            },
            "batch_size": 4, "held_out_windows": 2, "sample_seconds": 1.0, "loop": LOOP,
        }
    )  # fmt: skip
    tokenizer = TokenizerConfig.parse(
        {
            "sample_rate": 640,
            "hop_length": 32,
            "latent_dim": 2,
            "codebook": BOOK,
            "encoder": SPECTRAL,
            "decoder": SPECTRAL,
        }
    )

    def build(**changes: Any) -> LMStage:
        torch.manual_seed(0)
        text = TextTokenizer.train(["slow piano", "fast drums"], 300)
        return LMStage(config.model_copy(update=changes), Tokenizer(tokenizer).eval(), text, tracks, tracks)

    return build


@pytest.fixture
def flow_stage(tracks: list[TokenTrack]) -> Any:
    config = FlowStageConfig.parse(
        {
            "stage": "flow",
            "codec": "unused",
            "flow": {
                "codebook_size": 16, "code_rate": 20, "frame_rate": 40, "input_dim": 8, "latent_dim": 4, "normalize_latents": True,
                "regulator_layers": 1, "encoder": {"dim": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 8},
                "estimator": {"channels": [8, 8], "num_blocks": [0, 1], "num_mid_blocks": 1, "num_heads": 2, "head_dim": 4},
            },
            "crop_seconds": 1.0, "batch_size": 4, "held_out_crops": 2, "loop": LOOP,
        }
    )  # fmt: skip
    codec = CodecConfig.parse(
        {
            "sample_rate": 1280,
            "hop_length": 32,
            "quantizer": {"codebook": BOOK},
            "encoder": SPECTRAL,
            "decoder": SPECTRAL,
        }
    )

    def build(overlap: int = 1, **changes: Any) -> FlowStage:
        torch.manual_seed(0)
        quantizer = codec.quantizer.model_copy(update={"overlap": overlap})
        overlapping = codec.model_copy(update={"quantizer": quantizer})
        return FlowStage(config.model_copy(update=changes), Codec(overlapping).eval(), tracks, tracks)

    return build


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[Path, float]]:
    time = np.arange(16000) / 8000
    wav = sum(np.sin(2 * np.pi * f * time) * (0.2 + 0.1 * np.sin(3 * time)) for f in (220, 330, 880))
    path = tmp_path / "tone.wav"
    sf.write(path, wav.astype(np.float32), 8000)
    return [(path, 2.0)]


@pytest.fixture
def audio_stage(files: list[tuple[Path, float]]) -> Any:
    """Builds a tiny stage `tokenizer`; takes overrides of its config, those of the loop under `loop`."""
    spectral = {"kind": "spectral", "n_fft": 64, "dim": 16, "intermediate_dim": 24, "num_layers": 1}

    def build(loop: dict[str, Any] | None = None, **changes: Any) -> AudioStage:
        data = {
            "stage": "tokenizer",
            "tokenizer": {
                "sample_rate": 8000,
                "hop_length": 32,
                "latent_dim": 8,
                "codebook": {"size": 64, "dim": 4},
                "encoder": spectral,
                "decoder": spectral,
            },
            "batch_size": 4,
            "quantize_from_step": 2,
            "crop_seconds": 0.1,
            "held_out_crops": 4,
            "held_out_seconds": 0.5,
            "loss": {"n_ffts": [64, 128]},
            "loop": {**LOOP, "steps": 6, "evaluate_every": 6, **(loop or {})},
        }
        torch.manual_seed(0)
        return AudioStage(AudioStageConfig.parse(data | changes), files, files)

    return build
