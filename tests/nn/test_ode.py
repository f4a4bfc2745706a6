import math

import pytest
import torch
from torch import Tensor

from longplay.nn.ode import Method, cosine_grid, cosine_time, evaluations, grid, solve


def test_euler_is_exact_on_a_straight_path() -> None:
    x_0, x_1 = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    reached = solve(lambda x, t: x_1 - x_0, x_0, cosine_grid(7))
    torch.testing.assert_close(reached, x_1)


def test_one_step_reaches_the_data_of_the_conditional_path() -> None:
    x_0, x_1 = torch.randn(4), torch.randn(4)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return (x_1 - x) / (1 - t)

    torch.testing.assert_close(solve(velocity, x_0, torch.tensor([0.0, 1.0])), x_1)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("ab2", 2)])
@pytest.mark.parametrize("warp", [lambda u: u, cosine_time], ids=["even", "cosine"])
def test_solvers_converge_at_their_order(method: Method, order: int, warp: object) -> None:
    """dx/dt = x cos(4t) has the closed form x(1) = x(0) exp(sin(4) / 4)."""
    assert callable(warp)
    x_0 = torch.tensor([1.0, -2.0], dtype=torch.float64)
    exact = x_0 * math.exp(math.sin(4) / 4)
    errors = []
    for num_steps in (128, 256):
        times = warp(torch.linspace(0, 1, num_steps + 1, dtype=torch.float64))
        errors.append((solve(lambda x, t: x * torch.cos(4 * t), x_0, times, method) - exact).abs().max())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "ab2"])
def test_solvers_evaluate_as_often_as_they_say(method: Method) -> None:
    times: list[float] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        times.append(t.item())
        return x

    solve(velocity, torch.zeros(1), cosine_grid(6), method)
    assert len(times) == evaluations(method, 6)
    assert times == sorted(times)
    assert times[0] == 0


def test_the_cosine_grid_goes_from_noise_to_data_in_growing_steps() -> None:
    times = cosine_grid(10)
    assert times[0] == 0
    assert times[-1].item() == pytest.approx(1)
    assert (times.diff().diff() > 0).all()


def test_euler_keeps_the_published_times_and_the_others_have_their_own() -> None:
    assert torch.equal(grid("euler", 10), cosine_grid(10))
    assert torch.equal(grid("midpoint", 4), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    times = grid("ab2", 4)
    assert (times[0], times[-1]) == (0, 1)
    assert (times.diff().diff() > 0).all()  # the first step, Euler's, is the shortest
