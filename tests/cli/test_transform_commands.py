"""`longplay reconstruct` and `longplay upscale`."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from longplay import Audio
from longplay.pipeline import read_recipe
from systems import save_residual


@pytest.mark.parametrize(("through", "rate"), [("tokenizer", 24_000), ("codec", 48_000), ("both", 48_000)])
def test_reconstruct(run, tiny: Path, song: Path, through: str, rate: int) -> None:
    outcome = run("reconstruct", song, "-o", "x.wav", "--through", through, "--num-steps", "1", "--model", tiny)
    assert outcome.code == 0, outcome
    assert outcome.err.startswith(f"x.wav: 2.0 s at {rate} Hz, made in ")
    info = soundfile.info("x.wav")
    assert (info.samplerate, info.channels, info.duration) == (rate, 2, 2.0)
    recipe = read_recipe("x.wav")
    assert (recipe.task, recipe.through, recipe.model) == ("reconstruct", through, str(tiny))


def test_reconstruct_through_several_codebooks_and_nothing_else(run, song: Path, tmp_path: Path) -> None:
    model = save_residual(tmp_path / "residual")
    outcome = run("reconstruct", song, "-o", "x.wav", "--through", "tokenizer", "--model", model)
    assert outcome.code == 0, outcome
    assert soundfile.info("x.wav").duration == 2.0
    assert "64 different in each of 3 codebooks" in run("models", "info", model).out
    refused = run("generate", "calm", "--model", model, "--fast", "-o", "y.wav")
    assert (refused.code, "has no lm" in refused.err) == (2, True)


def test_upscale_makes_48_khz_and_is_reproducible(run, tiny: Path, song: Path) -> None:
    wav, _ = soundfile.read(song)
    soundfile.write("low.wav", wav[::2], 22_050)
    for name in ("x.flac", "y.flac"):
        assert run("upscale", "low.wav", "-o", name, "--num-steps", "1", "--model", tiny).code == 0
    info = soundfile.info("x.flac")
    assert (info.samplerate, info.channels, info.duration) == (48_000, 2, 2.0)
    assert Path("x.flac").read_bytes() == Path("y.flac").read_bytes()
    recipe = read_recipe("x.flac")
    assert (recipe.task, recipe.options.num_steps) == ("upscale", 1)
    assert recipe.audio_prompt == Audio.load("low.wav").digest
    refused = run("generate", "--from", "x.flac")
    assert (refused.code, refused.err) == (
        2,
        "error: x.flac: was made by `longplay upscale`; run it on the recording\n",
    )


@pytest.mark.parametrize(("command", "word"), [("reconstruct", "reconstructed"), ("upscale", "upscaled")])
def test_without_output_the_file_is_named_by_what_was_done(run, tiny: Path, command: str, word: str) -> None:
    soundfile.write("low.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 24_000), 24_000)
    assert run(command, "low.wav", "--num-steps", "1", "--model", tiny).code == 0
    assert Path(f"low-{word}.wav").is_file()
