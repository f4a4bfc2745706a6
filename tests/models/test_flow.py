"""The flow model against the published one, padded against single, guided against plain."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from longplay.checkpoint.names import is_unused, to_native
from longplay.models.flow import Flow, FlowConfig
from longplay.nn.conformer import ConformerConfig, relative_positions
from longplay.nn.masking import Padding, hide
from longplay.nn.ode import cosine_grid, cosine_time
from longplay.nn.unet import UNetConfig

TOLERANCE = 1e-4


def golden_config(golden: Any, **changes: Any) -> FlowConfig:
    encoder, estimator = golden.config["encoder"], golden.config["decoder"]["estimator"]
    solver = golden.config["decoder"]["cfm_params"]
    return FlowConfig(
        codebook_size=golden.config["vocab_size"],
        code_rate=golden.config["input_frame_rate"],
        frame_rate=golden.config["input_frame_rate"] * 2,
        input_dim=golden.config["input_size"],
        latent_dim=estimator["out_channels"],
        encoder=ConformerConfig(
            dim=encoder["output_size"],
            num_layers=encoder["num_blocks"],
            num_heads=encoder["attention_heads"],
            hidden_dim=encoder["linear_units"],
        ),
        regulator_layers=len(golden.config["length_regulator"]["sampling_ratios"]),
        estimator=UNetConfig(
            channels=tuple(estimator["channels"]),
            num_blocks=(estimator["n_blocks"],) * len(estimator["channels"]),
            num_mid_blocks=estimator["num_mid_blocks"],
            num_heads=estimator["num_heads"],
            head_dim=estimator["attention_head_dim"],
        ),
        sigma_min=solver["sigma_min"],
        condition_dropout=solver["training_cfg_rate"],
        guidance=solver["inference_cfg_rate"],
        compatibility="reference",
    ).model_copy(update=changes)


def golden_flow(golden: Any, **changes: Any) -> Flow:
    flow = Flow(golden_config(golden, **changes)).eval()
    flow.load_state_dict({to_native("flow", k): v for k, v in golden.weights.items() if not is_unused("flow", k)})
    return flow


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)


@pytest.fixture
def reference(golden: Any) -> Any:
    return golden("flow")


@pytest.mark.golden
@torch.no_grad()
def test_encoder_equals_the_published_one(reference: Any) -> None:
    flow, expected = golden_flow(reference), reference.outputs
    codes, lengths = reference.inputs["token_b2"], reference.inputs["token_b2_len"]
    embedded = flow.input_embedding(codes)
    close(embedded, expected["enc_b2.input_embedding"])
    close(flow.encoder.embed(embedded) * math.sqrt(flow.encoder.dim), expected["enc_b2.embed"])
    close(relative_positions(codes.shape[1], flow.encoder.dim)[None], expected["enc_b2.pos_emb"])
    close(flow.encoder(embedded, Padding.of(lengths, codes.shape[1])), expected["enc_b2.h"])


@pytest.mark.golden
@pytest.mark.parametrize("frame_rate", [75, 150])
@torch.no_grad()
def test_condition_equals_the_published_one_at_both_rates(reference: Any, frame_rate: int) -> None:
    flow = golden_flow(reference, frame_rate=frame_rate)
    mu = flow.condition(reference.inputs["token_b2"], code_lengths=reference.inputs["token_b2_len"])
    close(mu.mT, reference.outputs[f"reg_{frame_rate}_b2"])


@pytest.mark.golden
@torch.no_grad()
def test_estimator_equals_the_published_one(reference: Any) -> None:
    flow, inputs, expected = golden_flow(reference), reference.inputs, reference.outputs
    x, mu, padding = inputs["est.x"], inputs["est.mu"], Padding(inputs["est.mask"], reference=True)
    close(flow.estimator.time_mlp.sinusoids(inputs["est.t_b2"]), expected["estimator.time_sin"])
    close(flow.estimator.time_mlp(inputs["est.t_b2"]), expected["estimator.time_mlp"])
    close(flow.estimator(x, mu, inputs["est.t_b2"], padding), expected["estimator.b2"])
    close(flow.estimator(x, mu, inputs["est.t_b1"], padding), expected["estimator.b2_sharedt"])
    odd = expected["estimator.b1"].shape[2]
    close(flow.estimator(x[:1, :, :odd], mu[:1, :, :odd], inputs["est.t_b1"]), expected["estimator.b1"])


@pytest.mark.golden
@torch.no_grad()
def test_samples_equal_the_published_ones_at_both_rates(reference: Any) -> None:
    codes, inputs, expected = reference.inputs["token"], reference.inputs, reference.outputs
    close(cosine_grid(10), expected["t_span"])
    close(golden_flow(reference).sample(codes, inputs["noise_150"]), expected["solve_48000"])
    flow = golden_flow(reference, frame_rate=75)
    close(flow.sample(codes, inputs["noise_75"]), expected["solve_24000"])
    close(flow.sample(codes, inputs["noise_75"], guidance=0.0), expected["solve_24000_nocfg"])


@pytest.mark.golden
@torch.no_grad()
def test_padded_solve_equals_the_published_one(reference: Any) -> None:
    flow, inputs = golden_flow(reference), reference.inputs
    padding = Padding(inputs["est.mask"], reference=True)
    mu = hide(inputs["est.mu"], padding)
    x_1 = flow.solve(mu, inputs["noise_b2"], padding, num_steps=10, guidance=0.7, solver="euler")
    close(x_1, reference.outputs["solve_b2"])


def embed_acoustic(reference: Any, codes: Tensor) -> Tensor:
    """[B, T * 4] ids, frame by frame -> [B, D, T] latents: two residual layers of two groups each."""
    layers = ("quantizer_modules", "quantizer_modules2")
    tables = [reference.weights[f"quantizer.{layer}.{group}.embedding.weight"] for layer in layers for group in (0, 1)]
    parts = [table[column] for table, column in zip(tables, codes.unflatten(1, (-1, 4)).unbind(-1), strict=True)]
    return (torch.cat(parts[:2], dim=-1) + torch.cat(parts[2:], dim=-1)).mT


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["sr", "same"])
@pytest.mark.parametrize("dropped", ["keep", "drop1"])
@torch.no_grad()
def test_training_loss_equals_the_published_one(reference: Any, kind: str, dropped: str) -> None:
    flow, inputs = golden_flow(reference), reference.inputs
    acoustic, lengths = inputs["train.acoustic_token"].long(), inputs["train.acoustic_token_len"] // 4
    x_1, x_0 = embed_acoustic(reference, acoustic), inputs["train.noise"]
    close(x_1, reference.outputs["train.target"])
    codes, code_lengths = inputs["train.semantic_token"], inputs["train.semantic_token_len"]
    if kind == "same":
        codes, code_lengths = acoustic[:, ::4], lengths
    mu = flow.condition(codes, x_1.shape[2], code_lengths, lengths)
    t = cosine_time(inputs["train.t_uniform"].flatten())
    keep = inputs[f"train.cfg_uniform_{dropped}"] > flow.config.condition_dropout
    loss = flow.velocity_loss(mu, x_1, x_0, t, keep, Padding.of(lengths, x_1.shape[2], reference=True))
    close(loss, reference.outputs[f"train.{kind}.loss_{dropped}"])
