"""What is said without Ray; with Ray, the same shards as without (slow)."""

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from longplay.data.manifest import Track, write_manifest
from longplay.errors import UserError
from longplay.train.build import load_stage_config
from longplay.train.cluster_run import train_on_ray
from longplay.train.encoding import Encoder, encode_here, encode_on_ray
from longplay.train.loop import train
from longplay.train.tokens import prepare_tokens
from systems import save_tiny


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model")
    tracks = []
    for index in range(3):
        wav = np.random.default_rng(index).standard_normal(24000).astype(np.float32) * 0.1
        sf.write(tmp_path / f"u{index}.wav", wav, 48000)
        about = {"kind": "real", "title": "t", "source": "s", "licence": "CC0", "codec_ok": True, "captions": ("a",)}
        tracks.append(Track(id=f"u{index}", path=f"u{index}.wav", seconds=0.5, split="train", **about))
    write_manifest(tmp_path / "manifest.jsonl", tracks)
    return tmp_path / "manifest.jsonl"


def test_without_ray_the_extra_is_named(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="longplay\\[cluster\\]"):
        encode_on_ray("m", None, 1)


def test_training_without_ray_names_the_extra_too(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="longplay\\[cluster\\]"):
        train_on_ray(load_stage_config("nano-tokenizer"), tmp_path, tmp_path / "run", 2, math.inf)


def test_the_loop_runs_in_a_thread_that_hears_no_signals(audio_stage: Any, tmp_path: Path) -> None:
    stage = audio_stage(loop={"steps": 1}, quantize_from_step=0)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train, stage, stage.config.loop, tmp_path / "run").result() == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_makes_the_same_shards(manifest: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    model = str(tmp_path / "model")
    try:
        prepare_tokens(manifest, tmp_path / "ray", encode_on_ray(model, model, 1, threads=1))
    finally:
        ray.shutdown()
    prepare_tokens(manifest, tmp_path / "here", encode_here(Encoder.load(model, model)))

    def rows(folder: Path) -> Any:
        return sorted((row for shard in folder.glob("*.parquet") for row in pq.read_table(shard).to_pylist()), key=str)

    assert rows(tmp_path / "ray") == rows(tmp_path / "here")
