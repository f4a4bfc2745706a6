"""What `reconstruct` and `upscale` share: a recording in, a file out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longplay.audio import Audio
from longplay.audio.file import check_output
from longplay.cli.produce import say
from longplay.cli.progress import Bar, status
from longplay.pipeline import Pipeline, Through
from longplay.prompt import GenerationOptions


def transform(
    source: Path,
    output: Path,
    through: Through,
    given: Mapping[str, Any],
    model: str | None,
    device: str | None,
    upscaling: bool,
) -> None:
    """Send a recording through models and write what comes out.

    Args:
        source: the recording.
        output: the file to write.
        through: which models.
        given: words of `GenerationOptions`; None is not given, and seed is then 0: nothing here asks for variety.
        model: name or directory.
        device: name.
        upscaling: refuse recordings that have the highs already.

    Raises:
        AudioError, PromptError, CheckpointError, DownloadError: see `Pipeline`.
    """
    options = GenerationOptions(**{"seed": 0} | {word: value for word, value in given.items() if value is not None})
    check_output(output)
    audio = Audio.load(source)
    with status("loading the model"):
        pipeline = Pipeline.load(model or "nano", device=device or "auto")
    stages: dict[Through, tuple[str, ...]] = {"both": ("flow", "codec")}
    with Bar(stages.get(through, (through,)), audio.seconds * audio.wav.shape[0]) as bar:
        if upscaling:
            made = pipeline.upscale(audio, options, bar.update)
        else:
            made = pipeline.reconstruct(audio, through, options, bar.update)
    made.save(output)
    say(f"{output}: {made.seconds:.1f} s at {made.sample_rate} Hz, made in {bar.elapsed:.1f} s")
