"""Linear layers side by side as one: fewer and larger products, which is what decoding one position at a time needs."""

import torch
from torch import nn


def stack_linears(*layers: nn.Linear) -> nn.Linear:
    """One layer whose output is the outputs of `layers`, concatenated; all have the same input and all or none a bias."""
    first = layers[0]
    size = sum(layer.out_features for layer in layers)
    stacked = nn.Linear(first.in_features, size, bias=first.bias is not None, device="meta")
    weight = torch.cat([layer.weight.detach() for layer in layers])
    stacked.weight = nn.Parameter(weight, requires_grad=first.weight.requires_grad)
    if first.bias is not None:
        bias = torch.cat([layer.bias.detach() for layer in layers])
        stacked.bias = nn.Parameter(bias, requires_grad=first.bias.requires_grad)
    return stacked
