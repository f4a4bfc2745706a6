"""Stages `lm` and `flow` on tiny pieces of codes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from longplay.chords import Chord
from longplay.control import CHORD_WIDTH, Control
from longplay.data.manifest import Track, read_manifest, write_manifest
from longplay.data.token_tracks import TokenTrack
from longplay.data.token_windows import TokenWindows
from longplay.errors import CheckpointError, ConfigError, TrainingError
from longplay.keys import Key
from longplay.models.flow import Flow
from longplay.models.lm import LMBatch
from longplay.train.export import export_model
from longplay.train.flow_stage import FlowStage, FlowStageConfig, ReflowConfig
from longplay.train.init import start_from
from longplay.train.lm_examples import collate
from longplay.train.loop import train
from longplay.train.noise import is_white
from longplay.train.parallel import Parallel
from longplay.train.update import Updater
from tiny_flow import PRECONDITION


@pytest.mark.parametrize("name", ["lm_stage", "flow_stage"])
def test_resumed_equals_uninterrupted(name: str, request: Any, tmp_path: Path) -> None:
    build = request.getfixturevalue(name)
    whole = build()
    train(whole, whole.config.loop, tmp_path / "whole")
    first = build()
    assert train(first, first.config.loop, tmp_path / "parts", budget_seconds=0.0) == 1
    second = build()
    assert train(second, second.config.loop, tmp_path / "parts") == 4
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key
    assert (tmp_path / "whole/samples/0000004/0.wav").exists()
    assert (tmp_path / f"whole/model/{whole.name}.safetensors").exists()


@torch.inference_mode()
def held_out_loss(stage: Any) -> float:
    return stage.evaluate(stage.model)["loss"]


def learn(stage: Any, steps: int, **loop: Any) -> None:
    config = stage.config.loop.model_copy(update={"steps": 1000, "warmup_steps": 0, **loop})
    updater = Updater(stage, config, Parallel(config, Path("unused")))
    for step in range(steps):
        updater.update(step)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_lm_learns_what_repeats(lm_stage: Any, optimizer: str) -> None:
    stage = lm_stage()
    first = held_out_loss(stage)
    learn(stage, 150, optimizer=optimizer)
    stage.model.eval()
    assert held_out_loss(stage) < 0.5 * first


def test_the_lm_learns_to_keep_a_beat_that_only_control_tells(lm_stage: Any, tracks: list[TokenTrack]) -> None:
    """A code of its own on every bar line, noise between: where a window starts in the bar, the codes do not say at once."""
    rng = np.random.default_rng(1)

    def beaten(track: TokenTrack, period: int, first: int) -> TokenTrack:
        codes = rng.integers(1, 16, 400).astype(np.int16)
        codes[first::period] = 0
        rate = 20
        return replace(track, semantic=codes, control=Control(((first) / rate, (first + period) / rate)))

    pieces = [beaten(track, period, first) for track, period, first in zip(tracks, (5, 6, 7), (2, 3, 0), strict=True)]
    stage = lm_stage(lm=lm_stage().config.lm.model_copy(update={"control": True}), held_out_windows=8)
    windows = TokenWindows(pieces, 20)
    stage.windows = stage.held_out = windows
    learn(stage, 250, learning_rate=1e-2)
    stage.model.eval()
    with torch.inference_mode():
        found = stage.evaluate(stage.model)
    gain = found["loss_without_control"] - found["loss"]
    assert gain > 0.1, found


def test_older_weights_learn_control_from_nothing(lm_stage: Any, tmp_path: Path) -> None:
    older = lm_stage()
    older.export(older.model, tmp_path)
    newer = lm_stage(lm=older.config.lm.model_copy(update={"control": True}))
    start_from(newer.model, "lm", tmp_path)
    batch = newer.batch(0, slice(None))
    said = newer.losses(0, batch).metrics["loss"]
    batch.pop("control")
    assert older.losses(0, batch).metrics["loss"] == said
    newer.export(newer.model, tmp_path / "newer")
    with pytest.raises(CheckpointError, match="does not fit this config"):
        start_from(older.model, "lm", tmp_path / "newer")


def test_a_model_that_is_told_of_chords_starts_from_one_that_is_not(lm_stage: Any, tmp_path: Path) -> None:
    """What it will be told of them changes nothing at first."""
    older = lm_stage(lm=lm_stage().config.lm.model_copy(update={"control": True}))
    torch.nn.init.normal_(older.model.control_projection.weight)
    older.export(older.model, tmp_path)
    newer = lm_stage(lm=older.config.lm.model_copy(update={"chords": True}))
    start_from(newer.model, "lm", tmp_path)
    new = newer.model.control_projection.weight
    assert new.shape[1] == older.model.control_projection.weight.shape[1] + CHORD_WIDTH
    held = Control.steady(90, Key.parse("C major"))
    batch = newer.batch(0, slice(None))
    for chords in ((), ((0.0, Chord.parse("C")),)):
        control = torch.from_numpy(replace(held, chords=chords).features(0, batch["control"].shape[1], 20))
        batch["control"] = control.expand_as(batch["control"])
        assert older.losses(0, batch).metrics["loss"] == newer.losses(0, batch).metrics["loss"]
    torch.nn.init.normal_(new)
    assert older.losses(0, batch).metrics["loss"] != newer.losses(0, batch).metrics["loss"]


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


def test_lm_batches_carry_text_times_and_labels(lm_stage: Any) -> None:
    stage = lm_stage()
    windows = stage.windows.batch(0, 0, 16)
    batch = collate([stage._example(window) for window in windows])
    for row, window in enumerate(windows):
        ids = batch.ids[row, : batch.id_lengths[row]].tolist()
        assert stage.text.decode(ids) == window.caption
        assert batch.starts[row][0] == pytest.approx(window.start / 20)
        real = batch.starts[row] >= 0
        assert batch.ends[row][real].max() <= window.start / 20 + 1 + 1e-6
        assert bool(batch.complete[row]) == (window.start + 20 == len(window.track.semantic))


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


def test_a_window_is_told_what_is_heard_in_it(tracks: list[TokenTrack]) -> None:
    codes = len(tracks[0].semantic)
    parts = ((0, ("early",)), (codes // 2, ("late",)))
    windows = TokenWindows([replace(tracks[0], captions=("all",), passages=parts)], 4)
    drawn = windows.batch(0, 0, 200)
    assert {window.caption for window in drawn} == {"all", "early", "late"}
    for window in drawn:
        assert window.caption != ("early" if window.start + 2 >= codes // 2 else "late")


def test_every_second_step_is_of_openings_and_costs_as_many_codes(lm_stage: Any) -> None:
    stage = lm_stage(opening_frames=5)
    shapes = {step: stage.batch(step, slice(None))["codes"].shape for step in (0, 1, 2, 3)}
    assert shapes == {0: (4, 20), 1: (16, 5), 2: (4, 20), 3: (16, 5)}
    halves = [stage.batch(1, slice(first, first + 2)) for first in (0, 2)]
    whole = stage.batch(1, slice(None))
    assert torch.equal(torch.cat([half["codes"] for half in halves]), whole["codes"])
    assert torch.equal(torch.cat([half["id_lengths"] for half in halves]), whole["id_lengths"])
    assert 0 < int((whole["id_lengths"] == 0).sum()) < 16  # some without their text
    assert sum(float(half["weight"]) for half in halves) == pytest.approx(2.0)
    with torch.inference_mode():
        assert {"opening_loss", "opening_loss_without_text"} <= stage.evaluate(stage.model.eval()).keys()


@pytest.mark.parametrize("row_positions", [None, 48])
def test_the_lm_is_told_some_of_the_tags(lm_stage: Any, row_positions: int | None) -> None:
    stage, plain = (lm_stage(tag_dropout=share, row_positions=row_positions) for share in (0.9, 0.0))
    for windows in (stage.windows, plain.windows, stage.held_out, plain.held_out):
        windows.tracks = [replace(track, captions=("slow, soft piano, jazz, fast",)) for track in windows.tracks]
    told = [[_texts(each.batch(step, slice(None)), each) for step in range(4)] for each in (stage, plain)]
    assert set(told[1][0]) <= {"slow, soft piano, jazz, fast", ""}
    assert len({text for texts in told[0] for text in texts}) > 6, "other ones every time"
    assert {tag for texts in told[0] for text in texts for tag in text.split(", ") if tag} == {
        "slow",
        "soft piano",
        "jazz",
        "fast",
    }
    if row_positions is None:
        assert _texts(stage.batch(1, slice(2, 4)), stage) == told[0][1][2:], (
            "the same, however many processes share the rows"
        )
    with torch.inference_mode():
        measured = [each.evaluate(each.model.eval())["loss"] for each in (stage, plain)]
    assert measured[0] == measured[1], "held-out music is told of in full"


def _texts(batch: Any, stage: Any) -> list[str]:
    rows = zip(batch["ids"].tolist(), batch["id_lengths"].tolist(), strict=True)
    return [stage.text.decode(ids[:length]) for ids, length in rows]


def test_the_lm_hears_wrong_codes_and_predicts_the_right_ones(lm_stage: Any) -> None:
    stage, plain = lm_stage(misheard=0.9), lm_stage()
    batch, other = (each.batch(2, slice(None)) for each in (stage, plain))
    assert "heard" not in other
    assert torch.equal(batch["codes"], other["codes"]), "what is predicted stays"
    wrong = (batch["heard"] != batch["codes"]).float().mean(1)
    assert wrong.max() > wrong.min(), "more in one window than in the other"
    assert 0.1 < float(wrong.mean()) < 0.9
    for heard, codes in zip(batch["heard"], batch["codes"], strict=True):
        assert set(heard.tolist()) <= set(codes.tolist()), "codes of the same window"
    half = stage.batch(2, slice(2, 4))
    assert torch.equal(half["heard"], batch["heard"][2:]), "the same, however many processes share the rows"
    right = {name: value for name, value in batch.items() if name != "heard"}
    assert stage.losses(2, batch).metrics["loss"] != stage.losses(2, right).metrics["loss"]
    packed = lm_stage(misheard=0.9, row_positions=48).batch(2, slice(None))
    assert (packed["heard"] != packed["codes"]).any()
    assert torch.equal(packed["codes"], lm_stage(row_positions=48).batch(2, slice(None))["codes"])


def test_the_lm_hears_what_it_would_have_gone_on_with(lm_stage: Any) -> None:
    stage, plain = lm_stage(misheard=0.9, misheard_for="model"), lm_stage()
    batch = stage.batch(2, slice(None))
    assert "heard" not in batch
    torch.manual_seed(0)
    first = stage.losses(2, batch).metrics["loss"]
    torch.manual_seed(0)
    assert stage.losses(2, batch).metrics["loss"] == first
    assert plain.losses(2, batch).metrics["loss"] != first
    with torch.no_grad():
        stage.model.audio_head.bias[5] += 50.0  # what it expects everywhere
    heard = stage._misheard(LMBatch(**{name: value for name, value in batch.items() if name != "weight"})).heard
    assert heard is not None
    changed = heard != batch["codes"]
    assert changed.any()
    assert not changed.all()
    assert (heard[changed] == 5).all()


@torch.inference_mode()
def test_what_the_lm_draws_next_depends_on_what_is_before(lm_stage: Any) -> None:
    stage = lm_stage()
    fields = {name: value for name, value in stage.batch(0, slice(None)).items() if name != "weight"}
    torch.manual_seed(0)
    drawn = stage.model.draw_next(LMBatch(**fields))
    assert drawn.shape == fields["codes"].shape
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < 16
    torch.nn.init.normal_(stage.model.audio_embedding.weight)  # what was heard is to matter
    torch.manual_seed(0)
    drawn = stage.model.draw_next(LMBatch(**fields))
    fields["codes"] = fields["codes"].clone()
    fields["codes"][:, 10] = (fields["codes"][:, 10] + 1) % 16
    torch.manual_seed(0)
    other = stage.model.draw_next(LMBatch(**fields))
    assert torch.equal(drawn[:, :11], other[:, :11])
    assert not torch.equal(drawn[:, 11:], other[:, 11:])
