import json
import math
from pathlib import Path

from longplay.evaluate.report import Part, Report, Row, markdown, write_report


def report() -> Report:
    rows = [Row("codec", {"mel": 0.25, "si_sdr": -math.inf}), Row("Opus 6 kb/s", {"mel": 0.5, "frechet": 12.3456})]
    parts = [
        Part("codec", "Clips through the codec.", rows, {"used": 0.9}),
        Part("generation", "", missing="the model has no lm"),
    ]
    return Report("tiny", "abc", {"codec": 1_500_000}, {"clips": 4}, parts)


def test_markdown_has_a_table_per_part_and_says_what_is_missing() -> None:
    text = markdown(report())

    assert "codec 1.5 M" in text
    assert "| system | mel | si_sdr | frechet |" in text
    assert "| Opus 6 kb/s | 0.5 |  | 12.3 |" in text
    assert "- used: 0.9" in text
    assert "**Missing:** the model has no lm" in text


def test_files_are_complete_and_json_is_strict(tmp_path: Path) -> None:
    write_report(report(), tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.md", "results.png"]
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["parts"][0]["rows"][0]["values"] == {"mel": 0.25, "si_sdr": None}
    assert found["parts"][1]["missing"] == "the model has no lm"
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
