"""The plan's arithmetic against models on the meta device and against what torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from longplay.errors import ConfigError
from longplay.models.lm import LM
from longplay.models.lm_config import LMConfig
from longplay.train.build import load_stage_config
from longplay.train.lm_stage import LMStageConfig
from longplay.train.plan import Cluster, Plan, plan_lm

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
    loop = config.loop
    result = plan_lm(
        config.lm, Cluster(gpus=gpus), batch_size=config.batch_size, steps=loop.steps, accumulate=loop.accumulate,
        shard=loop.shard, checkpoint_activations=loop.checkpoint_activations,
    )  # fmt: skip
    assert result.fits


def test_what_cannot_be_planned_is_named() -> None:
    with pytest.raises(ConfigError, match="gpu = 'abacus': no figures for it; use one of a100"):
        plan(lm("base"), Cluster(gpu="abacus"))
    with pytest.raises(ConfigError, match="batch_size = 12: is no multiple of 8 GPUs x accumulate 1"):
        plan(lm("base"), batch_size=12)
