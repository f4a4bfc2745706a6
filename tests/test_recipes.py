"""The recipes run: every stage at tiny size, then the same data packed for a GPU and trained on from the pack."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile as sf

from longplay.config import read_yaml
from longplay.data.manifest import read_manifest

ROOT = Path(__file__).parent.parent


def recipe(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["bash", str(ROOT / "recipes" / name), *arguments],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT / "src"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_every_stage_runs_and_a_pack_for_a_gpu_trains(tmp_path: Path) -> None:
    recipe("smoke.sh", str(tmp_path / "smoke"))
    wav, rate = sf.read(tmp_path / "smoke/smoke.wav")
    assert rate == 48000
    assert len(wav) > 0

    places = {"PACK": str(tmp_path / "pack"), "WORK": str(tmp_path / "work"), "OUT": str(tmp_path / "out")}
    smoke = tmp_path / "smoke"
    recipe(
        "gpu.sh", "pack", WHEELS="0", MIB="1", CORPUS=str(smoke / "corpus"), TOKENS=str(smoke / "tokens"), RUNS=str(smoke), **places
    )  # fmt: skip
    packed = read_manifest(tmp_path / "pack/corpus/manifest.jsonl")
    assert {track.split for track in packed} == {"train", "valid"}
    assert all((tmp_path / "pack/corpus" / track.path).suffix == ".ogg" for track in packed)
    size = sum(file.stat().st_size for file in (tmp_path / "pack").rglob("*") if file.is_file())
    assert size < 24 * 2**20

    tiny = "batch_size=2 loop.device=cpu loop.workers=1 loop.log_every=1 loop.warmup_steps=2 crop_seconds=0.5 held_out_crops=2 held_out_seconds=1 counted_crops=4"
    for call in (1, 2):  # the first goes on from the packed codec, the second from the first
        recipe("gpu.sh", "train", "codec", "--seconds", "10", PROBE="4", OVERRIDES=tiny, **places)
        recipe("gpu.sh", "unpack", places["OUT"], RUNS=str(tmp_path / "back"))
        back = tmp_path / "back/nano-codec"
        for name in (
            "model/codec.safetensors",
            f"call-{call}/metrics.jsonl",
            f"call-{call}/curves.png",
            f"call-{call}/run.yaml",
        ):
            assert (back / name).exists(), name
        told = read_yaml(back / f"call-{call}/run.yaml")
        assert told["loop"]["seed"] == call - 1, "music is drawn anew"
        assert told["init"].endswith("before/nano-codec/model")
        lines = (back / f"call-{call}/metrics.jsonl").read_text().splitlines()
        rates = [line["rate"] for line in map(json.loads, lines) if "rate" in line]
        assert rates[-1] < 0.5 * max(rates), "it comes to its end"
    assert all(piece.stat().st_size <= 15 * 2**20 for piece in (tmp_path / "out").iterdir())
