"""A decoder that is trained on what a flow makes, as it will meet it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from longplay.checkpoint.store import save_native
from longplay.errors import CheckpointError, ConfigError
from longplay.models.codec import Codec
from longplay.train.audio_stage import AudioStageConfig
from longplay.train.made_latents import MadeLatents
from systems import save_tiny, tiny_config, tiny_models

CODEC = tiny_config().codec
assert CODEC is not None


def codec_stage(model: Path, **changes: Any) -> dict[str, Any]:
    """Changes of the fixture `audio_stage` that make it train the decoder of a tiny model on the latents of its flow."""
    return {
        "stage": "codec",
        "codec": CODEC.model_dump(),
        "init": model,
        "made_by": model,
        "freeze_encoder": True,
        "quantize_from_step": 0,
        "unquantized_share": 0.5,
        **changes,
    }


@pytest.mark.parametrize("samples", [4800, 4801, 5000])
def test_there_is_a_frame_for_each_of_the_encoder(tmp_path: Path, samples: int) -> None:
    made = MadeLatents(save_tiny(tmp_path / "tiny"), CODEC)
    wav = torch.randn(2, 1, samples) * 0.1
    latents = made(wav)
    assert latents.shape == (2, 16, -(-samples // 320))
    torch.manual_seed(1)
    first = made(wav)
    torch.manual_seed(1)
    assert torch.equal(made(wav), first)


def test_a_model_without_a_flow_and_one_of_other_latents_are_refused(tmp_path: Path) -> None:
    config, models = tiny_config(), tiny_models()
    part = tmp_path / "part"
    only = config.model_copy(update={"lm": None, "flow": None, "codec": None})
    save_native(part, only, {"tokenizer": models["tokenizer"].state_dict()})
    with pytest.raises(CheckpointError, match=r"part: has tokenizer; latents are made by a tokenizer and a flow"):
        MadeLatents(part, CODEC)
    with pytest.raises(CheckpointError, match=r"makes 16 channels at 150 Hz, the codec takes 16 at 75 Hz"):
        MadeLatents(save_tiny(tmp_path / "whole"), CODEC.model_copy(update={"hop_length": 640}))


def test_the_decoder_learns_from_made_latents_and_the_rest_stays(audio_stage: Any, tmp_path: Path) -> None:
    stage = audio_stage(**codec_stage(save_tiny(tmp_path / "tiny")))
    assert isinstance(stage.model, Codec)
    batch = stage.batch(0, slice(None))
    loss = stage.losses(0, batch).terms["model"]
    loss.backward()
    assert any(parameter.grad is not None for parameter in stage.model.decoder.parameters())
    assert all(parameter.grad is None for parameter in stage.model.encoder.parameters())

    heard = []
    stage.made = lambda wav: heard.append(len(wav)) or torch.zeros(len(wav), 16, -(-wav.shape[-1] // 320))
    other = stage.losses(0, batch).terms["model"]
    assert heard == [2], "of half of the rows"
    assert float(other.detach()) != float(loss.detach())


def test_held_out_music_is_measured_through_the_flow_too(audio_stage: Any, tmp_path: Path) -> None:
    stage = audio_stage(**codec_stage(save_tiny(tmp_path / "tiny")))
    with torch.inference_mode():
        metrics = stage.evaluate(stage.model.eval())
    assert {"mel", "made_mel", "magnitude", "made_magnitude"} <= metrics.keys()
    assert metrics["made_mel"] != metrics["mel"]


@pytest.mark.parametrize("change", [{"unquantized_share": 0.0}, {"freeze_encoder": False}, {"spectrum": {}}])
def test_what_made_latents_need_is_said(audio_stage: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="made_by gives a codec's decoder latents of a flow"):
        audio_stage(**codec_stage(tmp_path, **change))
    assert AudioStageConfig.model_fields["made_by"].default is None
