"""Padded batches: which frames are real, and a group norm that looks at nothing else.

Two ways of treating padding are known. The exact one hides padded frames from attention and from
normalisation, so that a row gives the same result alone and in a batch. The reference one is what the
published flow model was trained with (CHECKPOINTS.md 3.4, "mask quirk"): its attention adds 1 to the scores of
real frames instead of hiding the others, and its group norms count padded frames.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn


@dataclass(frozen=True)
class Padding:
    """The real frames of a padded batch. `None` in its place means that every frame is real.

    Attributes:
        frames: 1 on real frames, 0 on padding.
        reference: treat padding as the published model does, see the module's docstring.
    """

    frames: Float[Tensor, "B 1 T"]
    reference: bool = False

    @classmethod
    def of(cls, lengths: Int[Tensor, " B"], length: int, reference: bool = False) -> "Padding":
        """The padding of a batch of `length` frames, of which row b has `lengths[b]` real ones."""
        positions = torch.arange(length, device=lengths.device)
        return cls((positions < lengths[:, None])[:, None].float(), reference)

    @property
    def lengths(self) -> Int[Tensor, " B"]:
        """The number of real frames of each row."""
        return self.frames.sum(dim=(1, 2)).long()

    def attention_mask(self, dtype: torch.dtype) -> Shaped[Tensor, "B 1 Q T"]:
        """What `scaled_dot_product_attention` takes as `attn_mask`.

        The exact mask is one row for all queries (Q = 1), also for those on padded frames, whose result nothing
        reads. The reference one adds 1 between real frames: there, padded queries matter, since their result
        is a key of the next block.
        """
        keys = self.frames[:, None]
        return (keys * keys.mT).to(dtype) if self.reference else keys.bool()

    def halved(self) -> "Padding":
        """The padding after a convolution of stride 2."""
        return Padding(self.frames[:, :, ::2], self.reference)


def hide(x: Float[Tensor, "B C T"], padding: Padding | None) -> Float[Tensor, "B C T"]:
    """`x` with zeros on padded frames, as a convolution at the end of a single row would see them."""
    return x if padding is None else x * padding.frames


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm whose statistics leave out padded frames (all frames in reference mode)."""

    def forward(self, x: Float[Tensor, "B C T"], padding: Padding | None = None) -> Float[Tensor, "B C T"]:
        """Normalise over the channels of a group and the real frames.

        Returns:
            normalised features; what stands on padded frames means nothing.
        """
        if padding is None or padding.reference:
            # torch's functional form refuses a single frame of a single row, which is a fair end of a window
            return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        grouped = x.float().reshape(x.shape[0], self.num_groups, -1, x.shape[2])  # [B, G, C/G, T]
        real = padding.frames[:, None]  # [B, 1, 1, T]
        count = real.sum(dim=-1, keepdim=True) * grouped.shape[2]
        mean = (grouped * real).sum(dim=(2, 3), keepdim=True) / count
        centred = grouped - mean
        variance = (centred.square() * real).sum(dim=(2, 3), keepdim=True) / count
        normal = (centred * torch.rsqrt(variance + self.eps)).flatten(1, 2)
        return normal * self.weight[:, None] + self.bias[:, None]
