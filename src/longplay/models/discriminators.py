"""Discriminators for the GAN training of `tokenizer` and `codec`: multi-period and multi-resolution.

Source: HiFi-GAN (arXiv 2010.05646, periods), UnivNet (arXiv 2106.07889, resolutions); widths are configurable so
that a small pair trains on a CPU.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from longplay.config import Config

SLOPE = 0.1
FLOOR = 0.1  # magnitude of a partial at about -75 dB of full scale, for a size of 2,048


class DiscriminatorConfig(Config):
    """Which there are.

    Attributes:
        periods: in samples.
        n_ffts: STFT sizes.
        channels: width of the first layer.
        phase: whether those of an STFT see phases. A decoder that derives its phases from magnitudes is found out by them,
            whatever it makes: for such, no periods, and magnitudes alone.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    n_ffts: tuple[int, ...] = (2048, 1024, 512)
    channels: int = 32
    phase: bool = True

    @model_validator(mode="after")
    def _blind_to_phases(self) -> "DiscriminatorConfig":
        if self.periods and not self.phase:
            raise ValueError("phase = false: samples show phases too; set periods to []")
        return self


class PeriodDiscriminator(nn.Module):
    """Looks at every `period`-th sample through 2-D convolutions over time."""

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, channels * 4, channels * 8, channels * 8]
        self.convs = nn.ModuleList(weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0))) for a, b in pairwise(widths))
        self.score = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, wav: Float[Tensor, "B 1 S"]) -> list[Tensor]:
        """Feature maps, the last one the scores."""
        x = F.pad(wav, (0, -wav.shape[-1] % self.period)).unflatten(-1, (-1, self.period))  # [B, 1, S / p, p]
        maps = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
            maps.append(x)
        return [*maps, self.score(x)]


class ResolutionDiscriminator(nn.Module):
    """Looks at the STFT of one size, or the logarithm of its magnitudes, through 2-D convolutions over time and frequency."""

    window: Tensor

    def __init__(self, n_fft: int, channels: int, phase: bool = True) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.phase = phase
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        widths = [2 if phase else 1, channels, channels, channels, channels]
        self.convs = nn.ModuleList(weight_norm(nn.Conv2d(a, b, (3, 9), (1, 2), (1, 4))) for a, b in pairwise(widths))
        self.score = weight_norm(nn.Conv2d(widths[-1], 1, (3, 3), 1, (1, 1)))

    def forward(self, wav: Float[Tensor, "B 1 S"]) -> list[Tensor]:
        """Feature maps, the last one the scores."""
        spectrum = torch.stft(
            wav[:, 0].float(), self.n_fft, self.n_fft // 4, window=self.window, return_complex=True, pad_mode="constant"
        )
        parts = torch.view_as_real(spectrum)
        if not self.phase:
            parts = (parts.square().sum(-1, keepdim=True).add(FLOOR**2).log()).mul(0.5)
        x = parts.permute(0, 3, 2, 1)  # [B, 2 or 1, T, F]
        maps = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
            maps.append(x)
        return [*maps, self.score(x)]


class Discriminators(nn.Module):
    """All of them side by side."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            [PeriodDiscriminator(period, config.channels) for period in config.periods]
            + [ResolutionDiscriminator(n_fft, config.channels, config.phase) for n_fft in config.n_ffts]
        )

    def forward(self, wav: Float[Tensor, "B 1 S"]) -> list[list[Tensor]]:
        """One list of feature maps for each discriminator."""
        return [member(wav) for member in self.members]
