import subprocess
import sys

import pytest
import torch

from longplay.engine.memory import PeakMemory


def test_peak_memory_counts_what_the_block_held() -> None:
    cpu = torch.device("cpu")
    with PeakMemory(cpu) as small:
        pass
    with PeakMemory(cpu) as large:
        block = bytearray(b"x") * 200_000_000
        del block
    assert large.bytes - small.bytes > 150_000_000


def test_beside_a_gpu_work_on_the_cpu_is_counted_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: 7)
    with PeakMemory(torch.device("cpu")) as peak:
        pass
    assert peak.bytes > 1e6
    with PeakMemory(torch.device("cuda")) as peak:
        pass
    assert peak.bytes == 7


def test_it_can_be_imported_where_there_is_no_resource_module() -> None:
    code = "import sys; sys.modules['resource'] = None; import longplay.engine.memory"
    subprocess.run([sys.executable, "-c", code], check=True)
