"""`longplay finetune` from its real entry point."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from longplay.pipeline import read_recipe

QUICK = (
    "--no-tags",
    "--steps",
    "2",
    "--rank",
    "2",
    "--batch-size",
    "1",
    "--sample-seconds",
    "1",
    "--workers",
    "1",
    "--device",
    "cpu",
)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """70 s of music to learn from and a file to measure with."""
    folder = tmp_path / "songs"
    folder.mkdir()
    for index, seconds in enumerate((70, 11)):
        rng = np.random.default_rng(index)
        pitches = np.repeat(rng.choice([220.0, 262.0, 330.0], 2 * seconds), 12000)
        wav = 0.3 * np.sin(2 * np.pi * np.cumsum(pitches) / 24000) + rng.normal(0, 0.01, len(pitches))
        sf.write(folder / f"piece {index}.wav", wav.astype(np.float32), 24000)
        split = {"split": "train" if index == 0 else "valid"}
        (folder / f"piece {index}.json").write_text(json.dumps(split))
    return folder


def test_a_musician_gets_an_adapter_that_generate_takes(run, tiny: Path, songs: Path) -> None:
    outcome = run("finetune", songs, "--run", "mine", "--model", tiny, "--trigger", "zork", "--merge", *QUICK)
    assert outcome.code == 0, outcome
    assert outcome.out == ""
    for line in (
        "music    2 files",
        "warning: 1.2 minutes of music are little",
        "memory   about",
        "time     about",
        "use it   longplay generate",
    ):
        assert line in outcome.err
    made = run(
        "generate", "zork", "--adapter", "mine/adapter", "--seconds", "0.8", "--fast", "-o", "x.wav", "--device", "cpu"
    )
    assert made.code == 0, made
    assert read_recipe("x.wav").adapter is not None
    assert run("generate", "--from", "x.wav", "-o", "y.wav").code == 0
    assert Path("x.wav").read_bytes() == Path("y.wav").read_bytes()
    assert run("models", "verify", "mine/model").code == 0
    again = run("finetune", songs, "--run", "mine", "--model", tiny, "--trigger", "zork", *QUICK)
    assert again.code == 0
    assert "time     about" not in again.err
    other = run("finetune", songs, "--run", "mine", "--model", tiny, *QUICK)
    assert other.code == 2
    assert "error: mine: holds a finetune with trigger = 'zork', not None" in other.err


def test_the_plan_alone_and_bad_input(run, tiny: Path, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run("finetune", songs, "--run", "mine", "--model", tiny, "--plan", *QUICK)
    assert outcome.code == 0
    assert "time     about" in outcome.err
    assert not Path("mine").exists()
    for arguments, message in (
        ((songs, "--run", "a", "--model", "nowhere"), "model 'nowhere': no such directory"),
        (("nowhere", "--run", "b", "--model", tiny), "nowhere: is not there; give a folder of audio"),
        ((songs, "--run", "c", "--model", tiny, "--learning-rate", "0"), "learning_rate = 0.0: must be greater than 0"),
        ((songs, "--run", songs, "--model", tiny), "is there and holds no finetune"),
    ):
        failed = run("finetune", *arguments, *QUICK)
        assert failed.code == 2, (arguments, failed)
        assert message in failed.err
        assert "Traceback" not in failed.err
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        failed = run("finetune", songs, "--run", "d", "--model", tiny, *QUICK)
    assert failed.code == 2
    assert failed.err == "error: finetuning needs pyarrow; install it with: pip install 'longplay[finetune]'\n"
    monkeypatch.setitem(sys.modules, "peft", None)
    failed = run("finetune", songs, "--run", "d", "--model", tiny, *QUICK)
    assert failed.code == 2
    assert "pip install 'longplay[finetune]', or train all weights: --full" in failed.err
    assert not Path("d").exists()


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from longplay.cli import main\ntry: main(['finetune', '--help'])\nexcept SystemExit: pass\nassert not {'torch', 'peft'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "more like your music" in done.stdout
