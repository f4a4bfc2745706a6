import pytest
import torch

from longplay.bench.limits import CPU, dtypes, machine, measure_limits


def test_limits_are_those_of_a_machine() -> None:
    limits = measure_limits(CPU)
    assert 1e8 < limits.bandwidth < 1e13
    assert set(limits.gemm) == set(dtypes(torch.device("cpu")))
    assert all(1e8 < rate < 1e15 for rate in limits.gemm.values())
    assert limits.values()["read_gb_per_s"] == limits.bandwidth / 1e9


@pytest.mark.parametrize("fast", [True, False])
def test_a_machine_without_instructions_for_bfloat16_is_spared_it(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: fast)
    assert list(dtypes(torch.device("cpu"))) == ["float32", "bfloat16"][: 1 + fast]
    assert list(dtypes(torch.device("cuda"))) == ["float32", "bfloat16", "float16"]


def test_the_machine_is_described() -> None:
    setting = machine(CPU)
    assert setting["threads"] == 1
    assert str(setting["device"]).startswith("cpu (")
