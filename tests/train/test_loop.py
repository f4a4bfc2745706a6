import json
import os
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

from longplay.errors import TrainingError
from longplay.train.log import read_metrics
from longplay.train.loop import train
from longplay.train.loop_config import LoopConfig
from longplay.train.parallel import Parallel
from longplay.train.update import Updater
from taught import check_resumes_exactly

GAN = {"adversarial": {"start_step": 2, "discriminators": {"periods": [2], "n_ffts": [64], "channels": 4}}}
SHARES = {"mel": 1, "magnitude": 1, "complex": 1, "adversarial": 3, "features": 3}
BALANCED = GAN | {"balance": {"shares": SHARES, "decay": 0.9}}


@pytest.mark.parametrize("changes", [{}, GAN, BALANCED], ids=["plain", "gan", "balanced"])
def test_resumed_equals_uninterrupted_bit_for_bit(audio_stage: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = audio_stage(**changes)
    assert train(whole, whole.config.loop, tmp_path / "whole") == 6

    first = audio_stage(**changes)
    assert train(first, first.config.loop, tmp_path / "parts", budget_seconds=0.0) == 1
    second = audio_stage(**changes)
    assert train(second, second.config.loop, tmp_path / "parts") == 6
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    a, b = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("whole", "parts"))
    assert all(torch.equal(value, b["average"][name]) for name, value in a["average"].items())


@pytest.mark.parametrize("name", ["lm_stage", "flow_stage"])
def test_resumed_stages_of_codes_equal_uninterrupted(name: str, request: Any, tmp_path: Path) -> None:
    whole = check_resumes_exactly(request.getfixturevalue(name), tmp_path)
    assert (tmp_path / "whole/samples/0000004/0.wav").exists()
    assert (tmp_path / f"whole/model/{whole.name}.safetensors").exists()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_goes_on_with_the_weight_decay_of_its_config(optimizer: str, lm_stage: Any, tmp_path: Path) -> None:
    sizes = []
    for decay in (0.0, 100.0):
        run = tmp_path / f"{decay}"
        first = lm_stage()
        how = {"optimizer": optimizer, "weight_decay": 0.0, "warmup_steps": 0}
        loop = first.config.loop.model_copy(update=how)
        assert train(first, loop, run, budget_seconds=0.0) == 1
        second = lm_stage()
        train(second, loop.model_copy(update={"weight_decay": decay}), run)
        sizes.append(second.model.layers[0].self_attn.q_proj.weight.detach().norm())
    assert sizes[1] < 0.7 * sizes[0]


def test_a_run_goes_on_with_the_betas_of_its_config(lm_stage: Any, tmp_path: Path) -> None:
    first = lm_stage()
    train(first, first.config.loop, tmp_path, budget_seconds=0.0)
    second = lm_stage()
    train(second, second.config.loop.model_copy(update={"betas": (0.5, 0.6)}), tmp_path)
    groups = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["optimizers"]["model"]["param_groups"]
    assert [group["betas"] for group in groups] == [(0.5, 0.6)] * 2


def test_a_run_leaves_log_curves_samples_and_model(audio_stage: Any, tmp_path: Path) -> None:
    run = audio_stage(loop={"trackers": ["tensorboard"]})
    train(run, run.config.loop, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "mel" in line] == [1, 2, 3, 4, 5, 6]
    assert {"held_out_mel", "held_out_usage", "held_out_perplexity"} <= lines[-1].keys()
    for name in (
        "curves.png",
        "codes.png",
        "samples/0000006/0.wav",
        "samples/0000006/0.png",
        "model/tokenizer.safetensors",
    ):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert list((tmp_path / "run/tensorboard").rglob("events.out.tfevents.*"))
    assert not list((tmp_path / "run").glob("*.part*"))


def updater(stage: Any, **changes: Any) -> Updater:
    loop = stage.config.loop.model_copy(update=changes)
    return Updater(stage, loop, Parallel(loop, Path("unused")))


