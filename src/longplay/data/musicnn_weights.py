"""The weights of musicnn, read straight out of its wheel on PyPI (the package itself needs TensorFlow 1).

`musicnn.json` names the wheel, its SHA-256 and where each tensor lies in the TensorFlow checkpoint inside it
(byte offset, shape; float32, little-endian). The wheel is fetched once by pip into `LONGPLAY_CACHE` (default
`~/.cache/longplay`). Weights: ISC licence, Music Technology Group, Universitat Pompeu Fabra.
"""

import hashlib
import json
import math
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from longplay.errors import DownloadError
from longplay.files import cache_folder

Training = Literal["MTT", "MSD"]
"""The data set that a set of weights was trained on: MagnaTagATune or the Million Song Dataset."""

PIP_SECONDS = 600


@cache
def description() -> dict[str, Any]:
    """The contents of `musicnn.json`."""
    return json.loads(files("longplay.data").joinpath("musicnn.json").read_text(encoding="utf-8"))


def tag_names(training: Training) -> tuple[str, ...]:
    """The 50 tags, in the order of the model's outputs."""
    return tuple(description()["tags"][training])


def read_tensors(training: Training) -> dict[str, npt.NDArray[np.float32]]:
    """Every tensor of one of the two models by its TensorFlow name, fetching the wheel if the cache lacks it.

    Raises:
        DownloadError: the wheel cannot be fetched, or is not the expected one.
    """
    with zipfile.ZipFile(fetch_wheel()) as wheel:
        data = wheel.read(description()["members"][training])
    return {
        name: np.frombuffer(data, "<f4", math.prod(shape), offset).reshape(shape).astype(np.float32)
        for name, (offset, shape) in description()["tensors"].items()
    }


def fetch_wheel() -> Path:
    """The wheel in the cache, downloaded by `pip` if it is not there.

    Raises:
        DownloadError: pip is missing or fails, or the file's SHA-256 is not the expected one.
    """
    path = cache_folder() / description()["wheel"]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            _download(Path(folder), path)
            _verify(Path(folder) / path.name)
            (Path(folder) / path.name).replace(path)
    _verify(path)
    return path


def _download(folder: Path, target: Path) -> None:
    requirement = description()["requirement"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
        reason = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
    except subprocess.TimeoutExpired:
        reason = f"no answer in {PIP_SECONDS} s"
    if not (folder / target.name).is_file():
        raise DownloadError(
            f"musicnn weights: {requirement} cannot be fetched ({reason}); connect, or put it at {target}"
        )


def _verify(path: Path) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != description()["sha256"]:
        raise DownloadError(f"{path}: is not the expected wheel (SHA-256 {found[:12]}...); delete it and try again")
