"""`longplay continue`: the recording stays, exactly; recipes name it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from longplay.pipeline import read_recipe

SHORT = ("--seconds", "0.8", "--num-steps", "1", "--device", "cpu")


@pytest.mark.parametrize("name", ["x.wav", "x.flac"])
def test_the_file_starts_with_the_recording_bit_for_bit(run, tiny: Path, song: Path, name: str) -> None:
    outcome = run("continue", song, "-o", name, *SHORT, "--model", tiny)
    assert outcome.code == 0, outcome
    before, rate = soundfile.read(song, dtype="int32")
    after, made_rate = soundfile.read(name, dtype="int32")
    assert made_rate == rate == 44_100
    assert np.array_equal(after[: len(before)], before)
    assert len(after) / rate == pytest.approx(2.8, abs=0.02)
    assert abs(after[-1]).max() < 2**10  # faded out


def test_words_and_sections_may_go_along(run, tiny: Path, song: Path) -> None:
    outcome = run(
        "continue", song, "drums", "-o", "x.wav", "--sections", "verse:0-2,chorus:2-2.8", "--fast", "--model", tiny
    )
    assert outcome.code == 0, outcome
    recipe = read_recipe("x.wav")
    assert (recipe.task, recipe.prompt.text, recipe.options.fast) == ("continue", "drums", True)
    assert recipe.options.seconds == pytest.approx(0.8)


def test_from_wants_the_same_recording(run, tiny: Path, song: Path, tmp_path: Path) -> None:
    assert run("continue", song, "-o", "x.wav", *SHORT, "--model", tiny).code == 0
    assert run("continue", song, "--from", "x.wav", "-o", "again.wav").code == 0
    assert Path("x.wav").read_bytes() == Path("again.wav").read_bytes()
    wav, rate = soundfile.read(song)
    soundfile.write("other.wav", wav[::-1], rate)
    outcome = run("continue", "other.wav", "--from", "x.wav", "-o", "y.wav")
    assert outcome.code == 2
    assert outcome.err == (
        "error: the audio prompt is not the one of the recipe; give the same file, or leave out --from\n"
    )


def test_a_fade_never_reaches_into_the_recording(run, tiny: Path, song: Path) -> None:
    assert run("continue", song, "-o", "x.wav", "--fade", "30", *SHORT, "--model", tiny).code == 0
    before, after = soundfile.read(song)[0], soundfile.read("x.wav")[0]
    assert np.array_equal(after[: len(before)], before)
