import pytest
import torch
from torch import nn
from torch.nn import functional as F

from longplay.nn import processor
from longplay.nn.compiled_convolution import LEAST_FRAMES, CompiledConvolution, fits

pytestmark = pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")
KEEPING = [(32, 48, 7, 3), (16, 1, 7, 1), (48, 32, 1, 1), (16, 20, 3, 5)]
MULTIPLYING = [(32, 16, 16, 8), (16, 32, 11, 5), (48, 16, 4, 2), (16, 16, 5, 5)]


def conv(sizes: tuple[int, int, int, int], transposed: bool) -> nn.Conv1d | nn.ConvTranspose1d:
    torch.manual_seed(0)
    inputs, outputs, taps, step = sizes
    if transposed:
        return nn.ConvTranspose1d(inputs, outputs, taps, step, (taps - step) // 2)
    return nn.Conv1d(inputs, outputs, taps, padding=step * (taps - 1) // 2, dilation=step)


@pytest.mark.parametrize("frames", [LEAST_FRAMES, 50, 5003])
@pytest.mark.parametrize(
    ("sizes", "transposed"), [(each, False) for each in KEEPING] + [(each, True) for each in MULTIPLYING]
)
def test_it_is_what_torch_computes(sizes: tuple[int, int, int, int], transposed: bool, frames: int) -> None:
    layer, generator = conv(sizes, transposed), torch.Generator().manual_seed(1)
    x = torch.randn(frames, sizes[0], generator=generator)
    with torch.inference_mode():
        exact = layer(F.leaky_relu(0.5 * x.t()[None], 0.1))[0].t()
        made = CompiledConvolution(layer, slope=0.1, scale=0.5)(x)
        torch.testing.assert_close(made, exact, rtol=1e-5, atol=2e-6)
        if sizes[1] % 16 == 0:
            one, other = (torch.randn(exact.shape, generator=generator) for _ in range(2))
            together = CompiledConvolution(layer)(x, one, other)
            torch.testing.assert_close(together, layer(x.t()[None])[0].t() + one + other, rtol=1e-5, atol=4e-6)


def test_bits_depend_neither_on_threads_nor_on_how_much_is_computed_at_once() -> None:
    layer = CompiledConvolution(conv((32, 32, 7, 3), False))
    x, before = torch.randn(9000, 32, generator=torch.Generator().manual_seed(2)), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone, part = layer(x), layer(x[1000:2000])
        torch.set_num_threads(3)
        assert torch.equal(alone, layer(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone[1009:1991], part[9:-9])  # but for the frames that see an end


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(16, 16, 3),  # loses frames
        nn.Conv1d(16, 16, 3, 2, 1),
        nn.Conv1d(12, 16, 3, padding=1),
        nn.Conv1d(16, 16, 3, padding=1, bias=False),
        nn.Conv1d(16, 16, 3, padding=1, groups=2),
        nn.Conv1d(16, 16, 3, padding="same"),
        nn.ConvTranspose1d(16, 16, 4, 2),
        nn.ConvTranspose1d(16, 8, 4, 2, 1),
    ],
)
def test_other_kinds_are_left_to_torch(layer: nn.Conv1d | nn.ConvTranspose1d) -> None:
    assert not fits(layer)
    assert fits(nn.Conv1d(16, 16, 3, padding=1))
    assert fits(nn.ConvTranspose1d(16, 16, 4, 2, 1))
