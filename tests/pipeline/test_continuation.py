"""Continuation: the recording's samples stay, the join does not click, levels match, streams are whole pieces."""

import numpy as np
import pytest

from longplay import Audio, GenerationOptions, Pipeline, Prompt
from longplay.chords import Chord
from longplay.errors import PromptError
from longplay.pipeline.continuation import Heard, find_control, go_on, hear
from longplay.prompt import parse_sections
from recordings import chord


def test_the_recording_comes_first_bit_for_bit(
    pipeline: Pipeline, recording: Audio, options: GenerationOptions
) -> None:
    made = pipeline.continue_(recording, "", options)
    count = recording.wav.shape[1]
    assert made.sample_rate == recording.sample_rate
    assert np.array_equal(made.wav[:, :count], recording.wav)
    assert made.seconds == pytest.approx(recording.seconds + 1.6, abs=0.02)
    assert made.peak <= 1


@pytest.mark.usefixtures("quick_lm")
def test_the_join_does_not_click(pipeline: Pipeline, recording: Audio, options: GenerationOptions) -> None:
    made = pipeline.continue_(recording, "drums", options).wav
    count, near = recording.wav.shape[1], recording.sample_rate // 20
    steps = np.abs(np.diff(made, axis=1))
    for channel in range(made.shape[0]):
        around = np.concatenate([steps[channel, count - near : count - 2], steps[channel, count + 2 : count + near]])
        assert steps[channel, count - 2 : count + 2].max() <= 1.5 * around.max()


@pytest.mark.usefixtures("quick_lm")
def test_a_stream_is_the_whole_continuation(pipeline: Pipeline, recording: Audio, options: GenerationOptions) -> None:
    whole = pipeline.continue_(recording, "x", options)
    chunks = list(pipeline.stream("x", options, recording))
    assert np.array_equal(chunks[0], recording.wav)
    assert np.array_equal(np.concatenate(chunks, axis=1), whole.wav)


def test_only_the_end_of_a_long_recording_is_heard(pipeline: Pipeline, options: GenerationOptions) -> None:
    long = chord(20, 24_000)
    options = options.model_copy(update={"prompt_seconds": 2.0})
    other = Audio(np.concatenate([0.1 * long.wav[:, ::-1][:, : 17 * 24_000], long.wav[:, 17 * 24_000 :]], 1), 24_000)
    first, second = (pipeline.continue_(audio, "x", options).wav[:, 20 * 24_000 :] for audio in (long, other))
    assert np.array_equal(first, second)
    more = pipeline.continue_(long, "x", options.model_copy(update={"prompt_seconds": 5.0})).wav[:, 20 * 24_000 :]
    assert not np.array_equal(first, more)


@pytest.mark.usefixtures("quick_lm")
def test_sections_count_from_the_start_of_the_recording(pipeline: Pipeline) -> None:
    prompt = Prompt(text="x", sections=parse_sections("intro:0-3,chorus:3-6.5"))
    made = pipeline.continue_(chord(2.5, 24_000), prompt, GenerationOptions(seed=0, num_steps=1))
    assert made.seconds == pytest.approx(6.5, abs=0.02)


@pytest.mark.usefixtures("quick_lm")
def test_progress_counts_the_new_part_only(pipeline: Pipeline, options: GenerationOptions) -> None:
    told: dict[str, float] = {}
    pipeline.continue_(chord(3, 24_000), "", options, progress=told.__setitem__)
    assert all(seconds == pytest.approx(1.6, abs=0.05) for seconds in told.values())


