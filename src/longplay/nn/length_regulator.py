"""From the rate of the codes to the rate of the latents: interpolation over time, then convolutions.

CHECKPOINTS.md 3.4, "length regulator": features [B, T, D] at the rate of the codes -> condition [B, D', T'] at that of
the latents.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from longplay.nn.masking import MaskedGroupNorm, Padding, hide


class LengthRegulator(nn.Module):
    """Linear interpolation and `num_layers` smoothing convolutions."""

    def __init__(self, dim: int, dim_out: int, num_layers: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(num_layers):
            layers += [nn.Conv1d(dim, dim, 3, padding=1), MaskedGroupNorm(1, dim), nn.Mish()]
        self.model = nn.Sequential(*layers, nn.Conv1d(dim, dim_out, 1))

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        length: int,
        padding: Padding | None = None,
        padding_out: Padding | None = None,
    ) -> Float[Tensor, "B D2 T2"]:
        """Stretch to `length` frames.

        Args:
            x: features at the rate of the codes.
            length: number of frames that come out.
            padding: padding of `x`.
            padding_out: padding of the result; each row's real frames are stretched to its real frames. In
                reference mode the whole padded batch is stretched, and only the result is masked.

        Returns:
            the condition, zero on padded frames.
        """
        hidden = None if padding_out is None or padding_out.reference else padding_out
        x = x.transpose(1, 2)
        if hidden is None:
            x = stretch(x, length)
        else:
            lengths = [x.shape[2]] * len(x) if padding is None else padding.lengths.tolist()
            rows = zip(x, lengths, hidden.lengths.tolist(), strict=True)
            x = torch.cat([F.pad(stretch(row[None, :, :n], m), (0, length - m)) for row, n, m in rows])
        for layer in self.model:
            if isinstance(layer, nn.Conv1d):
                x = layer(hide(x, hidden))
            else:
                x = layer(x, hidden) if isinstance(layer, MaskedGroupNorm) else layer(x)
        return hide(x, padding_out)


def stretch(x: Float[Tensor, "B D T"], length: int) -> Float[Tensor, "B D T2"]:
    """Linear interpolation over time, to `length` frames."""
    return F.interpolate(x, size=length, mode="linear", align_corners=False)
