"""The form in which the flow computes is decided by measurement."""

import logging
from pathlib import Path
from typing import cast

import pytest
import torch

from longplay.checkpoint.store import SystemConfig
from longplay.checkpoint.system import System
from longplay.models.codec import Codec, CodecConfig
from longplay.models.flow import Flow
from longplay.models.flow_config import FlowConfig
from longplay.nn import processor
from longplay.nn.conformer import ConformerConfig
from longplay.nn.conv import fold_weight_norm
from longplay.nn.hifigan import HifiganGenerator, HifiganGeneratorConfig
from longplay.nn.unet import Level, TransformerBlock, UNetConfig
from longplay.pipeline.synthesis import MAX_ERROR, speed_up, use_int8

pytestmark = pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")


@pytest.fixture
def flow() -> Flow:
    torch.manual_seed(0)
    config = FlowConfig(
        codebook_size=32,
        code_rate=75,
        frame_rate=150,
        input_dim=16,
        latent_dim=64,
        encoder=ConformerConfig(dim=16, num_layers=1, num_heads=2, hidden_dim=32),
        regulator_layers=1,
        estimator=UNetConfig(channels=(64, 64), num_blocks=(0, 1), num_mid_blocks=1, num_heads=2, head_dim=32),
    )
    return Flow(config).eval().requires_grad_(False)


def middle(flow: Flow) -> Level:
    return cast(Level, flow.estimator.mid_blocks[0])


def test_a_flow_computes_in_int8_where_it_changes_little(flow: Flow) -> None:
    assert 0 < use_int8(flow) < MAX_ERROR
    assert middle(flow).compiled is not None


def test_a_few_huge_activations_are_found_and_int8_is_left(flow: Flow, caplog: pytest.LogCaptureFixture) -> None:
    """Three hidden channels 300 times larger than the others, as trained feed-forward layers have them."""
    block = cast(TransformerBlock, middle(flow).transformers[0])
    up, down = block.feed_forward[0], block.feed_forward[2]
    assert isinstance(up, torch.nn.Linear)
    assert isinstance(down, torch.nn.Linear)
    down.weight.mul_(30)  # what the layer adds counts
    up.bias[:3] = 300.0
    down.weight[:, :3] = 0.0  # the large ones themselves do not
    with caplog.at_level(logging.INFO):
        assert use_int8(flow) > MAX_ERROR
    assert middle(flow).compiled is None
    assert "computes without" in caplog.text


def test_a_published_codec_is_decoded_by_kernels_where_torch_would_compute_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("longplay.pipeline.synthesis.has_bfloat16", lambda device: False)
    with torch.device("meta"):
        codec = Codec(CodecConfig.published(48_000))
    sizes = {"strides": (5, 4), "kernel_sizes": (11, 8), "resblock_kernel_sizes": (3,), "resblock_dilations": ((1, 3),)}
    torch.manual_seed(0)
    codec.decoder = HifiganGenerator(HifiganGeneratorConfig(channels=64, **sizes), latent_dim=32)
    fold_weight_norm(codec.decoder)
    codec.eval().requires_grad_(False)
    latents = torch.randn(1, 32, 30)
    exact = codec.decoder(latents)
    speed_up(System(SystemConfig(name="codec alone"), Path(), (), torch.device("cpu"), codec=codec))
    assert codec.decoder.compiled is not None
    torch.testing.assert_close(codec.decoder(latents), exact, rtol=1e-4, atol=1e-6)