def test_it_learns_one_batch(audio_stage: Any) -> None:
    update = updater(audio_stage(), steps=10, warmup_steps=0).update
    losses = [float(update(0)["mel"]) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks, and hides only what is shown
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("lm_stage", {"accumulate": 2}),
        ("lm_stage", {"workers": 2}),
        ("lm_stage", {"checkpoint_activations": True}),
        ("flow_stage", {"checkpoint_activations": True}),
        ("lm_stage", {"compile": True}),
        ("flow_stage", {"compile": True}),
        ("lm_stage_packed", {"accumulate": 2}),
        ("lm_stage_packed", {"checkpoint_activations": True}),
        ("lm_stage_packed", {"compile": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_how_it_is_computed_does_not_change_what_is_learnt(
    name: str, changes: dict[str, Any], request: Any, monkeypatch: Any
) -> None:
    build = request.getfixturevalue(name.removesuffix("_packed"))
    given = {"row_positions": 48} if name.endswith("_packed") else {}
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_(module, backend="eager"))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", "compile" in changes)  # it cannot be traced
    stages = [build(**given) for _ in range(2)]
    for stage, more in zip(stages, ({}, changes), strict=True):
        run = updater(stage, precision="float32", **more)
        for step, parts in enumerate(run.batches(0, 4)):
            run.update(step, parts)
    plain, changed = (stage.model.state_dict() for stage in stages)
    assert plain.keys() == changed.keys()
    for key, value in plain.items():
        torch.testing.assert_close(changed[key], value, atol=2e-4, rtol=2e-3, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize(("precision", "half"), [("auto", None), ("float32", False), ("bfloat16", True)])
def test_the_precision_is_what_the_device_has_instructions_for(
    precision: Any, half: bool | None, has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longplay.train.parallel.has_bfloat16", lambda device: has)
    config = LoopConfig(steps=1, device="cpu", trackers=(), precision=precision)
    with Parallel(config, tmp_path).autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if (has if half is None else half) else torch.float32)


def test_muon_takes_the_matrices_of_the_blocks_and_nothing_else(lm_stage: Any) -> None:
    stage = lm_stage()
    muon = updater(stage, optimizer="muon").optimizers["model.muon"]
    taken = {id(p) for group in muon.param_groups for p in group["params"]}
    names = {name for name, p in stage.model.named_parameters() if id(p) in taken}
    assert names == {name for name, p in stage.model.named_parameters() if name.startswith("layers.") and p.ndim == 2}
    assert len(names) == 7


def test_a_value_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(audio_stage: Any, tmp_path: Path) -> None:
    good = audio_stage(loop={"steps": 3})
    train(good, good.config.loop, tmp_path / "run")
    before = (tmp_path / "run/checkpoint.pt").read_bytes()
    bad = audio_stage()
    bad.reconstruction.forward = lambda *_: {"mel": sum(p.sum() for p in bad.model.parameters()) * float("nan")}
    with pytest.raises(TrainingError, match="step 3.*not finite; its batch is: lower loop.learning_rate; .*intact"):
        train(bad, bad.config.loop, tmp_path / "run")
    assert (tmp_path / "run/checkpoint.pt").read_bytes() == before


def test_a_batch_that_is_not_finite_is_told_from_a_rate_that_is_too_high(flow_stage: Any, tmp_path: Path) -> None:
    stage = flow_stage()
    whole = stage.batch
    stage.batch = lambda step, rows: whole(step, rows) | {"latents": torch.full((4, 4, 40), torch.nan)}
    with pytest.raises(
        TrainingError, match=r"not finite; its batch is not either \(latents\): mend what it was made from"
    ):
        train(stage, stage.config.loop, tmp_path / "run")


def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint(audio_stage: Any, tmp_path: Path) -> None:
    run = audio_stage(loop={"steps": 3})
    train(run, run.config.loop, tmp_path / "run")
    before = (tmp_path / "run/checkpoint.pt").read_bytes()
    (tmp_path / f"run/.checkpoint.pt.{os.getpid()}.part").symlink_to("/dev/full")
    more = audio_stage()
    with pytest.raises(
        TrainingError, match=r"checkpoint.pt: cannot be written .*; the last checkpoint in .* is intact"
    ):
        train(more, more.config.loop, tmp_path / "run")
    assert (tmp_path / "run/checkpoint.pt").read_bytes() == before
    assert train(audio_stage(), more.config.loop, tmp_path / "run") == 6

    (tmp_path / "new").mkdir()
    (tmp_path / f"new/.checkpoint.pt.{os.getpid()}.part").symlink_to("/dev/full")
    new = audio_stage(loop={"steps": 3})
    with pytest.raises(TrainingError, match=r"checkpoint.pt: cannot be written .*; .*new holds no checkpoint yet"):
        train(new, new.config.loop, tmp_path / "new")

    (tmp_path / "run/metrics.jsonl").unlink()
    (tmp_path / "run/metrics.jsonl").mkdir()
    again = audio_stage(loop={"steps": 9})
    with pytest.raises(TrainingError, match=r"Is a directory; the last checkpoint in .* is intact"):
        train(again, again.config.loop, tmp_path / "run")


def test_a_directory_of_another_run_is_refused(audio_stage: Any, tmp_path: Path) -> None:
    run = audio_stage(loop={"steps": 3})
    train(run, run.config.loop, tmp_path / "run")
    other = audio_stage(tokenizer=run.config.tokenizer.dump() | {"latent_dim": 6})
    with pytest.raises(TrainingError, match="does not fit this config"):
        train(other, other.config.loop, tmp_path / "run")
    run.name = "codec"
    with pytest.raises(TrainingError, match="holds a run of stage 'tokenizer', not 'codec'"):
        train(run, run.config.loop, tmp_path / "run")
    (tmp_path / "run/checkpoint.pt").write_bytes(b"half")
    with pytest.raises(TrainingError, match=r"checkpoint.pt: is no checkpoint .*; delete it"):
        train(run, run.config.loop, tmp_path / "run")


def test_a_log_that_was_cut_off_goes_on_and_counts_no_step_twice(tmp_path: Path) -> None:
    lines = [{"step": 1, "mel": 5.0}, {"step": 2, "mel": 4.0}, {"step": 3, "mel": 3.0}, {"step": 2, "mel": 3.9}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "m')
    assert [(record["step"], record["mel"]) for record in read_metrics(tmp_path)] == [(1, 5.0), (2, 4.0), (2, 3.9)]


def test_learning_rate_warms_up_holds_and_decays() -> None:
    loop = LoopConfig(steps=100, learning_rate=1.0, warmup_steps=10, decay_steps=20)
    assert loop.schedule(0) == pytest.approx(0.1)
    assert loop.schedule(50) == 1.0
    assert loop.schedule(90) == pytest.approx(0.5)
    assert loop.schedule(99) < 0.01
