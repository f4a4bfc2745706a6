"""The form in which the flow computes is decided by measurement."""

import logging
from typing import cast

import pytest
import torch

from longplay.models.flow import Flow, FlowConfig
from longplay.nn import compiled_transformer
from longplay.nn.conformer import ConformerConfig
from longplay.nn.unet import Level, TransformerBlock, UNetConfig
from longplay.pipeline.synthesis import MAX_ERROR, use_int8

pytestmark = pytest.mark.skipif(
    not compiled_transformer.is_available(), reason="needs numba and an x86 processor with AVX2"
)


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
