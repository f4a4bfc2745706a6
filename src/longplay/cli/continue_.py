"""`longplay continue`: an audio prompt, with or without words, to more of it."""

from pathlib import Path
from typing import Annotated

import typer

from longplay.cli import options


def continue_(
    audio: Annotated[Path, typer.Argument(help="The recording to go on from, at least 1 s.")],
    text: Annotated[str | None, typer.Argument(help="How it shall go on, in words.")] = None,
    output: options.OutputOption = None,
    seconds: options.SecondsOption = None,
    prompt_seconds: options.PromptSecondsOption = None,
    sections: options.SectionsOption = None,
    bpm: options.BpmOption = None,
    key: options.KeyOption = None,
    seed: options.SeedOption = None,
    count: options.CountOption = 1,
    fast: options.FastOption = None,
    guidance: options.GuidanceOption = None,
    temperature: options.TemperatureOption = None,
    top_k: options.TopKOption = None,
    top_p: options.TopPOption = None,
    num_steps: options.NumStepsOption = None,
    solver: options.SolverOption = None,
    flow_guidance: options.FlowGuidanceOption = None,
    loudness: options.LoudnessOption = None,
    fade: options.FadeOption = None,
    trim: options.TrimOption = None,
    from_: options.FromOption = None,
    model: options.ModelOption = None,
    adapter: options.AdapterOption = None,
    adapter_scale: options.AdapterScaleOption = None,
    device: options.DeviceOption = None,
    precision: options.PrecisionOption = None,
    history_seconds: options.HistorySecondsOption = None,
    cache: options.CacheOption = None,
    max_repeat: options.MaxRepeatOption = None,
    compatibility: options.CompatibilityOption = None,
) -> None:
    """Go on from a recording: the file holds the recording, untouched, and what follows.

    `longplay continue riff.wav "add drums" --seconds 30 -o song.wav`

    The recording keeps its sample rate and channels. Times of sections count from its start.
    """
    from longplay.audio import Audio
    from longplay.cli.produce import produce
    from longplay.cli.request import build_request

    request = build_request(
        "continue",
        text,
        sections,
        bpm,
        key,
        {
            "seconds": seconds,
            "prompt_seconds": prompt_seconds,
            "seed": seed,
            "fast": fast,
            "guidance": guidance,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "num_steps": num_steps,
            "solver": solver,
            "flow_guidance": flow_guidance,
            "history_seconds": history_seconds,
            "cache": cache,
            "max_repeat": max_repeat,
            "compatibility": compatibility,
        },
        {"loudness": loudness, "fade": fade, "trim": trim},
        source=from_,
        model=model,
        adapter=adapter,
        adapter_scale=adapter_scale,
        device=device,
        precision=precision,
    )
    produce(request, output, count, Audio.load(audio))
