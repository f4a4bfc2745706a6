import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from longplay.bench import serve as module
from longplay.bench.serve import Request, ServeBench, Service, serve
from longplay.cli.bench import app
from longplay.engine.piece import Piece
from systems import save_tiny
from tiny_lm import tiny_lm


def requests(frames: list[int], every: float = 0.0) -> list[Request]:
    return [
        Request(str(number), Piece((1, 2), count, number, min_frames=count), number * every)
        for number, count in enumerate(frames)
    ]


@pytest.fixture
def a_second_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(ticks)))


@pytest.mark.usefixtures("a_second_a_round")
def test_rounds_and_waiting_times_are_counted() -> None:
    lm = tiny_lm()
    together, alone = Service(lm, requests([30, 30, 15, 15]), 2), Service(lm, requests([30, 30, 15, 15]), 1)
    serve([together, alone])
    assert not together.busy
    # 2 at once: first codes after rounds 1 1 3 3, of 3 rounds. Alone: after 1 3 5 6, of 6.
    values = together.values(rate=75)
    assert values["pieces_per_s"] == pytest.approx(4 / 3)
    assert values["codes_per_s"] == pytest.approx(90 / 3)
    assert values["times_real_time"] == pytest.approx(30 / 75)
    assert values["first_code_p50_s"] == pytest.approx(2.0)
    assert values["piece_p95_s"] == pytest.approx(3.0)
    values = alone.values(rate=75)
    assert values["codes_per_s"] == pytest.approx(90 / 6)
    assert values["first_code_p50_s"] == pytest.approx(4.0)
    assert values["first_code_p95_s"] == pytest.approx(5.85)


@pytest.mark.usefixtures("a_second_a_round")
def test_who_comes_later_waits_from_then_on_and_idle_time_passes() -> None:
    service = Service(tiny_lm(), requests([15, 15], every=5.0), 2)
    serve([service])
    values = service.values(rate=75)
    assert values["first_code_p95_s"] == pytest.approx(1.0)
    assert values["pieces_per_s"] == pytest.approx(2 / 6)


def test_the_bench_reports_both_sides(tmp_path: Path) -> None:
    bench = ServeBench(str(save_tiny(tmp_path / "tiny")), seconds=0.4, pieces=3, slots=2)
    report = bench.run()
    assert [row.name for row in report.rows] == ["2 at once", "one after the other"]
    assert report.setting["precision"] == "float32"
    for row in report.rows:
        assert row.values["first_code_p50_s"] <= row.values["first_code_p95_s"] <= row.values["piece_p95_s"]
    gain = report.rows[0].values["codes_per_s"] / report.rows[1].values["codes_per_s"]
    assert report.rows[0].values["times_baseline"] == pytest.approx(gain)


def test_the_command_writes_json_and_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    tiny, out = save_tiny(tmp_path / "tiny"), tmp_path / "serve.json"
    arguments = ["serve", "--model", str(tiny), "--seconds", "1", "--pieces", "2", "--slots", "2", "--json", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "2 at once" in done.output
    assert json.loads(out.read_text())["stage"] == "serve"
    assert CliRunner().invoke(app, ["serve", "--pieces", "0"]).exit_code == 2
