"""Mel filter banks and log-mel spectrograms (Slaney scale and area normalisation, as librosa's default)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def mel_filters(sample_rate: int, n_fft: int, num_mels: int, f_max: float | None = None) -> Float[Tensor, "M F"]:
    """Triangular filters [num_mels, n_fft / 2 + 1] from 0 Hz to `f_max` (default: half the sample rate)."""
    top = _hz_to_mel(torch.tensor(f_max or sample_rate / 2, dtype=torch.float64))
    edges = _mel_to_hz(torch.linspace(0, float(top), num_mels + 2, dtype=torch.float64))
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    area = 2.0 / (edges[2:] - edges[:-2])
    return (torch.minimum(rising, falling).clamp_min(0) * area[:, None]).float()


def _hz_to_mel(hz: Tensor) -> Tensor:
    return torch.where(
        hz < 1000, hz * 3 / 200, 15 + 27 * torch.log(hz.clamp_min(1e-9) / 1000) / torch.tensor(6.4).log()
    )


def _mel_to_hz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp(torch.tensor(6.4).log() / 27 * (mel - 15)))


class MelSpectrogram(nn.Module):
    """Magnitude STFT (Hann, centred, zero padded) and its mel bands."""

    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, n_fft: int, hop_length: int, num_mels: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", mel_filters(sample_rate, n_fft, num_mels), persistent=False)

    def spectrum(self, wav: Float[Tensor, "B S"]) -> Tensor:
        """Complex STFT [B, F, T]."""
        return torch.stft(
            wav, self.n_fft, self.hop_length, window=self.window, center=True, pad_mode="constant", return_complex=True
        )

    def forward(self, magnitude: Float[Tensor, "B F T"]) -> Float[Tensor, "B M T"]:
        """Mel bands of a magnitude spectrum."""
        return self.filters @ magnitude
