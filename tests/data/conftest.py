import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    module = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # actors find what tests define
    yield module
    module.shutdown()


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is below `dir://` here and in all processes that are started from here: a bucket on disk."""
    place = tmp_path / "bucket"
    place.mkdir()
    monkeypatch.setitem(fsspec.config.conf, "dir", {"path": str(place), "target_protocol": "file"})
    monkeypatch.setenv("FSSPEC_DIR_PATH", str(place))
    monkeypatch.setenv("FSSPEC_DIR_TARGET_PROTOCOL", "file")
    return place
