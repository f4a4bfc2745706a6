"""What this machine can do at best, measured now: memory bandwidth, and arithmetic by dtype."""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from longplay import __version__
from longplay.bench.measure import in_turns
from longplay.nn.processor import has_bfloat16

CPU = torch.device("cpu")
_STREAM_BYTES = 256 * 2**20  # larger than any cache
_GEMM = 1024
_ACCELERATED = 8  # times as much, where less is over before it is measured: bytes, and the sides of a product


@dataclass(frozen=True)
class Limits:
    """Upper bounds for all that runs on the device with as many threads as torch now has.

    Attributes:
        bandwidth: bytes read per second, streaming.
        gemm: operations per second (a multiply and an add are two) of a large product, by dtype.
    """

    bandwidth: float
    gemm: Mapping[str, float]

    def values(self) -> dict[str, float]:
        """For a report, in GB/s and GFLOP/s."""
        rates = {f"gemm_{dtype}_gflops": rate / 1e9 for dtype, rate in self.gemm.items()}
        return {"read_gb_per_s": self.bandwidth / 1e9, **rates}


def measure_limits(place: torch.device) -> Limits:
    """Take a second or two to measure what a device can do."""
    times = 1 if place.type == "cpu" else _ACCELERATED
    size, side = times * _STREAM_BYTES, times * _GEMM
    stream = torch.ones(size // 4, device=place)
    # The fastest of several ways to read is the nearest to what the memory can do.
    reads: dict[str, Callable[[], object]] = {"sum": stream.sum, "dot": lambda: torch.dot(stream, stream)}
    if place.type == "cpu":
        reads["product"] = _reading_product(stream)
    work = reads | _products(place, side)
    with torch.inference_mode():
        timings = {name: min(timing.seconds) for name, timing in in_turns(work, repeats=5, warmup=1).items()}
    gemm = {name: 2 * side**3 / seconds for name, seconds in timings.items() if name not in reads}
    return Limits(size / min(timings[name] for name in reads), gemm)


def _reading_product(stream: torch.Tensor) -> Callable[[], object]:
    matrix, vector = stream.view(-1, 8192), torch.ones(8192)
    return lambda: torch.mv(matrix, vector)


def _products(device: torch.device, side: int) -> dict[str, Callable[[], object]]:
    factors = {name: torch.ones(side, side, dtype=dtype, device=device) for name, dtype in dtypes(device).items()}
    return {name: partial(torch.mm, factor, factor) for name, factor in factors.items()}


def dtypes(device: torch.device) -> dict[str, torch.dtype]:
    """What models may compute in: on a CPU bfloat16 only where it has instructions for it, else that takes minutes."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    count = 3 if device.type != "cpu" else 2 if has_bfloat16(device) else 1
    return dict(list(known.items())[:count])


def machine(place: torch.device) -> dict[str, str | int | float]:
    """What ran the bench, for a report; a load above the number of threads says that something else ran too."""
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else _processor()
    setting: dict[str, str | int | float] = {
        "device": f"{place.type} ({name})",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "longplay": __version__,
    }
    if hasattr(os, "getloadavg"):
        setting["load_before"] = round(os.getloadavg()[0], 2)
    return setting


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
