"""What `reconstruct` and `upscale` share: a recording in, a file out."""

from pathlib import Path

from longplay.audio import Audio
from longplay.audio.file import check_output
from longplay.cli.options import TransformOptions
from longplay.cli.produce import say
from longplay.cli.progress import Bar, status
from longplay.cli.request import words_of
from longplay.pipeline import Pipeline, Through
from longplay.prompt import GenerationOptions


def transform(
    source: Path,
    output: Path,
    through: Through,
    given: TransformOptions,
    upscaling: bool,
) -> None:
    """Send a recording through models and write what comes out.

    Args:
        source: the recording.
        output: the file to write.
        through: which models.
        given: as on the command line; a seed that is not given is 0: nothing here asks for variety.
        upscaling: refuse recordings that have the highs already.

    Raises:
        AudioError, PromptError, CheckpointError, DownloadError: see `Pipeline`.
    """
    options = GenerationOptions(**{"seed": 0} | words_of(GenerationOptions, given))
    check_output(output)
    audio = Audio.load(source)
    with status("loading the model"):
        pipeline = Pipeline.load(given["model"] or "nano", device=given["device"] or "auto")
    stages: dict[Through, tuple[str, ...]] = {"both": ("flow", "codec")}
    with Bar(stages.get(through, (through,)), audio.seconds * audio.wav.shape[0]) as bar:
        if upscaling:
            made = pipeline.upscale(audio, options, bar.of())
        else:
            made = pipeline.reconstruct(audio, through, options, bar.of())
    made.save(output)
    say(f"{output}: {made.seconds:.1f} s at {made.sample_rate} Hz, made in {bar.elapsed:.1f} s")
