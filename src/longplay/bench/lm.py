"""Tokens per second of `lm`, guidance pair included, beside the memory bandwidth and an eager `transformers` loop.

Making one code reads every weight once, whatever the batch; so bytes of weights and cache over bandwidth is the least
time that a step can take, and the share of it that is reached says what is left to gain.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from longplay.bench.baseline import transformers_loop
from longplay.bench.limits import Limits, machine, measure_limits
from longplay.bench.measure import PeakMemory, Timing, step_in_turns
from longplay.bench.report import BenchReport, Curve, Row
from longplay.checkpoint.system import load_system
from longplay.engine.decode import Decoding
from longplay.engine.piece import Piece
from longplay.errors import CheckpointError
from longplay.models.lm import LM, LMConfig
from longplay.prompt import GenerationOptions

RANDOM = "random:"
TEXT_IDS = 24
_TEXT_ROWS = 1024  # of a random model's text embedding: no step reads it, and 136 M parameters take a while to draw


@dataclass(frozen=True)
class LMBench:
    """What to measure.

    Attributes:
        model: `random:base`, `random:1.5b`, `nano`, a directory or a name on a hub.
        seconds: of music.
        batch: pieces at once, two rows each.
        baseline_seconds: of music that the baseline makes; 0 leaves it out.
    """

    model: str
    seconds: float = 30.0
    batch: int = 1
    baseline_seconds: float = 5.0

    def run(self) -> BenchReport:
        """Measure; the contenders make their chunks in turns.

        Raises:
            CheckpointError: no such model, or one without an lm.
            UserError: `transformers` is not installed, but a baseline is asked for.
        """
        lm = open_lm(self.model)
        chunk = lm.config.code_rate  # a second of music
        frames = max(2, round(self.seconds)) * chunk
        pieces = [Piece(tuple(range(TEXT_IDS)), frames, seed, min_frames=frames) for seed in range(self.batch)]
        limits = measure_limits()
        ours = {"longplay float32": chunks(lm, pieces, chunk)}
        baselines: dict[str, Iterator[torch.Tensor]] = {}
        if self.baseline_seconds:
            count = max(2, round(self.baseline_seconds))
            for dtype in (torch.float32, torch.bfloat16):
                name = f"transformers {str(dtype).removeprefix('torch.')}"
                loop = transformers_loop(lm.config, 2 * self.batch, TEXT_IDS, chunk, dtype)
                baselines[name] = itertools.islice(loop, count)
        with PeakMemory() as peak:
            taken = step_in_turns(ours | baselines)
        rows = [self._row(name, seconds, chunk, lm, limits) for name, seconds in taken.items()]
        curves = [Curve(name, *_cumulative(taken[name])) for name in ours]
        setting = {"seconds": self.seconds, "batch": self.batch, **machine()}
        values = limits.values() | {"peak_memory_gb": peak.bytes / 1e9}
        return BenchReport("lm", self.model, setting, values, rows, curves)

    def _row(self, name: str, seconds: Sequence[float], chunk: int, lm: LM, limits: Limits) -> Row:
        timing = Timing(tuple(seconds[1:]))  # the first second reads the prefix and warms up
        rate = chunk / timing.median
        values = {
            "tokens_per_s": rate * self.batch,
            "spread": timing.spread,
            "times_real_time": rate * self.batch / lm.config.code_rate,
        }
        read = step_bytes(lm.config, 2 if "bfloat16" in name else 4, 2 * self.batch, chunk * len(seconds) / 2)
        values["gb_per_step"], values["of_bandwidth"] = read / 1e9, rate * read / limits.bandwidth
        return Row(name, values)


def open_lm(model: str) -> LM:
    """A model by name; `random:base` and `random:1.5b` have the published sizes and random weights.

    Raises:
        CheckpointError: no such model, or one without an lm.
    """
    if model.startswith(RANDOM):
        size = model.removeprefix(RANDOM)
        if size not in ("base", "1.5b"):
            raise CheckpointError(f"model {model!r}: unknown size {size!r}; use random:base or random:1.5b")
        config = LMConfig.published(size)  # type: ignore[arg-type]
        torch.manual_seed(0)
        return LM(config.model_copy(update={"text_vocab_size": _TEXT_ROWS})).eval()
    system = load_system(model)
    if system.lm is None:
        raise CheckpointError(f"model {model!r}: has no lm, only {', '.join(system.config.present)}")
    return system.lm


def chunks(lm: LM, pieces: Sequence[Piece], chunk: int) -> Iterator[torch.Tensor]:
    """The codes of `pieces`, with the default options, `chunk` at a time."""
    decoding = Decoding(lm, pieces, GenerationOptions())
    while not decoding.finished:
        yield decoding.chunk(chunk)


def step_bytes(config: LMConfig, width: int, rows: int, positions: float) -> float:
    """What one step reads at least: layers, audio head, cache.

    Args:
        config: sizes.
        width: bytes of a weight and of a cached value.
        rows: of the batch.
        positions: that each row holds.
    """
    kv = 2 * config.num_kv_heads * config.head_dim
    layer = config.dim * (2 * config.dim + kv) + 3 * config.dim * config.intermediate_dim
    weights = config.num_layers * layer + config.dim * (config.codebook_size + 1)
    return width * (weights + config.num_layers * rows * positions * kv)


def _cumulative(seconds: Sequence[float]) -> tuple[list[float], list[float]]:
    return list(range(1, len(seconds) + 1)), list(itertools.accumulate(seconds))
