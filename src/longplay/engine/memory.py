"""How much memory a block of code needs."""

import sys
from pathlib import Path

import torch


class PeakMemory:
    """The most memory that a block needed, in bytes: `with PeakMemory() as peak: ...; peak.bytes`.

    On Linux it counts from the start of the block; elsewhere the process's peak so far is all that the system tells.

    Args:
        device: where the work is done: on a GPU, its memory is meant; else that of the process.
    """

    bytes: int

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> "PeakMemory":
        self.bytes = 0
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _reset_peak()
        return self

    def __exit__(self, *error: object) -> None:
        on_gpu = self._device.type == "cuda"
        self.bytes = torch.cuda.max_memory_allocated(self._device) if on_gpu else _peak()


def _reset_peak() -> None:
    clear = Path("/proc/self/clear_refs")
    try:
        clear.write_text("5")
    except OSError:
        return


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil  # Accelerate brings it

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
