"""The whole evaluation on the tiny model, with untrained judges."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from longplay.audio import Audio
from longplay.checkpoint.system import load_system
from longplay.data.manifest import Track, write_manifest
from longplay.data.musicnn import Listener, Musicnn
from longplay.errors import UserError
from longplay.evaluate.generation import BEATLESS
from longplay.evaluate.long_form import LongForm
from longplay.evaluate.model import Evaluation, evaluate_model, parse_parts
from longplay.evaluate.speed import speed_rows
from longplay.pipeline import Pipeline, Progress, Through
from longplay.pipeline.stream import silent
from longplay.prompt import GenerationOptions, Prompt
from systems import save_residual, tiny_system

RATE, SECONDS, NUM_TRACKS = 48000, 4.0, 16


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    tracks = []
    for index in range(NUM_TRACKS):
        t = np.arange(int(5 * RATE)) / RATE
        wav = 0.2 * np.sin(2 * np.pi * 110 * (index + 1) * t) + 0.01 * random.standard_normal(len(t))
        name = f"track-{index:02d}"
        Audio(wav[None].astype(np.float32), RATE).save(folder / f"{name}.wav")
        tracks.append(
            Track(
                id=name,
                path=f"{name}.wav",
                seconds=5,
                split="test",
                kind="real",
                title=name,
                source="test",
                licence="PD",
                codec_ok=True,
                captions=("tone", f"tone, {90 + index} bpm, A minor"),
            )
        )
    write_manifest(folder / "manifest.jsonl", tracks)
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(tiny_system(tmp_path_factory.mktemp("model") / "tiny"), "tiny")


class QuickJudge(Musicnn):
    """A linear stand-in for the convolutions, which take most of the time of these tests."""

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.cat([patches.mean(1), patches.std(1)], dim=1)
        embedding = mean @ torch.sin(torch.arange(192 * 200).float()).view(192, 200)
        return torch.sigmoid(embedding[:, :50]), embedding


class Hummer(Pipeline):
    """Stands in for the slow generation: a tone of its own for every seed, whatever the prompt."""

    def generate(
        self, prompt: Prompt | str, options: GenerationOptions | None = None, progress: Progress = silent
    ) -> Audio:
        assert options is not None
        assert options.seed is not None
        t = np.arange(int(options.seconds * RATE)) / RATE
        wav = 0.2 * np.sin(2 * np.pi * 130 * (options.seed + 1) * t)
        return Audio(wav[None].astype(np.float32), RATE)


def evaluation(pipeline: Pipeline, manifest: Path, out: Path, count: int) -> Evaluation:
    return Evaluation(pipeline, Listener(QuickJudge(), QuickJudge()), manifest, out, count, SECONDS)


@pytest.mark.parametrize("name", ["codec", "tokenizer"])
def test_reconstruction_stands_beside_opus_with_usage(
    pipeline: Pipeline, manifest: Path, tmp_path: Path, name: str
) -> None:
    (part,) = evaluation(pipeline, manifest, tmp_path, 2).run(name)

    assert [row.system for row in part.rows] == [name, "Opus 6 kb/s", "Opus 12 kb/s", "Opus 24 kb/s"]
    assert part.rows[0].values["mel"] > part.rows[3].values["mel"]
    assert 0 < part.facts["used"] <= 1


def test_each_of_several_codebooks_has_its_usage(manifest: Path, tmp_path: Path) -> None:
    several = Pipeline(load_system(save_residual(tmp_path / "model")), "residual")
    (part,) = evaluation(several, manifest, tmp_path, 2).run("tokenizer")
    books = [part.facts[f"used_book_{number}"] for number in (1, 2, 3)]
    assert part.facts["used"] == pytest.approx(np.mean(books))
    assert min(books) == pytest.approx(part.facts["used_least"])
    assert min(books) > 0


def test_flow_is_compared_with_the_tokenizers_own_decoder(pipeline: Pipeline, manifest: Path, tmp_path: Path) -> None:
    (part,) = evaluation(pipeline, manifest, tmp_path, 2).run("flow")

    systems = ["tokenizer, flow, codec", "tokenizer alone", "codec alone", "codec, unquantized"]
    assert [row.system for row in part.rows] == systems
    assert part.rows[2].values != part.rows[3].values


def test_generation_is_scored_beside_real_music_and_kept(pipeline: Pipeline, manifest: Path, tmp_path: Path) -> None:
    quality, artifacts, adherence = evaluation(Hummer(pipeline.system, "hummer"), manifest, tmp_path, 8).run(
        "generation"
    )

    values = {row.system: row.values for row in quality.rows}
    assert next(iter(values)) == "generated"
    assert values["real, other tracks"]["times_real"] == pytest.approx(1)
    assert values["white noise"]["times_real"] > 1
    assert [row.system for row in artifacts.rows] == ["generated", "generated, no beat", "real"]
    assert artifacts.rows[0].values.keys() == {"hum_db", "silent", "still"}
    assert len(list((tmp_path / "beatless").glob("*.flac"))) == len(BEATLESS)
    assert {row.system for row in adherence.rows} == {"generated", "chance", "real"}
    assert len(list((tmp_path / "generated").glob("*.flac"))) == 8


def test_continuations_are_heard_without_what_they_go_on_from(
    pipeline: Pipeline, manifest: Path, tmp_path: Path
) -> None:
    class Repeater(Hummer):
        def continue_(
            self,
            audio: Audio,
            prompt: Prompt | str = "",
            options: GenerationOptions | None = None,
            progress: Progress = silent,
        ) -> Audio:
            assert options is not None
            asked.append((audio.seconds, options.seconds, options.prompt_seconds))
            return audio.with_wav(np.concatenate([audio.wav, 0.5 * audio.wav], axis=1))

    asked: list[tuple[float, float | None, float]] = []
    run = Evaluation(
        Repeater(pipeline.system, "repeater"), Listener(QuickJudge(), QuickJudge()), manifest, tmp_path, 3, 2.4
    )
    (part,) = run.run("continuation")
    assert asked == [(2.4, 2.4, 2.4)] * 3
    assert [row.system for row in part.rows] == ["continued", "chance", "real"]
    assert part.rows[0].values["key"] == 1  # of the tones that were heard
    assert len(list((tmp_path / "continued").glob("*.flac"))) == 3


def test_options_hold_for_all_that_is_made_and_are_reported(pipeline: Pipeline, manifest: Path, tmp_path: Path) -> None:
    class Asked(Hummer):
        def generate(
            self, prompt: Prompt | str, options: GenerationOptions | None = None, progress: Progress = silent
        ) -> Audio:
            seen.append(options)
            return super().generate(prompt, options, progress)

        def reconstruct(
            self,
            audio: Audio,
            through: Through = "codec",
            options: GenerationOptions | None = None,
            progress: Progress = silent,
        ) -> Audio:
            seen.append(options)
            return audio

    seen: list[GenerationOptions | None] = []
    given = GenerationOptions(guidance=1.5, temperature=0.5, flow_guidance=0.2, num_steps=3)
    judge = Listener(QuickJudge(), QuickJudge())
    run = Evaluation(Asked(pipeline.system, "asked"), judge, manifest, tmp_path, 2, SECONDS, options=given)
    run.run("generation")
    run.run("flow")
    assert len(seen) == 2 + len(BEATLESS) + 3 * 2
    words = [{name: getattr(each, name) for name in given.model_fields_set} for each in seen]
    assert words == [{"guidance": 1.5, "temperature": 0.5, "flow_guidance": 0.2, "num_steps": 3}] * len(seen)
    seen.clear()
    (part,) = run.run("steps")
    counts = [int(row.system.split()[0]) for row in part.rows]
    assert [each.num_steps for each in seen if each] == [count for count in counts for _ in range(2)]
    assert "guidance 0.2" in part.about
    assert run.report([]).setting["temperature"] == 0.5


def test_every_stretch_of_long_pieces_is_scored(pipeline: Pipeline, manifest: Path, tmp_path: Path) -> None:
    judge = Listener(QuickJudge(), QuickJudge())
    hummer = Hummer(pipeline.system, "hummer")
    run = Evaluation(hummer, judge, manifest, tmp_path, 4, SECONDS, LongForm(pieces=2, seconds=12.0, stretch=4.0))
    (part,) = run.run("long")

    assert [row.system for row in part.rows] == ["from 0 s", "from 4 s", "from 8 s", "real"]
    assert part.facts["last_to_first"] == pytest.approx(1, rel=0.2), "a tone stays the tone that it was"
    assert len(list((tmp_path / "long").glob("*.flac"))) == 2
    longer = Evaluation(hummer, judge, manifest, tmp_path, 4, SECONDS, LongForm(stretch=60.0))
    with pytest.raises(UserError, match="no track of the test split lasts 60 s"):
        longer.run("long")


def test_speed_times_every_stage(pipeline: Pipeline) -> None:
    rows = speed_rows(pipeline, 1.0)

    stages = {"tokenizer encode", "tokenizer decode", "codec encode", "codec decode", "flow", "lm", "all, fast", "all"}
    assert {row.system for row in rows} == stages
    assert all(row.values["times_real_time"] > 0 for row in rows)


def test_what_a_model_lacks_is_missing(pipeline: Pipeline, manifest: Path, tmp_path: Path) -> None:
    partial = Pipeline(replace(pipeline.system, codec=None, lm=None), "partial")
    run = evaluation(partial, manifest, tmp_path, 2)

    reasons = [run.run(name)[0].missing for name in ("codec", "flow", "generation", "long")]
    assert reasons == ["the model has no codec"] * 2 + ["the model has no lm"] * 2
    assert {row.system for row in speed_rows(partial, 0.5)} == {"tokenizer encode", "tokenizer decode", "flow"}


def test_parts_are_read_in_order_and_unknown_ones_named() -> None:
    assert parse_parts("speed, codec") == ["codec", "speed"]
    with pytest.raises(UserError, match="vocoder"):
        parse_parts("codec,vocoder")


def test_clips_too_short_to_judge_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2 clips of 4 s"):
        evaluate_model("nano", tmp_path, tmp_path, clips=2, seconds=1)
    with pytest.raises(UserError, match="6 long pieces of 60 s: use at least 2 of 120 s"):
        evaluate_model("nano", tmp_path, tmp_path, long_form=LongForm(seconds=60))
