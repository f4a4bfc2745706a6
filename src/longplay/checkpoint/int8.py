"""Linear layers in int8 in a weight file (`nn/quantized.py`): half the bytes of float16, and ready to compute with.

```
<name>          int8 [O, I], zero in the columns kept apart
<name>.scales   float32 [O]
<name>.apart    int64 [K], the input channels kept apart, where there are any
<name>.columns  float16 [O, K], their weights
```
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from longplay.errors import CheckpointError
from longplay.nn.quantized import Int8Weights

_SCALES, _APART, _COLUMNS = "scales", "apart", "columns"


def narrow(name: str, weights: Int8Weights) -> dict[str, Tensor]:
    """The tensors of a file that hold the weight `name`; its bias is a tensor of its own."""
    tensors = {name: weights.values, f"{name}.{_SCALES}": weights.scales}
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
    scales = tensors.get(f"{name}.{_SCALES}")
    apart = tensors.get(f"{name}.{_APART}", torch.zeros(0, dtype=torch.long))
    columns = tensors.get(f"{name}.{_COLUMNS}", torch.zeros(len(values), 0))
    fits = (
        scales is not None
        and values.shape[:-1] == scales.shape == columns.shape[:1]
        and columns.shape[1:] == apart.shape
        and apart.dtype == torch.long
        and bool(((apart >= 0) & (apart < values.shape[-1])).all())
    )
    if not fits or scales is None:
        raise CheckpointError(f"{source}: tensor {name} is in int8, but its scales do not fit it; download it again")
    return Int8Weights(values, scales.float(), None, apart, columns.float().t())
