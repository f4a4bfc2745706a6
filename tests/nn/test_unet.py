import pytest
import torch

from longplay.nn.masking import Padding
from longplay.nn.unet import TimeEmbedding, UNet, UNetConfig


def unet(channels: tuple[int, ...]) -> UNet:
    torch.manual_seed(0)
    sizes = {"num_mid_blocks": 1, "num_heads": 2, "head_dim": 4}
    return UNet(4, UNetConfig(channels=channels, num_blocks=(1,) * len(channels), **sizes)).eval()


@pytest.mark.parametrize("channels", [(8,), (8, 16), (8, 16, 24)])
@pytest.mark.parametrize("length", [1, 7, 8, 13])
@torch.no_grad()
def test_any_depth_keeps_any_length(channels: tuple[int, ...], length: int) -> None:
    x = torch.randn(2, 4, length)
    velocity = unet(channels)(x, torch.zeros_like(x), torch.tensor([0.5]))
    assert velocity.shape == x.shape
    assert velocity.isfinite().all()


@pytest.mark.parametrize("length", [1, 6, 7, 10])
@torch.no_grad()
def test_padded_rows_equal_single_ones(length: int) -> None:
    estimator, t = unet((8, 16, 24)), torch.tensor([0.1, 0.9])
    x, mu = torch.randn(2, 4, 13), torch.randn(2, 4, 13)
    batch = estimator(x, mu, t, Padding.of(torch.tensor([13, length]), 13))
    single = estimator(x[1:, :, :length], mu[1:, :, :length], t[1:])
    torch.testing.assert_close(batch[1:, :, :length], single, rtol=0, atol=1e-5)
    assert not batch[1, :, length:].any()


@torch.no_grad()
def test_the_time_and_the_condition_are_heard() -> None:
    estimator, x, mu = unet((8, 16)), torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    base = estimator(x, mu, torch.tensor([0.2]))
    assert not torch.allclose(base, estimator(x, mu, torch.tensor([0.3])))
    assert not torch.allclose(base, estimator(x, -mu, torch.tensor([0.2])))


def test_time_zero_is_all_cosine() -> None:
    sinusoids = TimeEmbedding(8, 16).sinusoids(torch.zeros(1))
    assert sinusoids.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]
