"""What the flow is trained on, what it starts from, and that it learns."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from longplay.chords import Chord
from longplay.control import Control
from longplay.data.manifest import Track, read_manifest, write_manifest
from longplay.data.token_tracks import TokenTrack
from longplay.data.token_windows import TokenWindows
from longplay.errors import CheckpointError, ConfigError, TrainingError
from longplay.models.flow import Flow
from longplay.train.export import export_model
from longplay.train.flow_stage import FlowStage, FlowStageConfig, ReflowConfig
from longplay.train.loop import train
from longplay.train.noise import is_white
from taught import held_out_loss, learn
from tiny_flow import PRECONDITION


def test_the_flow_learns(flow_stage: Any) -> None:
    stage = flow_stage()
    first = held_out_loss(stage)
    learn(stage, 80)
    assert held_out_loss(stage) < 0.9 * first


def test_the_flow_learns_a_pitch_that_only_the_chord_tells(flow_stage: Any, tracks: list[TokenTrack]) -> None:
    """Codes say nothing here; latents are those of the chord."""
    rng = np.random.default_rng(3)
    names = ("C", "F#m")
    made = []
    for track in tracks:
        chords = tuple((float(second), Chord.parse(names[rng.integers(2)])) for second in range(20))
        made.append(replace(track, semantic=np.zeros(400, np.int16), control=Control(chords=chords)))
    stage = flow_stage(
        flow=flow_stage().config.flow.model_copy(update={"chords": True, "normalize_latents": False}), held_out_crops=8
    )
    stage.windows = stage.held_out = TokenWindows(made, 20)

    def tensors(windows: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        sound = stage._chords(windows)[..., :4].mT.repeat_interleave(2, dim=2)
        return torch.zeros(len(windows), 20, dtype=torch.long), 2 * sound - 1

    stage._tensors = tensors
    learn(stage, 150, learning_rate=1e-2)
    stage.model.eval()
    with torch.inference_mode():
        found = stage.evaluate(stage.model)
    assert found["loss_with_chords"] < 0.85 * found["loss"], found


def test_flow_latents_are_standardised_and_aligned_with_the_codes(flow_stage: Any) -> None:
    stage = flow_stage()
    windows = stage.windows.batch(0, 0, 64)
    codes, latents = stage._tensors(windows)
    assert latents.shape == (64, 4, 2 * codes.shape[1])
    normal = stage.model.normalize(latents)
    assert normal.mean().abs() < 0.2
    assert (normal.std() - 1).abs() < 0.2
    window = next(w for w in windows if w.start > 0)
    acoustic = torch.from_numpy(window.track.acoustic[:, 2 * window.start : 2 * window.start + 3].astype(np.int64))
    row = latents[windows.index(window)]
    torch.testing.assert_close(row[:, :3], stage.codec.embed(acoustic.unsqueeze(0))[0])


def test_flow_latents_of_overlapping_codes_are_those_of_the_whole_piece(flow_stage: Any) -> None:
    stage = flow_stage(overlap=5)
    windows = stage.windows.batch(0, 0, 16)
    for window, row in zip(windows, stage._tensors(windows)[1], strict=True):
        whole = stage.codec.embed(torch.from_numpy(window.track.acoustic[None].astype(np.int64)))[0]
        part = whole[:, 2 * window.start :][:, : row.shape[1]]
        torch.testing.assert_close(row[:, : part.shape[1]], part)


def test_one_scale_for_all_channels_keeps_small_ones_small(flow_stage: Any) -> None:
    each, common = flow_stage().model, flow_stage(latent_scale="common").model
    assert len(set(common.latent_std.tolist())) == 1
    torch.testing.assert_close(common.latent_std[0], each.latent_std.square().mean().sqrt())
    assert torch.equal(common.latent_mean, each.latent_mean)


def test_a_flow_needs_acoustic_codes(flow_stage: Any, tracks: list[TokenTrack]) -> None:
    stage = flow_stage()
    bare = [TokenTrack(t.utt, t.semantic, np.zeros((0, 0), np.int16), t.captions, t.sections) for t in tracks]
    with pytest.raises(TrainingError, match="3 pieces have no acoustic codes"):
        FlowStage(stage.config, stage.codec, bare, [])


@pytest.fixture
def music(tmp_path: Path, tracks: list[TokenTrack]) -> Path:
    """The manifest of noises as long as the pieces, the last one of which no codec may learn from."""
    rows = []
    for index, track in enumerate(tracks):
        wav = np.random.default_rng(index).normal(0, 0.2, 64 * len(track.semantic) - 5)
        sf.write(tmp_path / f"{track.utt}.wav", wav, 1280, subtype="FLOAT")
        rows.append(
            Track(
                id=track.utt, path=f"{track.utt}.wav", seconds=len(wav) / 1280, split="train", kind="real", title="", source="",
                licence="CC0", codec_ok=index < 2, captions=("noise",),
            )
        )  # fmt: skip
    write_manifest(tmp_path / "manifest.jsonl", rows)
    return tmp_path / "manifest.jsonl"


def test_a_flow_learns_what_the_encoder_makes_of_the_recordings(flow_stage: Any, music: Path) -> None:
    stage = flow_stage(music=music)
    windows = stage.windows.batch(0, 0, 32)
    assert {window.track.utt for window in windows} == {"t0", "t1"}
    codes, latents = stage._tensors(windows)
    assert latents.shape == (32, 4, 2 * codes.shape[1])
    inside = [window for window in windows if window.start > 0 and not window.ends]
    assert inside
    assert any(window.start == 0 for window in windows)
    assert any(window.ends for window in windows)
    for window, row in zip(windows, latents, strict=True):
        wav = torch.from_numpy(sf.read(music.parent / f"{window.track.utt}.wav", dtype="float32")[0])
        whole = stage.codec.encoder(torch.nn.functional.pad(wav, (0, 5)).view(1, 1, -1))[0]
        real = whole[:, 2 * window.start : 2 * (window.start + len(window.semantic))]
        around = stage.codec.encoder.receptive_field  # layers see their own padding at the ends, not silence
        kept = slice(around if window.start == 0 else 0, -around if window.ends else None)
        torch.testing.assert_close(row[:, kept], real[:, kept], atol=1e-5, rtol=1e-4)
    first = held_out_loss(stage)
    learn(stage, 40)
    assert held_out_loss(stage) < first


def test_a_flow_and_the_music_of_other_pieces_is_refused(flow_stage: Any, music: Path) -> None:
    rows = [track.model_copy(update={"id": f"other-{track.id}"}) for track in read_manifest(music)]
    write_manifest(music, rows)
    with pytest.raises(TrainingError, match="names no recording good enough .* give the manifest that they were made"):
        flow_stage(music=music)


def test_a_flow_starts_from_another_and_keeps_its_own_statistics(flow_stage: Any, tmp_path: Path) -> None:
    first = flow_stage()
    with torch.no_grad():
        first.model.latent_mean.add_(5.0)
        for parameter in first.model.parameters():
            parameter.add_(0.5)
    first.export(first.model, tmp_path / "model")
    stage = flow_stage(init=tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), stage.model.parameters(), strict=True))
    assert torch.equal(stage.model.latent_mean, flow_stage().model.latent_mean)


def test_a_flow_is_made_straight_from_a_model_by_name(
    flow_stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = flow_stage()
    first.export(first.model, tmp_path / "model")
    monkeypatch.setattr("longplay.train.flow_stage.locate", {"nano": tmp_path / "model"}.__getitem__)
    unguided = first.config.flow.model_copy(update={"guidance": 0.0})
    stage = flow_stage(init=Path("nano"), flow=unguided, reflow=ReflowConfig(num_steps=2))
    for model in (stage.model, stage.teacher):
        assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), model.parameters(), strict=True))


def test_a_preconditioned_flow_knows_what_its_guess_leaves_and_hands_it_on(flow_stage: Any, tmp_path: Path) -> None:
    changes = {"precondition": True, "condition_dropout": 0.0, "guidance": 0.0}
    flow = flow_stage().config.flow.model_copy(update=changes)
    first = flow_stage(flow=flow, latent_scale="common")
    assert first.model.latent_spread.square().mean() == pytest.approx(1, abs=1e-4)
    assert len(set(first.model.latent_spread.tolist())) == 4
    first.model.latent_spread.fill_(0.25)
    first.export(first.model, tmp_path / "model")
    second = flow_stage(flow=flow, latent_scale="common", init=tmp_path / "model")
    assert torch.equal(second.model.latent_spread, torch.full((4,), 0.25).half().float())


def test_a_flow_measures_once_how_long_its_noise_lasts(flow_stage: Any, tmp_path: Path) -> None:
    flow = flow_stage().config.flow.model_copy(update=PRECONDITION | {"noise_reach": 3})
    first = flow_stage(flow=flow)
    assert not is_white(first.model)
    assert not first.model.estimator.final_proj.weight.any()
    assert torch.equal(flow_stage(flow=flow).model.noise_taps, first.model.noise_taps)
    first.model.noise_taps.mul_(0.5)
    with torch.no_grad():
        first.model.estimator.final_proj.weight.fill_(0.25)
    first.export(first.model, tmp_path / "model")
    second = flow_stage(flow=flow, init=tmp_path / "model")
    torch.testing.assert_close(second.model.noise_taps, first.model.noise_taps, rtol=1e-3, atol=1e-3)
    assert bool((second.model.estimator.final_proj.weight == 0.25).all()), "it goes on"
    learn(second, 2)


def test_a_flow_that_is_resumed_measures_nothing(
    flow_stage: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flow = flow_stage().config.flow.model_copy(update=PRECONDITION | {"noise_reach": 3})
    config = flow_stage(flow=flow).config
    begun = flow_stage(flow=flow)
    train(begun, config.loop.model_copy(update={"steps": 2}), tmp_path)
    monkeypatch.setattr(FlowStage, "_measure", None)
    resumed = FlowStage(config, begun.codec, begun.windows.tracks, begun.held_out.tracks, begins=False)
    assert is_white(resumed.model)
    train(resumed, config.loop.model_copy(update={"steps": 3}), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(begun.model.buffers(), resumed.model.buffers(), strict=True))


def test_paths_of_a_preconditioned_flow_are_straight_after_reflow_alone(flow_stage: Any) -> None:
    config = flow_stage().config
    plain = config.dump() | {"flow": config.flow.dump() | PRECONDITION}
    straight = plain | {"flow": plain["flow"] | {"straight": True}}
    with pytest.raises(
        ConfigError, match="straight = true: paths of a flow with precondition are straight after reflow alone"
    ):
        FlowStageConfig.parse(straight)
    with pytest.raises(ConfigError, match="straight = false"):
        FlowStageConfig.parse(plain | {"reflow": {}, "init": "a"})
    assert FlowStageConfig.parse(straight | {"reflow": {}, "init": "a"}).flow.straight


def test_a_flow_of_another_size_is_refused(flow_stage: Any, tmp_path: Path) -> None:
    first = flow_stage()
    wider = Flow(first.config.flow.model_copy(update={"codebook_size": 32}))
    export_model("flow", wider, wider.config, tmp_path / "model")
    with pytest.raises(CheckpointError, match="its flow does not fit this config"):
        flow_stage(init=tmp_path / "model")


def test_reflow_lets_a_single_step_end_where_the_guided_path_ends(flow_stage: Any, tmp_path: Path) -> None:
    teacher = flow_stage()
    learn(teacher, 80)
    teacher.export(teacher.model, tmp_path / "model")
    unguided = teacher.config.flow.model_copy(update={"guidance": 0.0})
    stage = flow_stage(init=tmp_path / "model", flow=unguided, reflow=ReflowConfig(num_steps=8, guidance=8.0))
    assert torch.equal(stage.model.latent_std, teacher.model.latent_std), "one scale with its teacher"
    with torch.inference_mode():
        before = stage.evaluate(stage.model.eval())
    weights = {name: value.clone() for name, value in stage.teacher.state_dict().items()}
    learn(stage, 200)
    with torch.inference_mode():
        after = stage.evaluate(stage.model.eval())
    assert after["off_1"] < 0.8 * before["off_1"]
    assert after["off_4"] < 0.8 * before["off_4"]
    assert all(torch.equal(value, weights[name]) for name, value in stage.teacher.state_dict().items())


def test_reflow_needs_a_trained_flow_and_guides_once(flow_stage: Any) -> None:
    config = flow_stage().config.model_dump()
    with pytest.raises(ConfigError, match=r"FlowStageConfig: reflow .* give its model directory as init"):
        FlowStageConfig.parse(config | {"reflow": {}})
    with pytest.raises(ConfigError, match="set flow.guidance to 0"):
        FlowStageConfig.parse(config | {"reflow": {}, "init": "somewhere"})
