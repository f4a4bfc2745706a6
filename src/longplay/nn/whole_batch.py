"""What the processes of a training run know of one batch together; each computes an equal share of its rows.

In one process every function gives back what it is given.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def rows_of_all(rows: Tensor) -> Tensor:
    """Rows [N, ...] of every process, in order: [N * processes, ...], without a gradient."""
    if not _several():
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def mean_of_all(mean: Tensor) -> Tensor:
    """The mean over processes of a mean over this one's rows; where nothing learns, as in evaluation, this one's.

    Its gradient is that of this one's mean. Training averages the gradients of all processes, which makes of it the
    gradient of the whole mean, and of every function of whole means.
    """
    return mean + (fixed_mean_of_all(mean) - mean).detach() if _several() else mean


def fixed_mean_of_all(mean: Tensor) -> Tensor:
    """The same without a gradient: for what the result does not depend on to first order, as a variance on its centre."""
    if not (_several() and torch.is_grad_enabled()):  # the first process evaluates alone
        return mean
    whole = mean.detach().clone()
    dist.all_reduce(whole)
    return whole / dist.get_world_size()


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
