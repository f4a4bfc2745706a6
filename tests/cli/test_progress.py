"""The bar: what it shows on a terminal, and that it is silent elsewhere."""

import io

import pytest
from rich.console import Console

from longplay.cli import progress
from longplay.cli.progress import Bar


def shown(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> str:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    with Bar(("lm", "flow", "codec"), 10.0) as bar:
        update, other = bar.of("a.wav"), bar.of("b.wav")
        update("lm", 4.0)
        update("flow", 3.0)
        other("codec", 0.5)
        update("codec", 1.0)
        update("codec", 1.5)
    assert bar.elapsed > 0
    return screen.getvalue()


def test_stage_seconds_and_speed_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, terminal=True)
    assert "codec" in text
    assert "2.0 of 10 s" in text
    assert "x real time" in text


def test_a_file_or_pipe_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, terminal=False).strip() == ""
