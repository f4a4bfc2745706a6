"""`longplay train` from its real entry point."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile as sf
import yaml

from longplay.data.manifest import Track, write_manifest

SPECTRAL = {"kind": "spectral", "n_fft": 64, "dim": 8, "intermediate_dim": 12, "num_layers": 1}


def test_a_run_logs_to_stderr_without_verbose(tmp_path: Path) -> None:
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
        "batch_size": 2, "crop_seconds": 0.1, "held_out_crops": 2, "held_out_seconds": 0.5, "loss": {"n_ffts": [64]},
        "loop": {"steps": 2, "log_every": 1},
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["train", "run", "config.yaml", "--run", "run", "--data", "manifest.jsonl", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-c", "from longplay.cli import main; main()", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "step 2  mel" in done.stderr
    assert done.stdout == ""
    assert (tmp_path / "run/model/tokenizer.safetensors").exists()
