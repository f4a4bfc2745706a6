"""`finetune` from a folder of audio to an adapter, on the tiny model."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import yaml

from longplay import Audio, GenerationOptions, Pipeline
from longplay.checkpoint.adapter import load_adapter
from longplay.checkpoint.store import load_config, load_weights
from longplay.checkpoint.system import load_system
from longplay.data.manifest import Passage, Track, read_manifest, write_manifest
from longplay.data.token_tracks import read_token_tracks
from longplay.errors import CheckpointError, ConfigError, TrainingError, UserError
from longplay.train import finetune as finetuning
from longplay.train.build import build_stage, load_stage_config
from longplay.train.finetune import FinetuneConfig, Finetuned, How, finetune, music
from longplay.train.finetune.estimate import Estimate
from longplay.train.finetune.request import settle
from longplay.train.loop_config import LoopConfig
from systems import save_tiny

RATE = 24000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of 11 s."""
    folder = tmp_path_factory.mktemp("music") / "songs"
    folder.mkdir()
    time = np.arange(11 * RATE) / RATE
    for index, name in enumerate(("01 Slow Rain", "02 morning", "03 tape_hiss")):
        rng = np.random.default_rng(index)
        notes = np.repeat(rng.choice([220.0, 262.0, 330.0, 392.0], 22), RATE // 2)
        wav = 0.3 * np.sin(2 * np.pi * np.cumsum(notes) / RATE) * (1 + np.sin(2 * np.pi * time)) + rng.normal(
            0, 0.01, len(time)
        )
        sf.write(folder / f"{name}.wav", wav.astype(np.float32), RATE)
    return folder


@pytest.fixture
def request_(model: Path, songs: Path, monkeypatch: pytest.MonkeyPatch) -> FinetuneConfig:
    """A finetune of seconds."""
    monkeypatch.setattr(music, "LEAST_SECONDS", 15.0)
    monkeypatch.setattr(finetuning, "MEASURED_WINDOWS", 4)
    monkeypatch.setattr(finetuning.learning, "HELD_OUT_WINDOWS", 2)
    return FinetuneConfig(
        music=str(songs), model=str(model), tags=False, steps=4, rank=2, batch_size=2, sample_seconds=1.0, valid=0.3
    )


def test_everything_in_one_call(request_: FinetuneConfig, tmp_path: Path, model: Path, songs: Path) -> None:
    write_manifest(tmp_path / "other.jsonl", [other(songs, index) for index in range(2)])
    said: list[str] = []
    asked = request_.model_copy(
        update={
            "trigger": "xyz",
            "keep": str(tmp_path / "other.jsonl"),
            "steps": 20,
            "learning_rate": 0.02,
            "full": False,
        }
    )
    run = tmp_path / "run"
    made = finetune(asked, run, How(say=said.append, merge=True))
    assert isinstance(made, Finetuned)
    assert made.losses.keys() == {"this music", "this music, openings", "other music"}
    assert made.losses["this music"]["change"] < -0.05
    assert all(losses["after"] == losses["before"] + losses["change"] for losses in made.losses.values())

    # what is reported is what a user hears, in each form
    measuring = finetuning._stage_config(asked, model, load_config(model).lm, run, How())  # type: ignore[arg-type]
    measuring = measuring.model_copy(update={"held_out_windows": 4})
    for name, adapter in ((model, run / "adapter"), (run / "model", None)):
        losses = finetuning._measure(measuring, run, name, adapter)
        assert losses["loss"] == pytest.approx(made.losses["this music"]["after"], abs=1e-5)
    assert finetuning._measure(measuring, run, model, None)["loss"] == made.losses["this music"]["before"]
    options = GenerationOptions(seconds=1.0, seed=0, num_steps=1)
    by_adapter = Pipeline.load(adapter=run / "adapter", device="cpu").generate("xyz", options)
    whole = Pipeline.load(run / "model", device="cpu").generate("xyz", options)
    np.testing.assert_allclose(by_adapter.wav, whole.wav, atol=1e-4)
    plain = Pipeline.load(model, device="cpu").generate("xyz", options)
    assert not np.allclose(by_adapter.wav, plain.wav, atol=1e-2)

    adapter = load_adapter(run / "adapter")
    assert adapter.config.base == str(model)
    assert adapter.config.example.startswith("xyz, ")
    for when in ("before", "after"):
        for index in range(1):
            assert Audio.load_recipe(run / f"samples/{index}.{when}.wav")["options"]["seed"] == index
    assert (run / "samples/0.png").stat().st_size > 0
    assert "adapter" in Audio.load_recipe(run / "samples/0.after.wav")
    assert "adapter" not in Audio.load_recipe(run / "samples/0.before.wav")
    report = (run / "report.md").read_text()
    assert "longplay generate" in report
    assert "| other music |" in report
    assert json.loads((run / "report.json").read_text())["losses"] == made.losses
    text = "\n".join(said)
    for word in (
        "music    3 files, 33 s; 1 of them",
        "memory   about ",
        "time     about ",
        "20 steps of ",
        "warning: 0.4 minutes",
    ):
        assert word in text, text
    captions = {caption for track in read_token_tracks(run / "tokens", "train") for caption in track.captions}
    assert all(caption.startswith("xyz, ") for caption in captions)


def test_other_music_is_rehearsed(request_: FinetuneConfig, tmp_path: Path, songs: Path) -> None:
    splits = ("train", "valid")
    tracks = [other(songs, index).model_copy(update={"split": split}) for index, split in enumerate(splits)]
    write_manifest(tmp_path / "other.jsonl", tracks)
    asked = request_.model_copy(update={"keep": str(tmp_path / "other.jsonl"), "keep_share": 0.5, "steps": 2})
    run = tmp_path / "run"
    assert isinstance(finetune(asked, run), Finetuned)
    assert [track.utt for track in read_token_tracks(run / "keep", "train")] == ["o0"]
    stage = build_stage(load_stage_config(str(run / "train/run.yaml")), run / "tokens", tmp_path)
    drawn = stage.windows.batch(0, 0, 400)  # type: ignore[attr-defined]
    assert 0.4 < np.mean([window.track.utt == "o0" for window in drawn]) < 0.6
    with pytest.raises(UserError, match="of which music"):
        finetune(request_.model_copy(update={"keep_share": 0.5}), tmp_path / "a")
    write_manifest(tmp_path / "other.jsonl", tracks[1:])
    with pytest.raises(UserError, match="needs music of the split 'train'"):
        finetune(asked, tmp_path / "b")


def other(songs: Path, index: int) -> Track:
    path = sorted(songs.glob("*.wav"))[index]
    return Track(
        id=f"o{index}", path=str(path), seconds=11.0, split="test", kind="real", title="t", source="s", licence="CC0",
        codec_ok=True, captions=("other",),
    )  # fmt: skip


def test_it_goes_on_wherever_it_was_stopped(
    request_: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetune(request_, tmp_path / "whole")
    run = tmp_path / "parts"
    # stopped in every step: after the corpus, while encoding, before training, in training, before the end
    for name in ("prepare_tokens", "estimate", "train_run", "_finish"):
        with monkeypatch.context() as patch:
            patch.setattr(finetuning, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                finetune(request_, run)
        if name == "estimate":
            said: list[str] = []
            assert finetune(request_, run, How(plan_only=True, say=said.append)) is None
            assert not (run / "before.json").exists()
            assert finetune(request_, run, How(budget_seconds=0.0, say=said.append)) is None
            assert said[-1] == "stopped after 1 of 4 steps; the same command goes on from there"
    with monkeypatch.context() as patch:  # what is done is not done again
        for name in ("estimate",):
            patch.setattr(finetuning, name, interrupted)
        patch.setattr("longplay.train.finetune.encode_here", interrupted)
        again = finetune(request_, run)
    assert whole is not None
    assert again is not None
    assert again.losses == whole.losses
    a, b = (load_adapter(path / "adapter").tensors for path in (tmp_path / "whole", run))
    assert all((value == b[name]).all() for name, value in a.items())


def interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_all_weights(request_: FinetuneConfig, tmp_path: Path, model: Path) -> None:
    made = finetune(request_.model_copy(update={"full": True, "learning_rate": 0.01}), tmp_path / "run")
    assert made is not None
    assert (made.adapter, made.model) == (None, tmp_path / "run/model")
    config, base = load_config(tmp_path / "run/model"), load_config(model)
    assert config.lm == base.lm
    assert (config.name, config.licence) == ("tiny, finetuned", base.licence)
    ours, theirs = (load_weights(directory, "lm") for directory in (tmp_path / "run/model", model))
    assert not (ours["text_embedding.weight"] == theirs["text_embedding.weight"]).all()
    for part in ("tokenizer", "flow", "codec"):
        assert (tmp_path / f"run/model/{part}.safetensors").read_bytes() == (model / f"{part}.safetensors").read_bytes()
    assert load_system(tmp_path / "run/model").text_tokenizer is not None


@pytest.mark.tiny_checkpoint
def test_a_published_model(request_: FinetuneConfig, tmp_path: Path, golden_directory: Path) -> None:
    published = golden_directory / "tiny_checkpoint"
    asked = request_.model_copy(update={"model": str(published), "learning_rate": 0.02})
    made = finetune(asked, tmp_path / "run", How(merge=True))
    assert made is not None
    assert made.losses["this music"]["change"] != 0
    config = load_config(tmp_path / "run/model")
    assert config.lm is not None
    assert config.lm.context_frames is None
    lms = [
        load_system(published, adapter=load_adapter(tmp_path / "run/adapter")).lm,
        load_system(tmp_path / "run/model").lm,
    ]
    assert lms[0] is not None
    assert lms[1] is not None
    for name, value in lms[0].state_dict().items():
        np.testing.assert_allclose(value, lms[1].state_dict()[name], atol=1e-2, rtol=1e-2)


def test_bad_input_is_named_before_any_work(
    request_: FinetuneConfig, tmp_path: Path, model: Path, songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="nowhere: is not there; give a folder of audio"):
        finetune(request_.model_copy(update={"music": "nowhere"}), tmp_path / "a")
    with pytest.raises(CheckpointError, match="no such directory; give a model directory"):
        finetune(request_.model_copy(update={"model": "nothing"}), tmp_path / "a")
    with pytest.raises(UserError, match="gone: is not there; give a manifest, or a folder of token shards"):
        finetune(request_.model_copy(update={"keep": "gone"}), tmp_path / "a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(ConfigError, match="full: is there and holds no finetune; give a new directory with --run"):
        finetune(request_, tmp_path / "full")
    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "_prepare", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(request_, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"run: holds a finetune with rank = 2, not 3; ask for the same to go on"):
        finetune(request_.model_copy(update={"rank": 3}), tmp_path / "run")
    other_model = Path(shutil.copytree(model, tmp_path / "other"))
    save = save_tiny(tmp_path / "seed1", seed=1)
    shutil.copy(save / "lm.safetensors", other_model / "lm.safetensors")
    asked = yaml.safe_load((tmp_path / "run/finetune.yaml").read_text())
    (tmp_path / "run/finetune.yaml").write_text(yaml.safe_dump(asked | {"model": str(other_model)}))
    with pytest.raises(ConfigError, match="holds a finetune with base_digest"):
        finetune(request_.model_copy(update={"model": str(other_model)}), tmp_path / "run")
    (other_model / "text_tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="has no text tokenizer, which finetuning needs"):
        finetune(request_.model_copy(update={"model": str(other_model)}), tmp_path / "b")
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(next(songs.glob("*.wav")), one)
    with pytest.raises(UserError, match="one piece of music only, and none to measure with"):
        finetune(request_.model_copy(update={"music": str(one)}), tmp_path / "c")
    monkeypatch.setattr(music, "LEAST_SECONDS", 60.0)
    with pytest.raises(UserError, match="s of music to learn from are too little"):
        finetune(request_, tmp_path / "d")
    assert not (tmp_path / "d/tokens").exists()


def prepare(asked: FinetuneConfig, run: Path) -> None:
    base = Path(asked.model)
    finetuning._prepare(asked, base, load_config(base).lm, run, How())  # type: ignore[arg-type]


def test_the_plan_comes_before_anything_is_prepared(request_: FinetuneConfig, tmp_path: Path, songs: Path) -> None:
    said: list[str] = []
    assert finetune(request_, tmp_path / "run", How(plan_only=True, say=said.append)) is None
    assert not (tmp_path / "run").exists()
    text = "\n".join(said)
    for words in ("plan     by the length of 3 files, 33 s", "memory   about ", "time     about ", "4 steps of "):
        assert words in text, text
    base = Path(request_.model)
    lm = load_config(base).lm
    assert lm is not None
    prepare(request_, tmp_path / "run")
    pieces = music.pieces(songs, request_.valid)
    ahead = {split: music.stand_ins(pieces, split, lm.code_rate, lm.codebook_size) for split in ("train", "valid")}
    for split, made in ahead.items():
        real = read_token_tracks(tmp_path / "run/tokens", split)  # type: ignore[arg-type]
        lengths = [sorted(len(track.semantic) for track in tracks) for tracks in (made, real)]
        np.testing.assert_allclose(*lengths, rtol=0.05)


def test_a_directory_is_bound_to_a_request_once_preparing_begins(
    request_: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    (tmp_path / "empty").mkdir()
    for wrong, message in (("nowhere", "is not there"), (str(tmp_path / "empty"), "names no audio file")):
        with pytest.raises(UserError, match=message):
            finetune(request_.model_copy(update={"music": wrong}), run)
    assert finetune(request_, run, How(plan_only=True)) is None
    other = request_.model_copy(update={"batch_size": 1})
    monkeypatch.setattr(finetuning, "_prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(other, run)
    with pytest.raises(ConfigError, match="holds a finetune with batch_size = 1, not 2"):
        finetune(request_, run, How(plan_only=True))


def test_a_file_that_cannot_be_read_is_not_planned_with(songs: Path, tmp_path: Path) -> None:
    shutil.copytree(songs, tmp_path / "music")
    (tmp_path / "music/broken.wav").write_bytes(b"RIFF")
    assert [piece.seconds for piece in music.pieces(tmp_path / "music", 0.3)] == [11.0] * 3


def test_a_run_among_the_songs_is_none_of_them(request_: FinetuneConfig, songs: Path, tmp_path: Path) -> None:
    shutil.copytree(songs, tmp_path / "music")
    settle(request_, "digest", tmp_path / "music/run")
    shutil.copytree(songs, tmp_path / "music/run/samples")
    assert len(music.pieces(tmp_path / "music", 0.3)) == 3


def test_shards_of_another_tokenizer_are_refused(request_: FinetuneConfig, tmp_path: Path) -> None:
    prepare(request_, tmp_path / "run")
    music.check_kept(tmp_path / "run/tokens", 64)
    with pytest.raises(ConfigError, match="holds the code .*, the model has 2 codes"):
        music.check_kept(tmp_path / "run/tokens", 2)
    with pytest.raises(TrainingError, match="holds no token shard"):
        finetune(request_.model_copy(update={"keep": str(tmp_path)}), tmp_path / "other")


def track(title: str, captions: tuple[str, ...], seconds: float = 100.0, split: Any = "train") -> Track:
    return Track(
        id=title, path="x", seconds=seconds, split=split, kind="real", title=title, source="s", licence="CC0",
        codec_ok=True, captions=captions,
    )  # fmt: skip


def test_what_is_said_of_the_music() -> None:
    (plain,) = music.describe(None, None)([track("03 - Night Train", ("slow, 80 bpm",))])
    assert plain.captions == ("slow, 80 bpm", "night train")
    (named,) = music.describe(None, None)([track("Night", ("the night, slow",))])
    assert named.captions == ("the night, slow",)
    (number,) = music.describe("tape piano", "zork")([track("07", ("slow", "80 bpm"))])
    assert number.captions == ("zork, tape piano", "zork, tape piano, slow", "zork, tape piano, 80 bpm")
    part = Passage(start=0, end=10, captions=("quiet",))
    (parted,) = music.describe("tape piano", "zork")([track("07", ("slow",)).model_copy(update={"passages": (part,)})])
    assert parted.passages[0].captions == ("zork, tape piano", "zork, tape piano, quiet")


def test_little_music_is_warned_of() -> None:
    valid = track("v", (), split="valid")
    assert music.check_amount([track("a", (), 400.0), valid]) is None
    assert "1.7 minutes of music are little" in (music.check_amount([track("a", (), 100.0), valid]) or "")


def test_windows_are_as_long_as_the_music_allows() -> None:
    assert music.window_frames([5000, 5000, 400], 768) == 768
    assert music.window_frames([500, 600, 400, 450], 768) == 400
    assert music.window_frames([5000, 500, 100], 768) == 500


def test_other_music_is_held_out_music_if_there_is_any() -> None:
    tracks = [track(f"t{n}", (), 600.0) for n in range(5)] + [track(f"v{n}", (), 700.0, "valid") for n in range(4)]
    chosen = music.choose_kept(tracks)
    assert len(chosen) == 3
    assert {each.split for each in chosen} == {"valid"}
    assert all(each.id.startswith("v") for each in chosen)
    assert len(music.choose_kept(tracks[:5])) == 3


def test_the_estimate_counts_what_is_left() -> None:
    needed = Estimate(10, 1, step_seconds=2.0, evaluation_seconds=5.0, memory=1.0, free=2.0, device="cpu")
    loop = LoopConfig(steps=100, evaluate_every=20)
    assert needed.seconds(loop) == 100 * 2 + 5 * 5
    assert needed.seconds(loop, done=50) == 50 * 2 + 3 * 5


def test_tracks_that_are_read_are_those_of_the_folder(request_: FinetuneConfig, tmp_path: Path) -> None:
    prepare(request_, tmp_path / "run")
    tracks = read_manifest(tmp_path / "run/corpus/manifest.jsonl")
    assert sorted(each.source for each in tracks) == ["01 Slow Rain.wav", "02 morning.wav", "03 tape_hiss.wav"]
    titles = [caption for each in read_token_tracks(tmp_path / "run/tokens", "train") for caption in each.captions]
    assert {"slow rain", "morning", "tape hiss"} & set(titles)


def test_a_request_from_before_an_option_existed_goes_on_as_usual(request_: FinetuneConfig, tmp_path: Path) -> None:
    settle(request_, "digest", tmp_path / "run")
    path = tmp_path / "run/finetune.yaml"
    asked = yaml.safe_load(path.read_text())
    del asked["keep_share"]
    path.write_text(yaml.safe_dump(asked))
    settle(request_, "digest", tmp_path / "run")
    with pytest.raises(ConfigError, match=r"holds a finetune with keep_share = 0.0, not 0.5"):
        settle(request_.model_copy(update={"keep_share": 0.5}), "digest", tmp_path / "run")
