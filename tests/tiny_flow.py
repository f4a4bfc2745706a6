"""Flows of very small width, with random weights."""

from typing import Any

import torch

from longplay.models.flow import Flow
from longplay.models.flow_config import FlowConfig
from longplay.nn.conformer import ConformerConfig
from longplay.nn.unet import UNetConfig

PRECONDITION = {"normalize_latents": True, "precondition": True, "condition_dropout": 0.0, "guidance": 0.0}


def small_config(**changes: Any) -> FlowConfig:
    return FlowConfig(
        codebook_size=16,
        code_rate=75,
        frame_rate=150,
        input_dim=8,
        latent_dim=6,
        encoder=ConformerConfig(dim=16, num_layers=2, num_heads=2, hidden_dim=32, dropout=0.0),
        regulator_layers=2,
        estimator=UNetConfig(channels=(16, 24, 32), num_blocks=(0, 1, 2), num_mid_blocks=1, num_heads=2, head_dim=8),
    ).model_copy(update=changes)


def small_flow(**changes: Any) -> Flow:
    torch.manual_seed(0)
    return Flow(small_config(**changes)).eval()
