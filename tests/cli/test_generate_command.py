"""`longplay generate`: files, numbering, recipes, streams, and what Ctrl-C leaves."""

import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
import soundfile

from longplay import Audio
from longplay.audio.finish import measure
from longplay.pipeline import read_recipe

SHORT = ("--seconds", "0.8", "--num-steps", "1", "--device", "cpu")


@pytest.fixture
def generate(run, tiny: Path):
    """`generate(...)` with the tiny model, short and cheap."""
    return lambda *arguments: run("generate", *arguments, *SHORT, "--model", tiny)


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3"])
def test_a_file_of_each_format_with_its_recipe(generate, tiny: Path, name: str) -> None:
    outcome = generate("calm piano", "-o", name, "--seed", "7", "--sections", "intro:0-0.5")
    assert outcome.code == 0, outcome
    assert outcome.out == ""
    assert outcome.err.startswith(f"{name}: 0.8 s made in ")
    assert outcome.err.endswith("s, seed 7\n")
    info = soundfile.info(name)
    assert (info.samplerate, info.channels) == (48_000, 2)
    recipe = read_recipe(name)
    assert (recipe.prompt.text, str(recipe.prompt.sections[0])) == ("calm piano", "intro:0-0.5")
    assert (recipe.options.seed, recipe.options.num_steps, recipe.model) == (7, 1, str(tiny))


def test_loudness_fade_and_two_equal_channels(generate) -> None:
    generate("x", "-o", "x.wav", "--seed", "1", "--loudness", "-20", "--fade", "0.2")
    wav, rate = soundfile.read("x.wav", dtype="float32")
    assert soundfile.info("x.wav").subtype == "PCM_24"
    assert np.array_equal(wav[:, 0], wav[:, 1])
    assert measure([wav.T], rate)[0] == pytest.approx(-20, abs=0.2)
    assert abs(wav[-1, 0]) < 1e-5


def test_the_level_can_be_left_alone(generate, tiny: Path) -> None:
    from longplay import GenerationOptions, Pipeline

    generate("x", "-o", "x.wav", "--seed", "1", "--loudness", "off", "--fade", "0")
    raw = Pipeline.load(tiny, "cpu").generate("x", GenerationOptions(seconds=0.8, num_steps=1, seed=1))
    np.testing.assert_allclose(Audio.load("x.wav").wav[:1], raw.wav, atol=2**-23)


def test_from_makes_the_same_file_again(generate, run) -> None:
    assert generate("calm piano", "-o", "first.wav", "--sections", "intro:0-0.5", "--loudness", "-18").code == 0
    outcome = run("generate", "--from", "first.wav", "-o", "again.wav")
    assert outcome.code == 0, outcome
    assert Path("first.wav").read_bytes() == Path("again.wav").read_bytes()


def test_other_options_change_what_from_makes(generate, run) -> None:
    generate("calm piano", "-o", "first.wav", "--seed", "3")
    assert run("generate", "--from", "first.wav", "--seed", "4", "-o", "other.wav").code == 0
    first, other = read_recipe("first.wav"), read_recipe("other.wav")
    assert other.options == first.options.with_seed(4)
    assert not np.array_equal(Audio.load("first.wav").wav, Audio.load("other.wav").wav)
    assert run("generate", "loud piano", "--from", "first.wav", "-o", "text.wav").code == 0
    assert read_recipe("text.wav").prompt.text == "loud piano"
    assert run("generate", "--from", "first.wav", "--sections", "intro:0-0.4", "-o", "sections.wav").code == 0
    assert read_recipe("sections.wav").options.seconds == pytest.approx(0.4)


def test_from_refuses_other_weights_unless_they_are_asked_for(generate, run, tiny: Path, tmp_path: Path) -> None:
    from systems import save_tiny

    other = save_tiny(tmp_path / "other", seed=1)
    generate("x", "-o", "x.wav")
    audio = Audio.load("x.wav")
    Audio(audio.wav, 48_000, {**Audio.load_recipe("x.wav"), "model": str(other)}).save("y.wav")
    outcome = run("generate", "--from", "y.wav", "-o", "z.wav")
    assert outcome.code == 2
    assert "its weights (" in outcome.err
    assert "are not those of the recipe" in outcome.err
    assert run("generate", "--from", "y.wav", "-o", "z.wav", "--model", other).code == 0


def test_a_recipe_belongs_to_its_command(generate, run, song: Path) -> None:
    generate("x", "-o", "x.wav")
    outcome = run("continue", song, "--from", "x.wav")
    assert outcome.code == 2
    assert outcome.err == "error: x.wav: was made by `longplay generate`; use that command with --from\n"


