"""The flow model against the published one, padded against single, guided against plain."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from longplay.checkpoint.names import is_unused, to_native
from longplay.config import override
from longplay.control import CHORD_WIDTH
from longplay.errors import ConfigError
from longplay.models.flow import Flow
from longplay.models.flow_config import FlowConfig
from longplay.nn.conformer import ConformerConfig, relative_positions
from longplay.nn.masking import Padding, hide
from longplay.nn.ode import cosine_grid, cosine_time
from longplay.nn.unet import UNetConfig
from published_tables import published_table
from tiny_flow import small_config, small_flow

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


def test_published_names_and_shapes() -> None:
    with torch.device("meta"):
        flow = Flow(FlowConfig.published())
    ours = {name: tuple(tensor.shape) for name, tensor in flow.state_dict().items()}
    table = published_table("4.2")
    assert ours == {to_native("flow", name): shape for name, shape in table.items() if not is_unused("flow", name)}


@torch.no_grad()
def test_padded_rows_equal_single_ones() -> None:
    flow, lengths = small_flow(), torch.tensor([13, 9, 4])
    codes, x_0 = torch.randint(16, (3, 13)), torch.randn(3, 6, 26)
    codes[1, 9:], codes[2, 4:] = -1, -1
    batch = flow.sample(codes, x_0, code_lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        single = flow.sample(codes[row : row + 1, :length], x_0[row : row + 1, :, : 2 * length])
        torch.testing.assert_close(batch[row : row + 1, :, : 2 * length], single, rtol=0, atol=1e-5)
        assert not batch[row, :, 2 * length :].any()


@torch.no_grad()
def test_a_padded_loss_weighs_the_single_ones_by_their_frames() -> None:
    flow, lengths = small_flow(), torch.tensor([20, 11])
    codes, x_1, x_0 = torch.randint(16, (2, 10)), torch.randn(2, 6, 20), torch.randn(2, 6, 20)
    t, keep = torch.tensor([0.3, 0.8]), torch.tensor([True, True])
    mu = flow.condition(codes, 20, torch.tensor([10, 6]), lengths)
    batch = flow.velocity_loss(mu, x_1, x_0, t, keep, Padding.of(lengths, 20))
    singles = []
    for row, (n_codes, n) in enumerate([(10, 20), (6, 11)]):
        one = slice(row, row + 1)
        mu = flow.condition(codes[one, :n_codes], n)
        singles.append(flow.velocity_loss(mu, x_1[one, :, :n], x_0[one, :, :n], t[one], keep[one]))
    close(batch, (20 * singles[0] + 11 * singles[1]) / 31)


def test_the_lengths_of_the_latents_follow_from_those_of_the_codes() -> None:
    flow, codes, latents = small_flow(), torch.randint(16, (2, 5)), torch.randn(2, 6, 10)
    lengths = torch.tensor([5, 3])
    given, derived = (
        flow.loss(codes, latents, lengths, latent_lengths, generator=torch.Generator().manual_seed(0))
        for latent_lengths in (2 * lengths, None)
    )
    assert torch.equal(given, derived)


@torch.no_grad()
def test_the_reference_treatment_of_padding_is_another_one() -> None:
    codes, x_0, lengths = torch.randint(16, (2, 8)), torch.randn(2, 6, 16), torch.tensor([8, 5])
    exact, reference = (
        small_flow(compatibility=compatibility).sample(codes, x_0, code_lengths=lengths)
        for compatibility in ("exact", "reference")
    )
    torch.testing.assert_close(exact[0], reference[0], rtol=0, atol=1e-5)
    assert (exact[1] - reference[1]).abs().max() > 1e-3


@torch.no_grad()
def test_guidance_weighs_the_two_velocities() -> None:
    flow, codes, x_0 = small_flow(), torch.randint(16, (2, 5)), torch.randn(2, 6, 10)
    mu, t = flow.condition(codes), torch.zeros(1)
    conditional, unconditional = flow.estimator(x_0, mu, t), flow.estimator(x_0, torch.zeros_like(mu), t)
    for guidance in (0.0, 0.7, 2.0):
        one_step = flow.sample(codes, x_0, num_steps=1, guidance=guidance)
        close(one_step, x_0 + (1 + guidance) * conditional - guidance * unconditional)


@torch.no_grad()
def test_a_seed_fixes_the_sample() -> None:
    flow, codes = small_flow(), torch.randint(16, (1, 5))
    first, again, other = (flow.sample(codes, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_loss_is_fixed_by_its_generator_and_leaves_the_global_one_alone() -> None:
    flow, codes, latents = small_flow(), torch.randint(16, (2, 5)), torch.randn(2, 6, 10)
    state = torch.get_rng_state()
    losses = [flow.loss(codes, latents, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
    assert torch.equal(state, torch.get_rng_state())


def test_the_condition_is_dropped_as_often_as_configured() -> None:
    latents, codes = torch.randn(2, 6, 10), [torch.full((2, 5), 1), torch.full((2, 5), 2)]
    for dropout in (0.0, 1.0):
        flow = small_flow(condition_dropout=dropout)
        first, second = (flow.loss(c, latents, generator=torch.Generator().manual_seed(0)) for c in codes)
        assert torch.equal(first, second) == (dropout == 1.0)


def test_it_trains_under_bfloat16_autocast() -> None:
    flow, codes, latents = small_flow(), torch.randint(16, (2, 5)), torch.randn(2, 6, 10)
    lengths = torch.tensor([5, 3])
    exact = flow.loss(codes, latents, lengths, 2 * lengths, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = flow.loss(codes, latents, lengths, 2 * lengths, generator=torch.Generator().manual_seed(0))
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0)


def test_normalised_latents_make_the_loss_and_the_samples_free_of_scale() -> None:
    plain, scaled = small_flow(), small_flow(normalize_latents=True)
    mean, std = torch.linspace(-5, 5, 6), torch.linspace(0.1, 9, 6)
    scaled.set_latent_statistics(mean, std)
    codes, x_1, x_0 = torch.randint(16, (2, 5)), torch.randn(2, 6, 10), torch.randn(2, 6, 10)
    stretched = x_1 * std[:, None] + mean[:, None]
    losses = [
        flow.loss(codes, latents, generator=torch.Generator().manual_seed(0))
        for flow, latents in ((plain, x_1), (scaled, stretched))
    ]
    close(losses[1], losses[0])
    with torch.no_grad():
        close(scaled.sample(codes, x_0), plain.sample(codes, x_0) * std[:, None] + mean[:, None])
    assert {"latent_mean", "latent_std"} == scaled.state_dict().keys() - plain.state_dict().keys()


def test_temperature_scales_the_noise_that_sampling_starts_from() -> None:
    plain, cool = small_flow(), small_flow(temperature=0.5)
    codes, x_0 = torch.randint(16, (2, 5)), torch.randn(2, 6, 10)
    with torch.no_grad():
        close(cool.sample(codes, x_0), plain.sample(codes, 0.5 * x_0))
        close(plain.sample(codes, x_0, temperature=0.5), cool.sample(codes, x_0))
        assert not torch.equal(cool.sample(codes, x_0), plain.sample(codes, x_0))
    with pytest.raises(ConfigError, match="temperature"):
        FlowConfig.parse(small_config().dump() | {"temperature": -0.1})


def test_wrong_latent_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="need normalize_latents"):
        small_flow().set_latent_statistics(torch.zeros(6), torch.ones(6))
    with pytest.raises(ValueError, match="must be positive"):
        small_flow(normalize_latents=True).set_latent_statistics(torch.zeros(6), torch.zeros(6))


def test_wrong_sizes_are_refused_by_name() -> None:
    sizes = small_config().dump()
    with pytest.raises(ConfigError, match="frame_rate 100 must be a multiple of code_rate 75"):
        FlowConfig.parse(sizes | {"frame_rate": 100})
    with pytest.raises(ConfigError, match="num_blocks .* one entry per level"):
        FlowConfig.parse(override(sizes, ["estimator.num_blocks=[1]"]))
    with pytest.raises(ConfigError, match="multiples of num_groups 5"):
        FlowConfig.parse(override(sizes, ["estimator.num_groups=5"]))
    with pytest.raises(ConfigError, match="dim 16 must be even and a multiple of num_heads 3"):
        FlowConfig.parse(override(sizes, ["encoder.num_heads=3"]))


def test_it_overfits_one_batch() -> None:
    flow = small_flow().train()
    codes, latents = torch.randint(16, (2, 8)), torch.randn(2, 6, 16)
    many = codes.repeat(16, 1), latents.repeat(16, 1, 1)  # more times and noises per step
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(80):
        loss = flow.loss(*many, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    flow.eval()
    with torch.no_grad():
        error = (flow.sample(codes, guidance=0.0, generator=generator) - latents).square().mean()
    assert error < 0.15 * latents.square().mean()


def test_every_weight_gets_a_gradient() -> None:
    flow = small_flow().train()
    flow.loss(torch.randint(16, (4, 16)), torch.randn(4, 6, 32)).backward()
    assert [name for name, weight in flow.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@torch.no_grad()
def test_chords_change_what_the_codes_become() -> None:
    """At the codes at which they sound, and around them; not before they are learnt, and not where none is told."""
    flow = small_flow(chords=True)
    codes, x_0 = torch.randint(16, (1, 20)), torch.randn(1, 6, 40)
    chords = torch.zeros(1, 20, CHORD_WIDTH)
    chords[:, 14:, [0, 4, 7, 12]] = 1
    plain = flow.sample(codes, x_0)
    close(flow.sample(codes, x_0, chords=chords), plain)
    assert flow.chord_projection is not None
    torch.nn.init.normal_(flow.chord_projection.weight)
    close(flow.sample(codes, x_0), plain)
    close(flow.sample(codes, x_0, chords=torch.zeros_like(chords)), plain)
    told = (flow.condition(codes, chords=chords) - flow.condition(codes)).abs().mean(1)[0]
    assert told[28:].min() > 0.01
    assert not torch.equal(flow.sample(codes, x_0, chords=chords), plain)
    assert flow.compute_in(torch.bfloat16).chord_projection.weight.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"FlowConfig.chords is false"):
        small_flow().condition(codes, chords=chords)
