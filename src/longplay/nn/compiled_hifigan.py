"""The generator of HiFi-GAN (`nn/hifigan.py`) by compiled convolutions (`nn/compiled_convolution.py`), in float32.

Activations are part of the convolution that follows, sums of that before.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from longplay.nn.compiled_convolution import LEAST_FRAMES, CompiledConvolution


class CompiledGenerator:
    """What a generator computes.

    Args:
        pre: first convolution.
        stages: of each, the transposed convolution, and of its residual blocks the convolutions between two sums.
        post: last convolution.
        slope: of the leaky ReLUs.

    All convolutions fit (`nn.compiled_convolution.fits`).

    Raises:
        LongplayError: the kernels cannot be compiled.
    """

    def __init__(
        self,
        pre: nn.Conv1d,
        stages: Sequence[tuple[nn.ConvTranspose1d, Sequence[Sequence[Sequence[nn.Conv1d]]]]],
        post: nn.Conv1d,
        slope: float,
    ) -> None:
        self._pre, scale = CompiledConvolution(pre), 1.0
        self._stages = []
        for up, blocks in stages:
            compiled = [[[CompiledConvolution(conv, slope) for conv in pair] for pair in block] for block in blocks]
            self._stages.append((CompiledConvolution(up, slope, scale), compiled))
            scale = 1.0 / len(blocks)  # the next convolution gets the sum of the blocks, and makes the mean of it
        self._post = CompiledConvolution(post, slope, scale)

    def takes(self, frames: int) -> bool:
        """Whether there are enough frames for the kernels' blocks."""
        return frames >= LEAST_FRAMES

    def __call__(self, latents: Float[Tensor, "B D T"]) -> Float[Tensor, "B 1 S"]:
        """Decode, one after the other."""
        return torch.stack([self._decode(each) for each in latents.float()])

    def _decode(self, latents: Float[Tensor, "D T"]) -> Float[Tensor, "1 S"]:
        x = self._pre(latents.t().contiguous())
        for up, blocks in self._stages:
            x, total = up(x), None
            for block in blocks:
                so_far = x
                for number, (*first, last) in enumerate(block, 1):
                    made = so_far
                    for conv in first:
                        made = conv(made)
                    so_far = last(made, so_far, total if number == len(block) else None)
                total = so_far
            assert total is not None
            x = total
        return self._post(x).tanh_().t()
