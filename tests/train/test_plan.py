"""The plan's arithmetic against models on the meta device and against what torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from longplay.cli import app
from longplay.errors import ConfigError
from longplay.models.lm import LM
from longplay.models.lm_config import LMConfig
from longplay.train.audio_stage import AudioStageConfig
from longplay.train.build import load_stage_config
from longplay.train.flow_stage import FlowStageConfig
from longplay.train.lm_stage import LMStageConfig
from longplay.train.plan import Cluster, Plan, divide, plan_lm, plan_lm_stage
from longplay.train.plan_crops import CropsPlan, plan_crops

EIGHT = Cluster(gpus=8)


def lm(preset: str, *overrides: str) -> LMConfig:
    config = load_stage_config(preset, overrides)
    assert isinstance(config, LMStageConfig)
    return config.lm


def plan(config: LMConfig, cluster: Cluster = EIGHT, **changes: object) -> Plan:
    given = {"batch_size": 8, "steps": 1, "accumulate": 1, "shard": False, "checkpoint_activations": False}
    return plan_lm(config, cluster, **(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("preset", "size"), [("base", "base"), ("1.5b", "1.5b")])
def test_presets_have_the_published_sizes(preset: str, size: str) -> None:
    own, published = lm(preset), LMConfig.published(size)  # type: ignore[arg-type]
    for name in ("dim", "num_layers", "num_heads", "num_kv_heads", "intermediate_dim", "codebook_size", "rope_theta"):
        assert getattr(own, name) == getattr(published, name), name
    with torch.device("meta"):
        published_layers = sum(p.numel() for p in LM(published).layers.parameters() if p.ndim == 2)
    assert plan(own).matmul_parameters == published_layers
    # Qwen2.5-0.5B and 1.5B have 357.9 M and 1310 M weights in the matrices of their layers
    assert published_layers == pytest.approx({"base": 357.8e6, "1.5b": 1310e6}[size], rel=2e-3)


def test_flops_are_what_torch_counts() -> None:
    config = lm("nano-lm", "lm.context_frames=448", "lm.num_kv_heads=4")
    planned = plan(config, Cluster(gpus=1), batch_size=1, prefix=64).flops
    with torch.device("meta"):
        model = LM(config)
        inputs = torch.empty(1, 512, config.dim, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model.audio_head(model(inputs)).sum().backward()
    # products of whole matrices are attention's; the plan counts their causal half
    attention = sum(value for op, value in counter.get_flop_counts()["Global"].items() if "bmm" in str(op))
    assert attention > 0
    assert planned == pytest.approx(counter.get_total_flops() - attention / 2, rel=0.01)


def test_memory_and_time_follow_from_the_parameters() -> None:
    whole, spread = plan(lm("base")), plan(lm("base"), shard=True)
    assert whole.state == 16 * whole.parameters
    assert spread.state == whole.state / 8
    assert plan(lm("base"), batch_size=16).activations == 2 * whole.activations
    assert plan(lm("base"), batch_size=16, accumulate=2).activations == whole.activations
    assert plan(lm("base"), checkpoint_activations=True).activations < 0.2 * whole.activations
    assert plan(lm("base"), checkpoint_activations=True).flops > 1.2 * whole.flops
    assert plan(lm("base"), Cluster(gpus=4)).seconds == pytest.approx(2 * whole.seconds)
    assert plan(lm("base"), steps=3600 * 75).audio_hours == 8 * 9000


def test_gradients_of_several_parts_are_not_spread() -> None:
    whole, parts = (plan(lm("base"), batch_size=8 * n, accumulate=n, shard=True) for n in (1, 2))
    assert parts.memory == whole.memory + 4 * whole.parameters
    assert plan(lm("base"), batch_size=16, accumulate=2).memory == plan(lm("base")).memory


def test_packed_rows_cost_what_their_windows_cost() -> None:
    window = 64 + 9000
    packed, rows = plan(lm("base"), row_positions=4 * window), plan(lm("base"), batch_size=32)
    assert packed.flops == pytest.approx(rows.flops)
    assert packed.activations == pytest.approx(rows.activations)
    assert packed.audio_hours == pytest.approx(rows.audio_hours)


@pytest.mark.parametrize(("preset", "gpus"), [("base", 8), ("1.5b", 32), ("1.5b", 64)])
def test_presets_fit_the_machines_they_are_meant_for(preset: str, gpus: int) -> None:
    config = load_stage_config(preset)
    assert isinstance(config, LMStageConfig)
    cluster = Cluster(gpus=gpus)
    assert plan_lm_stage(config, cluster, batch_size=config.batch_size, accumulate=config.loop.accumulate).fits


def test_what_cannot_be_planned_is_named() -> None:
    with pytest.raises(ConfigError, match="gpu = 'abacus': no figures for it; use one of a100"):
        plan(lm("base"), Cluster(gpu="abacus"))
    with pytest.raises(ConfigError, match="batch_size = 12: is no multiple of 8 GPUs x accumulate 1"):
        plan(lm("base"), batch_size=12)


@pytest.mark.parametrize(
    ("given", "gpus", "shared"),
    [
        ((128, 4), 8, (128, 4)),
        ((128, 4), 64, (128, 2)),  # fewer parts, the same batch
        ((32, 4), 64, (64, 1)),  # a row for each
        ((12, 1), 8, (16, 1)),
        ((48, 4), 16, (48, 3)),
    ],
)
def test_a_batch_is_divided_in_fewer_parts_and_only_then_grows(
    given: tuple[int, int], gpus: int, shared: tuple[int, int]
) -> None:
    assert divide(*given, gpus) == shared


@pytest.mark.parametrize("gpus", [8, 16, 32, 64])
@pytest.mark.parametrize("preset", ["base", "base-pretrain", "1.5b", "1.5b-pretrain"])
def test_every_preset_is_planned_as_it_is(preset: str, gpus: int) -> None:
    result = CliRunner().invoke(app, ["train", "plan", preset, "--gpus", str(gpus)])
    assert result.exit_code == 0, result.output
    assert f"at a time on each of {gpus} h100" in result.output


def test_the_plan_says_how_to_start_it() -> None:
    result = CliRunner().invoke(app, ["train", "plan", "base-pretrain", "--gpus", "64"])
    assert "with --set batch_size=64 --set loop.accumulate=1:" in result.output
    assert "an update is 2 times as large, and 0.5 of loop.steps would hear as much" in result.output


def crops(preset: str, *overrides: str, batch_size: int = 8) -> CropsPlan:
    config = load_stage_config(preset, overrides)
    assert isinstance(config, AudioStageConfig | FlowStageConfig)
    return plan_crops(config, EIGHT, batch_size=batch_size, accumulate=1)


def test_a_stage_on_crops_is_counted() -> None:
    plain, longer = crops("nano-codec-decoder"), crops("nano-codec-decoder", "crop_seconds=1")
    assert longer.row_flops == pytest.approx(2 * plain.row_flops, rel=0.05)
    assert longer.row_activations == pytest.approx(2 * plain.row_activations, rel=0.1)
    # a frame of the decoder takes 6 flops a weight, forward and backward; encoder and mel spectra are beside it
    alone = crops("nano-codec-decoder", "codec.quantizer.overlap=1")
    assert 6 < alone.row_flops / (0.5 * 150) / alone.learning < 9
    # and so is the search for codes that overlap: in each of six sweeps, two flops a number of four codebooks
    assert (plain.row_flops - alone.row_flops) / (0.5 * 150) == pytest.approx(6 * 2 * 4 * 1024 * 32, rel=0.05)
    gan = crops("nano-codec-gan")
    assert gan.discriminators > 0
    assert gan.row_flops > plain.row_flops
    assert gan.state == 16 * (gan.learning + gan.discriminators) + 4 * (gan.parameters - gan.learning)
    assert gan.learning < gan.parameters, "the encoder rests"
    assert crops("nano-codec-decoder", batch_size=16).activations == 2 * plain.activations
    assert crops("nano-flow").audio_hours == pytest.approx(load_stage_config("nano-flow").loop.steps * 8 * 5 / 3600)


def test_what_another_model_computes_is_not_planned() -> None:
    with pytest.raises(ConfigError, match="reflow: what its teacher computes is not counted"):
        crops("nano-flow-reflow")
    for preset, settings, message in (
        ("nano-lm-preference", (), "preference: .* is not counted; plan without: --set preference=null"),
        ("nano-lm", ("misheard=0.5", "misheard_for=model"), "misheard_for = model: .* plan without: --set misheard_for=others"),
    ):  # fmt: skip
        config = load_stage_config(preset, settings)
        assert isinstance(config, LMStageConfig)
        with pytest.raises(ConfigError, match=message):
            plan_lm_stage(config, EIGHT, batch_size=8, accumulate=1)
        remedied = load_stage_config(preset, (*settings, message.rpartition(" ")[2]))
        assert isinstance(remedied, LMStageConfig)
        assert plan_lm_stage(remedied, EIGHT, batch_size=8, accumulate=1).fits
