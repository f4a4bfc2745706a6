"""`longplay train` from its real entry point."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile as sf
import torch
import yaml

from longplay.data.manifest import Track, read_manifest, write_manifest
from systems import save_residual, save_tiny

SPECTRAL = {"kind": "spectral", "n_fft": 64, "dim": 8, "intermediate_dim": 12, "num_layers": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest of two tracks and the config of a tiny tokenizer."""
    tracks = []
    for split in ("train", "valid"):
        wav = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1
        sf.write(tmp_path / f"{split}.wav", wav, 8000)
        about = {"kind": "real", "title": "t", "source": "s", "licence": "CC0", "codec_ok": True, "captions": ("a",)}
        tracks.append(Track(id=split, path=f"{split}.wav", seconds=1.0, split=split, **about))
    write_manifest(tmp_path / "manifest.jsonl", tracks)
    config = {
        "stage": "tokenizer",
        "tokenizer": {
            "sample_rate": 8000, "hop_length": 32, "latent_dim": 4, "codebook": {"size": 16, "dim": 4},
            "encoder": SPECTRAL, "decoder": SPECTRAL,
        },
        "batch_size": 2, "crop_seconds": 0.1, "quantize_from_step": 0, "held_out_crops": 2, "held_out_seconds": 0.5, "loss": {"n_ffts": [64]},
        "loop": {"steps": 2, "log_every": 1, "trackers": []},
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


MAIN = [sys.executable, "-c", "from longplay.cli import main; main()", "train"]
RUN = ["run", "config.yaml", "--run", "run", "--data", "manifest.jsonl", "--threads", "1"]


def longplay(folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*launcher, *MAIN, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_run_logs_to_stderr_and_records_where_it_comes_from(folder: Path) -> None:
    done = longplay(folder, *RUN)
    assert done.returncode == 0, done.stderr
    assert "step 2  mel" in done.stderr
    assert done.stdout == ""
    assert (folder / "run/model/tokenizer.safetensors").exists()
    (start,) = (json.loads(line) for line in (folder / "run/starts.jsonl").read_text().splitlines())
    assert start["processes"] == 1
    assert len(start["data_sha256"]) == 64
    assert yaml.safe_load((folder / "run/run.yaml").read_text())["loop"]["steps"] == 2

    # a start whose data cannot be read leaves the config of the run as it was
    failed = longplay(folder, *RUN[:-4], "--data", "nothing.jsonl", "--set", "loop.steps=9")
    assert failed.returncode == 2, failed.stderr
    assert "error: manifest nothing.jsonl" in failed.stderr
    assert yaml.safe_load((folder / "run/run.yaml").read_text())["loop"]["steps"] == 2


def test_a_start_that_is_refused_leaves_what_was_there(folder: Path) -> None:
    assert longplay(folder, *RUN).returncode == 0
    before = {path: path.read_bytes() for path in (folder / "run").glob("*.*")}
    done = longplay(folder, *RUN, "--set", "tokenizer.latent_dim=8")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert {path: path.read_bytes() for path in (folder / "run").glob("*.*")} == before


@pytest.mark.skipif(importlib.util.find_spec("trackio") is not None, reason="trackio is installed")
def test_a_tracker_that_is_not_installed_is_named(folder: Path) -> None:
    done = longplay(folder, *RUN, "--set", "loop.trackers=[trackio]")
    assert done.returncode == 2
    assert "error: loop.trackers: trackio is not installed; `pip install trackio`, or leave it out" in done.stderr
    assert not (folder / "run").exists()


WANDB = """
import json
class Run:
    def log(self, values, step):
        pass
    def finish(self):
        pass
def init(**told):
    with open("told.jsonl", "a") as file:
        file.write(json.dumps(told) + "\\n")
    return Run()
"""


def test_a_tracker_is_told_the_same_run_at_every_start(folder: Path) -> None:
    (folder / "wandb.py").write_text(WANDB)  # found before one that is installed
    (folder / "wandb-0.dist-info").mkdir()
    (folder / "wandb-0.dist-info/METADATA").write_text("Name: wandb\nVersion: 0\n")
    for steps in (2, 3):
        done = longplay(folder, *RUN, "--set", "loop.trackers=[wandb]", "--set", f"loop.steps={steps}")
        assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines())
    own = (folder / "run/tracker_id").read_text().strip()
    about = {"project": "longplay-tokenizer", "name": f"run-{own}", "id": own, "resume": "allow", "dir": "run"}
    assert first.items() >= about.items()
    assert second.items() >= about.items()
    assert (first["config"]["loop"]["steps"], second["config"]["loop"]["steps"]) == (2, 3)
    assert second["config"] == json.loads(json.dumps(yaml.safe_load((folder / "run/run.yaml").read_text())))


@pytest.mark.slow
def test_torchrun_starts_it_in_several_processes(folder: Path) -> None:
    torchrun = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--no-python",
        "--",
    )
    done = longplay(folder, *RUN, "--set", "loop.device=cpu", launcher=torchrun)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 2  mel") == 1
    assert json.loads((folder / "run/starts.jsonl").read_text())["processes"] == 2


