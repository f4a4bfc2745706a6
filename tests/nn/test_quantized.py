import pytest
import torch
from torch import Tensor
from torch.backends import quantized as backend

from longplay.errors import UserError
from longplay.nn import quantized
from longplay.nn.linear import Dense, Weights
from longplay.nn.quantized import Int8, Int8Weights, Rounded

NONE = torch.zeros(0, dtype=torch.long)


def layer(outputs: int = 24, inputs: int = 64) -> Weights:
    generator = torch.Generator().manual_seed(0)
    return Weights(torch.randn(outputs, inputs, generator=generator) / 8, torch.randn(outputs, generator=generator))


def typical(inputs: int = 64) -> Tensor:
    return torch.randn(2, inputs, generator=torch.Generator().manual_seed(1))


def off_by(made: Tensor, exact: Tensor) -> float:
    return float((made - exact).norm() / exact.norm())


def test_plain_inputs_are_close() -> None:
    x, weights = typical(), layer()
    assert off_by(Int8(Int8Weights.of(weights, NONE))(x), Dense(weights)(x)) < 0.015


@pytest.mark.parametrize("size", [30.0, 300.0])
def test_large_channels_kept_apart_leave_the_others_their_digits(size: float) -> None:
    x, weights = typical(), layer()
    large = torch.tensor([3, 17, 40])
    x[:, large] *= size
    exact = Dense(weights)(x)
    others = Dense(Weights(weights.weight))(x.index_fill(1, large, 0.0))
    together = Int8(Int8Weights.of(weights, NONE))(x) - exact
    apart = Int8(Int8Weights.of(weights, large))(x) - exact
    assert together.norm() / others.norm() > 0.1
    assert apart.norm() / others.norm() < 0.015


@pytest.mark.parametrize("apart", [NONE, torch.tensor([3, 17])])
def test_rounded_is_what_eight_bits_compute(apart: Tensor) -> None:
    x, weights = typical() + 0.3, layer()
    split = Int8Weights.of(weights, apart)
    exact, rounded, kernel = Dense(weights)(x), Rounded(split)(x), Int8(split)(x)
    assert 0.001 < off_by(rounded, exact) < 0.012
    assert off_by(kernel, rounded) < (0.001 if torch.cpu._is_vnni_supported() else 0.02)  # 7 bits without
    assert torch.equal(Rounded(split)(torch.zeros(1, 64))[0], weights.bias)


def test_a_layer_is_what_its_parts_say() -> None:
    weights, apart = layer(), torch.tensor([1, 5])
    made = Int8Weights.of(weights, apart)
    assert made.values.dtype == torch.int8
    assert made.values[:, apart].abs().sum() == 0
    rebuilt = made.values * made.scales[:, None]
    rebuilt[:, apart] = made.columns.t()
    assert float((rebuilt - weights.weight).abs().max()) <= float(made.scales.max()) / 2 + 1e-6
    assert torch.equal(rebuilt[:, apart], weights.weight[:, apart])


def test_the_kernels_of_arm_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    if "qnnpack" not in backend.supported_engines:
        pytest.skip("this torch has no qnnpack")
    monkeypatch.setattr(quantized, "engine", lambda: "qnnpack")
    before = backend.engine
    x, weights = typical(), layer()
    assert off_by(Int8(Int8Weights.of(weights, torch.tensor([2])))(x), Dense(weights)(x)) < 0.02
    assert backend.engine == before


def test_a_machine_without_kernels_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        supported_engines = ("none",)

    monkeypatch.setattr(quantized, "quantized", Without)
    with pytest.raises(UserError, match="no int8 kernels"):
        quantized.engine()
