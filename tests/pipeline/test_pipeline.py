"""The tasks over a tiny random model: durations, rates, seeds, streams, recipes, and what is refused."""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from longplay import Audio, GenerationOptions, Pipeline, Prompt
from longplay.checkpoint.store import SystemConfig, save_native
from longplay.engine.vocode import decode
from longplay.errors import AudioError, CheckpointError, PromptError, UserError
from longplay.models.lm import LM
from longplay.pipeline import read_recipe, stages
from longplay.pipeline.device import resolve_device
from longplay.prompt import parse_sections
from recordings import chord
from systems import tiny_config, tiny_text_tokenizer, tiny_weights


def test_text_to_music_has_the_asked_length_at_the_codec_s_rate(pipeline: Pipeline, options: GenerationOptions) -> None:
    audio = pipeline.generate("calm piano", options)
    assert (audio.sample_rate, audio.wav.shape) == (48_000, (1, 76_800))
    assert not audio.silent


def test_fast_mode_skips_flow_and_codec(pipeline: Pipeline, options: GenerationOptions) -> None:
    heard = set()
    fast = options.model_copy(update={"fast": True})
    audio = pipeline.generate("calm piano", fast, progress=lambda stage, _: heard.add(stage))
    assert (audio.sample_rate, audio.wav.shape) == (24_000, (1, 38_400))
    assert heard == {"lm", "tokenizer"} == set(stages(fast=True))


@pytest.mark.usefixtures("quick_lm")
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 17.3])
def test_a_stream_is_the_whole_piece(pipeline: Pipeline, fast: bool, seconds: float) -> None:
    options = GenerationOptions(seconds=seconds, seed=2, num_steps=1, fast=fast)
    whole = pipeline.generate("x", options)
    chunks = list(pipeline.stream("x", options))
    assert np.array_equal(np.concatenate(chunks, axis=1), whole.wav)
    assert whole.seconds == pytest.approx(seconds, abs=1 / 75)
    assert len(chunks) > seconds / 6


def test_sound_comes_before_the_lm_is_done(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = threading.Event()

    def generate(*_: object) -> Iterator[Tensor]:
        yield from torch.zeros(1, 105, dtype=torch.long).split(15, dim=1)  # 1.4 s: a first window, its fade and context
        assert heard.wait(30)
        yield torch.zeros(1, 15, dtype=torch.long)

    monkeypatch.setattr("longplay.pipeline.steps.generate", generate)
    with closing(pipeline.stream("x", GenerationOptions(seconds=1.6, seed=1, num_steps=1))) as stream:
        first = next(iter(stream)).shape[1]
        assert 0.4 * 48_000 - 320 <= first <= 0.4 * 48_000  # but for what still overlaps with the next frame
        heard.set()
        assert first + sum(chunk.shape[1] for chunk in stream) == 1.6 * 48_000


@pytest.mark.usefixtures("quick_lm")
def test_a_closed_stream_leaves_nothing_running(pipeline: Pipeline) -> None:
    stream = pipeline.stream("x", GenerationOptions(seconds=100, seed=1, num_steps=1))
    next(iter(stream))
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "longplay-stage"]


def test_the_same_seed_gives_the_same_piece_and_another_another(pipeline: Pipeline, options: GenerationOptions) -> None:
    first, again = (pipeline.generate("x", options).wav for _ in range(2))
    other = pipeline.generate("x", options.model_copy(update={"seed": 2})).wav
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_a_drawn_seed_is_recorded_and_makes_the_piece_again(pipeline: Pipeline, options: GenerationOptions) -> None:
    drawn = pipeline.generate("x", options.model_copy(update={"seed": None}))
    assert drawn.recipe is not None
    again = pipeline.generate("x", options.model_copy(update={"seed": drawn.recipe["options"]["seed"]}))
    assert np.array_equal(drawn.wav, again.wav)


@pytest.mark.parametrize(("of_flow", "value"), [("guidance", 0.0), ("temperature", 0.5)])
def test_the_flow_is_as_guided_and_as_warm_as_its_model_says(
    pipeline: Pipeline, options: GenerationOptions, monkeypatch: pytest.MonkeyPatch, of_flow: str, value: float
) -> None:
    flow = pipeline.system.flow
    assert flow is not None
    plain = pipeline.generate("x", options)
    assert plain.recipe is not None
    assert plain.recipe["options"][f"flow_{of_flow}"] == getattr(flow.config, of_flow)
    asked = pipeline.generate("x", options.model_copy(update={f"flow_{of_flow}": value}))
    monkeypatch.setattr(flow, "config", flow.config.model_copy(update={of_flow: value}))
    own = pipeline.generate("x", options)
    assert np.array_equal(own.wav, asked.wav)
    assert not np.array_equal(own.wav, plain.wav)


