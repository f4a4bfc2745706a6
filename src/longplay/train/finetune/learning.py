"""How the lm learns in a finetune: how long, in which windows, at which rate."""

from collections.abc import Sequence
from pathlib import Path

from longplay.data.token_tracks import TokenTrack, figures_of
from longplay.models.lm_config import LMConfig
from longplay.train.finetune.music import PUBLISHED_WINDOW_SECONDS, window_frames
from longplay.train.finetune.request import FinetuneConfig
from longplay.train.lm_stage import LMStageConfig
from longplay.train.lora import LoRAConfig

PASSES, LEAST_STEPS, MOST_STEPS = 8, 200, 2000
LORA_RATE, FULL_RATE = 1e-3, 1e-4
EVALUATIONS = 5
HELD_OUT_WINDOWS = 16
OPENING_FRAMES = 96


def stage_config(
    config: FinetuneConfig,
    base: Path,
    lm: LMConfig,
    keep: Path | None,
    device: str,
    tracks: Sequence[TokenTrack],
    held: Sequence[TokenTrack],
) -> LMStageConfig:
    """The config of stage lm for a finetune.

    Args:
        config: what was asked for.
        base, lm: directory of the model, and the config of its lm.
        keep: token shards of other music.
        device: where to compute.
        tracks, held: to learn from, and to measure with.
    """
    learning, measuring = (figures_of(each).lengths.tolist() for each in (tracks, held))
    frames = window_frames(learning + measuring, lm.context_frames or round(PUBLISHED_WINDOW_SECONDS * lm.code_rate))
    codes = sum(learning)
    steps = round(PASSES * codes / (frames * config.batch_size))
    steps = config.steps or min(max(steps, LEAST_STEPS), MOST_STEPS)
    return LMStageConfig.parse(
        {
            "stage": "lm",
            "lm": lm.dump() | {"context_frames": frames},
            "tokenizer": base,
            "init": base,
            "text": "init",
            "lora": None if config.full else LoRAConfig(rank=config.rank, alpha=2 * config.rank).dump(),
            "keep": keep,
            "keep_share": config.keep_share,
            "keep_best": True,
            "opening_frames": OPENING_FRAMES if frames >= 2 * OPENING_FRAMES else None,
            "batch_size": config.batch_size,
            "sample_seconds": 0.0,
            "held_out_windows": HELD_OUT_WINDOWS,
            "loop": {
                "steps": steps,
                "seed": config.seed,
                "learning_rate": config.learning_rate or (FULL_RATE if config.full else LORA_RATE),
                "warmup_steps": max(1, steps // 20),
                "decay_steps": steps,
                "ema_decay": 0.99,
                "device": device,
                "trackers": [],
                "log_every": max(1, min(20, steps // 10)),
                "evaluate_every": -(-steps // EVALUATIONS),
                "save_every": max(1, min(100, steps // 20)),
            },
        },
        source="finetune",
    )
