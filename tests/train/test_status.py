import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from longplay.cli import app
from longplay.errors import ConfigError
from longplay.train.status import read_status, sparkline


@pytest.fixture
def run(tmp_path: Path) -> Path:
    records = [{"step": n, "loss": 10.0 - n, "rate": 0.1, "steps_per_second": 2.0} for n in range(1, 5)]
    records += [{"step": 4, "held_out_loss": 6.5, "held_out_accuracy": 0.3}]
    records += [{"step": 8, "held_out_loss": 7.0, "held_out_accuracy": 0.4}]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"stage": "lm", "loop": {"steps": 248}}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def test_last_and_best_values_speed_and_time_left(run: Path) -> None:
    status = read_status(run)
    assert (status.stage, status.step, status.steps, status.steps_per_second) == ("lm", 8, 248, 2.0)
    assert status.seconds_left == 120
    loss, accuracy = status.held_out
    assert (loss.name, loss.last, loss.best, loss.best_step) == ("loss", 7.0, 6.5, 4)
    assert (accuracy.last, accuracy.best, accuracy.best_step) == (0.4, 0.4, 8)
    assert [metric.name for metric in status.training] == ["loss"]


def test_the_command_prints_a_table(run: Path) -> None:
    result = CliRunner().invoke(app, ["train", "status", str(run)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "lm, step 8 of 248 (3 %), 2 steps/s, 2 min left" in result.output
    row = next(line for line in result.output.splitlines() if "held out loss" in line)
    assert row.split() == ["held", "out", "loss", "7", "6.5", "4", "▁█"]


def test_each_codebook_has_a_row(run: Path) -> None:
    assert read_status(run).codebooks == ()
    figures = {"usage": (0.75, 1.0), "dead": (4, 0), "perplexity": (8.5, 15.0)}
    record = {"step": 8, "held_out_usage": 0.875, "held_out_dead": 2, "held_out_perplexity": 11.75}
    record |= {f"held_out_{name}_book_{n}": v for name, both in figures.items() for n, v in enumerate(both, 1)}
    log = run / "metrics.jsonl"
    log.write_text(log.read_text() + json.dumps(record) + "\n")
    result = CliRunner().invoke(app, ["train", "status", str(run)], env={"COLUMNS": "200"})
    assert "codebook 1: 75.0% in use, 4 codes dead, perplexity 8.5" in result.output
    assert "codebook 2: 100.0% in use, 0 codes dead, perplexity 15" in result.output
    assert "_book_" not in result.output

    log.write_text(json.dumps({key: value for key, value in record.items() if "_book_" not in key}) + "\n")
    (book,) = read_status(run).codebooks
    assert (book.number, book.usage, book.dead, book.perplexity) == (1, 0.875, 2, 11.75)


def test_a_run_without_a_log_yet_and_a_directory_that_is_none(run: Path, tmp_path: Path) -> None:
    (run / "metrics.jsonl").unlink()
    assert read_status(run).step == 0
    with pytest.raises(ConfigError, match=r"nothing: has no run.yaml; give the directory of a run"):
        read_status(tmp_path / "nothing")


def test_a_sparkline_shows_means() -> None:
    assert sparkline((0.0, 1.0)) == "▁█"
    assert sparkline((1.0,) * 5) == "▁▁▁▁▁"
    assert sparkline(tuple(float(n) for n in range(64)), width=8) == "▁▂▃▄▅▆▇█"
    assert sparkline(()) == ""
