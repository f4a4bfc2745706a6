"""How many operations a piece of work takes: products and convolutions, which is nearly all of it."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def count_flops(run: Callable[[], object]) -> float:
    """Floating-point operations of `run`, which is run once; a multiply and an add are two."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run()
    return counter.get_total_flops()