def test_count_numbers_files_and_counts_seeds_up(generate, tmp_path: Path) -> None:
    assert generate("x", "-o", "x.flac", "--seed", "5", "--count", "2", "--fast").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-1.flac", "x-2.flac"]
    assert [read_recipe(f"x-{n}.flac").options.seed for n in (1, 2)] == [5, 6]
    assert not np.array_equal(Audio.load("x-1.flac").wav, Audio.load("x-2.flac").wav)


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_pieces_that_are_made_at_once_are_those_of_their_seeds(
    generate, run, song: Path, tiny: Path, at_once: int
) -> None:
    outcome = generate("x", "-o", "x.flac", "--seed", "5", "--count", "3", "--at-once", str(at_once))
    assert outcome.code == 0
    assert ("made in" in outcome.err, "beside 2 more" in outcome.err) == (True, at_once == 8)
    for number in (1, 2, 3):
        generate("x", "-o", "alone.flac", "--seed", str(4 + number))
        assert np.array_equal(Audio.load(f"x-{number}.flac").wav, Audio.load("alone.flac").wav)
    words = ("continue", song, "x", "--seconds", "1", "--num-steps", "1", "--model", tiny)
    assert run(*words, "--seed", "5", "--count", "2", "-o", "y.flac").code == 0
    run(*words, "--seed", "6", "-o", "alone.flac")
    assert np.array_equal(Audio.load("y-2.flac").wav, Audio.load("alone.flac").wav)


def test_ctrl_c_keeps_what_is_finished_of_all_pieces(run, tiny: Path, monkeypatch) -> None:
    monkeypatch.setattr("longplay.pipeline.stream.Stream.__iter__", interrupted(after=1))
    words = ("--seconds", "3", "--fast", "--seed", "1", "--count", "2", "-o", "x.wav", "--model", tiny)
    outcome = run("generate", "x", *words)
    assert outcome.code == 130
    assert outcome.err == "".join(f"stopped: x-{n}.wav keeps the 0.4 s that were finished\n" for n in (1, 2))
    assert [Audio.load(f"x-{n}.wav").seconds for n in (1, 2)] == pytest.approx([0.4, 0.4], abs=1 / 75)


def test_without_output_the_file_is_named_by_its_seed(generate, tmp_path: Path) -> None:
    assert generate("x", "--seed", "9", "--fast").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["longplay-9.wav"]


def test_the_output_can_be_a_stream(generate, monkeypatch) -> None:
    generate("x", "-o", "x.wav", "--seed", "2", "--loudness", "off")
    pipe = BytesIO()
    player = TextIOWrapper(pipe, write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", player)
        outcome = generate("x", "-o", "-", "--seed", "2")
    assert (outcome.code, outcome.err) == (0, "")
    played, rate = soundfile.read(BytesIO(pipe.getvalue()))
    written, _ = soundfile.read("x.wav")
    assert (rate, played.shape) == (48_000, written.shape)
    np.testing.assert_allclose(played, written, atol=2**-14)


def interrupted(after: int):
    """The decoder's chunks, and Ctrl-C after some of them."""
    from longplay.pipeline.stream import Stream

    def chunks(stream: Stream):
        for number, chunk in enumerate(stream.chunks):
            if number == after:
                raise KeyboardInterrupt
            yield chunk

    return chunks


def test_ctrl_c_keeps_what_is_finished(run, tiny: Path, monkeypatch) -> None:
    monkeypatch.setattr("longplay.pipeline.stream.Stream.__iter__", interrupted(after=1))
    outcome = run("generate", "x", "--seconds", "3", "--fast", "--seed", "1", "-o", "x.wav", "--model", tiny)
    assert outcome.code == 130
    assert outcome.err == "stopped: x.wav keeps the 0.4 s that were finished\n"
    assert Audio.load("x.wav").seconds == pytest.approx(0.4, abs=1 / 75)
    assert read_recipe("x.wav").options.seconds == 3


def test_ctrl_c_before_anything_is_finished(generate, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("longplay.pipeline.stream.Stream.__iter__", interrupted(after=0))
    outcome = generate("x", "-o", "x.wav")
    assert (outcome.code, outcome.err) == (130, "stopped: nothing of x.wav was finished yet\n")
    assert list(tmp_path.iterdir()) == []


def test_the_best_of_some_candidates_is_made(run, tiny: Path) -> None:
    words = ("a thing in C major, 120 bpm", "--seconds", "4", "--num-steps", "1", "--model", tiny, "--device", "cpu")
    outcome = run("generate", *words, "--seed", "3", "--candidates", "3", "--count", "2", "-o", "x.wav")
    assert outcome.code == 0, outcome
    chosen = [int(line.split("seed ")[1].split(":")[0]) for line in outcome.err.splitlines() if "candidates:" in line]
    assert len(chosen) == 2
    assert set(chosen) < {3, 4, 5}
    assert [read_recipe(f"x-{n}.wav").options.seed for n in (1, 2)] == chosen
    again = run("generate", *words, "--seed", str(chosen[0]), "-o", "again.wav")
    assert again.code == 0, again
    assert Path("again.wav").read_bytes() == Path("x-1.wav").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("something", "--candidates", "3"), "it names none"),
        (("120 bpm", "--candidates", "2", "--count", "3"), "fewer than the 3 pieces of --count"),
        (("120 bpm", "--candidates", "2"), "compared over 4 s or more"),
    ],
)
def test_candidates_that_cannot_be_compared_are_refused(generate, arguments: tuple[str, ...], said: str) -> None:
    outcome = generate(*arguments)
    assert outcome.code == 2
    assert said in outcome.err.replace("\n", " ")
