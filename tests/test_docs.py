"""What the documents say is true: paths exist, snippets run, commands are there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "docs/training.md"])
def test_every_path_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:src|tests|docs|recipes)/[\w/.-]+|\w+\.(?:toml|md|txt))`", text)
    assert paths
    missing = [path for path in paths if not (ROOT / path).exists() and path not in {"results.md"}]
    assert not missing


def test_every_layer_of_the_package_is_described() -> None:
    text = section((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), "Layers")
    for entry in (ROOT / "src/longplay").iterdir():
        if entry.name.startswith("__"):
            continue
        assert f"`src/longplay/{entry.name}`" in text, entry.name


def test_the_python_example_of_the_readme_runs(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    promised = re.search(r"print\(.*\)  # (.*)", snippet)
    assert promised
    assert done.stdout.strip() == promised[1]
    assert (tmp_path / "piece.flac").exists()


def test_every_preset_of_the_training_guide_is_there() -> None:
    from longplay.train.build import load_stage_config

    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:nano|base|1\.5b)-[\w-]+)`|train run ([\w.-]+)", text))
    assert len(named) >= 10
    for name in {first or second for first, second in named}:
        load_stage_config(name)


def test_every_command_of_the_readme_is_there() -> None:
    from typer.testing import CliRunner

    from longplay.cli import app

    text = section((ROOT / "README.md").read_text(encoding="utf-8"), "On the command line")
    lines = re.findall(r"^\| `longplay (.+?)` \|", text, re.MULTILINE)
    assert len(lines) >= 10
    for line in lines:
        words = line.replace("\\|", "|").split("|")[0].split('"')[0].split()
        command = [word for word in words[:2] if re.fullmatch(r"[a-z]+", word)]
        options = re.findall(r"--[a-z-]+", line.split("ffplay")[0])
        result = CliRunner().invoke(app, [*command[:1], "--help"], terminal_width=200, env={"COLUMNS": "200"})
        assert result.exit_code == 0, line
        shown = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
        assert all(option in shown for option in options), (line, shown)
