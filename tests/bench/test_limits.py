from longplay.bench.limits import machine, measure_limits


def test_limits_are_those_of_a_machine() -> None:
    limits = measure_limits()
    assert 1e8 < limits.bandwidth < 1e13
    assert set(limits.gemm) == {"float32", "bfloat16"}
    assert all(1e8 < rate < 1e15 for rate in limits.gemm.values())
    assert limits.values()["read_gb_per_s"] == limits.bandwidth / 1e9


def test_the_machine_is_described() -> None:
    setting = machine()
    assert setting["threads"] == 1
    assert str(setting["device"]).startswith("cpu (")
