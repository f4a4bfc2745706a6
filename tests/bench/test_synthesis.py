"""Flow, codec, pipeline benches and the flow's studies, over the tiny model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from longplay.bench.codec import CodecBench
from longplay.bench.flow import FlowBench, latent_error, open_flow
from longplay.bench.flow_studies import METHODS, WINDOWS, FlowStudy, log_spectral_distance
from longplay.bench.limits import CPU, dtypes
from longplay.bench.models import open_system
from longplay.bench.pipeline import PipelineBench, _in_sequence
from longplay.errors import CheckpointError, UserError
from longplay.nn import processor
from longplay.prompt import GenerationOptions
from systems import save_residual, save_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("models") / "tiny"))


def test_the_flow_in_windows_is_measured_beside_the_whole(tiny: str) -> None:
    report = FlowBench(tiny, seconds=4, repeats=1, num_steps=3, solver="midpoint", baseline_seconds=2).run()
    forms = list(dtypes(torch.device("cpu")))
    forms += [f"{forms[-1]} and int8"] if processor.can_compile() else []
    assert [row.name for row in report.rows] == [*(f"windows, {form}" for form in forms), "whole piece of 2 s, float32"]
    assert report.setting["evaluations"] == 6
    assert [list(curve.seconds) for curve in report.curves] == [[1, 2, 4]] * len(forms) + [[0.5, 1, 2]]
    whole = report.rows[-1].values["s_per_s"]
    assert report.rows[0].values["relative_error"] == 0
    assert "relative_error" not in report.rows[-1].values
    for row in report.rows[:-1]:
        assert row.values["times_baseline"] == pytest.approx(whole / row.values["s_per_s"])
    for row in report.rows:
        assert row.values["times_real_time"] == pytest.approx(1 / row.values["s_per_s"])
        assert row.values["gflop_per_s_of_music"] > 0


def test_what_the_precision_of_nano_s_flow_costs_stands_beside_its_speed() -> None:
    rows = FlowBench("nano", seconds=2, repeats=1, baseline_seconds=0).run().rows
    assert rows[0].values["relative_error"] == 0
    assert all(0 < row.values["relative_error"] < 0.03 for row in rows[1:])


def test_more_evaluations_are_more_arithmetic(tiny: str) -> None:
    one, two = (
        FlowBench(tiny, seconds=2, repeats=1, num_steps=steps, solver="euler", baseline_seconds=0).run().rows[0].values
        for steps in (5, 10)
    )
    assert two["gflop_per_s_of_music"] == pytest.approx(2 * one["gflop_per_s_of_music"], rel=0.1)


def test_decoders_in_windows_differ_from_the_whole_by_rounding(tiny: str) -> None:
    rows = {row.name: row.values for row in CodecBench(tiny, seconds=8, repeats=1).run().rows}
    assert rows["codec, whole, float32"]["difference"] == 0
    assert rows["codec, windows, float32"]["difference"] < 1e-5
    assert rows["codec, windows, float32"]["relative_error"] < 1e-5
    assert rows["codec, windows, float32"]["sound_db"] < 1e-3
    assert rows["tokenizer, windows, float32"]["difference"] < 1e-5
    assert ("codec, windows, bfloat16" in rows) == ("bfloat16" in dtypes(torch.device("cpu")))
    if "bfloat16" in dtypes(torch.device("cpu")):
        assert 1e-5 < rows["codec, windows, bfloat16"]["difference"] < 0.5
        assert 1e-4 < rows["codec, windows, bfloat16"]["relative_error"] < 0.2


def test_a_decoder_of_several_codebooks_is_measured_too(tmp_path: Path) -> None:
    rows = {row.name: row.values for row in CodecBench(str(save_residual(tmp_path / "m")), 8, repeats=1).run().rows}
    assert rows["tokenizer, windows, float32"]["difference"] < 1e-5


def test_the_pipeline_s_time_first_sound_and_memory(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PipelineBench, "_from_command", lambda self: 1.5)
    report = PipelineBench(tiny, (1, 2, 4), baseline_seconds=1, repeats=2).run()
    assert [row.name for row in report.rows] == [
        "1 s",
        "2 s",
        "4 s",
        "1 s, one stage after the other",
        "from the command on",
    ]
    for row in report.rows[:4]:
        assert 0 < row.values["first_sound_s"] <= row.values["s_per_s"] * 4
        assert row.values["peak_memory_gb"] > 0
        assert row.values["spread"] >= 0
    baseline = report.rows[3].values["s_per_s"]
    assert report.rows[2].values["times_baseline"] == pytest.approx(baseline / report.rows[2].values["s_per_s"])


@pytest.mark.slow
def test_the_first_sound_is_timed_from_the_command_on(tiny: str) -> None:
    assert PipelineBench(tiny, options=GenerationOptions(seed=0, fast=True))._from_command() > 0
    with pytest.raises(UserError, match="made no sound: error: "):
        PipelineBench("no-such-model")._from_command()


@pytest.mark.parametrize("study", ["solver", "windows", "precision"])
def test_studies_tell_differences(tiny: str, study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longplay.bench.flow_studies.REFERENCE_STEPS", 4)
    report = FlowStudy(tiny, study, seconds=2.0).run()  # type: ignore[arg-type]
    counts = {
        "solver": 5 * len(METHODS) + 2,  # two methods have steps of one evaluation
        "windows": 1 + len(WINDOWS),
        "precision": 2 * len(dtypes(torch.device("cpu"))) + processor.can_compile(),
    }
    assert len(report.rows) == counts[study]
    for row in report.rows:
        assert all(value >= 0 for value in row.values.values())


def test_the_reference_of_a_study_differs_from_itself_by_nothing(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longplay.bench.flow_studies.REFERENCE_STEPS", 10)
    rows = {row.name: row.values for row in FlowStudy(tiny, "solver", seconds=1.0).run().rows}
    assert rows["10 evaluations, euler"] == {"latents": 0, "sound_db": 0}
    assert rows["2 evaluations, euler"]["latents"] > rows["6 evaluations, euler"]["latents"] > 0


def test_latents_are_compared_as_the_flow_learnt_them(tiny: str) -> None:
    flow = open_flow(tiny, CPU)
    latents = torch.randn(1, flow.config.latent_dim, 50, generator=torch.Generator().manual_seed(0))
    assert latent_error(flow, latents, latents) == 0
    assert latent_error(flow, 1.5 * latents, latents) == pytest.approx(0.5)


def test_log_spectral_distance_of_a_louder_wave_is_its_gain() -> None:
    wav = torch.randn(1, 1, 48_000, generator=torch.Generator().manual_seed(0))
    assert log_spectral_distance(wav, wav) == 0
    assert log_spectral_distance(2 * wav, wav) == pytest.approx(6.02, abs=0.05)


def test_random_weights_have_no_quality_to_study() -> None:
    with pytest.raises(UserError, match="use a trained model"):
        FlowStudy("random:base", "solver").run()
    with pytest.raises(CheckpointError, match="unknown size; use random:base or random:1.5b"):
        open_system("random:7b", CPU)


def test_one_stage_after_the_other_starts_no_stage_before_it_is_timed() -> None:
    begun = []

    class Stages:
        def piece(self, prompt: object) -> int:
            begun.append("piece")
            return 3

        def generate(self, piece: int) -> Iterator[int]:
            for code in range(piece):
                begun.append(f"code {code}")
                yield code

        def decode(self, codes: Iterator[int], piece: int) -> Iterator[int]:
            for code in codes:
                begun.append(f"sound {code}")
                yield code

    sound = _in_sequence(Stages())  # type: ignore[arg-type]
    assert begun == []
    assert list(sound) == [0, 1, 2]  # type: ignore[comparison-overlap]
    assert begun == ["piece", "code 0", "code 1", "code 2", "sound 0", "sound 1", "sound 2"]


@pytest.mark.parametrize("bench", [FlowBench, CodecBench])
def test_the_work_per_second_of_music_does_not_change_with_the_batch(
    tiny: str, bench: type[FlowBench | CodecBench]
) -> None:
    more = {"baseline_seconds": 0} if bench is FlowBench else {}
    one, three = (bench(tiny, seconds=2, repeats=1, batch=batch, **more).run() for batch in (1, 3))
    assert (one.setting["batch"], three.setting["batch"]) == (1, 3)
    for alone, together in zip(one.rows, three.rows, strict=True):
        assert together.values["gflop_per_s_of_music"] == pytest.approx(alone.values["gflop_per_s_of_music"], rel=1e-2)
