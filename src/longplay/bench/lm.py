"""Tokens per second of `lm`, guidance pair included, beside the memory bandwidth and an eager `transformers` loop.

Making one code reads every weight once, whatever the batch; so bytes of weights and cache over bandwidth is the least
time that a step can take, and the share of it that is reached says what is left to gain. What each form loses by its
precision stands beside its speed (`bench/lm_quality.py`).
"""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from longplay.bench.baseline import transformers_loop
from longplay.bench.limits import CPU, Limits, machine, measure_limits
from longplay.bench.lm_quality import LMQuality
from longplay.bench.measure import Timing, step_in_turns
from longplay.bench.report import BenchReport, Curve, Row
from longplay.checkpoint.system import load_system
from longplay.engine.decode import Decoding
from longplay.engine.listening import listen
from longplay.engine.memory import PeakMemory
from longplay.engine.piece import Piece
from longplay.engine.quantize import quantize, quantize_to_int4
from longplay.errors import CheckpointError, UserError
from longplay.models.lm import LM
from longplay.models.lm_config import LMConfig
from longplay.nn import compiled, processor
from longplay.nn.decoder import Decoder
from longplay.nn.linear import Dense
from longplay.nn.quantized import input_bits
from longplay.pipeline.precision import COMPILED, QUANTIZED, Precision, kind_of, load_dtype
from longplay.pipeline.quantized import Kind, Quantized, load_quantized, quantize_lm
from longplay.prompt import Cache, GenerationOptions

FORMS: tuple[Precision, ...] = ("float32", "bfloat16", "float16", "int8", "int8-compiled", "int4")
"""The slower ones first."""
ACCELERATED: tuple[Precision, ...] = ("float32", "bfloat16")
RANDOM = "random:"
TEXT_IDS = 24
INT4_BYTES = 4 / 8 + 1 / 32
"""Of a weight, with its share of a scale."""
_RANDOM_FRAMES = 16
_TEXT_ROWS = 1024  # of a random model's text embedding: no step reads it, and 136 M parameters take a while to draw


@dataclass(frozen=True)
class LMBench:
    """What to measure.

    Attributes:
        model: `random:base`, `random:1.5b`, `nano`, a directory or a name on a hub.
        seconds: of music.
        batch: pieces at once, two rows each.
        precisions: forms of the model that compete.
        baseline_seconds: of music that the baseline makes; 0 leaves it out.
        cache: as of `GenerationOptions`.
        device: where.
    """

    model: str
    seconds: float = 30.0
    batch: int = 1
    precisions: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
    baseline_seconds: float = 5.0
    cache: Cache | None = None
    device: torch.device = CPU

    def run(self) -> BenchReport:
        """Measure; the contenders make their chunks in turns.

        Raises:
            CheckpointError: no such model, or one without an lm.
            UserError: `transformers` is not installed, but a baseline is asked for; or no int8 on this machine.
        """
        limits = measure_limits(self.device)
        lm, quantized = open_lm(self.model, self.precisions)
        chunk = round(lm.config.code_rate)  # a second of music
        forms: dict[str, LM] = {name: in_precision(lm, name, quantized, self.device) for name in self.precisions}
        ours = {name: chunks(form, self._pieces(chunk), chunk, self.cache) for name, form in forms.items()}
        baselines = dict(self._baselines(lm.config, chunk))
        with PeakMemory(self.device) as peak:
            taken = step_in_turns(ours | baselines)
        rows = [self._row(name, taken[name], lm.config, limits) for name in taken]
        quality = LMQuality(lm, forms[max(self.precisions, key=FORMS.index)], range(TEXT_IDS))
        lost = {name: quality.of(form, name, self._cache_dtype(name)) for name, form in forms.items()}
        against = [row.values["tokens_per_s"] for row in rows if row.name in baselines]
        rows = [_compared(row, against, lost.get(row.name, {})) for row in rows]
        curves = [Curve(name, *_cumulative(taken[name])) for name in ours]
        setting = {"seconds": self.seconds, "batch": self.batch, "cache": str(self.cache), **machine(self.device)}
        if "int8" in self.precisions:  # quality is that of 8 bits
            setting["int8_input_bits"] = input_bits()
        values = limits.values() | {"peak_memory_gb": peak.bytes / 1e9}
        return BenchReport("lm", self.model, setting, values, rows, curves)

    def _pieces(self, chunk: int) -> list[Piece]:
        frames = max(2, round(self.seconds)) * chunk
        return [Piece(tuple(range(TEXT_IDS)), frames, seed, min_frames=frames) for seed in range(self.batch)]

    def _baselines(self, config: LMConfig, chunk: int) -> Iterator[tuple[str, Iterator[torch.Tensor]]]:
        if not self.baseline_seconds:
            return
        dtypes = [torch.float32] * ("float32" in self.precisions) + [torch.bfloat16] * (self.precisions != ("float32",))
        for dtype in dtypes:
            loop = transformers_loop(config, 2 * self.batch, TEXT_IDS, chunk, dtype, self.device)
            name = f"transformers {str(dtype).removeprefix('torch.')}"
            yield name, itertools.islice(loop, max(2, round(self.baseline_seconds)))

    def _row(self, name: str, seconds: Sequence[float], config: LMConfig, limits: Limits) -> Row:
        timing = Timing(tuple(seconds[1:]))  # the first second reads the prefix and warms up
        rate = config.code_rate / timing.median
        width = 1 if name in QUANTIZED else 4 if name.endswith("float32") else 2
        body = INT4_BYTES if name == "int4" else width
        read = step_bytes(
            config, width, 2 * self.batch, config.code_rate * len(seconds) / 2, self._cache_dtype(name).itemsize, body
        )
        values = {
            "tokens_per_s": rate * self.batch,
            "spread": timing.spread,
            "times_real_time": rate * self.batch / config.code_rate,
            "gb_per_step": read / 1e9,
            "of_bandwidth": rate * read / limits.bandwidth,
        }
        return Row(name, values)

    def _cache_dtype(self, name: str) -> torch.dtype:
        """Of keys and values of a contender."""
        if name.startswith("transformers"):
            return torch.float32 if name.endswith("float32") else torch.bfloat16
        if self.cache is not None:
            return getattr(torch, self.cache)
        if self.device.type != "cpu":
            return getattr(torch, name)
        return compiled.CACHE_DTYPE if name in COMPILED else torch.float32


