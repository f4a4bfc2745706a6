import json
import math
from pathlib import Path

from longplay.bench.report import BenchReport, Curve, Row, markdown, write_report

REPORT = BenchReport(
    "lm",
    "nano",
    {"threads": 2},
    {"read_gb_per_s": 30.0},
    [Row("ours", {"tokens_per_s": 812.4, "spread": 0.02}), Row("baseline", {"tokens_per_s": 90.0})],
    [Curve("ours", [1, 2, 4], [0.5, 1.0, 2.0])],
)


def test_the_table_names_every_contender_and_limit() -> None:
    text = markdown(REPORT)
    assert "| ours | 812 | 0.02 |" in text
    assert "| baseline | 90 |  |" in text
    assert "read_gb_per_s 30" in text
    assert "to the power 1.00" in text


def test_json_and_picture_are_written(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path / "lm.json")
    found = json.loads((tmp_path / "lm.json").read_text())
    assert found["rows"][0] == {"name": "ours", "values": {"tokens_per_s": 812.4, "spread": 0.02}}
    assert found["exponents"] == {"ours": 1.0}
    assert (tmp_path / "lm.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"lm.json", "lm.png"}


def test_what_is_not_a_number_becomes_null(tmp_path: Path) -> None:
    report = BenchReport("lm", "nano", {}, {}, [Row("ours", {"x": math.nan})])
    write_report(report, tmp_path / "lm.json")
    assert json.loads((tmp_path / "lm.json").read_text())["rows"][0]["values"] == {"x": None}
    assert not (tmp_path / "lm.png").exists()
