"""SEANet encoder of the published tokenizer: waveform to latents (CHECKPOINTS.md 3.6).

wav [B, 1, S] in [-1, 1] -> latents [B, D, ceil(S / hop)], hop = product of the strides. Strided convolutions with
one narrow residual unit before each, then an LSTM over frames. Source: EnCodec (arXiv 2210.13438), SEANet
(arXiv 2009.02095).
"""

import math
from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.conv import ReflectConv1d


class SeanetConfig(Config):
    """Size of the SEANet encoder; the defaults are what the published code fixes (CHECKPOINTS.md 2.1).

    Attributes:
        strides: of the downsampling convolutions, first one first; each kernel is twice its stride.
        base_channels: after the first convolution; every stage doubles them.
        kernel_size: of the first convolution.
        last_kernel_size: of the last convolution.
        residual_kernel_size: of the first convolution in a residual unit.
        num_residual_layers: residual units before each downsampling.
        dilation_base: the n-th residual unit of a stage is dilated by this to the power n.
        compress: factor by which a residual unit narrows its channels.
        num_lstm_layers: of the LSTM over frames.
    """

    kind: Literal["seanet"] = "seanet"
    strides: tuple[int, ...] = Field(min_length=1)
    base_channels: int = Field(default=32, gt=0)
    kernel_size: int = Field(default=7, gt=0)
    last_kernel_size: int = Field(default=7, gt=0)
    residual_kernel_size: int = Field(default=3, gt=0)
    num_residual_layers: int = Field(default=1, gt=0)
    dilation_base: int = Field(default=2, gt=0)
    compress: int = Field(default=2, gt=0)
    num_lstm_layers: int = Field(default=2, gt=0)

    @property
    def hop_length(self) -> int:
        """Samples per latent frame."""
        return math.prod(self.strides)


class ResidualUnit(nn.Module):
    """A narrow dilated convolution and a pointwise one, beside a pointwise shortcut."""

    def __init__(self, channels: int, hidden: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ELU(),
            ReflectConv1d(channels, hidden, kernel_size, dilation=dilation),
            nn.ELU(),
            ReflectConv1d(hidden, channels, 1),
        )
        self.shortcut = ReflectConv1d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "B D T"]) -> Float[Tensor, "B D T"]:
        """[B, D, T] to the same shape."""
        return self.shortcut(x) + self.block(x)


class ResidualLSTM(nn.Module):
    """One-directional LSTM over frames from a zero state, added to its input."""

    def __init__(self, dim: int, num_layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, num_layers, batch_first=True)

    def forward(self, x: Float[Tensor, "B D T"]) -> Float[Tensor, "B D T"]:
        """[B, D, T] to the same shape."""
        return self.lstm(x.mT)[0].mT + x


class SeanetEncoder(nn.Module):
    """wav [B, 1, S] -> latents [B, latent_dim, ceil(S / config.hop_length)].

    The LSTM carries every earlier frame into each latent, so there is no finite receptive field.
    """

    def __init__(self, config: SeanetConfig, latent_dim: int) -> None:
        super().__init__()
        channels = config.base_channels
        # one flat list: its indices are those of the published tensor names
        layers: list[nn.Module] = [ReflectConv1d(1, channels, config.kernel_size)]
        for stride in config.strides:
            for index in range(config.num_residual_layers):
                dilation = config.dilation_base**index
                hidden = channels // config.compress
                layers.append(ResidualUnit(channels, hidden, config.residual_kernel_size, dilation))
            layers += [nn.ELU(), ReflectConv1d(channels, 2 * channels, 2 * stride, stride)]
            channels *= 2
        layers += [ResidualLSTM(channels, config.num_lstm_layers), nn.ELU()]
        layers.append(ReflectConv1d(channels, latent_dim, config.last_kernel_size))
        self.layers = nn.Sequential(*layers)

    def forward(self, wav: Float[Tensor, "B 1 S"]) -> Float[Tensor, "B D T"]:
        """Encode; the last, partial hop counts as a frame."""
        return self.layers(wav)
