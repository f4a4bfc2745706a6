"""The options of the commands, each word and help text once, and groups of them. Values that are not given stay None."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypedDict, TypeVar, get_args, get_type_hints

import typer

Command = TypeVar("Command", bound=Callable[..., None])

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16", "float16", "int8", "int8-compiled", "int4"]

ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="nano, a model directory, or a name on a hub. [default: nano]")
]
AdapterOption = Annotated[
    str | None,
    typer.Option(
        help="A directory that `longplay finetune` made, or off; its own model is the default one. [default: off]"
    ),
]
AdapterScaleOption = Annotated[
    float | None, typer.Option(help="How strongly the adapter acts, 0 to 4; 1 as trained. [default: 1]")
]
DeviceOption = Annotated[Device | None, typer.Option("--device", help="Where to compute. [default: auto]")]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        help="Of the language model; auto: int8 where the model has a close one, else float32. int4 is faster where the model is "
        "large, and less exact. [default: auto]"
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", help="A .wav, .flac, .ogg or .mp3 file, or - for a WAV stream. [default: longplay-SEED.wav]"
    ),
]
FromOption = Annotated[Path | None, typer.Option("--from", help="Make this file again; other options change it.")]
SectionsOption = Annotated[
    str | None, typer.Option(help="Parts of the piece, e.g. intro:0-15,verse:15-60,chorus:60-90,outro:90-100.")
]
BpmOption = Annotated[
    float | None,
    typer.Option(
        help="Tempo, in beats a minute. [default: as the text names it, e.g. '120 bpm', else one that suits it; ambient music has none]"
    ),
]
ChordsOption = Annotated[
    str | None,
    typer.Option(
        help="Such as 'Am F C G', one a bar, again and again. [default: some that suit the key and the words]"
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        help="Such as 'F# minor'. [default: as the text names it, else that of the chords, else one that suits the words]"
    ),
]
SecondsOption = Annotated[
    float | None, typer.Option(help="Duration of what is made. [default: that of the sections, or 30]")
]
GuidanceOption = Annotated[float | None, typer.Option(help="Weight of the prompt; 1 is off. [default: 3.0]")]
TemperatureOption = Annotated[float | None, typer.Option(help="Of sampling; 0 takes the likeliest. [default: 1.0]")]
TopKOption = Annotated[int | None, typer.Option(help="Sample from the k likeliest codes; 0: all. [default: 350]")]
TopPOption = Annotated[float | None, typer.Option(help="Sample from the likeliest of this sum. [default: 1.0]")]
NumStepsOption = Annotated[int | None, typer.Option(help="Steps of the flow's solver. [default: the model's own]")]
SolverOption = Annotated[
    Literal["euler", "midpoint", "heun", "ab2"] | None, typer.Option(help="Of the flow. [default: the model's own]")
]
FlowGuidanceOption = Annotated[
    float | None, typer.Option(help="Weight of the codes in the flow. [default: the model's own]")
]
FlowTemperatureOption = Annotated[
    float | None,
    typer.Option(help="Of the flow: less makes pitches clearer, and the sound poorer. [default: the model's own]"),
]
SeedOption = Annotated[int | None, typer.Option(help="Of all random numbers. [default: drawn, and recorded]")]
FixedSeedOption = Annotated[int | None, typer.Option(help="Of the flow's noise. [default: 0]")]
CountOption = Annotated[int, typer.Option(min=1, max=1000, help="How many pieces; seeds count up.")]
ClusterOption = Annotated[
    Literal["ray"] | None, typer.Option(help="Work on a Ray cluster (extra `cluster`) instead of processes here.")
]
AtOnceOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1000,
        help="How many of them are made at once; each takes the memory of its length. On a GPU, and in some --precision, sums "
        "round otherwise in company: a piece is then not the one that its seed makes alone. [default: 8 where that "
        "changes nothing, else 1]",
    ),
]
CandidatesOption = Annotated[
    int | None,
    typer.Option(
        min=2,
        max=1000,
        help="Begin with so many seeds, measure tempo, key and the instruments and styles that the text names, and make "
        "the piece (or the --count pieces) that keep best to it. [default: off]",
    ),
]
FastOption = Annotated[
    bool | None, typer.Option("--fast/--full", help="Skip flow and codec: 24 kHz, much sooner. [default: full]")
]
HistorySecondsOption = Annotated[
    float | None, typer.Option(help="How much of its own music the model hears. [default: as trained]")
]
CacheOption = Annotated[
    Literal["float32", "bfloat16", "int8"] | None,
    typer.Option(
        help="Numbers in which the language model keeps its music: fewer bytes for long pieces. [default: bfloat16 where "
        "its steps are compiled, else float32]"
    ),
]
MaxRepeatOption = Annotated[
    float | None,
    typer.Option(
        help="Draw again a code that makes up this share of the latest, against loops and sounds that stand still. [default: the "
        "model's own]"
    ),
]
CompatibilityOption = Annotated[
    Literal["none", "reference"] | None,
    typer.Option(help="reference: imitate the published inference code. [default: none]"),
]
LoudnessOption = Annotated[
    str | None, typer.Option(help="LUFS, or off. [default: -14, off when continuing or streaming]")
]
FadeOption = Annotated[float | None, typer.Option(help="Seconds of fade-out. [default: 1]")]
TrimOption = Annotated[bool | None, typer.Option("--trim/--no-trim", help="Cut where the music has ended.")]
PromptSecondsOption = Annotated[
    float | None, typer.Option(help="How much of the end of the audio prompt the model hears. [default: 10]")
]


class SamplingOptions(TypedDict):
    """Of codes."""

    guidance: GuidanceOption
    temperature: TemperatureOption
    top_k: TopKOption
    top_p: TopPOption
    max_repeat: MaxRepeatOption


class FlowOptions(TypedDict):
    """Of latents."""

    num_steps: NumStepsOption
    solver: SolverOption
    flow_guidance: FlowGuidanceOption
    flow_temperature: FlowTemperatureOption


class MemoryOptions(TypedDict):
    """Of what the language model keeps of its music."""

    history_seconds: HistorySecondsOption
    cache: CacheOption


class PieceOptions(TypedDict):
    """What music it shall be."""

    seconds: SecondsOption
    sections: SectionsOption
    bpm: BpmOption
    key: KeyOption
    chords: ChordsOption
    seed: SeedOption
    fast: FastOption


class FinishOptions(TypedDict):
    """Words of `Finish`."""

    loudness: LoudnessOption
    fade: FadeOption
    trim: TrimOption


class ModelOptions(TypedDict):
    """What computes, and where."""

    from_: FromOption
    model: ModelOption
    adapter: AdapterOption
    adapter_scale: AdapterScaleOption
    device: DeviceOption
    precision: PrecisionOption


class RequestOptions(PieceOptions, SamplingOptions, FlowOptions, FinishOptions, ModelOptions, MemoryOptions):
    """All that asks for a piece (`cli/request.py`)."""

    compatibility: CompatibilityOption


class EvaluationOptions(SamplingOptions, FlowOptions, MemoryOptions):
    """Settings that the scoreboard can be asked about."""


class TransformOptions(FlowOptions):
    """Of a recording's way through the models."""

    seed: FixedSeedOption
    model: ModelOption
    device: DeviceOption


def grouped(command: Command) -> Command:
    """Show typer each option of a group that a command takes as `**given: Unpack[Group]`; all of them arrive."""
    signature = inspect.signature(command)
    *own, rest = signature.parameters.values()
    (group,) = get_args(rest.annotation)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in get_type_hints(group, include_extras=True).items()
    ]
    command.__dict__["__signature__"] = signature.replace(parameters=[*own, *options])
    return command
