"""The form in which the flow computes is decided by measurement."""

import logging
from pathlib import Path
from typing import cast

import pytest
import torch

from longplay.checkpoint.store import SystemConfig
from longplay.checkpoint.system import System, load_system
from longplay.models.codec import Codec, CodecConfig
from longplay.models.flow import Flow
from longplay.models.flow_config import FlowConfig
from longplay.nn import processor
from longplay.nn.conformer import ConformerConfig
from longplay.nn.conv import fold_weight_norm
from longplay.nn.hifigan import HifiganGenerator, HifiganGeneratorConfig
from longplay.nn.unet import Level, TransformerBlock, UNetConfig
from longplay.pipeline.synthesis import (
    MAX_ERROR,
    MAX_WAVE_ERROR,
    compute_in_half,
    decode_in_half,
    speed_up,
    use_int8,
)

needs_kernels = pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")


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


@needs_kernels
def test_a_flow_computes_in_int8_where_it_changes_little(flow: Flow) -> None:
    assert 0 < use_int8(flow) < MAX_ERROR
    assert middle(flow).compiled is not None


@needs_kernels
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


@needs_kernels
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


def published_decoder() -> Codec:
    """A published codec whose decoder is narrow and has random weights."""
    with torch.device("meta"):
        codec = Codec(CodecConfig.published(48_000))
    torch.manual_seed(0)
    sizes = {"strides": (5, 4), "kernel_sizes": (11, 8), "resblock_kernel_sizes": (3,), "resblock_dilations": ((1, 3),)}
    codec.decoder = HifiganGenerator(HifiganGeneratorConfig(channels=64, **sizes), latent_dim=512)
    codec.quantizer = codec.quantizer.to_empty(device="cpu")
    for parameter in codec.quantizer.parameters():
        torch.nn.init.normal_(parameter)
    fold_weight_norm(codec.decoder)
    return codec.eval().requires_grad_(False)


def test_a_published_codec_decodes_in_bfloat16_where_it_changes_little() -> None:
    codec = published_decoder()
    assert 0 < decode_in_half(codec) <= MAX_WAVE_ERROR
    assert next(codec.decoder.parameters()).dtype == torch.bfloat16


def test_a_codec_that_bfloat16_would_change_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    codec = published_decoder()
    before = {name: weights.clone() for name, weights in codec.decoder.state_dict().items()}
    monkeypatch.setattr("longplay.pipeline.synthesis.MAX_WAVE_ERROR", 1e-6)
    with caplog.at_level(logging.INFO):
        assert decode_in_half(codec) > 1e-6
    assert "computes in float32" in caplog.text
    assert all(torch.equal(weights, before[name]) for name, weights in codec.decoder.state_dict().items())


def test_a_flow_that_bfloat16_would_change_stays_as_it_is(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: weights.clone() for name, weights in flow.state_dict().items()}
    assert 0 < compute_in_half(flow) <= MAX_ERROR
    assert flow.input_embedding.weight.dtype == torch.bfloat16
    flow.compute_in(torch.float32).load_state_dict(before)
    monkeypatch.setattr("longplay.pipeline.synthesis.MAX_ERROR", 1e-6)
    assert compute_in_half(flow) > 1e-6
    assert all(torch.equal(weights, before[name]) for name, weights in flow.state_dict().items())


def test_nano_where_there_is_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flow is well within the bound; its codec derives phases from magnitudes, so it stays in float32."""
    monkeypatch.setattr("longplay.pipeline.synthesis.has_bfloat16", lambda device: True)
    monkeypatch.setattr(processor, "can_compile", lambda: False)
    system = load_system("nano")
    assert system.flow is not None
    assert system.codec is not None
    codes, white = torch.arange(75)[None], _white(system.flow)
    exact = system.flow.sample(codes, white)
    speed_up(system)
    assert system.flow.input_embedding.weight.dtype == torch.bfloat16
    assert next(system.codec.decoder.parameters()).dtype == torch.float32
    off = system.flow.sample(codes, white) - exact
    assert 0 < off.norm() < 0.02 * exact.norm()


def _white(flow: Flow) -> torch.Tensor:
    shape = (1, flow.config.latent_dim, 75 * flow.config.ratio)
    return flow.white(shape, torch.zeros(1), torch.Generator().manual_seed(0))
