import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from longplay import GenerationOptions, Pipeline
from longplay.bench.serve import Heard, Request, ServeBench, serve, values
from longplay.cli.bench import app
from systems import save_tiny


def test_speed_and_waiting_times() -> None:
    found = values([Heard(1.0, 4.0, 10.0), Heard(3.0, 8.0, 6.0)], taken=8.0)
    assert found["pieces_per_s"] == pytest.approx(0.25)
    assert found["times_real_time"] == pytest.approx(2.0)
    assert found["first_sound_p50_s"] == pytest.approx(2.0)
    assert found["first_sound_p95_s"] == pytest.approx(2.9)
    assert found["piece_p50_s"] == pytest.approx(6.0)


def test_listeners_come_at_their_time_and_hear_all(tmp_path: Path) -> None:
    pipeline = Pipeline.load(save_tiny(tmp_path / "tiny"), device="cpu")
    options = GenerationOptions(seed=1, num_steps=1)
    requests = [Request(options.model_copy(update={"seconds": 1.0 + n}), 0.3 * n) for n in range(3)]
    start = time.monotonic()
    with pipeline.session(slots=2, seconds=4.0) as session:
        heard = serve(pipeline, session, requests)
    assert time.monotonic() - start > 0.6
    assert [each.seconds for each in heard] == pytest.approx([1.0, 2.0, 3.0], abs=1 / 75)
    assert all(0 < each.first <= each.last for each in heard)


def test_requests_differ_in_length_and_are_the_same_in_every_run() -> None:
    bench = ServeBench("nano", seconds=8.0, pieces=5, every=0.5)
    lengths = [request.options.seconds for request in bench.requests()]
    assert len(set(lengths)) == 5
    assert all(4.0 <= seconds <= 8.0 for seconds in lengths if seconds)
    assert [request.arrival for request in bench.requests()] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert bench.requests() == bench.requests()


@pytest.mark.parametrize("fast", [False, True])
def test_the_bench_reports_both_sides(tmp_path: Path, fast: bool) -> None:
    model, options = str(save_tiny(tmp_path / "tiny")), GenerationOptions(num_steps=1, fast=fast)
    report = ServeBench(model, seconds=0.6, pieces=3, slots=2, repeats=1, options=options).run()
    assert [row.name for row in report.rows] == ["2 at once", "one after the other"]
    assert report.setting["precision"] == "float32"
    for row in report.rows:
        assert row.values["first_sound_p50_s"] <= row.values["first_sound_p95_s"] <= row.values["piece_p95_s"]
    gain = report.rows[0].values["times_real_time"] / report.rows[1].values["times_real_time"]
    assert report.rows[0].values["times_baseline"] == pytest.approx(gain)


def test_the_command_writes_json_and_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    tiny, out = save_tiny(tmp_path / "tiny"), tmp_path / "serve.json"
    words = "--seconds 1 --pieces 2 --slots 2 --num-steps 1 --repeats 1"
    done = CliRunner().invoke(app, ["serve", "--model", str(tiny), *words.split(), "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "2 at once" in done.output
    assert json.loads(out.read_text())["stage"] == "serve"
    assert CliRunner().invoke(app, ["serve", "--pieces", "0"]).exit_code == 2
