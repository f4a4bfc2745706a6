"""Exponential moving average of a model's parameters, kept by the first process, or in shards by all of them."""

import copy

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

_WARMUP = 10


class Average:
    """The averaged model: `model` on the first process, after `gather()` where the weights are sharded.

    Weights that do not learn are not averaged: both models share them.

    Args:
        model: what is averaged, before it is sharded.
        decay: of the average, reached by a short warmup.
        keep: whether this process keeps the average.
    """

    def __init__(self, model: nn.Module, decay: float, keep: bool) -> None:
        self.decay = decay
        self.count = 0
        self._names = list(learning(model))
        shared = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
        self.model = copy.deepcopy(model, shared).requires_grad_(False) if keep else None
        self._shards: list[Tensor] | None = None

    @torch.no_grad()
    def shard(self, model: nn.Module) -> None:
        """Average shards from now on; `model` is the sharded one."""
        self._shards = [_local(parameter).clone() for parameter in learning(model).values()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards `model`; buffers are copied."""
        self.count += 1
        if self.model is None and self._shards is None:
            return
        decay = min(self.decay, self.count / (self.count + _WARMUP))
        new = [_local(parameter) for parameter in learning(model).values()]
        if self._shards is not None:
            torch._foreach_lerp_(self._shards, new, 1 - decay)
            return
        assert self.model is not None
        own = self._own(self.model)
        torch._foreach_lerp_(own, new, 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)

    @torch.no_grad()
    def gather(self, model: nn.Module) -> None:
        """Put the shards of all processes together in the first one's `model`; every process calls it."""
        if self._shards is None:
            return
        own = [None] * len(self._shards) if self.model is None else self._own(self.model)
        for mine, shard, like in zip(own, self._shards, learning(model).values(), strict=True):
            assert isinstance(like, DTensor)
            whole = DTensor.from_local(
                shard, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
            ).full_tensor()
            if mine is not None:
                mine.copy_(whole)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor], count: int, model: nn.Module) -> None:
        """Go on from `model.state_dict()` of another average; `model` is the one in training, perhaps sharded."""
        self.count = count
        if self.model is not None:
            self.model.load_state_dict(state)
        if self._shards is not None:
            for shard, (name, like) in zip(self._shards, learning(model).items(), strict=True):
                assert isinstance(like, DTensor)
                shard.copy_(_local(part_of(state[name], like)))

    def _own(self, average: nn.Module) -> list[Tensor]:
        parameters = dict(average.named_parameters())
        return [parameters[name] for name in self._names]


def learning(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of `model` that learn, by name; the others are what they were when the run started."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def part_of(whole: Tensor, like: DTensor) -> DTensor:
    """`whole`, known to every process, sharded as `like`; nothing is sent."""
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
