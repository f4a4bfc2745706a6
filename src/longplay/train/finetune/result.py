"""What a finetune leaves: the adapter or a whole model, samples before and after, and a report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from longplay import __version__
from longplay.audio import Audio, Finish
from longplay.checkpoint.adapter import Adapter, load_adapter, save_adapter
from longplay.checkpoint.names import ModelName
from longplay.checkpoint.store import SystemConfig, save_native
from longplay.checkpoint.store import load_weights as load_native
from longplay.checkpoint.system import load_config, load_text_tokenizer, load_weights
from longplay.errors import CheckpointError
from longplay.files import write_text
from longplay.pipeline import Pipeline
from longplay.prompt import GenerationOptions
from longplay.report import number, table, to_json
from longplay.train.samples import draw_spectrograms

SAMPLES = "samples"
STYLE, OPENINGS, KEPT = "this music", "this music, openings", "other music"
_METRICS = {STYLE: "loss", OPENINGS: "opening_loss", KEPT: "kept_loss"}


def keep_adapter(trained: Path, directory: Path, base: str, example: str) -> Adapter:
    """The adapter that training left, under the name that its base was asked for by."""
    adapter = load_adapter(trained)
    config = adapter.config.model_copy(update={"base": base, "example": example})
    save_adapter(directory, config, adapter.tensors)
    return load_adapter(directory)


def write_model(base: Path, directory: Path, change: Adapter | Path, tracks: int) -> None:
    """A whole native model: the parts of `base`, and its lm with `change`, an adapter or a directory with another lm.

    Weights keep the precision that those of `base` have on disk.
    """
    config = load_config(base)
    weights: dict[ModelName, Mapping[str, Tensor]] = {name: load_weights(base, name) for name in config.present}
    own = weights["lm"]
    if isinstance(change, Adapter):
        weights["lm"] = change.added(own)
    else:
        weights["lm"] = {name: tensor.to(own[name].dtype) for name, tensor in load_native(change, "lm").items()}
    for name, tensor in weights["lm"].items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{directory}: {name} does not fit {tensor.dtype}; finetune again, at a lower rate")
    text = load_text_tokenizer(base)
    described = config.model_copy(
        update={
            "name": f"{config.name}, finetuned",
            "provenance": f"{config.provenance}; finetuned with Longplay {__version__} on {tracks} files",
        }
    )
    save_native(
        directory,
        SystemConfig.parse(described.dump()),
        weights,
        None if text is None else text.to_json().encode("utf-8"),
        overwrite=True,
    )


def make_samples(pipeline: Pipeline, prompts: Sequence[str], seconds: float, seed: int, run: Path, when: str) -> None:
    """A piece of each prompt as `RUN/samples/<n>.<when>.wav`, those that are there already left as they are."""
    fast = pipeline.system.flow is None or pipeline.system.codec is None
    (run / SAMPLES).mkdir(exist_ok=True)
    for index, prompt in enumerate(prompts):
        path = run / SAMPLES / f"{index}.{when}.wav"
        if not path.exists():
            made = pipeline.generate(prompt, GenerationOptions(seconds=seconds, seed=seed + index, fast=fast))
            Finish().apply(made).save(path)


def draw_samples(prompts: Sequence[str], run: Path) -> None:
    """The spectrograms of each pair of samples, one above the other."""
    for index in range(len(prompts)):
        pair = {when: Audio.load(run / SAMPLES / f"{index}.{when}.wav") for when in ("before", "after")}
        signals = {when: audio.mono()[0] for when, audio in pair.items()}
        draw_spectrograms(signals, pair["after"].sample_rate, run / SAMPLES / f"{index}.png")


def compare(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Losses by music: before, after, and the change."""
    found = {}
    for name, metric in _METRICS.items():
        if metric in before:
            found[name] = {"before": before[metric], "after": after[metric], "change": after[metric] - before[metric]}
    return found


def write_report(run: Path, figures: Mapping[str, Any], prompts: Sequence[str], use: str) -> str:
    """Write `report.json` and `report.md`; returns the lines of its table.

    Args:
        run: directory of the finetune.
        figures: everything that was measured; `losses` as `compare` gives them.
        prompts: of the samples.
        use: a command that makes music with what was trained.
    """
    losses = figures["losses"]
    rows = table("loss on held-out music, nats a code", losses.items())
    write_text(run / "report.json", to_json(figures))
    lines = [f"# {figures['model']}, finetuned on {figures['files']} files", ""]
    lines += [f"{figures['minutes']:.1f} minutes of music, {figures['steps']} steps, {figures['kind']}.", "", *rows, ""]
    lines += ["Lower is better: how surprised the model is by music that it has not heard.", ""]
    if KEPT in losses:
        lines += [f"Other music: {number(100 * losses[KEPT]['change'] / losses[KEPT]['before'])} %.", ""]
    lines += ["![losses](train/curves.png)", "", "## Use it", "", "```sh", use, "```", "", "## Samples", ""]
    for index, prompt in enumerate(prompts):
        files = f"`samples/{index}.before.wav`, `samples/{index}.after.wav`"
        lines += [f"{json.dumps(prompt, ensure_ascii=False)}: {files}", "", f"![spectrograms](samples/{index}.png)", ""]
    write_text(run / "report.md", "\n".join(lines))
    return "\n".join(rows)
