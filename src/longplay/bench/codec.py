"""Seconds that the codec's and the tokenizer's decoders take per second of music, in windows and whole.

Windows take exactly the receptive field as context where it is finite; then the table's `difference` (the largest, of
samples in [-1, 1]), `relative_error` (root mean square of the difference over that of the wave) and `sound_db` (distance of
log spectra, see `bench/flow_studies.py`), all from the whole in float32, are rounding only, and it is the dtype that they
show. Where phases follow from magnitudes (`nn/istft.py`) waves soon differ altogether, and `sound_db` alone says how far.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from longplay.bench.arithmetic import count_flops
from longplay.bench.flow_studies import log_spectral_distance
from longplay.bench.limits import CPU, dtypes, machine, measure_limits
from longplay.bench.measure import in_turns, timed
from longplay.bench.models import open_system
from longplay.bench.report import BenchReport, Curve, Row
from longplay.engine import vocode
from longplay.engine.memory import PeakMemory
from longplay.errors import CheckpointError
from longplay.models.codec import Codec
from longplay.models.tokenizer import Tokenizer
from longplay.pipeline.synthesis import use_kernels

_KERNELS = ", own kernels"

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CodecBench:
    """What to measure.

    Attributes:
        model: see `open_system`.
        seconds: of music, of each piece.
        batch: pieces at once; costs are per second of the music of all.
        repeats: of every contender.
        device: where.
    """

    model: str
    seconds: float = 10.0
    repeats: int = 3
    device: torch.device = CPU
    batch: int = 1

    def run(self) -> BenchReport:
        """Measure; the contenders take turns.

        Raises:
            CheckpointError: no such model, or one with neither codec nor tokenizer.
        """
        system = open_system(self.model, self.device)
        limits = measure_limits(self.device)
        work: dict[str, tuple[Decode, Tensor]] = {}
        if system.codec is not None:
            latents = _latents(system.codec, self.seconds, self.batch).to(self.device)
            work["codec, whole, float32"] = (system.codec.decode, latents)
            for name, dtype in dtypes(self.device).items():
                codec = copy.deepcopy(system.codec).decode_in(dtype)
                work[f"codec, windows, {name}"] = (_windowed(codec), latents)
            if use_kernels(codec := copy.deepcopy(system.codec), self.device):
                work[f"codec, windows{_KERNELS}, float32"] = (_windowed(codec), latents)
        if system.tokenizer is not None:
            codes = _codes(system.tokenizer, self.seconds, self.batch).to(self.device)
            work["tokenizer, whole, float32"] = (system.tokenizer.decode, codes)
            work["tokenizer, windows, float32"] = (_windowed(system.tokenizer), codes)
        if not work:
            raise CheckpointError(f"model {self.model!r}: has neither codec nor tokenizer")
        with PeakMemory(self.device) as peak, torch.inference_mode():
            timings = in_turns({name: partial(decode, frames) for name, (decode, frames) in work.items()}, self.repeats)
        rows, music = [], self.seconds * self.batch
        for name, (decode, frames) in work.items():
            whole, _ = work[f"{name.partition(',')[0]}, whole, float32"]
            counted, _ = work[name.replace(_KERNELS, "")]  # which are counted as what they stand for
            flops = count_flops(partial(counted, frames)) / music
            cost = timings[name].median / music
            values = {
                "s_per_s": cost,
                "spread": timings[name].spread,
                "times_real_time": 1 / cost,
                "gflop_per_s_of_music": flops / 1e9,
                "of_gemm_rate": flops / limits.gemm[name.rpartition(" ")[2]] / cost,
            }
            rows.append(Row(name, values | _differences(decode, whole, frames)))
        curves = [self._curve(name, decode, frames) for name, (decode, frames) in work.items() if "float32" in name]
        setting = {"seconds": self.seconds, "batch": self.batch, **machine(self.device)}
        found = limits.values() | {"peak_memory_gb": peak.bytes / 1e9}
        return BenchReport("codec", self.model, setting, found, rows, curves)

    def _curve(self, name: str, decode: Decode, frames: Tensor) -> Curve:
        shares = (1 / 4, 1 / 2, 1)
        with torch.inference_mode():
            taken = [timed(partial(decode, frames[..., : max(1, round(share * frames.shape[-1]))])) for share in shares]
        return Curve(name, [share * self.seconds for share in shares], taken)


def _windowed(model: Codec | Tokenizer) -> Decode:
    return partial(vocode.decode, model)


@torch.inference_mode()
def _differences(decode: Decode, whole: Decode, frames: Tensor) -> dict[str, float]:
    made, exact = decode(frames).cpu(), whole(frames).cpu()
    off = made - exact
    return {
        "difference": off.abs().max().item(),
        "relative_error": (off.norm() / exact.norm()).item(),
        "sound_db": log_spectral_distance(made, exact),
    }


@torch.inference_mode()
def _latents(codec: Codec, seconds: float, batch: int) -> Tensor:
    config, generator = codec.config, torch.Generator().manual_seed(0)
    shape = (batch, config.num_codebooks, max(1, round(seconds * config.frame_rate)))
    return codec.embed(torch.randint(config.codebook_size, shape, generator=generator))


def _codes(tokenizer: Tokenizer, seconds: float, batch: int) -> Tensor:
    config, generator = tokenizer.config, torch.Generator().manual_seed(0)
    books = () if config.num_codebooks == 1 else (config.num_codebooks,)
    shape = (batch, *books, max(1, round(seconds * config.frame_rate)))
    return torch.randint(config.codebook_size, shape, generator=generator)
