import sys

import pytest
import torch

from longplay.bench import lm as bench
from longplay.bench.baseline import transformers_loop
from longplay.bench.limits import CPU
from longplay.bench.lm import (
    ACCELERATED,
    FORMS,
    INT4_BYTES,
    LMBench,
    in_precision,
    open_lm,
    parse_precisions,
    step_bytes,
)
from longplay.bench.lm_quality import LMQuality
from longplay.engine.listening import listen
from longplay.engine.quantize import quantize
from longplay.errors import CheckpointError, UserError
from longplay.models.lm import LM
from longplay.models.lm_config import LMConfig
from longplay.nn import processor
from longplay.pipeline.quantized import Quantized
from tiny_lm import tiny_config, tiny_lm


def test_the_bench_compares_with_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm(codebook_size=400, code_rate=5)
    monkeypatch.setattr(
        bench,
        "open_lm",
        lambda model, precisions: (
            lm,
            {"int8": Quantized(quantize(lm, listen(lm, [(1, 2)], 8).inputs), {})},
        ),
    )
    report = LMBench("tiny", seconds=4, batch=2, baseline_seconds=2).run()
    names = [row.name for row in report.rows]
    assert names == ["float32", "bfloat16", "int8", "transformers float32", "transformers bfloat16"]
    lost = [row.values["weights_kl_nats"] for row in report.rows[:3]]
    assert lost[0] == 0 < lost[1] < lost[2] < 0.1
    assert "weights_kl_nats" not in report.rows[3].values
    for row in report.rows:
        assert row.values["tokens_per_s"] == pytest.approx(5 * row.values["times_real_time"])
    assert report.curves[0].seconds == [1, 2, 3, 4]
    assert list(report.curves[0].cost) == sorted(report.curves[0].cost)
    assert report.limits["read_gb_per_s"] > 0


def test_bytes_per_step_count_every_weight_but_the_embeddings() -> None:
    config = tiny_config()
    lm = LM(config)
    weights = sum(p.numel() for n, p in lm.named_parameters() if p.dim() == 2 and "embedding" not in n)
    assert step_bytes(config, 4, rows=2, positions=0, cache_width=4) == 4 * weights
    cache = lm.cache(2, 10).data
    assert step_bytes(config, 4, rows=2, positions=10, cache_width=4) - 4 * weights == 4 * cache.numel()


def test_int4_reads_half_of_what_int8_reads() -> None:
    config = LMConfig.published("base")
    eight, four = (step_bytes(config, 1, 2, 0, 2, body) for body in (None, INT4_BYTES))
    assert 0.53 < four / eight < 0.54


@pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")
def test_int4_competes_and_says_how_close_it_is() -> None:
    report = LMBench("nano", seconds=2, precisions=("int8-compiled", "int4"), baseline_seconds=0).run()
    eight, four = (row.values for row in report.rows)
    assert four["gb_per_step"] < 0.7 * eight["gb_per_step"]
    assert 0 < eight["weights_kl_nats"] < four["weights_kl_nats"] < 0.1
    assert 1 > eight["weights_top_350_shared"] > four["weights_top_350_shared"] > 0.85
    for row in (eight, four):
        assert row["cache_kl_nats"] < 0.001, "in bfloat16"


def test_a_cache_in_fewer_bits_loses_more() -> None:
    lm = tiny_lm(codebook_size=400, num_heads=2, num_kv_heads=1)
    form = in_precision(lm, "bfloat16", {}, CPU)
    quality = LMQuality(lm, form, range(5))
    lost = {dtype: quality.of(form, "bfloat16", dtype) for dtype in (torch.float32, torch.bfloat16, torch.int8)}
    assert "cache_kl_nats" not in lost[torch.float32]
    assert 0 < lost[torch.bfloat16]["cache_kl_nats"] < lost[torch.int8]["cache_kl_nats"]
    assert 1 > lost[torch.bfloat16]["cache_top_350_shared"] > lost[torch.int8]["cache_top_350_shared"]
    assert len({each["weights_kl_nats"] for each in lost.values()}) == 1, "whatever the cache"


def test_the_default_forms_are_those_that_a_device_computes() -> None:
    assert "float16" in FORMS
    assert "float16" not in parse_precisions(None)
    assert parse_precisions(None, torch.device("cuda")) == ACCELERATED
    with pytest.raises(UserError, match="int8: computes on the CPU only, not on cuda"):
        parse_precisions("bfloat16,int8", torch.device("cuda"))


def test_each_form_is_a_model_of_its_own() -> None:
    lm = tiny_lm()
    wide, narrow = (in_precision(lm, form, {}, CPU) for form in ("float32", "bfloat16"))
    assert lm.inference is None
    assert wide.inference is not narrow.inference
    assert wide.audio_head.weight is lm.audio_head.weight, "not copied"


def test_published_base_has_the_body_that_is_published() -> None:
    assert step_bytes(LMConfig.published("base"), 1, 2, 0, 4) == pytest.approx(361.5e6, rel=0.01)


def test_the_baseline_makes_codes() -> None:
    loop = transformers_loop(tiny_config(codebook_size=400), rows=4, prefix=3, chunk=6, dtype=torch.float32, device=CPU)
    chunk = next(loop)
    assert chunk.shape == (2, 6)
    assert ((chunk >= 0) & (chunk <= 400)).all()


def test_a_missing_baseline_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install transformers"):
        transformers_loop(tiny_config(), 2, 3, 6, torch.float32, CPU)


def test_an_unknown_random_size_is_refused() -> None:
    with pytest.raises(CheckpointError, match="random:base or random"):
        open_lm("random:7b")
