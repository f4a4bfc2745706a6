"""The optimizers of a run: AdamW (arXiv 1711.05101), and Muon (arXiv 2502.16982) for the matrices of the blocks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from longplay.errors import ConfigError
from longplay.train.loop_config import LoopConfig
from longplay.train.muon import Muon


def build_optimizers(
    module: nn.Module, blocks: Sequence[nn.Module], config: LoopConfig, learning_rate: float
) -> dict[str, torch.optim.Optimizer]:
    """By name: `adamw`, with weight decay on matrices only, and for `config.optimizer: muon` also `muon`.

    Muon takes the weights of linear layers inside `blocks`: what maps hidden states to hidden states. Embeddings, heads,
    convolutions, norms and biases stay with AdamW. Each optimizer's `defaults["lr"]` is its peak learning rate.

    Raises:
        ConfigError: Muon is asked for where there is nothing for it, or with sharded weights.
    """
    parameters: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
    hidden: list[Tensor] = []
    if config.optimizer == "muon":
        linears = (layer for block in blocks for layer in block.modules() if isinstance(layer, nn.Linear))
        hidden = list(dict.fromkeys(layer.weight for layer in linears if layer.weight.requires_grad))
        if not hidden:
            raise ConfigError("loop.optimizer = muon: this model's blocks hold no linear layer; use adamw")
        if any(isinstance(p, DTensor) for p in hidden):
            raise ConfigError("loop.optimizer = muon: needs whole matrices; set loop.shard=false, or use adamw")
    taken = set(hidden)
    rest = [p for p in parameters if p not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: dict[str, torch.optim.Optimizer] = {
        "adamw": torch.optim.AdamW(groups, lr=learning_rate, betas=config.betas, fused=True)
    }
    if hidden:
        optimizers["muon"] = Muon(hidden, config.muon_learning_rate or learning_rate, config.weight_decay)
    return optimizers
