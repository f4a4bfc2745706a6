"""`checkpoint.pt`: all that a run needs to go on, whole tensors whatever the number of processes.

Weights that do not learn are in it where the run computed them; of others there are only sums, for every start has them
from where the first one had.

Every process reads it; only the first writes it, to a file beside it that then takes its place.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from longplay.errors import TrainingError
from longplay.files import replacing
from longplay.train.average import Average, part_of
from longplay.train.stage import Stage
from longplay.train.update import Updater

CHECKPOINT = "checkpoint.pt"


def save(stage: Stage, updater: Updater, average: Average, run: Path, step: int) -> None:
    """Write the state after `step` updates; every process calls it.

    Raises:
        TrainingError: it cannot be written; the last one, if there is any, is kept.
    """
    is_main = updater.parallel.is_main
    average.gather(stage.model)
    given = {} if stage.keeps_resting else _resting(stage.model)
    state = {
        "stage": stage.name,
        "step": step,
        "model": _whole(_without(given, stage.model), is_main),
        "resting": given,
        "others": {name: module.state_dict() for name, module in stage.others.items()},
        "optimizers": {name: _whole(optimizer.state_dict(), is_main) for name, optimizer in updater.optimizers.items()},
    }
    if average.model is None:
        return
    state |= {"average": _without(given, average.model), "average_count": average.count}
    try:
        with replacing(run / CHECKPOINT) as part:
            torch.save(state, part)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError on a full disk
        reason = error.strerror if isinstance(error, OSError) else "the disk is full or failing"
        raise TrainingError(f"{run / CHECKPOINT}: cannot be written ({reason}); {what_is_left(run)}") from None


def what_is_left(run: Path) -> str:
    """How to end the message of a run that stops."""
    return (
        f"the last checkpoint in {run} is intact" if (run / CHECKPOINT).exists() else f"{run} holds no checkpoint yet"
    )


def resume(stage: Stage, updater: Updater, average: Average, run: Path) -> int:
    """Load what is there; returns the number of updates done, 0 for a new run.

    Raises:
        TrainingError: the file is damaged, or of another stage or config.
    """
    state = _read(run / CHECKPOINT)
    if state is None:
        return 0
    name, step = state["stage"], int(state["step"])
    if name != stage.name:
        raise TrainingError(f"{run}: holds a run of stage {name!r}, not {stage.name!r}; give another directory")
    try:
        _check_resting(state["resting"], _resting(stage.model))
        rest = {name: p for name, p in stage.model.named_parameters() if not p.requires_grad}
        _load(stage.model, rest | state["model"])
        for key, module in stage.others.items():
            if key in state["others"]:  # a part that the config has since gained starts afresh
                module.load_state_dict(state["others"][key])
        average.load(rest | state["average"], state["average_count"], stage.model)
        for key, optimizer in updater.optimizers.items():
            if key in state["optimizers"]:
                _load_optimizer(optimizer, state["optimizers"][key])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise TrainingError(
            f"{run}: its checkpoint does not fit this config ({reason}); give another directory"
        ) from None
    return step


def holds_start(run: Path) -> bool:
    """Whether a checkpoint holds all that its run computed before the first step; older ones lack what does not learn.

    Raises:
        TrainingError: it is damaged.
    """
    state = _read(run / CHECKPOINT)
    return state is not None and not state["resting"]


def _read(path: Path) -> dict[str, Any] | None:
    """The state at `path`, on disk until it is used; None where there is none."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
        return {"resting": {}} | state | {"step": int(state["step"]), "stage": str(state["stage"])}
    except Exception as error:  # a damaged file fails in many ways
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"{path}: is no checkpoint ({reason}); delete it to start the run afresh") from None


def _without(names: Collection[str], model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if name not in names}


def _resting(model: nn.Module) -> dict[str, float]:
    """The sum of each weight that does not learn: enough to notice that it is another one."""
    return {name: p.sum(dtype=torch.float64).item() for name, p in model.named_parameters() if not p.requires_grad}


def _check_resting(before: Mapping[str, float], now: Mapping[str, float]) -> None:
    """Refuse other weights than those whose sums a checkpoint holds; sums differ a little with the number of threads.

    Raises:
        ValueError: naming the first one.
    """
    for name, value in before.items():
        if name not in now or not math.isclose(value, now[name], rel_tol=1e-6, abs_tol=1e-6):
            raise ValueError(f"the weights that it started from are others now, {name} for one")


def _whole(tree: Any, keep: bool) -> Any:
    """The tree with sharded tensors put together, where `keep`; every process calls it, in the same order."""
    if isinstance(tree, DTensor):
        whole = tree.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(tree, Mapping):
        return {key: _whole(value, keep) for key, value in tree.items()}
    return tree


def _load(model: nn.Module, state: dict[str, Tensor]) -> None:
    like = model.state_dict()
    shards = {key: part_of(value, like[key]) if _sharded(like.get(key)) else value for key, value in state.items()}
    model.load_state_dict(shards)


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over what it knows of each weight; weight decay, betas and so on are those of the config.

    Raises:
        ValueError: it is about other weights.
    """
    groups = optimizer.state_dict()["param_groups"]
    before, now = ([len(group["params"]) for group in each] for each in (state["param_groups"], groups))
    if before != now:
        raise ValueError(f"its optimizer has groups of {before} weights, not of {now}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {index: _parts(of, parameters[index]) for index, of in state["state"].items()}
    optimizer.load_state_dict({"state": parts, "param_groups": groups})


def _parts(state: dict[str, Any], like: Tensor) -> dict[str, Any]:
    if not isinstance(like, DTensor):
        return state
    return {key: part_of(value, like) if _fits(value, like) else value for key, value in state.items()}


def _fits(value: Any, like: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == like.shape


def _sharded(value: Any) -> bool:
    return isinstance(value, DTensor)
