"""What a run records of its starts, and that it goes on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile as sf
import torch
import yaml

from longplay.checkpoint.system import load_system
from longplay.config import merge
from longplay.data.manifest import Track, write_manifest
from longplay.errors import ConfigError
from longplay.train.run import train_run
from longplay.train.samples import write_sample
from longplay.train.starts import data_digest, differences, named_digest, read_starts


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Of two noises of a second, at 8 kHz."""
    tracks = []
    for seed, split in enumerate(("train", "valid")):
        sf.write(tmp_path / f"{split}.wav", np.random.default_rng(seed).normal(0, 0.1, 8000), 8000)
        tracks.append(
            Track(
                id=split, path=f"{split}.wav", seconds=1.0, split=split, kind="real", title="", source="", licence="CC0",
                codec_ok=True, captions=("noise",),
            )
        )  # fmt: skip
    write_manifest(tmp_path / "manifest.jsonl", tracks)
    return tmp_path / "manifest.jsonl"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch computes on one thread until the test says otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_run_that_started_from_the_music_goes_on_with_other_threads_and_music(
    audio_stage: Any, manifest: Path, one_thread: None, tmp_path: Path
) -> None:
    plain = audio_stage(spectrum={}, quantize_from_step=0).config
    parts = {"encoder": {"phase": False, "shortcut": True}, "decoder": {"shortcut": True}}
    tokenizer = merge(plain.tokenizer.dump(), parts)
    config = type(plain).parse(plain.dump() | {"tokenizer": tokenizer, "counted_crops": 2})
    assert train_run(config, manifest, tmp_path / "run", budget_seconds=0.0) == 1
    before = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["model"]["encoder.shortcut.weight"]
    torch.set_num_threads(2)
    sf.write(tmp_path / "train.wav", np.sin(np.arange(8000) / 5), 8000)
    assert train_run(config, manifest, tmp_path / "run") == 6
    after = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["model"]["encoder.shortcut.weight"]
    assert torch.equal(before, after)


def test_the_digest_of_shards_is_the_same_wherever_they_lie(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.makedirs("/digest", exist_ok=True)
    digests = []
    for tail in (b"one", b"two"):
        for name in ("a.parquet", "b.tar"):
            data = bytes(100_000) + name.encode() + tail
            (tmp_path / name).write_bytes(data)
            memory.pipe(f"/digest/{name}", data)
        digests.append(data_digest(tmp_path))
        assert data_digest("memory://digest") == digests[-1]
    assert digests[0] != digests[1]
    (tmp_path / "b.tar").unlink()
    assert data_digest(tmp_path) not in digests


def test_a_manifest_is_known_by_its_text(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text("{}\n")
    first = data_digest(path)
    path.write_text("{} \n")
    assert data_digest(path) != first


def test_a_sample_that_does_not_fit_on_the_disk_is_an_error_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise sf.LibsndfileError(2)

    monkeypatch.setattr("soundfile.write", full)
    with pytest.raises(OSError, match=r"0\.wav") as error:
        write_sample(tmp_path / "0", None, torch.from_numpy(np.zeros(4096, np.float32)), 8000)
    assert error.value.strerror


def test_a_run_that_goes_on_says_what_of_its_config_is_another(
    audio_stage: Any, manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="longplay")
    run, config = tmp_path / "run", audio_stage(counted_crops=2).config
    train_run(config, manifest, run, budget_seconds=0.0)
    train_run(config, manifest, run, budget_seconds=0.0)
    assert [start["changed"] for start in read_starts(run)] == [{}, {}]
    assert "another config" not in caplog.text
    loop = config.loop.model_copy(update={"seed": 5})
    train_run(config.model_copy(update={"batch_size": 2, "loop": loop}), manifest, run, budget_seconds=0.0)
    assert f"{run} goes on with another config: batch_size: 4 -> 2, loop.seed: 0 -> 5" in caplog.messages
    assert [*read_starts(run)][-1]["changed"] == {"batch_size": [4, 2], "loop.seed": [0, 5]}

    fewer = config.model_copy(update={"loop": config.loop.model_copy(update={"steps": 2})})
    with pytest.raises(ConfigError, match=r"loop.steps = 2: .*run has done 3; set loop.steps=3 or more"):
        train_run(fewer, manifest, run)
    assert yaml.safe_load((run / "run.yaml").read_text())["loop"]["steps"] == 6


def test_a_section_that_comes_or_goes_is_one_difference() -> None:
    before = {"batch_size": 4, "spectrum": None, "loop": {"steps": 6, "seed": 0}, "was": 1}
    now = {"batch_size": 4, "spectrum": {"square": 1.0}, "loop": {"steps": 7, "seed": 0}, "init": None}
    assert differences(before, now) == {
        "spectrum": (None, {"square": 1.0}),
        "loop.steps": (6, 7),
        "was": (1, None),
    }


def test_a_run_notices_that_a_model_it_started_from_is_another_now(
    audio_stage: Any, manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="longplay")
    first = audio_stage()
    first.export(first.model, tmp_path / "model")
    config = first.config.model_copy(update={"init": tmp_path / "model", "counted_crops": 2})
    run, said = tmp_path / "run", f"the init of {tmp_path / 'run'} is not what it was at an earlier start"
    train_run(config, manifest, run, budget_seconds=0.0)
    train_run(config, manifest, run, budget_seconds=0.0)
    assert said not in caplog.text
    with torch.no_grad():
        first.model.encoder.out.bias.add_(1)
    first.export(first.model, tmp_path / "model")
    train_run(config, manifest, run, budget_seconds=0.0)
    assert said in caplog.messages
    before, same, after = (start["sha256"] for start in read_starts(run))
    assert before == same
    assert before.keys() == after.keys() == {"init"}
    assert before != after


def test_what_a_config_names_is_known_by_its_contents(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"codes")
    assert named_digest(tmp_path) == data_digest(tmp_path)
    assert named_digest(tmp_path / "a.parquet") == data_digest(tmp_path / "a.parquet")
    assert named_digest(Path("nano")) == load_system("nano").digest
    assert named_digest(tmp_path / "gone") == "missing"
