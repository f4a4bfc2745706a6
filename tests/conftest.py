"""Shared fixtures; shapes in jaxtyping annotations are checked while tests run."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from golden_fixtures import GOLDEN, Golden

install_import_hook(["longplay.nn", "longplay.models"], "beartype.beartype")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: nothing is left to do beside the last one of a parallel run, so that should be short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def golden_directory() -> Path:
    """The golden fixtures; tests that need them are skipped where they are absent."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden fixtures at {GOLDEN}; set LONGPLAY_GOLDEN to their directory")
    return GOLDEN


@pytest.fixture(scope="session")
def golden(golden_directory: Path) -> type[Golden]:
    """Opens a fixture by name: `golden("flow").outputs["solve_48000"]`."""
    return Golden


@pytest.fixture(autouse=True)
def shards_of_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of shards (`longplay.data.mapped`) go with the test that made them."""
    monkeypatch.setattr("longplay.data.mapped.cache_folder", lambda: tmp_path / "cache")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small models run fastest, and reproducibly, on one thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def log_levels_of_tests() -> Iterator[None]:
    """A command sets how much is logged in the whole process; the next test finds what this one found."""
    loggers = [logging.getLogger(name) for name in (None, "longplay", "longplay.nn.native")]
    found = [(logger.level, logger.handlers.copy()) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, found, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers
