"""Weight-normed convolutions over time, in the state layout of the published checkpoints.

Weight norm (arXiv 1602.07868) in the layout of the older torch: `weight_g` holds one length for each index of the
first weight axis, `weight_v` the direction, and the weight is g v / |v| with the norm over all other axes. For a
transposed convolution the first axis is the *input* channel (CHECKPOINTS.md 3.5). `fold_weight_norm` turns them into
plain convolutions for inference.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class WeightNormConv1d(nn.Module):
    """`nn.Conv1d` with weight norm and bias.

    Args:
        in_channels: D in.
        out_channels: D out.
        kernel_size: taps.
        stride: frames per output frame.
        padding: zeros at each end.
        dilation: distance of taps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation = stride, padding, dilation
        initial = nn.Conv1d(in_channels, out_channels, kernel_size)
        self.weight_g, self.weight_v = _decompose(initial.weight)
        self.bias = nn.Parameter(_bias(initial).detach())

    def forward(self, x: Float[Tensor, "B D T"]) -> Float[Tensor, "B E U"]:
        """Convolve [B, D in, T] to [B, D out, U]."""
        weight = _compose(self.weight_g, self.weight_v)
        return F.conv1d(x, weight, self.bias, self.stride, self.padding, self.dilation)

    def folded(self) -> nn.Conv1d:
        """The same convolution with a plain weight."""
        weight = _compose(self.weight_g, self.weight_v)
        out_channels, in_channels, kernel_size = weight.shape
        conv = nn.Conv1d(
            in_channels, out_channels, kernel_size, self.stride, self.padding, self.dilation, device="meta"
        )
        conv.weight, conv.bias = nn.Parameter(weight.detach()), self.bias
        return conv


class WeightNormConvTranspose1d(nn.Module):
    """`nn.ConvTranspose1d` with weight norm and bias; arguments as there."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        initial = nn.ConvTranspose1d(in_channels, out_channels, kernel_size)
        self.weight_g, self.weight_v = _decompose(initial.weight)
        self.bias = nn.Parameter(_bias(initial).detach())

    def forward(self, x: Float[Tensor, "B D T"]) -> Float[Tensor, "B E U"]:
        """Upsample [B, D in, T] to [B, D out, (T - 1) * stride - 2 * padding + kernel_size]."""
        weight = _compose(self.weight_g, self.weight_v)
        return F.conv_transpose1d(x, weight, self.bias, self.stride, self.padding)

    def folded(self) -> nn.ConvTranspose1d:
        """The same convolution with a plain weight."""
        weight = _compose(self.weight_g, self.weight_v)
        in_channels, out_channels, kernel_size = weight.shape
        conv = nn.ConvTranspose1d(in_channels, out_channels, kernel_size, self.stride, self.padding, device="meta")
        conv.weight, conv.bias = nn.Parameter(weight.detach()), self.bias
        return conv


class ReflectConv1d(nn.Module):
    """Weight-normed convolution with reflect padding so that T frames become ceil(T / stride) (CHECKPOINTS.md 3.6).

    The padding totals the kernel's extent minus the stride, the larger half on the left; the last, partial
    window is filled up on the right.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.stride = stride
        self.total_padding = (kernel_size - 1) * dilation + 1 - stride
        self.conv = WeightNormConv1d(in_channels, out_channels, kernel_size, stride, dilation=dilation)

    def forward(self, x: Float[Tensor, "B D T"]) -> Float[Tensor, "B E U"]:
        """Convolve [B, D in, T] to [B, D out, ceil(T / stride)]."""
        right = self.total_padding // 2
        left = self.total_padding - right
        return self.conv(pad_reflect(x, left, right + -x.shape[-1] % self.stride))


def pad_reflect(x: Float[Tensor, "B D T"], left: int, right: int) -> Float[Tensor, "B D U"]:
    """Mirror both ends; a signal too short to mirror is first lengthened with zeros on the right."""
    missing = max(0, max(left, right) + 1 - x.shape[-1])
    padded = F.pad(F.pad(x, (0, missing)), (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - missing]


def fold_weight_norm(module: nn.Module) -> None:
    """Replace every weight-normed convolution inside `module` by a plain one, in place.

    Call it once, after loading: inference no longer normalises weights on each call, and the state dict no longer
    has `weight_g` and `weight_v`, so the model can be neither trained further nor exported in the published layout.
    """
    for name, child in module.named_children():
        if isinstance(child, WeightNormConv1d | WeightNormConvTranspose1d):
            setattr(module, name, child.folded())
        else:
            fold_weight_norm(child)


def _compose(weight_g: Tensor, weight_v: Tensor) -> Tensor:
    return weight_g * weight_v / _lengths(weight_v)


def _decompose(weight: Tensor) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(_lengths(weight.detach())), nn.Parameter(weight.detach())


def _lengths(weight: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)


def _bias(conv: nn.Conv1d | nn.ConvTranspose1d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
