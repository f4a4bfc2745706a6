"""Every bench on a GPU, and that what is made there is what is made on the CPU."""

from collections.abc import Iterator

import pytest
import torch

from longplay import GenerationOptions, Pipeline
from longplay.bench.codec import CodecBench
from longplay.bench.flow import FlowBench
from longplay.bench.lm import LMBench, parse_precisions
from longplay.bench.pipeline import PipelineBench
from longplay.bench.report import BenchReport
from longplay.bench.serve import ServeBench

CUDA = torch.device("cuda")

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def reports() -> Iterator[BenchReport]:
    yield LMBench("nano", 2, precisions=parse_precisions(None, CUDA), baseline_seconds=2, device=CUDA).run()
    yield FlowBench("nano", 2, repeats=1, baseline_seconds=2, device=CUDA).run()
    yield CodecBench("nano", 2, repeats=1, device=CUDA).run()
    yield PipelineBench("nano", (4.0,), baseline_seconds=2, device=CUDA).run()
    yield ServeBench("nano", 2, pieces=4, slots=2, device=CUDA).run()


def test_every_stage_can_be_measured() -> None:
    for report in reports():
        assert str(report.setting["device"]).startswith("cuda ("), report.stage
        assert report.limits["read_gb_per_s"] > 100, report.stage
        assert all(value > 0 for row in report.rows for name, value in row.values.items() if name.endswith("real_time"))


def test_codes_in_float32_are_those_of_the_cpu() -> None:
    options = GenerationOptions(seconds=4, seed=3)
    there, here = (
        Pipeline.load("nano", device, "float32").takes("slow piano", [3], options, 1.0)[0].codes
        for device in ("cuda", "cpu")
    )
    assert there.tolist() == here.tolist()


def test_a_session_makes_the_codes_of_each_piece() -> None:
    pipeline = Pipeline.load("nano", "cuda", "float32")
    asked = [GenerationOptions(seconds=4 + seed, seed=seed) for seed in range(3)]
    with pipeline.session(slots=2, seconds=8.0) as session:
        streams = [pipeline.stream("slow piano", options, session=session) for options in asked]
        together = [stream.join(list(stream)).wav for stream in streams]
    for options, wav in zip(asked, together, strict=True):
        alone = pipeline.generate("slow piano", options).wav
        assert wav.shape == alone.shape
        assert abs(wav - alone).max() < 0.01
