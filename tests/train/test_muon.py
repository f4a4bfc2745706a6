"""Muon against PyTorch's own, and what it does to a matrix."""

import pytest
import torch

from longplay.train.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_it_is_pytorchs_but_for_rounding(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    idle = torch.nn.Parameter(start.clone())  # no gradient reaches it
    optimizers = (
        Muon([ours, idle], lr=1e-2, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert (ours - theirs).norm() < 0.03 * (theirs - start).norm()
    assert torch.equal(idle, start)


def test_matrices_of_one_shape_do_not_meet() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 8, 20) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    together = orthogonal(matrices)
    torch.testing.assert_close(together, torch.cat([orthogonal(each[None]) for each in matrices]), atol=1e-3, rtol=1e-2)
    singular = torch.linalg.svdvals(together.float())
    assert singular.min() > 0.5
    assert singular.max() < 1.3
    assert not orthogonal(torch.zeros(1, 4, 4)).any()
