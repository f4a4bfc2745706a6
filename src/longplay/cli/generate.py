"""`longplay generate`: text to music."""

from typing import Annotated

import typer

from longplay.cli import options


def generate(
    text: Annotated[str | None, typer.Argument(help="The music in words, e.g. 'calm piano, 80 bpm'.")] = None,
    output: options.OutputOption = None,
    seconds: options.SecondsOption = None,
    sections: options.SectionsOption = None,
    bpm: options.BpmOption = None,
    key: options.KeyOption = None,
    seed: options.SeedOption = None,
    count: options.CountOption = 1,
    candidates: options.CandidatesOption = None,
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
    """Make music from a description.

    `longplay generate "calm piano" --seconds 20 -o piano.flac`

    `longplay generate "techno, 130 bpm, A minor" --candidates 16` makes the one of 16 that keeps best to its words.

    `longplay generate "techno" -o - | aplay` plays it while it is made (or `| ffplay -nodisp -autoexit -`): a WAV
    stream of 16-bit stereo.
    """
    from longplay.cli.produce import produce
    from longplay.cli.request import build_request

    request = build_request(
        "generate",
        text,
        sections,
        bpm,
        key,
        {
            "seconds": seconds,
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
    produce(request, output, count, candidates=candidates)