def parse_precisions(text: str | None, device: torch.device = CPU) -> tuple[Precision, ...]:
    """Read `float32,int8`; None is all that this machine can compute on a device.

    Raises:
        UserError: an unknown one, none, or one that this machine cannot compute there.
    """
    if text is None and device.type != "cpu":
        return ACCELERATED
    if text is None:
        return tuple(name for name in FORMS if name != "float16" and (processor.can_compile() or name not in COMPILED))
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in FORMS]
    if unknown:
        raise UserError(f"precision {unknown[0]!r}: unknown; use some of {','.join(FORMS)}")
    for name in names:
        load_dtype(name, device)
        if name in COMPILED:
            compiled.require(name)
    return cast(tuple[Precision, ...], names)


def _compared(row: Row, baselines: Sequence[float], lost: Mapping[str, float]) -> Row:
    """The row with its speed against the fastest baseline, and what it loses in quality."""
    values = {**row.values, **lost}
    if baselines:
        values["times_baseline"] = values["tokens_per_s"] / max(baselines)
    return Row(row.name, values)


def in_precision(lm: LM, precision: Precision, quantized: Mapping[Kind, Quantized], device: torch.device) -> LM:
    """A copy of the lm that computes in one precision: on the CPU its projections do, elsewhere all of it."""
    form = copy.copy(lm) if device.type == "cpu" else copy.deepcopy(lm).to(device, getattr(torch, precision))
    form.inference = decoder(lm, precision, quantized) if device.type == "cpu" else form.decoder()
    return form


def decoder(lm: LM, precision: Precision, quantized: Mapping[Kind, Quantized]) -> Decoder:
    """The lm in one precision; its form is in `quantized` if it has one."""
    if precision in QUANTIZED:
        return quantized[kind_of(precision)].decoder(lm, precision in COMPILED)
    return lm.decoder({name: Dense(weights, getattr(torch, precision)) for name, weights in lm.linears()})


def open_lm(model: str, precisions: Sequence[Precision] = ()) -> tuple[LM, dict[Kind, Quantized]]:
    """A model by name, and the forms that `precisions` need, which are made where there are none.

    `random:base` and `random:1.5b` have the published sizes and random weights; their quality means little.

    Raises:
        CheckpointError: no such model, or one without an lm.
    """
    kinds = sorted({kind_of(precision) for precision in precisions if precision in QUANTIZED}, reverse=True)
    if model.startswith(RANDOM):
        size = model.removeprefix(RANDOM)
        if size not in ("base", "1.5b"):
            raise CheckpointError(f"model {model!r}: unknown size {size!r}; use random:base or random:1.5b")
        config = LMConfig.published(size)  # type: ignore[arg-type]
        torch.manual_seed(0)
        lm = LM(config.model_copy(update={"text_vocab_size": _TEXT_ROWS})).eval()
        return lm, _random_forms(lm, kinds)
    system = load_system(model)
    if system.lm is None:
        raise CheckpointError(f"model {model!r}: has no lm, only {', '.join(system.config.present)}")
    lm, text_tokenizer = system.lm, system.text_tokenizer
    return lm, {kind: load_quantized(system, kind) or quantize_lm(lm, text_tokenizer, kind) for kind in kinds}


def _random_forms(lm: LM, kinds: Sequence[Kind]) -> dict[Kind, Quantized]:
    if not kinds:
        return {}
    wide = quantize(lm, listen(lm, [range(TEXT_IDS)], _RANDOM_FRAMES).inputs)
    made: dict[Kind, Quantized] = {"int8": Quantized(wide, {})}
    if "int4" in kinds:
        made["int4"] = Quantized(quantize_to_int4(lm, None, wide), {})
    return made


def chunks(lm: LM, pieces: Sequence[Piece], chunk: int, cache: Cache | None) -> Iterator[torch.Tensor]:
    """The codes of `pieces`, with the default options, `chunk` at a time, by the form that `lm.inference` now has."""
    decoding = Decoding(lm, pieces, GenerationOptions(cache=cache))
    return _chunks(decoding, chunk)


def _chunks(decoding: Decoding, chunk: int) -> Iterator[torch.Tensor]:
    while not decoding.finished:
        yield decoding.chunk(chunk)


def step_bytes(
    config: LMConfig, width: float, rows: int, positions: float, cache_width: int, body: float | None = None
) -> float:
    """What one step reads at least: layers, audio head, cache.

    Args:
        config: sizes.
        width: bytes of a weight.
        rows: of the batch.
        positions: that each row holds.
        cache_width: bytes of a cached value.
        body: bytes of a weight of the layers, if they are others.
    """
    kv = 2 * config.num_kv_heads * config.head_dim
    layer = config.dim * (2 * config.dim + kv) + 3 * config.dim * config.intermediate_dim
    weights = (width if body is None else body) * config.num_layers * layer + width * config.dim * (
        config.codebook_size + 1
    )
    return weights + cache_width * config.num_layers * rows * positions * kv


def _cumulative(seconds: Sequence[float]) -> tuple[list[float], list[float]]:
    return list(range(1, len(seconds) + 1)), list(itertools.accumulate(seconds))
