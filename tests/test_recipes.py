"""The recipes run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile as sf

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
def test_every_stage_runs(tmp_path: Path) -> None:
    recipe("smoke.sh", str(tmp_path / "smoke"))
    wav, rate = sf.read(tmp_path / "smoke/smoke.wav")
    assert rate == 48000
    assert len(wav) > 0