def test_tokens_need_a_tokenizer_of_one_codebook(folder: Path) -> None:
    save_residual(folder / "residual")
    refused = longplay(folder, "tokens", "manifest.jsonl", "tokens", "--model", "residual")
    assert refused.returncode == 2, refused.stderr
    assert "error: residual: its tokenizer has 3 codebooks, and lm and flow take one code a frame" in refused.stderr
    assert not (folder / "tokens").exists()


def test_release_stores_the_lm_in_int8_and_prints_its_quality(tmp_path: Path) -> None:
    save_tiny(tmp_path / "a")
    about = ("--name", "small", "--licence", "CC0", "--provenance", "a test", "--lm-precision", "int8")
    done = longplay(tmp_path, "release", "out", "--lm", "a", *about)
    assert done.returncode == 0, done.stderr
    assert "9 projections in int8" in done.stdout
    assert "int8 against float32: KL" in done.stdout
    assert "of the likeliest 350 shared" in done.stdout
    refused = longplay(tmp_path, "release", "other", "--codec", "a", *about)
    assert refused.returncode == 2
    assert "--lm-precision int8 needs --lm" in refused.stderr


def test_a_part_may_be_that_of_a_model_with_a_name(tmp_path: Path) -> None:
    about = ("--name", "small", "--licence", "CC0", "--provenance", "a test")
    done = longplay(tmp_path, "release", "out", "--tokenizer", "nano", *about)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/tokenizer.safetensors").is_file()


def test_takes_are_made_once_and_measured(folder: Path) -> None:
    save_tiny(folder / "model")
    how = ("--model", "model", "--each", "2", "--seconds", "4", "--no-tags", "--threads", "1")
    given = ("takes", "manifest.jsonl", "takes", *how)
    done = longplay(folder, *given, "--prompts", "2")
    assert done.returncode == 0, done.stderr
    assert "takes of 2 prompts made" in done.stdout
    assert "2 of 2 prompts, silent 0.00" in done.stderr
    again = longplay(folder, *given, "--prompts", "2")
    assert "takes of 0 prompts made" in again.stdout
    assert len(list((folder / "takes").glob("*.parquet"))) == 1

    lines = (folder / "manifest.jsonl").read_text().splitlines()
    (folder / "valid.jsonl").write_text(lines[1] + "\n")
    refused = longplay(folder, "takes", "valid.jsonl", "takes", "--model", "model")
    assert refused.returncode == 2
    assert "valid.jsonl: no track of the train split has a caption; build a corpus first" in refused.stderr
    refused = longplay(folder, "takes", "manifest.jsonl", "other", "--model", "nowhere")
    assert refused.returncode == 2
    assert "nowhere" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (folder / "other").exists()


def test_throughput_is_measured_with_each_number_of_workers(folder: Path) -> None:
    save_tiny(folder / "model")
    (track, _) = read_manifest(folder / "manifest.jsonl")
    write_manifest(folder / "many.jsonl", [track.model_copy(update={"id": f"u{n}"}) for n in range(8)])
    given = ("throughput", "many.jsonl", "--model", "model", "--repeats", "1", "--out", "report")
    done = longplay(folder, *given, "--workers", "1,2")
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "report/throughput.json").read_text())
    assert [row["workers"] for row in report["rows"]] == [1, 2]
    assert all(row["hours_per_hour"] > 0 and row["start_seconds"] > 0 for row in report["rows"])
    assert report["setting"]["tracks"] == 8
    assert done.stdout == (folder / "report/throughput.md").read_text()

    for wrong in ("0", "two", "2,2"):
        refused = longplay(folder, *given, "--workers", wrong)
        assert refused.returncode == 2
        assert "give different numbers of 1 or more" in refused.stderr


