"""From a config, data and a directory to a run: what `longplay train run` does."""

import logging
import math
from functools import partial
from pathlib import Path

import torch

from longplay.train.build import StageConfig, build_stage
from longplay.train.loop import train
from longplay.train.parallel import Parallel
from longplay.train.starts import record_start


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
        begun = partial(record_start, config, data, run, parallel) if parallel.is_main else None
        return train(stage, config.loop, run, budget_seconds, parallel, begun)
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
