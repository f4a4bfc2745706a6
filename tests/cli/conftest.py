"""The command line through its real entry point."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from systems import save_tiny


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """`run("generate", "piano", ...)` in an empty folder, as the installed command does it."""
    from longplay.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: object) -> Outcome:
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1 if error.code else 0
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    yield command
    logging.getLogger().handlers.clear()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model directory."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Two seconds of stereo at 44.1 kHz, 16 bit."""
    times = np.arange(2 * 44_100) / 44_100
    wav = np.stack([0.4 * np.sin(2 * np.pi * 220 * times), 0.2 * np.sin(2 * np.pi * 331 * times)], axis=1)
    soundfile.write(tmp_path / "song.wav", wav, 44_100, subtype="PCM_16")
    return tmp_path / "song.wav"