@pytest.mark.parametrize("seconds", ["0", "-5"])
def test_no_time_at_all_is_no_budget(folder: Path, seconds: str) -> None:
    refused = longplay(folder, *RUN, "--budget-seconds", seconds)
    assert refused.returncode == 2
    assert f"--budget-seconds {seconds}: give more than 0; no limit without it" in refused.stderr
    assert not (folder / "run").exists()


def test_a_cluster_and_its_workers_go_together(folder: Path) -> None:
    for given in (("--workers", "2"), ("--cluster", "ray")):
        refused = longplay(folder, *RUN, *given)
        assert refused.returncode == 2
        assert "--cluster ray and --workers N go together" in refused.stderr
    assert not (folder / "run").exists()


@pytest.mark.slow
def test_ray_trains_in_two_workers_goes_on_and_says_what_is_wrong(folder: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra `cluster`)")
    exact = ("--set", "loop.device=cpu", "--set", "loop.precision=float32", "--set", "loop.steps=4")
    on_ray = (*exact, "--cluster", "ray", "--workers", "2")
    alone = longplay(folder, *RUN, *exact, "--run", "alone")
    assert alone.returncode == 0, alone.stderr
    begun = longplay(folder, *RUN, *on_ray, "--budget-seconds", "0.001")
    assert begun.returncode == 0, begun.stderr
    assert torch.load(folder / "run/checkpoint.pt", weights_only=True)["step"] == 1
    done = longplay(folder, *RUN, *on_ray)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 4  mel") == 1
    assert not (folder / "run/ray").exists()
    starts = [json.loads(line) for line in (folder / "run/starts.jsonl").read_text().splitlines()]
    assert [start["processes"] for start in starts] == [2, 2]
    logged = [json.loads(line)["step"] for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert [step for step in logged if logged.count(step) == 1] == [2, 3]  # one process writes; 1 and 4 were evaluated
    a, b = (torch.load(folder / run / "checkpoint.pt", weights_only=True) for run in ("alone", "run"))
    assert b["step"] == 4
    for name, value in a["model"].items():
        torch.testing.assert_close(b["model"][name], value, atol=2e-4, rtol=2e-3)

    failed = longplay(folder, *RUN[:-4], "--data", "nothing.jsonl", *on_ray)
    assert failed.returncode == 2, failed.stderr
    assert "error: manifest" in failed.stderr.splitlines()[-1]
    assert "nothing.jsonl" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_a_killed_worker_of_ray_ends_the_run_with_the_checkpoint_intact(folder: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra `cluster`)")
    endless = ("--set", "loop.device=cpu", "--set", "loop.steps=100000", "--set", "loop.save_every=2")
    command = [*MAIN, *RUN, *endless, "--cluster", "ray", "--workers", "2"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as driver:
        deadline = time.monotonic() + 1200  # a loaded machine starts Ray slowly
        while not (folder / "run/checkpoint.pt").exists() and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.5)
        children = psutil.Process(driver.pid).children(recursive=True)
        workers = [child for child in children if child.name().startswith("ray::RayTrainWo")]
        assert len(workers) == 2
        workers[1].kill()
        _, said = driver.communicate(timeout=1200)
    assert driver.returncode == 1, said
    assert "error: " in said.splitlines()[-1]
    assert "checkpoint in" in said.splitlines()[-1]
    before = torch.load(folder / "run/checkpoint.pt", weights_only=True)["step"]
    goes_on = longplay(folder, *RUN, "--set", "loop.device=cpu", "--set", f"loop.steps={before + 1}")
    assert goes_on.returncode == 0, goes_on.stderr
    assert torch.load(folder / "run/checkpoint.pt", weights_only=True)["step"] == before + 1
