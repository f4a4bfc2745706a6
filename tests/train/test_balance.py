"""Gradients of the terms of a loss in fixed shares, whatever their scale and however a batch is divided."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from longplay.errors import ConfigError
from longplay.train.balance import BalanceConfig, Balancer
from longplay.train.parallel import Parallel
from longplay.train.update import Updater

SHARES = {"loud": 1.0, "soft": 3.0}


def terms(estimate: Tensor) -> dict[str, Tensor]:
    """Two losses of very different size, with gradients at right angles."""
    half = estimate.shape[-1] // 2
    rows = {"loud": 1e4 * estimate[..., :half], "soft": 1e-3 * estimate[..., half:]}
    return {name: values.square().flatten(1).sum(1).mean() for name, values in rows.items()}


def gradient(balancer: Balancer, step: int, estimate: Tensor) -> Tensor:
    """Of each row's loss, [B, 1, S]."""
    leaf = estimate.clone().requires_grad_(True)
    balanced, _ = balancer(step, terms(leaf), leaf)
    balanced.backward()
    assert leaf.grad is not None
    return len(leaf) * leaf.grad


def test_each_term_has_its_share_of_the_norm() -> None:
    balancer = Balancer(BalanceConfig(shares=SHARES))
    rows = torch.randn(4, 1, 20, generator=torch.Generator().manual_seed(0))
    rows[..., 10:] /= rows[..., 10:].norm(dim=-1, keepdim=True)
    rows[..., :10] /= rows[..., :10].norm(dim=-1, keepdim=True)
    assert gradient(balancer, 0, rows).abs().max() == 0, "the first update measures"
    made = gradient(balancer, 1, rows)
    torch.testing.assert_close(made[..., :10].norm(dim=-1), torch.full((4, 1), 0.25))
    torch.testing.assert_close(made[..., 10:].norm(dim=-1), torch.full((4, 1), 0.75))


def test_a_term_that_begins_later_is_measured_first() -> None:
    balancer = Balancer(BalanceConfig(shares=SHARES))
    rows = torch.ones(2, 1, 20)

    def only(step: int, names: set[str]) -> Tensor:
        leaf = rows.clone().requires_grad_(True)
        balancer(step, {name: term for name, term in terms(leaf).items() if name in names}, leaf)[0].backward()
        assert leaf.grad is not None
        return 2 * leaf.grad

    only(0, {"loud"})
    assert only(1, {"loud"}).flatten(1).norm(dim=1).tolist() == pytest.approx([1.0, 1.0])
    begins = only(2, {"loud", "soft"})
    assert begins[..., 10:].abs().max() == 0
    assert begins[..., :10].flatten(1).norm(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert only(3, {"loud", "soft"})[..., 10:].flatten(1).norm(dim=1).tolist() == pytest.approx([0.75, 0.75])


def test_the_mean_moves_with_its_decay() -> None:
    balancer = Balancer(BalanceConfig(shares={"soft": 1.0}, decay=0.5))
    one = torch.ones(1, 1, 20)
    for step, scale in enumerate((1.0, 3.0)):
        gradient(balancer, step, scale * one)
    # norms 1 and 3 in the same unit: (0.5 * 1 + 3) / (0.5 + 1)
    norm = gradient(balancer, 2, one).norm()
    assert float(norm) == pytest.approx(1 / (3.5 / 1.5))


def test_parts_of_a_batch_are_balanced_as_the_whole() -> None:
    whole, parts = (Balancer(BalanceConfig(shares=SHARES, decay=0.7)) for _ in range(2))
    for step in range(4):
        rows = torch.randn(6, 1, 20, generator=torch.Generator().manual_seed(step))
        expected = gradient(whole, step, rows)
        made = torch.cat([gradient(parts, step, part) for part in rows.split(2)])
        torch.testing.assert_close(made, expected)


def test_accumulation_changes_nothing(audio_stage: Any) -> None:
    balance = {"shares": {"mel": 1, "magnitude": 1, "complex": 1}, "decay": 0.5}
    states = []
    for accumulate in (1, 2):
        stage = audio_stage(balance=balance, quantize_from_step=100, loop={"steps": 101})
        loop = stage.config.loop.model_copy(update={"precision": "float32", "accumulate": accumulate})
        updater = Updater(stage, loop, Parallel(loop, Path("unused")))
        for step in range(4):
            updater.update(step)
        states.append(stage.model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=2e-4, rtol=2e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_what_the_terms_weigh_changes_nothing_and_what_they_share_does(audio_stage: Any) -> None:
    shares = {"mel": 1, "magnitude": 1, "complex": 1}
    given = [
        {"loss": {"n_ffts": [64]}, "balance": {"shares": shares}},
        {"loss": {"n_ffts": [64], "mel": 1500.0}, "balance": {"shares": shares}},
        {"loss": {"n_ffts": [64]}, "balance": {"shares": shares | {"mel": 50}}},
    ]
    made = []
    for changes in given:
        stage = audio_stage(**changes)
        for step in (0, 1):
            stage.model.zero_grad()
            stage.losses(step, stage.batch(0, slice(None))).terms["model"].backward()
        made.append(torch.cat([p.grad.flatten() for p in stage.model.decoder.parameters()]))
    torch.testing.assert_close(made[1], made[0], atol=1e-5, rtol=1e-3)
    assert torch.nn.functional.cosine_similarity(made[2], made[0], dim=0) < 0.99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"balance": {"shares": {"mel": 1}}}, "names mel; the loss has mel, magnitude, complex: give a share to each"),
        ({"balance": {"shares": {"mel": 0}}}, "greater than 0"),
        ({"balance": {"shares": {"mel": 1}}, "spectrum": {}}, "leave out balance, or spectrum"),
    ],
)
def test_shares_that_fit_no_loss_are_refused(audio_stage: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        audio_stage(**changes)
