"""`longplay data` through its entry point: what it says, and what it says of wrong input."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

RATE = 24000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "nowhere", "out"), "nowhere: is not there"),
        (("build", ".", "out"), "names no audio file"),
        (("build", ".", "out", "--valid", "0.7", "--test", "0.5"), "must stay below 1"),
        (("build", ".", "out", "--group-by", "mood"), "mood"),
        (("build", ".", "out", "--cluster", "ray"), "say how many actors, with --workers N"),
        (("build", "nowhere://bucket/music", "out"), "nowhere://bucket/music/wav.scp: cannot be reached"),
        (("structure", "nowhere.wav"), "nowhere.wav: does not exist; give the path of an audio file"),
        (("label", "nowhere.jsonl"), "nowhere.jsonl"),
        (("accuracy", "nowhere.jsonl"), "nowhere.jsonl"),
        (("caption", "nowhere.jsonl", "--model", "m", "--endpoint", "http://127.0.0.1:9/v1"), "nowhere.jsonl"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(run: Any, arguments: tuple[str, ...], message: str) -> None:
    outcome = run("data", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_what_the_report_needs_is_asked_for_before_the_work(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 12 * RATE), RATE)
    monkeypatch.setattr("longplay.cli.packages.find_spec", lambda name: None)
    outcome = run("data", "build", ".", "out", "--no-tags", "--workers", "1")
    assert outcome.code == 2
    assert "report.png needs matplotlib; install it with: pip install 'longplay[train]', or do without: --no-plots" in (
        " ".join(outcome.err.split())
    )
    assert not (tmp_path / "out").exists()


def test_where_nothing_can_be_written_is_said_before_the_work(run: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 12 * RATE), RATE)
    (tmp_path / "file").touch()
    for out, message in (
        ("file", "error: file: is a file, not a folder"),
        ("file/out", "error: file/out: Not a directory"),
    ):
        outcome = run("data", "build", ".", out, "--no-tags", "--no-plots", "--workers", "1")
        assert outcome.code == 2
        assert message in outcome.err
        assert "prepare" not in outcome.err


def test_structure_of_a_short_file(run: Any, tmp_path: Path) -> None:
    time = np.arange(3 * RATE) / RATE
    triad = np.sin(2 * np.pi * np.outer([220, 261.63, 329.63], time)).sum(0)
    soundfile.write(tmp_path / "a.wav", 0.1 * triad, RATE)
    found = run("data", "structure", "a.wav").out.splitlines()
    assert found == ["no clear pulse, A minor", "too short for sections"]
    soundfile.write(tmp_path / "b.wav", np.zeros(100), RATE)
    assert "less than a second" in run("data", "structure", "b.wav").err
