"""The noise of a flow is measured on what its guess leaves."""

import torch
from torch import Tensor

from longplay.models.flow import Flow
from longplay.train.noise import fit_noise, is_white
from tiny_flow import PRECONDITION, small_flow


def flow() -> Flow:
    return small_flow(**PRECONDITION, latent_dim=2, noise_reach=40)


def lasting(white: Tensor, keep: float) -> Tensor:
    """What lasts: each frame keeps so much of the one before, and has deviation one [..., T]."""
    frames = [white[..., 0]]
    for frame in white.unbind(-1)[1:]:
        frames.append(keep * frames[-1] + (1 - keep**2) ** 0.5 * frame)
    return torch.stack(frames, -1)


def likeness(x: Tensor, lag: int) -> Tensor:
    """Correlation [D] of frames [B, D, T] so far apart."""
    return (x[..., lag:] * x[..., :-lag]).mean((0, 2)) / x.square().mean((0, 2))


def test_it_lasts_and_is_as_large_as_what_the_guess_leaves() -> None:
    torch.manual_seed(0)
    model = flow()
    torch.nn.init.normal_(model.estimator.final_proj.weight)
    assert is_white(model)

    def batches() -> list[tuple[Tensor, Tensor]]:
        made = []
        for _ in range(6):
            codes, white = torch.randint(16, (8, 200)), torch.randn(8, 2, 400)
            rest = torch.stack([0.3 * lasting(white[:, 0], 0.5), 2.0 * lasting(white[:, 1], 0.9)], 1)
            made.append((codes, model.condition(codes).detach() + rest))
        return made

    fit_noise(model, batches())
    assert not is_white(model)
    assert not model.estimator.final_proj.weight.any()
    torch.testing.assert_close(model.latent_spread, torch.tensor([0.3, 2.0]), rtol=0.1, atol=0)
    noise = model.noise(model.white((64, 2, 400), torch.zeros(0)))
    torch.testing.assert_close(noise.std((0, 2)), torch.ones(2), rtol=0.1, atol=0)
    for lag in (1, 5, 20):
        torch.testing.assert_close(likeness(noise, lag), torch.tensor([0.5**lag, 0.9**lag]), rtol=0, atol=0.1)


def test_channels_go_together_as_in_what_the_guess_leaves() -> None:
    torch.manual_seed(0)
    model, batches = flow(), []
    for _ in range(4):
        codes, white = torch.randint(16, (8, 200)), torch.randn(8, 2, 400)
        rest = torch.stack([white[:, 0], 0.6 * white[:, 0] - 0.8 * white[:, 1]], 1)
        batches.append((codes, model.condition(codes).detach() + torch.tensor([0.5, 3.0])[:, None] * rest))
    fit_noise(model, batches)
    noise = model.noise(model.white((64, 2, 400), torch.zeros(0))).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.corrcoef(noise), torch.tensor([[1.0, 0.6], [0.6, 1.0]]), rtol=0, atol=0.05)
    torch.testing.assert_close(noise.std(1), torch.ones(2), rtol=0.05, atol=0)
