"""From a config, data and a directory to a run: what `longplay train run` does."""

import hashlib
import json
import logging
import math
import os
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

import longplay
from longplay.data.storage import open_folder
from longplay.data.token_tracks import SHARDS
from longplay.files import write_text
from longplay.train.build import StageConfig, build_stage
from longplay.train.loop import train
from longplay.train.parallel import Parallel

logger = logging.getLogger(__name__)

CONFIG = "run.yaml"
STARTS = "starts.jsonl"
_TAIL = 1 << 16


def train_run(config: StageConfig, data: Path | str, run: Path, budget_seconds: float = math.inf) -> int:
    """Train the stage of `config` on `data` in `run`, or go on with it; returns the number of steps done in total.

    The config is written once the data has been read and the run fits it, so that a start that fails leaves what was there.

    Args:
        config: of any stage.
        data: a manifest (tokenizer, codec) or a folder of token shards (lm, flow), which may be an address as `s3://...`.
        run: the run directory.
        budget_seconds: stop, resumably, after this time.

    Raises:
        CheckpointError, ConfigError, TrainingError: see `build_stage` and `train`.
    """
    parallel = Parallel(config.loop, run)
    if not parallel.is_main:
        logging.getLogger("longplay").setLevel(logging.WARNING)
    try:
        with parallel.accelerator.main_process_first():  # a new text tokenizer is learnt once
            stage = build_stage(config, data, run)
        begun = partial(_record_start, config, data, run, parallel) if parallel.is_main else None
        return train(stage, config.loop, run, budget_seconds, parallel, begun)
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _record_start(config: StageConfig, data: Path | str, run: Path, parallel: Parallel) -> None:
    write_text(run / CONFIG, yaml.safe_dump(config.dump(), sort_keys=False))
    start: dict[str, Any] = {
        "time": round(time.time(), 1),
        "longplay": longplay.__version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "data": str(data),
        "data_sha256": data_digest(data),
        "device": _device(parallel.device),
        "processes": parallel.processes,
    }
    before = [record for record in read_starts(run) if record["data_sha256"] != start["data_sha256"]]
    if before:
        logger.info("the data of %s is not what it was at an earlier start", run)
    with (run / STARTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(start) + "\n")


def read_starts(run: Path) -> Iterator[dict[str, Any]]:
    """What each start of a run recorded."""
    path = run / STARTS
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        yield json.loads(line)


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
