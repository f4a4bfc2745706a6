"""Linear layers in int8 and int4 in a weight file (`nn/quantized.py`, `nn/int4.py`): ready to compute with.

```
<name>          int8 [O, I], zero in the columns kept apart; or uint8 [O, I / 2], nibbles
<name>.groups   uint8 [O, I / 32], in int4
<name>.scales   float32 [O]
<name>.apart    int64 [K], the input channels kept apart, where there are any
<name>.columns  float16 [O, K], their weights
```

In int4 I is the next multiple of 64. Whole models are released in int8; int4 is only kept beside one.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from longplay.errors import CheckpointError
from longplay.nn.int4 import BLOCK, GROUP, Int4Weights
from longplay.nn.quantized import Int8Weights, RoundedWeights

_SCALES, _APART, _COLUMNS, _GROUPS = "scales", "apart", "columns", "groups"


def narrow(name: str, weights: RoundedWeights) -> dict[str, Tensor]:
    """The tensors of a file that hold the weight `name`; its bias is a tensor of its own."""
    if isinstance(weights, Int4Weights):
        tensors = {name: weights.nibbles, f"{name}.{_GROUPS}": weights.groups}
    else:
        assert isinstance(weights, Int8Weights)
        tensors = {name: weights.values}
    tensors[f"{name}.{_SCALES}"] = weights.scales
    if len(weights.apart):
        tensors |= {f"{name}.{_APART}": weights.apart, f"{name}.{_COLUMNS}": weights.columns.t().half()}
    return tensors


def widen(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """What the tensors of a file stand for: those in int8 in float16, the others as they are.

    Raises:
        CheckpointError: a tensor in int8 lacks its scales, or they do not fit it.
    """
    return {
        name: read_int8(tensors, name, source).dequantize().half() if tensor.dtype == torch.int8 else tensor
        for name, tensor in tensors.items()
        if not is_part(name, tensors)
    }


def is_part(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensor `name` only says what another one, in int8, stands for."""
    whole, _, part = name.rpartition(".")
    return part in (_SCALES, _APART, _COLUMNS) and whole in tensors and tensors[whole].dtype == torch.int8


def read_int8(tensors: Mapping[str, Tensor], name: str, source: str) -> Int8Weights:
    """The weight `name`, which is in int8; without a bias.

    Raises:
        CheckpointError: its scales or the columns kept apart are missing or do not fit it.
    """
    values = tensors[name]
    return Int8Weights(*_around(tensors, name, values.shape[-1], source), values)


def read_int4(tensors: Mapping[str, Tensor], name: str, inputs: int, source: str) -> Int4Weights:
    """The weight `name` of so many inputs, which is in int4; without a bias.

    Raises:
        CheckpointError: it is of another size, or its scales or the columns kept apart are missing or do not fit it.
    """
    nibbles, groups = tensors[name], tensors.get(f"{name}.{_GROUPS}")
    blocks = -(-inputs // BLOCK)
    fits = groups is not None and nibbles.dtype == groups.dtype == torch.uint8
    if (
        not fits
        or groups is None
        or nibbles.shape[1:] != (BLOCK // 2 * blocks,)
        or groups.shape != (len(nibbles), BLOCK // GROUP * blocks)
    ):
        raise _misfit(source, name, "int4")
    return Int4Weights(*_around(tensors, name, inputs, source), nibbles, groups, inputs)


def _around(
    tensors: Mapping[str, Tensor], name: str, inputs: int, source: str
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Scales, no bias, channels kept apart and their columns."""
    scales = tensors.get(f"{name}.{_SCALES}")
    apart = tensors.get(f"{name}.{_APART}", torch.zeros(0, dtype=torch.long))
    columns = tensors.get(f"{name}.{_COLUMNS}", torch.zeros(len(tensors[name]), 0))
    fits = (
        scales is not None
        and tensors[name].shape[:-1] == scales.shape == columns.shape[:1]
        and columns.shape[1:] == apart.shape
        and apart.dtype == torch.long
        and bool(((apart >= 0) & (apart < inputs)).all())
    )
    if not fits or scales is None:
        raise _misfit(source, name, "int8" if tensors[name].dtype == torch.int8 else "int4")
    return scales.float(), None, apart, columns.float().t()


def _misfit(source: str, name: str, form: str) -> CheckpointError:
    return CheckpointError(f"{source}: tensor {name} is in {form}, but its scales do not fit it; download it again")