def test_a_flow_that_was_never_without_its_codes_cannot_be_guided(
    pipeline: Pipeline, options: GenerationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = pipeline.system.flow
    assert flow is not None
    monkeypatch.setattr(flow, "config", flow.config.model_copy(update={"guidance": 0.0, "condition_dropout": 0.0}))
    pipeline.generate("x", options.model_copy(update={"flow_guidance": 0.0}))
    with pytest.raises(PromptError, match=r"flow_guidance = 0.5: .* leave flow_guidance out, or give 0"):
        pipeline.generate("x", options.model_copy(update={"flow_guidance": 0.5}))


def test_text_sections_and_options_all_count(pipeline: Pipeline, options: GenerationOptions) -> None:
    options = options.model_copy(update={"seconds": 0.5})
    sections = Prompt(text="x", sections=parse_sections("chorus:10-10.2,outro:10.2-10.5"))
    plain = pipeline.generate("x", options).wav
    changed = [
        pipeline.generate("y", options).wav,
        pipeline.generate(sections, options).wav,
        pipeline.generate("x", options.model_copy(update={"guidance": 1.0})).wav,
        pipeline.generate("x", options.model_copy(update={"top_k": 3})).wav,
        pipeline.generate("x", options.model_copy(update={"temperature": 0.5})).wav,
        pipeline.generate("x", options.model_copy(update={"num_steps": 3})).wav,
        pipeline.generate("x", options.model_copy(update={"flow_guidance": 0.0})).wav,
        pipeline.generate("x", options.model_copy(update={"flow_temperature": 0.5})).wav,
        pipeline.generate("x", options.model_copy(update={"compatibility": "reference"})).wav,
    ]
    for other in changed:
        assert other.shape[1] <= plain.shape[1]
        assert not np.array_equal(other, plain[:, : other.shape[1]])


def test_tempo_and_key_count_where_the_model_takes_them(pipeline: Pipeline, options: GenerationOptions) -> None:
    options = options.model_copy(update={"fast": True})
    assert pipeline.system.lm is not None
    torch.manual_seed(0)
    lm = LM(pipeline.system.lm.config.model_copy(update={"control": True, "chords": True})).eval()
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    held = Pipeline(replace(pipeline.system, lm=lm), "held")
    plain = held.generate("x", options).wav
    given = held.generate(Prompt(text="x", bpm=97), options)
    assert not np.array_equal(given.wav, plain)
    assert not np.array_equal(given.wav, held.generate(Prompt(text="x", bpm=98), options).wav)
    assert not np.array_equal(plain, held.generate(Prompt(text="x", key="A minor"), options).wav)
    chords = Prompt(text="x", chords="Dm G C A")
    assert not np.array_equal(plain, held.generate(chords, options).wav)
    told = held.held_to(chords, held._settle(options, chords))
    assert told is not None
    assert [str(chord) for _, chord in told.chords] == ["Dm"]
    assert given.recipe is not None
    assert Prompt.parse(given.recipe["prompt"]).bpm == 97
    words, numbers = (held.generate(Prompt(text="x, 97 bpm", bpm=bpm), options).wav for bpm in (None, 97))
    assert np.array_equal(words, numbers)
    sketch = held.sketch(Prompt(text="x", bpm=97), [1], options)[0].wav
    assert np.array_equal(sketch[:, : 24_000 // 4], given.wav[:, : 24_000 // 4])


@pytest.mark.parametrize("prompt", [Prompt(text="x", bpm=97), Prompt(text="x", key="A minor")])
def test_a_model_of_words_alone_says_so(pipeline: Pipeline, prompt: Prompt, options: GenerationOptions) -> None:
    for make in (pipeline.generate, lambda asked, how: pipeline.sketch(asked, [1], how)):
        with pytest.raises(PromptError, match=r"takes tempo and key in words alone; .* e\.g\. '120 bpm, F# minor'"):
            make(prompt, options)
        with pytest.raises(PromptError, match="has not learnt to follow chords"):
            make(Prompt(text="x", chords="C F"), options)
    assert pipeline.generate("x, 97 bpm", options).seconds > 1


def test_progress_reaches_the_end_and_never_falls(pipeline: Pipeline, options: GenerationOptions) -> None:
    told: dict[str, list[float]] = {stage: [] for stage in stages(fast=False)}
    pipeline.generate("x", options, progress=lambda stage, seconds: told[stage].append(seconds))
    for seconds in told.values():
        assert seconds == sorted(seconds)
        assert seconds[-1] == pytest.approx(1.6, abs=1 / 75)


def test_the_recipe_survives_the_file_and_makes_the_piece_again(
    pipeline: Pipeline, tiny: Path, options: GenerationOptions, tmp_path: Path
) -> None:
    prompt = Prompt(text="calm piano", sections=parse_sections("intro:0-1,outro:1-1.6"))
    audio = pipeline.generate(prompt, options)
    audio.save(tmp_path / "x.flac")
    recipe = read_recipe(tmp_path / "x.flac")
    assert (recipe.task, recipe.prompt, recipe.device, recipe.audio_prompt) == ("generate", prompt, "cpu", None)
    assert (recipe.model, recipe.digest) == (str(tiny), pipeline.digest)
    again = Pipeline.load(recipe.model, recipe.device).generate(recipe.prompt, recipe.options)
    assert np.array_equal(again.wav, audio.wav)


def test_a_recipe_of_the_future_is_refused(pipeline: Pipeline, options: GenerationOptions, tmp_path: Path) -> None:
    audio = pipeline.generate("x", options.model_copy(update={"seconds": 0.2}))
    Audio(audio.wav, 48_000, {**(audio.recipe or {}), "version": "9.0", "magic": 1}).save(tmp_path / "x.wav")
    with pytest.raises(AudioError, match=r"its recipe, of longplay 9.0, is not understood \(.*unknown key 'magic'"):
        read_recipe(tmp_path / "x.wav")


def test_nothing_to_go_by_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        pipeline.stream("  ")


def test_a_missing_part_is_named_at_once(pipeline: Pipeline) -> None:
    from dataclasses import replace

    bare = Pipeline(replace(pipeline.system, flow=None), "bare")
    with pytest.raises(CheckpointError, match="model 'bare': has no flow, which this task needs"):
        bare.stream("x")
    assert bare.generate("x", GenerationOptions(seconds=0.2, fast=True)).sample_rate == 24_000


def test_a_piece_that_ends_at_once_is_an_error(
    pipeline: Pipeline, options: GenerationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longplay.pipeline.steps.generate", lambda *_: iter(()))
    with pytest.raises(AudioError, match="the model ended the piece before it began; try another seed"):
        pipeline.generate("x", options)


def test_nan_is_refused(pipeline: Pipeline, options: GenerationOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = pipeline.system.codec
    assert codec is not None
    bins = codec.decoder.config.n_fft // 2 + 1
    monkeypatch.setattr(codec, "decode_frames", lambda latents: torch.full((1, 3 * bins, latents.shape[-1]), torch.nan))
    with pytest.raises(AudioError, match="the model made NaN or infinite samples"):
        pipeline.generate("x", options)


def test_precisions(tiny: Path) -> None:
    half = Pipeline.load(tiny, "cpu", "bfloat16")
    audio = half.generate("x", GenerationOptions(seconds=0.2, seed=0, num_steps=1))
    assert audio.recipe is not None
    assert audio.recipe["precision"] == "bfloat16"
    with pytest.raises(UserError, match="precision 'int5': unknown; use one of auto, float32, bfloat16, float16, int8"):
        Pipeline.load(tiny, "cpu", "int5")


def test_a_flow_computes_in_bfloat16_where_it_is_fast_and_a_codec_of_derived_phases_does_not(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fast in (True, False):
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda fast=fast: fast)
        system = Pipeline.load(tiny, "cpu").system
        assert system.flow is not None
        assert system.codec is not None
        assert system.flow.estimator.final_proj.weight.dtype == (torch.bfloat16 if fast else torch.float32)
        assert system.codec.decoder.embed.weight.dtype == torch.float32
        assert system.codec.encoder.out.weight.dtype == torch.float32


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert resolve_device("auto").type == "mps"
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(UserError, match="device 'cuda': not available to torch on this machine; use cpu or auto"):
        resolve_device("cuda")
    with pytest.raises(UserError, match="device 'tpu': unknown; use one of auto, cpu, cuda, mps"):
        resolve_device("tpu")


@pytest.mark.parametrize(("through", "rate"), [("tokenizer", 24_000), ("codec", 48_000), ("both", 48_000)])
def test_reconstruction_keeps_duration_and_channels(pipeline: Pipeline, recording: Audio, through, rate: int) -> None:
    made = pipeline.reconstruct(recording, through)
    assert (made.sample_rate, made.wav.shape[0]) == (rate, recording.wav.shape[0])
    assert made.wav.shape[1] == round(recording.seconds * rate)


def test_progress_of_a_reconstruction_counts_all_channels(pipeline: Pipeline) -> None:
    told: list[float] = []
    pipeline.reconstruct(chord(7, 24_000, 2), "tokenizer", progress=lambda _, seconds: told.append(seconds))
    assert told == sorted(told)
    assert told[-1] == pytest.approx(14, abs=0.05)
    assert len(told) > 2


def test_each_channel_is_reconstructed_by_itself(pipeline: Pipeline) -> None:
    stereo = chord(2, 24_000, 2)
    made = pipeline.reconstruct(stereo, "tokenizer")
    alone = pipeline.reconstruct(Audio(stereo.wav[1:], 24_000), "tokenizer")
    assert np.array_equal(made.wav[1:], alone.wav)


def test_a_long_recording_is_reconstructed_in_windows_as_whole(pipeline: Pipeline) -> None:
    noise = np.random.default_rng(0).standard_normal((1, 45 * 24_000)).astype(np.float32) / 4
    tokenizer = pipeline.system.tokenizer
    assert tokenizer is not None
    with torch.inference_mode():
        whole = tokenizer.decode(tokenizer.encode(torch.from_numpy(noise)[None]))[0].numpy()
    made = pipeline.reconstruct(Audio(noise, 24_000), "tokenizer").wav
    assert made.shape == whole.shape
    assert np.linalg.norm(made - whole) < 0.01 * np.linalg.norm(whole)  # phases add up over 3,375 frames


def test_upscaling(pipeline: Pipeline) -> None:
    made = pipeline.upscale(chord(2, 16_000, 2))
    assert (made.sample_rate, made.wav.shape) == (48_000, (2, 96_000))
    with pytest.raises(PromptError, match="the audio has 44100 Hz already; upscale takes 24000 Hz or less"):
        pipeline.upscale(chord(2, 44_100))


@pytest.mark.usefixtures("quick_lm")
def test_minutes_of_music_come_in_chunks_of_seconds(pipeline: Pipeline) -> None:
    sizes = [chunk.shape[1] for chunk in pipeline.stream("x", GenerationOptions(seconds=100, seed=0, num_steps=1))]
    assert sum(sizes) == 100 * 48_000
    assert max(sizes) <= 5 * 48_000


def test_a_stream_of_the_real_lm_is_the_whole_piece(pipeline: Pipeline, options: GenerationOptions) -> None:
    chunks = list(pipeline.stream("x", options))
    assert np.array_equal(np.concatenate(chunks, axis=1), pipeline.generate("x", options).wav)


@pytest.mark.tiny_checkpoint
@pytest.mark.parametrize("fast", [False, True])
def test_a_published_checkpoint_does_every_task(golden_directory: Path, fast: bool) -> None:
    published = Pipeline.load(golden_directory / "tiny_checkpoint", device="cpu")
    options = GenerationOptions(seconds=1.2, seed=0, num_steps=1, fast=fast)
    assert published.generate("a song", options).seconds == pytest.approx(1.2, abs=0.02)
    recording = chord(2, 24_000)
    assert published.continue_(recording, "", options).seconds == pytest.approx(3.2, abs=0.02)
    for through in ("tokenizer",) if fast else ("codec", "both"):
        assert published.reconstruct(recording, through, options).seconds == pytest.approx(2)


def test_the_guard_against_loops_is_the_models_own_or_the_one_asked_for(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pipeline.system.lm is not None

    def settled(**given: Any) -> Any:
        return pipeline.stream("x", GenerationOptions(seconds=0.5, seed=0, **given)).recipe.options.max_repeat

    assert settled() is None
    changed = pipeline.system.lm.config.model_copy(update={"max_repeat": 0.4})
    monkeypatch.setattr(pipeline.system.lm, "config", changed)
    assert settled() == 0.4
    assert settled(max_repeat=1.0) == 1.0


def test_the_solver_is_the_models_own_or_the_published_one(pipeline: Pipeline) -> None:
    assert pipeline.system.flow is not None
    config = pipeline.system.flow.config

    def settled(**given: Any) -> tuple[Any, Any]:
        options = pipeline.stream("x", GenerationOptions(seconds=0.5, seed=0, **given)).recipe.options
        return options.solver, options.num_steps

    assert settled() == (config.solver, config.num_steps)
    assert settled(compatibility="reference") == ("euler", 10)
    assert settled(compatibility="reference", num_steps=3) == ("euler", 3)
    assert settled(compatibility="reference", solver="midpoint", num_steps=3) == ("midpoint", 3)


def test_overlapping_codes_are_reconstructed_without_seams(tmp_path: Path) -> None:
    data = tiny_config().dump()
    data["codec"]["quantizer"] |= {"overlap": 9, "sweeps": 2}
    save_native(tmp_path, SystemConfig.parse(data), tiny_weights(), tiny_text_tokenizer().to_json().encode())
    pipeline = Pipeline.load(tmp_path, device="cpu")
    recording = chord(4.0, 48_000)
    made = pipeline.reconstruct(recording, "codec")
    codec = pipeline.system.codec
    assert codec is not None
    with torch.inference_mode():
        latents = codec.embed(codec.encode(torch.from_numpy(recording.wav)[None]))
        whole = decode(codec, latents)[0, :, : made.wav.shape[1]].numpy()
    np.testing.assert_allclose(made.wav, whole, atol=1e-4)
