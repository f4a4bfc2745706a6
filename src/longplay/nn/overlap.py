"""Overlapping codes: what the codes of a frame say is spread over its neighbours, and all codes are found together.

Latents of a spectrum change more slowly than its frames come: a window of 64 ms every 6.7 ms. Quantized one by one, a
frame repeats most of what the one before has said. Spread by a smooth window, neighbours share each moment, and say
together what none of them could alone: at the same bit rate the error of nano's latents falls to a quarter
(docs/experiments.md, 2026-11-30). It is a decoder's fixed filter and an encoder's search, so decoding codes
takes one more convolution, and no state.

Source: the search is iterated conditional modes, as additive quantizers are searched (Babenko and Lempitsky, CVPR 2014);
codes whose errors their neighbours mend are the idea of noise shaping. Its use on a codec's frames is ours.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class Chosen(NamedTuple):
    """`codes` [B, K, T] and the `vectors` [B, D, T] that they stand for, not spread."""

    codes: Int[Tensor, "B K T"]
    vectors: Float[Tensor, "B D T"]


class Overlap(nn.Module):
    """A raised cosine over `frames` frames, an odd number, of sum 1."""

    window: Tensor

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames
        window = torch.hann_window(frames + 2, periodic=False)[1:-1]
        self.register_buffer("window", window / window.sum(), persistent=False)
        self.power = float(self.window.square().sum())

    def spread(self, vectors: Float[Tensor, "B D T"]) -> Float[Tensor, "B D T"]:
        """Each frame's vector over its neighbours; beyond both ends there is nothing."""
        with torch.autocast(vectors.device.type, enabled=False):  # bfloat16 would be coarser than what the search gains
            rows = vectors.flatten(0, 1).unsqueeze(1)
            spread = F.conv1d(rows, self.window.to(vectors.dtype).view(1, 1, -1), padding=self.frames // 2)
            return spread.view_as(vectors)

    def correction(self, error: Float[Tensor, "B D T"]) -> Float[Tensor, "B D T"]:
        """What each vector alone, the others as they are, had to change by to leave the least of an error of the latents."""
        return self.spread(error) / self.power  # the window is symmetric: its transpose is itself

    def search(self, latents: Float[Tensor, "B D T"], nearest: Callable[[Tensor], Chosen], sweeps: int) -> Chosen:
        """Codes whose spread vectors come close to the latents.

        From each frame's own nearest on, `sweeps` times, each frame takes what is nearest now that its neighbours have
        chosen. Frames that are `frames` apart share nothing and choose at once.

        Args:
            latents: [B, D, T].
            nearest: chooses codes for vectors of any number of frames, each by itself.
            sweeps: how often.
        """
        codes, vectors = nearest(latents)
        window, half, length = self.window.to(latents.dtype), self.frames // 2, latents.shape[-1]
        # what is around frame t, t - half to t + half, is at t to t + frames - 1
        error = F.pad(latents - self.spread(vectors), (half, self.frames))
        for _ in range(sweeps):
            for phase in range(min(self.frames, length)):
                own = vectors[..., phase :: self.frames]
                around = error[..., phase : phase + own.shape[-1] * self.frames].unflatten(-1, (-1, self.frames))
                wanted = own + (around * window).sum(-1) / self.power
                codes[..., phase :: self.frames], chosen = nearest(wanted)
                around -= (chosen - own).unsqueeze(-1) * window
                error[..., :half], error[..., half + length :] = 0.0, 0.0  # there is nothing to be near to
                own.copy_(chosen)
        return Chosen(codes, vectors)

    def reach(self, sweeps: int) -> int:
        """Frames on each side that a frame's codes can depend on, a multiple of `frames`.

        A choice looks `frames` - 1 frames far, and there are `frames` choices in a sweep, one after the other. The
        search finds the same in a stretch that begins at a multiple of `frames`.
        """
        return sweeps * self.frames * self.frames
