"""`longplay finetune`: a folder of music in, a model that sounds more like it out.

```
RUN/finetune.yaml     what was asked for          RUN/samples/   <n>.before.wav, <n>.after.wav, <n>.png
RUN/corpus/           as `data build` leaves it   RUN/report.md, report.json
RUN/tokens/, keep/    token shards                RUN/adapter/   the change alone (LoRA)
RUN/train/            the training run            RUN/model/     a whole model (all weights, or merged)
```

Every step goes on where it was stopped, and is skipped where it is done.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from longplay.checkpoint.adapter import is_adapter, load_adapter
from longplay.checkpoint.hub import locate
from longplay.checkpoint.system import lm_digest, load_config, load_system, load_text_tokenizer, weight_files
from longplay.data.build import build
from longplay.data.manifest import MANIFEST, Track
from longplay.data.report import write_report as write_data_report
from longplay.data.store import Progress
from longplay.data.token_tracks import read_token_tracks
from longplay.data.workers import Outcome
from longplay.errors import CheckpointError, UserError
from longplay.files import write_text
from longplay.models.lm import LM
from longplay.models.lm_config import LMConfig
from longplay.pipeline import Pipeline
from longplay.pipeline.device import resolve_device
from longplay.report import check_plotting, to_json
from longplay.train.build import build_lm_stage, build_stage, load_stage_config
from longplay.train.encoding import Codes, Encoder, Job, encode_here
from longplay.train.finetune import music, result
from longplay.train.finetune.estimate import Estimate, estimate
from longplay.train.finetune.learning import stage_config
from longplay.train.finetune.request import FinetuneConfig, check_request, settle
from longplay.train.lm_stage import LMStage, LMStageConfig
from longplay.train.lora import check_lora
from longplay.train.run import train_run
from longplay.train.starts import CONFIG
from longplay.train.status import read_status
from longplay.train.tokens import prepare_tokens

__all__ = ["FinetuneConfig", "Finetuned", "How", "finetune"]

CORPUS, TOKENS, KEEP, TRAIN, ADAPTER, MODEL = "corpus", "tokens", "keep", "train", "adapter", "model"
BEFORE = "before.json"
MEASURED_WINDOWS = 32
SAMPLED = 2
TRACKS_PER_SHARD = 4

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class How:
    """How it is done; what comes out does not depend on it, but for rounding.

    Attributes:
        device: where to compute.
        workers: processes that prepare the music.
        budget_seconds: stop training, resumably, after this time.
        merge: also write a whole model.
        plan_only: stop once it is known what training needs.
        progress: hears how far the preparation is; stages `prepare`, `hear`, `encode`, `encode other`.
        say: hears lines for the user.
    """

    device: Device = "auto"
    workers: int = 1
    budget_seconds: float = math.inf
    merge: bool = False
    plan_only: bool = False
    progress: Progress = lambda stage, done, total: None
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class Finetuned:
    """What became of it: held-out losses by music, before, after and the change; what can be used now.

    Attributes:
        losses: see `result.compare`.
        adapter: its directory; None where all weights were trained.
        model: directory of the whole model, if one was asked for.
    """

    losses: dict[str, dict[str, float]]
    adapter: Path | None
    model: Path | None


def finetune(config: FinetuneConfig, run: Path, how: How | None = None) -> Finetuned | None:
    """Finetune a model's lm on music, in the directory `run`, or go on with it.

    Returns:
        None where it stopped before its end: only the plan was asked for, the time was over, or Ctrl-C came.

    Raises:
        UserError: the music is missing or too little, a package is, or a word of the request is wrong.
        ConfigError: `run` holds another finetune.
        CheckpointError: the model is missing or damaged, or lacks tokenizer, lm or text tokenizer.
        TrainingError: training failed; the last checkpoint is intact.
    """
    how = how or How()
    if not config.full:
        check_lora()
    check_plotting()
    if config.keep is not None and not Path(config.keep).exists():
        raise UserError(f"{config.keep}: is not there; give a manifest, or a folder of token shards, of other music")
    if config.keep_share and config.keep is None:
        raise UserError(f"--keep-share {config.keep_share:g}: of which music? give it with --keep")
    base = locate(config.model)
    lm = _check_model(base, config.model)
    digest = lm_digest(weight_files(base, load_config(base)))
    check_request(config, digest, run)
    planned = not (run / TOKENS).is_dir() and _plan_ahead(config, base, lm, run, how)
    if planned and how.plan_only:
        return None
    settle(config, digest, run)
    tracks = _prepare(config, base, lm, run, how)
    settings = _stage_config(config, base, lm, run, how)
    loop = settings.loop
    measuring = settings.model_copy(update={"held_out_windows": MEASURED_WINDOWS})
    done = _steps_done(run)
    if done < loop.steps and not (planned and config.keep is None):
        stage = _stage(settings, run)
        _say_plan(estimate(stage, loop, run / TRAIN), settings, done, how)
        del stage
        if how.plan_only:
            return None
    prompts = config.prompts or _prompts(run)
    before = _before(measuring, config, run, how, prompts)
    done = train_run(settings, run / TOKENS, run / TRAIN, how.budget_seconds)
    if done < loop.steps:
        how.say(f"stopped after {done} of {loop.steps} steps; the same command goes on from there")
        return None
    return _finish(config, base, measuring, run, how, prompts, before, tracks)


def _check_model(base: Path, name: str) -> LMConfig:
    if is_adapter(base):
        raise CheckpointError(f"model {name!r}: is an adapter; give its model, or one that was made with --merge")
    config = load_config(base)
    lacking = [part for part in ("tokenizer", "lm") if part not in config.present]
    if lacking or config.lm is None:
        raise CheckpointError(f"model {name!r}: has no {' and no '.join(lacking)}, which finetuning needs")
    if load_text_tokenizer(base) is None:
        raise CheckpointError(f"model {name!r}: has no text tokenizer, which finetuning needs")
    return config.lm


def _plan_ahead(config: FinetuneConfig, base: Path, lm: LMConfig, run: Path, how: How) -> bool:
    """Say what training will need, by the lengths of the files alone, before hours of preparing; whether it can be said.

    Raises:
        UserError: the music is missing or too little.
    """
    pieces = music.pieces(Path(config.music), config.valid)
    if not pieces:
        return False
    music.check_amount(pieces)
    how.say(f"plan     by the length of {len(pieces)} files, {_minutes(pieces)}; before they are prepared")
    train, held = (music.stand_ins(pieces, split, lm.code_rate, lm.codebook_size) for split in ("train", "valid"))
    alone = config.model_copy(update={"keep": None, "keep_share": 0.0})
    settings = stage_config(alone, base, lm, None, how.device, train, held)
    stage = build_lm_stage(settings, train, held, run / TRAIN)
    _say_plan(estimate(stage, settings.loop, run / TRAIN), settings, 0, how)
    return True


def _prepare(config: FinetuneConfig, base: Path, lm: LMConfig, run: Path, how: How) -> list[Track]:
    """Corpus and tokens; returns the tracks."""
    built = build(
        Path(config.music),
        run / CORPUS,
        config.valid,
        test=0.0,
        group_by="file",
        tags=config.tags,
        workers=how.workers,
        progress=how.progress,
    )
    write_data_report(run / CORPUS, built)
    tracks = built.corpus.tracks
    held = [track for track in tracks if track.split == "valid"]
    how.say(
        f"music    {len(tracks)} files, {_minutes(tracks)}; {len(held)} of them, {_minutes(held)}, are held out to measure with"
    )
    if built.corpus.dropped:
        first, reason = sorted(built.corpus.dropped.items())[0]
        how.say(
            f"         {len(built.corpus.dropped)} more are left out, e.g. {built.corpus.sources[first]} ({reason}): see {run / CORPUS}"
        )
    if warning := music.check_amount(tracks):
        how.say(f"warning: {warning}")
    choose = music.describe(config.caption, config.trigger)
    _encode(run / CORPUS / MANIFEST, run / TOKENS, choose, base, how, "encode")
    if (kept := _kept(config, run)) is not None:
        if config.keep is not None and kept == run / KEEP:
            choose = partial(music.choose_kept, rehearse=config.keep_share > 0)
            _encode(Path(config.keep), kept, choose, base, how, "encode other")
        music.check_kept(kept, lm.codebook_size)
    return tracks


def _kept(config: FinetuneConfig, run: Path) -> Path | None:
    """Token shards of other music."""
    if config.keep is None:
        return None
    return run / KEEP if Path(config.keep).is_file() else Path(config.keep)


def _encode(manifest: Path, out: Path, choose: music.Choose, base: Path, how: How, name: str) -> None:
    encoder: Encoder | None = None

    def encode_all(jobs: Sequence[Job]) -> Iterator[Outcome[Job, Codes]]:
        nonlocal encoder
        encoder = encoder or Encoder.load(str(base), None, str(resolve_device(how.device)))
        for done, outcome in enumerate(encode_here(encoder)(jobs), 1):
            how.progress(name, done, len(jobs))
            yield outcome

    prepare_tokens(manifest, out, encode_all, choose, TRACKS_PER_SHARD)


def _stage_config(config: FinetuneConfig, base: Path, lm: LMConfig, run: Path, how: How) -> LMStageConfig:
    """That of the run if it has begun: music that came later does not change it."""
    if (run / TRAIN / CONFIG).is_file():
        begun = load_stage_config(str(run / TRAIN / CONFIG), [f"loop.device={how.device}"])
        assert isinstance(begun, LMStageConfig)
        return begun.model_copy(update={"tokenizer": base, "init": base, "keep": _kept(config, run)})
    train, held = (read_token_tracks(run / TOKENS, split) for split in ("train", "valid"))
    return stage_config(config, base, lm, _kept(config, run), how.device, train, held)


def _stage(config: LMStageConfig, run: Path) -> LMStage:
    stage = build_stage(config, run / TOKENS, run / TRAIN)
    assert isinstance(stage, LMStage)
    return stage


def _steps_done(run: Path) -> int:
    return read_status(run / TRAIN).step if (run / TRAIN / CONFIG).is_file() else 0


def _say_plan(needed: Estimate, config: LMStageConfig, done: int, how: How) -> None:
    loop = config.loop
    kind = f"a low-rank change of {needed.learning / 1e6:.2f} M (LoRA)" if config.lora else "all of them"
    base = needed.parameters - (needed.learning if config.lora else 0)
    how.say(f"model    {base / 1e6:.1f} M weights in its lm; what learns: {kind}")
    how.say(
        f"memory   about {needed.memory / 1e9:.1f} GB of {needed.free / 1e9:.1f} GB that are free on {needed.device}"
    )
    if needed.memory > needed.free:
        how.say("warning: that is more than there is; try --batch-size 1, or a smaller model")
    left = f"{loop.steps - done} steps" + (f" ({done} are done)" if done else "")
    how.say(
        f"time     about {_duration(needed.seconds(loop, done))}: {left} of {needed.step_seconds:.2f} s, and measuring, "
        f"{needed.evaluation_seconds:.0f} s each time; samples come on top"
    )


def _prompts(run: Path) -> tuple[str, ...]:
    """A caption of each of the first held-out pieces."""
    return tuple(track.captions[0] for track in read_token_tracks(run / TOKENS, "valid")[:SAMPLED])


def _before(
    measuring: LMStageConfig, config: FinetuneConfig, run: Path, how: How, prompts: Sequence[str]
) -> dict[str, float]:
    """Held-out losses and samples of the model as it is."""
    path = run / BEFORE
    if not path.is_file():
        how.say("measuring the model as it is")
        write_text(path, to_json(_measure(measuring, run, config.model, None)))
    how.say("samples of the model as it is")
    result.make_samples(
        Pipeline.load(config.model, how.device), prompts, config.sample_seconds, config.seed, run, "before"
    )
    losses: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return losses


@torch.inference_mode()
def _measure(measuring: LMStageConfig, run: Path, model: str | Path, adapter: Path | None) -> dict[str, float]:
    """Held-out losses of what a user of `model`, with `adapter`, would load, in float32."""
    change = None if adapter is None else load_adapter(adapter)
    lm = load_system(model, resolve_device(measuring.loop.device), torch.float32, adapter=change).lm
    assert isinstance(lm, LM)
    return _stage(measuring, run).evaluate(lm)


def _finish(
    config: FinetuneConfig,
    base: Path,
    measuring: LMStageConfig,
    run: Path,
    how: How,
    prompts: Sequence[str],
    before: dict[str, float],
    tracks: Sequence[Track],
) -> Finetuned:
    trained = run / TRAIN / "model"
    asked = str(base.resolve()) if Path(config.model).expanduser().is_dir() else config.model
    adapter = None if config.full else result.keep_adapter(trained, run / ADAPTER, asked, prompts[0])
    whole = run / MODEL if config.full or how.merge else None
    if whole is not None:
        result.write_model(base, whole, adapter or trained, len(tracks))
    model, place = (asked, run / ADAPTER) if adapter is not None else (run / MODEL, None)
    how.say("measuring and making samples of what was trained")
    after = _measure(measuring, run, model, place)
    pipeline = Pipeline.load(model, how.device, adapter=place)
    result.make_samples(pipeline, prompts, config.sample_seconds, config.seed, run, "after")
    result.draw_samples(prompts, run)
    losses = result.compare(before, after)
    option = f"--adapter {place}" if place is not None else f"--model {model}"
    use = f"longplay generate {json.dumps(prompts[0], ensure_ascii=False)} {option} -o mine.flac"
    figures = {
        "model": config.model,
        "files": len(tracks),
        "minutes": sum(track.seconds for track in tracks) / 60,
        "steps": measuring.loop.steps,
        "kind": "all weights" if config.full else f"LoRA of rank {config.rank}",
        "losses": losses,
        "before": before,
        "after": after,
    }
    how.say(result.write_report(run, figures, prompts, use))
    how.say(f"report   {run / 'report.md'}, samples in {run / result.SAMPLES}")
    how.say(f"use it   {use}")
    return Finetuned(losses, place, whole)


def _minutes(tracks: Sequence[Track | music.Piece]) -> str:
    return _duration(sum(track.seconds for track in tracks))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