def test_the_recipe_names_the_recording(pipeline: Pipeline, options: GenerationOptions) -> None:
    recording = chord(1.5, 24_000)
    made = pipeline.continue_(recording, "x", options)
    assert made.recipe is not None
    assert (made.recipe["task"], made.recipe["audio_prompt"]) == ("continue", recording.digest)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (chord(0.2, 24_000), "the audio lasts 0.2 s; give at least 1 s"),
        (Audio(np.zeros((1, 48_000)), 24_000), "the audio is silent"),
    ],
)
def test_recordings_without_music_are_refused(pipeline: Pipeline, audio: Audio, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        pipeline.stream("x", None, audio)


@pytest.mark.parametrize("rate", [22_050, 24_000, 48_000])
def test_what_is_heard_ends_where_the_recording_ends(pipeline: Pipeline, rate: int) -> None:
    assert pipeline.system.tokenizer is not None
    config = pipeline.system.tokenizer.config
    audio = chord(3.337, rate)
    heard = hear(audio, 2.0, config)
    assert heard.wav.shape == (1, 48_000)
    assert heard.samples == 2 * rate
    assert heard.start == pytest.approx(audio.seconds - 2)
    whole = hear(audio, 60.0, config)
    assert whole.wav.shape[1] % config.hop_length == 0
    assert 3.337 - 1 / 75 <= whole.seconds <= audio.seconds


def test_a_perfect_model_goes_on_as_if_nothing_had_happened(pipeline: Pipeline) -> None:
    assert pipeline.system.tokenizer is not None
    song = chord(6, 44_100)
    recording = Audio(song.wav[:, : 3 * 44_100], 44_100)
    heard = hear(recording, 2.0, pipeline.system.tokenizer.config)
    ideal = Audio(0.3 * song.wav[:, 44_100:], 44_100).resample(48_000).wav
    made = np.concatenate(list(go_on(recording, heard, np.array_split(ideal, 7, axis=1), 48_000)), axis=1)
    assert made.shape[1] == pytest.approx(song.wav.shape[1], abs=1)
    middle = slice(0, 5 * 44_100)
    np.testing.assert_allclose(made[:, middle], song.wav[:, middle], atol=0.01)


@pytest.mark.usefixtures("quick_lm")
def test_the_new_part_has_the_level_of_each_channel(pipeline: Pipeline) -> None:
    recording = chord(3, 24_000, channels=2)
    made = pipeline.continue_(recording, "x", GenerationOptions(seconds=3, seed=0, num_steps=1)).wav[:, 72_000:]
    np.testing.assert_allclose(made[0, 2_000:], 2 * made[1, 2_000:], atol=1e-5)


def clicks(bpm: float, seconds: float, first: float) -> Heard:
    """The end of a longer recording, clicks and a chord that changes every four of them."""
    rate, wav = 24_000, np.zeros(round(seconds * 24_000), np.float32)
    time = np.arange(len(wav)) / rate
    for number, start in enumerate(np.arange(first, seconds - 0.1, 60 / bpm)):
        begin, pitch = round(start * rate), (220.0, 277.2)[number // 4 % 2]
        wav[begin : begin + 800] += np.random.default_rng(0).normal(0, 0.3, 800).astype(np.float32)
        stop = round((start + 60 / bpm) * rate)
        wav[begin:stop] += 0.1 * np.sin(2 * np.pi * pitch * time[begin:stop]).astype(np.float32)
    return Heard(wav[None], len(wav), seconds, start=20.0)


def test_the_pulse_of_the_recording_goes_on() -> None:
    found = find_control(clicks(125, 10, 0.2), 24_000)
    assert found.bpm == pytest.approx(125, rel=0.02)
    assert found.beats == 4
    beats = 4 * found.position(np.array([20.2 + 0.48 * 30]))  # four seconds after the recording's end
    assert abs(beats - beats.round()) < 0.15


def test_the_chords_of_the_recording_are_found_in_its_time() -> None:
    heard = clicks(125, 10, 0.2)
    found = find_control(heard, 24_000)
    assert found.chords[0][0] == 20.0
    assert all(20 <= start < 30 for start, _ in found.chords)
    steady = Heard(chord(5, 24_000).mono(), 120_000, 5.0, start=7.0)
    assert find_control(steady, 24_000).bpm is None
    assert find_control(steady, 24_000).chords == ((7.0, Chord.parse("G")),)
