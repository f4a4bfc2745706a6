"""What a run records of each of its starts: `run.yaml`, the config, and a line of `starts.jsonl`.

So it can be told later which code, music and models a run stands on, and whether they, or the config, changed on the way.
"""

import hashlib
import json
import logging
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

import longplay
from longplay.checkpoint import qwen
from longplay.checkpoint.digest import digest
from longplay.checkpoint.hub import locate
from longplay.checkpoint.system import load_config, weight_files
from longplay.config import read_yaml
from longplay.data.storage import open_folder
from longplay.data.token_tracks import SHARDS
from longplay.errors import CheckpointError
from longplay.files import write_text
from longplay.train.build import StageConfig
from longplay.train.parallel import Parallel

logger = logging.getLogger(__name__)

CONFIG = "run.yaml"
STARTS = "starts.jsonl"
MISSING = "missing"
_TAIL = 1 << 16


def record_start(config: StageConfig, data: Path | str, run: Path, parallel: Parallel) -> None:
    """Write the config and a line about this start; log what of both is another than before."""
    changed = differences(read_yaml(run / CONFIG), config.dump()) if (run / CONFIG).exists() else {}
    if changed:
        logger.info("%s goes on with another config: %s", run, ", ".join(_arrow(*each) for each in changed.items()))
    start: dict[str, Any] = {
        "time": round(time.time(), 1),
        "longplay": longplay.__version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "data": str(data),
        "data_sha256": data_digest(data),
        "sha256": {key: named_digest(path) for key, path in paths_of(config.model_dump()).items()},
        "device": _device(parallel.device),
        "processes": parallel.processes,
        "changed": changed,
    }
    for what in others_now(read_starts(run), start):
        logger.info("the %s of %s is not what it was at an earlier start", what, run)
    write_text(run / CONFIG, yaml.safe_dump(config.dump(), sort_keys=False))
    with (run / STARTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(start) + "\n")


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """What two configs of plain values differ in, by dotted key: the old value and the new one; None for a key that is not there."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found[prefix + key] = (old, new)
    return found


def paths_of(values: Mapping[str, Any], prefix: str = "") -> dict[str, Path]:
    """The paths in a config's values, by dotted key."""
    found: dict[str, Path] = {}
    for key, value in values.items():
        if isinstance(value, Path):
            found[prefix + key] = value
        elif isinstance(value, Mapping):
            found |= paths_of(value, f"{prefix}{key}.")
    return found


def others_now(starts: Iterable[Mapping[str, Any]], now: Mapping[str, Any]) -> list[str]:
    """`data`, and the keys of the config, whose contents were others at one of the earlier `starts`."""
    digests = {"data": now["data_sha256"], **now["sha256"]}
    earlier = [{"data": start["data_sha256"], **start.get("sha256", {})} for start in starts]
    return [key for key, value in digests.items() if any(start.get(key, value) != value for start in earlier)]


def _arrow(key: str, values: tuple[Any, Any]) -> str:
    old, new = (json.dumps(value) for value in values)
    return f"{key}: {old} -> {new}"


def read_starts(run: Path) -> Iterator[dict[str, Any]]:
    """What each start of a run recorded."""
    path = run / STARTS
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        yield json.loads(line)


def named_digest(path: Path) -> str:
    """SHA-256 of what a config names: a manifest, token shards, or else the weights of a model; `missing` where that is gone."""
    if path.is_file() or open_folder(path).files(*SHARDS):
        return data_digest(path)
    try:
        directory = locate(str(path))
        return digest(
            qwen.weight_files(directory) if qwen.is_qwen(directory) else weight_files(directory, load_config(directory))
        )
    except (CheckpointError, FileNotFoundError):  # what only the first start needed
        return MISSING


def data_digest(data: Path | str) -> str:
    """SHA-256 of a manifest, or over name, size and last 64 KiB (parquet's footer) of every token shard."""
    if Path(data).is_file():
        return hashlib.sha256(Path(data).read_bytes()).hexdigest()
    digest, shards = hashlib.sha256(), open_folder(data)
    for name in shards.files(*SHARDS):
        with shards.open(name) as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(f"{name} {size}\n".encode())
            file.seek(max(0, size - _TAIL))
            digest.update(file.read())
    return digest.hexdigest()


def _commit() -> str | None:
    """The commit of the source tree that runs, with `+` if it was changed; None outside a git repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed.stdout.strip() else "")


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
