"""A flow whose condition is a guess of the latents, and its noise."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longplay.errors import ConfigError
from longplay.models.flow_config import FlowConfig
from longplay.nn import ode
from tiny_flow import PRECONDITION, small_config, small_flow


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_a_preconditioned_estimator_that_says_nothing_adds_to_the_guess_what_it_leaves() -> None:
    flow = small_flow(**PRECONDITION)
    for parameter in flow.estimator.parameters():
        torch.nn.init.zeros_(parameter)
    mean, std = torch.linspace(-5, 5, 6), torch.tensor([0.02, 0.1, 0.5, 1.0, 3.0, 9.0])
    flow.set_latent_statistics(mean, torch.full((6,), 2.0))
    flow.latent_spread.copy_(std / 2)
    codes, x_0 = torch.randint(16, (2, 5)), torch.randn(2, 6, 10)
    with torch.no_grad():
        guess = 2 * flow.condition(codes) + mean[:, None]
        for steps, solver in ((1, "euler"), (2, "ab2"), (3, "midpoint"), (2, "heun")):
            latents = flow.sample(codes, x_0, num_steps=steps, solver=solver)
            torch.testing.assert_close((latents - guess) / std[:, None], x_0, rtol=0, atol=1e-4)


def test_the_equation_of_the_rest_leads_where_the_velocity_does() -> None:
    flow = small_flow(**PRECONDITION)
    torch.nn.init.normal_(flow.estimator.final_proj.weight, std=0.3)
    flow.latent_spread.copy_(torch.tensor([0.3, 0.5, 0.7, 1.0, 1.5, 2.0]))
    mu, x_0 = torch.randn(2, 6, 10), torch.randn(2, 6, 10)
    with torch.no_grad():
        fine = torch.linspace(0, 1, 401)
        followed = ode.solve(lambda x, t: flow.velocity(x, mu, t[None]), x_0, fine, "midpoint")
        made = {
            steps: flow.solve(mu, x_0, None, num_steps=steps, guidance=0.0, solver="midpoint") for steps in (4, 100)
        }
    torch.testing.assert_close(made[100], followed, rtol=0, atol=1e-2)
    assert (made[4] - followed).abs().max() > (made[100] - followed).abs().max()
    with pytest.raises(ValueError, match=r"guidance 0\.5: a flow with precondition"):
        flow.solve(mu, x_0, None, num_steps=1, guidance=0.5, solver="euler")


@torch.no_grad()
def test_straight_paths_of_a_preconditioned_flow_take_one_step() -> None:
    mu, x_0, x_1 = (torch.randn(2, 6, 10) for _ in range(3))
    ends = {}
    for straight in (True, False):
        flow = small_flow(**PRECONDITION, straight=straight)
        flow.latent_spread.copy_(torch.tensor([0.3, 0.5, 0.7, 1.0, 1.5, 2.0]))
        rest = (x_1 - mu) / flow.latent_spread[:, None]
        flow.estimator.forward = lambda *_, rest=rest: rest  # type: ignore[method-assign,misc]
        ends[straight] = flow.solve(mu, x_0, None, num_steps=1, guidance=0.0, solver="euler")
    close(ends[True], x_1)
    assert (ends[False] - x_1).abs().max() > 0.1


def test_noise_lasts_as_its_taps_say() -> None:
    flow = small_flow(**PRECONDITION, noise_reach=2)
    white = flow.white((3, 6, 50), torch.zeros(0), torch.Generator().manual_seed(0))
    assert white.shape == (3, 6, 54)
    assert torch.allclose(flow.noise(white), white[..., 2:-2], atol=1e-5), "before it is fitted"
    flow.noise_taps.copy_(torch.rand(6, 5))
    flow.noise_mix.copy_(torch.rand(6, 6))
    smoothed = flow.noise_mix @ F.conv1d(white, flow.noise_taps.flip(1)[:, None], groups=6)
    torch.testing.assert_close(flow.noise(white), smoothed, rtol=0, atol=1e-5)
    codes, wide = torch.randint(16, (1, 5)), torch.randn(1, 6, 14)
    with torch.no_grad():
        assert flow.sample(codes, wide).shape == (1, 6, 10)
        assert flow.sample(codes).shape == (1, 6, 10)
        assert flow.loss(codes, torch.randn(1, 6, 10)).isfinite()
    with pytest.raises(ConfigError, match="noise_reach = 2 follows what a guess leaves; set precondition"):
        FlowConfig.parse(small_config().dump() | {"noise_reach": 2})


@pytest.mark.parametrize("t", [0.0, 0.5, 0.99])
def test_a_preconditioned_estimator_sees_and_answers_for_numbers_of_deviation_one(t: float) -> None:
    flow = small_flow(**PRECONDITION)
    spread = torch.tensor([0.01, 0.1, 0.5, 1.0, 3.0, 9.0])
    flow.latent_spread.copy_(spread)
    seen: list[Tensor] = []
    flow.estimator.forward = lambda x, *_: seen.append(x) or torch.zeros_like(x)  # type: ignore[method-assign,func-returns-value]
    time, mu = torch.tensor([t]), 5 * torch.randn(1, 6, 20000)
    x_0, x_1 = torch.randn(1, 6, 20000), mu + torch.randn(1, 6, 20000) * spread[:, None]
    x_t = (1 - t) * x_0 + t * x_1
    left = x_1 - x_0 - flow.velocity(x_t, mu, time)
    torch.testing.assert_close(seen[0].std(-1), torch.ones(1, 6), rtol=0, atol=0.03)
    flow.estimator.forward = lambda x, *_: torch.ones_like(x)  # type: ignore[method-assign]
    asked = flow.velocity(x_t, mu, time) - (x_1 - x_0 - left)
    torch.testing.assert_close(left.std(-1), asked[..., 0], rtol=0.03, atol=1e-3)


def test_the_condition_of_a_preconditioned_flow_learns_to_guess() -> None:
    flow = small_flow(**PRECONDITION)
    codes, latents = torch.randint(16, (4, 5)), torch.randn(4, 6, 10)
    before = flow.condition(codes)
    flow.estimator.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in flow.parameters() if p.requires_grad], 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        flow.loss(codes, latents).backward()
        optimizer.step()
    guessed = flow.condition(codes)
    assert (guessed - latents).square().mean() < 0.6 * (before - latents).square().mean()


def test_a_preconditioned_padded_batch_is_its_rows() -> None:
    flow, codes, x_0 = small_flow(**PRECONDITION), torch.randint(16, (2, 5)), torch.randn(2, 6, 10)
    with torch.no_grad():
        both = flow.sample(codes, x_0, code_lengths=torch.tensor([5, 3]))
        close(both[1:, :, :6], flow.sample(codes[1:, :3], x_0[1:, :, :6]))
    assert not both[1, :, 6:].any()


def test_a_precondition_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="precondition needs the statistics of the latents; set normalize_latents"):
        FlowConfig.parse(small_config().dump() | {"precondition": True})
    with pytest.raises(ConfigError, match=r"condition_dropout 0.2, guidance 0\); set both to 0"):
        FlowConfig.parse(small_config().dump() | PRECONDITION | {"condition_dropout": 0.2})
