"""Convolutions over time in float32 as compiled functions (`nn/kernels/convolution.py`), for few channels and many frames.

What torch has for them on x86 reaches half of what the processor can multiply where channels are few, and a generator of
waveforms has few. Frames times channels, [T, C], is the order here. Needs an x86 processor with AVX2.
"""

import threading

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from longplay.nn.team import Block, Team, available

_LANES = 16
LEAST_FRAMES = 12
"""That a call takes: a block of the kernels."""
_ROOM, _LEAST_TILE = 1 << 16, 96  # numbers of a tile, and frames
_team, _alone = Team(), threading.Lock()


def fits(conv: nn.Conv1d | nn.ConvTranspose1d) -> bool:
    """Whether it is of a kind that the kernel computes: with a bias and whole blocks of channels, keeping or multiplying the frames."""
    (size,), (stride,), (dilation,), padding = conv.kernel_size, conv.stride, conv.dilation, conv.padding[0]
    if conv.bias is None or conv.groups != 1 or conv.in_channels % _LANES or not isinstance(padding, int):
        return False
    if isinstance(conv, nn.ConvTranspose1d):
        return size - 2 * padding == stride and dilation == 1 and conv.out_channels % _LANES == 0
    return stride == 1 and 2 * padding == dilation * (size - 1)


class CompiledConvolution:
    """A convolution of stride 1 that keeps the number of frames, or a transposed one that multiplies it by its stride.

    Args:
        conv: that `fits`.
        slope: of the leaky ReLU that its input passes first; 1: none.
        scale: that its input is multiplied with.

    Raises:
        LongplayError: the kernel cannot be compiled.
    """

    def __init__(self, conv: nn.Conv1d | nn.ConvTranspose1d, slope: float = 1.0, scale: float = 1.0) -> None:
        from longplay.nn.native import get_ready

        assert conv.bias is not None
        (self._stride,), (dilation,), padding = conv.stride, conv.dilation, int(conv.padding[0])
        weight, bias = scale * conv.weight.detach().float(), conv.bias.detach().float()
        if isinstance(conv, nn.ConvTranspose1d):
            taps, starts = _phases(weight, self._stride, padding)
            bias = bias.repeat(self._stride)
        else:
            taps = weight.permute(0, 2, 1)  # [O, K, I]
            starts = torch.full((len(taps),), -padding)
        self.outputs = len(taps)
        missing = -self.outputs % _LANES
        taps, bias = F.pad(taps, (0, 0, 0, 0, 0, missing)), F.pad(bias, (0, missing))
        blocks = taps.view(-1, _LANES, *taps.shape[1:])
        self._weights = blocks.permute(0, 2, 3, 1).contiguous().flatten().numpy()
        self._starts, self._bias = starts[::_LANES].contiguous().numpy(), bias.numpy()
        self._taps, self._dilation, self._channels = taps.shape[1], dilation, taps.shape[2]
        self._slope, self._nothing = np.array([slope], np.float32), np.zeros((1, len(taps)), np.float32)
        get_ready(("convolution",))

    def __call__(
        self,
        x: Float[Tensor, "T I"],
        one: Float[Tensor, "U O"] | None = None,
        other: Float[Tensor, "U O"] | None = None,
    ) -> Float[Tensor, "U O"]:
        """Convolve, and add `one` and `other`."""
        from longplay.nn.native import kernel

        frames, width = len(x), self._nothing.shape[1]
        made = np.empty((frames, width), np.float32)
        reach = int(self._starts.max() - self._starts.min()) + (self._taps - 1) * self._dilation
        tile = min(max(_ROOM // self._channels, _LEAST_TILE), frames)
        threads = available()
        added = [
            self._nothing if each is None else each.reshape(made.shape).contiguous().numpy() for each in (one, other)
        ]
        with _alone:
            block = Block(
                np.array([self._channels, width, self._taps, self._dilation, tile]),
                self._slope, x.numpy(), self._weights, self._starts, self._bias, *added, made,
                np.empty((threads, (tile + reach) * self._channels), np.float32),
            )  # fmt: skip
            _team.run(kernel("convolution"), threads, block)
        return torch.from_numpy(made)[:, : self.outputs].reshape(frames * self._stride, -1)


def _phases(weight: Float[Tensor, "I O K"], stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """A transposed convolution as a plain one with the outputs of `stride` frames: taps [stride * O, K', I], and the first of each."""
    size = weight.shape[2]
    count = -(-size // stride)
    taps, starts = [], []
    for phase in range(stride):
        last = (phase + padding) % stride  # of the tap that meets the latest frame
        frame = (phase + padding - last) // stride
        places = [last + stride * back for back in reversed(range(count))]
        known = [weight[:, :, place] if place < size else torch.zeros_like(weight[:, :, 0]) for place in places]
        taps.append(torch.stack(known).permute(2, 0, 1))
        starts.append(torch.full((weight.shape[1],), frame - count + 1))
    return torch.cat(taps), torch.cat(starts)
